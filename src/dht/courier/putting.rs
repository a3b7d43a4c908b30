//! One item on its way to the nodes that shall store it: who was asked, what they said, and what it
//! comes to.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use crate::dht::{
    item::Item,
    rendezvous::{PutError, Stored},
};

/// Nodes that an item is sent to.
///
/// Readers ask the closest eight that they know; with half as many more, both sides may differ in what
/// they know.
pub const WRITE_NODES: usize = 12;

/// Nodes that must have stored an item before we say that it is stored while others have not answered.
pub const STORED_ENOUGH: usize = 8;

/// How long a put may take: a lookup with silent nodes and two round trips.
pub const PUT_TIME_MAX: Duration = Duration::from_secs(4);

/// An item on its way.
#[derive(Debug)]
pub struct Putting {
    /// What is stored.
    pub item: Item,
    /// What it may replace.
    pub cas: Option<i64>,
    /// When we give up.
    pub deadline: Instant,
    nodes: BTreeMap<SocketAddrV4, Response>,
    retried: BTreeSet<SocketAddrV4>,
    reported: bool,
}

/// What a node said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Response {
    /// Nothing yet.
    Awaited,
    /// Nothing in time; it may still say something.
    Late,
    /// It stored the item.
    Stored,
    /// It refused, with an error of BEP 5 or BEP 44.
    Refused(i64),
}

/// BEP 44: `cas` does not match.
const CAS_MISMATCH: i64 = 301;
/// BEP 44: the number is less than the stored one.
const NOT_NEWER: i64 = 302;
/// BEP 44: the value is too large.
const TOO_LARGE: i64 = 205;
/// BEP 5: protocol error, as a token that is too old.
pub const PROTOCOL_ERROR: i64 = 203;

impl Putting {
    /// An item that nobody was sent yet.
    pub fn new(item: Item, cas: Option<i64>, now: Instant) -> Self {
        let deadline = now + PUT_TIME_MAX;
        Self {
            item,
            cas,
            deadline,
            nodes: BTreeMap::new(),
            retried: BTreeSet::new(),
            reported: false,
        }
    }

    /// Whether `node` was sent the item.
    pub fn was_sent(&self, node: SocketAddrV4) -> bool {
        self.nodes.contains_key(&node)
    }

    /// How many more nodes it shall be sent to.
    pub fn wanted(&self) -> usize {
        WRITE_NODES.saturating_sub(self.nodes.len())
    }

    /// `node` was sent the item, or said something about it.
    pub fn note(&mut self, node: SocketAddrV4, response: Response) {
        self.nodes.insert(node, response);
    }

    /// `node` found its leave to write too old: whether it shall be sent the item again, which happens
    /// once.
    pub fn retry(&mut self, node: SocketAddrV4) -> bool {
        let first = self.retried.insert(node);
        if first {
            self.nodes.remove(&node);
        }
        first
    }

    /// Whether it was told what the put came to.
    pub fn was_reported(&self) -> bool {
        self.reported
    }

    /// What it came to, told once: when enough nodes stored it, or when nobody is left who might.
    ///
    /// `more_to_ask` says whether further nodes may yet be asked, `current` is the number of the newest
    /// item known to be stored.
    pub fn verdict(
        &mut self,
        more_to_ask: bool,
        current: Option<i64>,
        now: Instant,
    ) -> Option<Result<Stored, PutError>> {
        let awaited = self.count(|response| response == Response::Awaited);
        let stored = self.count(|response| response == Response::Stored);
        let open = (more_to_ask || awaited > 0) && now < self.deadline;
        if self.reported || (open && stored < STORED_ENOUGH) {
            return None;
        }
        self.reported = true;
        Some(self.result(stored, current))
    }

    /// Whether nothing is left to be done for it.
    pub fn is_over(&self, now: Instant) -> bool {
        now >= self.deadline || (self.reported && self.wanted() == 0)
    }

    fn result(&self, stored: usize, current: Option<i64>) -> Result<Stored, PutError> {
        let refused = |code| self.count(|response| response == Response::Refused(code));
        let conflicting = refused(CAS_MISMATCH);
        // A number we know to be stored is worth telling only if it is another than the one we sent.
        let current = current.filter(|seq| *seq != self.item.seq());
        if conflicting > stored {
            // Nor is it the one that we wanted to replace, if that is all we know of: nodes say that it is not there.
            let current = current.filter(|seq| Some(*seq) != self.cas);
            return Err(PutError::CasFailed { current });
        }
        if refused(NOT_NEWER) > stored {
            return Err(PutError::NotNewer { current });
        }
        if stored > 0 {
            return Ok(Stored { nodes: stored, conflicting });
        }
        if refused(TOO_LARGE) > 0 {
            return Err(PutError::TooLarge(self.item.value().len()));
        }
        let other = self.nodes.values().find_map(|response| match response {
            Response::Refused(code) => Some(*code),
            Response::Awaited | Response::Late | Response::Stored => None,
        });
        Err(match other {
            Some(code) => PutError::Refused(code),
            None if self.nodes.is_empty() => PutError::NoNodes,
            None => PutError::Timeout,
        })
    }

    fn count(&self, matches: impl Fn(Response) -> bool) -> usize {
        self.nodes.values().filter(|response| matches(**response)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dht::{blinding::WriteKey, some_instant},
        sealing::Key,
    };

    fn putting(responses: &[Response], now: Instant) -> Putting {
        let item = Item::sign(&WriteKey::shared(&Key::from_bytes([9; 32])), 7, Vec::new());
        let mut putting = Putting::new(item, Some(5), now);
        for (port, response) in (1..).zip(responses) {
            putting.note(SocketAddrV4::new([127, 0, 0, 1].into(), port), *response);
        }
        putting
    }

    #[test]
    fn eight_stored_copies_are_enough_and_told_once() {
        let now = some_instant();
        let mut putting = putting(&[[Response::Stored; 8], [Response::Awaited; 8]].concat(), now);
        let stored = Stored { nodes: 8, conflicting: 0 };
        assert_eq!(putting.verdict(true, None, now), Some(Ok(stored)));
        assert_eq!(putting.verdict(false, None, now), None);
    }

    #[test]
    fn silent_nodes_are_waited_for_but_not_for_ever() {
        let now = some_instant();
        let mut putting = putting(&[Response::Stored, Response::Awaited], now);
        assert_eq!(putting.verdict(false, None, now), None);
        putting.note(SocketAddrV4::new([127, 0, 0, 1].into(), 2), Response::Late);
        let stored = Stored { nodes: 1, conflicting: 0 };
        assert_eq!(putting.verdict(false, None, now), Some(Ok(stored)));
    }

    #[test]
    fn every_failure_has_its_name() {
        use Response::{Late, Refused, Stored as Kept};
        let now = some_instant();
        let verdict = |responses: &[Response]| {
            putting(responses, now).verdict(false, Some(6), now).expect("nobody is awaited")
        };
        let current = Some(6);
        assert_eq!(verdict(&[]), Err(PutError::NoNodes));
        assert_eq!(verdict(&[Late, Late]), Err(PutError::Timeout));
        assert_eq!(verdict(&[Late, Refused(301)]), Err(PutError::CasFailed { current }));
        assert_eq!(verdict(&[Late, Refused(302)]), Err(PutError::NotNewer { current }));
        assert_eq!(verdict(&[Late, Refused(205)]), Err(PutError::TooLarge(0)));
        assert_eq!(verdict(&[Late, Refused(206)]), Err(PutError::Refused(206)));
        let mostly = [Kept, Kept, Refused(301)];
        assert_eq!(verdict(&mostly), Ok(Stored { nodes: 2, conflicting: 1 }));
        let lost = [Kept, Refused(301), Refused(301)];
        assert_eq!(verdict(&lost), Err(PutError::CasFailed { current }));
    }

    /// Else whoever looks for another place would take this one to be still its own, over and over.
    #[test]
    fn of_an_item_that_is_not_where_it_was_it_is_not_said_that_it_is_there() {
        let now = some_instant();
        let conflicts = [Response::Refused(301); 8];
        let verdict = putting(&conflicts, now).verdict(false, Some(5), now);
        assert_eq!(verdict, Some(Err(PutError::CasFailed { current: None })));
    }

    #[test]
    fn a_put_ends_at_its_deadline() {
        let now = some_instant();
        let mut putting = putting(&[Response::Awaited], now);
        assert_eq!(putting.verdict(true, None, now), None);
        let verdict = putting.verdict(true, None, now + PUT_TIME_MAX);
        assert_eq!(verdict, Some(Err(PutError::Timeout)));
        assert!(putting.is_over(now + PUT_TIME_MAX));
    }
}
