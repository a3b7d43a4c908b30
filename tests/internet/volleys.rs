//! NATs that give each destination another port: many sockets and many guesses open what plain probes
//! cannot, in seconds and in few thousand datagrams; where nothing does, both sides hear it at once.

use p2p_node::{
    failure::Code,
    lab::{Nat, Ports},
};
use std::time::Duration;

use crate::{
    matrix::{Trial, dial_after},
    world::{ms, run, secs},
};

/// Worlds for each pair.
const WORLDS: u64 = 20;

/// Dials in many worlds; panics unless so many are linked within `limit` of the offer's reading.
fn open(name: &str, (client, server): (Nat, Nat), (linked_min, limit): (usize, Duration)) {
    let mut times = vec![];
    let mut datagrams = vec![];
    for seed in 1..=WORLDS {
        let trial: Trial = run(seed, async |mut world| {
            let homes = (world.behind(client), world.behind(server));
            // The server looks into its inbox at another moment in each world.
            dial_after(&mut world, &homes.0, &homes.1, ms(1_000 + 37 * seed)).await
        });
        let repeated = if trial.result.is_ok() { 0 } else { REPEATED_MAX };
        for sent in trial.datagrams {
            assert!(sent <= DATAGRAMS_MAX + repeated, "{name}, world {seed}: {sent} datagrams");
        }
        datagrams.extend(trial.datagrams);
        match trial.result {
            Ok(_) => times.push(trial.path.unwrap_or_default()),
            Err(failure) => println!("{name}, world {seed}: {failure}"),
        }
    }
    times.sort_unstable();
    datagrams.sort_unstable();
    let median = |all: &[Duration]| all.get(all.len() / 2).copied().unwrap_or_default();
    let (worst, most) = (times.last().copied().unwrap_or_default(), datagrams.last().unwrap());
    println!(
        "{name}: {} of {WORLDS}, median {:?}, worst {worst:?}, at most {most} datagrams",
        times.len(),
        median(&times)
    );
    assert!(times.len() >= linked_min, "{name}: {} are linked", times.len());
    assert!(worst <= limit, "{name}: {worst:?}");
}

#[test]
fn easy_and_random_symmetric_meet() {
    let (easy, random) = (Nat::home(), Nat::symmetric(Ports::Random));
    open("easy x random", (easy, random), (20, secs(6)));
    open("random x easy", (random, easy), (20, secs(6)));
}

#[test]
fn easy_and_sequential_symmetric_meet() {
    let (easy, sequential) = (Nat::home(), Nat::symmetric(Ports::Sequential { step: 1 }));
    open("easy x sequential", (easy, sequential), (20, secs(3)));
    open("sequential x easy", (sequential, easy), (20, secs(3)));
}

#[test]
fn two_that_count_meet() {
    let sequential = Nat::symmetric(Ports::Sequential { step: 1 });
    open("sequential x sequential", (sequential, sequential), (20, secs(6)));
}

#[test]
fn two_blocks_of_a_thousand_ports_meet() {
    let block = Nat::symmetric(Ports::Block { size: 1_024 });
    open("block x block", (block, block), (18, secs(10)));
}

/// Nothing is worth its datagrams here.
#[test]
fn two_without_order_are_told_at_once() {
    let random = Nat::symmetric(Ports::Random);
    let mut times = vec![];
    for seed in 1..=9 {
        times.push(run(seed, async |mut world| {
            let homes = (world.behind(random), world.behind(random));
            let pause = ms(1_000 + 103 * seed);
            let trial = dial_after(&mut world, &homes.0, &homes.1, pause).await;
            let failure = trial.result.unwrap_err();
            assert_eq!(failure.code, Code::NatIncompatible);
            trial.told
        }));
    }
    times.sort_unstable();
    println!("random x random: told after {times:?}");
    assert!(times[4] < ms(500) && times[8] < ms(700), "{times:?}");
}

/// Of one side, from the dial's begin until a second after its end: a volley, plain probes, and QUIC.
const DATAGRAMS_MAX: u64 = 3_000;

/// On top of these, in the 20 s of a dial that fails: what a crowd of 1,024 repeats.
const REPEATED_MAX: u64 = 20 * 410;
