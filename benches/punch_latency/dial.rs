//! One dial in a world of its own: a server that is online, a client that has looked at its own NAT,
//! and then `send`, until the message is with the server's consumer.

use std::time::Duration;

use p2p_node::{
    failure::Failure,
    node::{HelperMode, Role, event::Stage},
};
use tokio::time::{Instant, sleep};

use crate::{
    peer::Peer,
    side::{Pair, Side},
    world::{message, ms, run_exactly, secs, to_service},
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

/// Dials as [`dial`] does, but the server is served by a helper on the public internet.
pub(crate) fn dial_by_helper(pair: Pair, loss: f64, seed: u64) -> Dialled {
    run_exactly(seed, async |mut world| {
        let mut config = world.config(Role::Server);
        config.service = None;
        config.helper_mode = HelperMode::On;
        let at = Side::Open.home(&mut world, 0.0);
        let mut helper = world.start(&at, config);
        helper.online().await;
        sleep(secs(10)).await;
        let at = pair.server.home(&mut world, 0.0);
        let server = world.server(&at);
        // The server goes through the lists of helpers, and renews its record when it has found one.
        sleep(secs(60)).await;
        let at = pair.client.home(&mut world, loss);
        let mut client = world.client(&at);
        sleep(secs(3) + ms(seed * 37 % 500)).await;
        measure(&mut client, &server).await
    })
}

/// Dials in the world of `seed`, where the client's access line loses `loss` of the datagrams each way.
pub(crate) fn dial(pair: Pair, loss: f64, seed: u64) -> Dialled {
    run_exactly(seed, async |mut world| {
        let server_home = pair.server.home(&mut world, 0.0);
        let client_home = pair.client.home(&mut world, loss);
        let mut server = world.server(&server_home);
        server.online().await;
        let mut client = world.client(&client_home);
        // Long enough for STUN; then at any moment between two looks of the server into its inbox.
        sleep(secs(3) + ms(seed * 37 % 500)).await;
        measure(&mut client, &server).await
    })
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
async fn measure(client: &mut Peer, server: &Peer) -> Dialled {
    let real_start = std::time::Instant::now();
    let start = Instant::now();
    let before = datagrams_sent(client, server);
    let node = client.node.clone();
    let sending = node.send(to_service(), message("hello"), None);
    tokio::pin!(sending);
    let after = tokio::select! {
        biased;
        _ = client.connected() => datagrams_sent(client, server),
        Err(failure) = &mut sending => return Dialled::Failed(failure),
    };
    if let Err(failure) = sending.await {
        return Dialled::Failed(failure);
    }
    let real_time = real_start.elapsed();
    let since_start = |moment: Instant| moment - start;
    let of_client = |stage| client.stage(stage).map(since_start);
    let link = of_client(Stage::Link).unwrap();
    let offer_read = server.stage(Stage::Offer).map(since_start);
    Dialled::Delivered(Box::new(Times {
        record_known: of_client(Stage::Resolve).unwrap(),
        offer_read: offer_read.filter(|read| *read <= link),
        path: of_client(Stage::Path).filter(|path| *path <= link),
        link,
        delivered: since_start(delivered(server).unwrap()),
        datagrams: [after[0] - before[0], after[1] - before[1]],
        real_time,
    }))
}

fn datagrams_sent(client: &Peer, server: &Peer) -> [u64; 2] {
    [client, server].map(|peer| peer.home.host.counters().sent)
}

fn delivered(server: &Peer) -> Option<Instant> {
    server.messages().first().map(|(at, _, _)| *at)
}
