//! A session over one link between two nodes' endpoints over shared sockets: messages, each acknowledged
//! when the other side's consumer is done with it.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use p2p_node::{
    entropy::Entropy,
    identity::Identity,
    proto::Message,
    transport::{
        link::{Caller, Dial, Link, admission::Admission},
        quic::{Endpoint, tls::Crypto},
        session::{Durability, Receipt, SendError, Session},
        sockets::socket_set::SocketSet,
    },
};

use crate::raw::{dialled_address, median, per_second, shared_socket};

/// A link and what keeps it alive.
pub(crate) struct Linked {
    dialled: Session,
    accepted: Session,
    _links: [Link; 2],
    _endpoints: [Endpoint; 2],
    _sets: [Arc<SocketSet>; 2],
}

impl Linked {
    pub(crate) async fn new() -> Self {
        let identities = [1, 2].map(|seed| Identity::from_seed([seed; 32]));
        let sets = [0; 2].map(|_| shared_socket());
        let address = dialled_address(&sets[0], &sets[1]);
        let endpoint = |side: usize| {
            let entropy = Entropy::from_system();
            Endpoint::new(&identities[side], Crypto::system(), entropy, sets[side].clone()).unwrap()
        };
        let endpoints = [endpoint(0), endpoint(1)];
        let dial = Dial {
            address,
            peer: identities[1].peer_id(),
            initial_rtt: Duration::from_millis(1),
            keys: Vec::new(),
            deadline: tokio::time::Instant::now() + Duration::from_secs(5),
        };
        let accept = async {
            let arrival = endpoints[1].arrival().await.unwrap();
            sets[1].keep(sets[1].route_of(arrival.address()).unwrap());
            let caller = Caller::Unknown(Admission::Anyone);
            Link::accept(&endpoints[1], arrival, caller).await
        };
        let (dialled, accepted) = tokio::join!(Link::dial(&endpoints[0], dial), accept);
        let links = [dialled.unwrap(), accepted.unwrap()];
        let sessions = endpoints.each_ref().map(Session::new);
        for (link, session) in links.iter().zip(&sessions) {
            link.carry(session).unwrap();
        }
        let [dialled, accepted] = sessions;
        Self { dialled, accepted, _links: links, _endpoints: endpoints, _sets: sets }
    }

    /// Messages of `size` bytes per second, from the first `send` to the last receipt.
    pub(crate) async fn messages(&self, count: usize, size: usize) -> f64 {
        let (dialled, accepted) = (self.dialled.clone(), self.accepted.clone());
        let message = message(size);
        let start = Instant::now();
        let send = tokio::spawn(async move {
            let mut receipts: VecDeque<Receipt> = VecDeque::new();
            for _ in 0..count {
                loop {
                    match dialled.send(message.clone(), Durability::Volatile) {
                        Ok(receipt) => break receipts.push_back(receipt),
                        Err(SendError::QueueFull { .. }) => {
                            receipts.pop_front().unwrap().await.unwrap();
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            }
            for receipt in receipts {
                receipt.await.unwrap();
            }
        });
        let receive = tokio::spawn(async move {
            for _ in 0..count {
                accepted.receive().await.unwrap();
            }
        });
        receive.await.unwrap();
        send.await.unwrap();
        per_second(count, start.elapsed())
    }

    /// The median time from `send` of 100 bytes to the receipt.
    pub(crate) async fn ping_pong(&self, count: usize) -> Duration {
        let (dialled, accepted) = (self.dialled.clone(), self.accepted.clone());
        tokio::spawn(async move {
            for _ in 0..count {
                accepted.receive().await.unwrap();
            }
        });
        let ping = tokio::spawn(async move {
            let mut times = Vec::new();
            for _ in 0..count {
                let start = Instant::now();
                dialled.send(message(100), Durability::Volatile).unwrap().await.unwrap();
                times.push(start.elapsed());
            }
            median(&mut times)
        });
        ping.await.unwrap()
    }
}

fn message(size: usize) -> Message {
    Message { payload: vec![7; size].into(), ..Message::default() }
}
