//! Where nodes see us (BEP 42).

use std::{collections::VecDeque, net::SocketAddrV4};

use crate::dht::rendezvous::SEEN_MAX;

/// Nodes, and where each has said last that it sees us; the latest last.
#[derive(Debug, Default)]
pub(super) struct SeenAt(VecDeque<(SocketAddrV4, SocketAddrV4)>);

impl SeenAt {
    /// `node` has answered, and says that it sees us there. One that says nothing is forgotten.
    pub(super) fn note(&mut self, node: SocketAddrV4, seen_at: Option<SocketAddrV4>) {
        self.0.retain(|(known, _)| *known != node);
        self.0.extend(seen_at.map(|seen_at| (node, seen_at)));
        if self.0.len() > SEEN_MAX {
            self.0.pop_front();
        }
    }

    pub(super) fn endpoints(&self) -> impl Iterator<Item = SocketAddrV4> {
        self.0.iter().map(|(_, seen_at)| *seen_at)
    }

    /// The network is another one.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_node_counts_once_and_those_that_answered_last_are_known() {
        let node = |number: u16| SocketAddrV4::new([198, 51, 100, 1].into(), 1_000 + number);
        let ours = |port| SocketAddrV4::new([203, 0, 113, 1].into(), port);
        let mut seen = SeenAt::default();
        seen.note(node(0), Some(ours(5)));
        seen.note(node(1), Some(ours(6)));
        seen.note(node(0), Some(ours(7)));
        assert_eq!(seen.endpoints().collect::<Vec<_>>(), [ours(6), ours(7)]);
        seen.note(node(1), None);
        assert_eq!(seen.endpoints().collect::<Vec<_>>(), [ours(7)]);
        for number in 2..100 {
            seen.note(node(number), Some(ours(number)));
        }
        let known: Vec<_> = seen.endpoints().collect();
        assert_eq!((known.len(), known.last()), (SEEN_MAX, Some(&ours(99))));
        seen.clear();
        assert_eq!(seen.endpoints().next(), None);
    }
}
