//! QUIC to the peer that a dial is reaching: starts it, and takes in what becomes of it.

use std::time::Duration;

use crate::{
    identity::PeerId,
    node::{
        driver::{DialId, Driver, Outcome},
        event::Direction,
        explain,
    },
    sealing::Key,
    transport::link::{self, Link, LinkError},
};

impl Driver {
    /// Starts QUIC to `peer`, unless what was started before has heard of the peer already.
    pub(super) fn dial_quic(&mut self, id: DialId, peer: PeerId, initial_rtt: Option<Duration>) {
        let now = self.clock.now();
        let Some(address) = self.dial_address(peer) else {
            return;
        };
        let is_answered = self.hears_quic(peer);
        let Some(entry) = self.dialling.dials.get_mut(&id) else {
            return;
        };
        match &entry.quic {
            Some(running) if is_answered && !running.is_finished() => return,
            Some(running) => running.abort(),
            None => {}
        }
        let keys: Vec<Key> = entry.admission.clone().into_iter().collect();
        let deadline = now + LINK_TIMEOUT;
        let initial_rtt = initial_rtt.unwrap_or(INITIAL_RTT);
        let (endpoint, outcomes) = (self.endpoint.clone(), self.outcomes());
        let task = self.spawn(async move {
            let dial = link::Dial {
                address,
                peer,
                initial_rtt,
                keys,
                deadline: deadline.into(),
            };
            let result = Link::dial(&endpoint, dial).await;
            let _ = outcomes.send(Outcome::Dialled(id, peer, result)).await;
        });
        if let Some(entry) = self.dialling.dials.get_mut(&id) {
            entry.quic = Some(task);
        }
    }

    /// Takes in that QUIC which we dialled has become a link, or not.
    pub(in crate::node) fn handle_dialled(
        &mut self,
        id: DialId,
        peer: PeerId,
        result: Result<Link, LinkError>,
    ) {
        match result {
            Ok(link) => {
                let began = self.dialling.began(id).unwrap_or_else(|| self.clock.now());
                self.link_up(link, Direction::Outgoing, began);
            }
            Err(error) => {
                let failure = explain::link_failed(&error, peer);
                let answered_at = self.heard_at(peer);
                self.tell_dial(id, |dial, now| {
                    dial.handle_link_failed(failure, &answered_at, now)
                });
            }
        }
    }
}

/// QUIC gives up a path that has opened but carries no handshake after this long; the dial goes on.
const LINK_TIMEOUT: Duration = Duration::from_secs(10);

/// Paces QUIC's first packets when no probe has measured the path: a lost first packet then costs 0.3 s
/// instead of quinn's 1 s.
const INITIAL_RTT: Duration = Duration::from_millis(100);
