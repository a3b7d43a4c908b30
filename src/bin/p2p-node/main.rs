//! The `p2p-node` program: reads its arguments and hands over to what they ask for.

mod args;
mod defaults;
mod demo;
mod exit;
mod files;
mod generated;
mod handoff;
mod identity_file;
mod launch;
mod lock;
mod logging;
mod mdns;
mod network_changes;
mod offline;
mod oneshot;
mod outbox_file;
mod panics;
mod parent;
mod peer_name;
mod private;
mod prompt;
mod run;
mod signals;
mod start;
mod stderr;
mod testnet;
mod timeline;
mod watchdog;

use std::{panic, process::ExitCode, time::Duration};

use args::{Action, Args};
use p2p_node::bridge::exit as exit_codes;
use watchdog::Watchdog;

fn main() -> ExitCode {
    let Args { action, log } = Args::read();
    let colour = log.colour;
    logging::start(log);
    let Ok(watchdog) = Watchdog::start(end_now) else {
        // A system that gives no thread runs no node either.
        return ExitCode::from(exit_codes::INTERNAL);
    };
    panics::watch(watchdog.clone());
    // A panic has told its story on stderr by then; 1 is the exit code of a bug.
    let exit_code = panic::catch_unwind(|| match action {
        Action::Run(args) => run::run(*args, colour, &watchdog),
        Action::Send(args) => oneshot::send(*args, colour, &watchdog),
        Action::Listen(args) => oneshot::listen(*args, colour, &watchdog),
        Action::Connect(args) => oneshot::connect(*args, colour, &watchdog),
        Action::Ping(args) => oneshot::ping(*args, colour, &watchdog),
        Action::Netcheck(args) => oneshot::netcheck(*args, colour, &watchdog),
        Action::Id { identity } => exit::report(offline::id(identity)),
        Action::Ticket { identity, addrs } => exit::report(offline::ticket(identity, addrs)),
        Action::Schema { proto } => generated::schema(proto),
        Action::Completions(shell) => generated::completions(shell),
        Action::Man { directory } => generated::man(directory.as_deref()),
        Action::Demo(args) => run::block_on(demo::demo(args)),
        Action::Testnet(args) => run::block_on(testnet::testnet(args, watchdog.clone())),
    })
    .unwrap_or(ExitCode::FAILURE);
    stderr::flush(stderr::FLUSH_TIME_MAX);
    exit_code
}

/// The process has not ended in time by itself.
fn end_now(exit_code: u8) {
    if exit_code == exit_codes::INTERNAL {
        stderr::write(b"p2p-node: the end took too long, so the process is cut off\n");
    }
    stderr::flush(LAST_WORDS_TIME_MAX);
    std::process::exit(i32::from(exit_code));
}

/// For a line that explains why there are no more.
const LAST_WORDS_TIME_MAX: Duration = Duration::from_millis(100);
