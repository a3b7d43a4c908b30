//! How long a punch takes, for every pair of NATs that plain probes open: whole nodes on the simulated
//! internet, in virtual time, so the first table is the same wherever it is made.
//!
//! ```text
//! cargo bench --bench punch_latency
//! P2P_NODE_BENCH_SEEDS=100 cargo bench --bench punch_latency -- 'home × home'
//! ```
//!
//! Criterion then measures what one dial costs in real time, which is CPU time here: one thread that
//! never waits. Both nodes and the simulated internet are in it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "a bench is run by hand, prints, and waits for some events of many"
)]

mod dial;
// The harness of the tests: stories use more of it than figures do.
#[path = "../../tests/internet/multicast.rs"]
mod multicast;
#[allow(dead_code)]
#[path = "../../tests/internet/peer.rs"]
mod peer;
mod side;
mod table;
#[allow(dead_code)]
#[path = "../../tests/internet/world.rs"]
mod world;

use std::{env, time::Duration};

use criterion::{BenchmarkId, Criterion};

use dial::{Dialled, dial};
use side::{Pair, Side};

fn main() {
    let mut criterion = Criterion::default()
        .measurement_time(Duration::from_secs(2))
        .warm_up_time(Duration::from_millis(500))
        .sample_size(20)
        .configure_from_args();
    // A test run only has to show that the dials work; a list has to stay a list.
    let is_measured = env::args().any(|argument| argument == "--bench");
    if is_measured && !env::args().any(|argument| argument == "--list") {
        table::print(seeds());
    }
    real_time_of_dials(&mut criterion);
    criterion.final_summary();
}

/// The seeds of the table's runs, from 0 to this.
fn seeds() -> u64 {
    env::var("P2P_NODE_BENCH_SEEDS")
        .map_or(SEEDS, |seeds| seeds.parse().expect("P2P_NODE_BENCH_SEEDS is a number"))
}

fn real_time_of_dials(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("real time of a dial");
    for pair in [
        (Side::Open, Side::Open),
        (Side::PortRestricted, Side::PortRestricted),
        (Side::CarrierAndHome, Side::CarrierAndHome),
        (Side::Symmetric, Side::AddressRestricted),
    ] {
        let pair = Pair { client: pair.0, server: pair.1 };
        group.bench_with_input(BenchmarkId::from_parameter(pair), &pair, |bencher, pair| {
            bencher.iter_custom(|dials| {
                let cost = |seed| match dial(*pair, 0.0, seed) {
                    Dialled::Delivered(times) => times.real_time,
                    Dialled::Failed(failure) => panic!("{pair}: {failure:?}"),
                };
                (0..dials).map(cost).sum()
            });
        });
    }
    group.finish();
}

/// Enough for a median; the 99th percentile of so few is the worst of them.
const SEEDS: u64 = 20;
