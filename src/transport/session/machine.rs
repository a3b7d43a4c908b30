//! The rules by which a session goes from link to link, around its two halves.
//!
//! Pure: the shell reports links, frames and calls, and passes on what was settled.
//!
//! Three names decide what may be believed. The *run* in the peer's hello names a run of its program: with
//! another one, the peer has lost everything. The *session* in its resume names what that run remembers of
//! us: with a higher one, it has forgotten us in between. The *generation* counts the links that we were
//! attached to: whatever comes over an older one changes nothing.
//!
//! A link may lead to a run that is over, if it is attached late. Runs cannot be compared, but links can: the
//! one that came up later leads to the later run.

use std::num::NonZeroU64;

use thiserror::Error;
use tokio::time::Instant;

use super::{
    inbound::{AckNeed, BadMessage, Inbound},
    message::Outgoing,
    outbound::{NeverSent, Outbound, SendError},
};
use crate::{
    proto::{
        Message,
        wire::{Resume, Sequenced},
    },
    transport::frame::Chunks,
};

/// A session, with tickets of type `T` for those who wait for receipts.
#[derive(Debug)]
pub(super) struct Machine<T> {
    id: NonZeroU64,
    peer: Option<Peer>,
    outbound: Outbound<T>,
    inbound: Inbound,
    generation: u64,
    stage: Stage,
    settled: Vec<(T, Fate)>,
}

/// Whom the numbering belongs to.
#[derive(Clone, Copy, Debug)]
struct Peer {
    run: NonZeroU64,
    /// The number of the latest link to that run.
    link: u64,
    /// Unknown until its first resume.
    session: Option<NonZeroU64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// No link.
    Apart,
    /// There is a link; the peer has not resumed over it.
    Attached,
    /// There is a link that both sides' sessions use.
    Resumed,
    Ended,
}

/// What became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Delivered,
    Unknown(Cause),
    NotSent,
}

/// Why nobody knows whether a message was delivered.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Cause {
    /// The peer's program was started anew while the message was on its way.
    #[error("the peer was restarted")]
    PeerRestarted,
    /// The peer ended its session with us while the message was on its way.
    #[error("the peer has ended its session with us")]
    PeerForgot,
    /// The session was ended here while the message was on its way.
    #[error("{0}")]
    Ended(String),
}

/// Why a session does not take a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(in crate::transport) enum NotAttached {
    /// The link leads to a run of the peer's program that is over.
    #[error("the peer was restarted since")]
    EarlierRun,
    /// The session has ended.
    #[error("the session has ended")]
    Ended,
}

/// Why a frame changed nothing.
#[derive(Debug, PartialEq, Eq, Error)]
pub(in crate::transport) enum Rejected {
    /// The session has gone on to another link.
    #[error("the session uses another link")]
    Stale,
    /// The peer's session on this link is over.
    #[error("the peer's session is over")]
    EarlierSession,
    /// The frame breaks the protocol.
    #[error("{0}")]
    Violation(String),
}

/// Whether the message stream of a link may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::transport) enum Reading {
    Now,
    /// When the peer has resumed, or the consumer made room.
    Later,
    Never,
}

impl<T> Machine<T> {
    /// A session named `id`, without a link.
    pub(super) fn new(id: NonZeroU64) -> Self {
        Self {
            id,
            peer: None,
            outbound: Outbound::new(),
            inbound: Inbound::default(),
            generation: 0,
            stage: Stage::Apart,
            settled: Vec::new(),
        }
    }

    /// Goes on over another link to `run` of the peer's program, and gives the link's generation. Links
    /// are numbered in the order in which they came up.
    pub(super) fn attach(&mut self, run: NonZeroU64, link: u64) -> Result<u64, NotAttached> {
        if self.stage == Stage::Ended {
            return Err(NotAttached::Ended);
        }
        let before = self.peer.filter(|peer| peer.run != run);
        if before.is_some_and(|before| link < before.link) {
            return Err(NotAttached::EarlierRun);
        }
        self.outbound.detach();
        if before.is_some() {
            self.lose_in_flight(&Cause::PeerRestarted);
            self.inbound.forget_numbering();
            self.peer = None;
        }
        let peer = self.peer.get_or_insert(Peer { run, link, session: None });
        peer.link = peer.link.max(link);
        self.outbound.attach();
        self.inbound.attach();
        self.generation += 1;
        self.stage = Stage::Attached;
        Ok(self.generation)
    }

    /// What the peer is told first over a new link.
    pub(super) fn resume(&self) -> Resume {
        Resume {
            session: self.id.get(),
            peer_session: self.peer.and_then(|peer| peer.session).map_or(0, NonZeroU64::get),
            received: self.inbound.received().unwrap_or(0),
        }
    }

    /// The link of `generation` is gone.
    pub(super) fn detach(&mut self, generation: u64) {
        if self.is_current(generation) {
            self.outbound.detach();
            self.stage = Stage::Apart;
        }
    }

    /// Takes in what the peer's session remembers.
    pub(super) fn handle_resume(
        &mut self,
        generation: u64,
        resume: &Resume,
    ) -> Result<(), Rejected> {
        self.check_current(generation)?;
        if self.stage == Stage::Resumed {
            return Err(Rejected::Violation("a second resume".to_owned()));
        }
        let session = NonZeroU64::new(resume.session)
            .ok_or_else(|| Rejected::Violation("a session without a name".to_owned()))?;
        let peer = self.peer.as_mut().expect("an attached session knows the peer's run");
        if peer.session.is_some_and(|before| session < before) {
            return Err(Rejected::EarlierSession);
        }
        let knows_us = resume.peer_session == self.id.get();
        let received = if knows_us { resume.received } else { 0 };
        if peer.session.replace(session).is_some_and(|before| before < session) {
            self.inbound.forget_numbering();
            // What this new session has of ours was written to it alone: with anything in flight, nothing
            // is written before the peer has resumed.
            if received == 0 {
                self.lose_in_flight(&Cause::PeerForgot);
            }
        }
        self.outbound.resume(received)?;
        self.stage = Stage::Resumed;
        Ok(())
    }

    /// Takes in that the peer's consumer has all messages up to `delivered`.
    pub(super) fn handle_ack(&mut self, generation: u64, delivered: u64) -> Result<(), Rejected> {
        self.check_current(generation)?;
        if self.stage != Stage::Resumed {
            return Err(Rejected::Violation("an ack before the resume".to_owned()));
        }
        let settled = &mut self.settled;
        self.outbound.acknowledge(delivered, |ticket| settled.push((ticket, Fate::Delivered)))?;
        Ok(())
    }

    /// Whether another message may be read from the link.
    pub(super) fn reading(&self, generation: u64) -> Reading {
        if !self.is_current(generation) {
            Reading::Never
        } else if self.stage == Stage::Resumed && self.inbound.has_room() {
            Reading::Now
        } else {
            Reading::Later
        }
    }

    /// Takes in a message that was read when it might be.
    pub(super) fn handle_message(
        &mut self,
        generation: u64,
        frame: Sequenced,
    ) -> Result<(), Rejected> {
        self.check_current(generation)?;
        Ok(self.inbound.push(frame)?)
    }

    /// Writes the next messages for the link, and says how many.
    pub(super) fn pop_batch(
        &mut self,
        generation: u64,
        out: &mut Chunks,
    ) -> Result<usize, Rejected> {
        self.check_current(generation)?;
        Ok(self.outbound.pop_batch(out))
    }

    /// How soon an ack is due on the link. None is before the peer has resumed: it may number its messages
    /// anew.
    pub(super) fn ack_need(&self, generation: u64) -> AckNeed {
        if self.may_acknowledge(generation) { self.inbound.ack_need() } else { AckNeed::None }
    }

    /// What the next ack on the link says.
    pub(super) fn acknowledge(&mut self, generation: u64) -> Option<u64> {
        if self.may_acknowledge(generation) { self.inbound.acknowledge() } else { None }
    }

    fn may_acknowledge(&self, generation: u64) -> bool {
        self.stage == Stage::Resumed && self.generation == generation
    }

    /// Queues a message, and gives the number by which it can be withdrawn.
    pub(super) fn send(&mut self, message: Outgoing, ticket: T) -> Result<u64, SendError> {
        if self.stage == Stage::Ended {
            return Err(SendError::Ended);
        }
        self.outbound.check_room(message.cost())?;
        Ok(self.outbound.push(message, ticket))
    }

    /// Takes back message `number`; `false` if it was written to a link, or settled.
    pub(super) fn withdraw(&mut self, number: u64) -> bool {
        let withdrawn = self.outbound.withdraw(number).map(|ticket| (ticket, Fate::NotSent));
        let was_waiting = withdrawn.is_some();
        self.settled.extend(withdrawn);
        was_waiting
    }

    /// Hands the next message to the consumer, with the number by which it is settled.
    pub(super) fn pop(&mut self, now: Instant) -> Option<(Message, u64)> {
        self.inbound.pop(now)
    }

    /// The consumer is done with message `number`.
    pub(super) fn settle(&mut self, number: u64) {
        self.inbound.settle(number);
    }

    /// Ends the session: settles everything, and takes and sends nothing any more.
    pub(super) fn end(&mut self, why: &str) {
        self.outbound.detach();
        self.lose_in_flight(&Cause::Ended(why.to_owned()));
        let waiting = self.outbound.abandon_waiting();
        self.settled.extend(waiting.into_iter().map(|ticket| (ticket, Fate::NotSent)));
        self.stage = Stage::Ended;
    }

    /// The tickets of all messages that were settled since the last time.
    pub(super) fn take_settled(&mut self) -> Vec<(T, Fate)> {
        std::mem::take(&mut self.settled)
    }

    pub(super) fn outbound(&self) -> &Outbound<T> {
        &self.outbound
    }

    pub(super) fn inbound(&self) -> &Inbound {
        &self.inbound
    }

    pub(super) fn inbound_mut(&mut self) -> &mut Inbound {
        &mut self.inbound
    }

    pub(super) fn is_ended(&self) -> bool {
        self.stage == Stage::Ended
    }

    /// Whether there is something to send and no link for it.
    pub(super) fn wants_link(&self) -> bool {
        self.stage == Stage::Apart && !self.outbound.is_empty()
    }

    /// Links that the session was attached to.
    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the session goes over the link of `generation`.
    pub(super) fn is_current(&self, generation: u64) -> bool {
        matches!(self.stage, Stage::Attached | Stage::Resumed) && self.generation == generation
    }

    fn check_current(&self, generation: u64) -> Result<(), Rejected> {
        if self.is_current(generation) { Ok(()) } else { Err(Rejected::Stale) }
    }

    fn lose_in_flight(&mut self, cause: &Cause) {
        let lost = self.outbound.lose_in_flight().into_iter();
        self.settled.extend(lost.map(|ticket| (ticket, Fate::Unknown(cause.clone()))));
    }
}

impl From<NeverSent> for Rejected {
    fn from(error: NeverSent) -> Self {
        Self::Violation(error.to_string())
    }
}

impl From<BadMessage> for Rejected {
    fn from(error: BadMessage) -> Self {
        Self::Violation(error.to_string())
    }
}
