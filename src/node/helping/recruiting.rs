//! Which helpers are asked: those that the user names, then those that list themselves in the DHT.
//!
//! Helpers list themselves as servers of well-known services, each in the one that its peer id says. Whoever
//! looks for helpers goes through these lists in an order of its own, and asks some of each at random, so
//! that no helper gets all of them.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::{links::HelperLinks, reachability::is_public};
use crate::{
    dht::location::Name, entropy::Entropy, identity::PeerId, node::reaching::dial::Found,
    service::Service,
};

/// Looks for helpers while some are missing.
#[derive(Debug)]
pub(in crate::node) struct Recruiting {
    us: PeerId,
    /// Where to look, in this order.
    sources: Vec<Name>,
    turn: usize,
    /// When to look at the next one; `None` if the node wants no helpers.
    next: Option<Instant>,
    pause: Duration,
    /// Those that did not answer.
    resting: BTreeMap<PeerId, Rest>,
    entropy: Entropy,
}

#[derive(Clone, Copy, Debug)]
struct Rest {
    failures: u32,
    until: Instant,
}

/// The list that a helper is to be found in.
pub(in crate::node) fn list_of(helper: &PeerId) -> Name {
    let [first, ..] = helper.as_bytes();
    list(first % LISTS)
}

fn list(index: u8) -> Name {
    let name = format!("p2p-node/helpers/{index}");
    Name::Service(Service::open(name.parse().expect("a list's name is a service name")))
}

impl Recruiting {
    /// Looks nowhere until [`Self::begin`].
    pub(in crate::node) fn new(us: PeerId, entropy: Entropy) -> Self {
        Self {
            us,
            sources: Vec::new(),
            turn: 0,
            next: None,
            pause: PAUSE_MIN,
            resting: BTreeMap::new(),
            entropy,
        }
    }

    /// Begins to look: for the helpers that the user `named`, and in the lists if `lists` says so.
    pub(in crate::node) fn begin(&mut self, named: Vec<Name>, lists: Lists, now: Instant) {
        let mut found_in: Vec<Name> = match lists {
            Lists::Used => (0..LISTS).map(list).collect(),
            Lists::Unused => Vec::new(),
        };
        shuffle(&mut found_in, &mut self.entropy);
        self.sources = named.into_iter().chain(found_in).collect();
        self.turn = 0;
        self.next = Some(now).filter(|_| !self.sources.is_empty());
    }

    /// Where to look now, if so many helpers are `missing`.
    pub(in crate::node) fn next_source(&mut self, missing: usize, now: Instant) -> Option<Name> {
        if missing == 0 || self.next.is_none_or(|next| now < next) {
            return None;
        }
        let source = self.sources.get(self.turn)?.clone();
        self.turn += 1;
        let wait = if self.turn < self.sources.len() {
            LOOK_INTERVAL
        } else {
            self.turn = 0;
            let wait = self.pause;
            self.pause = (2 * self.pause).min(PAUSE_MAX);
            wait
        };
        self.next = Some(now + wait);
        Some(source)
    }

    /// Whom of those that were `found` at `source` to ask.
    pub(in crate::node) fn choose(
        &mut self,
        source: &Name,
        mut found: Vec<Found>,
        links: &HelperLinks,
        now: Instant,
    ) -> Vec<Found> {
        if matches!(source, Name::Service(_)) {
            // Anybody can write to a list: what it says of private networks is nobody's business.
            for one in &mut found {
                one.candidates.retain(|candidate| is_public(candidate.address.ip()));
            }
        }
        found.retain(|one| {
            let rests = self.resting.get(&one.peer).is_some_and(|rest| now < rest.until);
            one.peer != self.us && !one.candidates.is_empty() && !rests && !links.has(one.peer)
        });
        shuffle(&mut found, &mut self.entropy);
        found.truncate(links.missing());
        found
    }

    /// A helper does not answer: it has a rest, and others are looked for at once.
    pub(in crate::node) fn handle_gone(&mut self, helper: PeerId, now: Instant) {
        self.resting.retain(|_, rest| now < rest.until + REST_MAX);
        if self.resting.len() >= RESTING_MAX {
            self.resting.pop_first();
        }
        let rest = self.resting.entry(helper).or_insert(Rest { failures: 0, until: now });
        let time = REST_MIN.saturating_mul(1 << rest.failures.min(8)).min(REST_MAX);
        *rest = Rest { failures: rest.failures + 1, until: now + time };
    }

    /// A helper that served is gone: others are looked for at once.
    pub(in crate::node) fn hurry(&mut self, now: Instant) {
        self.pause = PAUSE_MIN;
        self.next = self.next.map(|next| next.min(now));
    }

    /// When to look again, if so many helpers are `missing`.
    pub(in crate::node) fn poll_timeout(&self, missing: usize) -> Option<Instant> {
        self.next.filter(|_| missing > 0)
    }
}

/// Whether helpers are looked for in the public lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Lists {
    /// They are.
    Used,
    /// They are not.
    Unused,
}

fn shuffle<T>(items: &mut [T], entropy: &mut Entropy) {
    for end in (1..items.len()).rev() {
        items.swap(end, entropy.below(end + 1));
    }
}

/// Lists in the DHT: with six entries each they name 48 helpers, which serve 1,024 nodes each.
const LISTS: u8 = 8;

/// Between two lookups, which cost some forty datagrams each.
const LOOK_INTERVAL: Duration = Duration::from_secs(3);

/// After all sources were looked at in vain for the first time.
const PAUSE_MIN: Duration = Duration::from_secs(60);

/// After all sources were looked at in vain several times: half a datagram a second.
const PAUSE_MAX: Duration = Duration::from_secs(15 * 60);

/// How long a helper that did not answer is not asked again; twice as long each further time.
const REST_MIN: Duration = Duration::from_secs(60);

/// And at most.
const REST_MAX: Duration = Duration::from_secs(60 * 60);

/// Helpers remembered for not answering.
const RESTING_MAX: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        behaviour::NatBehaviour,
        candidate::{Candidate, CandidateKind},
        identity::Identity,
        time::UnixMillis,
    };

    fn found(seed: u8, address: &str) -> Found {
        let candidate = Candidate::new(CandidateKind::Host, address.parse().unwrap()).unwrap();
        Found {
            peer: Identity::from_seed([seed; 32]).peer_id(),
            made_at: UnixMillis(1),
            candidates: vec![candidate],
            nat: NatBehaviour::default(),
            helpers: Vec::new(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "the zero of virtual time")]
    fn begun(named: Vec<Name>) -> (Recruiting, Instant) {
        let now = Instant::now();
        let us = Identity::from_seed([1; 32]).peer_id();
        let mut recruiting = Recruiting::new(us, Entropy::from_seed(1));
        recruiting.begin(named, Lists::Used, now);
        (recruiting, now)
    }

    fn no_links() -> HelperLinks {
        HelperLinks::new(Entropy::from_seed(1))
    }

    #[test]
    fn who_is_named_comes_first_and_then_every_list_once() {
        let named = Name::Peer(Identity::from_seed([2; 32]).peer_id());
        let (mut recruiting, now) = begun(vec![named.clone()]);
        let mut seen = Vec::new();
        while let Some(due) = recruiting.poll_timeout(3).filter(|due| *due < now + PAUSE_MIN) {
            seen.extend(recruiting.next_source(3, due));
        }
        assert_eq!(seen.first(), Some(&named));
        assert_eq!(seen.len(), 1 + usize::from(LISTS));
        assert!((0..LISTS).all(|index| seen.contains(&list(index))));
    }

    #[test]
    fn nobody_is_looked_for_while_nobody_is_missing_and_seldom_in_vain() {
        let (mut recruiting, mut now) = begun(Vec::new());
        assert_eq!(recruiting.next_source(0, now), None);
        assert_eq!(recruiting.poll_timeout(0), None);
        let day = now + Duration::from_secs(86_400);
        let mut lookups = 0;
        while now < day {
            now = recruiting.poll_timeout(1).unwrap();
            lookups += usize::from(recruiting.next_source(1, now).is_some());
        }
        assert!(lookups <= 8 * (86_400 / 900 + 8), "{lookups}");
    }

    #[test]
    fn neither_we_ourselves_nor_private_addresses_nor_those_that_rest_are_asked() {
        let (mut recruiting, now) = begun(Vec::new());
        let good = found(2, "203.0.113.2:1");
        let all = vec![found(1, "203.0.113.1:1"), good.clone(), found(3, "192.168.1.1:1")];
        let chosen = recruiting.choose(&list(0), all.clone(), &no_links(), now);
        assert_eq!(chosen, std::slice::from_ref(&good));
        recruiting.handle_gone(good.peer, now);
        assert_eq!(recruiting.choose(&list(0), all.clone(), &no_links(), now), []);
        let later = now + REST_MIN;
        assert_eq!(
            recruiting.choose(&list(0), all.clone(), &no_links(), later),
            std::slice::from_ref(&good)
        );
        recruiting.handle_gone(good.peer, later);
        assert_eq!(recruiting.choose(&list(0), all, &no_links(), later + REST_MIN), []);
        // A helper that the user names may be on the same network.
        let near = found(3, "192.168.1.1:1");
        let chosen =
            recruiting.choose(&Name::Peer(near.peer), vec![near.clone()], &no_links(), now);
        assert_eq!(chosen, [near]);
    }

    #[test]
    fn of_many_three_are_asked_and_not_always_the_same() {
        let (mut recruiting, now) = begun(Vec::new());
        let all: Vec<Found> = (2..8).map(|seed| found(seed, "203.0.113.2:1")).collect();
        let mut choices = Vec::new();
        for _ in 0..10 {
            let chosen = recruiting.choose(&list(0), all.clone(), &no_links(), now);
            assert_eq!(chosen.len(), 3);
            choices.push(chosen);
        }
        choices.dedup();
        assert!(choices.len() > 1);
    }
}
