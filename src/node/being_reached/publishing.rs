//! A server can be found: its records in the DHT, and its inboxes.

use std::{
    iter,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::AbortHandle;

use super::answering::Slot;
use crate::{
    dht::{
        item::Item,
        location::Name,
        publication::{self, Found, Publication, Writers},
        record::PeerRecord,
        rendezvous::{PutError, Rendezvous, Stored},
        service_record::{Description, ServiceEntry, ServiceRecord},
    },
    entropy::Entropy,
    node::{
        config::Role,
        driver::{Driver, Outcome},
        event::Event,
        helping::{reachability::is_public, recruiting},
    },
    ticket::Ticket,
    time::UnixMillis,
};

/// Everything this node is found by.
#[derive(Debug, Default)]
pub(in crate::node) struct Publishing {
    records: Vec<Record>,
    first: FirstWrites,
    was_online: bool,
    /// DHT nodes that took the last record.
    stored_at: usize,
}

/// Whether the first records wait for a helper that the user names: without it they would say nothing of it until
/// [`publication::CHANGE_INTERVAL`] later.
#[derive(Debug, Default)]
enum FirstWrites {
    /// Nothing was to be written yet.
    #[default]
    None,
    /// These wait until then.
    Held { until: Instant, writes: Vec<(usize, Write)> },
    /// Nothing waits any more.
    Begun,
}

/// What a record may replace, and the least number that it may have.
type Write = (Option<i64>, i64);

#[derive(Debug)]
struct Record {
    name: Name,
    purpose: Purpose,
    publication: Publication,
    /// The list as it was last read, for a service.
    read: ServiceRecord,
    /// When our newest entry was made.
    entry_made_at: UnixMillis,
}

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// Peers find us by it.
    Peers,
    /// Nodes that need a helper find us by it.
    Helping,
}

/// What a task that reads or writes a record reports; records are counted from 0.
#[derive(Debug)]
pub(in crate::node) enum Published {
    /// The record was read: nodes that answered, and what lies there.
    Read { record: usize, answered: usize, item: Option<Item> },
    /// The record was written, or not.
    Written { record: usize, seq: i64, result: Result<Stored, PutError> },
}

impl Publishing {
    /// When a record is due.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        let held = match &self.first {
            FirstWrites::Held { until, .. } => Some(*until),
            FirstWrites::None | FirstWrites::Begun => None,
        };
        let records = self.records.iter().filter_map(|record| record.publication.poll_timeout());
        records.chain(held).min()
    }

    /// The network is another one: what could not be written may be written now.
    pub(in crate::node) fn hurry(&mut self, now: Instant) {
        let failing = self.records.iter_mut().filter(|record| !record.publication.is_published());
        for record in failing {
            record.publication.handle_network_change(now);
        }
    }

    /// Whether every record is in the DHT.
    pub(in crate::node) fn is_online(&self) -> bool {
        let mut own = self.records.iter().filter(|record| record.purpose == Purpose::Peers);
        let has_any = self.records.iter().any(|record| record.purpose == Purpose::Peers);
        has_any && own.all(|record| record.publication.is_published())
    }
}

impl Driver {
    /// A server begins to watch its inboxes; its records follow when it knows its addresses.
    pub(in crate::node) fn begin_publishing(&mut self) {
        let Some(rendezvous) = self.rendezvous.clone() else {
            return;
        };
        if self.config.role == Role::Client {
            return;
        }
        for name in self.own_names() {
            self.watch_inbox(&rendezvous, &name);
            let entropy = self.entropy.fork();
            self.publishing.records.push(Record::new(name, Purpose::Peers, entropy));
        }
    }

    /// Lists us among the helpers.
    pub(in crate::node) fn list_as_helper(&mut self) {
        if self.rendezvous.is_some() {
            let entropy = self.entropy.fork();
            let record = Record::new(recruiting::list_of(&self.us), Purpose::Helping, entropy);
            self.publishing.records.push(record);
            self.renew_records();
        }
    }

    /// Lets our entry among the helpers run out.
    pub(in crate::node) fn unlist_as_helper(&mut self) {
        // It is the last of all records, so that those before it keep their numbers.
        self.publishing.records.pop_if(|record| record.purpose == Purpose::Helping);
    }

    /// Takes in whatever offers lie in the inbox of `name`, until that is aborted.
    pub(in crate::node) fn watch_inbox(
        &mut self,
        rendezvous: &Arc<dyn Rendezvous>,
        name: &Name,
    ) -> AbortHandle {
        let slots = name.inbox();
        let mut watch = rendezvous.watch(slots.clone());
        let (outcomes, name) = (self.outcomes(), name.clone());
        self.spawn(async move {
            while let Some((location, item)) = watch.next().await {
                let index = (0_u8..).zip(&slots).find(|(_, slot)| **slot == location);
                let Some((index, _)) = index else { continue };
                let slot = Slot { name: name.clone(), index, seq: item.seq() };
                // A driver that is gone needs no offers.
                let _ = outcomes.send(Outcome::Inbox(item.value().to_vec(), slot)).await;
            }
        })
    }

    /// The names under which this node is found. With a secret, the bare peer id is none of them.
    pub(in crate::node) fn own_names(&self) -> Vec<Name> {
        let service = self.config.service.clone();
        let is_private = service.as_ref().is_some_and(|service| service.secret.is_some());
        let secret = Ticket::of(&self.config.identity, Vec::new()).secret;
        let public = (!is_private).then_some(Name::Peer(self.us));
        let service = service.map(Name::Service);
        service.into_iter().chain(public).chain([Name::Ticket(self.us, secret)]).collect()
    }

    /// Our addresses are others than before, or known for the first time.
    pub(in crate::node) fn handle_presence_changed(&mut self) {
        self.handle_own_addresses();
        self.renew_records();
    }

    /// Our records are to say something else than before.
    pub(in crate::node) fn renew_records(&mut self) {
        let gathered = self.addresses.gathered();
        if !gathered.complete || gathered.candidates.is_empty() {
            return;
        }
        let now = self.clock.now();
        let held = self.hold_first_writes(now);
        for (index, record) in self.publishing.records.iter_mut().enumerate() {
            // What is still to be written says what there is then.
            if !held.contains(&index) {
                record.publication.handle_changed(now);
            }
        }
        self.drain_publishing();
    }

    /// Holds the first records back while there is reason to; returns those that are held or were until now.
    fn hold_first_writes(&mut self, now: Instant) -> Vec<usize> {
        if matches!(self.publishing.first, FirstWrites::None) {
            let until = now + HELPER_WAIT;
            self.publishing.first = FirstWrites::Held { until, writes: Vec::new() };
        }
        let FirstWrites::Held { until, writes } = &mut self.publishing.first else {
            return Vec::new();
        };
        let held = writes.iter().map(|(index, _)| *index).collect();
        let needs_none = self.config.helpers.is_empty();
        if needs_none || *until <= now || !self.helping.helpers().is_empty() {
            let writes = std::mem::take(writes);
            self.publishing.first = FirstWrites::Begun;
            for (index, write) in writes {
                self.write_record(index, write);
            }
        }
        held
    }

    /// Writes the records that are due.
    pub(in crate::node) fn wake_publishing(&mut self, now: Instant) {
        if matches!(self.publishing.first, FirstWrites::Held { .. }) {
            self.hold_first_writes(now);
        }
        for record in &mut self.publishing.records {
            record.publication.handle_timeout(now);
        }
        self.drain_publishing();
    }

    /// Takes in what a task reports.
    pub(in crate::node) fn handle_published(&mut self, published: Published) {
        let (now, unix) = (self.clock.now(), self.clock.unix());
        match published {
            Published::Read { record, answered, item } => {
                let Some(record) = self.publishing.records.get_mut(record) else {
                    return;
                };
                let found = record.take_read(answered, item.as_ref(), &self.us, unix);
                tracing::debug!(?found, answered, "a record was read");
                record.publication.handle_read(found, now);
                self.announce_online();
            }
            Published::Written { record, seq, result } => {
                if let Err(error) = &result {
                    tracing::warn!(%error, "a record could not be published");
                }
                if let Ok(stored) = &result {
                    self.publishing.stored_at = stored.nodes;
                }
                let Some(record) = self.publishing.records.get_mut(record) else {
                    return;
                };
                record.publication.handle_written(seq, &result, now);
                self.announce_online();
            }
        }
        self.drain_publishing();
    }

    fn announce_online(&mut self) {
        let is_online = self.publishing.is_online();
        if is_online && !self.publishing.was_online {
            let candidates = self.addresses.gathered().candidates;
            self.events.emit(Event::Online {
                stored_at: self.publishing.stored_at,
                addresses: candidates.into_iter().map(|candidate| candidate.address).collect(),
                took: self.clock.now().saturating_duration_since(self.started),
            });
        }
        self.publishing.was_online = is_online;
    }

    fn drain_publishing(&mut self) {
        let Some(rendezvous) = self.rendezvous.clone() else {
            return;
        };
        for index in 0..self.publishing.records.len() {
            let Some(record) = self.publishing.records.get_mut(index) else {
                continue;
            };
            match record.publication.poll_output() {
                Some(publication::Output::Read) => {
                    let at = record.name.record();
                    let (rendezvous, outcomes) = (rendezvous.clone(), self.outcomes());
                    self.spawn(async move {
                        let (item, end) = rendezvous.get(at).newest().await;
                        let read = Published::Read { record: index, answered: end.answered, item };
                        // A driver that is gone needs no answer, here and below.
                        let _ = outcomes.send(Outcome::Published(read)).await;
                    });
                }
                Some(publication::Output::Write { cas, seq_min }) => {
                    match &mut self.publishing.first {
                        FirstWrites::Held { writes, .. } => writes.push((index, (cas, seq_min))),
                        FirstWrites::None | FirstWrites::Begun => {
                            self.write_record(index, (cas, seq_min));
                        }
                    }
                }
                None => {}
            }
        }
    }

    fn write_record(&mut self, index: usize, (cas, seq_min): Write) {
        let Some(rendezvous) = self.rendezvous.clone() else {
            return;
        };
        let unix = self.clock.unix();
        let gathered = self.addresses.gathered();
        let helpers = self.helping.helpers();
        let Some(record) = self.publishing.records.get_mut(index) else {
            return;
        };
        let seq = i64::try_from(unix.0).unwrap_or(i64::MAX).max(seq_min);
        let (identity, name, entropy) = (&self.config.identity, &record.name, &mut self.entropy);
        let item = match name {
            Name::Service(_) => {
                let mut candidates = gathered.candidates;
                let helpers = match record.purpose {
                    Purpose::Peers => helpers,
                    Purpose::Helping => {
                        candidates.retain(|candidate| is_public(candidate.address.ip()));
                        Vec::new()
                    }
                };
                let description = Description {
                    candidates: &candidates,
                    nat: gathered.nat,
                    helpers: &helpers,
                    size_max: record.read.entry_size(&self.us),
                };
                let entry = ServiceEntry::describing(identity, name, &description, unix);
                record.entry_made_at = entry.made_at;
                let value = record.read.merge(&[entry], unix).seal(name, entropy);
                Item::sign(&name.service_record_key(), seq, value)
            }
            Name::Peer(_) | Name::Ticket(..) => {
                let value = PeerRecord {
                    peer: self.us,
                    made_at: unix,
                    candidates: gathered.candidates,
                    nat: gathered.nat,
                    helpers,
                }
                .seal(identity, &name.sealing_key(), entropy);
                Item::sign(&name.own_record_key(identity), seq, value)
            }
        };
        tracing::debug!(seq, cas, "a record is written");
        let outcomes = self.outcomes();
        self.spawn(async move {
            let result = rendezvous.put(item, cas).await;
            let written = Published::Written { record: index, seq, result };
            let _ = outcomes.send(Outcome::Published(written)).await;
        });
    }
}

impl Driver {
    /// Whether a record of ours is where everybody who knows our peer id can find it.
    pub(in crate::node) fn is_published(&self) -> bool {
        self.publishing.records.iter().any(|record| matches!(record.name, Name::Peer(_)))
    }
}

impl Driver {
    /// Takes this server off the service's list, so that nobody dials it in vain; the future ends when
    /// that is done, or has had its time.
    pub(in crate::node) fn retire(&mut self) -> impl Future<Output = ()> + use<> {
        let farewell = self.farewell();
        let rendezvous = self.rendezvous.clone();
        async move {
            let mut puts = tokio::task::JoinSet::new();
            for ((item, cas), rendezvous) in farewell.into_iter().zip(iter::repeat(rendezvous)) {
                puts.spawn(async move {
                    if let Some(rendezvous) = rendezvous {
                        // In vain, others find out that we are gone when they dial.
                        let _ = tokio::time::timeout(RETIRE_TIME, rendezvous.put(item, cas)).await;
                    }
                });
            }
            while puts.join_next().await.is_some() {}
        }
    }

    /// The lists without us, to replace those that we know.
    fn farewell(&mut self) -> Vec<(Item, Option<i64>)> {
        let (unix, us, entropy) = (self.clock.unix(), self.us, &mut self.entropy);
        let records = self.publishing.records.iter_mut();
        let lists = records.filter(|record| {
            matches!(record.name, Name::Service(_)) && record.entry_made_at != UnixMillis::default()
        });
        let without_us = |record: &mut Record| {
            let cas = record.publication.seq();
            let seq_min = cas.map_or(1, |seq| seq.saturating_add(1));
            let seq = i64::try_from(unix.0).unwrap_or(i64::MAX).max(seq_min);
            record.read.entries.retain(|entry| entry.peer != us);
            let value = record.read.merge(&[], unix).seal(&record.name, entropy);
            (Item::sign(&record.name.service_record_key(), seq, value), cas)
        };
        lists.map(without_us).collect()
    }
}

impl Record {
    /// One that was never published.
    fn new(name: Name, purpose: Purpose, entropy: Entropy) -> Self {
        let writers = match &name {
            Name::Service(_) => Writers::Many,
            Name::Peer(_) | Name::Ticket(..) => Writers::OnlyUs,
        };
        Self {
            name,
            purpose,
            publication: Publication::new(writers, entropy),
            read: ServiceRecord::default(),
            entry_made_at: UnixMillis::default(),
        }
    }

    /// Takes in what lies at the record's place.
    fn take_read(
        &mut self,
        answered: usize,
        item: Option<&Item>,
        us: &crate::identity::PeerId,
        now: UnixMillis,
    ) -> Found {
        let Some(item) = item else {
            self.read = ServiceRecord::default();
            return if answered == 0 { Found::Nobody } else { Found::Nothing };
        };
        // What is not a record any more is written over.
        self.read = ServiceRecord::open(item.value(), &self.name, now).unwrap_or_default();
        let ours = self.read.entries.iter().find(|entry| entry.peer == *us);
        match ours {
            Some(entry) if entry.made_at >= self.entry_made_at => Found::WithUs(item.seq()),
            Some(_) | None => Found::WithoutUs(item.seq()),
        }
    }
}

/// How long the first records wait for a helper that the user names: a lookup, and two round trips to it.
const HELPER_WAIT: Duration = Duration::from_secs(2);

/// A put takes a round trip, and up to a second if the nodes were asked just now.
const RETIRE_TIME: Duration = Duration::from_millis(1_500);
