//! What a dial costs in CPU time, by criterion: one thread that never waits runs it all, from `send` to the
//! answer. Both nodes, TLS and the simulated internet are in it.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, SamplingMode};

use crate::{
    dial::dial,
    report::{
        figures::Scene,
        side::{Pair, Side},
    },
};

pub(crate) fn measure() {
    let mut criterion = Criterion::default()
        .measurement_time(MEASURED)
        .warm_up_time(Duration::from_millis(100))
        .sample_size(10)
        .configure_from_args();
    let mut group = criterion.benchmark_group("CPU time of a dial by a helper");
    group.sampling_mode(SamplingMode::Flat);
    for pair in [
        Pair::both(Side::Open),
        Pair::both(Side::PortRestricted),
        Pair::both(Side::CarrierAndHome),
        Pair::new(Side::PortRestricted, Side::Sequential),
        Pair::new(Side::PortRestricted, Side::Random),
        Pair::new(Side::Random, Side::PortRestricted),
        Pair::both(Side::Block),
    ] {
        group.bench_with_input(BenchmarkId::from_parameter(pair), &pair, |bencher, pair| {
            bencher.iter_custom(|dials| {
                // Dials that are not linked cost time, too.
                (0..dials).map(|seed| dial(Scene::Helper, *pair, seed).real_time).sum()
            });
        });
    }
    group.finish();
    criterion.final_summary();
}

/// Of dials alone: to make their worlds takes ten times as long, and is not counted.
const MEASURED: Duration = Duration::from_millis(500);
