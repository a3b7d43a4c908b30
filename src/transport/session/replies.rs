//! Answers that somebody waits for: each goes to whoever asked, past all messages that wait.

use std::{collections::BTreeMap, fmt, sync::Arc};

use tokio::{sync::oneshot, time::Instant};

use super::{Handover, Received, Session, Shared, State};
use crate::proto::Message;

/// Who waits for the answer to the message with this id.
pub(super) type Asked = BTreeMap<String, oneshot::Sender<Received>>;

/// An answer on its way to whoever asked.
pub(super) struct Reply {
    asked: oneshot::Sender<Received>,
    message: Message,
    number: u64,
}

/// The right to one answer, given back when it is dropped.
pub struct AwaitedReply {
    shared: Arc<Shared>,
    message_id: String,
    reply: oneshot::Receiver<Received>,
}

impl Session {
    /// Waits for the first message whose metadata says under [`IN_REPLY_TO`] that it answers the one with
    /// this id: it goes past all others that wait, and past whoever receives. `None` if somebody waits for
    /// it already, or [`REPLIES_MAX`] others are waited for.
    pub fn expect_reply(&self, message_id: &str) -> Option<AwaitedReply> {
        let mut state = self.0.0.lock();
        if state.asked.len() >= REPLIES_MAX || state.asked.contains_key(message_id) {
            return None;
        }
        let (asked, reply) = oneshot::channel();
        state.asked.insert(message_id.to_owned(), asked);
        drop(state);
        Some(AwaitedReply { shared: self.0.0.clone(), message_id: message_id.to_owned(), reply })
    }
}

impl State {
    /// The message that has just arrived, if somebody waits for it as an answer.
    pub(super) fn take_reply(&mut self, now: impl FnOnce() -> Instant) -> Option<Reply> {
        if self.asked.is_empty() {
            return None;
        }
        let id = self.machine.inbound().last()?.metadata.get(IN_REPLY_TO)?;
        let asked = self.asked.remove(id)?;
        let (message, number) = self.machine.inbound_mut().take_last(now())?;
        Some(Reply { asked, message, number })
    }
}

impl Reply {
    /// Gives the answer to whoever asked; one who has given up has it as little as nobody.
    pub(super) fn give(self, shared: &Arc<Shared>) {
        let handover = Handover { number: self.number, shared: shared.clone() };
        drop(self.asked.send(Received { message: self.message, handover }));
    }
}

impl AwaitedReply {
    /// The answer; `None` when the session has ended.
    pub async fn received(mut self) -> Option<Received> {
        (&mut self.reply).await.ok()
    }
}

impl Drop for AwaitedReply {
    fn drop(&mut self) {
        self.shared.lock().asked.remove(&self.message_id);
    }
}

impl fmt::Debug for AwaitedReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AwaitedReply(to {:?})", self.message_id)
    }
}

/// The metadata entry that names the message which is answered.
pub const IN_REPLY_TO: &str = "in-reply-to";

/// Messages that wait for an answer: more than a program asks at once, and small.
pub const REPLIES_MAX: usize = 4_096;
