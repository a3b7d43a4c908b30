//! What servers say of sockets, and what follows.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::nat::story::moment;

/// Observations of one socket bound to `local`, one for each (server, reflexive), in this order.
fn seen(local: &str, answers: &[(&str, &str)]) -> Vec<Observation> {
    seen_on(0, local, answers)
}

fn seen_on(socket: u16, local: &str, answers: &[(&str, &str)]) -> Vec<Observation> {
    let at = moment();
    let observation = |&(server, reflexive): &(&str, &str)| Observation {
        socket: SocketIndex(socket),
        local: local.parse().unwrap(),
        server: server.parse().unwrap(),
        reflexive: reflexive.parse().unwrap(),
        at,
        since: at,
    };
    answers.iter().map(observation).collect()
}

const LOCAL: &str = "192.168.1.20:4000";
const ONE: &str = "203.0.113.1:3478";
const ONE_OTHER_PORT: &str = "203.0.113.1:3479";
const TWO: &str = "203.0.113.2:3478";
const THREE: &str = "203.0.113.3:3478";

fn v4(observations: &[Observation]) -> Inferred {
    infer(Family::V4, observations).unwrap()
}

fn explained(observations: &[Observation]) -> String {
    v4(observations).to_string()
}

#[test]
fn a_host_that_is_seen_where_it_is_has_no_nat() {
    let local = "198.51.100.9:4000";
    assert_eq!(explained(&seen(local, &[(ONE, local)])), "1 server saw 198.51.100.9:4000: no NAT");
}

#[test]
fn two_servers_that_agree_show_an_independent_mapping() {
    let seen = seen(LOCAL, &[(ONE, "198.51.100.9:4000"), (TWO, "198.51.100.9:4000")]);
    assert_eq!(
        explained(&seen),
        "2 servers saw 198.51.100.9:4000: endpoint-independent mapping, ports preserved"
    );
}

#[test]
fn one_server_says_nothing_about_the_mapping() {
    let once = seen(LOCAL, &[(ONE, "198.51.100.9:50112")]);
    assert_eq!(explained(&once), "1 server saw 198.51.100.9:50112: mapping not known");
    let same_ip = [(ONE, "198.51.100.9:50112"), (ONE_OTHER_PORT, "198.51.100.9:50112")];
    assert_eq!(
        explained(&seen(LOCAL, &same_ip)),
        "2 servers saw 198.51.100.9:50112: mapping not known"
    );
}

#[test]
fn ports_that_count_up_per_destination_show_a_sequential_symmetric_nat() {
    let answers =
        [(ONE, "198.51.100.9:50112"), (TWO, "198.51.100.9:50114"), (THREE, "198.51.100.9:50118")];
    assert_eq!(
        explained(&seen(LOCAL, &answers)),
        "3 servers saw 198.51.100.9:50112, 198.51.100.9:50114, 198.51.100.9:50118: \
         address- and port-dependent mapping, ports in steps of 2, others in between"
    );
    let down = [(ONE, "198.51.100.9:9"), (TWO, "198.51.100.9:8")];
    let step = PortAllocation::Sequential { step: -1 };
    assert_eq!(v4(&seen(LOCAL, &down)).allocation, Some(step));
}

#[test]
fn two_ports_of_one_server_tell_address_from_port_dependence() {
    let address = [
        (ONE, "198.51.100.9:50112"),
        (ONE_OTHER_PORT, "198.51.100.9:50112"),
        (TWO, "198.51.100.9:3111"),
    ];
    let mapping = v4(&seen(LOCAL, &address)).behaviour.mapping;
    assert_eq!(mapping, Some(Dependence::AddressDependent));
    let port = [(ONE, "198.51.100.9:50112"), (ONE_OTHER_PORT, "198.51.100.9:3111")];
    let mapping = v4(&seen(LOCAL, &port)).behaviour.mapping;
    assert_eq!(mapping, Some(Dependence::AddressAndPortDependent));
}

#[test]
fn ports_close_together_are_a_block_and_ports_far_apart_are_random() {
    let block =
        [(ONE, "198.51.100.9:2500"), (TWO, "198.51.100.9:2100"), (THREE, "198.51.100.9:2900")];
    let (low, high) = (2_100, 2_900);
    let inferred = v4(&seen(LOCAL, &block));
    assert_eq!(inferred.allocation, Some(PortAllocation::Block { low, high }));
    let random = [(ONE, "198.51.100.9:2500"), (TWO, "198.51.100.9:61000")];
    let inferred = v4(&seen(LOCAL, &random));
    assert_eq!(inferred.allocation, Some(PortAllocation::Random));
}

#[test]
fn one_odd_server_among_three_is_outvoted() {
    let answers =
        [(ONE, "198.51.100.9:4000"), (TWO, "198.51.100.9:1024"), (THREE, "198.51.100.9:4000")];
    let inferred = v4(&seen(LOCAL, &answers));
    let mapping = inferred.behaviour.mapping;
    assert_eq!(mapping, Some(Dependence::EndpointIndependent));
    let two = TWO.parse().unwrap();
    assert_eq!(inferred.evidence.outvoted_servers, BTreeSet::from([two]));
    assert_eq!(inferred.public[0], "198.51.100.9:4000".parse().unwrap());
}

#[test]
fn a_server_on_our_own_network_says_nothing_about_our_nat() {
    let answers = [("192.168.1.1:3478", LOCAL), (ONE, "198.51.100.9:4000")];
    let inferred = v4(&seen(LOCAL, &answers));
    assert_eq!(inferred.public, ["198.51.100.9:4000".parse().unwrap()]);
    assert_eq!(inferred.behaviour.mapping, None);
    assert_eq!(inferred.evidence.inner_servers.len(), 1);
    let offline = seen(LOCAL, &[("192.168.1.1:3478", LOCAL)]);
    assert_eq!(v4(&offline).behaviour.mapping, Some(Dependence::None));
}

#[test]
fn a_nat_with_several_addresses_advertises_one_endpoint_of_each() {
    let answers =
        [(ONE, "198.51.100.9:4000"), (TWO, "198.51.100.10:4000"), (THREE, "198.51.100.9:4001")];
    let inferred = v4(&seen(LOCAL, &answers));
    assert!(inferred.behaviour.has_dependent_mapping());
    let advertised = ["198.51.100.9:4001", "198.51.100.10:4000"];
    assert_eq!(inferred.advertised(), advertised.map(|text| text.parse().unwrap()));
}

#[test]
fn many_sockets_sample_the_allocation_of_an_independent_nat() {
    let mut observations = vec![];
    for socket in 0..4 {
        let reflexive = format!("198.51.100.9:{}", 50_000 + socket);
        let at = moment() + Duration::from_millis(u64::from(socket));
        let answers = [(ONE, reflexive.as_str()), (TWO, reflexive.as_str())];
        let seen = seen_on(socket, &format!("192.168.1.20:{}", 4_000 + 7 * socket), &answers);
        observations.extend(seen.into_iter().map(|seen| Observation { at, since: at, ..seen }));
    }
    let inferred = v4(&observations);
    let mapping = inferred.behaviour.mapping;
    assert_eq!(mapping, Some(Dependence::EndpointIndependent));
    let step = PortAllocation::Sequential { step: 1 };
    assert_eq!(inferred.allocation, Some(step));
}

#[test]
fn ipv4_and_ipv6_are_told_apart() {
    let local = "[2001:db8::9]:4000";
    let mut both = seen(LOCAL, &[(ONE, "198.51.100.9:4000")]);
    both.extend(seen_on(1, local, &[("[2001:db8:1::1]:3478", local)]));
    assert_eq!(v4(&both).behaviour.mapping, None);
    let v6 = infer(Family::V6, &both).unwrap();
    assert_eq!(v6.behaviour.mapping, Some(Dependence::None));
    assert_eq!(infer(Family::V6, &both[..1]), None);
}

/// One socket's external ports in this order, `gap_ms` apart, each seen by another server.
fn given(ports: &[u16], gap_ms: u64) -> Vec<Observation> {
    let observation = |(index, port): (u8, &u16)| {
        let at = moment() + Duration::from_millis(gap_ms) * u32::from(index);
        Observation {
            socket: SocketIndex(0),
            local: LOCAL.parse().unwrap(),
            server: SocketAddr::from(([203, 0, 113, index], 3_478)),
            reflexive: SocketAddr::from(([198, 51, 100, 9], *port)),
            at,
            since: at,
        }
    };
    (1..).zip(ports).map(observation).collect()
}

#[test]
fn mappings_of_other_hosts_in_between_are_tolerated_and_counted() {
    let inferred = v4(&given(&[50_000, 50_006, 50_008, 50_050, 50_052], 1_000));
    assert_eq!(inferred.allocation, Some(PortAllocation::Sequential { step: 2 }));
    let counted = inferred.counted.unwrap();
    // 26 steps in 4 s, of which 4 were ours.
    assert_eq!((counted.port, counted.others_per_minute), (50_052, 330));
    assert!(inferred.to_string().contains("ports in steps of 2, others in between"));
}

#[test]
fn a_count_goes_over_the_end_of_the_port_range() {
    let inferred = v4(&given(&[65_530, 65_534, 1_026, 1_030], 10));
    assert_eq!(inferred.allocation, Some(PortAllocation::Sequential { step: 4 }));
}

#[test]
fn a_server_that_is_asked_again_does_not_change_the_order_of_the_ports() {
    let mut observations = given(&[50_000, 50_001, 50_002], 10);
    observations[0].at += Duration::from_secs(20);
    let inferred = v4(&observations);
    assert_eq!(inferred.allocation, Some(PortAllocation::Sequential { step: 1 }));
    assert_eq!(inferred.counted.unwrap().port, 50_002);
}

#[test]
fn a_block_says_how_likely_it_is_one() {
    let sentence = explained(&given(&[2_500, 2_100, 2_900], 10));
    assert!(sentence.ends_with("ports within 2100–2900, by chance once in 2133"), "{sentence}");
}

#[test]
fn a_public_host_is_never_taken_for_one_behind_a_nat() {
    let local = "198.51.100.9:4000";
    let seen = seen(local, &[(ONE, local), (TWO, "198.51.100.9:4001"), (THREE, local)]);
    let inferred = v4(&seen);
    assert_eq!(inferred.behaviour.mapping, Some(Dependence::None));
    assert_eq!(inferred.evidence.outvoted_servers, BTreeSet::from([TWO.parse().unwrap()]));
}

#[test]
fn a_forwarded_port_is_advertised_first_whatever_the_nat_does_otherwise() {
    let forwarded = "198.51.100.9:4000".parse().unwrap();
    let told = Told { forwarded: Some(forwarded), ..Told::default() };
    let inferred = v4(&given(&[2_500, 61_000], 10)).with(told);
    assert_eq!(inferred.behaviour.filtering, Some(Dependence::EndpointIndependent));
    assert_eq!(inferred.advertised()[0], forwarded);
}

#[test]
fn a_nat_with_several_addresses_shows_them_and_one_address_takes_four_sockets_to_believe() {
    let socket = |index: u16, at: &str| seen_on(index, "192.168.1.20:4000", &[(ONE, at)]);
    let one = |count: u16| -> Vec<Observation> {
        (0..count).flat_map(|index| socket(index, &format!("198.51.100.9:5{index}000"))).collect()
    };
    assert_eq!(v4(&one(3)).pooling(), None);
    assert_eq!(v4(&one(4)).pooling(), Some(Pooling::Paired));
    let mut several = one(2);
    several.extend(socket(2, "198.51.100.10:4000"));
    assert_eq!(v4(&several).pooling(), Some(Pooling::Arbitrary));
    let public = seen_on(0, "198.51.100.9:4000", &[(ONE, "198.51.100.9:4000")]);
    assert_eq!(v4(&public).pooling(), None);
}

#[test]
fn a_host_without_nat_that_lets_everybody_in_has_no_filter() {
    let told = Told { filtering: Some(Dependence::EndpointIndependent), ..Told::default() };
    let at = "198.51.100.9:4000";
    let public = v4(&seen(at, &[(ONE, at), (TWO, at)])).with(told);
    assert_eq!(public.behaviour.filtering, Some(Dependence::None));
    let home = v4(&seen("192.168.1.20:4000", &[(ONE, at), (TWO, at)])).with(told);
    assert_eq!(home.behaviour.filtering, Some(Dependence::EndpointIndependent));
}

#[test]
fn sockets_that_keep_their_port_once_show_a_preserving_nat() {
    let mut observations =
        seen_on(0, "192.168.1.20:4000", &[(ONE, "198.51.100.9:4000"), (TWO, "198.51.100.9:4001")]);
    observations.extend(seen_on(1, "192.168.1.20:7000", &[(ONE, "198.51.100.9:7000")]));
    let inferred = v4(&observations);
    assert!(inferred.behaviour.has_dependent_mapping());
    assert_eq!(inferred.behaviour.allocation, Some(PortAllocation::Preserving));
}

#[test]
fn samples_age_and_a_contradiction_ends_them() {
    let mut samples = Samples::default();
    given(&[50_000, 50_001, 50_002], 10).into_iter().for_each(|seen| samples.add(seen));
    let now = moment();
    let near = "198.51.100.9:50040".parse().unwrap();
    let far = "198.51.100.9:9000".parse().unwrap();
    assert!(!samples.clone().handle_seen_at(near, now));
    assert!(samples.inferred(Family::V4, now).is_some());
    let later = now + SAMPLE_AGE_MAX + Duration::from_secs(1);
    assert!(samples.inferred(Family::V4, later).is_none());
    assert!(samples.handle_seen_at(far, now));
    assert!(samples.inferred(Family::V4, now).is_none());
}

proptest! {
    #[test]
    fn any_observations_are_taken_calmly(
        answers in prop::collection::vec((0..3_u16, 0..3_u8, 0..3_u16, 0..3_u8, any::<u16>()), 0..12),
    ) {
        let at = moment();
        let observation = |&(socket, server, server_port, ip, port): &(u16, u8, u16, u8, u16)| {
            Observation {
                socket: SocketIndex(socket),
                local: LOCAL.parse().unwrap(),
                server: SocketAddr::from(([203, 0, 113, server], server_port)),
                reflexive: SocketAddr::from(([198, 51, 100, ip], port)),
                at,
                since: at,
            }
        };
        let observations: Vec<_> = answers.iter().map(observation).collect();
        let inferred = infer(Family::V4, &observations);
        prop_assert_eq!(inferred.is_none(), observations.is_empty());
        if let Some(inferred) = inferred {
            prop_assert!(!inferred.advertised().is_empty());
            prop_assert!(!inferred.to_string().is_empty());
        }
    }
}
