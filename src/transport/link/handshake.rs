//! How two nodes get from an address to a link: the QUIC handshake, then a hello in both directions.
//!
//! ```text
//!  dialler                                           acceptor
//!     │ ClientHello ─────────────────────────────────▶ │
//!     │ ◀──── ServerHello … Finished, Hello{welcome?}  │   the hello rides along (0.5-RTT data)
//!  up if welcome                                       │
//!     │ Certificate … Finished, Hello{proofs} ───────▶ │   identity proved, then judged: up
//!     │ ◀────────────────────────────────── Welcome    │   if its hello left it open
//!  up                                                  │
//! ```
//!
//! The acceptor can say welcome in its hello, before the dialler has proved who it is, when an offer
//! announced the dialler (TLS then admits no other key) or when it admits anybody. So the dialler is up
//! after one round trip instead of two. The acceptor itself is up when the dialler's identity is
//! proved, its hello read and judged; nothing that arrives earlier is handed on.

use std::{io, num::NonZeroU64, sync::Arc, time::Duration};

use quinn::{Connection, ConnectionError, RecvStream};
use tokio::{
    io::AsyncReadExt,
    time::{Instant, timeout_at},
};

use super::admission::{Admission, PROOFS_MAX, Refusal, Verdict, prove};
use crate::{
    identity::PeerId,
    probe::{ProbeKeys, Side},
    proto::wire::{Control, Hello, Welcome, control::Kind},
    sealing::Key,
    ticket::TicketSecret,
    transport::{
        frame::{FrameReader, FrameWriter, ReadFrameError},
        link::{
            error::{CloseCode, LinkError, Loss, printable, truncate},
            exporter::{channel_binding, meeting, probe_keys},
            wire::{CONTROL_STREAM, VERSION, control},
        },
        quic::{
            Arrival, Endpoint,
            tls::{Pin, peer_id_of},
        },
    },
};

/// Whom to dial, and how.
#[derive(Clone, Debug)]
pub struct Dial {
    /// Where the peer is, as the endpoint's socket knows it: perhaps a virtual address.
    pub address: std::net::SocketAddr,
    /// Who must answer there.
    pub peer: PeerId,
    /// The round trip to assume until one was measured; from the probes that opened the path.
    pub initial_rtt: Duration,
    /// Admission keys of the secrets that we know; the first [`PROOFS_MAX`] are proved.
    pub keys: Vec<Key>,
    /// When to give up.
    pub deadline: Instant,
}

/// What an acceptor knows of a dialler before it has proved anything.
#[derive(Clone, Debug)]
pub enum Caller {
    /// An offer said who comes, and this peer has been admitted already. TLS admits nobody else.
    Announced(PeerId),
    /// Nobody was announced: whoever it is will be judged by this rule.
    Unknown(Admission),
}

/// A connection on which both sides have said hello and want to stay.
#[derive(Debug)]
pub(super) struct Established {
    pub(super) connection: Connection,
    pub(super) side: Side,
    pub(super) peer: PeerId,
    pub(super) agent: String,
    /// Names the run of the peer's program.
    pub(super) run: NonZeroU64,
    /// Higher than those of all links that came up before.
    pub(super) number: u64,
    pub(super) probe_keys: ProbeKeys,
    pub(super) meeting: TicketSecret,
    pub(super) control_out: FrameWriter,
    pub(super) control_in: ControlReader,
}

pub(super) type ControlReader = FrameReader<RecvStream, Control>;

/// Dials and waits until the acceptor has said welcome.
pub(super) async fn dial(endpoint: &Endpoint, dial: Dial) -> Result<Established, LinkError> {
    let pin = Pin::new(dial.peer);
    let connecting = endpoint
        .connect(dial.address, pin.clone(), dial.initial_rtt)
        .map_err(|error| LinkError::Lost(Loss::Transport(error.to_string())))?;
    let connection = timeout_at(dial.deadline, connecting)
        .await
        .map_err(|_| LinkError::TimedOut)?
        .map_err(|error| handshake_error(error, Some(&pin)))?;
    let greeting = greet_acceptor(endpoint, &connection, dial.peer, &dial.keys);
    or_close(&connection, dial.deadline, greeting).await
}

/// Lets an arrival in and waits until it has said hello and was found welcome.
pub(super) async fn accept(
    endpoint: &Endpoint,
    arrival: Arrival,
    caller: Caller,
) -> Result<Established, LinkError> {
    let deadline = Instant::now() + ACCEPT_TIMEOUT;
    // The slot is held until this function returns: until then the dialler has proved nothing.
    let Arrival { incoming, slot: _slot, initial_rtt } = arrival;
    let pin = match caller {
        Caller::Announced(peer) => Some(Pin::new(peer)),
        Caller::Unknown(_) => None,
    };
    let (connection, finished) = incoming
        .accept_with(endpoint.acceptor(pin.clone(), initial_rtt))
        .map_err(LinkError::of)?
        .into_0rtt()
        .expect("an acceptor can always send before the handshake has ended");
    let greeting = async {
        let control_out = say_hello_early(endpoint, &connection, &caller).await?;
        finished.await;
        let identified = peer_id_of(&connection);
        if let Some(error) = connection.close_reason() {
            return Err(handshake_error(error, pin.as_ref()));
        }
        let peer = identified.ok_or_else(|| LinkError::violation("no certificate"))?;
        greet_dialler(endpoint, &connection, peer, &caller, control_out).await
    };
    or_close(&connection, deadline, greeting).await
}

async fn greet_acceptor(
    endpoint: &Endpoint,
    connection: &Connection,
    peer: PeerId,
    keys: &[Key],
) -> Result<Established, LinkError> {
    let parties = [endpoint.peer_id(), peer];
    let binding = channel_binding(connection, parties)?;
    let keys = keys.iter().take(PROOFS_MAX);
    let proofs = keys.map(|key| prove(key, &binding)).collect();
    let mut control_out = open_control(connection).await?;
    push_hello(&mut control_out, endpoint.run(), None, proofs);
    flush(connection, &mut control_out).await?;

    let mut control_in = accept_control(connection).await?;
    let (hello, run) = read_hello(connection, &mut control_in).await?;
    if hello.welcome.is_none() {
        match next_frame(connection, &mut control_in).await? {
            Kind::Welcome(Welcome {}) => {}
            Kind::Hello(_)
            | Kind::Ack(_)
            | Kind::Bye(_)
            | Kind::Ping(_)
            | Kind::Pong(_)
            | Kind::Resume(_)
            | Kind::Addresses(_) => {
                return Err(LinkError::violation("no welcome after the hello"));
            }
        }
    }
    Ok(Established {
        connection: connection.clone(),
        side: Side::Initiator,
        peer,
        agent: agent_in(&hello),
        run,
        number: endpoint.number_link(),
        probe_keys: probe_keys(connection, parties, Side::Initiator)?,
        meeting: meeting(connection, parties)?,
        control_out,
        control_in,
    })
}

/// The acceptor's hello. Whoever can receive at the dialler's address can read it.
async fn say_hello_early(
    endpoint: &Endpoint,
    connection: &Connection,
    caller: &Caller,
) -> Result<FrameWriter, LinkError> {
    let mut control_out = open_control(connection).await?;
    push_hello(&mut control_out, endpoint.run(), early_welcome(caller), Vec::new());
    flush(connection, &mut control_out).await?;
    Ok(control_out)
}

async fn greet_dialler(
    endpoint: &Endpoint,
    connection: &Connection,
    peer: PeerId,
    caller: &Caller,
    mut control_out: FrameWriter,
) -> Result<Established, LinkError> {
    let mut control_in = accept_control(connection).await?;
    let (hello, run) = read_hello(connection, &mut control_in).await?;
    let parties = [peer, endpoint.peer_id()];
    if let Caller::Unknown(admission) = caller {
        let binding = channel_binding(connection, parties)?;
        if let Verdict::Refused(refusal) = admission.judge(peer, &hello.proofs, &binding) {
            return Err(match refusal {
                Refusal::NoRoom => LinkError::Full,
                Refusal::NotListed | Refusal::NoProof | Refusal::WrongProof => {
                    LinkError::Refused { reason: refusal.to_string() }
                }
            });
        }
    }
    if early_welcome(caller).is_none() {
        push(&mut control_out, control(Welcome {}));
        flush(connection, &mut control_out).await?;
    }
    Ok(Established {
        connection: connection.clone(),
        side: Side::Responder,
        peer,
        agent: agent_in(&hello),
        run,
        number: endpoint.number_link(),
        probe_keys: probe_keys(connection, parties, Side::Responder)?,
        meeting: meeting(connection, parties)?,
        control_out,
        control_in,
    })
}

fn early_welcome(caller: &Caller) -> Option<Welcome> {
    match caller {
        Caller::Announced(_) | Caller::Unknown(Admission::Anyone) => Some(Welcome {}),
        Caller::Unknown(Admission::Only { .. } | Admission::Linked(_)) => None,
    }
}

/// Runs `greeting` until `deadline`; if it fails, tells the peer why with the close code.
async fn or_close(
    connection: &Connection,
    deadline: Instant,
    greeting: impl Future<Output = Result<Established, LinkError>>,
) -> Result<Established, LinkError> {
    let result = timeout_at(deadline, greeting).await.unwrap_or(Err(LinkError::TimedOut));
    if let Err(error) = &result {
        close_because(connection, error);
    }
    result
}

/// Closes `connection`, if it is not closed already, with the code that tells `error` to the peer.
pub(super) fn close_because(connection: &Connection, error: &LinkError) {
    match error {
        LinkError::Refused { reason } => CloseCode::Refused.close(connection, reason),
        LinkError::Full => CloseCode::Full.close(connection, ""),
        LinkError::VersionMismatch { .. } => {
            CloseCode::Version.close(connection, &VERSION.to_string());
        }
        LinkError::TimedOut => CloseCode::Timeout.close(connection, ""),
        LinkError::Lost(Loss::Violation(what)) => CloseCode::Violation.close(connection, what),
        LinkError::ClosedByPeer { .. } => CloseCode::Bye.close(connection, ""),
        LinkError::IdentityMismatch { .. }
        | LinkError::NotExpected
        | LinkError::Lost(_)
        | LinkError::Replaced
        | LinkError::Closed => CloseCode::Gone.close(connection, ""),
    }
}

fn handshake_error(error: ConnectionError, pin: Option<&Arc<Pin>>) -> LinkError {
    if error == ConnectionError::TimedOut {
        return LinkError::TimedOut;
    }
    match pin {
        Some(pin) if LinkError::is_wrong_key(&error) => {
            LinkError::IdentityMismatch { expected: pin.expected, found: pin.found() }
        }
        Some(_) | None => LinkError::of(error),
    }
}

async fn open_control(connection: &Connection) -> Result<FrameWriter, LinkError> {
    let stream = connection.open_uni().await.map_err(LinkError::of)?;
    // Acks and pongs overtake messages that wait for the network.
    stream.set_priority(1).map_err(|_| LinkError::violation("the control stream was stopped"))?;
    Ok(FrameWriter::new(stream, &[CONTROL_STREAM]))
}

async fn accept_control(connection: &Connection) -> Result<ControlReader, LinkError> {
    let stream = accept_stream(connection, CONTROL_STREAM).await?;
    Ok(FrameReader::new(stream))
}

/// The peer's next stream, which must be of this kind.
pub(super) async fn accept_stream(
    connection: &Connection,
    kind: u8,
) -> Result<RecvStream, LinkError> {
    let mut stream = connection.accept_uni().await.map_err(LinkError::of)?;
    match stream.read_u8().await {
        Ok(found) if found == kind => Ok(stream),
        Ok(found) => {
            Err(LinkError::violation(format!("a stream of kind {found} where {kind} was next")))
        }
        Err(error) => Err(stream_error(connection, &error)),
    }
}

fn push_hello(
    out: &mut FrameWriter,
    run: NonZeroU64,
    welcome: Option<Welcome>,
    proofs: Vec<bytes::Bytes>,
) {
    let agent = AGENT.to_owned();
    let hello = Hello { version: VERSION, agent, welcome, proofs, epoch: run.get() };
    push(out, control(hello));
}

pub(super) fn push(out: &mut FrameWriter, frame: Control) {
    out.push(frame).expect("our own control frames are far below the limit");
}

pub(super) async fn flush(connection: &Connection, out: &mut FrameWriter) -> Result<(), LinkError> {
    out.flush().await.map_err(|error| stream_error(connection, &io::Error::from(error)))
}

/// The peer's hello, and the run of its program.
async fn read_hello(
    connection: &Connection,
    control_in: &mut ControlReader,
) -> Result<(Hello, NonZeroU64), LinkError> {
    match next_frame(connection, control_in).await? {
        Kind::Hello(hello) if hello.version == VERSION => {
            let run = NonZeroU64::new(hello.epoch);
            run.map(|run| (hello, run)).ok_or_else(|| LinkError::violation("a hello without epoch"))
        }
        Kind::Hello(hello) => Err(LinkError::VersionMismatch { theirs: Some(hello.version) }),
        Kind::Welcome(_)
        | Kind::Ack(_)
        | Kind::Bye(_)
        | Kind::Ping(_)
        | Kind::Pong(_)
        | Kind::Resume(_)
        | Kind::Addresses(_) => Err(LinkError::violation("the first frame is no hello")),
    }
}

async fn next_frame(
    connection: &Connection,
    control_in: &mut ControlReader,
) -> Result<Kind, LinkError> {
    let frame = control_in.next().await.map_err(|error| read_error(connection, error))?;
    frame
        .and_then(|frame| frame.kind)
        .ok_or_else(|| LinkError::violation("the handshake ends early"))
}

/// What it means that a frame could not be read.
pub(super) fn read_error(connection: &Connection, error: ReadFrameError) -> LinkError {
    match error {
        ReadFrameError::Frame(error) => LinkError::violation(error),
        ReadFrameError::Io(error) => stream_error(connection, &error),
    }
}

/// What it means that a stream broke: its connection did, or the peer broke the stream alone.
fn stream_error(connection: &Connection, error: &io::Error) -> LinkError {
    match connection.close_reason() {
        Some(reason) => LinkError::of(reason),
        None => LinkError::violation(format!("a stream was broken off: {error}")),
    }
}

fn agent_in(hello: &Hello) -> String {
    let agent = printable(hello.agent.as_bytes());
    truncate(&agent).to_owned()
}

/// How this node presents itself.
const AGENT: &str = concat!("p2p-node/", env!("CARGO_PKG_VERSION"));

/// How long a dialler may take to prove itself: several retransmissions on a bad path.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(10);
