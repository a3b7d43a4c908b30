//! Datagrams and the addresses they travel between.

use std::{fmt, net::SocketAddr};

/// Which socket of a node's set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SocketIndex(pub u8);

/// A local socket and a remote address that datagrams travel between.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path {
    /// The local socket.
    pub socket: SocketIndex,
    /// The remote address; never IPv4-mapped IPv6.
    pub remote: SocketAddr,
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by socket {}", self.remote, self.socket.0)
    }
}

/// Bytes that came from an address, or go to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Datagram {
    /// The local socket.
    pub socket: SocketIndex,
    /// The remote address.
    pub remote: SocketAddr,
    /// What it carries.
    pub bytes: Vec<u8>,
}
