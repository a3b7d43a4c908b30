//! Opening UDP sockets: the only file that does.
//!
//! A node's sockets are [`UdpSocket`]s: one per IP family, on the same port where that can be had,
//! with quinn's segmentation offload (GSO, GRO) and ECN where the platform has them; `quinn::udp`
//! falls back to plain calls where it has not. They are `v6only`, so an address means one socket.

use std::{
    fmt,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit, UdpSocketState},
};
use socket2::{Domain, Protocol, SockRef, Type};
use thiserror::Error;
use tokio::io::Interest;
use tracing::debug;

use super::socket::Socket;

/// Why a socket could not be opened.
#[derive(Debug, Error)]
pub enum BindError {
    /// Another program, or another node of ours, has the port.
    #[error("{address} is in use by another program")]
    AddressInUse {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The operating system reserves the port or denies sockets.
    #[error("no permission to bind {address}")]
    PermissionDenied {
        /// What was asked for.
        address: SocketAddr,
    },
    /// No interface has the address.
    #[error("{address} is not an address of this host")]
    NotOurs {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Anything else the operating system may say.
    #[error("cannot bind {address}: {source}")]
    Other {
        /// What was asked for.
        address: SocketAddr,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Opens one socket per address, or per IP family if `addresses` is empty, all on `port`.
///
/// Without a port the operating system chooses one, the same for all where that can be had. A host
/// without IPv6 gets IPv4 alone, unless an IPv6 address was asked for. Must be called within a tokio
/// runtime with I/O.
///
/// # Errors
/// When any of the addresses cannot be bound.
pub fn bind_all(addresses: &[IpAddr], port: Option<NonZeroU16>) -> Result<Vec<Socket>, BindError> {
    if let Some(port) = port {
        return bind_same_port(addresses, port.get());
    }
    for _ in 0..SAME_PORT_ATTEMPTS {
        match bind_same_port(addresses, 0) {
            // The port that one family offered is taken in another: try the next one offered.
            Err(BindError::AddressInUse { .. }) => {}
            result => return result,
        }
    }
    debug!("no port is free at all addresses; each gets its own");
    bind_each(addresses, |_| 0)
}

/// Opens one more socket at `ip`, on any port.
///
/// # Errors
/// When the address cannot be bound, or the process may open no more files.
pub fn bind_any_port(ip: IpAddr) -> Result<Socket, BindError> {
    UdpSocket::bind(SocketAddr::new(ip, 0)).map(Socket::from)
}

/// Opens a socket without any of the above: for servers that answer each datagram by itself.
///
/// # Errors
/// When the address cannot be bound.
pub fn bind_plain(address: SocketAddr) -> Result<tokio::net::UdpSocket, BindError> {
    open(address)
        .and_then(tokio::net::UdpSocket::from_std)
        .map_err(|source| BindError::new(address, source))
}

/// A UDP socket as quinn wants it.
pub struct UdpSocket {
    io: tokio::net::UdpSocket,
    batches: UdpSocketState,
    /// Single datagrams have a state of their own. They go to addresses that strangers named, and one
    /// that the kernel finds invalid makes quinn-udp give up segmentation offload for good.
    singles: UdpSocketState,
}

impl UdpSocket {
    /// Opens a socket; port 0 lets the operating system choose. Must be called within a tokio runtime
    /// with I/O.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(address: SocketAddr) -> Result<Self, BindError> {
        let wrap = |socket: std::net::UdpSocket| {
            Ok(Self {
                batches: UdpSocketState::new((&socket).into())?,
                singles: UdpSocketState::new((&socket).into())?,
                io: tokio::net::UdpSocket::from_std(socket)?,
            })
        };
        open(address).and_then(wrap).map_err(|source| BindError::new(address, source))
    }
}

impl UdpSocket {
    /// Sends a datagram that crosses at most `hops - 1` routers.
    ///
    /// The time to live belongs to the socket, so a datagram that another thread sends in the same moment
    /// may share it. Such a one is lost, as any may be.
    fn send_within(&self, to: SocketAddr, bytes: &[u8], hops: u8) -> io::Result<()> {
        let socket = SockRef::from(&self.io);
        if to.is_ipv4() {
            let usual = socket.ttl_v4()?;
            socket.set_ttl_v4(hops.into())?;
            let sent = self.io.try_send_to(bytes, to);
            socket.set_ttl_v4(usual)?;
            return sent.map(|_| ());
        }
        let usual = socket.unicast_hops_v6()?;
        socket.set_unicast_hops_v6(hops.into())?;
        let sent = self.io.try_send_to(bytes, to);
        socket.set_unicast_hops_v6(usual)?;
        sent.map(|_| ())
    }
}

impl From<UdpSocket> for Socket {
    fn from(socket: UdpSocket) -> Self {
        let socket = Arc::new(socket);
        let sender = socket.clone();
        let within = move |to: SocketAddr, bytes: &[u8], hops| sender.send_within(to, bytes, hops);
        Self::new(socket, Arc::new(within))
    }
}

impl AsyncUdpSocket for UdpSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(WritePoller { socket: self, writable: None })
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let state = match transmit.segment_size {
            Some(_) => &self.batches,
            None => &self.singles,
        };
        let send = || state.send((&self.io).into(), transmit);
        self.io.try_io(Interest::WRITABLE, send)
    }

    /// Errors are passed on: only the set of sockets knows how not to spin on them.
    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [io::IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            let received = self.io.try_io(Interest::READABLE, || {
                self.batches.recv((&self.io).into(), buffers, metas)
            });
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.batches.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.batches.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.batches.may_fragment()
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UdpSocket")
            .field("local", &self.io.local_addr().ok())
            .finish_non_exhaustive()
    }
}

type Writable = Pin<Box<dyn Future<Output = io::Result<()>> + Send + Sync>>;

/// Wakes one task when the socket has room again.
struct WritePoller {
    socket: Arc<UdpSocket>,
    writable: Option<Writable>,
}

impl UdpPoller for WritePoller {
    fn poll_writable(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = Arc::clone(&self.socket);
        let writable = self
            .writable
            .get_or_insert_with(|| Box::pin(async move { socket.io.writable().await }));
        let result = ready!(writable.as_mut().poll(cx));
        self.writable = None;
        Poll::Ready(result)
    }
}

impl fmt::Debug for WritePoller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WritePoller({:?})", self.socket)
    }
}

impl BindError {
    fn new(address: SocketAddr, source: io::Error) -> Self {
        #[expect(clippy::wildcard_enum_match_arm, reason = "not our enum")]
        match source.kind() {
            io::ErrorKind::AddrInUse => Self::AddressInUse { address },
            io::ErrorKind::PermissionDenied => Self::PermissionDenied { address },
            io::ErrorKind::AddrNotAvailable => Self::NotOurs { address },
            _ => Self::Other { address, source },
        }
    }
}

/// Opens all sockets on one port: `port`, or the one that the first socket is given if it is 0.
fn bind_same_port(addresses: &[IpAddr], port: u16) -> Result<Vec<Socket>, BindError> {
    bind_each(addresses, |first_port| match port {
        0 => first_port,
        port => port,
    })
}

/// Opens a socket per address; `port` gets the first socket's port, 0 while there is none.
fn bind_each(addresses: &[IpAddr], port: impl Fn(u16) -> u16) -> Result<Vec<Socket>, BindError> {
    let everywhere = [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let (wanted, may_lack_a_family) = match addresses {
        [] => (everywhere.as_slice(), true),
        addresses => (addresses, false),
    };
    let mut sockets: Vec<Socket> = Vec::new();
    let mut lacking = None;
    for &ip in wanted {
        let first_port = sockets
            .first()
            .and_then(|socket| socket.local_addr().ok())
            .map_or(0, |local| local.port());
        match UdpSocket::bind(SocketAddr::new(ip, port(first_port))) {
            Ok(socket) => sockets.push(socket.into()),
            // Which error says that a family is compiled out or switched off differs by platform.
            Err(error @ (BindError::NotOurs { .. } | BindError::Other { .. }))
                if may_lack_a_family =>
            {
                lacking = Some(error);
            }
            Err(error) => return Err(error),
        }
    }
    match lacking {
        Some(error) if sockets.is_empty() => Err(error),
        Some(error) => {
            debug!(%error, "this host has one IP family only");
            Ok(sockets)
        }
        None => Ok(sockets),
    }
}

fn open(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket =
        socket2::Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    for size in RECEIVE_BUFFER_SIZES {
        // Linux takes less than it is asked for without a word; the BSDs refuse.
        if socket.set_recv_buffer_size(size).is_ok() {
            break;
        }
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Sizes of the receive buffer that are asked for, in bytes, until one is granted.
///
/// 4 MiB hold 40 ms of a gigabit: a node that shares two cores with its user's program is not scheduled
/// more often than that under load.
const RECEIVE_BUFFER_SIZES: [usize; 3] = [4 << 20, 1 << 20, 256 << 10];

/// Ports that are tried before the families get different ones.
///
/// Each is free in the other family unless somebody has it there, which on an ordinary host is one
/// ephemeral port in hundreds.
const SAME_PORT_ATTEMPTS: u32 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: [IpAddr; 2] =
        [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

    fn port_of(socket: &Socket) -> u16 {
        socket.local_addr().unwrap().port()
    }

    #[tokio::test]
    async fn both_families_get_the_same_port() {
        let sockets = bind_all(&LOOPBACK, None).unwrap();
        let ports: Vec<u16> = sockets.iter().map(port_of).collect();
        assert_eq!(ports, [ports[0]; 2]);
    }

    #[tokio::test]
    async fn a_probe_with_few_hops_arrives_next_door_and_changes_no_other_datagram() {
        let [ours, theirs] =
            [0; 2].map(|port| UdpSocket::bind(SocketAddr::new(LOOPBACK[0], port)).unwrap());
        let usual = SockRef::from(&ours.io).ttl_v4().unwrap();
        ours.io.writable().await.unwrap();
        ours.send_within(theirs.local_addr().unwrap(), b"hello", 5).unwrap();
        let mut buffer = [0; 8];
        let (size, _) = theirs.io.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..size], b"hello");
        assert_eq!(SockRef::from(&ours.io).ttl_v4().unwrap(), usual);
    }

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let taken = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let port = NonZeroU16::new(taken.local_addr().unwrap().port());
        match bind_all(&LOOPBACK, port) {
            Err(BindError::AddressInUse { address }) => {
                assert_eq!(address, taken.local_addr().unwrap());
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn an_address_of_another_host_is_refused() {
        let result = UdpSocket::bind("192.0.2.1:0".parse().unwrap());
        assert!(matches!(result, Err(BindError::NotOurs { .. })), "{result:?}");
    }

    #[tokio::test]
    async fn a_plain_socket_echoes() {
        let [ours, theirs] =
            [0; 2].map(|port| bind_plain(SocketAddr::new(LOOPBACK[0], port)).unwrap());
        ours.send_to(b"hello", theirs.local_addr().unwrap()).await.unwrap();
        let mut buffer = [0; 8];
        let (size, from) = theirs.recv_from(&mut buffer).await.unwrap();
        assert_eq!((&buffer[..size], from), (b"hello".as_slice(), ours.local_addr().unwrap()));
    }
}
