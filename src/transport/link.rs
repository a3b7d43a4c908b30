//! A link: one QUIC connection between two peers who have proved who they are and agreed to talk.
//!
//! It carries a [`Session`], which has the messages; without one it answers pings, and notices its end. Pure
//! parts decide (the session's machine, `control`, `carrying`); two tasks move bytes between them
//! and the two streams of each direction, one that reads and one that writes (`tasks`). Resumes, acks and pings have a stream of their own, which
//! goes before the other, so neither a consumer that stands still nor a large message delays them:
//!
//! ```text
//!  session ─▶ write_messages ══ message stream ══▶ read_messages ─▶ session
//!  session ◀─ read_control ◀══ control stream ══ write_control ◀─ session
//! ```
//!
//! The tasks belong to the [`Link`]: dropping it ends everything but the session.

pub mod admission;
pub mod loss;

mod carrying;
mod control;
mod error;
mod exporter;
mod handshake;
#[cfg(test)]
mod sim;
mod tasks;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::{oneshot, watch},
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tracing::{Instrument, debug_span};

pub use error::{LinkError, Loss};
pub use handshake::{Caller, Dial};

use self::loss::Packets;
use crate::{
    candidate::{CANDIDATES_MAX, encode_compact},
    identity::PeerId,
    probe::{ProbeKeys, Side},
    proto::wire::Addresses,
    ticket::TicketSecret,
    transport::{
        quic::{Arrival, Endpoint},
        session::Session,
    },
};

use error::CloseCode;
use handshake::Established;
use tasks::{Shared, lock};

/// An authenticated connection to one peer. Dropping it closes it at once.
#[derive(Debug)]
pub struct Link {
    shared: Arc<Shared>,
    /// Aborted when the link is dropped.
    _tasks: JoinSet<()>,
}

/// Why a link does not carry a session.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotCarried {
    /// The link has ended, or has ended now because it leads to a run of the peer's program that is over.
    #[error(transparent)]
    LinkEnded(LinkError),
    /// The link carries a session, or did: it does so once.
    #[error("the link has carried a session already")]
    Taken,
    /// The session has ended.
    #[error("the session has ended")]
    SessionEnded,
}

impl Link {
    /// Dials a peer; the link is up when the peer has said that we are welcome.
    ///
    /// Takes one round trip if the peer awaits us or admits anybody, else two.
    ///
    /// # Errors
    /// Every [`LinkError`] but [`LinkError::Closed`].
    pub async fn dial(endpoint: &Endpoint, dial: Dial) -> Result<Self, LinkError> {
        let span = debug_span!("dial", peer = ?dial.peer, address = %dial.address);
        let established = handshake::dial(endpoint, dial).instrument(span).await?;
        Ok(Self::start(established))
    }

    /// Lets in somebody who dialled us; the link is up when it has proved who it is and was found
    /// welcome. Gives up after ten seconds.
    ///
    /// # Errors
    /// Every [`LinkError`] but [`LinkError::Closed`]; [`LinkError::Refused`] when `caller`'s rule says
    /// so.
    pub async fn accept(
        endpoint: &Endpoint,
        arrival: Arrival,
        caller: Caller,
    ) -> Result<Self, LinkError> {
        let span = debug_span!("accept", address = %arrival.address());
        let accepting = handshake::accept(endpoint, arrival, caller);
        Ok(Self::start(accepting.instrument(span).await?))
    }

    /// Who is at the other end; proved by TLS.
    pub fn peer_id(&self) -> PeerId {
        self.shared.peer
    }

    /// Whether we dialled ([`Side::Initiator`]) or accepted.
    pub fn side(&self) -> Side {
        self.shared.side
    }

    /// The peer's software, for people.
    pub fn agent(&self) -> &str {
        &self.shared.agent
    }

    /// Keys for probes that only the two ends of this link can make; the same conversation at both.
    pub fn probe_keys(&self) -> &ProbeKeys {
        &self.shared.probe_keys
    }

    /// Names a place in the DHT that only the two ends of this link know, the same at both.
    pub fn meeting(&self) -> &TicketSecret {
        &self.shared.meeting
    }

    /// QUIC's current estimate of the round trip.
    pub fn rtt(&self) -> Duration {
        self.shared.connection.rtt()
    }

    /// What was sent over it, and what of it was lost.
    pub fn packets(&self) -> Packets {
        let path = self.shared.connection.stats().path;
        Packets { sent: path.sent_packets, lost: path.lost_packets }
    }

    /// Carries `session` from here on, if the peer's node does the same. Another link that carried it
    /// does so no longer.
    ///
    /// # Errors
    /// [`NotCarried`]; then the session is where it was.
    pub fn carry(&self, session: &Session) -> Result<(), NotCarried> {
        tasks::carry(&self.shared, session)
    }

    /// Asks the peer for an answer: the time until it came, through queues and all.
    ///
    /// # Errors
    /// How the link ended, if it did before the answer. Without an end it waits as long as the link
    /// lasts, so put a limit on it.
    pub async fn ping(&self) -> Result<Duration, LinkError> {
        let (ticket, pong) = oneshot::channel();
        lock(&self.shared.conversation).ping(Instant::now(), ticket);
        self.shared.line.to_say.notify_one();
        tokio::select! {
            biased;
            Ok(rtt) = pong => Ok(rtt),
            end = self.closed() => Err(end),
        }
    }

    /// Says something to the peer now: after an outage QUIC waits for longer and longer before it writes again
    /// what was lost, but it sends what is new, and the answer shows it what is missing.
    pub fn nudge(&self) {
        let (ticket, _) = oneshot::channel();
        lock(&self.shared.conversation).ping(Instant::now(), ticket);
        self.shared.line.to_say.notify_one();
    }

    /// Tells the peer that we are at `addresses` now; at most [`CANDIDATES_MAX`] count.
    pub fn tell_addresses(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        let compact = |address| encode_compact(address).into();
        let endpoints = addresses.into_iter().take(CANDIDATES_MAX).map(compact).collect();
        lock(&self.shared.conversation).say_addresses(Addresses { endpoints });
        self.shared.line.to_say.notify_one();
    }

    /// Where the peer says on this link that it is: marked as changed whenever it does. None of it is proved.
    pub fn peer_addresses(&self) -> watch::Receiver<Vec<SocketAddr>> {
        self.shared.peer_addresses.subscribe()
    }

    /// Waits until the link has ended, and says how.
    pub async fn closed(&self) -> LinkError {
        let mut end = self.shared.end.subscribe();
        let end = end.wait_for(Option::is_some).await;
        end.ok().and_then(|end| end.clone()).unwrap_or(LinkError::Closed)
    }

    /// How the link ended, if it did.
    pub fn ended(&self) -> Option<LinkError> {
        self.shared.end.borrow().clone()
    }

    /// Ends the link in peace: waits until `deadline` for the messages of the session that it carries to
    /// be delivered, then tells the peer `reason`. What is not delivered then is left to the session.
    pub async fn close(&self, reason: &str, deadline: Instant) {
        let shared = &self.shared;
        let carrier = lock(&shared.carrying).carrier();
        let drained = async {
            if let Some(carrier) = carrier {
                carrier.drained().await;
            }
        };
        let drained = timeout_at(deadline, drained).await.is_ok();
        shared.is_closing.store(true, Ordering::Release);
        if drained {
            // The last acks go out before it.
            lock(&shared.conversation).say_bye(error::truncate(reason));
            shared.line.to_say.notify_one();
            // The peer closes the connection when it reads the farewell. If it does not, we do.
            let _ = timeout_at(deadline, shared.connection.closed()).await;
        }
        shared.declare_end(LinkError::Closed);
        CloseCode::Bye.close(&shared.connection, reason);
    }

    /// Ends the link at once, because there is no room for its peer.
    pub fn refuse(&self) {
        self.shared.declare_end(LinkError::Full);
        CloseCode::Full.close(&self.shared.connection, "");
    }

    /// Ends the link at once, because its peer has given it up by now: the machine slept for longer than a
    /// silent connection lasts. The session goes on.
    pub fn give_up(&self) {
        self.shared.fail(LinkError::Lost(Loss::Silence));
    }

    /// Ends the link at once, because another one to the same peer takes its place. The session goes on.
    pub fn give_way(&self) {
        self.shared.declare_end(LinkError::Replaced);
        CloseCode::Replaced.close(&self.shared.connection, "");
    }

    fn start(established: Established) -> Self {
        let (shared, tasks) = tasks::start(established);
        Self { shared, _tasks: tasks }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.declare_end(LinkError::Closed);
        CloseCode::Gone.close(&self.shared.connection, "");
    }
}
