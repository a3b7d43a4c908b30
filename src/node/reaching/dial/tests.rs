//! One dial, told what happens by hand: what it asks for, and when.

use std::collections::BTreeMap;

use super::*;
use crate::{
    behaviour::NatBehaviour,
    candidate::{Candidate, CandidateKind},
    datagram::{BoundSocket, SocketIndex},
    forwarding::{Helper, Token},
    identity::Identity,
    node::event::Strategy,
    probe::{Transaction, Urgency},
};

/// A dial to a service, and what it has asked for, in ms since its start. Lookups end after 100 ms.
struct Story {
    start: Instant,
    now: Instant,
    dial: Dial,
    asked: Vec<(u64, Asked)>,
    lookups: Vec<Instant>,
    dht_nodes: usize,
}

/// An output, as far as the stories go.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Asked {
    Lookup,
    Reach(PeerId, usize),
    Converse,
    Offer,
    Forward,
    Probe,
    UsePath,
    Connect,
    Stage(Stage),
    Try(Strategy),
    Failed(&'static str),
}

impl Story {
    fn new(gathered: Gathered, timeout: Duration) -> Self {
        // The only clock of these stories; all moments are relative to it.
        let start = tokio::time::Instant::now().into_std();
        let dialler = Dialler {
            identity: identity(99),
            admission: None,
            sockets: vec![BoundSocket {
                index: SocketIndex(0),
                local: "192.168.1.2:5000".parse().unwrap(),
            }],
            stun_servers: vec![],
            has_dht: true,
            has_lan: false,
        };
        let target = Target::Service("myapi:v1".parse().unwrap());
        let times = (start, UnixMillis(1_000_000));
        let entropy = Entropy::from_seed(1);
        let mut story = Self {
            start,
            now: start,
            dial: Dial::new(target, dialler, gathered, times, start + timeout, entropy),
            asked: Vec::new(),
            lookups: Vec::new(),
            dht_nodes: 8,
        };
        story.drain();
        story
    }

    fn ms(&self) -> u64 {
        u64::try_from((self.now - self.start).as_millis()).unwrap()
    }

    fn tell(&mut self, tell: impl FnOnce(&mut Dial, Instant)) {
        tell(&mut self.dial, self.now);
        self.drain();
    }

    fn drain(&mut self) {
        while let Some(output) = self.dial.poll_output() {
            let asked = match output {
                Output::Lookup => {
                    self.lookups.push(self.now + Duration::from_millis(100));
                    Asked::Lookup
                }
                Output::Reach { peer, candidates } => Asked::Reach(peer, candidates.len()),
                Output::Converse { .. } => Asked::Converse,
                Output::Offer { .. } => Asked::Offer,
                Output::Forward { .. } => Asked::Forward,
                Output::Transmit { .. } => Asked::Probe,
                Output::OpenSocket { .. }
                | Output::CloseSocket(_)
                | Output::AskLeave(_)
                | Output::Unspent(_)
                | Output::Ask(_)
                | Output::Count
                | Output::Doubt
                | Output::SeenAt { .. } => continue,
                Output::UsePath { .. } => Asked::UsePath,
                Output::Connect { .. } => Asked::Connect,
                Output::Stage { stage, .. } => Asked::Stage(stage),
                Output::Trying { plan, .. } => Asked::Try(plan.method.into()),
                Output::Failed(failure) => Asked::Failed(failure.code.as_str()),
            };
            self.asked.push((self.ms(), asked));
        }
    }

    /// Lets time pass until `ms` after the start.
    fn wait_until(&mut self, ms: u64) {
        let end = self.start + Duration::from_millis(ms);
        loop {
            let lookup = self.lookups.first().copied();
            let due = [self.dial.poll_timeout(), lookup].into_iter().flatten().min();
            let Some(due) = due.filter(|due| *due <= end) else {
                self.now = end;
                return;
            };
            assert!(due >= self.now, "it is due for ever, and its owner spins");
            self.now = due;
            if lookup == Some(due) {
                self.lookups.remove(0);
                let nodes = self.dht_nodes;
                self.tell(|dial, now| dial.handle_lookup_ended(nodes, now));
            } else {
                self.tell(Dial::handle_timeout);
            }
        }
    }

    /// When it asked for this.
    fn times(&self, wanted: &Asked) -> Vec<u64> {
        let asked = self.asked.iter().filter(|(_, asked)| asked == wanted);
        asked.map(|(ms, _)| *ms).collect()
    }

    /// Whom it turned to, and when.
    fn turns(&self) -> Vec<(u64, PeerId)> {
        let turn = |(ms, asked): &(u64, Asked)| {
            let Asked::Reach(peer, _) = asked else { return None };
            Some((*ms, *peer))
        };
        self.asked.iter().filter_map(turn).collect()
    }
}

fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

fn candidate(address: &str) -> Candidate {
    Candidate::new(CandidateKind::ServerReflexive, address.parse().unwrap()).unwrap()
}

fn found(seed: u8, made_at: u64) -> Found {
    Found {
        peer: identity(seed).peer_id(),
        made_at: UnixMillis(made_at),
        candidates: vec![candidate(&format!("203.0.113.{seed}:1000"))],
        nat: NatBehaviour::default(),
        helpers: Vec::new(),
    }
}

fn gathered() -> Gathered {
    Gathered {
        candidates: vec![candidate("198.51.100.9:5000")],
        nat: NatBehaviour::default(),
        complete: true,
        is_unanswered: false,
    }
}

fn failure(code: Code) -> Failure {
    Failure::new(code, "of a test")
}

const SECONDS_20: Duration = Duration::from_secs(20);

#[test]
fn with_a_record_in_hand_everything_begins_at_once_and_stages_come_in_order() {
    let mut story = Story::new(gathered(), SECONDS_20);
    story.wait_until(50);
    story.tell(|dial, now| dial.handle_found(found(1, 5), now));
    let at_once =
        [Asked::Reach(identity(1).peer_id(), 1), Asked::Connect, Asked::Converse, Asked::Offer];
    for wanted in at_once {
        assert_eq!(story.times(&wanted), [50], "{wanted:?}");
    }
    story.tell(|dial, now| dial.handle_offer_stored(Ok(()), now));
    story.wait_until(300);
    assert!(story.times(&Asked::Probe).len() >= 3);
    let path = Path { socket: SocketIndex(0), remote: "203.0.113.1:7777".parse().unwrap() };
    let ping = Probe::Ping { transaction: Transaction(1), urgency: Urgency::Routine };
    story.tell(|dial, now| dial.handle_probe(path, ping, now));
    assert_eq!(story.times(&Asked::UsePath), [300]);
    assert_eq!(story.times(&Asked::Connect), [50, 300]);
    let is_told = |asked: &Asked| matches!(asked, Asked::Stage(_) | Asked::Try(_));
    let told = story.asked.iter().map(|(_, asked)| asked).filter(|asked| is_told(asked));
    let expected = [
        Asked::Stage(Stage::Resolve),
        Asked::Stage(Stage::Punch),
        Asked::Try(Strategy::Direct),
        Asked::Try(Strategy::Simultaneous),
        Asked::Stage(Stage::Offer),
        Asked::Stage(Stage::Path),
    ];
    assert_eq!(told.cloned().collect::<Vec<_>>(), expected);
}

#[test]
fn without_our_own_addresses_the_first_offer_waits_half_a_second_and_no_longer() {
    let mut story = Story::new(Gathered::default(), SECONDS_20);
    story.tell(|dial, now| dial.handle_found(found(1, 5), now));
    assert_eq!(story.times(&Asked::Connect), [0], "QUIC waits for nothing");
    story.wait_until(1_000);
    assert_eq!(story.times(&Asked::Offer), [500]);
    // They come late: what the peer was told is out of date.
    story.tell(|dial, now| dial.handle_gathered(gathered(), now));
    assert_eq!(story.times(&Asked::Offer), [500, 1_000]);
    // Told again, they are nothing new.
    story.tell(|dial, now| dial.handle_gathered(gathered(), now));
    assert_eq!(story.times(&Asked::Offer), [500, 1_000]);
}

#[test]
fn while_somebody_waits_there_is_an_attempt_every_three_seconds_and_an_end() {
    let mut story = Story::new(gathered(), SECONDS_20);
    story.tell(|dial, now| dial.handle_found(found(1, 5), now));
    story.wait_until(60_000);
    let offers = story.times(&Asked::Offer);
    let pauses = offers.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(pauses.max().unwrap() <= 3_000, "{offers:?}");
    assert!(*offers.last().unwrap() >= 17_000, "{offers:?}");
    assert_eq!(story.times(&Asked::Failed("punch_timeout")), [20_000]);
    assert_eq!(story.asked.last().unwrap().0, 20_000, "nothing follows");
    assert_eq!(story.dial.poll_timeout(), None);
}

#[test]
fn nobody_and_no_dht_are_different_ends_after_eight_seconds() {
    for (dht_nodes, code) in [(8, "peer_not_found"), (0, "dht_unreachable")] {
        let mut story = Story::new(gathered(), SECONDS_20);
        story.dht_nodes = dht_nodes;
        story.wait_until(30_000);
        assert_eq!(story.times(&Asked::Failed(code)), [8_000]);
        assert_eq!(story.times(&Asked::Lookup), [0, 1_600, 3_200, 4_800, 6_400]);
        let told = story.times(&Asked::Stage(Stage::Resolve));
        assert_eq!(told, [100, 1_700, 3_300, 4_900, 6_500], "what each lookup came to");
    }
    let mut hasty = Story::new(gathered(), Duration::from_secs(2));
    hasty.wait_until(30_000);
    assert_eq!(hasty.times(&Asked::Failed("peer_not_found")), [2_000]);
}

#[test]
fn a_peer_that_moves_is_probed_at_its_new_address_at_once() {
    let mut story = Story::new(gathered(), SECONDS_20);
    story.tell(|dial, now| dial.handle_found(found(1, 5), now));
    story.wait_until(1_234);
    let mut moved = found(1, 6);
    moved.candidates.push(candidate("203.0.113.200:1"));
    story.tell(|dial, now| dial.handle_found(moved.clone(), now));
    let reach = Asked::Reach(moved.peer, 2);
    assert_eq!(story.times(&reach), [1_234]);
    story.wait_until(1_240);
    assert!(story.times(&Asked::Probe).iter().any(|ms| *ms >= 1_234));
    // An older record changes nothing.
    story.tell(|dial, now| dial.handle_found(found(1, 5), now));
    assert_eq!(story.turns().len(), 2);
}

#[test]
fn a_peer_whose_helper_becomes_known_has_the_offer_from_it_at_once_and_once() {
    let mut story = Story::new(gathered(), Duration::from_secs(10));
    story.tell(|dial, now| dial.handle_found(found(1, 10), now));
    story.wait_until(400);
    let helper = Helper { address: "198.51.100.9:5000".parse().unwrap(), token: Token([7; 7]) };
    let newer = Found { helpers: vec![helper], ..found(1, 20) };
    story.tell(|dial, now| dial.handle_found(newer.clone(), now));
    assert_eq!(story.dial.helpers(), [helper]);
    story.wait_until(800);
    story.tell(|dial, now| dial.handle_found(newer, now));
    assert_eq!(story.times(&Asked::Forward), [400]);
    assert_eq!(story.times(&Asked::Offer), [0], "it lies in the inbox already");
}

#[test]
fn an_offer_that_could_not_be_stored_is_stored_again_within_a_second() {
    let mut story = Story::new(gathered(), SECONDS_20);
    story.tell(|dial, now| dial.handle_found(found(1, 5), now));
    story.wait_until(100);
    let refused = Err("no node answers".to_owned());
    story.tell(|dial, now| dial.handle_offer_stored(refused, now));
    story.wait_until(2_000);
    assert_eq!(story.times(&Asked::Offer), [0, 1_100]);
}

#[test]
fn quic_that_failed_is_tried_again_soon() {
    let mut story = Story::new(gathered(), SECONDS_20);
    story.tell(|dial, now| dial.handle_found(found(1, 5), now));
    story.wait_until(100);
    let lost = failure(Code::HandshakeFailed);
    story.tell(|dial, now| dial.handle_link_failed(lost, &[], now));
    story.wait_until(1_000);
    assert_eq!(story.times(&Asked::Connect), [0, 400]);
}

#[test]
fn a_silent_server_has_its_budget_and_the_next_one_its_turn() {
    let mut story = Story::new(gathered(), SECONDS_20);
    let (fresh, old) = (found(1, 20), found(2, 10));
    story.tell(|dial, now| dial.handle_found(fresh.clone(), now));
    story.tell(|dial, now| dial.handle_found(old.clone(), now));
    story.wait_until(60_000);
    let turns = story.turns();
    assert_eq!(turns[0], (0, fresh.peer));
    let mut times: BTreeMap<PeerId, usize> = BTreeMap::new();
    for pair in turns.windows(2) {
        assert_ne!(pair[0].1, pair[1].1);
        let budget = u64::try_from(PEER_BUDGET.as_millis()).unwrap();
        assert!((budget..budget + 700).contains(&(pair[1].0 - pair[0].0)), "{turns:?}");
        *times.entry(pair[0].1).or_default() += 1;
    }
    assert!(times.values().all(|count| *count >= 2), "both come again: {turns:?}");
    assert_eq!(story.times(&Asked::Failed("punch_timeout")), [20_000]);
}

#[test]
fn who_does_not_want_us_is_left_at_once_and_if_nobody_does_that_is_the_end() {
    let mut story = Story::new(gathered(), SECONDS_20);
    let (fresh, old) = (found(1, 20), found(2, 10));
    story.tell(|dial, now| dial.handle_found(fresh.clone(), now));
    story.tell(|dial, now| dial.handle_found(old.clone(), now));
    story.wait_until(100);
    let refused = failure(Code::Refused);
    story.tell(|dial, now| dial.handle_link_failed(refused.clone(), &[], now));
    assert_eq!(story.turns(), [(0, fresh.peer), (100, old.peer)]);
    story.wait_until(200);
    story.tell(|dial, now| dial.handle_link_failed(refused, &[], now));
    assert_eq!(story.times(&Asked::Failed("refused")), [200]);
}

#[test]
fn a_dial_lasts_as_long_as_the_most_patient_of_those_who_wait() {
    let mut story = Story::new(gathered(), Duration::from_secs(5));
    story.tell(|dial, now| dial.handle_found(found(1, 5), now));
    let later = story.start + Duration::from_secs(12);
    story.dial.extend(later);
    story.dial.extend(story.start + Duration::from_secs(1));
    story.wait_until(60_000);
    assert_eq!(story.times(&Asked::Failed("punch_timeout")), [12_000]);
}

/// An owner that is woken for a moment that has passed and brings nothing spins. This one did so from the
/// moment when its STUN servers fell silent while nobody was found yet.
#[test]
fn addresses_that_are_lost_while_nobody_is_found_wake_nobody() {
    let mut story = Story::new(gathered(), SECONDS_20);
    story.wait_until(1_000);
    story.tell(|dial, now| dial.handle_gathered(Gathered::default(), now));
    assert!(story.dial.poll_timeout().is_some_and(|due| due > story.now));
    story.wait_until(60_000);
    assert_eq!(story.times(&Asked::Failed("peer_not_found")), [8_000]);
}

/// The record of a service lists this node too, if it serves as well.
#[test]
fn a_node_does_not_turn_to_itself() {
    let mut story = Story::new(gathered(), SECONDS_20);
    story.tell(|dial, now| dial.handle_found(found(99, 5), now));
    assert_eq!(story.turns(), []);
}
