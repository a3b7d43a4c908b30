//! `p2p-node netcheck` behind real NATs: the table says what the rules say, and the exit code what it means.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    lab::Host,
    nat::Nat,
    process::Process,
    scenario::{START, World, connect, p2p_node},
};

/// A check takes five seconds at most; the rest is for a busy machine.
const CHECK: Duration = Duration::from_secs(15);

/// What `p2p-node netcheck --json` prints on `host`.
fn check(world: &World, host: &Host, more: &[&str]) -> Value {
    let mut arguments = vec!["netcheck", "--json"];
    arguments.extend(world.flags());
    arguments.extend(more);
    told(&host.spawn(&p2p_node(), &arguments))
}

fn told(process: &Process) -> Value {
    process.wait_until("check of the network", CHECK, |line| line["udp"].is_boolean())
}

#[test]
fn behind_a_usual_home_it_tells_one_mapping_for_all_and_ports_that_are_kept() {
    let Some(world) = World::new() else { return };
    let check = check(&world, &world.home(Nat::Masquerade).host(), &[]);
    assert_eq!(check["mapping"], "endpoint-independent", "{check}");
    assert_eq!(check["ports"]["allocation"], "preserving", "{check}");
    assert_eq!(check["addresses"], "one", "{check}");
    assert_eq!(check["hairpin"], "missing", "{check}");
    // Nobody has come in who could show more.
    assert_eq!(check["filtering"], "unknown", "{check}");
    assert_eq!((&check["stun_servers"], &check["complete"]), (&json!(2), &json!(true)), "{check}");
}

#[test]
fn behind_a_symmetric_nat_it_tells_ports_without_order() {
    let Some(world) = World::new() else { return };
    let check = check(&world, &world.home(Nat::FullyRandom).host(), &[]);
    assert_eq!(check["mapping"], "address-and-port-dependent", "{check}");
    assert_eq!(check["ports"]["allocation"], "random", "{check}");
    assert_eq!(check["hairpin"], "unknown", "{check}");
}

#[test]
fn behind_a_carrier_it_tells_what_both_nats_do_together() {
    let Some(world) = World::new() else { return };
    let home = world.lab.carrier(Nat::FullyRandom).home(Nat::Masquerade);
    let check = check(&world, &home.host(), &[]);
    assert_eq!(check["mapping"], "address-and-port-dependent", "{check}");
}

#[test]
fn a_public_host_is_told_to_have_no_nat() {
    let Some(world) = World::new() else { return };
    let check = check(&world, &world.lab.public_host(&["198.51.100.20"]), &[]);
    assert_eq!(check["mapping"], "none", "{check}");
    let public = check["public_addrs"][0].as_str().unwrap_or_default();
    assert!(public.starts_with("198.51.100.20:"), "{check}");
}

/// Five seconds after the last datagram the router forgets a flow, and gives the next one another port.
#[test]
fn how_long_a_mapping_lives_is_measured() {
    let Some(world) = World::new() else { return };
    let home = world.home(Nat::FullyRandom);
    home.forget_after(5);
    let check = check(&world, &home.host(), &["--lifetime=8s"]);
    let expected = json!({"state": "measured", "at_least_ms": 4_000, "less_than_ms": 6_000});
    assert_eq!(check["lifetime"], expected, "{check}");
}

/// Two clients come in by the forwarded port before the server has heard of them.
#[test]
fn a_forwarded_port_is_told_once_two_peers_have_come_in_by_it() {
    let Some(world) = World::new() else { return };
    let server = world.server(&world.home(Nat::FullCone).host());
    for address in ["198.51.100.20", "198.51.100.21"] {
        let client = world.client(&world.lab.public_host(&[address]));
        connect(&client).expect("a full cone lets everybody in");
    }
    server.process.tell(&json!({"cmd": "netcheck", "id": 1}));
    let check = told(&server.process);
    assert_eq!(check["filtering"], "endpoint-independent", "{check}");
}

#[test]
fn of_a_pair_it_tells_whether_they_meet() {
    let Some(world) = World::new() else { return };
    let server = world.server(&world.home(Nat::FullyRandom).host());
    for (nat, outlook) in [(Nat::Masquerade, "opens"), (Nat::FullyRandom, "impossible")] {
        let check = check(&world, &world.home(nat).host(), &["service:myapi:v1"]);
        assert_eq!(check["pairs"][0]["peer"], server.peer_id, "{check}");
        assert_eq!(check["pairs"][0]["outlook"], outlook, "{check}");
    }
}

#[test]
fn without_a_line_to_the_internet_it_ends_in_time_and_says_so() {
    let Some(world) = World::new() else { return };
    let home = world.home(Nat::Masquerade);
    let host = home.host();
    home.unplug();
    let began = std::time::Instant::now();
    let check = check(&world, &host, &["service:myapi:v1"]);
    assert!(began.elapsed() < START, "{:?}", began.elapsed());
    assert_eq!((&check["udp"], &check["pairs"]), (&json!(false), &json!([])), "{check}");
}
