//! The bridge from outside: whole sessions over pipes with a node that is not there, fed with promises and
//! with nonsense; and the real program, as far as it says something before it meets anybody.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]
#![allow(
    clippy::disallowed_methods,
    reason = "real programs take real time, and waits for them have deadlines"
)]

#[path = "../../benches/stdio/echo.rs"]
mod echo;
mod noise;
mod program;
#[path = "../datagrams/seed.rs"]
mod seed;
mod session;

use std::{
    io::{self, PipeReader, PipeWriter, Write},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use p2p_node::{
    bridge::{Io, Notation, Options, run},
    entropy::Entropy,
    node::{Role, clock::Clock},
    time::UnixMillis,
};

/// Long enough for a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(30);

/// A session that runs on a thread of its own.
struct Session {
    stdin: PipeWriter,
    stdout: PipeReader,
    hands: echo::Hands,
    exit_code: Receiver<u8>,
}

fn options(notation: Notation) -> Options {
    let clock = Clock::starting_at(UnixMillis(1_763_820_000_000));
    Options::new(notation, Role::Server, Entropy::from_seed(1), clock)
}

impl Session {
    fn new(options: Options) -> Self {
        let (input, stdin) = io::pipe().unwrap();
        let (stdout, output) = io::pipe().unwrap();
        let (give_hands, hands) = channel();
        let (give_code, exit_code) = channel();
        thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            let code = runtime.block_on(async move {
                let (started, hands) = echo::start();
                give_hands.send(hands).map_err(|_| ()).unwrap();
                let (_signals, signals) = tokio::sync::mpsc::channel(1);
                run(Io { input, output, signals }, options, async { Ok(started) }).await
            });
            give_code.send(code).unwrap();
        });
        Self { stdin, stdout, hands: hands.recv().unwrap(), exit_code }
    }

    /// Writes all of `input`, closes stdin, and reads to the end; returns stdout and the exit code.
    fn play(self, input: Vec<u8>) -> (Vec<u8>, u8) {
        let Self { mut stdin, mut stdout, hands, exit_code } = self;
        // A session that ends early stops reading.
        let writer = thread::spawn(move || drop(stdin.write_all(&input)));
        let mut output = Vec::new();
        io::Read::read_to_end(&mut stdout, &mut output).unwrap();
        writer.join().unwrap();
        let code = exit_code.recv_timeout(PATIENCE).expect("the session ends");
        drop(hands);
        (output, code)
    }
}
