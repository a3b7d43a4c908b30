//! Two or more nodes on a wire, in virtual time: just enough network to test links. Its delay is constant
//! unless a [`Weather`] is set.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt,
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use ring::digest;
use tokio::time::{Instant, Sleep, sleep_until};

use crate::{
    entropy::Entropy,
    identity::Identity,
    transport::quic::{Endpoint, tls::Crypto},
};

/// Time from one node to the other.
pub(super) const ONE_WAY: Duration = Duration::from_millis(50);

/// What a sender's queue holds, where the weather limits what it can send.
const QUEUE: Duration = Duration::from_millis(100);

/// The wire.
#[derive(Default)]
pub(super) struct Network {
    mailboxes: Mutex<BTreeMap<SocketAddr, Arc<Mutex<Mailbox>>>>,
    unplugged: Mutex<BTreeSet<SocketAddr>>,
    starts: Mutex<u64>,
    weather: Mutex<Weather>,
    /// When the last byte of each node will have gone out, where the weather limits that.
    busy: Mutex<BTreeMap<SocketAddr, Instant>>,
    log: Mutex<Vec<u8>>,
}

/// What the wire does to datagrams beside delaying them.
pub(super) struct Weather {
    /// Of a hundred datagrams, so many are lost.
    pub(super) loss: usize,
    /// Of a hundred datagrams, so many arrive twice.
    pub(super) doubled: usize,
    /// Up to so much is added to the delay, so that datagrams overtake each other.
    pub(super) jitter_ms: u64,
    /// What each node can send, with a queue of 100 ms before it.
    pub(super) bytes_per_second: Option<u32>,
    pub(super) entropy: Entropy,
}

impl Default for Weather {
    fn default() -> Self {
        let entropy = Entropy::from_seed(1);
        Self { loss: 0, doubled: 0, jitter_ms: 0, bytes_per_second: None, entropy }
    }
}

#[derive(Default)]
struct Mailbox {
    /// By arrival.
    queue: VecDeque<(Instant, SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

impl Network {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self::default())
    }

    /// A node with the identity of `seed` at port `seed`; another run of it after a restart.
    pub(super) fn node(self: &Arc<Self>, seed: u8) -> Endpoint {
        let start = {
            let mut starts = self.starts.lock().unwrap();
            *starts += 1;
            *starts
        };
        let mut entropy = Entropy::from_seed(u64::from(seed) + (start << 8));
        let crypto = Crypto::seeded(entropy.fork());
        let socket = Arc::new(self.socket(address(seed)));
        Endpoint::new(&identity(seed), crypto, entropy, socket).unwrap()
    }

    /// Loses everything from and to `node`.
    pub(super) fn unplug(&self, node: u8) {
        self.unplugged.lock().unwrap().insert(address(node));
    }

    pub(super) fn set_weather(&self, weather: Weather) {
        *self.weather.lock().unwrap() = weather;
    }

    pub(super) fn plug_in(&self, node: u8) {
        self.unplugged.lock().unwrap().remove(&address(node));
    }

    /// A digest of every datagram and of when it was sent, to compare runs.
    pub(super) fn digest(&self) -> Vec<u8> {
        let log = self.log.lock().unwrap();
        digest::digest(&digest::SHA256, &log).as_ref().to_vec()
    }

    fn socket(self: &Arc<Self>, address: SocketAddr) -> Socket {
        let mailbox = Arc::new(Mutex::new(Mailbox::default()));
        let mut mailboxes = self.mailboxes.lock().unwrap();
        mailboxes.insert(address, mailbox.clone());
        Socket {
            network: self.clone(),
            address,
            mailbox,
            alarm: Mutex::new(Box::pin(sleep_until(Instant::now()))),
            start: Instant::now(),
        }
    }

    fn send(&self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let unplugged = self.unplugged.lock().unwrap();
        if unplugged.contains(&from) || unplugged.contains(&to) {
            return;
        }
        let Some(sent) = self.leaves_at(from, datagram.len()) else { return };
        if let Some(mailbox) = self.mailboxes.lock().unwrap().get(&to) {
            let mut mailbox = mailbox.lock().unwrap();
            let mut weather = self.weather.lock().unwrap();
            let Weather { loss, doubled, jitter_ms, ref mut entropy, .. } = *weather;
            let copies = match entropy.below(100) {
                luck if luck < loss => 0,
                luck if luck < loss + doubled => 2,
                _ => 1,
            };
            for _ in 0..copies {
                let jitter = Duration::from_millis(entropy.number() % (jitter_ms + 1));
                let arrival = sent + ONE_WAY + jitter;
                let place = mailbox.queue.partition_point(|&(at, _, _)| at <= arrival);
                mailbox.queue.insert(place, (arrival, from, datagram.to_vec()));
            }
            mailbox.waker.take().into_iter().for_each(Waker::wake);
        }
    }

    /// When a datagram has left its sender, if the queue there is not full.
    fn leaves_at(&self, from: SocketAddr, size: usize) -> Option<Instant> {
        let now = Instant::now();
        let Some(rate) = self.weather.lock().unwrap().bytes_per_second else { return Some(now) };
        let mut busy = self.busy.lock().unwrap();
        let begin = busy.get(&from).copied().unwrap_or(now).max(now);
        if begin > now + QUEUE {
            return None;
        }
        let size = u32::try_from(size).unwrap();
        let end = begin + Duration::from_secs(1) * size / rate;
        busy.insert(from, end);
        Some(end)
    }
}

pub(super) fn identity(seed: u8) -> Identity {
    Identity::from_seed([seed; 32])
}

pub(super) fn address(seed: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, seed], seed.into()))
}

struct Socket {
    network: Arc<Network>,
    address: SocketAddr,
    mailbox: Arc<Mutex<Mailbox>>,
    alarm: Mutex<Pin<Box<Sleep>>>,
    start: Instant,
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut log = self.network.log.lock().unwrap();
        log.extend(self.start.elapsed().as_micros().to_be_bytes());
        log.extend(transmit.contents);
        self.network.send(self.address, transmit.destination, transmit.contents);
        Ok(())
    }

    fn poll_recv(
        &self,
        context: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut mailbox = self.mailbox.lock().unwrap();
            // An earlier one may come while the first is awaited.
            mailbox.waker = Some(context.waker().clone());
            let Some(&(arrival, _, _)) = mailbox.queue.front() else {
                return Poll::Pending;
            };
            if arrival <= Instant::now() {
                let (_, from, datagram) = mailbox.queue.pop_front().unwrap();
                buffers[0][..datagram.len()].copy_from_slice(&datagram);
                meta[0] = RecvMeta {
                    addr: from,
                    len: datagram.len(),
                    stride: datagram.len(),
                    ecn: None,
                    dst_ip: None,
                };
                return Poll::Ready(Ok(1));
            }
            let mut alarm = self.alarm.lock().unwrap();
            alarm.as_mut().reset(arrival);
            ready!(alarm.as_mut().poll(context));
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.address)
    }

    fn may_fragment(&self) -> bool {
        false
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.address)
    }
}

#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
