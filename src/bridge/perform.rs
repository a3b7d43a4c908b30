//! What each command asks of the node.

use std::{sync::Arc, time::Duration};

use tokio::time;

use super::{
    command::Verb,
    driven::{Arrived, Driven},
    recipient::{Directory, Recipient},
    reply::Reply,
    work::{Answer, Job},
};
use crate::{
    failure::{Code, Failure},
    identity::PeerId,
    node::Target,
    ticket::Ticket,
};

/// How long a question that the node answers from memory may take.
const QUESTION_TIME_MAX: Duration = Duration::from_secs(10);

/// A command, ready to begin.
pub(super) struct Task<H> {
    /// Whom it is for, if that is one peer.
    pub(super) peer: Option<PeerId>,
    /// Bytes of payload that it holds.
    pub(super) bytes: usize,
    /// What it does.
    pub(super) job: Job<H>,
}

/// Where names of peers lead.
pub(super) struct Names<'a> {
    pub(super) directory: &'a Directory,
    pub(super) nearby: &'a dyn Fn() -> Option<Ticket>,
}

impl Names<'_> {
    fn target(&self, recipient: &Recipient) -> Result<Target, Failure> {
        self.directory.resolve(recipient, self.nearby)
    }

    /// Whom `recipient` means, if that is one peer.
    fn peer(&self, recipient: &Recipient, usage: &str) -> Result<PeerId, Failure> {
        self.target(recipient)?.peer().ok_or_else(|| {
            Failure::new(Code::InvalidArgument, "a service may have several servers")
                .hint(format!("{usage}; list shows the connected peers"))
        })
    }
}

/// The work that `verb` means. `None` for what the session does itself.
///
/// # Errors
/// When it is for nobody.
pub(super) fn task<N: Driven>(
    node: &Arc<N>,
    names: &Names<'_>,
    verb: Verb,
    timeout: Option<Duration>,
) -> Result<Option<Task<N::Handover>>, Failure> {
    let node = Arc::clone(node);
    let limit = timeout.unwrap_or(QUESTION_TIME_MAX);
    let (peer, bytes, job): (_, _, Job<N::Handover>) = match verb {
        Verb::Send { to, message } => {
            let (target, bytes) = (names.target(&to)?, message.payload.len());
            let peer = target.peer();
            let send = async move {
                let receipt = node.send(target, message, timeout).await?;
                Ok(Reply::from(receipt).into())
            };
            (peer, bytes, Box::pin(send))
        }
        Verb::Broadcast { message } => {
            let bytes = message.payload.len();
            let broadcast = async move {
                let sent = node.broadcast(message, timeout).await?;
                Ok(Reply::from(sent).into())
            };
            (None, bytes, Box::pin(broadcast))
        }
        Verb::Request { to, message } => {
            let (target, bytes) = (names.target(&to)?, message.payload.len());
            let peer = target.peer();
            let request = async move {
                let Arrived { peer, message, handover } =
                    node.request(target, message, timeout).await?;
                let reply = Reply::Answered { peer, message };
                Ok(Answer { reply, handover: Some(handover) })
            };
            (peer, bytes, Box::pin(request))
        }
        Verb::Connect { to } => {
            let target = names.target(&to)?;
            let peer = target.peer();
            let connect = async move {
                let connection = node.connect(target, timeout).await?;
                Ok(Reply::Connected((&connection).into()).into())
            };
            (peer, 0, Box::pin(connect))
        }
        Verb::Disconnect { from } => {
            let peer = names.peer(&from, "disconnect <peer>")?;
            let disconnect = async move {
                in_time(limit, node.disconnect(peer)).await?;
                Ok(Reply::Disconnected { peer }.into())
            };
            (Some(peer), 0, Box::pin(disconnect))
        }
        Verb::Ping { to } => {
            let peer = names.peer(&to, "ping <peer>")?;
            let ping = async move { Ok(Reply::from(node.ping(peer, Some(limit)).await?).into()) };
            (Some(peer), 0, Box::pin(ping))
        }
        Verb::List => {
            let list = async move { Ok(Reply::from(in_time(limit, node.peers()).await?).into()) };
            (None, 0, Box::pin(list))
        }
        Verb::Status => {
            let status =
                async move { Ok(Reply::from(in_time(limit, node.status()).await?).into()) };
            (None, 0, Box::pin(status))
        }
        Verb::Netcheck => {
            let netcheck = async move { Ok(Reply::from(node.netcheck(Some(limit)).await?).into()) };
            (None, 0, Box::pin(netcheck))
        }
        Verb::Hello { .. }
        | Verb::Listen { .. }
        | Verb::Credit { .. }
        | Verb::Ticket
        | Verb::Cancel { .. }
        | Verb::Help
        | Verb::Quit => return Ok(None),
    };
    Ok(Some(Task { peer, bytes, job }))
}

async fn in_time<T>(
    limit: Duration,
    question: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    time::timeout(limit, question).await.unwrap_or_else(|_| {
        let limit_ms = limit.as_millis();
        Err(Failure::new(Code::Timeout, format!("the node has not answered in {limit_ms} ms")))
    })
}
