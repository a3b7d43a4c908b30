//! Probes: with whom we exchange them, under which keys, and whose machine they are for.

use crate::{
    datagram::Path,
    node::driver::{Driver, Owner},
    probe::{ConversationId, Probe, ProbeKeys},
};

impl Driver {
    pub(in crate::node) fn handle_probe(
        &mut self,
        conversation: ConversationId,
        path: Path,
        bytes: &[u8],
    ) {
        let Some((owner, keys)) = self.conversations.get(&conversation) else {
            return;
        };
        let Some(probe) = keys.decode(bytes) else {
            return;
        };
        tracing::trace!(%path, ?probe, ?owner, "probe heard");
        let owner = *owner;
        self.note_probe(path);
        match owner {
            // Only what the dial chooses is admitted: an answer from elsewhere would be a crossed path.
            Owner::Dial(id) => {
                self.tell_dial(id, |dial, now| dial.handle_probe(path, probe, now));
            }
            Owner::Unproved(id) => self.handle_proof_probe(id, path, probe),
            Owner::Answer(peer) => {
                self.admit(peer, path);
                self.handle_answer_probe(peer, path, probe);
            }
            Owner::Link(peer) => self.handle_link_probe(peer, path, probe),
        }
    }

    /// Takes probes of a conversation for `owner` from here on, and those of `before` no more.
    pub(in crate::node) fn converse(
        &mut self,
        owner: Owner,
        keys: ProbeKeys,
        before: Option<ConversationId>,
    ) {
        if let Some(before) = before {
            self.conversations.remove(&before);
        }
        self.conversations.insert(keys.conversation, (owner, keys));
    }

    /// Takes no probes of this conversation any more.
    pub(in crate::node) fn forget_conversation(&mut self, conversation: ConversationId) {
        self.conversations.remove(&conversation);
    }

    /// Sends `probe` of `conversation` over `path`.
    pub(in crate::node) fn send_probe(
        &mut self,
        conversation: ConversationId,
        path: Path,
        probe: Probe,
    ) {
        self.send_probe_within(conversation, (path, None), probe);
    }

    /// The same, with a time to live of its own if one is given.
    pub(in crate::node) fn send_probe_within(
        &mut self,
        conversation: ConversationId,
        (path, hops): (Path, Option<u8>),
        probe: Probe,
    ) {
        if let Some((_, keys)) = self.conversations.get(&conversation) {
            let datagram = keys.encode(probe, &mut self.entropy);
            tracing::trace!(%path, ?probe, "probe sent");
            self.helping.reachability.handle_sent(path.remote, self.clock.now());
            match hops {
                None => self.sockets.send(path, &datagram),
                Some(hops) => self.sockets.send_within(path, &datagram, hops),
            }
        }
    }
}
