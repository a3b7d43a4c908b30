//! The main use of the program: a node that is driven over stdin and stdout.

#[cfg(unix)]
use std::os::fd::AsFd;
#[cfg(windows)]
use std::os::windows::io::AsHandle;
use std::{
    fs::File,
    io::{self, IsTerminal, Read, Stdout, Write},
    process::ExitCode,
};

use p2p_node::{
    bridge::{self, Io, Notation, Options, exit, terminal},
    entropy::Entropy,
    failure::{Code, Failure},
    node::clock::Clock,
};
use tokio::runtime;

use crate::{
    args::{Colour, RunArgs, Stdio},
    exit::complain,
    launch::{self, Held, Standing},
    panics, parent, peer_name, prompt, signals,
    watchdog::Watchdog,
};

/// Runs a node until its user wants no more.
pub(crate) fn run(args: RunArgs, colour: Colour, watchdog: &Watchdog) -> ExitCode {
    block_on(async { ExitCode::from(session(args, colour, watchdog).await) })
}

/// Runs `program`: all its tasks on this thread, so that none of them has to wake another thread. What blocks, reads
/// or writes has threads of its own.
pub(crate) fn block_on(program: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&Failure::new(Code::Internal, "no threads").because(error.to_string()));
            return ExitCode::from(exit::INTERNAL);
        }
    };
    let code = runtime.block_on(program);
    // Whatever a task still waits for, the process ends now.
    runtime.shutdown_background();
    code
}

async fn session(args: RunArgs, colour: Colour, watchdog: &Watchdog) -> u8 {
    let (ends, signals) = signals::listen(watchdog.clone());
    panics::tell(ends.clone());
    parent::watch(args.parent, ends);
    let (input, output, notation) = speak(args.stdio, colour);
    let io = Io { input, output, signals };
    let connect = args.connect.as_ref().map(peer_name::read).transpose();
    let watchdog = watchdog.clone();
    let options = Options {
        notation,
        role: args.mode,
        pid: std::process::id(),
        service: args.node.service.clone(),
        connect: connect.clone().unwrap_or_default(),
        stdin_eof: args.stdin_eof,
        ending: Box::new(move |limit| watchdog.arm(limit, exit::INTERNAL)),
        nearby: launch::nearby(args.mode, args.node.service.clone()),
        entropy: Entropy::from_system(),
        grease: args.grease.then(Entropy::from_system),
        clock: Clock::system(),
    };
    let mut held = Held::default();
    let start = async {
        let standing = Standing::Named(connect?);
        launch::start(args.node, args.mode, standing, &mut held).await
    };
    bridge::run(io, options, start).await
}

/// What is read and written, and how: for people on a terminal, for programs elsewhere.
fn speak(stdio: Stdio, colour: Colour) -> (Box<dyn Read + Send>, Box<dyn Write + Send>, Notation) {
    let (input, output) = (io::stdin(), io::stdout());
    let is_terminal = input.is_terminal() && output.is_terminal();
    let render = match colour.is_for(&output) {
        true => terminal::coloured,
        false => terminal::plain,
    };
    match (stdio, is_terminal) {
        (Stdio::Json, _) | (Stdio::Auto, false) => {
            (Box::new(input), unbuffered(output), Notation::Lines)
        }
        (Stdio::Protobuf, _) => (Box::new(input), unbuffered(output), Notation::Frames),
        (Stdio::Auto | Stdio::Text, true) if can_erase() => {
            let (input, output) = prompt::between(input, output);
            (Box::new(input), Box::new(output), Notation::Terminal(render))
        }
        (Stdio::Auto | Stdio::Text, _) => {
            (Box::new(input), Box::new(output), Notation::Terminal(render))
        }
    }
}

/// Stdout without the buffer of the standard library: the bridge writes whole batches, and a buffer that looks for
/// the end of a line would cut each in two. Where there is no stdout, the standard library's ignores what is written.
fn unbuffered(output: Stdout) -> Box<dyn Write + Send> {
    #[cfg(unix)]
    let file = output.as_fd().try_clone_to_owned().map(File::from);
    #[cfg(windows)]
    let file = output.as_handle().try_clone_to_owned().map(File::from);
    match file {
        Ok(file) => Box::new(file),
        Err(_) => Box::new(output),
    }
}

/// Whether the terminal understands what a prompt needs.
fn can_erase() -> bool {
    std::env::var_os("TERM").is_some_and(|name| !name.is_empty() && name != "dumb")
}
