//! One dial in a world of its own: a server that is online, a client that has looked at its own NAT,
//! and then `send`, until the message is with the server's consumer.

use std::time::Duration;

use p2p_node::{
    failure::Failure,
    node::{Event, event::Stage},
};
use tokio::time::{Instant, sleep};

use crate::{
    side::Pair,
    world::{Peer, World, message, ms, run, secs, to_service},
};

/// How a dial ended.
pub(crate) enum Dialled {
    Delivered(Box<Times>),
    Failed(Failure),
}

/// When each step was done, in virtual time since `send` was called, and what it took.
pub(crate) struct Times {
    /// The client has the server's record.
    pub(crate) record_known: Duration,
    /// The server has read the offer, unless the link was up before.
    pub(crate) offer_read: Option<Duration>,
    /// The client knows a path by a probe, unless the link was up before.
    pub(crate) path: Option<Duration>,
    /// The client has the link.
    pub(crate) link: Duration,
    /// The server's consumer has the message.
    pub(crate) delivered: Duration,
    /// Datagrams that client and server sent up to the link.
    pub(crate) datagrams: [u64; 2],
    /// Real time of it all, without the making of the world.
    pub(crate) real_time: Duration,
}

/// Dials in the world of `seed`, where the client's access line loses `loss` of the datagrams each way.
pub(crate) fn dial(pair: Pair, loss: f64, seed: u64) -> Dialled {
    run(async {
        let mut world = World::new(seed);
        let server_host = pair.server.host(&mut world, 0.0);
        let client_host = pair.client.host(&mut world, loss);
        let mut server = world.server(&server_host);
        server.online().await;
        let mut client = world.client(&client_host);
        // Long enough for STUN; then at any moment between two looks of the server into its inbox.
        sleep(secs(3) + ms(seed * 37 % 500)).await;
        client.drain();
        server.drain();
        measure(&mut client, &mut server).await
    })
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
async fn measure(client: &mut Peer, server: &mut Peer) -> Dialled {
    let real_start = std::time::Instant::now();
    let sent_at = |peers: [&Peer; 2]| peers.map(|peer| peer.host.counters().sent);
    let (start, before) = (Instant::now(), sent_at([client, server]));
    let node = client.node.clone();
    let sending = node.send(to_service(), message("hello"), None);
    tokio::pin!(sending);
    let (mut record_known, mut offer_read, mut path) = (None, None, None);
    let (mut link, mut datagrams, mut delivered) = (None, [0; 2], None);
    let mut receipt = None;
    while receipt.is_none() || delivered.is_none() || link.is_none() {
        tokio::select! {
            biased;
            event = client.next() => match event {
                Event::Progress { stage: Stage::Resolve, .. } => note(&mut record_known, start),
                Event::Progress { stage: Stage::Path, .. } => note(&mut path, start),
                Event::Connected(_) => {
                    note(&mut link, start);
                    let after = sent_at([client, server]);
                    datagrams = [after[0] - before[0], after[1] - before[1]];
                }
                _ => {}
            },
            event = server.next() => match event {
                Event::Progress { stage: Stage::Offer, .. } => note(&mut offer_read, start),
                Event::Message { .. } => note(&mut delivered, start),
                _ => {}
            },
            result = &mut sending, if receipt.is_none() => match result {
                Ok(got) => receipt = Some(got),
                Err(failure) => return Dialled::Failed(failure),
            },
        }
    }
    let link = link.unwrap();
    Dialled::Delivered(Box::new(Times {
        record_known: record_known.unwrap(),
        offer_read: offer_read.filter(|read| *read <= link),
        path: path.filter(|path| *path <= link),
        link,
        delivered: delivered.unwrap(),
        datagrams,
        real_time: real_start.elapsed(),
    }))
}

fn note(moment: &mut Option<Duration>, start: Instant) {
    moment.get_or_insert(start.elapsed());
}
