//! Crowds and sprays: how many, how fast, and when they end.

use std::collections::BTreeSet;

use super::*;
use crate::nat::{
    proved::Witness,
    story::moment,
    strategy::{Aim, CROWD},
};

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 9));
const MAIN: SocketIndex = SocketIndex(0);

fn proved() -> Address {
    let helper = Witness::Bystander([203, 0, 113, 7].into());
    Address::Proved(Proved::by(PEER, Witness::Peer, helper).unwrap())
}

fn volley(order: Order, address: Address, allowance: u32) -> Volley {
    let endpoints = vec![SocketAddr::new(PEER, 4_000)];
    let addresses = vec![address];
    let setup = Setup {
        order,
        main: MAIN,
        addresses,
        endpoints,
        forecast: None,
        free_port: None,
        allowance,
    };
    Volley::new(setup, moment(), &mut Entropy::from_seed(1))
}

/// Lets a volley run for so long, with all the sockets that it asks for: (ms, path) of its pings.
fn run(volley: &mut Volley, seconds: u64, sockets_max: u16) -> Vec<(u128, Path)> {
    let start = moment();
    let (mut pings, mut sockets) = (vec![], 0);
    let mut now = start;
    while now < start + Duration::from_secs(seconds) {
        volley.handle_timeout(now);
        while let Some(output) = volley.poll_output() {
            match output {
                Output::Ping(path) => pings.push(((now - start).as_millis(), path)),
                Output::OpenSocket if sockets < sockets_max => {
                    sockets += 1;
                    volley.handle_socket_opened(SocketIndex(sockets), now);
                }
                Output::OpenSocket => volley.handle_socket_refused(),
                Output::AskAgain(datagrams) => volley.handle_again(datagrams, now),
            }
        }
        let Some(next) = volley.poll_timeout() else { break };
        now = next.max(now);
    }
    pings
}

#[test]
fn a_spray_sends_250_a_second_to_ports_that_never_repeat_and_then_those_again() {
    let order = Order { crowd: 0, aim: Aim::Anywhere };
    let mut volley = volley(order, proved(), u32::MAX);
    let mut pings = run(&mut volley, 16, 0);
    assert_eq!(pings.iter().filter(|(at, _)| *at < 1_000).count(), 250);
    assert!(pings.iter().all(|(_, path)| path.socket == MAIN));
    let again = pings.split_off(2_048);
    let ports: BTreeSet<u16> = pings.iter().map(|(_, path)| path.remote.port()).collect();
    assert_eq!((ports.len(), pings[2_047].0), (2_048, 4 * 2_047));
    let in_a_second = again.iter().filter(|(at, _)| (10_000..11_000).contains(at)).count();
    // In 20 s while the peer is at work, which nothing has shown for 8 s here.
    assert_eq!(again_every(order), Duration::from_secs(20));
    assert!((24..=27).contains(&in_a_second), "{in_a_second}");
    assert!(again.iter().zip(&pings).all(|(again, first)| again.1 == first.1));
    assert!(!volley.is_firing());
}

/// Timers are coarse, and a pace that begins anew with each wake falls behind by as much as each is late.
#[test]
fn who_wakes_late_sends_as_much_in_a_second_but_never_a_burst() {
    for (crowd, aim, each_second) in [(0, Aim::Anywhere, 250), (CROWD, Aim::Endpoint, 512)] {
        let mut volley = volley(Order { crowd, aim }, proved(), u32::MAX);
        let (mut sent, mut sockets) = (0, 0);
        for wake in 0..=200 {
            let now = moment() + Duration::from_millis(5 * wake);
            let before = sent;
            volley.handle_timeout(now);
            while let Some(output) = volley.poll_output() {
                match output {
                    Output::Ping(_) => sent += 1,
                    Output::OpenSocket => {
                        sockets += 1;
                        volley.handle_socket_opened(SocketIndex(sockets), now);
                    }
                    Output::AskAgain(_) => {}
                }
            }
            assert!(sent - before <= LATE_MAX, "{}", sent - before);
        }
        assert!((each_second..=each_second + 1).contains(&sent), "{sent}");
    }

    // A machine that has slept does not make good what it has missed.
    let mut volley = volley(Order { crowd: 0, aim: Aim::Anywhere }, proved(), u32::MAX);
    volley.handle_timeout(moment() + Duration::from_secs(60));
    assert_eq!(volley.sent(), 8);
    assert_eq!(volley.poll_timeout(), Some(moment() + Duration::from_secs(60)));
}

/// A peer of which nothing is heard is not at work: what was tried is tried rarely. When it is heard of, all of
/// it goes out at once.
#[test]
fn what_was_tried_is_tried_rarely_until_the_peer_is_at_work_again() {
    let order = Order { crowd: CROWD, aim: Aim::Endpoint };
    let mut volley = volley(order, proved(), u32::MAX);
    let count = |pings: &[(u128, Path)], from: u128| {
        pings.iter().filter(|(at, _)| (from..from + 1_000).contains(at)).count()
    };
    let pings = run(&mut volley, 16, CROWD);
    assert!((98..=106).contains(&count(&pings, 5_000)), "{}", count(&pings, 5_000));
    assert!((22..=28).contains(&count(&pings, 12_000)), "{}", count(&pings, 12_000));
    let later = moment() + Duration::from_secs(16);
    volley.handle_peer_at_work(later);
    let mut sent = 0;
    let mut now = later;
    while now < later + Duration::from_secs(1) {
        volley.handle_timeout(now);
        while let Some(output) = volley.poll_output() {
            match output {
                Output::Ping(_) => sent += 1,
                Output::AskAgain(datagrams) => volley.handle_again(datagrams, now),
                Output::OpenSocket => panic!("all are open"),
            }
        }
        now = volley.poll_timeout().unwrap().max(now);
    }
    assert!((512..=620).contains(&sent), "{sent}");
}

#[test]
fn a_volley_that_may_not_repeat_itself_is_held_up() {
    let mut volley = volley(Order { crowd: 0, aim: Aim::Anywhere }, proved(), 10);
    let mut now = moment();
    let mut refused = 0;
    while !volley.is_held_up() {
        volley.handle_timeout(now);
        while let Some(output) = volley.poll_output() {
            if let Output::AskAgain(_) = output {
                refused += 1;
                volley.handle_again(0, now);
            }
        }
        now = volley.poll_timeout().unwrap().max(now);
    }
    assert_eq!(refused, 3);
    assert!(now > moment() + Duration::from_secs(2));
}

#[test]
fn a_crowd_opens_512_sockets_in_half_a_second_and_each_sends_once_and_again_within_5_s() {
    let order = Order { crowd: CROWD, aim: Aim::Endpoint };
    let mut volley = volley(order, proved(), u32::MAX);
    let pings = run(&mut volley, 10, CROWD);
    let first: Vec<_> = pings.iter().take(512).collect();
    let sockets: BTreeSet<SocketIndex> = first.iter().map(|(_, path)| path.socket).collect();
    assert_eq!((first.len(), sockets.len()), (512, 512));
    assert!(first.last().unwrap().0 <= 520, "{:?}", first.last());
    let second: BTreeSet<Path> = pings.iter().skip(512).take(512).map(|(_, path)| *path).collect();
    assert_eq!(second.len(), 512);
    let round = pings[1_023].0 - pings[512].0;
    assert!((4_900..=5_000).contains(&round), "{round} ms");
}

#[test]
fn fewer_sockets_than_wanted_will_do() {
    let order = Order { crowd: CROWD, aim: Aim::Endpoint };
    let pings = run(&mut volley(order, proved(), u32::MAX), 1, 100);
    let sockets: BTreeSet<SocketIndex> = pings.iter().map(|(_, path)| path.socket).collect();
    assert_eq!(sockets.len(), 100);
}

#[test]
fn an_address_with_one_witness_gets_forty_datagrams_and_no_volley_more_than_it_is_granted() {
    for crowd in [0, CROWD] {
        let aim = if crowd == 0 { Aim::Anywhere } else { Aim::Endpoint };
        let claimed =
            run(&mut volley(Order { crowd, aim }, Address::Claimed(PEER), u32::MAX), 60, crowd);
        assert_eq!(claimed.len(), 40);
        let granted = run(&mut volley(Order { crowd, aim }, proved(), 300), 60, crowd);
        let new: BTreeSet<Path> = granted.iter().map(|(_, path)| *path).collect();
        assert_eq!(new.len(), 300);
    }
}

#[test]
fn a_volley_that_is_stopped_sends_nothing_more() {
    let mut volley = volley(Order { crowd: 0, aim: Aim::Anywhere }, proved(), u32::MAX);
    volley.handle_timeout(moment());
    volley.stop();
    assert_eq!((volley.poll_output(), volley.poll_timeout()), (None, None));
    volley.handle_socket_opened(SocketIndex(1), moment());
    assert_eq!(volley.poll_output(), None);
}

/// The table in the module's documentation.
#[test]
fn the_odds_are_as_documented() {
    let misses = |sockets: f64, probes: f64| (1.0 - sockets / 64_512.0_f64).powf(probes);
    for (sockets, half, ninety_nine, thousand, ten_thousand) in [
        (128.0, 350.0, 2_319.0, 3_478.0, 4_638.0),
        (256.0, 175.0, 1_159.0, 1_738.0, 2_317.0),
        (512.0, 87.0, 578.0, 867.0, 1_156.0),
    ] {
        let close = |probes: f64, rate: f64| (misses(sockets, probes) / rate - 1.0).abs() < 0.01;
        assert!(close(half, 0.5) && close(ninety_nine, 0.01));
        assert!(close(thousand, 0.001) && close(ten_thousand, 0.000_1));
    }
    assert!((misses(256.0, 2_048.0) - 2.9e-4).abs() < 1e-5);
    assert!(misses(512.0, 2_048.0) < 8.4e-8);
}
