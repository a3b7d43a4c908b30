//! The commands that run, and the answers that they come to.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use super::{
    command::Id,
    jobs::{Begun, Jobs, Panicked, Slot},
    reply::Reply,
};
use crate::{
    failure::{Code, Failure},
    identity::PeerId,
};

/// Commands that run at the same time: four times what a peer lets wait. A program that sends faster than
/// its peers acknowledge is told so, instead of filling our memory.
pub(super) const COMMANDS_RUNNING_MAX: usize = 4_096;

/// Bytes of payload in the messages of running commands: four of the largest.
pub(super) const BYTES_RUNNING_MAX: usize = 64 * 1024 * 1024;

/// What a command comes to.
pub(super) type Outcome<H> = Result<Answer<H>, Failure>;

/// A command at work.
pub(super) type Job<H> = super::jobs::Job<Outcome<H>>;

/// The answer to a command.
#[derive(Debug)]
pub(super) struct Answer<H> {
    /// What came of it.
    pub(super) reply: Reply,
    /// To be dropped when the answer has been written.
    pub(super) handover: Option<H>,
}

/// Who waits for an answer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    /// The command's id.
    pub(super) id: Option<Id>,
    /// Whom it is for, if that is one peer.
    pub(super) peer: Option<PeerId>,
    /// When it was read.
    pub(super) since: Instant,
}

/// All running commands.
#[derive(Debug)]
pub(super) struct Work<H> {
    jobs: Jobs<Outcome<H>>,
    running: BTreeMap<Slot, Running>,
    by_id: BTreeMap<Id, Slot>,
    bytes: usize,
}

#[derive(Debug)]
struct Running {
    asked: Asked,
    bytes: usize,
}

impl<H: 'static> Work<H> {
    /// Begins `job`, which holds `bytes` of payload; its outcome comes at once if it needs no waiting, or
    /// from [`Work::next`].
    ///
    /// The job is polled before this returns, so that what jobs ask of the node reaches it in the order
    /// of the commands: that is what keeps messages to one peer in order.
    pub(super) fn begin(
        &mut self,
        asked: Asked,
        bytes: usize,
        job: Job<H>,
    ) -> Option<(Asked, Outcome<H>)> {
        if let Err(failure) = self.admit(bytes) {
            return Some((asked, Err(failure)));
        }
        match self.jobs.begin(job) {
            Begun::Done(outcome) => Some((asked, flat(outcome))),
            Begun::Running(slot) => {
                if let Some(id) = &asked.id {
                    self.by_id.insert(id.clone(), slot);
                }
                self.bytes += bytes;
                self.running.insert(slot, Running { asked, bytes });
                None
            }
        }
    }

    /// The next command that is done. Waits for ever if none runs. Nothing is lost if the wait is given up.
    pub(super) async fn next(&mut self) -> (Asked, Outcome<H>) {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// Gives a command up; whatever it has not done yet will not be done.
    pub(super) fn cancel(&mut self, id: &Id) -> Option<Asked> {
        let slot = *self.by_id.get(id)?;
        self.jobs.end(slot);
        Some(self.remove(slot))
    }

    /// Whether a command with this id runs.
    pub(super) fn is_running(&self, id: &Id) -> bool {
        self.by_id.contains_key(id)
    }

    /// Whether nothing runs.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Ends everything; returns who waits, who waits longest first.
    pub(super) fn abandon(&mut self) -> Vec<Asked> {
        self.jobs.clear();
        self.by_id.clear();
        self.bytes = 0;
        let running = std::mem::take(&mut self.running).into_values();
        let mut asked: Vec<Asked> = running.map(|running| running.asked).collect();
        asked.sort_by_key(|asked| asked.since);
        asked
    }

    fn admit(&self, bytes: usize) -> Result<(), Failure> {
        let too_much = |what: String| {
            Err(Failure::new(Code::QueueFull, what)
                .hint("wait for the answers to earlier commands"))
        };
        if self.running.len() >= COMMANDS_RUNNING_MAX {
            return too_much(format!("{COMMANDS_RUNNING_MAX} commands are running already"));
        }
        if self.bytes + bytes > BYTES_RUNNING_MAX {
            let running = self.bytes;
            return too_much(format!("the messages under way have {running} bytes already"));
        }
        Ok(())
    }

    fn poll_next(&mut self, context: &Context<'_>) -> Poll<(Asked, Outcome<H>)> {
        self.jobs.poll_next(context).map(|(slot, outcome)| (self.remove(slot), flat(outcome)))
    }

    fn remove(&mut self, slot: Slot) -> Asked {
        let running = self.running.remove(&slot);
        let Running { asked, bytes } = running.expect("every job is entered when it begins");
        self.bytes -= bytes;
        if let Some(id) = &asked.id {
            self.by_id.remove(id);
        }
        asked
    }
}

impl<H> Default for Work<H> {
    fn default() -> Self {
        Self { jobs: Jobs::default(), running: BTreeMap::new(), by_id: BTreeMap::new(), bytes: 0 }
    }
}

impl Asked {
    /// How long the command has been running.
    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

impl<H> From<Reply> for Answer<H> {
    fn from(reply: Reply) -> Self {
        Self { reply, handover: None }
    }
}

fn flat<H>(outcome: Result<Outcome<H>, Panicked>) -> Outcome<H> {
    outcome.unwrap_or_else(|Panicked| {
        Err(Failure::new(Code::Internal, "the command was lost by a bug in p2p-node")
            .hint("stderr says more; please report it"))
    })
}
