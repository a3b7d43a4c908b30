//! All pairs once, as a test; or often, as a table.

use std::{env, slice};

use super::{
    Outcome, ROUND_TRIP_MS, Run, Stage,
    pairs::{ALWAYS, CHANCY, EASY, HARD, Opening, Pair, Promise},
};

#[test]
fn what_plain_probes_open_opens() {
    once(EASY);
}

#[test]
fn what_can_be_guessed_opens_and_the_rest_is_told_so() {
    once(HARD);
}

/// Each pair once, all in one lab. The machine may have other work, so times are not held.
fn once(pairs: &[Pair]) {
    let Some(stage) = Stage::new() else { return };
    let places: Vec<_> = pairs.iter().map(|pair| (pair.place)(&stage.world.lab)).collect();
    let services: Vec<_> = (0..pairs.len()).map(|number| format!("pair-{number}:v1")).collect();
    let named: Vec<_> = places.iter().zip(services.iter().map(String::as_str)).collect();
    let servers = stage.serve(&named);
    let mut broken = Vec::new();
    for ((pair, (place, service)), server) in pairs.iter().zip(&named).zip(&servers) {
        let run = stage.run(place, server, service);
        eprintln!("{}: {}", pair.name, row(slice::from_ref(&run)));
        if !has_kept(pair.promise, &run.first) || !has_kept(pair.promise, &run.again) {
            broken.push(format!("{}: {run:#?}", pair.name));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// Whether it opened, or was told what it should be told.
fn has_kept(promise: Promise, outcome: &Outcome) -> bool {
    match (promise, outcome) {
        (Promise::Opens(_), Outcome::Connected { .. }) => true,
        (Promise::Told { .. }, Outcome::Failed { code, .. }) => code == "nat_incompatible",
        (Promise::Opens(_), Outcome::Failed { .. })
        | (Promise::Told { .. }, Outcome::Connected { .. }) => false,
    }
}

#[test]
fn the_table_of_all_pairs() {
    let Ok(runs) = env::var("P2P_NODE_KERNEL_RUNS") else {
        eprintln!(
            "SKIPPED: it takes minutes: P2P_NODE_KERNEL_RUNS=20 says how often each pair runs"
        );
        return;
    };
    let runs: usize = runs.parse().expect("a number of runs");
    let chosen = env::var("P2P_NODE_KERNEL_CELLS").unwrap_or_default();
    println!("{HEAD}");
    let mut broken = Vec::new();
    for pair in EASY.iter().chain(HARD).chain(CHANCY).filter(|pair| pair.name.contains(&chosen)) {
        let Some(stage) = Stage::new() else { return };
        let place = (pair.place)(&stage.world.lab);
        let mut results = Vec::new();
        for number in 0..runs {
            let service = format!("run-{number}:v1");
            // What the run before has opened would fill a block for two minutes more.
            place.forget_everything();
            let servers = stage.serve(&[(&place, &service)]);
            results.extend(servers.iter().map(|server| stage.run(&place, server, &service)));
        }
        println!("| {} | {} |", pair.name, row(&results));
        let is_broken = |run: &&Run| {
            ![&run.first, &run.again].into_iter().all(|outcome| has_kept(pair.promise, outcome))
        };
        for run in results.iter().filter(is_broken) {
            eprintln!("{}: {run:#?}", pair.name);
        }
        broken.extend(complaints(pair, &results));
    }
    assert!(broken.is_empty(), "not as promised:\n{}", broken.join("\n"));
}

const HEAD: &str = "\
Times are medians / the worst, in milliseconds from `connect`; in brackets medians in round trips of 80 ms.

| client × server | first: linked | path | link | again: linked | offers by a helper | path | link | datagrams |
|---|---|---|---|---|---|---|---|---|";

/// The cells of a pair beside its name.
fn row(runs: &[Run]) -> String {
    let [first, again] = [0, 1]
        .map(|dial| runs.iter().map(|run| [&run.first, &run.again][dial]).collect::<Vec<_>>());
    let linked = |outcomes: &[&Outcome]| {
        let count = outcomes.iter().filter(|outcome| outcome.is_linked()).count();
        format!("{count}/{}", outcomes.len())
    };
    let by_helper = again.iter().filter(|outcome| outcome.is_by_helper()).count();
    let columns = [
        linked(&first),
        times(&first, Outcome::path_ms),
        times(&first, Outcome::end_ms),
        linked(&again),
        format!("{by_helper}/{}", again.len()),
        times(&again, Outcome::path_ms),
        times(&again, Outcome::end_ms),
        [0, 1].map(|side| median(&sent(&again, side)).to_string()).join(" / "),
    ];
    columns.join(" | ")
}

fn sent(outcomes: &[&Outcome], side: usize) -> Vec<f64> {
    let datagrams = |outcome: &&Outcome| match **outcome {
        Outcome::Connected { datagrams, .. } | Outcome::Failed { datagrams, .. } => datagrams,
    };
    outcomes.iter().map(datagrams).map(|datagrams| f64::from(datagrams[side])).collect()
}

fn times(outcomes: &[&Outcome], time: fn(&Outcome) -> Option<f64>) -> String {
    let times: Vec<f64> = outcomes.iter().filter_map(|outcome| time(outcome)).collect();
    if times.is_empty() {
        return "–".into();
    }
    let (median, worst) = (median(&times), worst(&times));
    format!("{median:.0} / {worst:.0} ({:.2})", median / ROUND_TRIP_MS)
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn worst(numbers: &[f64]) -> f64 {
    numbers.iter().copied().fold(0.0, f64::max)
}

/// What was promised of the second dial and not kept.
fn complaints(pair: &Pair, runs: &[Run]) -> Vec<String> {
    let again: Vec<_> = runs.iter().map(|run| &run.again).collect();
    let paths: Vec<f64> = again.iter().filter_map(|outcome| outcome.path_ms()).collect();
    let ends: Vec<f64> = again.iter().filter_map(|outcome| outcome.end_ms()).collect();
    let wanted = match pair.promise {
        Promise::Opens(opening) => opening,
        Promise::Told { within_ms } => Opening { link_median_ms: within_ms, ..ALWAYS },
    };
    let mut complaints = Vec::new();
    let is_missed = |run: &&Run| !has_kept(pair.promise, &run.again);
    let missed = 100 * runs.iter().filter(is_missed).count() / runs.len();
    let allowed = 100 - usize::from(wanted.percent);
    if missed > allowed {
        complaints.push(format!("{}: {missed} % missed, {allowed} % allowed", pair.name));
    }
    let mut hold = |what: &str, value: f64, limit: f64| {
        if value > limit {
            complaints.push(format!("{}: {what} {value}, promised {limit}", pair.name));
        }
    };
    hold("median link or answer after, ms,", median(&ends), wanted.link_median_ms);
    if !paths.is_empty() {
        hold("median path after, ms,", median(&paths), wanted.path_median_ms);
        hold("worst path after, ms,", worst(&paths), wanted.worst_ms);
    }
    complaints
}

impl Outcome {
    fn is_linked(&self) -> bool {
        matches!(self, Self::Connected { .. })
    }

    fn is_by_helper(&self) -> bool {
        matches!(
            self,
            Self::Connected { by_helper: true, .. } | Self::Failed { by_helper: true, .. }
        )
    }

    fn path_ms(&self) -> Option<f64> {
        match self {
            Self::Connected { path_ms, .. } => *path_ms,
            Self::Failed { .. } => None,
        }
    }

    /// When the client knew: had its link, or a failure.
    fn end_ms(&self) -> Option<f64> {
        match self {
            Self::Connected { link_ms, .. } => Some(*link_ms),
            Self::Failed { after_ms, .. } => Some(*after_ms),
        }
    }
}
