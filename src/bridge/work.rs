//! The commands that run, each in its own task, and the answers that they come to.

use std::{
    future,
    pin::Pin,
    time::{Duration, Instant},
};

use futures_lite::future::poll_once;
use tokio::task::{self, JoinError, JoinSet};

use super::{command::Id, reply::Reply};
use crate::{
    failure::{Code, Failure},
    identity::PeerId,
};

/// Commands that run at the same time. A program that sends faster than its peers acknowledge is told
/// so, instead of filling our memory.
pub(super) const COMMANDS_RUNNING_MAX: usize = 256;

/// What a command comes to.
pub(super) type Outcome = Result<Reply, Failure>;

/// A command at work.
pub(super) type Job = Pin<Box<dyn Future<Output = Outcome> + Send>>;

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
#[derive(Debug, Default)]
pub(super) struct Work {
    tasks: JoinSet<Outcome>,
    asked: Vec<(task::Id, Asked)>,
}

impl Work {
    /// Begins `job`; its outcome comes at once if it needs no waiting, or from [`Work::next`].
    ///
    /// The job is polled before this returns, so that what jobs ask of the node reaches it in the order
    /// of the commands: that is what keeps messages to one peer in order. Outside of tokio's budget,
    /// because a poll that has no budget left asks nothing.
    pub(super) async fn begin(&mut self, asked: Asked, mut job: Job) -> Option<(Asked, Outcome)> {
        if self.asked.len() >= COMMANDS_RUNNING_MAX {
            return Some((asked, Err(too_many())));
        }
        if let Some(outcome) = poll_once(task::unconstrained(job.as_mut())).await {
            return Some((asked, outcome));
        }
        let task = self.tasks.spawn(job);
        self.asked.push((task.id(), asked));
        None
    }

    /// The next command that is done. Waits for ever if none runs. Nothing is lost if the wait is given up.
    pub(super) async fn next(&mut self) -> (Asked, Outcome) {
        let Some(joined) = self.tasks.join_next_with_id().await else {
            return future::pending().await;
        };
        let (id, outcome) = match joined {
            Ok(done) => done,
            Err(error) => (error.id(), Err(died(&error))),
        };
        let place = self.asked.iter().position(|(task, _)| *task == id);
        let place = place.expect("every task is entered when it is spawned");
        (self.asked.swap_remove(place).1, outcome)
    }

    /// Whether nothing runs.
    pub(super) fn is_empty(&self) -> bool {
        self.asked.is_empty()
    }

    /// Ends everything; returns who waits.
    pub(super) fn abandon(&mut self) -> Vec<Asked> {
        self.tasks.abort_all();
        self.asked.drain(..).map(|(_, asked)| asked).collect()
    }
}

impl Asked {
    /// How long the command has been running.
    pub(super) fn elapsed(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }
}

fn too_many() -> Failure {
    Failure::new(Code::QueueFull, format!("{COMMANDS_RUNNING_MAX} commands are running already"))
        .hint("wait for the answers to earlier commands")
}

fn died(error: &JoinError) -> Failure {
    Failure::new(Code::Internal, "the command was lost by a bug in p2p-node")
        .because(error.to_string())
        .hint("stderr says more; please report it")
}
