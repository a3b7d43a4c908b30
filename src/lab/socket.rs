//! A socket on a simulated host: quinn runs over it as over one of the system's, and plain servers read
//! and write it directly.

use std::{
    fmt,
    future::poll_fn,
    io::{self, IoSliceMut},
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};

use super::{
    internet::Internet,
    sockets::{Arrival, SocketId},
};

/// Datagrams that one [`Transmit`] may hold, and one receive buffer unless set otherwise: enough for
/// code that forgets to split buffers to be caught.
const SEGMENTS_MAX: usize = 8;

/// A UDP socket of a simulated [`Host`](super::Host). Dropping it closes it.
///
/// Sending never fails and never waits: what cannot be delivered is dropped on its way and shows up in
/// the sender's counters. Like Linux with GRO, it may return several datagrams from one source in one
/// buffer when they are of the same length.
pub struct LabSocket {
    internet: Internet,
    id: SocketId,
    receive_segments_max: AtomicUsize,
}

impl LabSocket {
    pub(super) fn new(internet: Internet, id: SocketId) -> Self {
        Self { internet, id, receive_segments_max: AtomicUsize::new(SEGMENTS_MAX) }
    }

    /// Sends one datagram.
    pub fn send_to(&self, to: SocketAddr, bytes: &[u8]) {
        self.send(None, to, bytes.chunks(bytes.len().max(1)));
    }

    /// Sends one datagram that expires at the router where its `hops` are used up.
    pub fn send_within(&self, to: SocketAddr, bytes: &[u8], hops: u8) {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        self.internet.shared().send(|network, now| {
            network.handle_send_within(self.id, None, to, (bytes.to_vec(), hops), now);
        });
    }

    /// Waits for one datagram. Dropping the future loses nothing.
    ///
    /// Each datagram goes to one reader: a socket that quinn reads is not for this.
    pub async fn recv_from(&self) -> (Vec<u8>, SocketAddr) {
        let arrival = poll_fn(|cx| self.poll_arrivals(cx, |receive| receive(&|_| true))).await;
        (arrival.bytes, arrival.source)
    }

    /// Its endpoint: the address that it is bound to, or else the first of the host, and its port.
    pub fn local_endpoint(&self) -> SocketAddr {
        let endpoints = self.local_endpoints();
        let first = endpoints.first().copied();
        first.expect("a host has an address from the start, and moves to another")
    }

    /// All endpoints that it listens on now.
    pub fn local_endpoints(&self) -> Vec<SocketAddr> {
        let state = self.internet.lock();
        let binding =
            state.network.sockets.binding(self.id).expect("a socket is open until it is dropped");
        let of_host = state.network.topology.addresses(binding.host).to_vec();
        let addresses = binding.address.map_or(of_host, |bound| vec![bound]);
        let endpoint = |address| SocketAddr::new(address, binding.port);
        addresses.into_iter().map(endpoint).collect()
    }

    /// Sets how many datagrams of one source may come in one receive buffer; 1 turns this off. quinn
    /// asks when it takes the socket.
    pub fn set_receive_segments_max(&self, segments_max: usize) {
        self.receive_segments_max.store(segments_max.max(1), Ordering::Relaxed);
    }

    fn send<'a>(
        &self,
        from: Option<IpAddr>,
        to: SocketAddr,
        datagrams: impl Iterator<Item = &'a [u8]>,
    ) {
        let to = SocketAddr::new(to.ip().to_canonical(), to.port());
        let mut datagrams = datagrams.peekable();
        self.internet.shared().send(|network, now| {
            if datagrams.peek().is_none() {
                network.handle_send(self.id, from, to, Vec::new(), now);
            }
            for bytes in datagrams {
                network.handle_send(self.id, from, to, bytes.to_vec(), now);
            }
        });
    }

    /// Lets `read` take arrivals that meet its condition, and waits if it got none.
    fn poll_arrivals<T>(
        &self,
        cx: &Context<'_>,
        read: impl FnOnce(&mut Receive<'_>) -> Option<T>,
    ) -> Poll<T> {
        let mut state = self.internet.lock();
        let sockets = &mut state.network.sockets;
        let mut receive = |wanted: &dyn Fn(&Arrival) -> bool| {
            sockets.peek(self.id).filter(|next| wanted(next))?;
            sockets.receive(self.id)
        };
        if let Some(taken) = read(&mut receive) {
            return Poll::Ready(taken);
        }
        let readers = state.readers.entry(self.id).or_default();
        if !readers.iter().any(|reader| reader.will_wake(cx.waker())) {
            readers.push(cx.waker().clone());
        }
        Poll::Pending
    }
}

/// Takes the next arrival if it is wanted.
type Receive<'a> = dyn FnMut(&dyn Fn(&Arrival) -> bool) -> Option<Arrival> + 'a;

impl fmt::Debug for LabSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LabSocket").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for LabSocket {
    fn drop(&mut self) {
        let mut state = self.internet.lock();
        state.network.sockets.close(self.id);
        let readers = state.readers.remove(&self.id);
        // A waker can be the last of its task, and the task hold another socket.
        drop(state);
        drop(readers);
    }
}

impl AsyncUdpSocket for LabSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let whole = transmit.contents.len();
        let size = transmit.segment_size.unwrap_or(whole).max(1);
        self.send(
            transmit.src_ip.map(|address| address.to_canonical()),
            transmit.destination,
            transmit.contents.chunks(size),
        );
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let segments_max = self.max_receive_segments();
        // A dual-stack socket of the system shows IPv4 sources as IPv6 addresses, and quinn, which
        // writes its destinations the same way, compares the two.
        let mapped = self.local_endpoint().is_ipv6();
        self.poll_arrivals(cx, |receive| {
            let mut filled = 0;
            for (buffer, meta) in bufs.iter_mut().zip(meta) {
                let Some(batch) = fill(buffer, segments_max, receive) else {
                    break;
                };
                *meta = batch;
                if mapped {
                    meta.addr = SocketAddr::new(to_mapped(meta.addr.ip()), meta.addr.port());
                    meta.dst_ip = meta.dst_ip.map(to_mapped);
                }
                filled += 1;
            }
            (filled > 0).then_some(Ok(filled))
        })
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local_endpoint())
    }

    fn max_transmit_segments(&self) -> usize {
        SEGMENTS_MAX
    }

    fn max_receive_segments(&self) -> usize {
        self.receive_segments_max.load(Ordering::Relaxed)
    }

    /// Links drop what is too big, so quinn may look for the largest datagram that fits.
    fn may_fragment(&self) -> bool {
        false
    }
}

/// Fills one buffer with datagrams of one source and length; only the last may be shorter.
///
/// A datagram that is longer than the buffer is cut, as by the system.
fn fill(buffer: &mut [u8], segments_max: usize, receive: &mut Receive<'_>) -> Option<RecvMeta> {
    let first = receive(&|_| true)?;
    let stride = first.bytes.len().min(buffer.len());
    let mut meta = RecvMeta {
        addr: first.source,
        len: 0,
        stride: stride.max(1), // Whoever walks a buffer by its stride must get to its end.
        ecn: None,
        dst_ip: Some(first.local),
    };
    let mut rest = buffer;
    let mut next = Some(first);
    for segment in 1..=segments_max {
        let Some(arrival) = next.take() else { break };
        let length = arrival.bytes.len().min(rest.len());
        let Some((room, after)) = rest.split_at_mut_checked(length) else {
            break;
        };
        room.copy_from_slice(arrival.bytes.get(..length).unwrap_or_default());
        meta.len += length;
        rest = after;
        if length < stride || length == 0 || segment == segments_max {
            break;
        }
        next = receive(&|arrival| {
            arrival.source == meta.addr
                && Some(arrival.local) == meta.dst_ip
                && (1..=stride.min(rest.len())).contains(&arrival.bytes.len())
        });
    }
    Some(meta)
}

const fn to_mapped(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
        IpAddr::V6(_) => address,
    }
}

/// Sending never waits.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
