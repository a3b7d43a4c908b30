//! Messages that outlive this program: on disk until their receivers have them (`--outbox DIR`).
//!
//! A message is on disk before it goes out, and goes out again after a restart; the receiver knows it by
//! its id. The [`ledger`] decides, the [`store`] writes.

mod ledger;
mod store;

use std::time::{Duration, Instant};

use self::ledger::{Ledger, Output};
pub(in crate::node) use self::store::{Contents, Entry, Seen, Store};
use crate::{
    failure::Failure,
    identity::PeerId,
    node::{
        driver::{Driver, Outcome},
        event::{Event, Receipt, Target},
        handle::Answer as AnswerTo,
        reaching::dialling::Wish,
    },
    proto::Message,
    time::UnixMillis,
    transport::session::DOUBLES_TIME,
};

/// The outbox of a node that has one.
#[derive(Debug)]
pub(in crate::node) struct Outbox {
    ledger: Ledger<AnswerTo<Receipt>>,
    store: Store,
    next_note: Instant,
    next_prune: Instant,
    /// Outputs are being performed: what that leads to is performed after them.
    is_draining: bool,
}

/// What tasks report of it.
#[derive(Debug)]
pub(in crate::node) enum Kept {
    /// The message with this number is on disk, or is not.
    Stored(u64, Result<(), Failure>),
    /// How it fared on its way.
    Posted(u64, Result<Receipt, Failure>),
}

impl Outbox {
    /// The outbox in `store`, with the messages that were left in it.
    pub(in crate::node) fn new(
        store: Store,
        entries: Vec<Entry>,
        (now, unix): (Instant, UnixMillis),
    ) -> Self {
        prune(&store, unix);
        Self {
            ledger: Ledger::new(entries, now),
            store,
            next_note: now + NOTE_INTERVAL,
            next_prune: now + DOUBLES_TIME,
            is_draining: false,
        }
    }

    /// When something is due.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        self.ledger.poll_timeout().into_iter().chain([self.next_note]).min()
    }
}

impl Driver {
    /// Takes a message that the user sends; answers when it is delivered, or at its deadline.
    pub(in crate::node) fn keep(
        &mut self,
        (target, message): (Target, Message),
        timeout: Option<Duration>,
        answer: AnswerTo<Receipt>,
    ) {
        let now = self.clock.now();
        let deadline = now + timeout.unwrap_or(self.config.connect_timeout);
        if let Some(outbox) = &mut self.outbox {
            outbox.ledger.accept((target, message), answer, (now, deadline));
            self.drain_outbox();
        }
    }

    /// Takes in what a task reports.
    pub(in crate::node) fn handle_kept(&mut self, kept: Kept) {
        let now = self.clock.now();
        if let Some(outbox) = &mut self.outbox {
            match kept {
                Kept::Stored(number, stored) => outbox.ledger.handle_stored(number, stored, now),
                Kept::Posted(number, result) => outbox.ledger.handle_posted(number, result, now),
            }
            self.drain_outbox();
        }
    }

    /// Takes in that `peer` is connected; `target` is what it was dialled as.
    pub(in crate::node) fn tell_outbox(&mut self, peer: PeerId, target: Option<Target>) {
        let now = self.clock.now();
        if let Some(outbox) = &mut self.outbox {
            let targets: Vec<Target> = [Target::Peer(peer)].into_iter().chain(target).collect();
            outbox.ledger.handle_link_up(&targets, now);
            self.drain_outbox();
        }
    }

    /// Does what is due.
    pub(in crate::node) fn wake_outbox(&mut self, now: Instant) {
        let Some(outbox) = &mut self.outbox else {
            return;
        };
        outbox.ledger.handle_timeout(now);
        if outbox.next_note <= now {
            outbox.next_note = now + NOTE_INTERVAL;
            self.note_seen();
        }
        if let Some(outbox) = &mut self.outbox
            && outbox.next_prune <= now
        {
            outbox.next_prune = now + DOUBLES_TIME;
            prune(&outbox.store, self.clock.unix());
        }
        self.drain_outbox();
    }

    /// Notes on disk what has arrived lately, so that a restart does not take it twice.
    pub(in crate::node) fn note_seen(&mut self) {
        if let Some(outbox) = &self.outbox {
            let seen = self.sessions.seen_within(2 * NOTE_INTERVAL, self.clock.unix());
            if !seen.is_empty() {
                outbox.store.note_seen(seen);
            }
        }
    }

    pub(in crate::node) fn drain_outbox(&mut self) {
        let Some(outbox) = &mut self.outbox else {
            return;
        };
        if !std::mem::replace(&mut outbox.is_draining, true) {
            self.perform_outbox();
            if let Some(outbox) = &mut self.outbox {
                outbox.is_draining = false;
            }
        }
    }

    fn perform_outbox(&mut self) {
        while let Some(output) = self.outbox.as_mut().and_then(|outbox| outbox.ledger.poll_output())
        {
            match output {
                Output::Store(entry) => {
                    let (Some(outbox), outcomes) = (&self.outbox, self.outcomes()) else {
                        return;
                    };
                    let (store, number) = (outbox.store.clone(), entry.number);
                    self.spawn(async move {
                        let stored = store.put(entry).await;
                        // A driver that is gone needs no answer.
                        let _ = outcomes.send(Outcome::Kept(Kept::Stored(number, stored))).await;
                    });
                }
                Output::Post(entry) => {
                    let wish = Wish::Post(Box::new(entry.message), entry.number);
                    self.fulfil(entry.target, None, wish);
                }
                Output::Remove(number) => {
                    if let Some(outbox) = &self.outbox {
                        outbox.store.remove(number);
                    }
                }
                // Whoever does not wait any more needs no answer.
                Output::Answer(answer, result) => drop(answer.send(result)),
                Output::Tell(receipt) => self.events.emit(Event::Delivered(receipt)),
                Output::Lost(failure) => self.events.emit(Event::Warning(failure)),
            }
        }
    }
}

/// What is too old to be told apart from a new message is not kept for the next start either.
fn prune(store: &Store, now: UnixMillis) {
    let remembered = u64::try_from(DOUBLES_TIME.as_millis()).unwrap_or(u64::MAX);
    store.forget_seen(now.0.saturating_sub(remembered) / 1_000);
}

/// How often what has arrived is noted: a receiver that is killed takes at most so much of it twice.
const NOTE_INTERVAL: Duration = Duration::from_secs(1);
