//! Which messages of the outbox are where: being written, waiting, or on their way.
//!
//! Pure: the shell writes and sends what it is told to, and reports how that went. Messages to one
//! target are posted in their order. When one of them fails, all of them wait a while: the next one would
//! fail, too.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

use super::store::Entry;
use crate::{
    failure::{Code, Failure},
    node::event::{Receipt, SendState, Target},
    proto::Message,
    transport::session::message_cost,
};

/// The messages, with tickets of type `T` for those who wait.
#[derive(Debug)]
pub(in crate::node) struct Ledger<T> {
    entries: BTreeMap<u64, Slot<T>>,
    size: usize,
    last: u64,
    lanes: BTreeMap<String, Lane>,
    deadlines: BTreeSet<(Instant, u64)>,
    outputs: VecDeque<Output<T>>,
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub(in crate::node) enum Output<T> {
    /// Write this.
    Store(Entry),
    /// Send this.
    Post(Entry),
    /// Remove this from the disk.
    Remove(u64),
    /// Tell whoever waits.
    Answer(T, Result<Receipt, Failure>),
    /// Tell the user that what was queued is delivered.
    Tell(Receipt),
    /// Tell the user that what was queued will not be.
    Lost(Failure),
}

#[derive(Debug)]
struct Slot<T> {
    entry: Entry,
    waiter: Option<Waiter<T>>,
}

#[derive(Debug)]
struct Waiter<T> {
    ticket: T,
    began: Instant,
    deadline: Instant,
}

/// The messages to one target that are on disk and not on their way.
#[derive(Debug, Default)]
struct Lane {
    storing: BTreeSet<u64>,
    waiting: BTreeSet<u64>,
    posted: BTreeSet<u64>,
    failures: u32,
    /// After a failure.
    paused_until: Option<Instant>,
}

impl<T> Ledger<T> {
    /// Begins with what was on disk; all of it is due at once.
    pub(in crate::node) fn new(entries: Vec<Entry>, now: Instant) -> Self {
        let mut ledger = Self {
            entries: BTreeMap::new(),
            size: 0,
            last: 0,
            lanes: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            outputs: VecDeque::new(),
        };
        for entry in entries {
            ledger.last = ledger.last.max(entry.number);
            ledger.size += message_cost(&entry.message);
            ledger.lane(&entry.target).waiting.insert(entry.number);
            ledger.entries.insert(entry.number, Slot { entry, waiter: None });
        }
        ledger.post_due(now);
        ledger
    }

    /// Takes a message for `target`; `ticket` is answered when it is delivered, or at `deadline`.
    pub(in crate::node) fn accept(
        &mut self,
        (target, message): (Target, Message),
        ticket: T,
        (began, deadline): (Instant, Instant),
    ) {
        let size = message_cost(&message);
        if self.entries.len() >= ENTRIES_MAX || self.size + size > SIZE_MAX {
            let (length, size) = (self.entries.len(), self.size);
            let failure = Failure::new(Code::QueueFull, "the outbox is full")
                .because(format!("{length} messages of {size} bytes wait in it"))
                .hint("wait until its peers are back, or empty it");
            return self.outputs.push_back(Output::Answer(ticket, Err(failure)));
        }
        self.last += 1;
        self.size += size;
        let entry = Entry { number: self.last, target, message };
        self.outputs.push_back(Output::Store(entry.clone()));
        self.deadlines.insert((deadline, self.last));
        self.lane(&entry.target).storing.insert(entry.number);
        let waiter = Some(Waiter { ticket, began, deadline });
        self.entries.insert(self.last, Slot { entry, waiter });
    }

    /// Takes in that a message is on disk, or is not.
    pub(in crate::node) fn handle_stored(
        &mut self,
        number: u64,
        stored: Result<(), Failure>,
        now: Instant,
    ) {
        match stored {
            Err(failure) => self.give_up(number, failure, now),
            Ok(()) => {
                let Some(slot) = self.entries.get(&number) else { return };
                let lane = self.lanes.entry(key(&slot.entry.target)).or_default();
                lane.storing.remove(&number);
                lane.waiting.insert(number);
                // Somebody wants this now: what waits before it goes, too.
                lane.paused_until = None;
                self.post_due(now);
            }
        }
    }

    /// Takes in how a message that was posted fared.
    pub(in crate::node) fn handle_posted(
        &mut self,
        number: u64,
        result: Result<Receipt, Failure>,
        now: Instant,
    ) {
        match result {
            Ok(receipt) => {
                let Some(slot) = self.remove(number) else { return };
                self.lane(&slot.entry.target).failures = 0;
                self.outputs.push_back(match slot.waiter {
                    Some(Waiter { ticket, .. }) => Output::Answer(ticket, Ok(receipt)),
                    None => Output::Tell(receipt),
                });
                self.post_due(now);
            }
            Err(failure) if is_final(failure.code) => self.give_up(number, failure, now),
            // Whoever waits hears it; what was queued already waits until the peer changes its mind.
            Err(failure) if failure.code == Code::Refused && self.has_waiter(number) => {
                self.give_up(number, failure, now);
            }
            Err(_) => {
                let Some(slot) = self.entries.get(&number) else { return };
                let lane = self.lanes.entry(key(&slot.entry.target)).or_default();
                lane.posted.remove(&number);
                lane.waiting.insert(number);
                lane.pause(now);
            }
        }
    }

    /// Takes in that a link is up to whom these targets name.
    pub(in crate::node) fn handle_link_up(&mut self, targets: &[Target], now: Instant) {
        for target in targets {
            if let Some(lane) = self.lanes.get_mut(&key(target)) {
                lane.paused_until = None;
            }
        }
        self.post_due(now);
    }

    /// Tells those who have waited long enough that their message is queued, and posts what is due.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(deadline, number)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            let Some(slot) = self.entries.get_mut(&number) else { continue };
            if let Some(waiter) = slot.waiter.take() {
                let receipt = Receipt {
                    peer: slot.entry.target.peer(),
                    message_id: slot.entry.message.id.clone(),
                    state: SendState::Queued,
                    rtt: now.saturating_duration_since(waiter.began),
                };
                self.outputs.push_back(Output::Answer(waiter.ticket, Ok(receipt)));
            }
        }
        self.post_due(now);
    }

    /// When something is due.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        let waiting = self.lanes.values().filter(|lane| !lane.waiting.is_empty());
        let pauses = waiting.filter_map(|lane| lane.paused_until);
        self.deadlines.first().map(|(deadline, _)| *deadline).into_iter().chain(pauses).min()
    }

    /// What is to be done next.
    pub(in crate::node) fn poll_output(&mut self) -> Option<Output<T>> {
        self.outputs.pop_front()
    }

    fn lane(&mut self, target: &Target) -> &mut Lane {
        self.lanes.entry(key(target)).or_default()
    }

    fn post_due(&mut self, now: Instant) {
        for lane in self.lanes.values_mut() {
            lane.paused_until.take_if(|until| *until <= now);
            if lane.paused_until.is_some() {
                continue;
            }
            // Disks answer in any order; none is posted before an earlier one.
            let end = lane.storing.first().copied().unwrap_or(u64::MAX);
            while lane.posted.len() < POSTED_MAX
                && lane.waiting.first().is_some_and(|first| *first < end)
                && let Some(number) = lane.waiting.pop_first()
            {
                lane.posted.insert(number);
                let slot = self.entries.get(&number).expect("what waits is entered");
                self.outputs.push_back(Output::Post(slot.entry.clone()));
            }
        }
        self.lanes.retain(|_, lane| !lane.is_idle());
    }

    fn give_up(&mut self, number: u64, failure: Failure, now: Instant) {
        let Some(slot) = self.remove(number) else { return };
        self.outputs.push_back(match slot.waiter {
            Some(waiter) => Output::Answer(waiter.ticket, Err(failure)),
            None => {
                let message = format!("the queued message {} is lost", slot.entry.message.id);
                let why = format!("{}: {}", failure.code, failure.message);
                Output::Lost(Failure::new(failure.code, message).because(why).hint(failure.hint))
            }
        });
        // Those behind it may have waited for its place.
        self.post_due(now);
    }

    fn has_waiter(&self, number: u64) -> bool {
        self.entries.get(&number).is_some_and(|slot| slot.waiter.is_some())
    }

    fn remove(&mut self, number: u64) -> Option<Slot<T>> {
        let slot = self.entries.remove(&number)?;
        self.size -= message_cost(&slot.entry.message);
        if let Some(waiter) = &slot.waiter {
            self.deadlines.remove(&(waiter.deadline, number));
        }
        if let Some(lane) = self.lanes.get_mut(&key(&slot.entry.target)) {
            lane.storing.remove(&number);
            lane.waiting.remove(&number);
            lane.posted.remove(&number);
        }
        self.outputs.push_back(Output::Remove(number));
        Some(slot)
    }
}

impl Lane {
    /// Several messages that fail together count as one failure.
    fn pause(&mut self, now: Instant) {
        if self.paused_until.is_none() {
            let doubled = RETRY_AFTER.saturating_mul(1 << self.failures.min(8));
            self.failures += 1;
            self.paused_until = Some(now + doubled.min(RETRY_AFTER_MAX));
        }
    }

    fn is_idle(&self) -> bool {
        self.storing.is_empty() && self.waiting.is_empty() && self.posted.is_empty()
    }
}

/// Whether another try would fail in the same way.
fn is_final(code: Code) -> bool {
    matches!(code, Code::MessageTooLarge | Code::SelfConnect | Code::InvalidArgument)
}

/// What tells targets apart.
fn key(target: &Target) -> String {
    match target {
        Target::Service(name) => format!("service:{name}"),
        Target::Peer(peer) => peer.to_string(),
        Target::Ticket(ticket) => ticket.peer.to_string(),
    }
}

/// Messages to one target that are on their way at a time: fewer than a dial lets wait, or a session takes,
/// so that none is turned away and overtaken.
const POSTED_MAX: usize = 512;

/// Messages in the outbox.
const ENTRIES_MAX: usize = 10_000;

/// Bytes of messages in the outbox, which memory holds, too.
const SIZE_MAX: usize = 256 << 20;

/// After a failed attempt; doubled with each further one.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The longest time between two attempts: a peer that comes back is found within a minute.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests;
