//! The rules of a session, one by one: what goes out at once, what waits, what is sent again, what is lost.

use std::num::NonZeroU64;

use tokio::time::Instant;

use super::world::{Side, Way, resume};
use crate::{
    proto::{Message, wire::Sequenced},
    transport::{
        frame::Chunks,
        session::{
            inbound::AckNeed,
            machine::{Cause, Fate, NotAttached, Reading, Rejected},
            message::Durability,
        },
    },
};

const OURS: u64 = 10;
const THEIRS: u64 = 20;

fn name(name: u64) -> NonZeroU64 {
    NonZeroU64::new(name).unwrap()
}

fn us() -> Side {
    Side::new(1, OURS)
}

fn message(id: u32) -> Message {
    Message { id: id.to_string(), ..Message::default() }
}

fn frame(sequence: u64) -> Sequenced {
    Sequenced { sequence, message: Some(message(7)), durable: false }
}

fn send(side: &mut Side, tickets: impl IntoIterator<Item = u32>) {
    for ticket in tickets {
        side.send(message(ticket), Durability::Volatile, ticket).unwrap();
    }
}

/// Goes on over a link that has just come up, to this run of the peer.
fn attach(side: &mut Side, run: u64) -> u64 {
    let link = side.machine.generation() + 1;
    side.machine.attach(name(run), link).unwrap()
}

fn written(side: &mut Side, generation: u64) -> usize {
    side.machine.pop_batch(generation, &mut Chunks::default()).unwrap()
}

fn violation(result: Result<(), Rejected>) -> String {
    match result {
        Err(Rejected::Violation(what)) => what,
        other => panic!("{other:?}"),
    }
}

#[test]
fn with_nothing_in_flight_messages_go_out_at_once() {
    let mut us = us();
    send(&mut us, 1..=3);
    assert!(us.machine.wants_link());
    let link = attach(&mut us, 2);
    assert!(!us.machine.wants_link());
    assert_eq!(us.machine.resume(), resume(OURS, 0, 0));
    assert_eq!(written(&mut us, link), 3);
}

#[test]
fn with_something_in_flight_the_peer_speaks_first() {
    let mut us = us();
    send(&mut us, 1..=3);
    let link = attach(&mut us, 2);
    written(&mut us, link);
    us.machine.detach(link);
    assert!(us.machine.wants_link());
    let link = attach(&mut us, 2);
    send(&mut us, [4]);
    assert_eq!(written(&mut us, link), 0);
    us.machine.handle_resume(link, &resume(THEIRS, OURS, 2)).unwrap();
    assert_eq!(us.fates(), [], "arrived is not delivered");
    assert_eq!(written(&mut us, link), 2);
    us.machine.handle_ack(link, 4).unwrap();
    assert_eq!(us.fates(), [1, 2, 3, 4].map(|ticket| (ticket, Fate::Delivered)));
}

#[test]
fn a_peer_that_never_knew_us_is_sent_everything_again() {
    let mut us = us();
    send(&mut us, 1..=3);
    for known in [0, 99] {
        let link = attach(&mut us, 2);
        us.machine.handle_resume(link, &resume(THEIRS, known, 0)).unwrap();
        assert_eq!(written(&mut us, link), 3);
    }
    assert_eq!(us.fates(), []);
}

#[test]
fn a_restart_of_the_peer_leaves_what_was_in_flight_unknown_and_the_queue_goes_out_at_once() {
    let mut us = us();
    send(&mut us, 1..=2);
    let link = attach(&mut us, 2);
    us.machine.handle_resume(link, &resume(THEIRS, 0, 0)).unwrap();
    us.machine.handle_message(link, frame(1)).unwrap();
    written(&mut us, link);
    us.machine.detach(link);
    send(&mut us, [3]);
    let link = attach(&mut us, 3);
    let unknown = Fate::Unknown(Cause::PeerRestarted);
    assert_eq!(us.fates(), [1, 2].map(|ticket| (ticket, unknown.clone())));
    assert_eq!(us.machine.resume(), resume(OURS, 0, 0), "the old numbering is forgotten");
    assert_eq!(written(&mut us, link), 1);
    us.machine.handle_resume(link, &resume(21, 0, 0)).unwrap();
    us.machine.handle_ack(link, 3).unwrap();
    assert_eq!(us.fates(), [(3, Fate::Delivered)]);
    us.machine.handle_message(link, frame(1)).unwrap();
    assert_eq!(us.machine.attach(name(2), 1), Err(NotAttached::EarlierRun));
}

#[test]
fn a_peer_that_forgot_us_leaves_what_was_in_flight_unknown() {
    let mut us = us();
    send(&mut us, 1..=2);
    let link = attach(&mut us, 2);
    us.machine.handle_resume(link, &resume(THEIRS, 0, 0)).unwrap();
    us.machine.handle_message(link, frame(1)).unwrap();
    written(&mut us, link);
    let link = attach(&mut us, 2);
    assert_eq!(us.machine.resume(), resume(OURS, THEIRS, 1));
    us.machine.handle_resume(link, &resume(21, 0, 0)).unwrap();
    let unknown = Fate::Unknown(Cause::PeerForgot);
    assert_eq!(us.fates(), [1, 2].map(|ticket| (ticket, unknown.clone())));
    us.machine.handle_message(link, frame(1)).unwrap();
    assert_eq!(us.machine.inbound().waiting().0, 2, "both first messages are new");
    let stale = us.machine.attach(name(2), 1).unwrap();
    let result = us.machine.handle_resume(stale, &resume(THEIRS, OURS, 2));
    assert_eq!(result, Err(Rejected::EarlierSession));
}

#[test]
fn what_a_new_session_of_the_peer_has_already_goes_on() {
    let mut us = us();
    let link = attach(&mut us, 2);
    us.machine.handle_resume(link, &resume(THEIRS, 0, 0)).unwrap();
    // The peer forgets us; what goes out at once over the next link reaches its new session.
    let link = attach(&mut us, 2);
    send(&mut us, 1..=3);
    assert_eq!(written(&mut us, link), 3);
    let link = attach(&mut us, 2);
    us.machine.handle_resume(link, &resume(21, OURS, 2)).unwrap();
    assert_eq!(us.fates(), []);
    assert_eq!(written(&mut us, link), 1);
}

#[test]
fn a_late_resume_from_a_link_made_at_the_same_time_does_no_harm() {
    let mut us = us();
    send(&mut us, 1..=4);
    let link = attach(&mut us, 2);
    us.machine.handle_resume(link, &resume(THEIRS, OURS, 0)).unwrap();
    written(&mut us, link);
    us.machine.handle_ack(link, 3).unwrap();
    assert_eq!(us.fates().len(), 3);
    let link = attach(&mut us, 2);
    us.machine.handle_resume(link, &resume(THEIRS, 0, 0)).unwrap();
    assert_eq!(us.fates(), []);
    assert_eq!(written(&mut us, link), 1, "only what was not acknowledged");
}

#[test]
fn a_stale_link_changes_nothing() {
    let mut us = us();
    send(&mut us, 1..=2);
    let old = attach(&mut us, 2);
    us.machine.handle_resume(old, &resume(THEIRS, 0, 0)).unwrap();
    written(&mut us, old);
    us.machine.handle_message(old, frame(1)).unwrap();
    let new = attach(&mut us, 2);
    assert_eq!(us.machine.handle_ack(old, 2), Err(Rejected::Stale));
    assert_eq!(us.machine.handle_message(old, frame(2)), Err(Rejected::Stale));
    assert_eq!(us.machine.handle_resume(old, &resume(0, 0, 0)), Err(Rejected::Stale));
    assert_eq!(us.machine.reading(old), Reading::Never);
    assert_eq!(us.machine.ack_need(old), AckNeed::None);
    us.machine.detach(old);
    assert!(us.machine.is_current(new));
}

#[test]
fn messages_are_read_when_the_peer_has_resumed() {
    let mut us = us();
    let link = attach(&mut us, 2);
    assert_eq!(us.machine.reading(link), Reading::Later);
    us.machine.handle_resume(link, &resume(THEIRS, 0, 0)).unwrap();
    assert_eq!(us.machine.reading(link), Reading::Now);
}

#[test]
fn what_breaks_the_protocol_is_named() {
    let mut us = us();
    send(&mut us, [1]);
    let link = attach(&mut us, 2);
    written(&mut us, link);
    let machine = &mut us.machine;
    assert_eq!(violation(machine.handle_ack(link, 0)), "an ack before the resume");
    let unnamed = machine.handle_resume(link, &resume(0, 0, 0));
    assert_eq!(violation(unnamed), "a session without a name");
    let boast = machine.handle_resume(link, &resume(THEIRS, OURS, 2));
    assert_eq!(violation(boast), "message 2 is said to have arrived where 1 were sent");
    machine.handle_resume(link, &resume(THEIRS, 99, 2)).unwrap();
    let second = machine.handle_resume(link, &resume(THEIRS, 0, 0));
    assert_eq!(violation(second), "a second resume");
    let early = machine.handle_ack(link, 2);
    assert_eq!(violation(early), "message 2 is said to have arrived where 1 were sent");
    machine.handle_message(link, frame(5)).unwrap();
    assert_eq!(violation(machine.handle_message(link, frame(7))), "message 7 where 6 was next");
}

#[test]
fn the_end_settles_everything() {
    let mut us = us();
    send(&mut us, 1..=2);
    let link = attach(&mut us, 2);
    written(&mut us, link);
    send(&mut us, [3]);
    us.machine.end("stopped");
    let unknown = Fate::Unknown(Cause::Ended("stopped".to_owned()));
    assert_eq!(us.fates(), [(1, unknown.clone()), (2, unknown), (3, Fate::NotSent)]);
    assert_eq!(us.machine.attach(name(2), 9), Err(NotAttached::Ended));
    assert!(!us.machine.is_current(link));
}

#[tokio::test(start_paused = true)]
async fn an_ack_that_was_lost_with_its_link_is_said_again() {
    let (mut us, mut them) = (us(), Side::new(2, THEIRS));
    let now = Instant::now();
    send(&mut us, [1]);
    for link in 1..=2 {
        let (mut there, mut back) = (Way::default(), Way::default());
        there.attach(&mut us, name(2), link).unwrap();
        back.attach(&mut them, name(1), link).unwrap();
        (there.receiver, back.receiver) = (back.sender, there.sender);
        back.deliver_control(&mut us, 1_000).unwrap();
        there.deliver_control(&mut them, 1_000).unwrap();
        there.write(&mut us);
        there.deliver_messages(&mut them, 1_000).unwrap();
        them.consume(now);
        assert_eq!(us.fates(), []);
        // The second time it arrives.
        back.write(&mut them);
        if link == 2 {
            back.deliver_control(&mut us, 1_000).unwrap();
        }
    }
    assert_eq!(us.fates(), [(1, Fate::Delivered)]);
}
