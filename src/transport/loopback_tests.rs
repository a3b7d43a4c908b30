//! quinn over sets of real sockets, on loopback only.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use quinn::{
    ClientConfig, Connection, Endpoint, EndpointConfig, ServerConfig, TokioRuntime,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::sync::mpsc;

use super::{
    paths::path_table::{PathTable, RouteId},
    sockets::{
        socket_set::SocketSet,
        udp::{UdpSocket, bind_all, bind_plain},
    },
};
use crate::{
    datagram::{Datagram, Path, SocketIndex},
    entropy::Entropy,
    probe::FIRST_BYTE,
};

const V4: SocketIndex = SocketIndex(0);
const V6: SocketIndex = SocketIndex(1);

struct Node {
    set: Arc<SocketSet>,
    side: mpsc::Receiver<Datagram>,
    endpoint: Endpoint,
}

/// What both sides of a test trust: one self-signed certificate.
struct Tls {
    server: ServerConfig,
    client: ClientConfig,
}

impl Tls {
    fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let certificate = CertificateDer::from(made.cert);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = [&rustls::version::TLS13];
        let server = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let client = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let server = QuicServerConfig::try_from(server).unwrap();
        let client = QuicClientConfig::try_from(client).unwrap();
        Self {
            server: ServerConfig::with_crypto(Arc::new(server)),
            client: ClientConfig::new(Arc::new(client)),
        }
    }

    fn node(&self) -> Node {
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let sockets = bind_all(&loopback, None).unwrap();
        let (set, side) = SocketSet::new(sockets, PathTable::new());
        let mut config = EndpointConfig::default();
        config.grease_quic_bit(false);
        let endpoint = Endpoint::new_with_abstract_socket(
            config,
            Some(self.server.clone()),
            set.clone(),
            Arc::new(TokioRuntime),
        );
        let mut endpoint = endpoint.unwrap();
        endpoint.set_default_client_config(self.client.clone());
        Node { set, side, endpoint }
    }
}

impl Node {
    fn address(&self, socket: SocketIndex) -> SocketAddr {
        self.set.local_addresses()[usize::from(socket.0)].1
    }

    async fn dial(&self, route: RouteId) -> Connection {
        let address = self.set.virtual_address(route).unwrap();
        self.endpoint.connect(address, "localhost").unwrap().await.unwrap()
    }

    /// The next connection that comes to be; garbage may look like one for a moment.
    async fn accept(&self) -> Connection {
        loop {
            if let Ok(connection) = self.endpoint.accept().await.unwrap().await {
                return connection;
            }
        }
    }
}

/// A connection from the first node to the second, dialled at `candidates`.
async fn connect(dialler: &Node, acceptor: &Node, candidates: &[SocketAddr]) -> (Link, Link) {
    let route = dialler.set.open_route(candidates).unwrap();
    let (dialled, accepted) = tokio::join!(dialler.dial(route), acceptor.accept());
    let came_in = acceptor.set.route_of(accepted.remote_address()).unwrap();
    acceptor.set.keep(came_in);
    let dialled = Link { route, connection: dialled };
    let accepted = Link { route: came_in, connection: accepted };
    (dialled, accepted)
}

struct Link {
    route: RouteId,
    connection: Connection,
}

impl Link {
    /// Sends `size` bytes to the other side, which checks them.
    async fn transfer(&self, other: &Self, size: usize) {
        let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(size).collect();
        let send = async {
            let mut stream = self.connection.open_uni().await.unwrap();
            stream.write_all(&bytes).await.unwrap();
            stream.finish().unwrap();
            stream.stopped().await.unwrap();
        };
        let receive = async {
            let mut stream = other.connection.accept_uni().await.unwrap();
            assert!(stream.read_to_end(size).await.unwrap() == bytes);
        };
        tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(send, receive) })
            .await
            .expect("thirty seconds suffice for some megabytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_and_stun_travel_amid_a_bulk_transfer() {
    let tls = Tls::new();
    let (alice, mut bob) = (tls.node(), tls.node());
    let (ours, theirs) = connect(&alice, &bob, &[bob.address(V4)]).await;
    let path = Path { socket: V4, remote: bob.address(V4) };
    alice.set.set_best(ours.route, path);
    let bulk = ours.transfer(&theirs, 32 << 20);
    let side = async {
        let mut heard = Vec::new();
        for number in 0..100_u8 {
            let first = if number % 2 == 0 { FIRST_BYTE } else { 0x00 };
            let datagram = vec![first, number, 1, 2, 3];
            alice.set.send(path, &datagram);
            let received = bob.side.recv().await.unwrap();
            assert_eq!((received.socket, received.remote), (V4, alice.address(V4)));
            heard.push(received.bytes == datagram);
        }
        heard
    };
    let ((), heard) = tokio::join!(bulk, side);
    assert_eq!(heard, [true; 100]);
    let traffic = bob.set.traffic(theirs.route).unwrap();
    assert!(traffic.received.bytes > 32 << 20);
    assert_eq!(bob.set.counters().receive_errors, 0);
}

#[tokio::test]
async fn a_connection_survives_its_acceptor_moving_to_another_socket_and_family() {
    let tls = Tls::new();
    let (alice, bob) = (tls.node(), tls.node());
    let (ours, theirs) = connect(&alice, &bob, &[bob.address(V4)]).await;
    ours.transfer(&theirs, 100_000).await;
    // Bob's old socket is gone; what upkeep would find out by probes is told here.
    let moved = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    bob.set.rebind(V4, moved.into()).unwrap();
    alice.set.set_best(ours.route, Path { socket: V4, remote: bob.address(V4) });
    ours.transfer(&theirs, 100_000).await;
    theirs.transfer(&ours, 100_000).await;
    alice.set.set_best(ours.route, Path { socket: V6, remote: bob.address(V6) });
    bob.set.set_best(theirs.route, Path { socket: V6, remote: alice.address(V6) });
    alice.set.remove_socket(V4);
    ours.transfer(&theirs, 100_000).await;
    theirs.transfer(&ours, 100_000).await;
    assert_eq!(ours.connection.stats().path.lost_plpmtud_probes, 0);
}

#[tokio::test]
async fn a_dial_searches_candidates_and_waits_for_a_path() {
    let tls = Tls::new();
    let (alice, bob) = (tls.node(), tls.node());
    let nobody = bind_plain("127.0.0.1:0".parse().unwrap()).unwrap();
    let dead = nobody.local_addr().unwrap();
    let (ours, theirs) = connect(&alice, &bob, &[dead, bob.address(V6)]).await;
    alice.set.set_best(ours.route, Path { socket: V6, remote: bob.address(V6) });
    ours.transfer(&theirs, 100_000).await;

    // Without any candidate, the first packet waits, and goes out as soon as there is a path.
    let route = alice.set.open_route(&[]).unwrap();
    let path = Path { socket: V4, remote: bob.address(V4) };
    let later = async {
        tokio::task::yield_now().await;
        tokio::time::timeout(Duration::from_secs(5), async {
            while alice.set.counters().sent_nowhere == 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();
        alice.set.set_best(route, path);
    };
    let dial = tokio::time::timeout(Duration::from_millis(900), alice.dial(route));
    let (dialled, accepted, ()) = tokio::join!(dial, bob.accept(), later);
    dialled.expect("the waiting packet, not QUIC's timer of a second, made the connection");
    drop(accepted);
}

#[tokio::test]
async fn both_dial_at_once_and_both_connections_work() {
    let tls = Tls::new();
    let (alice, bob) = (tls.node(), tls.node());
    let ours = alice.set.open_route(&[bob.address(V4)]).unwrap();
    let theirs = bob.set.open_route(&[alice.address(V4)]).unwrap();
    alice.set.admit(ours, Path { socket: V4, remote: bob.address(V4) });
    let (a_dialled, b_dialled, a_accepted, b_accepted) =
        tokio::join!(alice.dial(ours), bob.dial(theirs), alice.accept(), bob.accept());
    let came_in = bob.set.route_of(b_accepted.remote_address()).unwrap();
    bob.set.adopt_stranger(came_in, theirs);
    let link = |connection| Link { route: ours, connection };
    link(a_dialled).transfer(&link(b_accepted), 300_000).await;
    link(b_dialled).transfer(&link(a_accepted), 300_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_megabyte_of_garbage_harms_nothing() {
    let tls = Tls::new();
    let (alice, bob) = (tls.node(), tls.node());
    let (ours, theirs) = connect(&alice, &bob, &[bob.address(V4)]).await;
    let stranger = bind_plain("127.0.0.1:0".parse().unwrap()).unwrap();
    let target = bob.address(V4);
    let flood = async {
        let mut entropy = Entropy::from_seed(7);
        for _ in 0..1000 {
            let size = entropy.below(1500);
            let bytes: Vec<u8> = entropy.bytes::<1500>()[..size].to_vec();
            stranger.send_to(&bytes, target).await.unwrap();
            // What it takes for a connection's first packet, too.
            let mut initial = entropy.bytes::<1200>();
            initial[..6].copy_from_slice(&[0xC0, 0, 0, 0, 1, 8]);
            stranger.send_to(&initial, target).await.unwrap();
        }
    };
    tokio::join!(flood, ours.transfer(&theirs, 4 << 20));
    ours.transfer(&theirs, 1 << 20).await;
    theirs.transfer(&ours, 1 << 20).await;
    let counters = bob.set.counters();
    assert!(counters.unknown_kind > 0 && counters.refusals.unknown_remote > 0);
    let (ours, theirs) = connect(&alice, &bob, &[bob.address(V6)]).await;
    ours.transfer(&theirs, 1 << 20).await;
}
