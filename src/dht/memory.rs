//! A DHT in memory: what [`Rendezvous`] promises, in virtual time and without a datagram.
//!
//! It is as strict as BEP 44's nodes are: numbers must grow, compare-and-swap is honoured, values have a
//! limit. Every operation takes a round trip of the latency that was set.

use std::{
    collections::BTreeMap,
    net::SocketAddrV4,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_lite::future::{Boxed, FutureExt};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until},
};

use super::{
    item::{Item, VALUE_SIZE_MAX},
    location::{Location, Target},
    rendezvous::{
        Counters, Health, Lookup, LookupEnd, Pace, PutError, Rendezvous, Stored, Task, Watch,
    },
};

/// A DHT that all its handles share. Clones are the same DHT.
#[derive(Clone, Debug)]
pub struct MemoryDht {
    state: Arc<Mutex<State>>,
    /// Watches of this node, which share its polls.
    watches: Arc<AtomicU32>,
    /// Of one handle.
    pace: Arc<watch::Sender<Pace>>,
}

/// How a [`MemoryDht`] behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// One way between a node and the DHT.
    pub latency: Duration,
    /// Between two looks at a watched location, by a node that watches three inboxes, as servers do; one
    /// that watches fewer looks more often.
    pub poll_interval: Duration,
    /// Whether it answers at all.
    pub reach: Reach,
}

/// Whether a DHT answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// It does.
    Online,
    /// It does not; lookups end without an answer, puts fail.
    Offline,
}

impl Default for Conditions {
    /// 50 ms to the DHT, and a watched slot polled as often as a serving node polls its first slot.
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(50),
            poll_interval: Duration::from_millis(500),
            reach: Reach::Online,
        }
    }
}

impl MemoryDht {
    /// An empty DHT.
    pub fn new(conditions: Conditions) -> Self {
        let state = State {
            conditions,
            items: BTreeMap::new(),
            counters: Counters::default(),
            last_answer: None,
        };
        Self { state: Arc::new(Mutex::new(state)), watches: Arc::default(), pace: Arc::default() }
    }

    /// A way to reach it for one node.
    pub fn rendezvous(&self) -> Arc<dyn Rendezvous> {
        Arc::new(Self { state: self.state.clone(), watches: Arc::default(), pace: Arc::default() })
    }

    /// Makes it behave otherwise from now on.
    pub fn set_conditions(&self, conditions: Conditions) {
        self.lock().conditions = conditions;
    }

    /// How it behaves.
    pub fn conditions(&self) -> Conditions {
        self.lock().conditions
    }

    /// What lies at `target`: for tests that look without asking.
    pub fn stored(&self, target: Target) -> Option<Item> {
        self.lock().items.get(&target).cloned()
    }

    /// Forgets everything, as nodes do after hours without renewal.
    pub fn clear(&self) {
        self.lock().items.clear();
    }

    /// Between two looks of this node at a location, now.
    fn poll_interval(&self) -> Duration {
        let watches = self.watches.load(Ordering::Relaxed).min(SERVER_WATCHES);
        let pace = *self.pace.borrow();
        pace.interval(self.conditions().poll_interval) * watches / SERVER_WATCHES
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while it was held leaves a map that is still a map.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for `target`: what the DHT says, a round trip later.
    async fn ask(&self, target: Target) -> (Reach, Option<Item>) {
        let latency = self.conditions().latency;
        self.lock().counters.sent += 1;
        sleep(latency).await;
        let reach = self.conditions().reach;
        let found = match reach {
            Reach::Online => self.stored(target),
            Reach::Offline => None,
        };
        sleep(latency).await;
        if reach == Reach::Online {
            self.lock().heard();
        }
        (reach, found)
    }

    /// Asks for all of `locations` at the same time.
    async fn ask_all(&self, locations: &[Location]) -> Vec<(Location, Item)> {
        let latency = self.conditions().latency;
        sleep(latency).await;
        let found = match self.conditions().reach {
            Reach::Online => locations
                .iter()
                .filter_map(|location| Some((*location, self.stored(location.target)?)))
                .collect(),
            Reach::Offline => Vec::new(),
        };
        sleep(latency).await;
        found
    }
}

impl Rendezvous for MemoryDht {
    fn get(&self, at: Location) -> Lookup {
        let (items_sender, items) = mpsc::channel(1);
        let (end_sender, end) = oneshot::channel();
        let dht = self.clone();
        let task = Task::spawn(async move {
            let (reach, found) = dht.ask(at.target).await;
            if let Some(item) = found {
                // The one who asked may have gone.
                let _ = items_sender.send(item).await;
            }
            let answered = match reach {
                Reach::Online => 1,
                Reach::Offline => 0,
            };
            let _ = end_sender.send(LookupEnd { answered });
        });
        Lookup::new(items, end, Some(task))
    }

    fn put(&self, item: Item, cas: Option<i64>) -> Boxed<Result<Stored, PutError>> {
        let dht = self.clone();
        async move {
            if item.value().len() > VALUE_SIZE_MAX {
                return Err(PutError::TooLarge(item.value().len()));
            }
            let latency = dht.conditions().latency;
            dht.lock().counters.sent += 1;
            sleep(latency).await;
            let result = dht.lock().store(item, cas);
            sleep(latency).await;
            if result != Err(PutError::NoNodes) {
                dht.lock().heard();
            }
            result
        }
        .boxed()
    }

    fn prepare(&self, _at: Location) {}

    fn watch(&self, at: Vec<Location>) -> Watch {
        let (sender, items) = mpsc::channel(at.len().max(1));
        let dht = self.clone();
        let counted = Counted::new(&self.watches);
        let task = Task::spawn(async move {
            let _counted = counted;
            let mut seen: BTreeMap<Target, i64> = BTreeMap::new();
            let mut pace = dht.pace.subscribe();
            loop {
                let asked_at = Instant::now();
                for (location, item) in dht.ask_all(&at).await {
                    let news = seen.get(&location.target).is_none_or(|seq| *seq < item.seq());
                    if news {
                        seen.insert(location.target, item.seq());
                        if sender.send((location, item)).await.is_err() {
                            return;
                        }
                    }
                }
                loop {
                    let next = asked_at + dht.poll_interval();
                    tokio::select! {
                        () = sleep_until(next) => break,
                        _ = pace.changed() => {}
                    }
                }
            }
        });
        Watch::new(items, Some(task))
    }

    fn set_pace(&self, pace: Pace) {
        self.pace.send_replace(pace);
    }

    fn known(&self, at: Target) -> Option<Item> {
        self.stored(at)
    }

    fn network_changed(&self) {}

    fn seen_at(&self) -> Vec<SocketAddrV4> {
        vec![]
    }

    fn health(&self) -> Health {
        let state = self.lock();
        let reachable = match state.conditions.reach {
            Reach::Online => 1,
            Reach::Offline => 0,
        };
        Health {
            nodes_known: 1,
            nodes_answering: reachable,
            last_answer: state.last_answer.map(|at| at.elapsed()),
            counters: state.counters,
        }
    }
}

/// Counts a watch as long as it lasts.
struct Counted(Arc<AtomicU32>);

impl Counted {
    fn new(watches: &Arc<AtomicU32>) -> Self {
        watches.fetch_add(1, Ordering::Relaxed);
        Self(watches.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A server watches the inboxes of its service, its id and its ticket.
const SERVER_WATCHES: u32 = 3;

#[derive(Debug)]
struct State {
    conditions: Conditions,
    items: BTreeMap<Target, Item>,
    counters: Counters,
    last_answer: Option<Instant>,
}

impl State {
    fn heard(&mut self) {
        self.counters.received += 1;
        self.last_answer = Some(Instant::now());
    }

    fn store(&mut self, item: Item, cas: Option<i64>) -> Result<Stored, PutError> {
        if self.conditions.reach == Reach::Offline {
            return Err(PutError::NoNodes);
        }
        if let Some(stored) = self.items.get(&item.target()) {
            let current = Some(stored.seq());
            if cas.is_some_and(|expected| expected != stored.seq()) {
                return Err(PutError::CasFailed { current });
            }
            // Nodes differ in what they do with another value of the same number; none may rely on it.
            if item.seq() <= stored.seq() && item != *stored {
                return Err(PutError::NotNewer { current });
            }
        }
        self.items.insert(item.target(), item);
        Ok(Stored { nodes: 1, conflicting: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dht::{blinding::WriteKey, location::Purpose, rendezvous::ABSENT},
        sealing::Key,
    };

    fn key() -> WriteKey {
        WriteKey::shared(&Key::from_bytes([9; 32]))
    }

    fn location() -> Location {
        Location::new(key().public_key(), Purpose::PeerSlot(0))
    }

    fn item(seq: i64) -> Item {
        Item::sign(&key(), seq, b"hello".to_vec())
    }

    const STORED: Result<Stored, PutError> = Ok(Stored { nodes: 1, conflicting: 0 });

    #[tokio::test(start_paused = true)]
    async fn what_is_put_is_found_a_round_trip_later() {
        let dht = MemoryDht::new(Conditions::default()).rendezvous();
        let start = Instant::now();
        assert_eq!(dht.put(item(1), None).await, STORED);
        assert_eq!(start.elapsed(), Duration::from_millis(100));
        let (found, end) = dht.get(location()).newest().await;
        assert_eq!((found, end.answered), (Some(item(1)), 1));
        assert_eq!(start.elapsed(), Duration::from_millis(200));
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_sees_what_lies_there_and_what_is_put_later() {
        let dht = MemoryDht::new(Conditions::default()).rendezvous();
        dht.put(item(1), None).await.unwrap();
        let mut watch = dht.watch(vec![location()]);
        assert_eq!(watch.next().await, Some((location(), item(1))));
        let start = Instant::now();
        dht.put(item(2), None).await.unwrap();
        assert_eq!(watch.next().await, Some((location(), item(2))));
        assert!(start.elapsed() <= Duration::from_millis(600));
    }

    #[tokio::test(start_paused = true)]
    async fn numbers_must_grow_and_the_swap_must_match() {
        let dht = MemoryDht::new(Conditions::default()).rendezvous();
        assert_eq!(dht.put(item(5), Some(ABSENT)).await, STORED);
        let current = Some(5);
        assert_eq!(dht.put(item(4), None).await, Err(PutError::NotNewer { current }));
        let failed = Err(PutError::CasFailed { current });
        assert_eq!(dht.put(item(6), Some(4)).await, failed);
        assert_eq!(dht.put(item(6), Some(ABSENT)).await, failed);
        assert_eq!(dht.put(item(6), Some(5)).await, STORED);
        let large = Item::sign(&key(), 7, vec![0; 901]);
        assert_eq!(dht.put(large, None).await, Err(PutError::TooLarge(901)));
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_network_nobody_answers() {
        let memory = MemoryDht::new(Conditions::default());
        let dht = memory.rendezvous();
        dht.put(item(1), None).await.unwrap();
        let online = memory.conditions();
        memory.set_conditions(Conditions { reach: Reach::Offline, ..online });
        assert_eq!(dht.put(item(2), None).await, Err(PutError::NoNodes));
        let (found, end) = dht.get(location()).newest().await;
        assert_eq!((found, end.answered), (None, 0));
        memory.set_conditions(online);
        assert_eq!(dht.get(location()).newest().await.0, Some(item(1)));
    }
}
