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

/// One that is met or not by a helper.
const fn by_helper(
    what: &'static str,
    pairs: &'static [Pair],
    aim: &'static str,
    show: fn(&Row) -> String,
) -> Target {
    Target { what, scene: Scene::Helper, pairs, aim, show }
}

/// The easy pairs: one carrier more makes no difference to the aim.
const EASY_PAIRS: &[Pair] = &[Pair::both(EASY), Pair::both(Side::CarrierAndHome)];

const TARGETS: [Target; 14] = [
    by_helper("easy × easy: path, median", EASY_PAIRS, "≤ 1.6 RTT", |row| {
        median_trips(row, Moment::Path)
    }),
    by_helper("easy × easy: link, median", EASY_PAIRS, "≤ 2.6 RTT", |row| {
        median_trips(row, Moment::Link)
    }),
    by_helper(
        "NATs that change the port: path, median",
        &[Pair::both(Side::PortChanged)],
        "≤ 1.6 RTT",
        |row| median_trips(row, Moment::Path),
    ),
    by_helper(
        "NATs that change the port: link, median",
        &[Pair::both(Side::PortChanged)],
        "≤ 2.6 RTT",
        |row| median_trips(row, Moment::Link),
    ),
    by_helper(
        "easy × sequential, both ways: path, median",
        &[Pair::new(EASY, Side::Sequential), Pair::new(Side::Sequential, EASY)],
        "all linked, ≤ 5 RTT",
        |row| format!("{}, {}", linked(row), median_trips(row, Moment::Path)),
    ),
    by_helper(
        "easy × random, both ways: path, median and worst",
        &[Pair::new(EASY, Side::Random), Pair::new(Side::Random, EASY)],
        "all linked, < 1 s, worst < 6 s",
        linked_and_path,
    ),
    by_helper(
        "sequential × sequential: path, median and worst",
        &[Pair::both(Side::Sequential)],
        "all linked",
        linked_and_path,
    ),
    by_helper(
        "block of 1,024 × the same: path, median and worst",
        &[Pair::both(Side::Block)],
        "nine in ten linked, < 10 s",
        linked_and_path,
    ),
    by_helper(
        "random × random: told that there is no way, median and worst",
        &[Pair::both(Side::Random)],
        "< 0.5 s",
        |row| median_and_most(row, Moment::Told),
    ),
    Target {
        what: "one network, no hairpinning: path, median and worst",
        scene: Scene::SameLan,
        pairs: &[Pair::both(EASY)],
        aim: "all linked",
        show: linked_and_path,
    },
    Target {
        what: "two homes of one carrier that hairpins: path, median and worst",
        scene: Scene::OneCarrier,
        pairs: &[Pair::both(Side::CarrierAndHome)],
        aim: "all linked",
        show: linked_and_path,
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

fn linked_and_path(row: &Row) -> String {
    format!("{}, {}", linked(row), median_and_most(row, Moment::Path))
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
