//! The set alone, over sockets whose every answer the test chooses.

use std::{collections::VecDeque, io::IoSliceMut};

use std::task::Waker;

use super::sorting::SIDE_SIZE_MAX;
use super::*;
use crate::{
    probe::FIRST_BYTE,
    transport::{
        paths::{path_table::RouteId, traffic::Traffic},
        quic::header::tests::{handshake, initial, short},
    },
};

/// What a [`Puppet`] is to receive, and what it was told to send.
#[derive(Debug, Default)]
struct Strings {
    inbox: VecDeque<io::Result<(SocketAddr, Vec<u8>, usize)>>,
    /// Fails for ever once the inbox is empty.
    broken: bool,
    full: bool,
    outbox: Vec<(SocketAddr, Vec<u8>)>,
    receiver: Option<Waker>,
    senders: Vec<Waker>,
}

#[derive(Debug)]
struct Puppet {
    local: SocketAddr,
    strings: Mutex<Strings>,
}

#[derive(Debug)]
struct PuppetPoller(Arc<Puppet>);

impl Puppet {
    fn new(local: &str) -> Arc<Self> {
        Arc::new(Self { local: local.parse().unwrap(), strings: Mutex::default() })
    }

    fn receives(&self, remote: &str, bytes: &[u8], stride: usize) {
        let mut strings = lock(&self.strings);
        let remote = remote.parse().unwrap();
        strings.inbox.push_back(Ok((remote, bytes.to_vec(), stride)));
        strings.receiver.take().inspect(|waker| waker.wake_by_ref());
    }

    fn fails(&self) {
        let error = io::ErrorKind::ConnectionRefused.into();
        lock(&self.strings).inbox.push_back(Err(error));
    }

    fn set_full(&self, full: bool) {
        let mut strings = lock(&self.strings);
        strings.full = full;
        strings.senders.drain(..).for_each(Waker::wake);
    }

    fn take_sent(&self) -> Vec<(SocketAddr, Vec<u8>)> {
        std::mem::take(&mut lock(&self.strings).outbox)
    }
}

impl UdpPoller for PuppetPoller {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut strings = lock(&self.0.strings);
        if strings.full {
            strings.senders.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

fn socket(puppet: &Arc<Puppet>) -> Socket {
    Socket::plain(puppet.clone())
}

impl AsyncUdpSocket for Puppet {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(PuppetPoller(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut strings = lock(&self.strings);
        if strings.full {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if strings.broken {
            return Err(io::ErrorKind::NetworkUnreachable.into());
        }
        strings.outbox.push((transmit.destination, transmit.contents.to_vec()));
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut strings = lock(&self.strings);
        match strings.inbox.pop_front() {
            Some(Ok((addr, bytes, stride))) => {
                buffers[0][..bytes.len()].copy_from_slice(&bytes);
                metas[0] = RecvMeta {
                    addr,
                    len: bytes.len(),
                    stride,
                    ecn: None,
                    dst_ip: Some(self.local.ip()),
                };
                Poll::Ready(Ok(1))
            }
            Some(Err(error)) => Poll::Ready(Err(error)),
            None if strings.broken => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
            None => {
                strings.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

struct World {
    v4: Arc<Puppet>,
    v6: Arc<Puppet>,
    set: Arc<SocketSet>,
    side: mpsc::Receiver<Datagram>,
}

impl World {
    fn new() -> Self {
        let (v4, v6) = (Puppet::new("192.0.2.9:1"), Puppet::new("[2001:db8::9]:1"));
        let (set, side) = SocketSet::new(vec![socket(&v4), socket(&v6)], PathTable::new());
        Self { v4, v6, set, side }
    }

    /// What quinn would get from one poll: address, bytes, destination.
    async fn receive(&self) -> (SocketAddr, Vec<u8>) {
        std::future::poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&self, cx: &mut Context<'_>) -> Poll<(SocketAddr, Vec<u8>)> {
        let mut buffer = [0; 4096];
        let mut metas = [RecvMeta::default()];
        let mut buffers = [IoSliceMut::new(&mut buffer)];
        let filled = std::task::ready!(self.set.poll_recv(cx, &mut buffers, &mut metas)).unwrap();
        assert_eq!(filled, 1);
        assert!(metas[0].len == 0 || metas[0].stride > 0);
        Poll::Ready((metas[0].addr, buffer[..metas[0].len].to_vec()))
    }

    /// Whether nothing is to be received now.
    fn is_quiet(&self) -> bool {
        self.poll(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    fn quic(&self, destination: SocketAddr, contents: &[u8]) -> io::Result<()> {
        self.set.try_send(&Transmit {
            destination,
            ecn: None,
            contents,
            segment_size: None,
            src_ip: None,
        })
    }

    fn open(&self, candidates: &[&str]) -> (RouteId, SocketAddr) {
        let candidates: Vec<_> = candidates.iter().map(|text| text.parse().unwrap()).collect();
        let route = self.set.open_route(&candidates).unwrap();
        (route, self.set.virtual_address(route).unwrap())
    }
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn path(socket: u16, remote: &str) -> Path {
    Path { socket: SocketIndex(socket), remote: addr(remote) }
}

#[tokio::test]
async fn one_buffer_holds_a_probe_among_packets_of_quic() {
    let mut world = World::new();
    let (route, address) = world.open(&[]);
    world.set.set_best(route, path(0, "192.0.2.1:1"));
    let (packet, probe) = (short([1; 8]), vec![FIRST_BYTE; 109]);
    let mixed = [packet.clone(), probe.clone(), packet.clone()].concat();
    world.v4.receives("192.0.2.1:1", &mixed, packet.len());
    assert_eq!(world.receive().await, (address, [packet.clone(), packet].concat()));
    let expected = Datagram { socket: SocketIndex(0), remote: addr("192.0.2.1:1"), bytes: probe };
    assert_eq!(world.side.try_recv(), Ok(expected));
}

/// A dial's first packet comes through as soon as a NAT opens, is sent again when a path is known, and the
/// dial's second attempt follows at once: the kernel puts all of that into one buffer.
#[tokio::test]
async fn a_second_connection_in_one_buffer_is_heard_too() {
    let world = World::new();
    let (route, dialled) = world.open(&["192.0.2.1:1"]);
    let [first, second] = [1, 2].map(|id| initial([id; 8], [3; 8]));
    world.v4.receives("192.0.2.1:1", &first, 1200);
    let (came_in, _) = world.receive().await;
    world.set.admit(route, path(0, "192.0.2.1:1"));
    let burst = [first.clone(), second.clone(), first.clone()].concat();
    world.v4.receives("192.0.2.1:1", &burst, 1200);
    let repeated = [first.clone(), first].concat();
    assert_eq!(world.receive().await, (came_in, repeated));
    assert_eq!(world.receive().await, (dialled, second));
    assert!(world.is_quiet());
    assert_eq!(world.set.counters().mixed_connections, 0);
}

#[tokio::test(start_paused = true)]
async fn what_begins_a_connection_is_sent_again_by_whoever_receives() {
    let world = World::new();
    let (route, address) = world.open(&[]);
    world.set.set_best(route, path(0, "192.0.2.1:1"));
    let (first, began) = (initial([9; 8], [1; 8]), tokio::time::Instant::now());
    world.quic(address, &first).unwrap();
    let mut sent = Vec::new();
    let forty_ms = tokio::time::sleep(std::time::Duration::from_millis(40));
    tokio::pin!(forty_ms);
    std::future::poll_fn(|cx| {
        assert!(world.poll(cx).is_pending());
        let taken = world.v4.take_sent().into_iter();
        sent.extend(taken.map(|(_, bytes)| (began.elapsed().as_millis(), bytes)));
        forty_ms.as_mut().poll(cx)
    })
    .await;
    assert_eq!(sent, [0, 10, 30].map(|at| (at, first.clone())));
}

/// The acceptor's quinn would drop the message, and its second copy, too.
#[tokio::test]
async fn a_message_that_overtakes_the_end_of_the_handshake_waits_for_it() {
    let world = World::new();
    world.v4.receives("192.0.2.1:1", &initial([1; 8], [2; 8]), 1200);
    let (address, _) = world.receive().await;
    world.quic(address, &initial([2; 8], [3; 8])).unwrap();
    let message = short([3; 8]);
    world.v4.receives("192.0.2.1:1", &message, message.len());
    assert_eq!(world.receive().await.1, Vec::<u8>::new());
    let end = handshake([3; 8], [2; 8]);
    world.v4.receives("192.0.2.1:1", &end, 1200);
    assert_eq!(world.receive().await, (address, end));
    assert_eq!(world.receive().await, (address, message.clone()));
    world.v4.receives("192.0.2.1:1", &message, message.len());
    assert_eq!(world.receive().await, (address, message));
}

#[tokio::test]
async fn a_busy_socket_does_not_silence_the_others() {
    let world = World::new();
    for port in 1..=3_u8 {
        world.v4.receives(&format!("192.0.2.1:{port}"), &initial([port; 8], [2; 8]), 1200);
    }
    world.v6.receives("[2001:db8::1]:1", &initial([9; 8], [2; 8]), 1200);
    world.receive().await;
    world.receive().await;
    assert!(lock(&world.v6.strings).inbox.is_empty());
    assert_eq!(lock(&world.v4.strings).inbox.len(), 2);
}

#[tokio::test]
async fn an_initial_reaches_the_other_candidates_of_a_full_socket_and_itself_later() {
    let world = World::new();
    let (_, address) = world.open(&["192.0.2.1:1", "[2001:db8::1]:1", "192.0.2.2:1"]);
    world.v4.set_full(true);
    world.quic(address, b"initial").unwrap();
    assert_eq!(world.v6.take_sent(), [(addr("[2001:db8::1]:1"), b"initial".to_vec())]);
    assert!(world.is_quiet());
    assert_eq!(world.v4.take_sent(), []);
    world.v4.set_full(false);
    assert!(world.is_quiet());
    let sent = ["192.0.2.1:1", "192.0.2.2:1"].map(|text| (addr(text), b"initial".to_vec()));
    assert_eq!(world.v4.take_sent(), sent);
}

#[tokio::test]
async fn quic_waits_for_room_on_the_full_socket_of_its_only_path() {
    let world = World::new();
    let (route, address) = world.open(&[]);
    world.set.set_best(route, path(0, "192.0.2.1:1"));
    let mut poller = world.set.clone().create_io_poller();
    let mut cx = Context::from_waker(Waker::noop());
    assert!(poller.as_mut().poll_writable(&mut cx).is_ready());
    world.v4.set_full(true);
    let error = world.quic(address, b"packet").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    assert!(poller.as_mut().poll_writable(&mut cx).is_pending());
    assert!(poller.as_mut().poll_writable(&mut cx).is_pending());
    world.v4.set_full(false);
    assert!(poller.as_mut().poll_writable(&mut cx).is_ready());
    world.quic(address, b"packet").unwrap();
    assert_eq!(world.set.traffic(route).unwrap().sent.datagrams, 1);
    // A socket that is replaced while it is full keeps nobody waiting.
    world.v4.set_full(true);
    world.quic(address, b"packet").unwrap_err();
    assert!(poller.as_mut().poll_writable(&mut cx).is_pending());
    world.set.rebind(SocketIndex(0), socket(&Puppet::new("192.0.2.9:2"))).unwrap();
    assert!(poller.as_mut().poll_writable(&mut cx).is_ready());
    world.quic(address, b"packet").unwrap();
}

#[tokio::test]
async fn probes_that_find_no_room_are_kept_to_a_bound() {
    let world = World::new();
    world.v4.set_full(true);
    for number in 0..70_u8 {
        world.set.send(path(0, "192.0.2.1:1"), &[number]);
    }
    assert!(world.is_quiet());
    world.v4.set_full(false);
    assert!(world.is_quiet());
    let sent: Vec<u8> = world.v4.take_sent().into_iter().map(|(_, bytes)| bytes[0]).collect();
    assert_eq!(sent, (6..70).collect::<Vec<u8>>());
    assert_eq!(world.set.counters().unsent, 6);
}

#[tokio::test]
async fn the_first_path_gets_the_initial_at_once() {
    let world = World::new();
    let (route, address) = world.open(&[]);
    world.quic(address, b"initial").unwrap();
    assert_eq!(world.set.counters().sent_nowhere, 1);
    world.set.set_best(route, path(1, "[2001:db8::1]:7"));
    assert_eq!(world.v6.take_sent(), [(addr("[2001:db8::1]:7"), b"initial".to_vec())]);
}

#[tokio::test(start_paused = true)]
async fn a_socket_that_only_fails_neither_spins_nor_harms_the_others() {
    let world = World::new();
    for _ in 0..5 {
        world.v4.fails();
    }
    world.v4.receives("192.0.2.1:1", &initial([1; 8], [2; 8]), 1200);
    assert_eq!(world.receive().await.1.len(), 1200);
    lock(&world.v4.strings).broken = true;
    assert!(world.is_quiet());
    world.v6.receives("[2001:db8::1]:1", &initial([9; 8], [2; 8]), 1200);
    assert_eq!(world.receive().await.1.len(), 1200);
    assert!(world.is_quiet());
    assert_eq!(world.set.counters().receive_errors, 5 + 16);
    // It is tried again after a while, and serves once it works.
    lock(&world.v4.strings).broken = false;
    world.v4.receives("192.0.2.1:1", &short([1; 8]), 109);
    assert_eq!(world.receive().await.1.len(), 109);
    let (route, address) = world.open(&[]);
    world.set.set_best(route, path(0, "192.0.2.1:1"));
    lock(&world.v4.strings).broken = true;
    world.quic(address, b"lost").unwrap();
    assert_eq!(world.set.counters().send_errors, 1);
}

#[tokio::test]
async fn sockets_come_and_go() {
    let world = World::new();
    let third = Puppet::new("192.0.2.9:3");
    // The endpoint sleeps; a new socket wakes it.
    let reader = world.receive();
    let adder = async {
        tokio::task::yield_now().await;
        assert_eq!(world.set.add_socket(socket(&third)), Ok(SocketIndex(256)));
        third.receives("192.0.2.1:1", &initial([1; 8], [2; 8]), 1200);
    };
    let ((address, _), ()) = tokio::join!(reader, adder);
    world.quic(address, b"answer").unwrap();
    assert_eq!(third.take_sent().len(), 1);
    world.set.remove_socket(SocketIndex(256));
    world.quic(address, b"lost").unwrap();
    assert_eq!(third.take_sent(), []);
    assert_eq!(world.set.local_addresses().len(), 2);
    // What was on its way to the one that is gone is not taken for the new one's.
    assert_eq!(world.set.add_socket(socket(&third)), Ok(SocketIndex(257)));
}

#[tokio::test]
async fn a_full_set_takes_no_more_sockets_until_one_is_closed() {
    let (world, more) = (World::new(), Puppet::new("192.0.2.9:3"));
    for _ in 2..SOCKETS_MAX {
        world.set.add_socket(socket(&more)).unwrap();
    }
    assert_eq!(world.set.add_socket(socket(&more)), Err(AddSocketError::TooMany));
    world.set.remove_socket(SocketIndex(300));
    assert!(world.set.add_socket(socket(&more)).is_ok());
    // A socket that cannot say how far a datagram gets sends none.
    world.set.send_within(path(0, "192.0.2.1:1"), b"hello", 5);
    assert_eq!(world.set.counters().send_errors, 1);
}

#[tokio::test]
async fn the_channel_of_probes_is_bounded_and_long_ones_are_none() {
    let world = World::new();
    for _ in 0..SIDE_QUEUE_MAX + 2 {
        world.v4.receives("192.0.2.1:1", &[FIRST_BYTE], 1);
    }
    world.v4.receives("192.0.2.1:1", &[0; SIDE_SIZE_MAX + 1], SIDE_SIZE_MAX + 1);
    world.v4.receives("192.0.2.1:1", &[0x20], 1);
    while !world.is_quiet() {}
    assert_eq!(world.side.len(), SIDE_QUEUE_MAX);
    let counters = world.set.counters();
    assert_eq!((counters.side_dropped, counters.unknown_kind), (3, 1));
}

#[tokio::test]
async fn an_unanswered_send_wakes_whoever_waits_for_one() {
    let world = World::new();
    let (route, address) = world.open(&[]);
    world.set.set_best(route, path(0, "192.0.2.1:1"));
    assert_eq!(world.set.traffic(route).unwrap(), Traffic::default());
    let sender = async {
        tokio::task::yield_now().await;
        world.quic(address, b"packet").unwrap();
    };
    let (routes, ()) = tokio::join!(world.set.next_unanswered(), sender);
    assert_eq!(routes, [route].into());
}
