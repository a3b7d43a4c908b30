//! QUIC as this program uses it: every knob of quinn in one place, each with its reason.
//!
//! QUIC sees virtual addresses that stand for peers; which path a packet takes is decided below it. So
//! quinn's own migration is off, and what it knows of the network (round trip, MTU, congestion) is
//! allowed to be wrong for a moment after a path changed.

pub(super) mod header;
pub(super) mod seeded;
pub mod stray;
pub mod tls;

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU64,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use quinn::{
    AsyncUdpSocket, ClientConfig, ConnectionId, ConnectionIdGenerator, EndpointConfig, IdleTimeout,
    MtuDiscoveryConfig, ServerConfig, TimeSource, TokioRuntime, TransportConfig,
    ValidationTokenConfig, VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use ring::hkdf;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use self::{
    stray::{CONNECTION_ID_SIZE, RunKey, Strays, reset_key},
    tls::{Credentials, Crypto, Pin, SERVER_NAME},
};
use crate::{
    entropy::Entropy,
    identity::{Identity, PeerId},
};

/// A node's QUIC endpoint: dials and accepts connections over one socket.
///
/// Clones are handles on the same endpoint.
#[derive(Clone, Debug)]
pub struct Endpoint {
    inner: quinn::Endpoint,
    credentials: Credentials,
    peer_id: PeerId,
    entropy: Arc<Mutex<Entropy>>,
    acceptor: ServerConfig,
    handshakes: Arc<Semaphore>,
    /// Names this run of the program.
    run: NonZeroU64,
    strays: Arc<Mutex<Strays>>,
    /// Links that have come up so far.
    links: Arc<AtomicU64>,
    /// Name of the latest session.
    sessions: Arc<AtomicU64>,
}

/// Somebody who wants to connect and has proved nothing yet.
///
/// Counts as one of [`HANDSHAKES_MAX`] until it is dropped or has become a link.
#[derive(Debug)]
pub struct Arrival {
    pub(super) incoming: quinn::Incoming,
    pub(super) slot: OwnedSemaphorePermit,
    pub(super) initial_rtt: Duration,
}

impl Arrival {
    /// Where it comes from: an address of the socket that the endpoint was made with, so perhaps a
    /// virtual one.
    pub fn address(&self) -> SocketAddr {
        self.incoming.remote_address()
    }

    /// Paces the first retransmissions as if this were a round trip, instead of [`INITIAL_RTT`].
    pub fn assume_rtt(&mut self, initial_rtt: Duration) {
        self.initial_rtt = initial_rtt;
    }
}

impl Endpoint {
    /// An endpoint for `identity` over `socket`.
    ///
    /// All randomness of QUIC is drawn from `entropy`, that of TLS from `crypto`. Must be called inside
    /// a tokio runtime.
    ///
    /// # Errors
    /// When the socket does not know its own address.
    pub fn new(
        identity: &Identity,
        crypto: Crypto,
        mut entropy: Entropy,
        socket: Arc<dyn AsyncUdpSocket>,
    ) -> io::Result<Self> {
        let credentials = Credentials::new(identity, crypto);
        let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&entropy.bytes::<32>());
        let mut acceptor = ServerConfig::new(quic_server(&credentials, None), Arc::new(token_key));
        configure_acceptor(&mut acceptor);
        let run_key = RunKey::new(entropy.bytes());
        let inner = quinn::Endpoint::new_with_abstract_socket(
            endpoint_config(identity, run_key.clone(), &mut entropy),
            Some(acceptor.clone()),
            socket,
            Arc::new(TokioRuntime),
        )?;
        let run = entropy.name();
        let strays = Strays::new(identity, run_key, entropy.fork());
        Ok(Self {
            inner,
            credentials,
            peer_id: identity.peer_id(),
            entropy: Arc::new(Mutex::new(entropy)),
            acceptor,
            handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
            run,
            strays: Arc::new(Mutex::new(strays)),
            links: Arc::default(),
            sessions: Arc::default(),
        })
    }

    /// Who this node is.
    pub fn peer_id(&self) -> PeerId {
        self.peer_id
    }

    /// The answer to a packet that no connection takes; see [`Strays::answer`].
    pub fn answer_stray(&self, packet: &[u8], now: std::time::Instant) -> Option<Vec<u8>> {
        self.strays.lock().unwrap_or_else(PoisonError::into_inner).answer(packet, now)
    }

    /// Names this run of the program to peers, so that they notice a restart.
    pub(super) fn run(&self) -> NonZeroU64 {
        self.run
    }

    /// A number for a link that has come up: higher than those of all before.
    pub(super) fn number_link(&self) -> u64 {
        self.links.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A name for a session: higher than those of all before in this run, and not telling how many.
    pub(super) fn name_session(&self) -> NonZeroU64 {
        let mut entropy = self.entropy.lock().unwrap_or_else(PoisonError::into_inner);
        let step = 1 + (entropy.number() >> 32);
        let name = self.sessions.fetch_add(step, Ordering::Relaxed) + step;
        NonZeroU64::new(name).expect("a sum of steps of which none is zero")
    }

    /// The next who wants to connect; `None` when the endpoint is closed.
    ///
    /// At most [`HANDSHAKES_MAX`] arrivals exist at a time; from [`RETRY_FROM`] on, one that has not
    /// shown that it receives at its address is asked to (RFC 9000, section 8.1.2), and above the
    /// limit it is not answered at all.
    pub async fn arrival(&self) -> Option<Arrival> {
        loop {
            let incoming = self.inner.accept().await?;
            let running = HANDSHAKES_MAX - self.handshakes.available_permits();
            if running >= RETRY_FROM && incoming.may_retry() {
                incoming.retry().expect("an arrival that may be asked to retry");
                continue;
            }
            match self.handshakes.clone().try_acquire_owned() {
                Ok(slot) => {
                    return Some(Arrival { incoming, slot, initial_rtt: INITIAL_RTT });
                }
                Err(_) => incoming.ignore(),
            }
        }
    }

    /// Starts to dial whoever is at `address`, who must have the key of `pin`.
    ///
    /// `initial_rtt` paces the first retransmissions, before a round trip was measured.
    pub(super) fn connect(
        &self,
        address: SocketAddr,
        pin: Arc<Pin>,
        initial_rtt: Duration,
    ) -> Result<quinn::Connecting, quinn::ConnectError> {
        let tls = QuicClientConfig::try_from(self.credentials.client_config(pin))
            .expect("ring has the cipher suite of QUIC's initial packets");
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::new(transport_config(initial_rtt)));
        let entropy = self.entropy.clone();
        config.initial_dst_cid_provider(Arc::new(move || {
            let mut entropy = entropy.lock().unwrap_or_else(PoisonError::into_inner);
            ConnectionId::new(&entropy.bytes::<CONNECTION_ID_SIZE>())
        }));
        self.inner.connect_with(config, address, SERVER_NAME)
    }

    /// The configuration that lets in only the key of `pin`, or any; for `initial_rtt` see
    /// [`Arrival::assume_rtt`].
    pub(super) fn acceptor(
        &self,
        pin: Option<Arc<Pin>>,
        initial_rtt: Duration,
    ) -> Arc<ServerConfig> {
        let mut config = self.acceptor.clone();
        config.transport_config(Arc::new(transport_config(initial_rtt)));
        if pin.is_some() {
            config.crypto = quic_server(&self.credentials, pin);
        }
        Arc::new(config)
    }

    /// Closes all connections at once and accepts no more.
    pub fn close(&self) {
        self.inner.close(VarInt::from_u32(0), b"");
    }

    /// Waits until all peers have been told that their connections are closed, or could have been.
    pub async fn wait_idle(&self) {
        self.inner.wait_idle().await;
    }
}

fn endpoint_config(identity: &Identity, run: RunKey, entropy: &mut Entropy) -> EndpointConfig {
    // A key that outlives the process: a restarted node answers packets for its old connections with a
    // stateless reset that the peer can verify (RFC 9000, section 10.3). So a peer learns of the restart
    // in one round trip, not from silence.
    let mut config = EndpointConfig::new(Arc::new(reset_key(identity)));
    let ids = Mutex::new(entropy.fork());
    config
        .cid_generator(move || {
            let mut entropy = ids.lock().unwrap_or_else(PoisonError::into_inner);
            Box::new(ConnectionIds { entropy: entropy.fork(), run: run.clone() })
        })
        // STUN, probes and QUIC are told apart by their first byte on one socket.
        .grease_quic_bit(false)
        .rng_seed(Some(entropy.bytes()));
    config
}

fn transport_config(initial_rtt: Duration) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE_TIMEOUT).expect("the timeout is below 2^62 ms");
    config
        .initial_rtt(initial_rtt)
        // What every path carries, because a path may be replaced by a narrower one at any time.
        .initial_mtu(1_200)
        .min_mtu(1_200)
        .mtu_discovery_config(Some(MtuDiscoveryConfig::default()))
        .keep_alive_interval(Some(KEEP_ALIVE_INTERVAL))
        .max_idle_timeout(Some(idle))
        // One control and one message stream from each side.
        .max_concurrent_uni_streams(VarInt::from_u32(2))
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(STREAM_WINDOW + CONTROL_RESERVE))
        .send_window(u64::from(STREAM_WINDOW + CONTROL_RESERVE));
    config
}

fn configure_acceptor(config: &mut ServerConfig) {
    let mut no_tokens = ValidationTokenConfig::default();
    no_tokens.sent(0);
    config
        .transport_config(Arc::new(transport_config(INITIAL_RTT)))
        // Addresses are virtual: a packet from another one is from another peer.
        .migration(false)
        // Tokens for later visits prove an address; ours says nothing about where the peer is.
        .validation_token_config(no_tokens)
        .time_source(Arc::new(SinceStart(Instant::now())))
        .max_incoming(HANDSHAKES_MAX)
        .incoming_buffer_size(INCOMING_BUFFER_SIZE)
        .incoming_buffer_size_total(INCOMING_BUFFER_SIZE * 16);
}

fn quic_server(credentials: &Credentials, pin: Option<Arc<Pin>>) -> Arc<QuicServerConfig> {
    let tls = QuicServerConfig::try_from(credentials.server_config(pin))
        .expect("ring has the cipher suite of QUIC's initial packets");
    Arc::new(tls)
}

/// Connection ids that this run of the program knows for its own, and nobody else can tell apart.
struct ConnectionIds {
    entropy: Entropy,
    run: RunKey,
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.run.connection_id(self.entropy.bytes()))
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID_SIZE
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// The clock of retry tokens, which only this process reads: not set back when the wall clock is, and
/// as virtual as tokio's.
struct SinceStart(Instant);

impl TimeSource for SinceStart {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.0.elapsed()
    }
}

/// Handshakes that may be under way with diallers who have not proved who they are: each costs some
/// 30 KiB and two signatures.
pub const HANDSHAKES_MAX: usize = 64;

/// Handshakes under way from which on a dialler has to show first that it receives at its address.
///
/// Costs an honest one a round trip, so not sooner; whoever forges addresses cannot fill the rest.
pub const RETRY_FROM: usize = 32;

/// The round trip assumed by an acceptor before one was measured; a common one within a continent.
pub const INITIAL_RTT: Duration = Duration::from_millis(100);

/// Silence after which a packet is sent that must be answered.
///
/// Paths are kept open by probes; this only keeps the connection from its idle timeout.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Silence after which the connection is given up.
///
/// An outage of 20 s may start 10 s after the last packet, and the retransmission that ends it may
/// come 15 s late, because its timer doubles: 0.3 s, 0.6 s … 19.2 s.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(45);

/// Bytes of messages that a peer may send before we read them: 80 MiB/s at a round trip of 100 ms.
const STREAM_WINDOW: u32 = 8 << 20;

/// What a connection takes above its message stream, so that acks pass when that stream is full.
///
/// quinn tells a peer of room in steps of an eighth of each window, so the connection's may lag behind the
/// stream's by 1.25 MiB. With less in reserve, a large message may take all room of the connection, and acks
/// wait until it is written.
const CONTROL_RESERVE: u32 = 2 << 20;

/// Bytes kept for an arrival between its first packet and our decision: a certificate takes two
/// packets at most.
const INCOMING_BUFFER_SIZE: u64 = 16 << 10;
