//! Messages on their way to the user, apart from events: a user who is busy with messages still hears
//! what else happens, and the other way round.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot};

use crate::{identity::PeerId, proto::Message};

/// A message that arrived.
#[derive(Debug)]
pub struct Received {
    /// From whom; proved by TLS.
    pub peer: PeerId,
    /// What it says.
    pub message: Message,
    /// Dropping it acknowledges the message to its sender.
    pub handover: Handover,
}

/// The promise to acknowledge a message.
#[derive(Debug)]
pub struct Handover(());

impl Handover {
    pub(crate) fn new() -> Self {
        Self(())
    }
}

/// The messages of all peers, each peer's in its order. While nobody takes them, their senders are
/// slowed down.
#[derive(Debug)]
pub struct Inbox(mpsc::Receiver<Received>);

impl Inbox {
    /// A way for messages to the user.
    pub(crate) fn new() -> (mpsc::Sender<Received>, Self) {
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        (sender, Self(receiver))
    }

    /// The next message; `None` when the node has stopped. Giving up the wait loses nothing.
    pub async fn next(&mut self) -> Option<Received> {
        self.0.recv().await
    }

    /// The next message, if one is there.
    pub fn try_next(&mut self) -> Option<Received> {
        self.0.try_recv().ok()
    }
}

/// Who waits for an answer to which message.
#[derive(Clone, Debug, Default)]
pub(super) struct Replies {
    waiting: Arc<Mutex<Waiting>>,
}

/// By peer and message id.
type Waiting = BTreeMap<(PeerId, String), oneshot::Sender<Received>>;

/// The right to one answer, given back when it is dropped.
#[derive(Debug)]
pub(super) struct Awaited {
    replies: Replies,
    key: (PeerId, String),
    answer: oneshot::Receiver<Received>,
}

impl Replies {
    /// Waits for `peer`'s answer to the message with this id; `None` if somebody does already, or too many
    /// wait.
    pub(super) fn expect(&self, peer: PeerId, message_id: String) -> Option<Awaited> {
        let key = (peer, message_id);
        let mut waiting = self.lock();
        if waiting.len() >= REPLIES_MAX || waiting.contains_key(&key) {
            return None;
        }
        let (sender, answer) = oneshot::channel();
        waiting.insert(key.clone(), sender);
        Some(Awaited { replies: self.clone(), key, answer })
    }

    /// Gives `received` to whoever waits for it; gives it back if nobody does.
    pub(super) fn offer(&self, received: Received) -> Option<Received> {
        let Some(id) = received.message.metadata.get(IN_REPLY_TO) else {
            return Some(received);
        };
        let waiting = self.lock().remove(&(received.peer, id.clone()));
        match waiting {
            None => Some(received),
            Some(answer) => answer.send(received).err(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Awaited {
    /// The answer; `None` when the node has stopped.
    pub(super) async fn answer(mut self) -> Option<Received> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.replies.lock().remove(&self.key);
    }
}

/// The metadata entry that names the message which is answered.
pub const IN_REPLY_TO: &str = "in-reply-to";

/// Messages that wait for the user beyond those that wait in their sessions; each may hold 16 MiB, so few.
const MESSAGES_MAX: usize = 16;

/// Requests that wait for an answer: more than programs run at once, and small.
const REPLIES_MAX: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn peer(seed: u8) -> PeerId {
        Identity::from_seed([seed; 32]).peer_id()
    }

    fn reply(from: PeerId, to: &str) -> Received {
        let metadata = [(IN_REPLY_TO.to_owned(), to.to_owned())].into();
        let message = Message { metadata, ..Message::default() };
        Received { peer: from, message, handover: Handover::new() }
    }

    #[tokio::test]
    async fn an_answer_goes_to_the_one_who_asked_that_peer() {
        let replies = Replies::default();
        let awaited = replies.expect(peer(1), "a".into()).unwrap();
        assert!(replies.expect(peer(1), "a".into()).is_none(), "two would wait for one answer");
        assert!(replies.offer(reply(peer(2), "a")).is_some(), "another peer's");
        assert!(replies.offer(reply(peer(1), "b")).is_some(), "to another message");
        assert!(replies.offer(reply(peer(1), "a")).is_none());
        assert!(replies.offer(reply(peer(1), "a")).is_some(), "the second one is a message");
        assert_eq!(awaited.answer().await.unwrap().peer, peer(1));
    }

    #[test]
    fn whoever_gives_up_waits_no_more() {
        let replies = Replies::default();
        drop(replies.expect(peer(1), "a".into()));
        assert!(replies.offer(reply(peer(1), "a")).is_some());
        assert!(replies.expect(peer(1), "a".into()).is_some());
    }
}
