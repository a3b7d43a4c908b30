//! One dial in a world of its own: a server that is online, a client that has looked at its own NAT, and then
//! `send`, until the server's program has the message and the client's program the answer.

use std::{collections::BTreeMap, time::Duration};

use p2p_node::{
    failure::Failure,
    node::{HelperMode, Node, Role, Target, event::Stage},
};
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    homes::{ACCESS_MS, home, homes},
    peer::Peer,
    report::{
        figures::{Moment, Scene},
        side::{Pair, Side},
    },
    served::until_served,
    world::{World, message, ms, run_exactly, secs, to_service},
};

/// What one dial came to.
pub(crate) struct Dialled {
    /// When it was there, of what there was, since the scene's clock began.
    pub(crate) moments: BTreeMap<Moment, Duration>,
    /// Datagrams that client and server sent until a second after link or failure.
    pub(crate) datagrams: [u64; 2],
    /// Why there is no link.
    pub(crate) failure: Option<Failure>,
    /// Real time of it all, without the making of the world.
    pub(crate) real_time: Duration,
}

/// Dials in the world of `seed`.
pub(crate) fn dial(scene: Scene, pair: Pair, seed: u64) -> Dialled {
    run_exactly(seed, async |mut world| {
        let helper = match scene {
            Scene::Inbox => None,
            Scene::Helper | Scene::SameLan | Scene::OneCarrier | Scene::Loss | Scene::Blocked => {
                Some(helper(&mut world).await)
            }
        };
        let [client, server] = homes(scene, pair, &mut world);
        let mut server = world.server(&server);
        server.online().await;
        if helper.is_some() {
            until_served(&world, &server, 1).await;
        }
        let mut client = world.client(&client);
        // Long enough for STUN; then at any moment between two looks of the server into its inbox.
        sleep(secs(3) + ms(seed * 37 % 500)).await;
        match scene {
            Scene::Blocked => {
                let blocked_for = secs(20) + ms(seed * 149 % 3_000);
                dial_blocked(&world, blocked_for, (&mut client, &mut server)).await
            }
            Scene::Helper | Scene::Inbox | Scene::SameLan | Scene::OneCarrier | Scene::Loss => {
                let talk = talk(&mut client, &mut server, None).await;
                let record_known = client.stage(Stage::Resolve).unwrap();
                talk.since(record_known, (&client, &server))
            }
        }
    })
}

/// A node on the public internet that forwards offers.
async fn helper(world: &mut World) -> Peer {
    let mut config = world.config(Role::Server);
    config.service = None;
    config.helper_mode = HelperMode::On;
    let at = home(Side::Open, world, ACCESS_MS);
    let mut helper = world.start(&at, config);
    helper.online().await;
    // Until it has listed itself.
    sleep(secs(10)).await;
    helper
}

/// Dials while nothing passes between the two for a while; its clock begins when it does.
async fn dial_blocked(
    world: &World,
    blocked_for: Duration,
    (client, server): (&mut Peer, &mut Peer),
) -> Dialled {
    let hosts = [&*client, &*server].map(|peer| peer.home.host.clone());
    world.internet.block(&hosts[0], &hosts[1]);
    let free_at = Instant::now() + blocked_for;
    let internet = world.internet.clone();
    tokio::spawn(async move {
        sleep_until(free_at).await;
        internet.unblock(&hosts[0], &hosts[1]);
    });
    let talk = talk(client, server, Some(secs(120))).await;
    talk.since(free_at, (client, server))
}

/// A message and its answer, or the failure.
struct Talk {
    failure: Option<Failure>,
    ended: Instant,
    datagrams: [u64; 2],
    real_time: Duration,
}

#[expect(clippy::disallowed_methods, reason = "real time is what is measured")]
async fn talk(client: &mut Peer, server: &mut Peer, limit: Option<Duration>) -> Talk {
    let real_start = std::time::Instant::now();
    let before = datagrams_sent(client, server);
    let node: Node = client.node.clone();
    let sending = node.send(to_service(), message("hello"), limit);
    let answering = async {
        let (peer, _) = server.message_within(TALK_MAX).await;
        server.say(Target::Peer(peer), "and hello").await
    };
    let both = async { tokio::join!(answering, client.message_within(TALK_MAX)) };
    let failure = tokio::select! {
        biased;
        Err(failure) = sending => Some(failure),
        _ = both => None,
    };
    let real_time = real_start.elapsed();
    let ended = Instant::now();
    let over = client.stage(Stage::Link).filter(|_| failure.is_none()).unwrap_or(ended);
    // What is on its way, and what was begun and is not stopped yet, counts too.
    sleep_until(over + secs(1)).await;
    let after = datagrams_sent(client, server);
    Talk { failure, ended, datagrams: [after[0] - before[0], after[1] - before[1]], real_time }
}

impl Talk {
    /// With the moments of both sides, counted from `start`.
    fn since(self, start: Instant, (client, server): (&Peer, &Peer)) -> Dialled {
        let first = |peer: &Peer| peer.messages().first().map(|(at, _, _)| *at);
        let moments: &[(Moment, Option<Instant>)] = match self.failure {
            Some(_) => &[(Moment::Told, Some(self.ended))],
            None => {
                let link = client.stage(Stage::Link);
                let until_link = |at: Option<Instant>| at.filter(|at| Some(*at) <= link);
                &[
                    (Moment::Offer, until_link(server.stage(Stage::Offer))),
                    // Where nothing had to be opened, the link itself is the first answer.
                    (Moment::Path, until_link(client.stage(Stage::Path)).or(link)),
                    (Moment::Link, link),
                    (Moment::Message, first(server)),
                    (Moment::Echo, first(client)),
                ]
            }
        };
        let since = |&(moment, at): &(Moment, Option<Instant>)| {
            Some((moment, at?.saturating_duration_since(start)))
        };
        Dialled {
            moments: moments.iter().filter_map(since).collect(),
            datagrams: self.datagrams,
            failure: self.failure,
            real_time: self.real_time,
        }
    }
}

fn datagrams_sent(client: &Peer, server: &Peer) -> [u64; 2] {
    [client, server].map(|peer| peer.home.host.counters().sent)
}

/// Longer than any dial goes on.
const TALK_MAX: Duration = Duration::from_secs(300);
