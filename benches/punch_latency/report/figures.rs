//! What was measured: one row for a pair of NATs in a scene, as `benches/figures.tsv` keeps it.
//!
//! Nothing here measures. The tables and the heat map are drawn from these rows and from nothing else, so
//! that a test can hold that none of them was touched by hand.

use std::{collections::BTreeMap, time::Duration};

use super::side::{Pair, Side};

/// Between any two hosts of the matrix: 15 ms to the core, 10 ms across it, 15 ms from it, and back.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(80);

/// How the two meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scene {
    /// A helper forwards offers to the server.
    Helper,
    /// The server reads its inbox in the DHT, and nothing else tells it of the client.
    Inbox,
    /// Both are hosts in one network, whose router does not hairpin; neither hears multicast.
    SameLan,
    /// Two homes in the network of one carrier, which hairpins.
    OneCarrier,
    /// The client's access line loses 15 % of the datagrams each way; 54 ms between the peers.
    Loss,
    /// Nothing passes between the two from the dial's begin on for 20 to 23 s.
    Blocked,
}

/// A moment of a dial, counted from when the client had the server's record, or from when nothing was
/// blocked any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Moment {
    /// The server has read the offer.
    Offer,
    /// The client has heard from the server itself: its probe, or its answer to QUIC's first packet.
    Path,
    /// The client has proved who the server is, and may send.
    Link,
    /// The server's program has the first message.
    Message,
    /// The client's program has the answer.
    Echo,
    /// The client's program was told that there is no way.
    Told,
}

/// Of many dials, by nearest rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Spread<T> {
    pub(crate) median: T,
    pub(crate) ninetieth: T,
    pub(crate) ninety_ninth: T,
    pub(crate) most: T,
}

/// What came of dialling one pair in one scene with many seeds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) scene: Scene,
    pub(crate) pair: Pair,
    pub(crate) dials: usize,
    /// Dials that ended with a link.
    pub(crate) opened: usize,
    /// Of those that came to it.
    pub(crate) moments: BTreeMap<Moment, Spread<Duration>>,
    /// Datagrams that the client and the server sent from the dial's begin until a second after its link
    /// was there, or its failure told.
    pub(crate) datagrams: [Spread<u64>; 2],
    /// Why dials failed: every code once.
    pub(crate) codes: Vec<String>,
}

/// All rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    pub(crate) rows: Vec<Row>,
}

impl Scene {
    pub(crate) const ALL: [Self; 6] =
        [Self::Helper, Self::Inbox, Self::SameLan, Self::OneCarrier, Self::Loss, Self::Blocked];

    /// As the file has it.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Helper => "helper",
            Self::Inbox => "inbox",
            Self::SameLan => "same_lan",
            Self::OneCarrier => "one_carrier",
            Self::Loss => "loss",
            Self::Blocked => "blocked",
        }
    }

    /// The pairs that are dialled in it.
    pub(crate) fn pairs(self) -> Vec<Pair> {
        match self {
            Self::Helper | Self::Inbox => Pair::all().collect(),
            Self::SameLan => vec![Pair::both(Side::PortRestricted)],
            Self::OneCarrier => vec![Pair::both(Side::CarrierAndHome)],
            Self::Loss => vec![
                Pair::both(Side::Open),
                Pair::both(Side::PortRestricted),
                Pair::both(Side::PortChanged),
                Pair::both(Side::CarrierAndHome),
                Pair::new(Side::PortRestricted, Side::Sequential),
                Pair::both(Side::Sequential),
                Pair::new(Side::PortRestricted, Side::Random),
                Pair::new(Side::Random, Side::PortRestricted),
                Pair::both(Side::Block),
            ],
            Self::Blocked => vec![
                Pair::both(Side::PortRestricted),
                Pair::new(Side::PortRestricted, Side::Random),
                Pair::new(Side::Random, Side::PortRestricted),
            ],
        }
    }
}

impl Moment {
    pub(crate) const ALL: [Self; 6] =
        [Self::Offer, Self::Path, Self::Link, Self::Message, Self::Echo, Self::Told];

    const fn key(self) -> &'static str {
        match self {
            Self::Offer => "offer",
            Self::Path => "path",
            Self::Link => "link",
            Self::Message => "message",
            Self::Echo => "echo",
            Self::Told => "told",
        }
    }
}

impl<T: Copy + Ord> Spread<T> {
    /// Of these values; `None` if there are none.
    pub(crate) fn of(mut values: Vec<T>) -> Option<Self> {
        values.sort_unstable();
        let at =
            |percent: usize| values.get((values.len() * percent).div_ceil(100).checked_sub(1)?);
        Some(Self {
            median: *at(50)?,
            ninetieth: *at(90)?,
            ninety_ninth: *at(99)?,
            most: *values.last()?,
        })
    }
}

impl<T> Spread<T> {
    fn map<U>(self, change: impl Fn(T) -> U) -> Spread<U> {
        Spread {
            median: change(self.median),
            ninetieth: change(self.ninetieth),
            ninety_ninth: change(self.ninety_ninth),
            most: change(self.most),
        }
    }

    fn into_array(self) -> [T; 4] {
        [self.median, self.ninetieth, self.ninety_ninth, self.most]
    }
}

impl Row {
    pub(crate) fn at(&self, moment: Moment) -> Option<Spread<Duration>> {
        self.moments.get(&moment).copied()
    }

    /// Whether at least one dial ended with a link.
    pub(crate) const fn has_a_way(&self) -> bool {
        self.opened > 0
    }

    /// Whether some dials did, and some did not.
    pub(crate) const fn is_partly_open(&self) -> bool {
        self.has_a_way() && self.opened < self.dials
    }
}

impl Figures {
    pub(crate) fn row(&self, scene: Scene, pair: Pair) -> Option<&Row> {
        self.rows.iter().find(|row| row.scene == scene && row.pair == pair)
    }

    /// Dials in each cell.
    pub(crate) fn seeds(&self) -> usize {
        self.rows.first().map_or(0, |row| row.dials)
    }

    /// As text: a head, and a line for each row, in columns that tabs part. Times are in microseconds.
    pub(crate) fn encode(&self) -> String {
        let lines = self.rows.iter().map(encode_row);
        std::iter::once(columns()).chain(lines).map(|cells| cells.join("\t") + "\n").collect()
    }

    /// The rows of a text that [`Self::encode`] made, or what is wrong with it.
    pub(crate) fn decode(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        if lines.next() != Some(columns().join("\t").as_str()) {
            return Err("the columns are not those that are written today".into());
        }
        let row = |line: &str| decode_row(line).ok_or_else(|| format!("no row: {line}"));
        Ok(Self { rows: lines.map(row).collect::<Result<_, _>>()? })
    }
}

/// The parts of a spread, in the order of [`Spread::into_array`].
const PARTS: [&str; 4] = ["p50", "p90", "p99", "max"];

/// What stands where there is nothing.
const NOTHING: &str = "-";

fn columns() -> Vec<String> {
    let names = |of: &'static str, unit: &'static str| {
        PARTS.map(|part| format!("{of}_{part}{unit}")).into_iter()
    };
    ["scene", "client", "server", "dials", "opened"]
        .map(ToOwned::to_owned)
        .into_iter()
        .chain(Moment::ALL.into_iter().flat_map(|moment| names(moment.key(), "_us")))
        .chain(["client_datagrams", "server_datagrams"].into_iter().flat_map(|of| names(of, "")))
        .chain(["codes".to_owned()])
        .collect()
}

fn encode_row(row: &Row) -> Vec<String> {
    let number = |value: &dyn ToString| value.to_string();
    let times = Moment::ALL.into_iter().flat_map(|moment| match row.at(moment) {
        Some(spread) => spread.map(|time| number(&time.as_micros())).into_array(),
        None => PARTS.map(|_| NOTHING.to_owned()),
    });
    let datagrams =
        row.datagrams.into_iter().flat_map(|of| of.map(|count| number(&count)).into_array());
    let codes = match row.codes.as_slice() {
        [] => NOTHING.to_owned(),
        codes => codes.join(","),
    };
    [row.scene.key(), row.pair.client.key(), row.pair.server.key()]
        .map(ToOwned::to_owned)
        .into_iter()
        .chain([number(&row.dials), number(&row.opened)])
        .chain(times)
        .chain(datagrams)
        .chain([codes])
        .collect()
}

fn decode_row(line: &str) -> Option<Row> {
    let mut cells = line.split('\t');
    let scene = cells.next()?;
    let scene = Scene::ALL.into_iter().find(|known| known.key() == scene)?;
    let mut side = || {
        let cell = cells.next()?;
        Side::ALL.into_iter().find(|known| known.key() == cell)
    };
    let pair = Pair { client: side()?, server: side()? };
    let (dials, opened) = (cells.next()?.parse().ok()?, cells.next()?.parse().ok()?);
    let mut moments = BTreeMap::new();
    for moment in Moment::ALL {
        if let Some(spread) = decode_spread(&mut cells)? {
            moments.insert(moment, spread.map(Duration::from_micros));
        }
    }
    let datagrams = [decode_spread(&mut cells)??, decode_spread(&mut cells)??];
    let codes = match cells.next()? {
        NOTHING => Vec::new(),
        codes => codes.split(',').map(ToOwned::to_owned).collect(),
    };
    let is_whole = cells.next().is_none();
    is_whole.then_some(Row { scene, pair, dials, opened, moments, datagrams, codes })
}

/// Four cells; the inner `None` if there is nothing in them.
fn decode_spread<'a>(cells: &mut impl Iterator<Item = &'a str>) -> Option<Option<Spread<u64>>> {
    let cells = [cells.next()?, cells.next()?, cells.next()?, cells.next()?];
    if cells == [NOTHING; 4] {
        return Some(None);
    }
    let [median, ninetieth, ninety_ninth, most] = cells.map(|cell| cell.parse().ok());
    Some(Some(Spread {
        median: median?,
        ninetieth: ninetieth?,
        ninety_ninth: ninety_ninth?,
        most: most?,
    }))
}
