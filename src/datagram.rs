//! Datagrams, and the names of the sockets and paths that they take.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

/// Names one UDP socket of this node; the owner of the sockets hands the numbers out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketIndex(pub u16);

/// A UDP socket of this node, as far as pure code needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BoundSocket {
    /// Its name.
    pub index: SocketIndex,
    /// What it is bound to. Its family is the only one the socket speaks; the IP address is
    /// unspecified if the socket listens on every interface.
    pub local: SocketAddr,
}

/// Bytes that came from, or go to, `remote`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datagram {
    /// The socket that received or sends them.
    pub socket: SocketIndex,
    /// The other end; never IPv4-mapped IPv6.
    pub remote: SocketAddr,
    /// The payload of one UDP packet.
    pub bytes: Vec<u8>,
}

/// A local socket and a remote address that datagrams can go between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// Our end.
    pub socket: SocketIndex,
    /// Their end; never IPv4-mapped IPv6.
    pub remote: SocketAddr,
}

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by socket {}", self.remote, self.socket.0)
    }
}

impl Family {
    /// The family of `ip`; that of an IPv4-mapped IPv6 address is IPv4.
    pub fn of(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }
}

impl BoundSocket {
    /// Whether datagrams to `remote` can leave through this socket.
    pub fn reaches(&self, remote: SocketAddr) -> bool {
        Family::of(self.local.ip()) == Family::of(remote.ip())
    }
}
