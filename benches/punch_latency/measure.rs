//! Dials every pair of every scene with many seeds, on as many threads as there are cores. Each dial has a
//! world and a virtual time of its own, so the figures are the same on any machine.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZero,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use crate::{
    dial::{Dialled, dial},
    report::{
        figures::{Figures, Moment, Row, Scene, Spread},
        side::Pair,
    },
};

/// What dialling with the seeds below `seeds` comes to, in the rows whose names contain `wanted`.
pub(crate) fn measure(seeds: u64, wanted: &str) -> Figures {
    let mut rows = Vec::new();
    for scene in Scene::ALL {
        for pair in scene.pairs() {
            if format!("{}: {pair}", scene.key()).contains(wanted) {
                rows.push(row(scene, pair, seeds));
            }
        }
    }
    Figures { rows }
}

fn row(scene: Scene, pair: Pair, seeds: u64) -> Row {
    let dialled = dial_all(scene, pair, seeds);
    for (seed, dialled) in (0..seeds).zip(&dialled) {
        if let Some(failure) = &dialled.failure {
            eprintln!("{scene:?}, {pair}, seed {seed}: {failure}");
        }
    }
    let at = |moment: Moment| {
        let times = dialled.iter().filter_map(|dialled| dialled.moments.get(&moment).copied());
        Some((moment, Spread::of(times.collect())?))
    };
    let sent = |side: usize| {
        let counts = dialled.iter().map(|dialled| dialled.datagrams[side]);
        Spread::of(counts.collect()).expect("there is a seed at least")
    };
    let failures = dialled.iter().filter_map(|dialled| dialled.failure.as_ref());
    let codes: BTreeSet<&str> = failures.map(|failure| failure.code.as_str()).collect();
    Row {
        scene,
        pair,
        dials: dialled.len(),
        opened: dialled.iter().filter(|dialled| dialled.failure.is_none()).count(),
        moments: Moment::ALL.into_iter().filter_map(at).collect(),
        datagrams: [sent(0), sent(1)],
        codes: codes.into_iter().map(ToOwned::to_owned).collect(),
    }
}

/// In the order of the seeds, whichever thread took which.
fn dial_all(scene: Scene, pair: Pair, seeds: u64) -> Vec<Dialled> {
    let next = AtomicU64::new(0);
    let take = || {
        let mut own = BTreeMap::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds {
                return own;
            }
            own.insert(seed, dial(scene, pair, seed));
        }
    };
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut all = BTreeMap::new();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(take)).collect();
        for worker in workers {
            all.extend(worker.join().expect("a dial that panics has said why"));
        }
    });
    all.into_values().collect()
}
