//! One quinn connection between two endpoints, over sockets of its own or over the shared socket; all
//! else is the same, receive buffers, windows and TLS included.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use p2p_node::transport::{
    paths::path_table::PathTable,
    sockets::{socket_set::SocketSet, udp},
};
use quinn::{
    AsyncUdpSocket, ClientConfig, Connection, Endpoint, EndpointConfig, Runtime, ServerConfig,
    TokioRuntime, TransportConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use socket2::{Domain, Protocol, Socket, Type};

/// A connection and what keeps it alive. What runs over it runs in tasks, as in a program.
pub(crate) struct Raw {
    dialled: Connection,
    accepted: Connection,
    _endpoints: [Endpoint; 2],
    _sets: Vec<Arc<SocketSet>>,
}

impl Raw {
    /// Over plain sockets, as quinn makes them.
    pub(crate) async fn over_quinns_sockets() -> Self {
        let tls = Tls::new();
        let [alice, bob] = [0; 2].map(|_| {
            let socket = TokioRuntime.wrap_udp_socket(plain_socket()).unwrap();
            (socket.local_addr().unwrap(), tls.endpoint(socket))
        });
        Self::connect([alice.1, bob.1], bob.0, Vec::new()).await
    }

    /// Over the shared socket, which looks at every datagram and translates its address.
    pub(crate) async fn over_the_shared_socket() -> Self {
        let tls = Tls::new();
        let [alice, bob] = [0; 2].map(|_| shared_socket());
        let address = dialled_address(&alice, &bob);
        let endpoints = [&alice, &bob].map(|set| tls.endpoint(set.clone()));
        Self::connect(endpoints, address, vec![alice, bob]).await
    }

    async fn connect(
        endpoints: [Endpoint; 2],
        address: SocketAddr,
        sets: Vec<Arc<SocketSet>>,
    ) -> Self {
        let [alice, bob] = &endpoints;
        let accept = async { bob.accept().await.unwrap().await.unwrap() };
        let dial = alice.connect(address, "localhost").unwrap();
        let (dialled, accepted) = tokio::join!(dial, accept);
        Self { dialled: dialled.unwrap(), accepted, _endpoints: endpoints, _sets: sets }
    }

    /// Bytes per second, one way on one stream.
    pub(crate) async fn bulk(&self, bytes: usize) -> f64 {
        let chunk = vec![7; 1 << 20];
        self.one_way(bytes, &chunk).await
    }

    /// Writes of 100 bytes per second, one way on one stream.
    pub(crate) async fn writes(&self, count: usize) -> f64 {
        self.one_way(100 * count, &[7; 100]).await / 100.0
    }

    /// The median time from a write of 100 bytes to the answer of the other side's program.
    pub(crate) async fn ping_pong(&self, count: usize) -> Duration {
        let (dialled, accepted) = (self.dialled.clone(), self.accepted.clone());
        tokio::spawn(async move {
            let (mut send, mut receive) = accepted.accept_bi().await.unwrap();
            let mut message = [0; 100];
            while receive.read_exact(&mut message).await.is_ok() {
                send.write_all(&message).await.unwrap();
            }
        });
        let ping = tokio::spawn(async move {
            let (mut send, mut receive) = dialled.open_bi().await.unwrap();
            let mut times = Vec::new();
            let mut message = [7; 100];
            for _ in 0..count {
                let start = Instant::now();
                send.write_all(&message).await.unwrap();
                receive.read_exact(&mut message).await.unwrap();
                times.push(start.elapsed());
            }
            send.finish().unwrap();
            median(&mut times)
        });
        ping.await.unwrap()
    }

    async fn one_way(&self, bytes: usize, chunk: &[u8]) -> f64 {
        let (dialled, accepted) = (self.dialled.clone(), self.accepted.clone());
        let chunk = chunk.to_vec();
        let start = Instant::now();
        let send = tokio::spawn(async move {
            let mut stream = dialled.open_uni().await.unwrap();
            for _ in 0..bytes / chunk.len() {
                stream.write_all(&chunk).await.unwrap();
            }
            stream.finish().unwrap();
            stream.stopped().await.unwrap();
        });
        let receive = tokio::spawn(async move {
            let mut stream = accepted.accept_uni().await.unwrap();
            let mut received = 0;
            while let Some(chunk) = stream.read_chunk(usize::MAX, true).await.unwrap() {
                received += chunk.bytes.len();
            }
            received
        });
        let received = receive.await.unwrap();
        send.await.unwrap();
        per_second(received, start.elapsed())
    }
}

/// A set with one socket on loopback, opened as a node opens it.
pub(crate) fn shared_socket() -> Arc<SocketSet> {
    let socket = udp::UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    SocketSet::new(vec![socket.into()], PathTable::new()).0
}

/// The virtual address by which `from` reaches `to`, over a path that is known.
pub(crate) fn dialled_address(from: &SocketSet, to: &SocketSet) -> SocketAddr {
    let (_, remote) = to.local_addresses()[0];
    let route = from.open_route(&[remote]).unwrap();
    from.set_best(route, from.path_to(remote).unwrap());
    from.virtual_address(route).unwrap()
}

pub(crate) fn per_second(count: usize, elapsed: Duration) -> f64 {
    f64::from(u32::try_from(count).unwrap()) / elapsed.as_secs_f64()
}

pub(crate) fn median<T: PartialOrd + Copy>(values: &mut [T]) -> T {
    values.sort_unstable_by(|a, b| a.partial_cmp(b).unwrap());
    values[values.len() / 2]
}

/// A socket with the receive buffer that a node asks for.
fn plain_socket() -> UdpSocket {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).unwrap();
    socket.set_recv_buffer_size(4 << 20).unwrap();
    let loopback: SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&loopback.into()).unwrap();
    socket.into()
}

/// What both sides trust: one self-signed certificate.
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
        let server = Arc::new(QuicServerConfig::try_from(server).unwrap());
        let client = Arc::new(QuicClientConfig::try_from(client).unwrap());
        let mut tls =
            Self { server: ServerConfig::with_crypto(server), client: ClientConfig::new(client) };
        let transport = Arc::new(transport());
        tls.server.transport_config(transport.clone());
        tls.client.transport_config(transport);
        tls
    }

    fn endpoint(&self, socket: Arc<dyn AsyncUdpSocket>) -> Endpoint {
        let mut config = EndpointConfig::default();
        config.grease_quic_bit(false);
        let server = Some(self.server.clone());
        let runtime = Arc::new(TokioRuntime);
        let mut endpoint =
            Endpoint::new_with_abstract_socket(config, server, socket, runtime).unwrap();
        endpoint.set_default_client_config(self.client.clone());
        endpoint
    }
}

/// The windows of a link, so that they do not make the difference.
fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .stream_receive_window(VarInt::from_u32(8 << 20))
        .receive_window(VarInt::from_u32(9 << 20))
        .send_window(9 << 20);
    config
}
