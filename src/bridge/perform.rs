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
    node::{Question, Target},
    proto::Message,
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
    pub(super) directory: &'a mut Directory,
    pub(super) nearby: &'a dyn Fn() -> Option<Ticket>,
}

impl Names<'_> {
    fn target(&mut self, recipient: &Recipient) -> Result<Target, Failure> {
        self.directory.resolve(recipient, self.nearby)
    }

    /// Whom `recipient` means, if that is one peer.
    fn peer(&mut self, recipient: &Recipient, usage: &str) -> Result<PeerId, Failure> {
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
    names: &mut Names<'_>,
    verb: Verb,
    timeout: Option<Duration>,
) -> Result<Option<Task<N::Handover>>, Failure> {
    let node = Arc::clone(node);
    let limit = timeout.unwrap_or(QUESTION_TIME_MAX);
    Ok(Some(match verb {
        Verb::Send { to, message } => send(node, names.target(&to)?, message, timeout),
        Verb::Request { to, message } => request(node, names.target(&to)?, message, timeout),
        Verb::Broadcast { message } => Task {
            peer: None,
            bytes: message.payload.len(),
            job: Box::pin(async move {
                Ok(Reply::from(node.broadcast(message, timeout).await?).into())
            }),
        },
        Verb::Connect { to } => {
            let target = names.target(&to)?;
            Task::new(target.peer(), async move {
                let connection = node.connect(target, timeout).await?;
                Ok(Reply::Connected((&connection).into()))
            })
        }
        Verb::Disconnect { from } => {
            let peer = names.peer(&from, "disconnect <peer>")?;
            Task::new(Some(peer), async move {
                in_time(limit, node.disconnect(peer)).await?;
                Ok(Reply::Disconnected { peer })
            })
        }
        Verb::Ping { to } => {
            let peer = names.peer(&to, "ping <peer>")?;
            Task::new(
                Some(peer),
                async move { node.ping(peer, Some(limit)).await.map(Reply::from) },
            )
        }
        Verb::List => {
            Task::new(None, async move { in_time(limit, node.peers()).await.map(Reply::from) })
        }
        Verb::Status => {
            Task::new(None, async move { in_time(limit, node.status()).await.map(Reply::from) })
        }
        Verb::Netcheck { with, lifetime } => {
            let peer = with.map(|with| names.target(&with)).transpose()?;
            let question = Question { peer, lifetime };
            Task::new(None, async move { node.netcheck(question, timeout).await.map(Reply::from) })
        }
        Verb::Hello { .. }
        | Verb::Listen { .. }
        | Verb::Credit { .. }
        | Verb::Ticket
        | Verb::Cancel { .. }
        | Verb::Help
        | Verb::Quit => return Ok(None),
    }))
}

fn send<N: Driven>(
    node: Arc<N>,
    target: Target,
    message: Message,
    timeout: Option<Duration>,
) -> Task<N::Handover> {
    Task {
        peer: target.peer(),
        bytes: message.payload.len(),
        job: Box::pin(
            async move { Ok(Reply::from(node.send(target, message, timeout).await?).into()) },
        ),
    }
}

fn request<N: Driven>(
    node: Arc<N>,
    target: Target,
    message: Message,
    timeout: Option<Duration>,
) -> Task<N::Handover> {
    Task {
        peer: target.peer(),
        bytes: message.payload.len(),
        job: Box::pin(async move {
            let arrived = node.request(target, message, timeout).await?;
            let Arrived { peer, message, handover } = arrived;
            let reply = Reply::Answered { peer, message };
            Ok(Answer { reply, handover: Some(handover) })
        }),
    }
}

impl<H> Task<H> {
    fn new(
        peer: Option<PeerId>,
        question: impl Future<Output = Result<Reply, Failure>> + Send + 'static,
    ) -> Self {
        Self { peer, bytes: 0, job: Box::pin(async move { question.await.map(Answer::from) }) }
    }
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
