//! The task that keeps one record of ours in the DHT: [`Publication`] decides when, this does it.

use std::sync::Arc;

use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};
use tracing::{debug, info};

use super::{
    blinding::WriteKey,
    item::Item,
    location::Name,
    publication::{Found, Output, Publication, Writers},
    record::{Helper, PeerRecord},
    rendezvous::Rendezvous,
    service_record::{ServiceEntry, ServiceRecord},
};
use crate::{
    behaviour::NatBehaviour, candidate::Candidate, entropy::Entropy, identity::Identity,
    time::UnixMillis,
};

/// What a record says; without candidates or helpers there is nothing to say yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Where we may be reached, best first.
    pub candidates: Vec<Candidate>,
    /// How our NAT behaves.
    pub nat: NatBehaviour,
    /// Who forwards offers to us, best first.
    pub helpers: Vec<Helper>,
}

/// Everything needed to publish under one name.
#[derive(Debug)]
pub struct Publisher {
    /// Where to.
    pub rendezvous: Arc<dyn Rendezvous>,
    /// Under which name.
    pub name: Name,
    /// Who we are.
    pub identity: Identity,
    /// For nonces, and for whom of two writers gives way.
    pub entropy: Entropy,
    /// The wall clock.
    pub clock: fn() -> UnixMillis,
    /// What to say; each change is published.
    pub content: watch::Receiver<Content>,
    /// Told whether the record is stored.
    pub published: watch::Sender<bool>,
}

impl Publisher {
    /// Publishes until nobody changes the content any more. Dropping the future stops it.
    pub async fn run(mut self) {
        let writers = match self.name {
            Name::Service(_) => Writers::Many,
            Name::Peer(_) | Name::Ticket(..) => Writers::OnlyUs,
        };
        let mut publication = Publication::new(writers, self.entropy.fork());
        let mut listed = ServiceRecord::default();
        let mut ours: Option<ServiceEntry> = None;
        if !self.content.borrow_and_update().is_empty() {
            publication.handle_changed(now());
        }
        loop {
            while let Some(output) = publication.poll_output() {
                match output {
                    Output::Read => {
                        let found = self.read(&mut listed, ours.as_ref()).await;
                        publication.handle_read(found, now());
                    }
                    Output::Write { cas, seq_min } => {
                        let seq = i64::try_from((self.clock)().0)
                            .unwrap_or(i64::MAX)
                            .max(seq_min);
                        let (key, value) = self.make(&listed, &mut ours);
                        let item = Item::sign(&key, seq, value);
                        let result = self.rendezvous.put(item, cas).await;
                        debug!(name = ?self.name.record().target, ?result, "record written");
                        publication.handle_written(seq, &result, now());
                        self.tell(publication.is_published());
                    }
                }
            }
            let wait = async {
                match publication.poll_timeout() {
                    Some(at) => sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = self.content.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    if !self.content.borrow_and_update().is_empty() {
                        publication.handle_changed(now());
                    }
                }
                () = wait => publication.handle_timeout(now()),
            }
        }
    }

    async fn read(&self, listed: &mut ServiceRecord, ours: Option<&ServiceEntry>) -> Found {
        let (newest, end) = self.rendezvous.get(self.name.record()).newest().await;
        let Some(item) = newest else {
            *listed = ServiceRecord::default();
            return if end.answered == 0 {
                Found::Nobody
            } else {
                Found::Nothing
            };
        };
        // What cannot be opened is written over: it keeps everybody out.
        *listed = ServiceRecord::open(item.value(), &self.name, (self.clock)()).unwrap_or_default();
        if ours.is_some_and(|entry| listed.entries.contains(entry)) {
            Found::WithUs(item.seq())
        } else {
            Found::WithoutUs(item.seq())
        }
    }

    /// What to write now, and the key to sign it with.
    fn make(
        &mut self,
        listed: &ServiceRecord,
        ours: &mut Option<ServiceEntry>,
    ) -> (WriteKey, Vec<u8>) {
        let (now, content) = ((self.clock)(), self.content.borrow().clone());
        if let Name::Service(_) = self.name {
            let entry = ServiceEntry::new(&self.identity, &self.name, &content.candidates, now);
            let merged = listed.merge(std::slice::from_ref(&entry), now);
            *ours = Some(entry);
            let sealed = merged.seal(&self.name, &mut self.entropy);
            return (self.name.service_record_key(), sealed);
        }
        let record = PeerRecord {
            peer: self.identity.peer_id(),
            made_at: now,
            candidates: content.candidates,
            nat: content.nat,
            helpers: content.helpers,
        };
        let sealed = record.seal(&self.identity, &self.name.sealing_key(), &mut self.entropy);
        (self.name.own_record_key(&self.identity), sealed)
    }

    fn tell(&self, published: bool) {
        let changed = self.published.send_if_modified(|before| {
            let changed = *before != published;
            *before = published;
            changed
        });
        if changed {
            info!(name = ?self.name.record().target, published, "record");
        }
    }
}

impl Content {
    fn is_empty(&self) -> bool {
        self.candidates.is_empty() && self.helpers.is_empty()
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::task::JoinSet;

    use super::*;
    use crate::{
        candidate::CandidateKind,
        dht::memory::{Conditions, MemoryDht, Reach},
        service::Service,
    };

    const NOW: UnixMillis = UnixMillis(1_763_820_000_000);

    fn identity(seed: u8) -> Identity {
        Identity::from_seed([seed; 32])
    }

    fn content(port: u16) -> Content {
        let address = ([198, 51, 100, 9], port).into();
        let candidate = Candidate::new(CandidateKind::ServerReflexive, address).unwrap();
        Content {
            candidates: vec![candidate],
            ..Content::default()
        }
    }

    fn service() -> Name {
        Name::Service(Service::open("myapi:v1".parse().unwrap()))
    }

    /// A running publisher, and what it publishes.
    fn publish(
        tasks: &mut JoinSet<()>,
        dht: &MemoryDht,
        name: &Name,
        seed: u8,
    ) -> (watch::Sender<Content>, watch::Receiver<bool>) {
        let (content_sender, content) = watch::channel(content(1));
        let (published, published_receiver) = watch::channel(false);
        let publisher = Publisher {
            rendezvous: dht.rendezvous(),
            name: name.clone(),
            identity: identity(seed),
            entropy: Entropy::from_seed(seed.into()),
            clock: || NOW,
            content,
            published,
        };
        tasks.spawn(publisher.run());
        (content_sender, published_receiver)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_record_is_stored_and_follows_its_content() {
        let (dht, mut tasks) = (MemoryDht::new(Conditions::default()), JoinSet::new());
        let name = Name::Peer(identity(1).peer_id());
        let (changes, mut published) = publish(&mut tasks, &dht, &name, 1);
        published.wait_for(|published| *published).await.unwrap();
        let stored = || {
            let item = dht.stored(name.record().target).unwrap();
            let key = name.sealing_key();
            PeerRecord::open(item.value(), &identity(1).peer_id(), &key, NOW)
                .unwrap()
                .candidates
        };
        assert_eq!(stored(), content(1).candidates);
        changes.send(content(2)).unwrap();
        tokio::time::sleep(Duration::from_secs(6)).await;
        assert_eq!(stored(), content(2).candidates);
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_is_stored_when_the_network_appears() {
        let (dht, mut tasks) = (MemoryDht::new(Conditions::default()), JoinSet::new());
        let online = dht.conditions();
        dht.set_conditions(Conditions {
            reach: Reach::Offline,
            ..online
        });
        let name = Name::Peer(identity(1).peer_id());
        let (_changes, mut published) = publish(&mut tasks, &dht, &name, 1);
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(!*published.borrow());
        dht.set_conditions(online);
        published.wait_for(|published| *published).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn servers_that_start_together_all_end_up_in_the_list() {
        let (dht, mut tasks) = (MemoryDht::new(Conditions::default()), JoinSet::new());
        let handles: Vec<_> = (1..=5)
            .map(|seed| publish(&mut tasks, &dht, &service(), seed))
            .collect();
        tokio::time::sleep(Duration::from_secs(30)).await;
        let item = dht.stored(service().record().target).unwrap();
        let record = ServiceRecord::open(item.value(), &service(), NOW).unwrap();
        let listed = (1..=5)
            .filter(|seed| record.lists(&identity(*seed).peer_id()))
            .count();
        assert_eq!((listed, record.rejected), (5, Vec::new()));
        drop(handles);
    }
}
