//! What `nat` predicts of NATs that count, against the laboratory's port pickers with others' traffic
//! mixed in.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use rand::{SeedableRng, rngs::StdRng};

use super::at;
use crate::{
    lab::{Nat, Ports, nat_box::NatBox},
    nat::{
        prediction::{Comb, Forecast},
        strategy::{RUN, RUN_TO_MEET},
    },
};

#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made up")]
fn moment() -> Instant {
    Instant::now()
}

/// The ports of `run` mappings a millisecond apart, and a forecast made after one mapping `wait_ms` before.
fn run(
    step: u16,
    others_per_s: u32,
    wait_ms: u64,
    run: u16,
    seed: u64,
) -> (Vec<u16>, Forecast, Instant) {
    let nat = Nat { others_per_s, ..Nat::symmetric(Ports::Sequential { step }) };
    let public = vec!["203.0.113.1".parse().unwrap()];
    let mut nat = NatBox::new(nat, public, StdRng::seed_from_u64(seed));
    let start = Duration::from_secs(60);
    let seen = nat.handle_outbound(at("192.168.1.2:5000"), at("198.51.100.7:1"), start).unwrap();
    let begins = start + Duration::from_millis(wait_ms);
    let ports = (0..run)
        .map(|index| {
            let inside = SocketAddr::from(([192, 168, 1, 2], 10_000 + index));
            let now = begins + Duration::from_millis(index.into());
            nat.handle_outbound(inside, at("198.51.100.8:1"), now).unwrap().port()
        })
        .collect();
    let forecast = Forecast {
        port: seen.port(),
        seen_at: moment(),
        step: step.into(),
        others_per_minute: 60 * others_per_s,
    };
    (ports, forecast, forecast.seen_at + Duration::from_millis(wait_ms))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_run_is_met_within_the_first_forty_ports(
        step in 1..5_u16, others in 0..20_u32, wait_ms in 0..5_000_u64, seed: u64,
    ) {
        let (ports, forecast, now) = run(step, others, wait_ms, RUN, seed);
        let met = Comb::new(&forecast, RUN.into(), now).position(|port| ports.contains(&port));
        // Over the end of the range a NAT goes on where it likes, and steps of its count are lost.
        let is_whole = ports.is_sorted() && ports[0] > forecast.port;
        prop_assert!(!is_whole || met.is_some_and(|met| met < 40), "{met:?}");
    }

    #[test]
    fn a_run_is_met_in_the_end_though_others_were_not_known_of(
        others in 0..50_u32, wait_ms in 0..60_000_u64, seed: u64,
    ) {
        let (ports, forecast, now) = run(1, others, wait_ms, RUN, seed);
        let unaware = Forecast { others_per_minute: 0, ..forecast };
        let met = Comb::new(&unaware, RUN.into(), now).position(|port| ports.contains(&port));
        prop_assert!(met.is_some_and(|met| met < 1_100), "{met:?}");
    }

    #[test]
    fn the_middle_of_a_run_that_is_to_be_met_is_in_it(
        step in 1..5_u16, others in 0..10_u32, wait_ms in 0..1_000_u64, seed: u64,
    ) {
        let (ports, forecast, now) = run(step, others, wait_ms, RUN_TO_MEET, seed);
        let middle = forecast.port(u32::from(RUN_TO_MEET / 2), now);
        let is_whole = ports.is_sorted() && ports[0] > forecast.port;
        // Another host may have taken just that one.
        let between = ports[0]..=*ports.last().unwrap();
        prop_assert!(!is_whole || between.contains(&middle), "{middle} {ports:?}");
    }
}
