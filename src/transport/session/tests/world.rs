//! Two session machines and the wires of their links: bytes that wait, arrive, or are cut off.

use std::{collections::VecDeque, num::NonZeroU64};

use bytes::BytesMut;
use tokio::time::Instant;

use crate::{
    proto::{
        Message,
        wire::{Ack, Control, Resume, Sequenced, control::Kind},
    },
    transport::{
        frame::{Chunks, Deframer},
        session::{
            inbound::AckNeed,
            machine::{Fate, Machine, NotAttached, Reading, Rejected},
            message::{Durability, Outgoing},
            outbound::SendError,
        },
    },
};

/// One side: its machine, and its hold on links.
pub(super) struct Side {
    pub(super) machine: Machine<u32>,
    pub(super) run: NonZeroU64,
    /// What the consumer works on.
    pub(super) held: VecDeque<u64>,
}

/// One direction of one link.
#[derive(Default)]
pub(super) struct Way {
    /// The generation at the sender and at the receiver, when their sessions have come to the link.
    pub(super) sender: Option<u64>,
    pub(super) receiver: Option<u64>,
    control: Pipe<Control>,
    messages: Pipe<Sequenced>,
    /// Whether nothing more arrives than what is on its way.
    is_cut: bool,
    /// Control frames of the sender that came before the receiver's session did.
    early: VecDeque<Kind>,
}

/// Bytes of one stream on their way.
struct Pipe<M> {
    bytes: VecDeque<u8>,
    deframer: Deframer<M>,
}

impl<M: crate::transport::frame::Frame> Default for Pipe<M> {
    fn default() -> Self {
        Self { bytes: VecDeque::new(), deframer: Deframer::new() }
    }
}

impl<M: crate::transport::frame::Frame> Pipe<M> {
    fn write(&mut self, mut chunks: Chunks) {
        self.bytes.extend(chunks.take().concat());
    }

    fn deliver(&mut self, count: usize) {
        let count = count.min(self.bytes.len());
        let arrived: BytesMut = self.bytes.drain(..count).collect();
        self.deframer.buffer().extend_from_slice(&arrived);
    }
}

impl Side {
    pub(super) fn new(run: u64, session: u64) -> Self {
        let name = |name| NonZeroU64::new(name).unwrap();
        Self { machine: Machine::new(name(session)), run: name(run), held: VecDeque::new() }
    }

    pub(super) fn send(
        &mut self,
        message: Message,
        durability: Durability,
        ticket: u32,
    ) -> Result<u64, SendError> {
        self.machine.send(Outgoing::new(message, durability)?, ticket)
    }

    /// Takes the next message and keeps its handover.
    pub(super) fn take(&mut self, now: Instant) -> Option<Message> {
        let (message, number) = self.machine.pop(now)?;
        self.held.push_back(number);
        Some(message)
    }

    /// Takes the next message and is done with it.
    pub(super) fn consume(&mut self, now: Instant) -> Option<Message> {
        let message = self.take(now)?;
        let number = self.held.pop_back().unwrap();
        self.machine.settle(number);
        Some(message)
    }

    pub(super) fn fates(&mut self) -> Vec<(u32, Fate)> {
        self.machine.take_settled()
    }
}

impl Way {
    /// The sender's session comes to the link.
    pub(super) fn attach(
        &mut self,
        side: &mut Side,
        run: NonZeroU64,
        link: u64,
    ) -> Result<(), NotAttached> {
        self.sender = Some(side.machine.attach(run, link)?);
        let on_their_way = self.bytes_on_their_way();
        self.say(Kind::Resume(side.machine.resume()));
        if self.is_cut {
            self.truncate(on_their_way);
        }
        Ok(())
    }

    /// Writes what the sender's session has to say.
    pub(super) fn write(&mut self, side: &mut Side) {
        let Some(generation) = self.sender else { return };
        let on_their_way = self.bytes_on_their_way();
        if side.machine.ack_need(generation) != AckNeed::None
            && let Some(delivered) = side.machine.acknowledge(generation)
        {
            self.say(Kind::Ack(Ack { delivered }));
        }
        let mut chunks = Chunks::default();
        if side.machine.pop_batch(generation, &mut chunks).is_ok() {
            self.messages.write(chunks);
        }
        if self.is_cut {
            self.truncate(on_their_way);
        }
    }

    fn say(&mut self, kind: Kind) {
        let mut chunks = Chunks::default();
        chunks.push(Control { kind: Some(kind) }).unwrap();
        self.control.write(chunks);
    }

    /// Loses what is on its way after so many bytes of the control and the message stream, and all that
    /// is written from here on.
    pub(super) fn cut(&mut self, kept: (usize, usize)) {
        self.truncate(kept);
        self.is_cut = true;
    }

    fn truncate(&mut self, (control, messages): (usize, usize)) {
        self.control.bytes.truncate(control);
        self.messages.bytes.truncate(messages);
    }

    pub(super) fn bytes_on_their_way(&self) -> (usize, usize) {
        (self.control.bytes.len(), self.messages.bytes.len())
    }

    /// The receiver reads up to so many bytes of the control stream.
    pub(super) fn deliver_control(
        &mut self,
        side: &mut Side,
        count: usize,
    ) -> Result<(), Rejected> {
        self.control.deliver(count);
        while let Some(frame) = self.control.deframer.pop().unwrap() {
            self.early.push_back(frame.kind.unwrap());
        }
        let Some(generation) = self.receiver else { return Ok(()) };
        for kind in self.early.drain(..) {
            match kind {
                Kind::Resume(resume) => accept(side.machine.handle_resume(generation, &resume))?,
                Kind::Ack(Ack { delivered }) => {
                    accept(side.machine.handle_ack(generation, delivered))?;
                }
                Kind::Hello(_)
                | Kind::Welcome(_)
                | Kind::Bye(_)
                | Kind::Ping(_)
                | Kind::Pong(_)
                | Kind::Addresses(_) => {
                    unreachable!("nobody says it here")
                }
            }
        }
        Ok(())
    }

    /// The receiver reads up to so many bytes of the message stream, if it may.
    pub(super) fn deliver_messages(
        &mut self,
        side: &mut Side,
        count: usize,
    ) -> Result<(), Rejected> {
        let Some(generation) = self.receiver else { return Ok(()) };
        if side.machine.reading(generation) != Reading::Now {
            return Ok(());
        }
        self.messages.deliver(count);
        while side.machine.reading(generation) == Reading::Now
            && let Some(frame) = self.messages.deframer.pop().unwrap()
        {
            accept(side.machine.handle_message(generation, frame))?;
        }
        Ok(())
    }
}

/// What a link makes of it: the frames of a stale one are dropped.
fn accept(result: Result<(), Rejected>) -> Result<(), Rejected> {
    match result {
        Err(Rejected::Stale) => Ok(()),
        other => other,
    }
}

pub(super) fn resume(session: u64, peer_session: u64, received: u64) -> Resume {
    Resume { session, peer_session, received }
}
