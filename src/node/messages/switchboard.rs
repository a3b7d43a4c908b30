//! Which peers have a link, so that messages go straight to their sessions without the driver.
//!
//! The driver enters and removes peers; every handle on the node looks them up. A message that is posted
//! while a peer is entered is in its session before the driver can see that the link is gone, so it is
//! never forgotten.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::Instant,
};

use tokio::time::timeout_at;

use super::sessions::Counts;
use crate::{
    failure::Failure,
    identity::PeerId,
    node::{
        clock::Clock,
        event::{Receipt, SendState, Target},
        explain,
    },
    proto::Message,
    transport::session::{self, AwaitedReply, Durability, Session, Undelivered, Withdrawn},
};

/// The peers that have a link.
#[derive(Clone, Debug, Default)]
pub(in crate::node) struct Switchboard(Arc<Mutex<BTreeMap<PeerId, Line>>>);

/// The way to the session with one peer.
#[derive(Debug)]
pub(in crate::node) struct Line {
    session: Session,
    counts: Arc<Counts>,
    /// What was dialled to reach the peer, if it was us who dialled.
    target: Option<Target>,
    /// Of several servers the one that was connected last is meant.
    generation: u64,
    /// Whether the peer answers at the moment.
    hearing: Hearing,
}

/// Whether a linked peer answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Hearing {
    /// It does, or owes no answer.
    Heard,
    /// No path to it has answered for a while.
    Silent,
}

/// What became of a message that was to be posted.
#[derive(Debug)]
pub(in crate::node) enum Posted {
    /// Its session has it.
    Taken(Posting),
    /// There is no link to the target.
    NotLinked(Message),
    /// Its session does not take it.
    NotTaken(Failure),
}

/// A message under way. Dropping it takes the message back, if it was not sent yet.
#[derive(Debug)]
pub(in crate::node) struct Posting {
    peer: PeerId,
    message_id: String,
    began: Instant,
    clock: Clock,
    receipt: session::Receipt,
    counts: Arc<Counts>,
    switchboard: Switchboard,
}

impl Switchboard {
    /// Enters `peer`, who has a link now.
    pub(in crate::node) fn enter(&self, peer: PeerId, line: Line) {
        self.lock().insert(peer, line);
    }

    /// Removes `peer`, who has no link any more.
    pub(in crate::node) fn remove(&self, peer: PeerId) {
        self.lock().remove(&peer);
    }

    /// Notes as what `peer` was dialled.
    pub(in crate::node) fn set_target(&self, peer: PeerId, target: Option<Target>) {
        if let Some(line) = self.lock().get_mut(&peer) {
            line.target = target;
        }
    }

    /// Notes whether `peer` answers.
    pub(in crate::node) fn set_hearing(&self, peer: PeerId, hearing: Hearing) {
        if let Some(line) = self.lock().get_mut(&peer) {
            line.hearing = hearing;
        }
    }

    /// Gives `message` to the session with the peer that `target` names, if that has a link.
    pub(in crate::node) fn post(&self, target: &Target, message: Message, clock: Clock) -> Posted {
        let lines = self.lock();
        let Some((peer, line)) = find(&lines, target) else {
            return Posted::NotLinked(message);
        };
        match line.post(peer, message, Durability::Volatile, (clock, self)) {
            Err(failure) => Posted::NotTaken(failure),
            Ok(posting) => Posted::Taken(posting),
        }
    }

    /// The peer that `target` names, if it has a link.
    pub(in crate::node) fn peer(&self, target: &Target) -> Option<PeerId> {
        find(&self.lock(), target).map(|(peer, _)| peer)
    }

    /// Waits for the message of `peer` that answers the one with this id; `None` if there is no link.
    ///
    /// # Errors
    /// When somebody waits for it already, or too many others are waited for.
    pub(in crate::node) fn expect_reply(
        &self,
        peer: PeerId,
        message_id: &str,
    ) -> Result<Option<AwaitedReply>, Failure> {
        let lines = self.lock();
        let Some(line) = lines.get(&peer) else {
            return Ok(None);
        };
        match line.session.expect_reply(message_id) {
            Some(awaited) => Ok(Some(awaited)),
            None => Err(explain::already_asked(message_id)),
        }
    }

    /// Whether `peer` has a link and answers.
    fn hears(&self, peer: PeerId) -> bool {
        self.lock().get(&peer).is_some_and(|line| line.hearing == Hearing::Heard)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PeerId, Line>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn find<'a>(lines: &'a BTreeMap<PeerId, Line>, target: &Target) -> Option<(PeerId, &'a Line)> {
    let line = match target.peer() {
        Some(peer) => lines.get_key_value(&peer),
        None => {
            let meant =
                lines.iter().filter(|(peer, line)| target.means(**peer, line.target.as_ref()));
            meant.max_by_key(|(_, line)| line.generation)
        }
    };
    line.map(|(peer, line)| (*peer, line))
}

impl Line {
    /// Of a link that came up as the `generation`th, because `target` was dialled if it was us.
    pub(in crate::node) fn new(
        session: Session,
        counts: Arc<Counts>,
        target: Option<Target>,
        generation: u64,
    ) -> Self {
        Self { session, counts, target, generation, hearing: Hearing::Heard }
    }

    /// Gives `message` to the session.
    pub(in crate::node) fn post(
        &self,
        peer: PeerId,
        message: Message,
        durability: Durability,
        (clock, switchboard): (Clock, &Switchboard),
    ) -> Result<Posting, Failure> {
        let (message_id, size) = (message.id.clone(), message.payload.len());
        let receipt = self.session.send(message, durability);
        let receipt = receipt.map_err(|error| explain::not_taken(&error, size))?;
        Ok(Posting {
            peer,
            message_id,
            began: clock.now(),
            clock,
            receipt,
            counts: self.counts.clone(),
            switchboard: switchboard.clone(),
        })
    }
}

impl Posting {
    /// Waits until the peer has the message, or `deadline`.
    pub(in crate::node) async fn outcome(mut self, deadline: Instant) -> Result<Receipt, Failure> {
        let peer = self.peer;
        match timeout_at(deadline.into(), &mut self.receipt).await {
            Ok(Ok(())) => {
                self.counts.delivered.fetch_add(1, Ordering::Relaxed);
                Ok(Receipt {
                    peer: Some(peer),
                    message_id: std::mem::take(&mut self.message_id),
                    state: SendState::Delivered,
                    rtt: self.clock.now().saturating_duration_since(self.began),
                })
            }
            Ok(Err(Undelivered::DeliveryUnknown { cause })) => {
                Err(explain::delivery_unknown(&cause.to_string(), peer))
            }
            Ok(Err(Undelivered::NotSent)) => Err(explain::not_sent(peer)),
            Err(_) => Err(match self.receipt.withdraw() {
                Withdrawn::NotSent => explain::not_sent_in_time(peer),
                Withdrawn::MaybeDelivered if self.switchboard.hears(peer) => {
                    explain::unacknowledged(peer)
                }
                Withdrawn::MaybeDelivered => {
                    explain::delivery_unknown("the connection was lost meanwhile", peer)
                }
            }),
        }
    }
}

impl Drop for Posting {
    fn drop(&mut self) {
        // What was delivered, or is on its way, stays as it is.
        let _ = self.receipt.withdraw();
    }
}
