//! What became of every datagram: rows to read, counters to compare, a digest that tells two runs apart.

use std::{collections::BTreeMap, fmt, net::SocketAddr, time::Duration};

use super::topology::HostId;

/// Rows kept at most, so that a long demo does not fill the memory; the digest goes on.
const ROWS_MAX: usize = 1_000_000;

/// How a datagram ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// In the receive queue of a socket.
    Delivered,
    /// Lost by chance on a link.
    Lost,
    /// Met a link that was down.
    LinkDown,
    /// Longer than a link carries.
    TooBig,
    /// A NAT or a firewall has a mapping for its destination, but does not let this source in.
    Filtered,
    /// A NAT or a firewall has no mapping for its destination.
    NoMapping,
    /// Sent from behind a NAT to that NAT's public address, and the NAT does not hairpin.
    NoHairpin,
    /// A NAT had no port left for it.
    NatFull,
    /// The sender has no address of the destination's family.
    NoSource,
    /// Nobody has its destination address.
    NoHost,
    /// The host has no socket on its destination port.
    NoSocket,
    /// The socket's receive queue was full.
    QueueFull,
    /// Sender and receiver were kept apart with [`Internet::block`](super::Internet::block).
    Blocked,
    /// Crossed as many routers as its sender had allowed.
    Expired,
}

impl Fate {
    const fn code(self) -> u8 {
        match self {
            Self::Delivered => 0,
            Self::Lost => 1,
            Self::LinkDown => 2,
            Self::TooBig => 3,
            Self::Filtered => 4,
            Self::NoMapping => 5,
            Self::NoHairpin => 6,
            Self::NatFull => 7,
            Self::NoSource => 8,
            Self::NoHost => 9,
            Self::NoSocket => 10,
            Self::QueueFull => 11,
            Self::Blocked => 12,
            Self::Expired => 13,
        }
    }
}

/// The life of one datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// When it was sent, since the start of the internet.
    pub sent_at: Duration,
    /// When its fate was decided.
    pub at: Duration,
    /// Who sent it.
    pub sender: HostId,
    /// The source that the sender gave it.
    pub source: SocketAddr,
    /// The source it had in the end, after all translations.
    pub seen_from: SocketAddr,
    /// The destination that the sender gave it.
    pub destination: SocketAddr,
    /// Its payload in bytes.
    pub length: usize,
    /// What became of it.
    pub fate: Fate,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>6} ms  {} ({}) -> {}  {} bytes  {:?} at {} ms",
            self.sent_at.as_millis(),
            self.source,
            self.seen_from,
            self.destination,
            self.length,
            self.fate,
            self.at.as_millis(),
        )
    }
}

/// Datagrams by fate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Datagrams sent.
    pub sent: u64,
    /// Datagrams that came into a receive queue.
    pub received: u64,
    /// Datagrams sent whose fate is decided, by fate.
    pub fates: BTreeMap<Fate, u64>,
}

impl Counters {
    /// Datagrams sent that met this fate.
    pub fn count(&self, fate: Fate) -> u64 {
        self.fates.get(&fate).copied().unwrap_or(0)
    }

    /// Datagrams sent that did not arrive.
    pub fn dropped(&self) -> u64 {
        let decided: u64 = self.fates.values().sum();
        decided - self.count(Fate::Delivered)
    }
}

/// The datagrams of a run in the order in which their fates were decided.
#[derive(Clone, Debug)]
pub struct Trace {
    rows: Vec<Row>,
    recording: bool,
    digest: Digest,
}

impl Trace {
    /// An empty trace that keeps no rows.
    pub(super) const fn new() -> Self {
        Self { rows: Vec::new(), recording: false, digest: Digest::EMPTY }
    }

    /// Keeps the rows from now on.
    pub(super) fn record(&mut self) {
        self.recording = true;
    }

    pub(super) fn push(&mut self, row: Row) {
        self.digest.update(&row);
        if self.recording && self.rows.len() < ROWS_MAX {
            self.rows.push(row);
        }
    }

    /// The rows, if recording was switched on; at most a million.
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// A number that is the same for the same datagrams (times, endpoints, lengths and fates, not
    /// contents) in this and any other process, whether rows are kept or not.
    pub fn digest(&self) -> u64 {
        self.digest.0
    }
}

/// FNV-1a over all rows: small, and the same on every machine.
#[derive(Clone, Copy, Debug)]
struct Digest(u64);

impl Digest {
    const EMPTY: Self = Self(0xcbf2_9ce4_8422_2325);

    fn update(&mut self, row: &Row) {
        self.bytes(&row.sent_at.as_nanos().to_le_bytes());
        self.bytes(&row.at.as_nanos().to_le_bytes());
        for endpoint in [row.source, row.seen_from, row.destination] {
            match endpoint {
                SocketAddr::V4(v4) => self.bytes(&v4.ip().octets()),
                SocketAddr::V6(v6) => self.bytes(&v6.ip().octets()),
            }
            self.bytes(&endpoint.port().to_le_bytes());
        }
        let length = u64::try_from(row.length).unwrap_or(u64::MAX);
        self.bytes(&length.to_le_bytes());
        self.bytes(&[row.fate.code()]);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
