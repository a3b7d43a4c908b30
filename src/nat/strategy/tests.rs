//! The table, row by row, and that both sides read the same row.

use super::*;
use Dependence::{AddressAndPortDependent, AddressDependent, EndpointIndependent};
use PortAllocation::{Block, Preserving, Random, Sequential};

fn party(mapping: Dependence, allocation: Option<PortAllocation>, last_octet: u8) -> Party {
    let nat = NatBehaviour { allocation, ..NatBehaviour::new(Some(mapping), None) };
    Party { nat, public: vec![IpAddr::from([198, 51, 100, last_octet])] }
}

fn home() -> Party {
    party(EndpointIndependent, None, 1)
}

fn symmetric(allocation: PortAllocation) -> Party {
    party(AddressAndPortDependent, Some(allocation), 2)
}

fn methods(ours: &Party, theirs: &Party) -> Vec<String> {
    plans(ours, theirs).iter().map(|plan| plan.method.to_string()).collect()
}

const BLOCK: PortAllocation = Block { low: 2_048, high: 2_900 };
const IN_ORDER: PortAllocation = Sequential { step: 2 };

#[test]
fn whoever_is_known_to_let_everybody_in_is_dialled_and_nothing_else() {
    let mut public = party(Dependence::None, None, 2);
    public.nat.filtering = Some(Dependence::None);
    let mut forwarded = party(EndpointIndependent, None, 2);
    forwarded.nat.filtering = Some(EndpointIndependent);
    for open in [public, forwarded] {
        for other in [home(), symmetric(Random)] {
            let other = Party { public: vec![], ..other };
            assert_eq!(methods(&other, &open), ["direct"]);
            assert_eq!(methods(&open, &other), ["direct"]);
        }
    }
}

/// A public address may have a firewall before it. If it has none, the address itself answers before anything else begins.
#[test]
fn a_public_host_of_unknown_filter_is_dialled_and_met_like_one_that_filters() {
    let public = party(Dependence::None, None, 3);
    let expected = ["direct", "probes from both sides", "quiet openers"];
    assert_eq!(methods(&home(), &public), expected);
    let expected = ["direct", "probes from both sides", "512 more sockets"];
    assert_eq!(methods(&symmetric(Random), &public), expected);
    let expected = ["direct", "probes from both sides", "guessed ports"];
    assert_eq!(methods(&public, &symmetric(Random)), expected);
}

#[test]
fn two_independent_mappings_take_probes_from_both_sides() {
    let other = Party { public: vec![], ..home() };
    let expected = ["direct", "probes from both sides", "quiet openers"];
    assert_eq!(methods(&home(), &other), expected);
}

#[test]
fn one_dependent_mapping_is_a_crowd_there_and_guessed_ports_here() {
    for (allocation, crowd) in
        [(IN_ORDER, "256 more sockets"), (BLOCK, "256 more sockets"), (Random, "512 more sockets")]
    {
        let theirs = symmetric(allocation);
        let expected = ["direct", "probes from both sides", "guessed ports"];
        assert_eq!(methods(&home(), &theirs), expected);
        let expected = ["direct", "probes from both sides", crowd];
        assert_eq!(methods(&theirs, &home()), expected);
    }
    let mut lenient = home();
    lenient.nat.filtering = Some(AddressDependent);
    assert_eq!(methods(&lenient, &symmetric(Random)), ["direct", "probes from both sides"]);
}

#[test]
fn two_dependent_mappings_meet_where_both_can_be_foreseen() {
    let aims = |ours, theirs| {
        let found = plans(&symmetric(ours), &Party { public: vec![], ..symmetric(theirs) });
        match found.last().map(|plan| plan.method) {
            Some(Method::Volley(order)) => Some((order.crowd, order.aim)),
            _ => None,
        }
    };
    let (next, block) =
        (Aim::Next { step: 2, run: RUN_TO_MEET }, Aim::Block { low: 2_048, high: 2_900 });
    assert_eq!(aims(IN_ORDER, IN_ORDER), Some((RUN_TO_MEET, next)));
    assert_eq!(aims(IN_ORDER, BLOCK), Some((RUN_TO_MEET, block)));
    assert_eq!(aims(BLOCK, IN_ORDER), Some((BLOCK_CROWD, next)));
    assert_eq!(aims(BLOCK, BLOCK), Some((BLOCK_CROWD, block)));
}

#[test]
fn without_order_on_one_of_two_dependent_sides_there_is_no_way_and_it_says_what_would_help() {
    for other in [Random, Preserving, IN_ORDER, BLOCK] {
        for (ours, theirs) in [(Random, other), (other, Random)] {
            let theirs = Party { public: vec![], ..symmetric(theirs) };
            let found = plans(&symmetric(ours), &theirs);
            let last = found.last().unwrap();
            assert_eq!(last.method, Method::Incompatible);
            assert!(last.to_string().contains("IPv6, a forwarded port"), "{last}");
            assert_eq!(found[0].method, Method::Direct, "the direct address is always tried");
        }
    }
    let unknown = party(AddressAndPortDependent, None, 3);
    assert_eq!(methods(&unknown, &symmetric(Random)), ["direct", "probes from both sides"]);
}

#[test]
fn behind_one_public_address_the_local_network_comes_first() {
    assert_eq!(methods(&home(), &home())[0], "local network");
    assert_eq!(methods(&symmetric(Random), &symmetric(Random))[0], "local network");
}
