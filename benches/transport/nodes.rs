//! Two whole nodes on loopback, as a program uses them: sends with receipts, and requests with replies.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use p2p_node::{
    entropy::Entropy,
    identity::Identity,
    node::{
        Clock, Config, Environment, Event, IN_REPLY_TO, Inbox, Node, Role, Target,
        environment::ExtraSockets,
    },
    proto::Message,
    ticket::Ticket,
    transport::{quic::tls::Crypto, sockets::udp::UdpSocket},
};
use quinn::AsyncUdpSocket as _;
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
};

use crate::raw::{median, per_second};

/// Two connected nodes.
pub(crate) struct Nodes {
    client: Node,
    server: Node,
    server_inbox: Inbox,
    _tasks: JoinSet<()>,
}

impl Nodes {
    pub(crate) async fn new() -> Self {
        let (server_identity, client_identity) = (identity(1), identity(2));
        let (server, server_events, server_inbox, address) = start(&server_identity, Role::Server);
        let (client, client_events, client_inbox, _) = start(&client_identity, Role::Client);
        let mut tasks = JoinSet::new();
        for mut events in [server_events, client_events] {
            tasks.spawn(async move { while events.recv().await.is_some() {} });
        }
        tasks.spawn(take_all(client_inbox));
        let ticket = Ticket::of(&server_identity, vec![address]);
        client.connect(Target::Ticket(ticket), None).await.unwrap();
        Self { client, server, server_inbox, _tasks: tasks }
    }

    /// Messages of `size` bytes per second, from the first `send` to the last receipt.
    pub(crate) async fn messages(self, count: usize, size: usize) -> f64 {
        let target = Target::Peer(self.server.peer_id());
        let taking = tokio::spawn(take(self.server_inbox, count));
        let start = Instant::now();
        let client = self.client.clone();
        let sending = tokio::spawn(async move {
            // As many senders as keep the queue filled and never overflow it.
            let room = Arc::new(Semaphore::new(if size > 1 << 16 { 16 } else { 1_000 }));
            let mut sends = futures::Sends::default();
            for _ in 0..count {
                let permit = match room.clone().try_acquire_owned() {
                    Ok(permit) => permit,
                    Err(_) => {
                        sends.finish_one().await;
                        room.clone().acquire_owned().await.unwrap()
                    }
                };
                let (client, target) = (client.clone(), target.clone());
                sends.begin(Box::pin(async move {
                    client.send(target, message(size), None).await.unwrap();
                    drop(permit);
                }));
            }
            sends.finish().await;
        });
        taking.await.unwrap();
        sending.await.unwrap();
        per_second(count, start.elapsed())
    }

    /// The median time from a request of 100 bytes to its reply of 100 bytes.
    pub(crate) async fn requests(self, count: usize) -> Duration {
        let (server, client) = (self.server.clone(), self.client.clone());
        let target = Target::Peer(server.peer_id());
        let (mut inbox, back) = (self.server_inbox, Target::Peer(client.peer_id()));
        let answering = tokio::spawn(async move {
            for _ in 0..count {
                let received = inbox.next().await.unwrap();
                let metadata =
                    BTreeMap::from([(IN_REPLY_TO.to_owned(), received.message.id.clone())]);
                drop(received);
                let reply = Message { metadata, ..message(100) };
                server.send(back.clone(), reply, None).await.unwrap();
            }
        });
        let asking = tokio::spawn(async move {
            let mut times = Vec::new();
            for number in 0..count {
                let request = Message { id: number.to_string(), ..message(100) };
                let start = Instant::now();
                client.request(target.clone(), request, None).await.unwrap();
                times.push(start.elapsed());
            }
            median(&mut times)
        });
        let times = asking.await.unwrap();
        answering.await.unwrap();
        times
    }
}

/// Sends under way, polled in place: a task for each would be measured, too.
mod futures {
    use std::{collections::VecDeque, future::Future, pin::Pin};

    use futures_lite::future::poll_once;

    type Sending = Pin<Box<dyn Future<Output = ()> + Send>>;

    #[derive(Default)]
    pub(super) struct Sends(VecDeque<Sending>);

    impl Sends {
        /// The first poll hands the message over.
        pub(super) fn begin(&mut self, mut sending: Sending) {
            if futures_lite::future::block_on(poll_once(&mut sending)).is_none() {
                self.0.push_back(sending);
            }
        }

        /// Receipts come in the order of the messages.
        pub(super) async fn finish_one(&mut self) {
            if let Some(first) = self.0.pop_front() {
                first.await;
            }
        }

        pub(super) async fn finish(mut self) {
            while !self.0.is_empty() {
                self.finish_one().await;
            }
        }
    }
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

fn start(identity: &Identity, role: Role) -> (Node, mpsc::Receiver<Event>, Inbox, SocketAddr) {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let environment = Environment {
        sockets: vec![socket.into()],
        extra_sockets: ExtraSockets::system(),
        interfaces: Arc::new(|| vec![Ipv4Addr::LOCALHOST.into()]),
        changes: None,
        lan: None,
        rendezvous: None,
        clock: Clock::system(),
        entropy: Entropy::from_system(),
        crypto: Crypto::system(),
        outbox: None,
    };
    let config = Config::new(identity.clone(), role);
    let (node, events, inbox) = Node::start(config, environment).unwrap();
    (node, events, inbox, address)
}

async fn take(mut inbox: Inbox, count: usize) {
    for _ in 0..count {
        inbox.next().await.unwrap();
    }
}

async fn take_all(mut inbox: Inbox) {
    while inbox.next().await.is_some() {}
}

fn message(size: usize) -> Message {
    Message { payload: vec![7; size].into(), ..Message::default() }
}
