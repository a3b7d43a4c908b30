//! What the engine does beside the table: openers, sockets, limits, and that it is never idle.

use std::collections::BTreeSet;

use super::{
    openers::QUIET_TIME,
    world::{ALICE, BOB, RTT, World},
    *,
};
use crate::{
    behaviour::{Dependence, NatBehaviour, PortAllocation},
    candidate::CandidateKind,
    datagram::{BoundSocket, Path},
    lab::{Nat, Ports},
    nat::{
        proved::{Proved, Witness},
        story::moment,
        strategy::Plan,
        volley::Leave,
    },
    probe::Urgency,
};

fn opened(alice: Nat, bob: Nat, openers: Openers) -> Option<Duration> {
    let mut world = World::new(1, &[alice], &[bob], openers);
    world.offers_again = false;
    world.run(15);
    world.took()
}

/// The same with a second offer, which names a port that the router has not heard of.
#[test]
fn a_fresh_port_opens_routers_that_loud_openers_have_disturbed() {
    for router in [Nat::linux(), Nat::refusing()] {
        for client in [Nat::home(), Nat::linux(), Nat::refusing(), Nat::cgnat()] {
            let mut world = World::new(1, &[client], &[router], Openers::Loud);
            world.run(15);
            let took = world.took().unwrap();
            println!("{client:?} × {router:?}: {took:?}");
            assert!(took < STEP, "{took:?}");
            assert!(world.alices_path_carries_data());
            let plans = &world.hosts[ALICE].plans;
            let told = plans.iter().map(Plan::to_string);
            assert!(told.into_iter().any(|plan| plan.ends_with("a port that it has not heard of")));
        }
    }
}

/// A router that lets nothing in for a while from whom it has heard too early, and one that gives the
/// flow another port.
#[test]
fn quiet_openers_open_routers_that_punish_early_datagrams_and_are_no_slower_elsewhere() {
    for router in [Nat::refusing(), Nat::linux(), Nat::home(), Nat::cgnat()] {
        let took = opened(Nat::home(), router, Openers::Quiet).unwrap();
        assert!(took <= 2 * RTT, "{took:?} {router:?}");
    }
}

#[test]
fn loud_openers_disturb_a_router_that_punishes_and_it_is_left_in_peace_later() {
    assert_eq!(opened(Nat::home(), Nat::linux(), Openers::Loud), None);
    let took = opened(Nat::home(), Nat::refusing(), Openers::Loud).unwrap();
    assert!(took > STEP + QUIET_TIME && took < STEP + QUIET_TIME + STEP, "{took:?}");
    // The one that is offered to has sent before the other's datagrams come.
    let took = opened(Nat::refusing(), Nat::home(), Openers::Loud).unwrap();
    assert!(took <= RTT, "{took:?}");
}

#[test]
fn quiet_openers_do_not_keep_a_crowd_from_being_met() {
    let random = Nat::symmetric(Ports::Random);
    assert!(opened(Nat::home(), random, Openers::Quiet).is_some());
    assert!(opened(random, Nat::home(), Openers::Quiet).is_some());
}

#[test]
fn behind_a_refusing_router_a_random_nat_is_met_all_the_same() {
    let router = Nat { refusal: Duration::from_secs(5), ..Nat::symmetric(Ports::Random) };
    assert!(opened(Nat::home(), router, Openers::Quiet).is_some());
}

#[test]
fn the_crowd_is_closed_but_for_the_socket_that_was_hit() {
    let mut world = World::new(1, &[Nat::home()], &[Nat::symmetric(Ports::Random)], Openers::Loud);
    world.run(15);
    assert!(world.hosts[BOB].crowd >= 100);
    assert!(world.alices_path_carries_data());
    let extra = world.hosts[BOB].engine.as_ref().unwrap().guessing.extra.clone();
    assert_eq!(extra, BTreeSet::from([world.hosts[BOB].path.unwrap().socket]));
    let quiet = world.datagrams();
    world.run(30);
    assert_eq!(world.datagrams(), quiet, "nothing is sent once the path is there");
}

const PEER: &str = "198.51.100.9:4000";

fn nat(mapping: Dependence, allocation: Option<PortAllocation>) -> Party {
    let nat = NatBehaviour { allocation, ..NatBehaviour::new(Some(mapping), None) };
    Party { nat, public: vec![] }
}

fn engine(ours: Party, theirs: Party, side: Side) -> Engine {
    let now = moment();
    let peer: SocketAddr = PEER.parse().unwrap();
    let socket = BoundSocket { index: SocketIndex(0), local: "0.0.0.0:4000".parse().unwrap() };
    let setup = Setup {
        punch: punch::Setup {
            sockets: vec![socket],
            candidates: vec![Candidate::new(CandidateKind::ServerReflexive, peer).unwrap()],
            urgency: Urgency::Routine,
            deadline: now + Duration::from_secs(20),
        },
        side,
        ours,
        theirs,
        forecast: None,
        addresses: vec![Address::Claimed(peer.ip())],
        peer_begins: now,
        openers: Openers::Loud,
        servers: vec![],
    };
    Engine::new(setup, now)
}

/// Lets an engine run by itself, with sockets as it asks for them: (ms, output), data left out.
fn run_alone(engine: &mut Engine) -> Vec<(u128, Output)> {
    let (start, mut entropy) = (moment(), Entropy::from_seed(1));
    let (mut now, mut sockets, mut story) = (start, 0, vec![]);
    loop {
        while let Some(output) = engine.poll_output() {
            if matches!(output, Output::OpenSocket { .. }) {
                sockets += 1;
                engine.handle_socket_opened(SocketIndex(sockets), now, &mut entropy);
            }
            if let Output::AskLeave(Leave::New { datagrams, .. } | Leave::Again { datagrams }) =
                output
            {
                engine.handle_leave(datagrams, now, &mut entropy);
            }
            story.push(((now - start).as_millis(), output));
        }
        if story.iter().any(|(_, output)| matches!(output, Output::GaveUp(_))) {
            return story;
        }
        now = engine.poll_timeout().unwrap().max(now);
        engine.handle_timeout(now, &mut entropy);
    }
}

#[test]
fn a_peer_that_nobody_else_vouches_for_gets_forty_guesses_and_all_sockets_are_closed() {
    let random = nat(Dependence::AddressAndPortDependent, Some(PortAllocation::Random));
    let home = nat(Dependence::EndpointIndependent, None);
    let story = run_alone(&mut engine(random, home, Side::Responder));
    let count = |is_it: fn(&Output) -> bool| story.iter().filter(|(_, it)| is_it(it)).count();
    let opened = count(|output| matches!(output, Output::OpenSocket { .. }));
    let closed = count(|output| matches!(output, Output::CloseSocket(_)));
    assert_eq!((opened, closed), (40, 40));
    let Some((_, Output::GaveUp(facts))) =
        story.iter().find(|(_, output)| matches!(output, Output::GaveUp(_)))
    else {
        panic!("{story:?}");
    };
    assert_eq!(facts.guesses_sent, 40);
}

#[test]
fn while_there_is_no_path_something_changes_every_three_seconds_and_pings_never_stop() {
    let home = || nat(Dependence::EndpointIndependent, None);
    let story = run_alone(&mut engine(home(), home(), Side::Initiator));
    let mut hops = vec![];
    let mut last = 0;
    for (at, output) in &story {
        if let Output::Transmit { hops: hop, .. } = output {
            assert!(at - last <= 3_000, "nothing from {last} to {at} ms");
            last = *at;
            if hops.last().is_none_or(|(_, before)| before != hop) {
                hops.push((*at, *hop));
            }
        }
    }
    let hops: Vec<_> = hops.into_iter().map(|(at, hop)| ((at + 100) / 1_000, hop)).collect();
    assert_eq!(hops, [(0, None), (3, Some(QUIET_HOPS)), (9, None), (12, Some(QUIET_HOPS))]);
}

#[test]
fn the_plans_are_told_with_their_reasons_before_anything_is_sent() {
    let random = || nat(Dependence::AddressAndPortDependent, Some(PortAllocation::Random));
    let mut engine = engine(random(), random(), Side::Initiator);
    let told: Vec<String> = std::iter::from_fn(|| engine.poll_output())
        .filter_map(|output| match output {
            Output::Trying(plan) => Some(plan.to_string()),
            Output::Incompatible(plan) => Some(format!("! {plan}")),
            Output::Transmit { .. }
            | Output::OpenSocket { .. }
            | Output::CloseSocket(_)
            | Output::AskLeave(_)
            | Output::Ask(_)
            | Output::Offer(_)
            | Output::Doubtful
            | Output::Unspent(_)
            | Output::Heard { .. }
            | Output::Open(_)
            | Output::Better(_)
            | Output::GaveUp(_) => None,
        })
        .collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("direct: "), "{told:?}");
    assert!(told[1].starts_with("! no direct way: both NATs"), "{told:?}");
}

#[test]
fn a_socket_that_comes_too_late_is_closed_again() {
    let home = || nat(Dependence::EndpointIndependent, None);
    let mut engine = engine(home(), home(), Side::Initiator);
    while engine.poll_output().is_some() {}
    engine.handle_socket_opened(SocketIndex(7), moment(), &mut Entropy::from_seed(1));
    assert_eq!(engine.poll_output(), Some(Output::CloseSocket(SocketIndex(7))));
}

#[test]
fn no_volley_is_fired_where_no_address_may_take_it() {
    let random = nat(Dependence::AddressAndPortDependent, Some(PortAllocation::Random));
    let home = nat(Dependence::EndpointIndependent, None);
    let mut engine = engine(home, random, Side::Responder);
    engine.theirs.addresses.clear();
    let story = run_alone(&mut engine);
    let peer: SocketAddr = PEER.parse().unwrap();
    let elsewhere = |output: &Output| matches!(output, Output::Transmit { path: Path { remote, .. }, .. } if *remote != peer);
    assert!(!story.iter().any(|(_, output)| elsewhere(output)));
}

/// The most sockets that a crowd had at a time, and all that it opened, if after a second the peer is heard of
/// again, at `address`.
fn crowd_with_news(address: Address) -> (usize, usize) {
    let random = || nat(Dependence::AddressAndPortDependent, Some(PortAllocation::Random));
    let home = nat(Dependence::EndpointIndependent, None);
    let mut engine = engine(random(), home.clone(), Side::Responder);
    let (start, mut entropy) = (moment(), Entropy::from_seed(1));
    let (mut sockets, mut open, mut most) = (0, BTreeSet::new(), 0);
    let mut now = start;
    let mut news = Some(start + Duration::from_secs(1));
    while now < start + Duration::from_secs(3) {
        while let Some(output) = engine.poll_output() {
            match output {
                Output::OpenSocket { .. } => {
                    sockets += 1;
                    open.insert(SocketIndex(sockets));
                    engine.handle_socket_opened(SocketIndex(sockets), now, &mut entropy);
                }
                Output::CloseSocket(socket) => assert!(open.remove(&socket)),
                Output::AskLeave(Leave::New { datagrams, .. } | Leave::Again { datagrams }) => {
                    engine.handle_leave(datagrams, now, &mut entropy);
                }
                Output::Unspent(_)
                | Output::Transmit { .. }
                | Output::Heard { .. }
                | Output::Ask(_)
                | Output::Offer(_)
                | Output::Doubtful
                | Output::Open(_)
                | Output::Better(_)
                | Output::Trying(_)
                | Output::Incompatible(_)
                | Output::GaveUp(_) => {}
            }
            most = most.max(open.len());
        }
        now = engine.poll_timeout().unwrap().max(now);
        engine.handle_timeout(now, &mut entropy);
        if news.take_if(|at| *at <= now).is_some() {
            engine.handle_news(home.clone(), None, vec![address.clone()], now);
        }
    }
    (most, usize::from(sockets))
}

#[test]
fn news_that_change_the_aim_begin_another_volley_and_there_are_never_two_crowds() {
    let peer: SocketAddr = PEER.parse().unwrap();
    let proved = Proved::by(peer.ip(), Witness::Peer, Witness::Record).unwrap();
    assert_eq!(crowd_with_news(Address::Proved(proved)), (512, 40 + 512));
    assert_eq!(crowd_with_news(Address::Claimed(peer.ip())), (40, 40), "that is no news");
}

#[test]
fn a_volley_waits_for_leave_and_gives_back_what_it_does_not_need() {
    let random = || nat(Dependence::AddressAndPortDependent, Some(PortAllocation::Random));
    let home = nat(Dependence::EndpointIndependent, None);
    let mut engine = engine(home, random(), Side::Responder);
    let (mut now, mut entropy) = (moment(), Entropy::from_seed(1));
    let mut asked = vec![];
    while asked.len() < 2 {
        while let Some(output) = engine.poll_output() {
            assert!(!matches!(output, Output::OpenSocket { .. }));
            if let Output::AskLeave(Leave::New { datagrams, crowd }) = output {
                asked.push((now, datagrams, crowd));
                engine.handle_leave(if asked.len() == 1 { 0 } else { 30 }, now, &mut entropy);
            }
        }
        now = engine.poll_timeout().unwrap().max(now);
        engine.handle_timeout(now, &mut entropy);
    }
    assert!(asked.iter().all(|(_, datagrams, crowd)| (*datagrams, *crowd) == (2_048, 0)));
    assert_eq!(asked[1].0 - asked[0].0, Duration::from_secs(1));
    engine.handle_used(SocketIndex(0));
    let outputs: Vec<Output> = std::iter::from_fn(|| engine.poll_output()).collect();
    assert!(outputs.contains(&Output::Unspent(30)) || outputs.contains(&Output::Unspent(29)));
    engine.handle_leave(5, now, &mut entropy);
    assert_eq!(engine.poll_output(), Some(Output::Unspent(5)));
}

#[test]
fn what_has_filled_a_block_is_silent_until_it_is_forgotten_and_aims_at_another_port() {
    // A peer that sees more of its own block each time.
    let block = |offers: u16| (in_block(20_500 + offers), None);
    assert_eq!(
        filled_block([44, 75, 85], block),
        [(1_024, 0, 1), (1_024, 1_024, 1), (2_048, 1_024, 2)]
    );
}

/// Its ports go to others as well: what all of our block aims at is soon somebody's, whether or not the way is blocked.
#[test]
fn what_has_filled_a_block_towards_a_peer_that_counts_is_silent_sooner() {
    let counting = |offers: u16| {
        let ports = PortAllocation::Sequential { step: 2 };
        let party = nat(Dependence::AddressAndPortDependent, Some(ports));
        let seen_at = moment() + Duration::from_millis(2_500) * u32::from(offers);
        let port = 30_000 + 200 * offers;
        (party, Some(Forecast { port, seen_at, step: 2, others_per_minute: 0 }))
    };
    assert_eq!(
        filled_block([24, 55, 65], counting),
        [(1_024, 0, 1), (1_024, 1_024, 1), (2_048, 1_024, 2)]
    );
}

fn in_block(high: u16) -> Party {
    let ports = PortAllocation::Block { low: 20_000, high };
    nat(Dependence::AddressAndPortDependent, Some(ports))
}

/// What a crowd of ours that fills our block has opened and closed by these times, in seconds, and at how many ports it has
/// aimed: with a peer that makes an offer each 2.5 s, from which we know this of it.
fn filled_block(
    times: [u64; 3],
    told: impl Fn(u16) -> (Party, Option<Forecast>),
) -> Vec<(u16, usize, usize)> {
    let peer: SocketAddr = PEER.parse().unwrap();
    let address = Address::Proved(Proved::by(peer.ip(), Witness::Peer, Witness::Record).unwrap());
    let (theirs, forecast) = told(0);
    let mut engine = engine(in_block(20_900), theirs.clone(), Side::Responder);
    let (start, mut entropy) = (moment(), Entropy::from_seed(1));
    engine.handle_news(theirs, forecast, vec![address.clone()], start);
    let (mut now, mut offers) = (start, 0_u16);
    let (mut opened, mut closed, mut aims) = (0, 0, BTreeSet::new());
    let mut seen = vec![];
    for until in times.map(Duration::from_secs) {
        while now < start + until {
            while let Some(output) = engine.poll_output() {
                match output {
                    Output::OpenSocket { .. } => {
                        opened += 1;
                        engine.handle_socket_opened(SocketIndex(opened), now, &mut entropy);
                    }
                    Output::CloseSocket(_) => closed += 1,
                    Output::AskLeave(Leave::New { datagrams, .. } | Leave::Again { datagrams }) => {
                        engine.handle_leave(datagrams, now, &mut entropy);
                    }
                    Output::Transmit { path, .. } if path.socket != SocketIndex(0) => {
                        aims.insert(path.remote.port());
                    }
                    Output::Transmit { .. }
                    | Output::Unspent(_)
                    | Output::Heard { .. }
                    | Output::Ask(_)
                    | Output::Offer(_)
                    | Output::Doubtful
                    | Output::Open(_)
                    | Output::Better(_)
                    | Output::Trying(_)
                    | Output::Incompatible(_)
                    | Output::GaveUp(_) => {}
                }
            }
            let next_offer = start + Duration::from_millis(2_500) * u32::from(offers);
            if next_offer <= now {
                offers += 1;
                let candidate = Candidate::new(CandidateKind::ServerReflexive, peer).unwrap();
                engine.restart(&[candidate], now + Duration::from_secs(20), now);
                let (theirs, forecast) = told(offers);
                engine.handle_news(theirs, forecast, vec![address.clone()], now);
            }
            now = engine.poll_timeout().map_or(next_offer, |due| due.min(next_offer)).max(now);
            engine.handle_timeout(now, &mut entropy);
        }
        seen.push((opened, closed, aims.len()));
    }
    seen
}

/// An offer that crosses with the datagrams that open a path is read when a link is coming up over it.
#[test]
fn an_offer_made_before_its_maker_knew_of_the_path_takes_no_socket_away_and_one_made_later_begins_anew()
 {
    let random = nat(Dependence::AddressAndPortDependent, Some(PortAllocation::Random));
    let mut engine = engine(random, nat(Dependence::EndpointIndependent, None), Side::Responder);
    let peer: SocketAddr = PEER.parse().unwrap();
    let candidates = [Candidate::new(CandidateKind::ServerReflexive, peer).unwrap()];
    let (start, mut entropy) = (moment(), Entropy::from_seed(1));
    let (mut now, mut sockets, mut opened_at) = (start, 0, None);
    let (mut again, mut closed, mut asked) = (vec![], BTreeSet::new(), vec![]);
    while now < start + Duration::from_secs(6) {
        while let Some(output) = engine.poll_output() {
            match output {
                Output::OpenSocket { .. } => {
                    sockets += 1;
                    engine.handle_socket_opened(SocketIndex(sockets), now, &mut entropy);
                }
                Output::AskLeave(Leave::New { datagrams, .. } | Leave::Again { datagrams }) => {
                    asked.push(opened_at.map(|opened| now - opened));
                    engine.handle_leave(datagrams, now, &mut entropy);
                }
                Output::Transmit { path, probe: Probe::Ping { transaction, .. }, .. }
                    if path.socket == SocketIndex(5) && opened_at.is_none() =>
                {
                    opened_at = Some(now);
                    again = vec![now + Duration::from_millis(40), now + Duration::from_secs(4)];
                    let pong = Probe::Pong { transaction, observed: peer };
                    engine.handle_probe(path.socket, path.remote, pong, now, &mut entropy);
                }
                Output::CloseSocket(socket) => drop(closed.insert(socket)),
                Output::Transmit { .. }
                | Output::Unspent(_)
                | Output::Heard { .. }
                | Output::Ask(_)
                | Output::Offer(_)
                | Output::Doubtful
                | Output::Open(_)
                | Output::Better(_)
                | Output::Trying(_)
                | Output::Incompatible(_)
                | Output::GaveUp(_) => {}
            }
        }
        let due = engine.poll_timeout().into_iter().chain(again.first().copied()).min();
        now = due.unwrap().max(now);
        if again.first().is_some_and(|at| *at <= now) {
            again.remove(0);
            assert!(!closed.contains(&SocketIndex(5)), "it is needed still");
            engine.restart(&candidates, now + Duration::from_secs(20), now);
        }
        engine.handle_timeout(now, &mut entropy);
    }
    let asked: Vec<_> = asked.into_iter().flatten().map(|after| after.as_secs()).collect();
    assert_eq!(asked, [4], "the second time there was no link");
}
