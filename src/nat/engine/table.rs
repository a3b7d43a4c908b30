//! Every pair of NATs, twenty times each: which path opens, how fast, for how many datagrams.
//!
//! `cargo nextest run --lib nat::engine::table --no-capture` prints the tables, in round trips of 80 ms
//! from when the offer was read until both sides have a path.

use std::time::Duration;

use super::{
    Openers,
    world::{ALICE, BOB, RTT, World},
};
use crate::{
    lab::{
        Filtering, Mapping, Nat, Pooling, Ports, Verdict,
        oracle::{self, Guess},
    },
    nat::strategy::{Aim, Method, Order},
};

const SEEDS: u64 = 20;

/// What a crowd of 1,024 repeats in 15 s, if nothing opens.
const AGAIN_MAX: u64 = 15 * 410;

/// What twenty worlds of one pair came to.
struct Row {
    opened: usize,
    median: Duration,
    worst: Duration,
    /// Of the busier side, in the median and the worst world.
    datagrams: [u64; 2],
}

fn home() -> Nat {
    Nat::home()
}

fn sequential(step: u16, others_per_s: u32) -> Nat {
    Nat { others_per_s, ..Nat::symmetric(Ports::Sequential { step }) }
}

fn random() -> Nat {
    Nat::symmetric(Ports::Random)
}

fn block(size: u16) -> Nat {
    Nat::symmetric(Ports::Block { size })
}

/// Lets `alice` make an offer to `bob` in twenty worlds, and prints the row.
fn try_pair(name: &str, alice: &[Nat], bob: &[Nat]) -> Row {
    let mut times = vec![];
    let mut datagrams = vec![];
    for seed in 1..=SEEDS {
        let mut world = World::new(seed, alice, bob, Openers::Loud);
        world.run(15);
        let sent = world.datagrams().into_iter().max().unwrap();
        datagrams.push(sent);
        let most = if world.took().is_some() { 2_200 } else { 2_200 + AGAIN_MAX };
        assert!(sent <= most, "{name}, seed {seed}: {sent} datagrams");
        if let Some(took) = world.took() {
            assert!(world.alices_path_carries_data(), "{name}, seed {seed}");
            times.push(took);
        }
    }
    times.sort_unstable();
    datagrams.sort_unstable();
    let opened = times.len();
    let row = Row {
        opened,
        median: times.get(opened / 2).copied().unwrap_or(Duration::MAX),
        worst: times.last().copied().unwrap_or(Duration::MAX),
        datagrams: [datagrams[datagrams.len() / 2], *datagrams.last().unwrap()],
    };
    println!(
        "{name:<44} {opened:>2}/{SEEDS}  median {:>5.2} RTT  worst {:>6.2} RTT  datagrams {:>4}, worst {:>4}",
        in_rtts(row.median),
        in_rtts(row.worst),
        row.datagrams[0],
        row.datagrams[1],
    );
    row
}

fn in_rtts(took: Duration) -> f64 {
    if took == Duration::MAX { f64::NAN } else { took.as_secs_f64() / RTT.as_secs_f64() }
}

/// Both ways round.
fn try_both(name: &str, one: Nat, other: Nat) -> [Row; 2] {
    [
        try_pair(&format!("{name}, offered by the first"), &[one], &[other]),
        try_pair(&format!("{name}, offered by the second"), &[other], &[one]),
    ]
}

const MS: fn(u64) -> Duration = Duration::from_millis;

#[test]
fn plain_pairs_open_as_fast_as_ever() {
    for (name, one, other) in [
        ("home × home", home(), home()),
        ("home × carrier", home(), Nat::cgnat()),
        ("full cone × random", Nat::full_cone(), random()),
        ("address-restricted × random", Nat::address_restricted(), random()),
    ] {
        for row in try_both(name, one, other) {
            assert_eq!(row.opened, 20, "{name}");
            assert!(row.worst <= 3 * RTT, "{name}: {:?}", row.worst);
            assert!(row.datagrams[1] <= 100, "{name}");
        }
    }
}

#[test]
fn independent_meets_random() {
    for row in try_both("home × random", home(), random()) {
        assert_eq!(row.opened, 20);
        assert!(row.median < MS(1_000) && row.worst < MS(6_000), "{:?}", row.worst);
    }
}

#[test]
fn independent_meets_random_spread_over_two_addresses() {
    let pooled = Nat { pooling: Pooling::Arbitrary, ..random() };
    for row in try_both("home × random on two addresses", home(), pooled) {
        assert_eq!(row.opened, 20);
        assert!(row.median < MS(2_000) && row.worst < MS(8_000), "{:?}", row.worst);
    }
}

#[test]
fn independent_meets_ports_in_order() {
    for (step, others) in [(1, 0), (1, 5), (2, 20), (4, 5)] {
        let name = format!("home × in order, step {step}, {others} others/s");
        for row in try_both(&name, home(), sequential(step, others)) {
            assert_eq!(row.opened, 20, "{name}");
            assert!(row.median <= 5 * RTT, "{name}: {:?}", row.median);
        }
    }
}

#[test]
fn ports_in_order_meet_ports_in_order() {
    for (step, others) in [(1, 0), (1, 5), (2, 10)] {
        let name = format!("in order × in order, step {step}, {others} others/s");
        let row = try_pair(&name, &[sequential(step, others)], &[sequential(1, others)]);
        assert_eq!(row.opened, 20, "{name}");
        assert!(row.median <= 10 * RTT, "{name}: {:?}", row.median);
    }
}

/// A record that is some seconds old will do, if the others behind the peer's NAT are few: the rounds of
/// both sides belong together by their number, whenever each begins.
#[test]
fn without_an_answer_ports_in_order_meet_if_little_has_changed_since_the_record() {
    let mut opened = 0;
    for seed in 1..=SEEDS {
        let mut world = World::new(seed, &[sequential(1, 1)], &[sequential(1, 1)], Openers::Loud);
        world.bob_answers = false;
        world.run(15);
        opened += usize::from(world.took().is_some());
    }
    println!("in order × in order, no answer, records 4 s old: {opened}/{SEEDS}");
    assert!(opened >= 18, "{opened}");
}

#[test]
fn independent_meets_a_block() {
    for size in [512, 1_024, 2_048] {
        for row in try_both(&format!("home × block of {size}"), home(), block(size)) {
            assert_eq!(row.opened, 20);
            assert!(row.median < MS(1_000) && row.worst < MS(6_000));
        }
    }
}

#[test]
fn two_blocks_meet() {
    let row = try_pair("block of 1,024 × block of 1,024", &[block(1_024)], &[block(1_024)]);
    assert!(row.opened >= 18, "{}", row.opened);
    assert!(row.worst < MS(10_000));
}

#[test]
fn ports_in_order_meet_a_block() {
    for row in try_both("in order × block of 1,024", sequential(1, 5), block(1_024)) {
        assert!(row.opened >= 18, "{}", row.opened);
    }
}

#[test]
fn with_15_percent_loss_they_meet_all_the_same() {
    for (name, one, other) in [
        ("home × random, 15 % lost", home(), random()),
        ("home × in order, 15 % lost", home(), sequential(1, 5)),
        ("in order × in order, 15 % lost", sequential(1, 5), sequential(1, 5)),
    ] {
        let mut times = vec![];
        for seed in 1..=SEEDS {
            let mut world = World::new(seed, &[one], &[other], Openers::Loud);
            world.lose(0.15);
            world.run(15);
            times.extend(world.took());
        }
        times.sort_unstable();
        let (median, worst) = (times[times.len() / 2], *times.last().unwrap());
        println!("{name}: {}/{SEEDS}, median {median:?}, worst {worst:?}", times.len());
        assert!(times.len() >= 19, "{name}: {}", times.len());
    }
}

#[test]
fn two_random_nats_are_told_at_once_that_there_is_no_way() {
    for (one, other) in [(random(), random()), (sequential(1, 5), random()), (block(512), random())]
    {
        let mut world = World::new(1, &[one], &[other], Openers::Loud);
        world.run(1);
        assert!(world.hosts[ALICE].incompatible && world.hosts[BOB].incompatible);
        assert!(world.datagrams().iter().all(|sent| *sent < 60), "{:?}", world.datagrams());
    }
}

/// Every kind of mapping, filtering and allocation that makes a difference.
fn all_kinds() -> Vec<(&'static str, Nat)> {
    let by_address = |ports| Nat { mapping: Mapping::AddressDependent, ..Nat::symmetric(ports) };
    vec![
        ("full cone", Nat::full_cone()),
        ("address-restricted", Nat::address_restricted()),
        ("home", home()),
        ("home, random ports", Nat { ports: Ports::Random, ..home() }),
        ("carrier", Nat::cgnat()),
        ("by address, random", by_address(Ports::Random)),
        ("by address, in order", by_address(Ports::Sequential { step: 1 })),
        ("in order", sequential(1, 2)),
        ("block of 1,024", block(1_024)),
        ("random", random()),
        ("random, open filter", Nat { filtering: Filtering::EndpointIndependent, ..random() }),
    ]
}

/// Lets every pair that begins with `index` try, and compares with the oracle: what it calls plain opens
/// in all worlds and soon; what takes prediction or a birthday opens in nearly all, by a plan of ours
/// that guesses what the oracle says has to be guessed; where there is no way, both are told so.
fn try_all_with(index: usize) {
    let kinds = all_kinds();
    let (first, one) = kinds[index];
    for (second, other) in kinds {
        let name = format!("{first} × {second}");
        let opening = oracle::opening(&[one], &[other]);
        if is_gap(one, other) {
            continue;
        }
        let row = try_pair(&name, &[one], &[other]);
        match opening.verdict {
            Verdict::Plain => {
                assert_eq!(row.opened, 20, "{name}");
                assert!(row.worst <= 3 * RTT && row.datagrams[1] <= 600, "{name}");
            }
            Verdict::NeedsPrediction => {
                assert!(row.opened >= 18 && row.median <= MS(2_000), "{name}");
            }
            Verdict::NeedsBirthday => {
                assert!(row.opened >= 18 && row.median <= MS(2_000), "{name}");
            }
            Verdict::Impossible => assert_eq!(row.opened, 0, "{name}"),
        }
        let mut world = World::new(1, &[one], &[other], Openers::Loud);
        world.run(1);
        for (who, guess) in [(ALICE, opening.of_b), (BOB, opening.of_a)] {
            let host = &world.hosts[who];
            assert_eq!(host.incompatible, opening.verdict == Verdict::Impossible, "{name}");
            if opening.verdict > Verdict::Plain && opening.verdict < Verdict::Impossible {
                let methods: Vec<Method> = host.plans.iter().map(|plan| plan.method).collect();
                assert!(
                    methods.iter().any(|method| guesses(*method, guess)),
                    "{name}: {methods:?}"
                );
            }
        }
    }
}

/// A mapping by address stands still towards one peer, and a peer with an open filter would see it. But
/// neither knows that the filter is open, and thousands of datagrams on the off chance are too many.
fn is_gap(one: Nat, other: Nat) -> bool {
    let by_address = |nat: Nat| nat.mapping == Mapping::AddressDependent;
    let is_open = |nat: Nat| {
        nat.mapping != Mapping::EndpointIndependent
            && nat.filtering == Filtering::EndpointIndependent
    };
    (by_address(one) && is_open(other)) || (by_address(other) && is_open(one))
}

/// Whether a method of ours guesses what has to be guessed of the other side.
fn guesses(method: Method, guess: Guess) -> bool {
    match (method, guess) {
        (Method::Volley(Order { aim: Aim::Endpoint, .. }), Guess::Nothing)
        | (Method::Volley(Order { aim: Aim::Next { .. }, .. }), Guess::Next)
        | (Method::Volley(Order { aim: Aim::Block { .. }, .. }), Guess::InBlock)
        | (Method::Volley(Order { aim: Aim::Anywhere, .. }), Guess::Random) => true,
        (_, _) => false,
    }
}

#[test]
fn a_full_cone_meets_all_that_the_oracle_says() {
    try_all_with(0);
}

#[test]
fn an_address_restricted_nat_meets_all_that_the_oracle_says() {
    try_all_with(1);
}

#[test]
fn a_home_meets_all_that_the_oracle_says() {
    try_all_with(2);
}

#[test]
fn a_home_with_random_ports_meets_all_that_the_oracle_says() {
    try_all_with(3);
}

#[test]
fn a_carrier_meets_all_that_the_oracle_says() {
    try_all_with(4);
}

#[test]
fn a_random_nat_by_address_meets_all_that_the_oracle_says() {
    try_all_with(5);
}

#[test]
fn a_nat_in_order_by_address_meets_all_that_the_oracle_says() {
    try_all_with(6);
}

#[test]
fn a_nat_in_order_meets_all_that_the_oracle_says() {
    try_all_with(7);
}

#[test]
fn a_block_meets_all_that_the_oracle_says() {
    try_all_with(8);
}

#[test]
fn a_random_nat_meets_all_that_the_oracle_says() {
    try_all_with(9);
}

#[test]
fn a_random_nat_with_an_open_filter_meets_all_that_the_oracle_says() {
    try_all_with(10);
}
