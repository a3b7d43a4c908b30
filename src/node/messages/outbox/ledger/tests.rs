//! What the ledger does, told as stories.

use super::*;
use crate::identity::{Identity, PeerId};

fn peer(seed: u8) -> PeerId {
    Identity::from_seed([seed; 32]).peer_id()
}

fn message(id: &str) -> Message {
    Message { id: id.to_owned(), ..Message::default() }
}

/// Of the message that is called by its number.
fn entry(number: u64) -> Entry {
    let message = message(&number.to_string());
    Entry { number, target: Target::Peer(peer(1)), message }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn lost() -> Result<Receipt, Failure> {
    Err(Failure::new(Code::PunchTimeout, "nobody there"))
}

fn delivered(id: &str) -> Receipt {
    Receipt {
        peer: Some(peer(1)),
        message_id: id.to_owned(),
        state: SendState::Delivered,
        rtt: secs(0),
    }
}

/// A ledger, and what it wants done in words.
struct Story {
    ledger: Ledger<&'static str>,
    start: Instant,
}

impl Story {
    fn new(entries: Vec<Entry>) -> Self {
        let start = tokio::time::Instant::now().into_std();
        Self { ledger: Ledger::new(entries, start), start }
    }

    fn at(&self, seconds: u64) -> Instant {
        self.start + secs(seconds)
    }

    fn accept(&mut self, id: &'static str, second: u64) {
        let times = (self.at(second), self.at(second + 20));
        self.ledger.accept((Target::Peer(peer(1)), message(id)), id, times);
    }

    fn told(&mut self) -> Vec<String> {
        let outputs = std::iter::from_fn(|| self.ledger.poll_output());
        let told = outputs.map(|output| match output {
            Output::Store(entry) => format!("store {}", entry.message.id),
            Output::Post(entry) => format!("post {}", entry.message.id),
            Output::Remove(number) => format!("remove {number}"),
            Output::Answer(who, Ok(receipt)) => format!("answer {who} {:?}", receipt.state),
            Output::Answer(who, Err(failure)) => format!("answer {who} {}", failure.code),
            Output::Tell(receipt) => format!("tell {}", receipt.message_id),
            Output::Lost(failure) => format!("lost: {}", failure.code),
        });
        told.collect()
    }
}

#[test]
fn a_message_is_on_disk_before_it_goes_out_and_until_it_has_arrived() {
    let mut story = Story::new(Vec::new());
    story.accept("a", 0);
    assert_eq!(story.told(), ["store a"]);
    story.ledger.handle_stored(1, Ok(()), story.at(0));
    assert_eq!(story.told(), ["post a"]);
    story.ledger.handle_posted(1, Ok(delivered("a")), story.at(1));
    assert_eq!(story.told(), ["remove 1", "answer a Delivered"]);
    assert_eq!(story.ledger.poll_timeout(), None);
}

#[test]
fn whoever_waits_too_long_is_told_that_it_is_queued_and_later_that_it_arrived() {
    let mut story = Story::new(Vec::new());
    story.accept("a", 0);
    story.ledger.handle_stored(1, Ok(()), story.at(0));
    story.told();
    story.ledger.handle_posted(1, lost(), story.at(10));
    assert_eq!(story.ledger.poll_timeout(), Some(story.at(11)));
    story.ledger.handle_timeout(story.at(11));
    assert_eq!(story.told(), ["post a"]);
    story.ledger.handle_timeout(story.at(20));
    assert_eq!(story.told(), ["answer a Queued"]);
    story.ledger.handle_posted(1, Ok(delivered("a")), story.at(25));
    assert_eq!(story.told(), ["remove 1", "tell a"]);
}

#[test]
fn what_was_on_disk_goes_out_at_once_and_in_order() {
    let mut story = Story::new(vec![entry(7), entry(8)]);
    assert_eq!(story.told(), ["post 7", "post 8"]);
    story.accept("i", 0);
    story.ledger.handle_stored(9, Ok(()), story.at(0));
    assert_eq!(story.told(), ["store i", "post i"], "numbers go on");
}

#[test]
fn attempts_come_further_apart_unless_the_peer_is_there() {
    let mut story = Story::new(Vec::new());
    story.accept("a", 0);
    story.ledger.handle_stored(1, Ok(()), story.at(0));
    let mut now = story.start;
    let mut pauses = Vec::new();
    for _ in 0..8 {
        story.ledger.handle_posted(1, lost(), now);
        let due = story.ledger.lanes.values().find_map(|lane| lane.paused_until).unwrap();
        pauses.push((due - now).as_secs());
        now = due;
        story.ledger.handle_timeout(now);
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    story.told();
    story.ledger.handle_posted(1, lost(), now);
    story.ledger.handle_link_up(&[Target::Peer(peer(2))], now);
    assert_eq!(story.told(), [""; 0], "somebody else");
    story.ledger.handle_link_up(&[Target::Peer(peer(1))], now);
    assert_eq!(story.told(), ["post a"]);
}

#[test]
fn a_new_message_takes_those_before_it_along() {
    let mut story = Story::new(Vec::new());
    for (number, id) in [(1, "a"), (2, "b")] {
        story.accept(id, 0);
        story.ledger.handle_stored(number, Ok(()), story.at(0));
    }
    story.told();
    for number in [1, 2] {
        story.ledger.handle_posted(number, lost(), story.at(1));
    }
    story.accept("c", 1);
    assert_eq!(story.told(), ["store c"]);
    story.ledger.handle_stored(3, Ok(()), story.at(1));
    assert_eq!(story.told(), ["post a", "post b", "post c"]);
}

#[test]
fn what_can_never_arrive_is_given_back() {
    let mut story = Story::new(Vec::new());
    story.accept("a", 0);
    story.ledger.handle_stored(1, Ok(()), story.at(0));
    story.told();
    let refused = Failure::new(Code::Refused, "not on the list");
    story.ledger.handle_posted(1, Err(refused), story.at(0));
    assert_eq!(story.told(), ["remove 1", "answer a refused"]);
}

#[test]
fn what_was_queued_outlives_a_refusal_and_is_not_lost_without_a_word() {
    let mut story = Story::new(Vec::new());
    story.accept("a", 0);
    story.ledger.handle_stored(1, Ok(()), story.at(0));
    story.ledger.handle_timeout(story.at(20));
    story.told();
    let refused = || Err(Failure::new(Code::Refused, "busy"));
    story.ledger.handle_posted(1, refused(), story.at(21));
    story.ledger.handle_timeout(story.at(22));
    assert_eq!(story.told(), ["post a"]);
    let too_large = Err(Failure::new(Code::MessageTooLarge, "17 MiB"));
    story.ledger.handle_posted(1, too_large, story.at(23));
    assert_eq!(story.told(), ["remove 1", "lost: message_too_large"]);
}

#[test]
fn only_so_many_messages_to_one_peer_are_on_their_way() {
    let mut story = Story::new((1..=600).map(entry).collect());
    assert_eq!(story.told().len(), POSTED_MAX);
    story.ledger.handle_posted(1, Ok(delivered("1")), story.at(1));
    assert_eq!(story.told(), ["remove 1", "tell 1", "post 513"]);
}

#[test]
fn a_message_that_is_given_up_makes_room_for_those_behind_it() {
    let mut story = Story::new((1..=513).map(entry).collect());
    assert_eq!(story.told().len(), POSTED_MAX);
    let too_large = Err(Failure::new(Code::MessageTooLarge, "17 MiB"));
    story.ledger.handle_posted(1, too_large, story.at(1));
    assert_eq!(story.told(), ["remove 1", "lost: message_too_large", "post 513"]);
}

#[test]
fn a_message_that_could_not_be_stored_holds_up_nobody() {
    let mut story = Story::new(Vec::new());
    story.accept("a", 0);
    story.accept("b", 0);
    story.ledger.handle_stored(2, Ok(()), story.at(0));
    assert_eq!(story.told(), ["store a", "store b"]);
    let full = Failure::new(Code::OutboxUnusable, "the disk is full");
    story.ledger.handle_stored(1, Err(full), story.at(0));
    assert_eq!(story.told(), ["remove 1", "answer a outbox_unusable", "post b"]);
}

#[test]
fn targets_that_nothing_is_for_are_forgotten() {
    let mut story = Story::new(vec![entry(1)]);
    story.ledger.handle_posted(1, lost(), story.at(1));
    story.ledger.handle_timeout(story.at(2));
    story.ledger.handle_posted(1, Ok(delivered("1")), story.at(3));
    assert!(story.ledger.lanes.is_empty());
}

#[test]
fn a_full_outbox_says_so() {
    let mut story = Story::new(Vec::new());
    for _ in 0..ENTRIES_MAX {
        story.accept("a", 0);
    }
    story.told();
    story.accept("b", 0);
    assert_eq!(story.told(), ["answer b queue_full"]);
}
