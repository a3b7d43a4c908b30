//! Says whether a direct path between two hosts can be opened, and what it takes.
//!
//! The oracle does not know a table of NAT kinds. It plays a tiny model of the network, in which both
//! sides probe whatever they can learn of the other, and looks at which datagrams can ever arrive.
//!
//! A **path** is a pair of endpoints that work together: what A sends to `t` reaches B from `s`, and what
//! B sends to `s` reaches A from `t`. If no path opens, the oracle lets NATs be guessed: a guessed
//! NAT counts as endpoint-independent, since the other side then knows its next mapping; but only towards
//! endpoints that stand still, since nobody sends ahead to an endpoint that arises from what is sent to
//! it. The least guessing that opens a path gives the verdict.
//!
//! The verdict holds for probes that start together, so early datagrams that a NAT would punish
//! (`punishes_early_inbound`) do not count; loss, downed links and blocked pairs do not either.

mod model;

use std::{collections::BTreeSet, net::IpAddr};

use self::model::Model;
use super::{
    nat::{Nat, Ports},
    topology::{HostId, Place, Topology},
};

/// What it takes to open a direct path, least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Both sides probe what they know and answer where probes come from.
    Plain,
    /// One has to predict the next mapping of a NAT: exactly where ports are preserved or sequential,
    /// or within a block on one side.
    NeedsPrediction,
    /// Many sockets and many random ports: against a random NAT on one side, or blocks on both.
    NeedsBirthday,
    /// Nothing that is worth its datagrams.
    Impossible,
}

/// What it takes between hosts behind these chains of NATs, each listed from the host outwards; an empty
/// chain is a host on the public internet. The chains share nothing.
///
/// ```
/// use p2p_node::lab::{Nat, Ports, Verdict, oracle};
///
/// let home = [Nat::home()];
/// assert_eq!(oracle::between(&home, &[Nat::home(), Nat::cgnat()]), Verdict::Plain);
/// assert_eq!(
///     oracle::between(&home, &[Nat::symmetric(Ports::Random)]),
///     Verdict::NeedsBirthday
/// );
/// ```
pub fn between(a: &[Nat], b: &[Nat]) -> Verdict {
    let mut topology = Topology::default();
    let a = chain(&mut topology, 1, a);
    let b = chain(&mut topology, 2, b);
    verdict(&topology, a, b)
}

/// What opens a direct path: how much guessing, and of whose ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    /// What it takes.
    pub verdict: Verdict,
    /// What the other side has to guess of the first host's NATs.
    pub of_a: Guess,
    /// And of the second's.
    pub of_b: Guess,
}

/// What opens a path between hosts behind these chains of NATs, least guessing first; see [`between`].
///
/// ```
/// use p2p_node::lab::{Nat, Ports, oracle::{self, Guess}};
///
/// let opening = oracle::opening(&[Nat::home()], &[Nat::symmetric(Ports::Random)]);
/// assert_eq!((opening.of_a, opening.of_b), (Guess::Nothing, Guess::Random));
/// ```
pub fn opening(a: &[Nat], b: &[Nat]) -> Opening {
    let mut topology = Topology::default();
    let a = chain(&mut topology, 1, a);
    let b = chain(&mut topology, 2, b);
    least_guessing(&topology, a, b)
}

/// Whether datagrams go both ways between such hosts when each side answers to where it was heard from,
/// path or no path.
///
/// Where no [`Verdict::Plain`] path exists this is a *crossed* path: each side is heard, but sends from
/// another endpoint than the one that it can be reached at. Its mappings are not refreshed by the
/// traffic that they carry.
pub fn answers_between(a: &[Nat], b: &[Nat]) -> bool {
    let mut topology = Topology::default();
    let a = chain(&mut topology, 1, a);
    let b = chain(&mut topology, 2, b);
    answers(&topology, a, b)
}

fn chain(topology: &mut Topology, side: u8, nats: &[Nat]) -> HostId {
    let mut place = Place::Public;
    let mut address = [198, 51, 100, side];
    for (level, nat) in (1..=u8::MAX).zip(nats.iter().rev()) {
        let router = topology.add_router(place, *nat, vec![IpAddr::from(address)]);
        place = Place::Behind(router);
        address = [10, side, level, 1];
    }
    topology.add_host(place, vec![IpAddr::from(address)])
}

/// What it takes between two hosts of a network.
pub(super) fn verdict(topology: &Topology, a: HostId, b: HostId) -> Verdict {
    least_guessing(topology, a, b).verdict
}

fn least_guessing(topology: &Topology, a: HostId, b: HostId) -> Opening {
    let mut efforts = Vec::new();
    for of_a in Guess::ALL {
        for of_b in Guess::ALL {
            efforts.push((effort(of_a, of_b), of_a, of_b));
        }
    }
    efforts.sort_unstable();
    efforts
        .into_iter()
        .filter(|&(effort, ..)| effort < Verdict::Impossible)
        .find(|&(_, of_a, of_b)| path_opens(topology, (a, of_a), (b, of_b)))
        .map_or(
            Opening { verdict: Verdict::Impossible, of_a: Guess::Nothing, of_b: Guess::Nothing },
            |(verdict, of_a, of_b)| Opening { verdict, of_a, of_b },
        )
}

/// Whether each side can get an answer to one of its probes.
pub(super) fn answers(topology: &Topology, a: HostId, b: HostId) -> bool {
    let model = Model::exhausted(topology, a, b, BTreeSet::new());
    let answered = |from: HostId, to: HostId| {
        model.known_by(from).iter().any(|target| {
            model.arrival(from, target).is_some_and(|source| model.arrival(to, &source).is_some())
        })
    };
    answered(a, b) && answered(b, a)
}

/// Which of one side's NATs the other side guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guess {
    /// None.
    Nothing,
    /// Those whose next port follows from the last.
    Next,
    /// Those whose next port lies in a block that was seen.
    InBlock,
    /// Even those whose next port can be any.
    Random,
}

impl Guess {
    const ALL: [Self; 4] = [Self::Nothing, Self::Next, Self::InBlock, Self::Random];

    /// The guess that a NAT's port allocation asks for.
    const fn needed_for(ports: Ports) -> Self {
        match ports {
            Ports::Preserving | Ports::Sequential { .. } => Self::Next,
            Ports::Block { .. } => Self::InBlock,
            Ports::Random => Self::Random,
        }
    }
}

/// A random port is found by a birthday only if the other side stands still: guessing on both sides
/// multiplies the datagrams.
fn effort(of_a: Guess, of_b: Guess) -> Verdict {
    match (of_a.min(of_b), of_a.max(of_b)) {
        (_, Guess::Nothing) => Verdict::Plain,
        (Guess::Nothing, Guess::Random) | (Guess::InBlock, Guess::InBlock) => {
            Verdict::NeedsBirthday
        }
        (_, Guess::Random) => Verdict::Impossible,
        (_, Guess::Next | Guess::InBlock) => Verdict::NeedsPrediction,
    }
}

fn path_opens(topology: &Topology, a: (HostId, Guess), b: (HostId, Guess)) -> bool {
    let mut guessed = BTreeSet::new();
    for (host, guess) in [a, b] {
        guessed.extend(topology.routers_above(host).into_iter().filter(|&router| {
            guess > Guess::Nothing && Guess::needed_for(topology.nat(router).ports) <= guess
        }));
    }
    let (a, b) = (a.0, b.0);
    let model = Model::exhausted(topology, a, b, guessed);
    model.known_by(a).iter().any(|target| {
        model.arrival(a, target).is_some_and(|source| {
            model.arrival(b, &source).as_ref() == Some(target)
                && model.can_foresee(a, target)
                && model.can_foresee(b, &source)
        })
    })
}
