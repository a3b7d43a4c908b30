//! What a link has of a session that it carries: its frames go in and out here, as long as the session has
//! not gone on to another link.

use std::{collections::VecDeque, fmt, num::NonZeroU64, sync::Arc};

use tokio::sync::Notify;

use super::{
    Session, Shared,
    inbound::AckNeed,
    machine::{NotAttached, Reading, Rejected},
};
use tokio::time::Instant;

use crate::{
    proto::wire::{Resume, Sequenced},
    transport::frame::Chunks,
};

/// How a session wakes the tasks of its link.
#[derive(Debug, Default)]
pub(in crate::transport) struct Line {
    /// There is something to write on the message stream, or room for it.
    pub(in crate::transport) to_write: Notify,
    /// The message stream may be read.
    pub(in crate::transport) to_read: Notify,
    /// There is something to say on the control stream.
    pub(in crate::transport) to_say: Notify,
}

impl Line {
    /// Wakes all of them: a session has come, or gone.
    pub(in crate::transport) fn wake_all(&self) {
        self.to_write.notify_one();
        self.to_read.notify_one();
        self.to_say.notify_one();
    }
}

/// A session's hold on one link. When the session has gone on to another, nothing that comes in here
/// changes it.
#[derive(Clone)]
pub(in crate::transport) struct Carrier {
    shared: Arc<Shared>,
    generation: u64,
}

impl Session {
    /// Goes on over link number `link`, which leads to `run` of the peer's program, and gives what the
    /// peer is to be told first.
    /// The link that carried the session before does so no longer.
    pub(in crate::transport) fn attach(
        &self,
        run: NonZeroU64,
        link: u64,
        line: &Arc<Line>,
    ) -> Result<(Carrier, Resume), NotAttached> {
        let shared = &self.0.0;
        let (generation, resume, before) = shared.settle(|state| {
            let generation = state.machine.attach(run, link)?;
            let before = state.line.replace(line.clone());
            Ok((generation, state.machine.resume(), before))
        })?;
        if let Some(before) = before {
            before.wake_all();
        }
        shared.changed.notify_waiters();
        line.wake_all();
        Ok((Carrier { shared: shared.clone(), generation }, resume))
    }
}

impl Carrier {
    /// The link is gone.
    pub(in crate::transport) fn detach(&self) {
        let mut state = self.shared.lock();
        if state.machine.is_current(self.generation) {
            state.machine.detach(self.generation);
            state.line = None;
        }
        drop(state);
        self.shared.changed.notify_waiters();
    }

    pub(in crate::transport) fn handle_resume(&self, resume: &Resume) -> Result<(), Rejected> {
        let (result, line) = self.shared.settle(|state| {
            (state.machine.handle_resume(self.generation, resume), state.line.clone())
        });
        if let Some(line) = line.filter(|_| result.is_ok()) {
            line.wake_all();
        }
        result
    }

    pub(in crate::transport) fn handle_ack(&self, delivered: u64) -> Result<(), Rejected> {
        let (result, line, is_empty) = self.shared.settle(|state| {
            let result = state.machine.handle_ack(self.generation, delivered);
            (result, state.line.clone(), state.machine.outbound().is_empty())
        });
        if is_empty {
            self.shared.changed.notify_waiters();
        } else if let Some(line) = line {
            line.to_write.notify_one();
        }
        result
    }

    pub(in crate::transport) fn reading(&self) -> Reading {
        self.shared.lock().machine.reading(self.generation)
    }

    /// Takes in messages that were read, as far as there is room.
    pub(in crate::transport) fn handle_messages(
        &self,
        frames: &mut VecDeque<Sequenced>,
    ) -> Result<(), Rejected> {
        let mut guard = self.shared.lock();
        let state = &mut *guard;
        let mut result = Ok(());
        let mut replies = Vec::new();
        while result.is_ok()
            && state.machine.reading(self.generation) != Reading::Later
            && let Some(frame) = frames.pop_front()
        {
            result = state.machine.handle_message(self.generation, frame);
            replies.extend(state.take_reply(Instant::now));
        }
        // A double is acknowledged again.
        let is_due = state.machine.inbound().ack_need() == AckNeed::Now;
        let line = state.line.as_ref().filter(|_| is_due).cloned();
        drop(guard);
        if let Some(line) = line {
            line.to_say.notify_one();
        }
        for reply in replies {
            reply.give(&self.shared);
        }
        // What came before a fault is the consumer's.
        self.shared.announce();
        result
    }

    /// Writes the next messages, and says how many. After none, `to_write` tells when there are more.
    pub(in crate::transport) fn pop_batch(&self, out: &mut Chunks) -> Result<usize, Rejected> {
        let mut state = self.shared.lock();
        let count = state.machine.pop_batch(self.generation, out)?;
        state.is_written = count == 0;
        Ok(count)
    }

    pub(in crate::transport) fn ack_need(&self) -> AckNeed {
        self.shared.lock().machine.ack_need(self.generation)
    }

    /// What the next ack says, if there is anything to say.
    pub(in crate::transport) fn acknowledge(&self) -> Option<u64> {
        self.shared.lock().machine.acknowledge(self.generation)
    }

    /// Waits until everything is delivered, or the session goes over this link no longer.
    pub(in crate::transport) async fn drained(&self) {
        let generation = self.generation;
        self.shared
            .until(|machine| !machine.is_current(generation) || machine.outbound().is_empty())
            .await;
    }
}

impl fmt::Debug for Carrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Carrier({})", self.generation)
    }
}
