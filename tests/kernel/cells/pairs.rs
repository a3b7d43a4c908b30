//! The pairs, and what is promised of them.

use super::{
    super::{
        lab::KernelLab,
        nat::Nat,
        user_nat::{Filtering, Hairpin, Ports, UserNat},
    },
    ROUND_TRIP_MS,
    places::{self, Place},
};

/// A pair of NATs.
pub struct Pair {
    /// Client × server.
    pub name: &'static str,
    pub place: fn(&KernelLab) -> Place,
    pub promise: Promise,
}

/// What is promised of the dial whose record is known and whose offer goes by a helper.
#[derive(Clone, Copy, Debug)]
pub enum Promise {
    Opens(Opening),
    /// It cannot be opened, and whoever tries is told so within these milliseconds.
    Told {
        within_ms: f64,
    },
}

/// How often, and how fast: in milliseconds from `connect`.
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    /// Of all runs.
    pub percent: u8,
    pub path_median_ms: f64,
    pub link_median_ms: f64,
    /// Of the slowest path.
    pub worst_ms: f64,
}

/// Always, within the time that every dial has.
pub const ALWAYS: Opening = Opening {
    percent: 100,
    path_median_ms: f64::INFINITY,
    link_median_ms: f64::INFINITY,
    worst_ms: f64::INFINITY,
};

/// Where plain probes suffice: half a round trip after the offer, which takes one.
const PLAIN: Promise = Promise::Opens(Opening {
    path_median_ms: 1.6 * ROUND_TRIP_MS,
    link_median_ms: 2.6 * ROUND_TRIP_MS,
    ..ALWAYS
});

/// One side's ports have to be foreseen.
const FORESEEN: Promise = Promise::Opens(Opening { path_median_ms: 5.0 * ROUND_TRIP_MS, ..ALWAYS });

/// A volley of sockets, and one of ports.
const BIRTHDAY: Promise =
    Promise::Opens(Opening { path_median_ms: 1_000.0, worst_ms: 6_000.0, ..ALWAYS });

const OPENS: Promise = Promise::Opens(ALWAYS);

/// As carriers give them to their customers.
const LOW_BLOCK: UserNat = UserNat::symmetric(Ports::Block { low: 20_480, high: 21_503 });
const HIGH_BLOCK: UserNat = UserNat::symmetric(Ports::Block { low: 50_176, high: 51_199 });

/// The same by the Linux kernel, where every destination has a whole block.
const LOW_KERNEL_BLOCK: Nat = Nat::Block { low: 20_480, high: 21_503 };
const HIGH_KERNEL_BLOCK: Nat = Nat::Block { low: 50_176, high: 51_199 };

/// Others use the same router.
const SHARED: UserNat = UserNat::symmetric(Ports::Sequential { step: 1, others_per_second: 5 });

/// Most carriers: easy, but with ports of their own.
const CARRIER: UserNat = UserNat::CHANGING;

/// Those that plain probes open.
pub const EASY: &[Pair] = &[
    pair("easy × easy", PLAIN, |lab| places::homes(lab, UserNat::EASY, UserNat::EASY)),
    pair("changing × changing", PLAIN, |lab| {
        places::homes(lab, UserNat::CHANGING, UserNat::CHANGING)
    }),
    pair("one home without hairpin", OPENS, |lab| places::in_one_home(lab, UserNat::EASY)),
    pair("carrier and home, both sides", PLAIN, |lab| {
        places::behind_two_carriers(lab, CARRIER, UserNat::EASY)
    }),
    pair("one carrier with hairpin, two homes", OPENS, |lab| {
        let carrier = UserNat { hairpin: Hairpin::FromOutside, ..CARRIER };
        places::behind_one_carrier(lab, carrier, UserNat::EASY)
    }),
    // Probes come from where nobody has sent anything: a home that filters lets none of them in.
    pair("the same, the hairpin keeps the source, homes do not filter", OPENS, |lab| {
        let carrier = UserNat { hairpin: Hairpin::FromInside, ..CARRIER };
        let home = UserNat { filtering: Filtering::EndpointIndependent, ..UserNat::EASY };
        places::behind_one_carrier(lab, carrier, home)
    }),
    pair("easy × forwarded port", PLAIN, |lab| places::port_forwarded(lab, UserNat::EASY)),
    pair("random × forwarded port", PLAIN, |lab| places::port_forwarded(lab, UserNat::RANDOM)),
];

/// Those whose ports have to be guessed.
pub const HARD: &[Pair] = &[
    pair("easy × sequential", FORESEEN, |lab| {
        places::homes(lab, UserNat::EASY, UserNat::SEQUENTIAL)
    }),
    pair("sequential × easy", FORESEEN, |lab| {
        places::homes(lab, UserNat::SEQUENTIAL, UserNat::EASY)
    }),
    pair("easy × sequential with other users", OPENS, |lab| {
        places::homes(lab, UserNat::EASY, SHARED)
    }),
    pair("easy × random", BIRTHDAY, |lab| places::homes(lab, UserNat::EASY, UserNat::RANDOM)),
    pair("random × easy", BIRTHDAY, |lab| places::homes(lab, UserNat::RANDOM, UserNat::EASY)),
    pair("random × random", Promise::Told { within_ms: 500.0 }, |lab| {
        places::homes(lab, UserNat::RANDOM, UserNat::RANDOM)
    }),
];

/// Those of which one run may miss: what either host sends elsewhere meanwhile moves its count on, and a block is a
/// matter of chance. Only many runs show how often.
pub const CHANCY: &[Pair] = &[
    pair("sequential × sequential", OPENS, |lab| {
        places::homes(lab, UserNat::SEQUENTIAL, UserNat::SEQUENTIAL)
    }),
    pair(
        "blocks of 1,024 × the same",
        Promise::Opens(Opening { percent: 90, worst_ms: 10_000.0, ..ALWAYS }),
        |lab| places::homes(lab, LOW_BLOCK, HIGH_BLOCK),
    ),
    pair(
        "blocks of 1,024 by Linux × the same",
        Promise::Opens(Opening { percent: 90, worst_ms: 10_000.0, ..ALWAYS }),
        |lab| places::homes(lab, LOW_KERNEL_BLOCK, HIGH_KERNEL_BLOCK),
    ),
];

const fn pair(name: &'static str, promise: Promise, place: fn(&KernelLab) -> Place) -> Pair {
    Pair { name, place, promise }
}
