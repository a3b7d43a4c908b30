//! Every pair of NATs against the oracle: the link comes up exactly when plain probes can open a path,
//! soon after the server has read the offer; otherwise the dial ends in time and says why. Few
//! datagrams are sent, and none to strangers.

use std::{collections::BTreeMap, time::Duration};

use p2p_node::{
    failure::{Code, Failure},
    lab::{Filtering, Mapping, Nat, Ports, Verdict},
    node::event::{Connection, Stage},
};
use tokio::time::Instant;

use crate::{
    peer::Peer,
    world::{Home, World, ms, run, secs},
};

/// What one dial came to.
struct Trial {
    verdict: Verdict,
    result: Result<Connection, Failure>,
    took: Duration,
    /// From the server's reading of the offer, in milliseconds: to the path, and to the link, both at
    /// the client.
    path_ms: Option<u128>,
    link_ms: Option<u128>,
    /// Datagrams sent by client and server from the dial's begin to its end.
    datagrams: [u64; 2],
}

/// A server at one home, a client at the other: dials once.
async fn dial(world: &mut World, client: &Home, server: &Home) -> Trial {
    let mut peer = world.server(server);
    peer.online().await;
    let caller = world.client(client);
    // Both know their addresses, as nodes do that have run for a while.
    tokio::time::sleep(secs(1)).await;
    let sent = || [client, server].map(|home| home.host.counters().sent);
    let (before, began) = (sent(), Instant::now());
    let result = caller.connect().await;
    let took = began.elapsed();
    let after = sent();
    let verdict = world.internet.verdict(&client.host, &server.host);
    tokio::time::sleep(secs(1)).await;
    for (home, other) in [(client, server), (server, client)] {
        assert_eq!(home.strangers(&other.candidates()), [].into());
    }
    let since_offer = |at: Option<Instant>| Some((at? - peer.stage(Stage::Offer)?).as_millis());
    Trial {
        verdict,
        path_ms: since_offer(caller.stage(Stage::Path)),
        link_ms: since_offer(caller.stage(Stage::Link)),
        result,
        took,
        datagrams: [after[0] - before[0], after[1] - before[1]],
    }
}

fn nats(ports: Ports) -> Vec<Nat> {
    let mut nats = Vec::new();
    for mapping in Mapping::ALL {
        for filtering in Filtering::ALL {
            nats.push(Nat {
                mapping,
                filtering,
                ports,
                ..Nat::home()
            });
        }
    }
    nats
}

fn name(nat: Nat) -> String {
    let letter = |index: usize| ["I", "A", "P"][index];
    let mapping = Mapping::ALL.iter().position(|&m| m == nat.mapping);
    let filtering = Filtering::ALL.iter().position(|&f| f == nat.filtering);
    format!("{}{}", letter(mapping.unwrap()), letter(filtering.unwrap()))
}

#[test]
fn explore() {
    for ports in [Ports::Preserving, Ports::Random] {
        for a in nats(ports) {
            for b in nats(ports) {
                let started = std::time::Instant::now();
                run(1, async |mut world| {
                    let (client, server) = (world.behind(a), world.behind(b));
                    let trial = dial(&mut world, &client, &server).await;
                    println!(
                        "{} {} {:?} {:?} -> {} took {} path {:?} link {:?} sent {:?} cpu {}",
                        name(a),
                        name(b),
                        ports,
                        trial.verdict,
                        match &trial.result {
                            Ok(_) => "ok".to_owned(),
                            Err(f) => format!("{}", f.code),
                        },
                        trial.took.as_millis(),
                        trial.path_ms,
                        trial.link_ms,
                        trial.datagrams,
                        started.elapsed().as_millis(),
                    );
                });
            }
        }
    }
}

#[test]
fn one() {
    let nats = nats(Ports::Preserving);
    run(1, async |mut world| {
        let (client, server) = (world.behind(nats[0]), world.behind(nats[0]));
        world.internet.record_trace();
        let trial = dial(&mut world, &client, &server).await;
        println!("{:?}", trial.took);
        for row in world.internet.trace().rows() {
            println!("{row}");
        }
    });
}
