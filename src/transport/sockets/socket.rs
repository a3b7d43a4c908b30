//! One socket as a node needs it: what quinn asks of it, and beside that single datagrams that cross a few
//! routers only.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use quinn::AsyncUdpSocket;

/// Sends one datagram to an address with so many hops to live.
pub type SendWithin = Arc<dyn Fn(SocketAddr, &[u8], u8) -> io::Result<()> + Send + Sync>;

/// A socket, of the system or of a simulation. Clones are the same socket.
#[derive(Clone)]
pub struct Socket {
    pub(in crate::transport) quic: Arc<dyn AsyncUdpSocket>,
    within: Option<SendWithin>,
}

impl Socket {
    /// A socket whose datagrams all have the usual time to live.
    pub fn plain(quic: Arc<dyn AsyncUdpSocket>) -> Self {
        Self { quic, within: None }
    }

    /// A socket that sends single datagrams with a time to live of their own by `within`.
    pub fn new(quic: Arc<dyn AsyncUdpSocket>, within: SendWithin) -> Self {
        Self { quic, within: Some(within) }
    }

    /// The address that it is bound to.
    ///
    /// # Errors
    /// When the operating system does not say.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.quic.local_addr()
    }

    /// Sends a datagram that crosses at most `hops - 1` routers.
    ///
    /// # Errors
    /// When the socket has no room, or cannot do this at all.
    pub(in crate::transport) fn send_within(
        &self,
        to: SocketAddr,
        bytes: &[u8],
        hops: u8,
    ) -> io::Result<()> {
        match &self.within {
            Some(within) => within(to, bytes, hops),
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.quic).finish()
    }
}
