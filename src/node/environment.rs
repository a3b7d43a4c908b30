//! What a node stands on: real in the program, simulated in the lab.

use std::{fmt, fs::File, net::IpAddr, sync::Arc};

use tokio::sync::watch;

use super::{clock::Clock, network::lan::Lan};
use crate::{
    dht::rendezvous::Rendezvous,
    entropy::Entropy,
    transport::{
        quic::tls::Crypto,
        sockets::{
            socket::Socket,
            udp::{self, BindError},
        },
    },
};

/// Sockets, time, randomness and rendezvous.
pub struct Environment {
    /// Bound sockets, at most one of each address family.
    pub sockets: Vec<Socket>,
    /// More of them, for NATs that change ports.
    pub extra_sockets: ExtraSockets,
    /// The addresses of the host's interfaces.
    pub interfaces: Interfaces,
    /// Tells when those addresses, or the ways out, may be others than before. Without it they are looked at
    /// every few seconds.
    pub changes: Option<watch::Receiver<()>>,
    /// Where records and offers are left; `None` for a node that uses no DHT.
    pub rendezvous: Option<Arc<dyn Rendezvous>>,
    /// The local network; `None` for a node that does not speak on it.
    pub lan: Option<Arc<dyn Lan>>,
    /// What time it is.
    pub clock: Clock,
    /// Where random bits come from.
    pub entropy: Entropy,
    /// Where those of TLS come from: random, or seeded for runs that can be replayed.
    pub crypto: Crypto,
    /// The file of the outbox, for a node that has one; open for reading and writing.
    pub outbox: Option<File>,
}

/// Tells the addresses of the host's interfaces; asked again every few seconds.
pub type Interfaces = Arc<dyn Fn() -> Vec<IpAddr> + Send + Sync>;

/// Opens a socket at an address of the host, on any port.
pub type OpenSocket = Arc<dyn Fn(IpAddr) -> Result<Socket, BindError> + Send + Sync>;

/// Sockets that a node may open beside its own for a while.
#[derive(Clone)]
pub struct ExtraSockets {
    /// Opens one.
    pub open: OpenSocket,
    /// How many there may be at a time; no more than [`EXTRA_SOCKETS_MAX`] ever are.
    pub count_max: usize,
}

/// Extra sockets that are of use: a carrier's block of ports has about so many.
pub const EXTRA_SOCKETS_MAX: usize = 1_024;

impl ExtraSockets {
    /// As many of the operating system's as are of use.
    pub fn system() -> Self {
        Self { open: Arc::new(udp::bind_any_port), count_max: EXTRA_SOCKETS_MAX }
    }
}

impl fmt::Debug for ExtraSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtraSockets").field("count_max", &self.count_max).finish_non_exhaustive()
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("sockets", &self.sockets)
            .field("rendezvous", &self.rendezvous)
            .finish_non_exhaustive()
    }
}
