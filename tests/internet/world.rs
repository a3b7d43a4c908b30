//! A world of nodes: hosts of the simulated internet that run the real node, quinn and all, with a DHT in
//! memory and two STUN servers. Time is virtual; a seed decides everything.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use p2p_node::{
    dht::memory::{Conditions, MemoryDht, Reach},
    entropy::Entropy,
    identity::Identity,
    lab::{Host, Internet, LabSocket, Nat, Router, Seed},
    node::{
        Clock, Config, Environment, Node, Role, Target,
        environment::{EXTRA_SOCKETS_MAX, ExtraSockets, OpenSocket},
        stun_service,
    },
    proto::Message,
    service::Service,
    time::UnixMillis,
    transport::{quic::tls::Crypto, sockets::socket::Socket},
};
use tokio::sync::watch;

use crate::{multicast::Multicast, peer::Peer};

/// Tells a story in a world of its own, in virtual time. If it fails, prints how to replay it.
///
/// `P2P_NODE_SEED` takes the place of `seed`.
pub(crate) fn run<T>(seed: u64, story: impl AsyncFnOnce(World) -> T) -> T {
    let seed = seed_from_environment().unwrap_or(seed);
    run_exactly(seed, story)
}

/// The same without a look at the environment.
pub(crate) fn run_exactly<T>(seed: u64, story: impl AsyncFnOnce(World) -> T) -> T {
    run_for("<the name of this test>", seed, story)
}

/// One world of many: if it fails, the test of this name begins with it when told its seed.
pub(crate) fn run_for<T>(test: &str, seed: u64, story: impl AsyncFnOnce(World) -> T) -> T {
    let _replay = Replay { seed, test };
    // With RUST_LOG=p2p_node=debug a story tells itself; of many tests the first sets this up for all.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_test_writer()
        .with_timer(VirtualTime)
        .try_init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(async { story(World::new(seed)).await })
}

/// Says in logs how long the clocks of this world have run.
struct VirtualTime;

impl tracing_subscriber::fmt::time::FormatTime for VirtualTime {
    fn format_time(
        &self,
        line: &mut tracing_subscriber::fmt::format::Writer<'_>,
    ) -> std::fmt::Result {
        thread_local!(static BEGAN: tokio::time::Instant = tokio::time::Instant::now());
        let now = tokio::time::Instant::now();
        let began = BEGAN.with(|began| *began);
        write!(line, "{:>10.6}", now.saturating_duration_since(began).as_secs_f64())
    }
}

/// The seed that the user wants a test to begin with.
pub(crate) fn seed_from_environment() -> Option<u64> {
    let seed = std::env::var("P2P_NODE_SEED").ok()?;
    Some(seed.parse().expect("P2P_NODE_SEED is a number"))
}

struct Replay<'a> {
    seed: u64,
    test: &'a str,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        let Self { seed, test } = self;
        if std::thread::panicking() {
            println!("to replay: P2P_NODE_SEED={seed} cargo nextest run --test internet {test}");
        }
    }
}

pub(crate) struct World {
    pub(crate) internet: Internet,
    pub(crate) dht: MemoryDht,
    pub(crate) entropy: Entropy,
    /// Whether, and through what, nodes on the same local network hear each other.
    pub(crate) lan: Option<Multicast>,
    numbers: u8,
}

/// A host, and the NATs between it and the internet.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    pub(crate) host: Host,
    /// From the host outwards.
    pub(crate) routers: Vec<Router>,
    /// What the host's system tells its node.
    pub(crate) system: System,
}

/// The part of a host's operating system that knows of networks and of sleep.
#[derive(Clone, Debug)]
pub(crate) struct System {
    changes: Arc<watch::Sender<()>>,
    slept_ms: &'static AtomicU64,
}

impl Default for System {
    fn default() -> Self {
        let slept_ms = Box::leak(Box::new(AtomicU64::new(0)));
        Self { changes: Arc::new(watch::Sender::new(())), slept_ms }
    }
}

impl World {
    /// An internet with a DHT, 40 ms away, and two STUN servers.
    fn new(seed: u64) -> Self {
        let internet = Internet::new(Seed(seed));
        for (v4, v6) in STUN_SERVERS {
            let socket = internet.host(v4).address(v6).bind(STUN_PORT);
            let clock = Clock::starting_at(START);
            tokio::spawn(stun_service::serve(socket, clock));
        }
        let conditions = Conditions { latency: ms(40), ..Conditions::default() };
        Self {
            internet,
            dht: MemoryDht::new(conditions),
            entropy: Entropy::from_seed(seed),
            lan: None,
            numbers: 0,
        }
    }

    /// A host behind a NAT of its own.
    pub(crate) fn behind(&mut self, nat: Nat) -> Home {
        self.behind_all(&[nat])
    }

    /// A host behind several NATs, from the host outwards; on the public internet if there are none.
    pub(crate) fn behind_all(&mut self, nats: &[Nat]) -> Home {
        let Some((outermost, others)) = nats.split_last() else {
            let address = self.public_address();
            let host = self.internet.host(address);
            return Home::new(host, Vec::new());
        };
        let address = self.public_address();
        let mut routers = vec![self.internet.router(*outermost, address)];
        for (level, nat) in (1..).zip(others.iter().rev()) {
            let address = IpAddr::from([100, 64, level, self.numbers]);
            let inner = routers.last().unwrap().router(*nat, address);
            routers.push(inner);
        }
        let address = IpAddr::from([192, 168, self.numbers, 2]);
        let host = routers.last().unwrap().host(address);
        routers.reverse();
        Home::new(host, routers)
    }

    /// Another host in the same network as `home`.
    pub(crate) fn neighbour_of(&mut self, home: &Home) -> Home {
        let IpAddr::V4(address) = home.host.addresses()[0] else {
            panic!("neighbours are made in IPv4 networks");
        };
        let [a, b, c, d] = address.octets();
        let host = home.routers[0].host(IpAddr::from([a, b, c, d + 1]));
        Home::new(host, home.routers.clone())
    }

    /// An IPv4 address that nobody has.
    pub(crate) fn public_address(&mut self) -> IpAddr {
        self.numbers += 1;
        IpAddr::from([203, 0, 113, self.numbers])
    }

    /// The next identity of this world.
    pub(crate) fn identity(&mut self) -> Identity {
        self.numbers += 1;
        Identity::from_seed([self.numbers; 32])
    }

    /// What a node of `role` in the service of this world is told.
    pub(crate) fn config(&mut self, role: Role) -> Config {
        let mut config = Config::new(self.identity(), role);
        config.service = Some(service());
        config
    }

    /// Starts a node with `config` at `home`, with a socket for each family of addresses that it has.
    pub(crate) fn start(&mut self, home: &Home, mut config: Config) -> Peer {
        let addresses = home.host.addresses();
        let mut sockets: Vec<Socket> = Vec::new();
        for is_v4 in [true, false] {
            let mut of_family = addresses.iter().filter(|ip| ip.is_ipv4() == is_v4);
            if let Some(address) = of_family.next() {
                // A socket of one family alone moves along when its host does.
                sockets.push(match addresses.iter().all(|ip| ip.is_ipv4() == is_v4) {
                    true => simulated(home.host.bind(0)),
                    false => simulated(home.host.bind_address(*address, 0)),
                });
                let servers = STUN_SERVERS.map(|(v4, v6)| match is_v4 {
                    true => SocketAddr::from((v4, STUN_PORT)),
                    false => SocketAddr::from((v6, STUN_PORT)),
                });
                let servers = servers.map(|server| server.to_string());
                config.stun_servers.extend(servers);
            }
        }
        let interfaces = home.host.clone();
        let host = home.host.clone();
        let open: OpenSocket = Arc::new(move |_| Ok(simulated(host.bind(0))));
        let environment = Environment {
            sockets,
            extra_sockets: ExtraSockets { open, count_max: EXTRA_SOCKETS_MAX },
            interfaces: Arc::new(move || interfaces.addresses()),
            changes: Some(home.system.changes.subscribe()),
            rendezvous: Some(self.dht.rendezvous()),
            lan: self.lan.as_ref().map(|lan| lan.at(&home.host)),
            clock: Clock::starting_at(START).sleeping(home.system.slept_ms),
            entropy: self.entropy.fork(),
            crypto: Crypto::seeded(self.entropy.fork()),
            outbox: None,
        };
        let (node, events, inbox) = Node::start(config, environment).unwrap();
        Peer::new(home.clone(), node, events, inbox)
    }

    pub(crate) fn server(&mut self, home: &Home) -> Peer {
        let config = self.config(Role::Server);
        self.start(home, config)
    }

    pub(crate) fn client(&mut self, home: &Home) -> Peer {
        let config = self.config(Role::Client);
        self.start(home, config)
    }

    /// A client that wants to be connected to the service all the time.
    pub(crate) fn standing_client(&mut self, home: &Home) -> Peer {
        let mut config = self.config(Role::Client);
        config.standing = Some(to_service());
        self.start(home, config)
    }

    /// Lets the DHT answer, or not.
    pub(crate) fn set_dht(&self, reach: Reach) {
        let conditions = self.dht.conditions();
        self.dht.set_conditions(Conditions { reach, ..conditions });
    }
}

impl Home {
    pub(crate) fn new(host: Host, routers: Vec<Router>) -> Self {
        Self { host, routers, system: System::default() }
    }

    /// Moves the host to where `other` is, as its system tells at once: into another Wi-Fi.
    pub(crate) fn move_to(&mut self, other: &Self) {
        let IpAddr::V4(address) = other.host.addresses()[0] else {
            panic!("hosts move between IPv4 networks");
        };
        // Beside the host that is there.
        let [a, b, c, d] = address.octets();
        let address = IpAddr::from([a, b, c, d + 7]);
        match other.routers.first() {
            Some(router) => self.host.move_behind(router, address),
            None => self.host.move_to_public(address),
        }
        self.routers.clone_from(&other.routers);
        self.system.changes.send_replace(());
    }

    /// Moves the host back to where it was, under this address.
    pub(crate) fn move_back(&mut self, routers: &[Router], address: IpAddr) {
        self.host.move_behind(&routers[0], address);
        self.routers = routers.to_vec();
        self.system.changes.send_replace(());
    }

    /// Lets the host's wall clock jump ahead: it slept.
    pub(crate) fn sleep_for(&self, time: Duration) {
        let slept_ms = u64::try_from(time.as_millis()).unwrap();
        self.system.slept_ms.fetch_add(slept_ms, Ordering::Relaxed);
    }

    /// The NAT that faces the internet.
    pub(crate) fn outermost(&self) -> &Router {
        self.routers.last().expect("there is a NAT")
    }

    /// Sets the delay of the way to the internet: of the outermost link.
    pub(crate) fn delay_ms(self, delay_ms: u64) -> Self {
        self.change_uplink(|link| link.delay_ms = delay_ms);
        self
    }

    /// Changes the outermost link.
    pub(crate) fn change_uplink(&self, change: impl FnOnce(&mut p2p_node::lab::Link)) {
        match self.routers.last() {
            Some(router) => router.change_link(change),
            None => self.host.change_link(change),
        }
    }

    /// Takes the outermost link down.
    pub(crate) fn unplug(&self) {
        match self.routers.last() {
            Some(router) => router.unplug(),
            None => self.host.unplug(),
        }
    }

    /// Puts the outermost link up again.
    pub(crate) fn plug_in(&self) {
        match self.routers.last() {
            Some(router) => router.plug_in(),
            None => self.host.plug_in(),
        }
    }

    /// The addresses that its peers may send to: its own, and those that the internet sees.
    pub(crate) fn candidates(&self) -> BTreeSet<IpAddr> {
        let public = self.routers.last().map(Router::public_addresses);
        let own = self.host.addresses();
        own.into_iter().chain(public.unwrap_or_default()).collect()
    }

    /// Where its node has sent to although nobody could have told it of that address: anything but the
    /// STUN servers and what `peers` may be reached at.
    pub(crate) fn strangers(&self, peers: &BTreeSet<IpAddr>) -> BTreeSet<SocketAddr> {
        let stun = STUN_SERVERS.into_iter().flat_map(|(v4, v6)| [IpAddr::V4(v4), IpAddr::V6(v6)]);
        self.host.strangers(&stun.chain(peers.iter().copied()).collect())
    }
}

/// A socket of the simulation, as a node needs it.
fn simulated(socket: Arc<LabSocket>) -> Socket {
    let sender = socket.clone();
    let within = move |to: SocketAddr, bytes: &[u8], hops| {
        sender.send_within(to, bytes, hops);
        Ok(())
    };
    Socket::new(socket, Arc::new(within))
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

const STUN_PORT: u16 = 3478;

const STUN_SERVERS: [(Ipv4Addr, Ipv6Addr); 2] = [
    (Ipv4Addr::new(198, 51, 100, 1), Ipv6Addr::new(0x2001, 0xdb8, 0x51, 0, 0, 0, 0, 1)),
    (Ipv4Addr::new(198, 51, 100, 2), Ipv6Addr::new(0x2001, 0xdb8, 0x52, 0, 0, 0, 0, 1)),
];
