//! The `p2p-node` program: reads its arguments and hands over to what they ask for.

mod args;
mod defaults;
mod demo;
mod exit;
mod handoff;
mod identity_file;
mod lock;
mod logging;
mod offline;
mod private;
mod run;
mod signals;
mod start;
mod testnet;

use std::{panic, process::ExitCode};

use args::{Action, Args};

fn main() -> ExitCode {
    let args = Args::read();
    logging::start(args.filter);
    // A panic has told its story on stderr by then; 1 is the exit code of a bug.
    panic::catch_unwind(|| match args.action {
        Action::Run(args) => run::run(*args),
        Action::Id { identity } => exit::report(offline::id(identity)),
        Action::Ticket { identity, addrs } => exit::report(offline::ticket(identity, addrs)),
        Action::Demo(args) => run::block_on(demo::demo(args)),
        Action::Testnet(args) => run::block_on(testnet::testnet(args)),
    })
    .unwrap_or(ExitCode::FAILURE)
}
