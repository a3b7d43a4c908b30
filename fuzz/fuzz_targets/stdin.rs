//! Whatever stdin says, in either notation: codecs and a whole session with a node that is not there.
//!
//! The first byte of the input chooses the notation. `tests/stdio/noise.rs` does a bounded part of this in
//! every test run.

#![no_main]

#[path = "../../benches/stdio/echo.rs"]
mod echo;

use std::io::{Cursor, sink};

use libfuzzer_sys::fuzz_target;
use p2p_node::{
    bridge::{Io, Notation, Options, run},
    entropy::Entropy,
    node::{Role, clock::Clock},
    time::UnixMillis,
};

fuzz_target!(|input: &[u8]| {
    let Some((&choice, bytes)) = input.split_first() else {
        return;
    };
    let notation = if choice % 2 == 0 { Notation::Lines } else { Notation::Frames };
    let clock = Clock::starting_at(UnixMillis(1_763_820_000_000));
    let mut options = Options::new(notation, Role::Server, Entropy::from_seed(1), clock);
    options.grease = (choice % 3 == 0).then(|| Entropy::from_seed(2));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("the system gives a runtime");
    runtime.block_on(async {
        let (started, _hands) = echo::start();
        let (_signals, signals) = tokio::sync::mpsc::channel(1);
        let io = Io { input: Cursor::new(bytes.to_vec()), output: sink(), signals };
        run(io, options, async { Ok(started) }).await
    });
});
