//! How long a punch takes, for every pair of NATs: whole nodes on the simulated internet, in virtual time, so
//! the tables are the same wherever they are made.
//!
//! ```text
//! cargo bench --bench punch_latency                       # prints the tables, then what a dial costs in CPU time
//! cargo bench --bench punch_latency -- --record           # writes figures, tables and heat map into benches/
//! cargo bench --bench punch_latency -- --redraw           # the last two again, from the figures that are there
//! P2P_NODE_BENCH_SEEDS=200 cargo bench --bench punch_latency -- --record
//! P2P_NODE_BENCH_ROWS='loss: ' cargo bench --profile dev --bench punch_latency    # some rows, without waiting for a build
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "a bench is run by hand, prints, and waits for some events of many"
)]

mod cost;
mod dial;
mod homes;
mod measure;
// The harness of the tests: stories use more of it than figures do.
#[path = "../../tests/internet/multicast.rs"]
mod multicast;
#[allow(dead_code)]
#[path = "../../tests/internet/peer.rs"]
mod peer;
mod report;
#[path = "../../tests/internet/served.rs"]
mod served;
#[allow(dead_code)]
#[path = "../../tests/internet/world.rs"]
mod world;

use std::{env, fs, path::PathBuf};

use report::{documents, figures::Figures};

fn main() {
    let has = |flag: &str| env::args().any(|argument| argument == flag);
    if has("--record") {
        let figures = measure::measure(seeds(), "");
        write(documents::FIGURES, &figures.encode());
        draw(&figures);
    } else if has("--redraw") {
        draw(
            &Figures::decode(&read(documents::FIGURES)).expect("the file was written by --record"),
        );
    } else {
        // A test run only has to show that the dials work; a list has to stay a list.
        if has("--bench") && !has("--list") {
            let shown = match env::var("P2P_NODE_BENCH_ROWS") {
                Ok(wanted) => documents::listed(&measure::measure(seeds(), &wanted)),
                Err(_) => documents::printed(&measure::measure(seeds(), "")),
            };
            println!("{shown}");
        }
        cost::measure();
    }
}

/// Writes what follows from the figures.
fn draw(figures: &Figures) {
    let document = documents::written(&read(documents::README), figures);
    write(documents::README, &document.expect("the document has the marks"));
    write(documents::HEAT_MAP, &documents::heat_map(figures));
}

fn read(path: &str) -> String {
    fs::read_to_string(at_root(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn write(path: &str, text: &str) {
    fs::write(at_root(path), text).unwrap_or_else(|error| panic!("{path}: {error}"));
    eprintln!("{path} is written");
}

fn at_root(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), path].iter().collect()
}

/// Each dial of a table has one of the seeds from 0 to this.
fn seeds() -> u64 {
    env::var("P2P_NODE_BENCH_SEEDS")
        .map_or(SEEDS, |seeds| seeds.parse().expect("P2P_NODE_BENCH_SEEDS is a number"))
}

/// Enough for a median; the 99th percentile of so few is the worst of them.
const SEEDS: u64 = 50;
