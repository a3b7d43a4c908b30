//! What a node stands on: real in the program, simulated in the lab.

use std::{fmt, fs::File, net::IpAddr, sync::Arc};

use quinn::AsyncUdpSocket;
use tokio::sync::watch;

use super::{clock::Clock, lan::Lan};
use crate::{dht::rendezvous::Rendezvous, entropy::Entropy, transport::tls::Crypto};

/// Sockets, time, randomness and rendezvous.
pub struct Environment {
    /// Bound sockets, at most one of each address family.
    pub sockets: Vec<Arc<dyn AsyncUdpSocket>>,
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

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment")
            .field("sockets", &self.sockets)
            .field("rendezvous", &self.rendezvous)
            .finish_non_exhaustive()
    }
}
