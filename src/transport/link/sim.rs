//! Two or more nodes on a wire of constant delay, in virtual time: just enough network to test links.

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
    transport::{quic::Endpoint, tls::Crypto},
};

/// Time from one node to the other.
pub(super) const ONE_WAY: Duration = Duration::from_millis(50);

/// The wire.
#[derive(Default)]
pub(super) struct Network {
    mailboxes: Mutex<BTreeMap<SocketAddr, Arc<Mutex<Mailbox>>>>,
    unplugged: Mutex<BTreeSet<SocketAddr>>,
    starts: Mutex<u64>,
    log: Mutex<Vec<u8>>,
}

#[derive(Default)]
struct Mailbox {
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
        if let Some(mailbox) = self.mailboxes.lock().unwrap().get(&to) {
            let mut mailbox = mailbox.lock().unwrap();
            let arrival = Instant::now() + ONE_WAY;
            mailbox.queue.push_back((arrival, from, datagram.to_vec()));
            mailbox.waker.take().into_iter().for_each(Waker::wake);
        }
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
            let Some(&(arrival, _, _)) = mailbox.queue.front() else {
                mailbox.waker = Some(context.waker().clone());
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
