//! What the shared socket and the link cost: the same work over them and over quinn alone, in turns in
//! one run, because on a machine that others use only ratios mean anything. Then the codecs.
//!
//! ```text
//! cargo bench --bench transport
//! P2P_NODE_BENCH_ROUNDS=3 cargo bench --bench transport -- 'probe'
//! P2P_NODE_BENCH_ROWS='node: request' cargo bench --bench transport -- 'probe'
//! ```
//!
//! Everything runs on loopback. Both ends of each connection are in this process, on two threads.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench is run by hand, and prints"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a bench reads the clock and opens sockets of its own"
)]

mod codecs;
mod compare;
mod linked;
mod nodes;
mod raw;

use std::{env, time::Duration};

use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(1))
        .warm_up_time(Duration::from_millis(300))
        .sample_size(30)
        .configure_from_args();
    let is_measured = env::args().any(|argument| argument == "--bench");
    if is_measured && !env::args().any(|argument| argument == "--list") {
        let rounds = env::var("P2P_NODE_BENCH_ROUNDS")
            .map_or(ROUNDS, |rounds| rounds.parse().expect("P2P_NODE_BENCH_ROUNDS is a number"));
        let filter = env::var("P2P_NODE_BENCH_ROWS").unwrap_or_default();
        compare::print(rounds, &filter);
    }
    codecs::measure(&mut criterion);
    criterion.final_summary();
}

/// Rounds of each comparison: enough for a median that others on the machine do not decide.
const ROUNDS: usize = 9;
