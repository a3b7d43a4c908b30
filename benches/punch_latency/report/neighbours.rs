//! Our figures beside those of the neighbours.

use super::{
    figures::{Figures, Moment, Row, Scene},
    side::{Pair, Side},
    tables::{NOTHING, head, line, linked, milliseconds, pair_of, round_trips},
};

/// What the neighbours do with a pair: iroh, hyperdht, rust-libp2p, in milliseconds or words; and where our
/// own figure stands.
struct Neighbours {
    what: &'static str,
    theirs: [&'static str; 3],
    scene: Scene,
    pair: Pair,
    moment: Moment,
}

const EASY: Side = Side::PortRestricted;

/// One with the path as the moment.
const fn path(what: &'static str, pair: Pair, theirs: [&'static str; 3]) -> Neighbours {
    Neighbours { what, theirs, scene: Scene::Helper, pair, moment: Moment::Path }
}

const ALL: [Neighbours; 15] = [
    path("port-restricted × same", Pair::both(EASY), ["501 ms", "394–417 ms", "1,057 ms"]),
    path(
        "home behind CGNAT × same",
        Pair::both(Side::CarrierAndHome),
        ["501 ms", "394–417 ms", "never"],
    ),
    path(
        "none × port-restricted",
        Pair::new(Side::Open, EASY),
        ["501 ms", "394–417 ms", "1,057 ms"],
    ),
    path(
        "port-restricted × same, ports changed",
        Pair::both(Side::PortChanged),
        ["501 ms", "389 ms", "never"],
    ),
    path(
        "symmetric, sequential × port-restricted",
        Pair::new(Side::Sequential, EASY),
        ["never", "1,410 ms", "never"],
    ),
    path(
        "port-restricted × symmetric, random",
        Pair::new(EASY, Side::Random),
        ["never", "2,424–2,629 ms", "never"],
    ),
    path(
        "symmetric, random × full cone",
        Pair::new(Side::Random, Side::FullCone),
        ["500 ms", "5,051 ms", "1,054 ms"],
    ),
    path(
        "symmetric, sequential × same",
        Pair::both(Side::Sequential),
        ["never", "refuses after 200 ms", "never"],
    ),
    path(
        "symmetric, block × same",
        Pair::both(Side::Block),
        ["never", "refuses after 200 ms", "never"],
    ),
    Neighbours {
        what: "symmetric, random × same: told so",
        theirs: ["relayed", "relayed if you configure a key", "relayed, 128 KiB or 2 min"],
        scene: Scene::Helper,
        pair: Pair::both(Side::Random),
        moment: Moment::Told,
    },
    Neighbours {
        what: "one network, no hairpinning",
        theirs: ["340 ms", "295 ms", "never"],
        scene: Scene::SameLan,
        pair: Pair::both(EASY),
        moment: Moment::Path,
    },
    Neighbours {
        what: "two homes of one carrier that hairpins",
        theirs: ["340 ms", "1,522 ms", "never"],
        scene: Scene::OneCarrier,
        pair: Pair::both(Side::CarrierAndHome),
        moment: Moment::Path,
    },
    Neighbours {
        what: "port-restricted × same: first echoed byte (theirs relayed)",
        theirs: ["352 ms", NOTHING, "811 ms"],
        scene: Scene::Helper,
        pair: Pair::both(EASY),
        moment: Moment::Echo,
    },
    Neighbours {
        what: "15 % loss, easy × easy: first echo",
        theirs: [NOTHING, "worst 7.2 s", "median 0.8 s, worst 1.6 s"],
        scene: Scene::Loss,
        pair: Pair::both(EASY),
        moment: Moment::Echo,
    },
    Neighbours {
        what: "path blocked for 20 s, then free: direct path (ours: since it is free)",
        theirs: ["after 60 s", NOTHING, "gives up"],
        scene: Scene::Blocked,
        pair: Pair::both(EASY),
        moment: Moment::Path,
    },
];

/// One row for each thing that was measured of the neighbours.
pub(crate) fn all(figures: &Figures) -> String {
    let mut text = head(["", "iroh 1.4.1", "hyperdht 6.34", "rust-libp2p 0.57", "p2p-node"]);
    for row in &ALL {
        let ours = figures.row(row.scene, row.pair).map(|own| ours(own, row.moment));
        let ours = ours.unwrap_or_else(|| NOTHING.to_owned());
        text +=
            &line([row.what].into_iter().chain(row.theirs).map(ToOwned::to_owned).chain([ours]));
    }
    text
}

/// Median and 99th percentile; the round trips where there are always as many.
fn ours(row: &Row, moment: Moment) -> String {
    let Some(spread) = row.at(moment) else {
        return format!("{} linked", linked(row));
    };
    let all = match moment == Moment::Told || row.opened == row.dials {
        true => String::new(),
        false => format!(", {} linked", linked(row)),
    };
    let trips = match row.scene {
        Scene::Helper | Scene::Inbox => format!(" ({} RTT)", round_trips(spread.median, 1)),
        Scene::SameLan | Scene::OneCarrier | Scene::Loss | Scene::Blocked => String::new(),
    };
    format!("{} ms{trips}{all}", pair_of(spread, milliseconds))
}
