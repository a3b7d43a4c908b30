//! A link: one QUIC connection between two peers who have proved who they are and agreed to talk.
//!
//! It carries messages both ways, each acknowledged when the other side's consumer has taken it. Pure
//! parts decide (`outbound`, `inbound`, `control`); a few small tasks move bytes between them and the
//! two streams of each direction (`tasks`). Acks and pings have a stream of their own, so a consumer
//! that stands still stops the messages of one direction and nothing else:
//!
//! ```text
//!  send ─▶ outbound ─▶ write_messages ══ message stream ══▶ read_messages ─▶ inbound ─▶ receive
//!  Receipt ◀─ acknowledge ◀─ read_control ◀══ control stream ══ write_control ◀─ acknowledge ─┘
//! ```
//!
//! The tasks belong to the [`Link`]: dropping it ends everything.

mod control;
mod error;
mod exporter;
mod handshake;
mod inbound;
mod outbound;
#[cfg(test)]
mod sim;
mod tasks;
#[cfg(test)]
mod tests;
mod wire;

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use thiserror::Error;
use tokio::{
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout_at},
};
use tracing::{Instrument, debug_span};

pub use error::{LinkError, Loss};
pub use handshake::{Caller, Dial};
pub use outbound::{QUEUE_LENGTH_MAX, QUEUE_SIZE_MAX, SendError};
pub use wire::{MESSAGE_SIZE_MAX, Oversize};

use crate::{
    identity::PeerId,
    probe::{ProbeKeys, Side},
    proto::Message,
    transport::quic::{Arrival, Endpoint},
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

/// What becomes of one message: ready when the peer's consumer has taken it.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<(), LinkError>>);

/// The link ended before the message was acknowledged: it may have been delivered or not.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the link ended before the peer acknowledged the message: {cause}")]
pub struct DeliveryUnknown {
    /// How the link ended.
    pub cause: LinkError,
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

    /// QUIC's current estimate of the round trip.
    pub fn rtt(&self) -> Duration {
        self.shared.connection.rtt()
    }

    /// Queues `message` and gives the receipt for it. Never waits.
    ///
    /// # Errors
    /// [`SendError::TooLarge`], [`SendError::QueueFull`], or [`SendError::Ended`]; then nothing of it
    /// was sent.
    pub fn send(&self, message: Message) -> Result<Receipt, SendError> {
        let (ticket, receipt) = oneshot::channel();
        lock(&self.shared.outbound).push(message, ticket)?;
        self.shared.to_send.notify_one();
        Ok(Receipt(receipt))
    }

    /// The next message from the peer. Taking it acknowledges it.
    ///
    /// Cancelling it loses nothing. After the end of the link, the messages that had arrived before
    /// still come.
    ///
    /// # Errors
    /// How the link ended, when there are no messages left.
    pub async fn receive(&self) -> Result<Message, LinkError> {
        loop {
            let mut arrived = pin!(self.shared.arrived.notified());
            // Counts as waiting from here on, so that nothing is missed between look and wait.
            arrived.as_mut().enable();
            let end = self.ended();
            if let Some(message) = self.shared.take_message() {
                return Ok(message);
            }
            if let Some(end) = end {
                return Err(end);
            }
            arrived.await;
        }
    }

    /// Asks the peer for an answer: the time until it came, through queues and all.
    ///
    /// # Errors
    /// How the link ended, if it did before the answer. Without an end it waits as long as the link
    /// lasts, so put a limit on it.
    pub async fn ping(&self) -> Result<Duration, LinkError> {
        let (ticket, pong) = oneshot::channel();
        lock(&self.shared.conversation).ping(Instant::now(), ticket);
        self.shared.to_say.notify_one();
        tokio::select! {
            biased;
            Ok(rtt) = pong => Ok(rtt),
            end = self.closed() => Err(end),
        }
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

    /// Ends the link in peace: takes no more messages, waits until `deadline` for those that were
    /// taken to be delivered, then tells the peer `reason`.
    ///
    /// What the peer had on its way to us and we had not received, its sender learns as
    /// [`DeliveryUnknown`].
    pub async fn close(&self, reason: &str, deadline: Instant) {
        let shared = &self.shared;
        lock(&shared.outbound).close();
        let drained = timeout_at(deadline, shared.drained()).await.is_ok();
        shared.declare_end(LinkError::Closed);
        if drained {
            lock(&shared.conversation).say_bye(error::truncate(reason));
            shared.to_say.notify_one();
            // The peer closes the connection when it reads the farewell. If it does not, we do.
            let _ = timeout_at(deadline, shared.connection.closed()).await;
        }
        CloseCode::Bye.close(&shared.connection, reason);
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

impl Future for Receipt {
    type Output = Result<(), DeliveryUnknown>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = Pin::new(&mut self.0).poll(context);
        outcome.map(|outcome| {
            let outcome = outcome.unwrap_or(Err(LinkError::Closed));
            outcome.map_err(|cause| DeliveryUnknown { cause })
        })
    }
}
