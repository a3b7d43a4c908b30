//! Every pair of NATs against the oracle: the link comes up whenever plain probes can open a path, soon after
//! the server has read the offer, and never where the oracle knows no way; a dial that fails ends in time and
//! says why. Few datagrams are sent, and none to strangers.
//!
//! The tables that the tests print (`--no-capture`) are in milliseconds and in round trips of 64 ms.

use std::time::Duration;

use p2p_node::{
    failure::{Code, Failure},
    lab::{Filtering, Mapping, Nat, Ports, Verdict, oracle},
    node::event::{Connection, Stage},
};
use tokio::time::{Instant, sleep};

use crate::world::{Home, World, run, secs};

#[test]
fn behind_an_independent_mapping_a_link_comes_up_exactly_when_the_oracle_says_so() {
    try_all_with(Mapping::EndpointIndependent);
}

#[test]
fn behind_an_address_dependent_mapping_a_link_comes_up_exactly_when_the_oracle_says_so() {
    try_all_with(Mapping::AddressDependent);
}

#[test]
fn behind_a_port_dependent_mapping_a_link_comes_up_exactly_when_the_oracle_says_so() {
    try_all_with(Mapping::AddressAndPortDependent);
}

/// The usual case, exactly: the server's first probe is the path, QUIC's first round trip the link.
#[test]
fn between_two_homes_the_path_takes_half_a_round_trip_and_the_link_one_more() {
    run(1, async |mut world| {
        let (client, server) = (world.behind(Nat::home()), world.behind(Nat::home()));
        let trial = dial(&mut world, &client, &server).await;
        let connection = trial.result.unwrap();
        assert_eq!((trial.path, trial.link), (Some(RTT / 2), Some(RTT + RTT / 2)));
        assert_eq!(connection.rtt, RTT);
    });
}

/// What one dial came to.
pub(crate) struct Trial {
    verdict: Verdict,
    pub(crate) result: Result<Connection, Failure>,
    took: Duration,
    /// From the server's reading of the offer to the path and to the link, both at the client; `None` if
    /// the link did not need the offer.
    pub(crate) path: Option<Duration>,
    pub(crate) link: Option<Duration>,
    /// From then to the end of the dial; zero if it was over before.
    pub(crate) told: Duration,
    /// Datagrams that client and server sent from the dial's begin until a second after its end.
    pub(crate) datagrams: [u64; 2],
}

/// A server at one home, a client at the other: dials once.
pub(crate) async fn dial(world: &mut World, client: &Home, server: &Home) -> Trial {
    dial_after(world, client, server, secs(1)).await
}

/// The same, so long after the server is online.
pub(crate) async fn dial_after(
    world: &mut World,
    client: &Home,
    server: &Home,
    pause: Duration,
) -> Trial {
    let mut listener = world.server(server);
    listener.online().await;
    let dialler = world.client(client);
    // Both know their addresses, as nodes do that have run for a while.
    sleep(pause).await;
    let sent = || [client, server].map(|home| home.host.counters().sent);
    let (before, began) = (sent(), Instant::now());
    let result = dialler.connect().await;
    let took = began.elapsed();
    sleep(secs(1)).await;
    let after = sent();
    for (home, other) in [(client, server), (server, client)] {
        assert_eq!(home.strangers(&other.candidates()), [].into());
    }
    let read = listener.stage(Stage::Offer);
    let since_read = |at: Option<Instant>| at?.checked_duration_since(read?);
    Trial {
        verdict: world.internet.verdict(&client.host, &server.host),
        result,
        took,
        path: since_read(dialler.stage(Stage::Path)),
        link: since_read(dialler.stage(Stage::Link)),
        told: since_read(Some(began + took)).unwrap_or_default(),
        datagrams: [after[0] - before[0], after[1] - before[1]],
    }
}

impl Trial {
    /// Panics unless the dial kept every promise.
    fn check(&self, name: &str, datagrams_max: u64) {
        match &self.result {
            Ok(_) => assert_ne!(self.verdict, Verdict::Impossible, "{name}"),
            Err(failure) => {
                assert_ne!(self.verdict, Verdict::Plain, "{name}: {failure}");
                let codes = [Code::NatIncompatible, Code::PunchTimeout];
                assert!(codes.contains(&failure.code), "{name}: {failure}");
                let explains = !failure.why.is_empty() && !failure.hint.is_empty();
                assert!(explains, "{name}: {failure}");
                assert!(self.took <= DEADLINE, "{name}: {:?}", self.took);
            }
        }
        for sent in self.datagrams {
            assert!(sent <= datagrams_max, "{name}: {sent} datagrams");
        }
    }

    fn row(&self, name: &str) -> String {
        let in_rtt = |time: Option<Duration>| {
            time.map_or_else(
                || "     -      ".to_owned(),
                |time| {
                    let trips = time.as_secs_f64() / RTT.as_secs_f64();
                    format!("{:4} ({trips:.2})", time.as_millis())
                },
            )
        };
        let result = match &self.result {
            Ok(_) => "linked",
            Err(failure) => failure.code.as_str(),
        };
        format!(
            "{name}  {:?}: {result} after {} ms, path {}, link {}, datagrams {:?}",
            self.verdict,
            self.took.as_millis(),
            in_rtt(self.path),
            in_rtt(self.link),
            self.datagrams
        )
    }
}

/// Clients with this mapping, every filtering and both kinds of ports, with every kind of server.
fn try_all_with(mapping: Mapping) {
    let all = all_nats();
    for client in all.iter().filter(|nat| nat.mapping == mapping) {
        for server in &all {
            run(1, async |mut world| {
                let name = format!("{} x {}", short(*client), short(*server));
                let homes = (world.behind(*client), world.behind(*server));
                let trial = dial(&mut world, &homes.0, &homes.1).await;
                println!("{}", trial.row(&name));
                let is_crossed = oracle::answers_between(&[*client], &[*server]);
                let (datagrams_max, offers_knocked_for) = match (trial.verdict, is_crossed) {
                    (Verdict::Plain, _) => (LINKED_DATAGRAMS_MAX + UNPROVED_MAX, 1),
                    (_, false) => (FAILED_DATAGRAMS_MAX + VOLLEY_DATAGRAMS_MAX, 2),
                    (_, true) => (CROSSED_DATAGRAMS_MAX + VOLLEY_DATAGRAMS_MAX, 2),
                };
                let knocks = match mapping {
                    Mapping::EndpointIndependent => 0,
                    Mapping::AddressDependent | Mapping::AddressAndPortDependent => {
                        KNOCKS_MAX * offers_knocked_for
                    }
                };
                trial.check(&name, datagrams_max + knocks);
            });
        }
    }
}

fn all_nats() -> Vec<Nat> {
    let mut nats = Vec::new();
    for ports in [Ports::Preserving, Ports::Random] {
        for mapping in Mapping::ALL {
            for filtering in Filtering::ALL {
                nats.push(Nat { mapping, filtering, ports, ..Nat::home() });
            }
        }
    }
    nats
}

/// Mapping and filtering as I, A, P (independent, address, address and port) and the ports.
fn short(nat: Nat) -> String {
    let mapping = match nat.mapping {
        Mapping::EndpointIndependent => "I",
        Mapping::AddressDependent => "A",
        Mapping::AddressAndPortDependent => "P",
    };
    let filtering = match nat.filtering {
        Filtering::EndpointIndependent => "I",
        Filtering::AddressDependent => "A",
        Filtering::AddressAndPortDependent => "P",
    };
    let ports = match nat.ports {
        Ports::Random => "random",
        Ports::Preserving | Ports::Sequential { .. } | Ports::Block { .. } => "same  ",
    };
    format!("{mapping}{filtering} {ports}")
}

/// Between two homes with the lab's usual links.
const RTT: Duration = Duration::from_millis(64);

/// A dial's own limit, when its caller names none.
const DEADLINE: Duration = Duration::from_secs(20);

/// Of either side, for a dial that succeeds: a handful of probes and QUIC's packets.
const LINKED_DATAGRAMS_MAX: u64 = 80;

/// Of either side, for a dial that fails after 20 s: eight attempts with 11 pings to each of two addresses,
/// and QUIC's first packets.
const FAILED_DATAGRAMS_MAX: u64 = 450;

/// The same where pings are heard but every answer comes from elsewhere: in each attempt, eight pings on
/// each of eight learned paths, and as many pongs.
const CROSSED_DATAGRAMS_MAX: u64 = 1_600;

/// On top of these, of a volley that begins before the peer has read the offer.
const UNPROVED_MAX: u64 = 40;

/// On top of these, where ports have to be guessed: one volley.
const VOLLEY_DATAGRAMS_MAX: u64 = 2_048;

/// On top of these, behind a mapping that depends on the destination: for each offer that is knocked for, a
/// ping in 20 ms to each of two addresses, for 1.2 s.
const KNOCKS_MAX: u64 = 2 * 60;
