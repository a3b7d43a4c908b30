//! A world of nodes: hosts of the simulated internet that run the real node, quinn and all, with a DHT in
//! memory and two STUN servers. Time is virtual; a seed decides everything.

use std::{future::Future, net::IpAddr, sync::Arc, time::Duration};

use p2p_node::{
    dht::memory::{Conditions, MemoryDht},
    entropy::Entropy,
    identity::Identity,
    lab::{Host, Internet, Nat, Router, Seed},
    node::{Clock, Config, Environment, Event, Node, Role, Target, stun_service},
    proto::Message,
    service::Service,
    time::UnixMillis,
    transport::tls::Crypto,
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

/// Runs a story in virtual time.
pub(crate) fn run<T>(story: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(story)
}

pub(crate) struct World {
    pub(crate) internet: Internet,
    pub(crate) dht: MemoryDht,
    stun: Vec<String>,
    entropy: Entropy,
    identities: u8,
}

/// A node, and what it has told so far.
pub(crate) struct Peer {
    pub(crate) host: Host,
    pub(crate) node: Node,
    pub(crate) seen: Vec<(Instant, Event)>,
    events: mpsc::Receiver<Event>,
}

impl World {
    /// An internet with a DHT, 40 ms away, and two STUN servers.
    pub(crate) fn new(seed: u64) -> Self {
        let internet = Internet::new(Seed(seed));
        let stun = ["198.51.100.1", "198.51.100.2"].map(|address| {
            let socket = internet.host(address).bind(3478);
            let clock = Clock::starting_at(START);
            tokio::spawn(stun_service::serve(socket, clock));
            format!("{address}:3478")
        });
        let conditions = Conditions { latency: Duration::from_millis(40), ..Conditions::default() };
        Self {
            internet,
            dht: MemoryDht::new(conditions),
            stun: stun.to_vec(),
            entropy: Entropy::from_seed(seed),
            identities: 0,
        }
    }

    /// A router with `nat`, with a public address of its own.
    pub(crate) fn home(&mut self, nat: Nat) -> Router {
        self.identities += 1;
        self.internet.router(nat, IpAddr::from([203, 0, 113, self.identities]))
    }

    /// A host without a NAT.
    pub(crate) fn public_host(&mut self) -> Host {
        self.identities += 1;
        self.internet.host(IpAddr::from([198, 51, 100, 100 + self.identities]))
    }

    /// The next identity of this world.
    pub(crate) fn identity(&mut self) -> Identity {
        self.identities += 1;
        Identity::from_seed([self.identities; 32])
    }

    pub(crate) fn config(&mut self, role: Role) -> Config {
        let mut config = Config::new(self.identity(), role);
        config.service = Some(service());
        config.stun_servers.clone_from(&self.stun);
        config
    }

    /// Starts a node with `config` on `host`.
    pub(crate) fn start(&mut self, host: &Host, config: Config) -> Peer {
        let socket = host.bind(0);
        let interfaces = host.clone();
        let environment = Environment {
            sockets: vec![socket],
            interfaces: Arc::new(move || interfaces.addresses()),
            rendezvous: Some(self.dht.rendezvous()),
            clock: Clock::starting_at(START),
            entropy: self.entropy.fork(),
            crypto: Crypto::seeded(self.entropy.fork()),
        };
        let (node, events) = Node::start(config, environment).unwrap();
        Peer { host: host.clone(), node, seen: Vec::new(), events }
    }

    pub(crate) fn server(&mut self, host: &Host) -> Peer {
        let config = self.config(Role::Server);
        self.start(host, config)
    }

    pub(crate) fn client(&mut self, host: &Host) -> Peer {
        let config = self.config(Role::Client);
        self.start(host, config)
    }
}

impl Peer {
    /// The next event.
    pub(crate) async fn next(&mut self) -> Event {
        let event = self.events.recv().await.expect("the node runs");
        self.seen.push((Instant::now(), event.clone()));
        event
    }

    /// Takes events until `wanted` returns something; panics after a virtual minute.
    pub(crate) async fn until<T>(&mut self, wanted: impl Fn(&Event) -> Option<T>) -> T {
        let search = async {
            loop {
                let event = self.next().await;
                if let Some(found) = wanted(&event) {
                    return found;
                }
            }
        };
        match timeout(Duration::from_secs(60), search).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain; seen: {:#?}", self.seen),
        }
    }

    /// Takes whatever events there are.
    pub(crate) fn drain(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.seen.push((Instant::now(), event));
        }
    }

    pub(crate) async fn online(&mut self) {
        self.until(|event| matches!(event, Event::Online { .. }).then_some(())).await;
    }
}

pub(crate) fn service() -> Service {
    Service::open("myapi:v1".parse().unwrap())
}

pub(crate) fn to_service() -> Target {
    Target::Service(service().name)
}

pub(crate) fn message(text: &str) -> Message {
    Message {
        id: text.to_owned(),
        r#type: "text".into(),
        payload: text.to_owned().into(),
        ..Message::default()
    }
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const START: UnixMillis = UnixMillis(1_763_820_000_000);
