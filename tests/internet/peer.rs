//! A node as a test sees it: its calls, and everything that it has told, with the time of each event.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use p2p_node::{
    failure::Failure,
    identity::PeerId,
    node::{
        Event, Inbox, Node, Received, Target,
        event::{Connection, Receipt, Stage},
    },
    proto::Message,
};
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, timeout},
};

use crate::world::{Home, message, to_service};

/// A node, and what it has told so far. Its events are taken as they come, whether anybody looks or not.
pub(crate) struct Peer {
    pub(crate) home: Home,
    pub(crate) node: Node,
    log: Arc<Log>,
    /// Events that the test has looked at.
    looked_at: usize,
    /// Messages that the test has looked at.
    messages_read: usize,
}

#[derive(Default)]
struct Log {
    events: Mutex<Vec<(Instant, Event)>>,
    messages: Mutex<Vec<(Instant, PeerId, Message)>>,
    more: Notify,
}

impl Peer {
    pub(crate) fn new(
        home: Home,
        node: Node,
        mut events: mpsc::Receiver<Event>,
        mut inbox: Inbox,
    ) -> Self {
        let log = Arc::new(Log::default());
        let writer = log.clone();
        tokio::spawn(async move {
            while let Some(event) = events.recv().await {
                let entry = (Instant::now(), event);
                writer.events.lock().unwrap().push(entry);
                writer.more.notify_one();
            }
        });
        let writer = log.clone();
        tokio::spawn(async move {
            while let Some(Received { peer, message, .. }) = inbox.next().await {
                writer.messages.lock().unwrap().push((Instant::now(), peer, message));
                writer.more.notify_one();
            }
        });
        Self { home, node, log, looked_at: 0, messages_read: 0 }
    }

    pub(crate) fn id(&self) -> PeerId {
        self.node.peer_id()
    }

    /// All that the node has told so far.
    pub(crate) fn events(&self) -> Vec<(Instant, Event)> {
        self.log.events.lock().unwrap().clone()
    }

    /// All messages that have arrived so far, in their order.
    pub(crate) fn messages(&self) -> Vec<(Instant, PeerId, Message)> {
        self.log.messages.lock().unwrap().clone()
    }

    /// Looks at further events until `wanted` returns something; panics after a virtual minute.
    pub(crate) async fn until<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        self.within(Duration::from_secs(60), wanted).await
    }

    /// Looks at further events until `wanted` returns something; panics when `limit` has passed.
    pub(crate) async fn within<T>(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&Event) -> Option<T>,
    ) -> T {
        let log = self.log.clone();
        let search = async {
            loop {
                while let Some(event) = self.next() {
                    if let Some(found) = wanted(&event) {
                        return found;
                    }
                }
                log.more.notified().await;
            }
        };
        match timeout(limit, search).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain; told so far: {:#?}", self.events()),
        }
    }

    /// The next event that nobody has looked at.
    fn next(&mut self) -> Option<Event> {
        let events = self.log.events.lock().unwrap();
        let (_, event) = events.get(self.looked_at)?;
        self.looked_at += 1;
        Some(event.clone())
    }

    pub(crate) async fn online(&mut self) {
        self.until(|event| matches!(event, Event::Online { .. }).then_some(())).await;
    }

    pub(crate) async fn connected(&mut self) -> Connection {
        self.until(|event| match event {
            Event::Connected(connection) => Some(connection.clone()),
            _ => None,
        })
        .await
    }

    /// The end of a link: why, and whether the node dials again.
    pub(crate) async fn disconnected(&mut self) -> (Failure, bool) {
        self.until(|event| match event {
            Event::Disconnected { failure, will_retry, .. } => Some((failure.clone(), *will_retry)),
            _ => None,
        })
        .await
    }

    /// The next message.
    pub(crate) async fn message(&mut self) -> (PeerId, Message) {
        self.message_within(Duration::from_secs(60)).await
    }

    /// The next message; panics when `limit` has passed.
    pub(crate) async fn message_within(&mut self, limit: Duration) -> (PeerId, Message) {
        let log = self.log.clone();
        let next = async {
            loop {
                let message = log.messages.lock().unwrap().get(self.messages_read).cloned();
                if let Some((_, peer, message)) = message {
                    self.messages_read += 1;
                    return (peer, message);
                }
                log.more.notified().await;
            }
        };
        match timeout(limit, next).await {
            Ok(found) => found,
            Err(_) => panic!("no message; told so far: {:#?}", self.events()),
        }
    }

    /// Connects to the service of this world.
    pub(crate) async fn connect(&self) -> Result<Connection, Failure> {
        self.node.connect(to_service(), None).await
    }

    /// Sends a message whose id is its text.
    pub(crate) async fn say(&self, target: Target, text: &str) -> Result<Receipt, Failure> {
        self.node.send(target, message(text), None).await
    }

    /// When `stage` was first told of.
    pub(crate) fn stage(&self, stage: Stage) -> Option<Instant> {
        self.events().iter().find_map(|(at, event)| match event {
            Event::Progress { stage: found, .. } if *found == stage => Some(*at),
            _ => None,
        })
    }

    /// How many of the events so far are like this.
    pub(crate) fn count(&self, like: impl Fn(&Event) -> bool) -> usize {
        self.events().iter().filter(|(_, event)| like(event)).count()
    }
}
