//! The table of virtual times, in round trips between the peers.

use std::time::Duration;

use crate::{
    dial::{Dialled, Times, dial, dial_by_helper},
    side::{Pair, ROUND_TRIP, Side},
};

/// A dial in a world of its own: who dials whom, what the client's line loses, the seed.
type DialOnce = fn(Pair, f64, u64) -> Dialled;

/// Where a pair's clock starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The server lets anybody's first packet in: nothing has to be signalled.
    RecordKnown,
    /// The server has to be told.
    OfferRead,
}

impl Start {
    fn of(runs: &[Times]) -> Self {
        match runs.iter().any(|run| run.offer_read.is_some()) {
            true => Self::OfferRead,
            false => Self::RecordKnown,
        }
    }

    fn moment(self, run: &Times) -> Option<Duration> {
        match self {
            Self::RecordKnown => Some(run.record_known),
            Self::OfferRead => run.offer_read,
        }
    }
}

/// Dials every pair with the seeds below `seeds`, without loss and with, and prints what it took.
pub(crate) fn print(seeds: u64) {
    println!("# Virtual round trips of {ROUND_TRIP:?}, {seeds} seeds\n\n{LEGEND}\n\n{HEADER}");
    for pair in Pair::all_plain() {
        print_row(pair, "", seeds, (None, dial));
    }
    for pair in [
        Pair { client: Side::PortRestricted, server: Side::PortRestricted },
        Pair { client: Side::CarrierAndHome, server: Side::CarrierAndHome },
        Pair { client: Side::Symmetric, server: Side::AddressRestricted },
    ] {
        print_row(pair, ", with a helper", seeds, (Some(Start::RecordKnown), dial_by_helper));
    }
    println!();
}

/// One row; its clock starts where `start` says, or else where the pair's nature does.
fn print_row(pair: Pair, with: &str, seeds: u64, (start, dial): (Option<Start>, DialOnce)) {
    let (quiet, quiet_failed) = runs(pair, (0.0, dial), seeds);
    let (lossy, lossy_failed) = runs(pair, (0.15, dial), seeds);
    let start = start.unwrap_or_else(|| Start::of(&quiet));
    let from = match start {
        Start::RecordKnown => "record",
        Start::OfferRead => "offer",
    };
    println!(
        "| {pair}{with} | {from} | {} | {} | {} | {} | {} | {} | {}{} |",
        round_trips(&quiet, start, &[50, 99], |run| run.path),
        round_trips(&quiet, start, &[50, 99], |run| Some(run.link)),
        round_trips(&quiet, start, &[50, 99], |run| Some(run.delivered)),
        datagrams(&quiet),
        round_trips(&lossy, start, &[50, 90, 99], |run| Some(run.link)),
        round_trips(&lossy, start, &[50, 90, 99], |run| Some(run.delivered)),
        datagrams(&lossy),
        failures(quiet_failed + lossy_failed),
    );
}

/// The dials that delivered, and how many did not.
fn runs(pair: Pair, (loss, dial): (f64, DialOnce), seeds: u64) -> (Vec<Times>, usize) {
    let mut delivered = Vec::new();
    let mut failed = 0;
    for seed in 0..seeds {
        match dial(pair, loss, seed) {
            Dialled::Delivered(times) => delivered.push(*times),
            Dialled::Failed(failure) => {
                failed += 1;
                eprintln!("{pair}, loss {loss}, seed {seed}: {failure:?}");
            }
        }
    }
    (delivered, failed)
}

fn round_trips(
    runs: &[Times],
    start: Start,
    percents: &[usize],
    end: impl Fn(&Times) -> Option<Duration>,
) -> String {
    let since = |run: &Times| end(run)?.checked_sub(start.moment(run)?);
    let mut times: Vec<Duration> = runs.iter().filter_map(since).collect();
    times.sort_unstable();
    let in_round_trips = |time: &Duration| time.as_secs_f64() / ROUND_TRIP.as_secs_f64();
    let shown = percents.iter().map(|&percent| {
        percentile(&times, percent).map(|time| format!("{:.2}", in_round_trips(time)))
    });
    let shown: Option<Vec<String>> = shown.collect();
    shown.map_or_else(|| "–".to_owned(), |shown| shown.join(" / "))
}

fn datagrams(runs: &[Times]) -> String {
    let median = |side: fn(&Times) -> u64| {
        let mut counts: Vec<u64> = runs.iter().map(side).collect();
        counts.sort_unstable();
        percentile(&counts, 50).copied().unwrap_or_default()
    };
    let client = median(|run| run.datagrams[0]);
    format!("{client} / {}", median(|run| run.datagrams[1]))
}

fn failures(failed: usize) -> String {
    match failed {
        0 => String::new(),
        failed => format!("; {failed} FAILED"),
    }
}

/// By nearest rank; `sorted` goes from least to most.
fn percentile<T>(sorted: &[T], percent: usize) -> Option<&T> {
    sorted.get((sorted.len() * percent).div_ceil(100).checked_sub(1)?)
}

const LEGEND: &str = "\
From 'record known' where the server can be dialled unannounced or has a helper, else from 'offer read'.
Path, link, first message: median / 99th percentile; with loss median / 90th / 99th.
Datagrams: medians of those the client / the server sent from the dial's begin to the link.
15 % loss: of everything on the client's access line, each way.";

const HEADER: &str = "\
| client × server | from | path | link | first message | datagrams | link, 15 % loss | first message, 15 % loss | datagrams, 15 % loss |
|---|---|---|---|---|---|---|---|---|";
