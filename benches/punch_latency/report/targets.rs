//! The figures against what was aimed at.

use std::time::Duration;

use super::{
    figures::{Figures, Moment, Row, Scene},
    side::{Pair, Side},
    tables::{at, head, line, linked, milliseconds, round_trips},
};

/// A thing that was aimed at.
struct Target {
    what: &'static str,
    scene: Scene,
    pairs: &'static [Pair],
    aim: &'static str,
    show: fn(&Row) -> String,
}

const EASY: Side = Side::PortRestricted;

const TARGETS: [Target; 14] = [
    Target {
        what: "easy × easy: path, median",
        scene: Scene::Helper,
        pairs: &[Pair::both(EASY), Pair::both(Side::CarrierAndHome)],
        aim: "≤ 1.6 RTT",
        show: |row| median_trips(row, Moment::Path),
    },
    Target {
        what: "easy × easy: link, median",
        scene: Scene::Helper,
        pairs: &[Pair::both(EASY), Pair::both(Side::CarrierAndHome)],
        aim: "≤ 2.6 RTT",
        show: |row| median_trips(row, Moment::Link),
    },
    Target {
        what: "NATs that change the port: path, median",
        scene: Scene::Helper,
        pairs: &[Pair::both(Side::PortChanged)],
        aim: "≤ 1.6 RTT",
        show: |row| median_trips(row, Moment::Path),
    },
    Target {
        what: "NATs that change the port: link, median",
        scene: Scene::Helper,
        pairs: &[Pair::both(Side::PortChanged)],
        aim: "≤ 2.6 RTT",
        show: |row| median_trips(row, Moment::Link),
    },
    Target {
        what: "easy × sequential, both ways: path, median",
        scene: Scene::Helper,
        pairs: &[Pair::new(EASY, Side::Sequential), Pair::new(Side::Sequential, EASY)],
        aim: "all linked, ≤ 5 RTT",
        show: |row| format!("{}, {}", linked(row), median_trips(row, Moment::Path)),
    },
    Target {
        what: "easy × random, both ways: path, median and worst",
        scene: Scene::Helper,
        pairs: &[Pair::new(EASY, Side::Random), Pair::new(Side::Random, EASY)],
        aim: "all linked, < 1 s, worst < 6 s",
        show: |row| format!("{}, {}", linked(row), median_and_most(row, Moment::Path)),
    },
    Target {
        what: "sequential × sequential: path, median and worst",
        scene: Scene::Helper,
        pairs: &[Pair::both(Side::Sequential)],
        aim: "all linked",
        show: |row| format!("{}, {}", linked(row), median_and_most(row, Moment::Path)),
    },
    Target {
        what: "block of 1,024 × the same: path, median and worst",
        scene: Scene::Helper,
        pairs: &[Pair::both(Side::Block)],
        aim: "nine in ten linked, < 10 s",
        show: |row| format!("{}, {}", linked(row), median_and_most(row, Moment::Path)),
    },
    Target {
        what: "random × random: told that there is no way, median and worst",
        scene: Scene::Helper,
        pairs: &[Pair::both(Side::Random)],
        aim: "< 0.5 s",
        show: |row| median_and_most(row, Moment::Told),
    },
    Target {
        what: "one network, no hairpinning: path, median and worst",
        scene: Scene::SameLan,
        pairs: &[Pair::both(EASY)],
        aim: "all linked",
        show: |row| format!("{}, {}", linked(row), median_and_most(row, Moment::Path)),
    },
    Target {
        what: "two homes of one carrier that hairpins: path, median and worst",
        scene: Scene::OneCarrier,
        pairs: &[Pair::both(Side::CarrierAndHome)],
        aim: "all linked",
        show: |row| format!("{}, {}", linked(row), median_and_most(row, Moment::Path)),
    },
    Target {
        what: "15 % loss, easy × easy: path, 90th percentile",
        scene: Scene::Loss,
        pairs: &[Pair::both(EASY)],
        aim: "< 600 ms",
        show: |row| at(row, Moment::Path, |spread| in_ms(spread.ninetieth)),
    },
    Target {
        what: "15 % loss, easy × easy: answer to the first message, 90th percentile",
        scene: Scene::Loss,
        pairs: &[Pair::both(EASY)],
        aim: "< 600 ms",
        show: |row| at(row, Moment::Echo, |spread| in_ms(spread.ninetieth)),
    },
    Target {
        what: "blocked for 20 s, then free, easy × easy and × random: path after that, worst",
        scene: Scene::Blocked,
        pairs: &[Pair::both(EASY), Pair::new(EASY, Side::Random)],
        aim: "all linked, ≤ 3 s",
        show: |row| {
            format!("{}, {}", linked(row), at(row, Moment::Path, |spread| in_ms(spread.most)))
        },
    },
];

/// One row for each target.
pub(crate) fn all(figures: &Figures) -> String {
    let mut text = head(["what, by a helper, from the record on", "figure", "target"]);
    for target in &TARGETS {
        let rows = target.pairs.iter().filter_map(|pair| figures.row(target.scene, *pair));
        let mut shown: Vec<String> = rows.map(target.show).collect();
        // Both ways, or both kinds, alike are said once.
        shown.dedup();
        text += &line([target.what.into(), shown.join("; "), target.aim.into()]);
    }
    text
}

fn median_trips(row: &Row, moment: Moment) -> String {
    at(row, moment, |spread| format!("{} RTT", round_trips(spread.median, 2)))
}

fn median_and_most(row: &Row, moment: Moment) -> String {
    at(row, moment, |spread| format!("{}, {}", in_ms(spread.median), in_ms(spread.most)))
}

fn in_ms(time: Duration) -> String {
    format!("{} ms", milliseconds(time))
}
