//! The outbox's file: a database that a thread of its own writes, as many changes at a time as there are.

use std::{
    fs::File,
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
};

use prost::Message as _;
use redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::sync::oneshot;

use crate::{
    failure::{Code, Failure},
    identity::PeerId,
    node::event::Target,
    proto::{Message, outbox as wire},
};

/// A message on disk; numbers give the order in which they were put.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::node) struct Entry {
    pub(in crate::node) number: u64,
    pub(in crate::node) target: Target,
    pub(in crate::node) message: Message,
}

/// What is in the file when it is opened.
#[derive(Debug, Default)]
pub(in crate::node) struct Contents {
    /// Messages without an acknowledgement, in their order.
    pub(in crate::node) entries: Vec<Entry>,
    /// What has arrived lately.
    pub(in crate::node) seen: Vec<Seen>,
}

/// A durable message that has arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct Seen {
    pub(in crate::node) peer: PeerId,
    /// The message's id.
    pub(in crate::node) id: String,
    pub(in crate::node) unix_secs: u64,
}

/// The way to the thread; when the last one is dropped, the file is closed.
#[derive(Clone, Debug)]
pub(in crate::node) struct Store {
    changes: Sender<Change>,
    /// Notes of what has arrived that are not written yet.
    notes: Arc<AtomicUsize>,
}

#[derive(Debug)]
enum Change {
    Put(Box<Entry>, oneshot::Sender<Result<(), Failure>>),
    Remove(u64),
    Seen { newly: Vec<Seen>, _waiting: Note },
    Forget { before: u64 },
}

impl Store {
    /// Opens the database in `file`, or begins one.
    ///
    /// # Errors
    /// [`Code::OutboxUnusable`] when another program has it open, or it is none.
    pub(in crate::node) fn open(file: File) -> Result<(Self, Contents), Failure> {
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_file(file)
            .map_err(|error| unusable(&error))?;
        let contents = read(&database).map_err(|error| broken(&error))?;
        // As many changes wait as the ledger has messages, and their payloads are the ledger's.
        // What has arrived is noted only while few notes wait.
        let (changes, queue) = channel();
        thread::Builder::new()
            .name("outbox".to_owned())
            .spawn(move || write_all(&database, &queue))
            .map_err(|error: io::Error| broken(&error.into()))?;
        Ok((Self { changes, notes: Arc::default() }, contents))
    }

    /// Puts a message there; done when it is on disk.
    ///
    /// # Errors
    /// [`Code::OutboxUnusable`] when it could not be written.
    pub(in crate::node) async fn put(&self, entry: Entry) -> Result<(), Failure> {
        let (done, written) = oneshot::channel();
        self.changes.send(Change::Put(Box::new(entry), done)).map_err(|_| gone())?;
        written.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Takes a message away.
    pub(in crate::node) fn remove(&self, number: u64) {
        // A thread that is gone has said why.
        let _ = self.changes.send(Change::Remove(number));
    }

    /// Notes that messages have arrived, unless the disk is far behind.
    pub(in crate::node) fn note_seen(&self, newly: Vec<Seen>) {
        match Note::begin(&self.notes) {
            Some(note) => drop(self.changes.send(Change::Seen { newly, _waiting: note })),
            None => tracing::warn!("the disk is slow: what has arrived is not noted"),
        }
    }

    /// Forgets what arrived before this Unix second.
    pub(in crate::node) fn forget_seen(&self, before: u64) {
        let _ = self.changes.send(Change::Forget { before });
    }
}

/// A note that waits to be written; counted until it is dropped.
#[derive(Debug)]
struct Note(Arc<AtomicUsize>);

impl Note {
    /// One more, if there are not [`NOTES_MAX`].
    fn begin(count: &Arc<AtomicUsize>) -> Option<Self> {
        let note = Self(count.clone());
        (count.fetch_add(1, Ordering::Relaxed) < NOTES_MAX).then_some(note)
    }
}

impl Drop for Note {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Writes until nobody has a change any more; several changes become one transaction.
fn write_all(database: &Database, queue: &Receiver<Change>) {
    while let Ok(first) = queue.recv() {
        let more = queue.try_iter().take(CHANGES_MAX);
        let changes: Vec<Change> = [first].into_iter().chain(more).collect();
        let written = write(database, &changes).map_err(|error| {
            tracing::warn!(%error, "the outbox cannot be written");
            broken(&error)
        });
        for change in changes {
            if let Change::Put(_, done) = change {
                // Whoever does not wait any more needs no answer.
                let _ = done.send(written.clone());
            }
        }
    }
}

fn write(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut seen = transaction.open_table(SEEN)?;
        for change in changes {
            match change {
                Change::Put(entry, _) => {
                    entries.insert(entry.number, encode(entry).as_slice())?;
                }
                Change::Remove(number) => drop(entries.remove(number)?),
                Change::Seen { newly, .. } => {
                    for Seen { peer, id, unix_secs } in newly {
                        seen.insert((peer.as_bytes().as_slice(), id.as_str()), unix_secs)?;
                    }
                }
                Change::Forget { before } => {
                    seen.retain(|_, seen_at| seen_at >= *before)?;
                }
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database) -> Result<Contents, redb::Error> {
    // Makes the tables, so that they can be read.
    write(database, &[])?;
    let transaction = database.begin_read()?;
    let mut contents = Contents::default();
    for row in transaction.open_table(ENTRIES)?.iter()? {
        let (number, encoding) = row?;
        match decode(number.value(), encoding.value()) {
            Some(entry) => contents.entries.push(entry),
            None => {
                tracing::warn!(number = number.value(), "an entry of the outbox cannot be read")
            }
        }
    }
    for row in transaction.open_table(SEEN)?.iter()? {
        let (key, unix_secs) = row?;
        let (peer, id) = key.value();
        if let Some(peer) = peer.try_into().ok().and_then(|bytes| PeerId::from_bytes(bytes).ok()) {
            let (id, unix_secs) = (id.to_owned(), unix_secs.value());
            contents.seen.push(Seen { peer, id, unix_secs });
        }
    }
    Ok(contents)
}

fn encode(entry: &Entry) -> Vec<u8> {
    let target = match &entry.target {
        Target::Service(name) => format!("{SERVICE_PREFIX}{name}"),
        Target::Peer(peer) => peer.to_string(),
        Target::Ticket(ticket) => ticket.to_string(),
    };
    wire::Entry { target, message: Some(entry.message.clone()) }.encode_to_vec()
}

fn decode(number: u64, encoding: &[u8]) -> Option<Entry> {
    let wire::Entry { target, message } = wire::Entry::decode(encoding).ok()?;
    let target = match target.strip_prefix(SERVICE_PREFIX) {
        Some(name) => Target::Service(name.parse().ok()?),
        None => match target.parse() {
            Ok(peer) => Target::Peer(peer),
            Err(_) => Target::Ticket(target.parse().ok()?),
        },
    };
    Some(Entry { number, target, message: message? })
}

fn unusable(error: &DatabaseError) -> Failure {
    let is_open = matches!(error, DatabaseError::DatabaseAlreadyOpen);
    let hint = match is_open {
        true => "another node uses it: give each node an --outbox of its own",
        false => "--outbox names a directory for this node alone; move a damaged file away",
    };
    Failure::new(Code::OutboxUnusable, "the outbox cannot be opened")
        .because(error.to_string())
        .hint(hint)
}

fn broken(error: &redb::Error) -> Failure {
    Failure::new(Code::OutboxUnusable, "the outbox cannot be read or written")
        .because(error.to_string())
        .hint("is the disk full?")
}

fn gone() -> Failure {
    Failure::new(Code::ShuttingDown, "the node is stopping")
}

/// The messages, by number.
const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("messages");

/// What has arrived lately: by peer and message id, in Unix seconds.
const SEEN: TableDefinition<'_, (&[u8], &str), u64> = TableDefinition::new("seen");

const SERVICE_PREFIX: &str = "service:";

/// Memory for pages: what is put is hardly ever read again.
const CACHE_BYTES: usize = 4 << 20;

/// Notes of what has arrived that wait for the disk: about a minute of them.
const NOTES_MAX: usize = 64;

/// Changes that one transaction takes.
const CHANGES_MAX: usize = 256;
