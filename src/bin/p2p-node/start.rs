//! The one place that makes a node of real sockets.

use std::{
    fs::File,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use p2p_node::{
    dht::{
        mainline::{Config as DhtConfig, Mainline, Participation},
        rendezvous::Rendezvous,
    },
    entropy::Entropy,
    failure::{Code, Failure},
    node::{Clock, Config, Environment, Event, Inbox, Node, lan::Lan},
    transport::{
        quic::tls::Crypto,
        sockets::{
            socket::Socket,
            udp::{self, BindError, UdpSocket},
        },
    },
};
use tokio::sync::mpsc;

use crate::{files, mdns::Mdns, network_changes::watch_network};

/// How the node gets into the network.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// DHT nodes to begin with, as `host:port`; none means no DHT.
    pub(crate) dht_bootstrap: Vec<String>,
    /// Addresses to bind; none means all, IPv4 and IPv6, with any port.
    pub(crate) bind: Vec<SocketAddr>,
    /// Whether nodes on the local network are to find each other.
    pub(crate) lan: bool,
}

/// Starts a node.
///
/// # Errors
/// When its sockets cannot be opened.
pub(crate) fn start(
    config: Config,
    network: Network,
    outbox: Option<File>,
) -> Result<(Node, mpsc::Receiver<Event>, Inbox), Failure> {
    let mut entropy = Entropy::from_system();
    let sockets = bind(&network.bind).map_err(|error| not_bound(&error))?;
    let rendezvous = match network.dht_bootstrap.is_empty() {
        true => None,
        false => Some(reach_dht(&network, entropy.fork()).map_err(|error| no_dht_socket(&error))?),
    };
    let environment = Environment {
        sockets,
        extra_sockets: files::extra_sockets(),
        interfaces: Arc::new(interface_addresses),
        changes: watch_network(),
        rendezvous,
        lan: lan(&network, &mut entropy),
        clock: Clock::system(),
        entropy,
        crypto: Crypto::system(),
        outbox,
    };
    Node::start(config, environment)
}

fn bind(addresses: &[SocketAddr]) -> Result<Vec<Socket>, BindError> {
    if addresses.is_empty() {
        return udp::bind_all(&[], None);
    }
    let bind = |&address| UdpSocket::bind(address).map(Socket::from);
    addresses.iter().map(bind).collect()
}

/// Nothing is said on a network to a node that nobody there can reach.
fn lan(network: &Network, entropy: &mut Entropy) -> Option<Arc<dyn Lan>> {
    let addresses: Vec<IpAddr> = network.bind.iter().map(SocketAddr::ip).collect();
    let is_here_alone = !addresses.is_empty() && addresses.iter().all(IpAddr::is_loopback);
    if !network.lan || is_here_alone {
        return None;
    }
    let bound_to_all = addresses.iter().any(IpAddr::is_unspecified);
    let named = if bound_to_all { Vec::new() } else { addresses };
    Some(Arc::new(Mdns::new(named, entropy)))
}

/// The DHT's own socket: on the address that was asked for, or on all; on any port.
fn reach_dht(network: &Network, entropy: Entropy) -> io::Result<Arc<dyn Rendezvous>> {
    let v4 = |address: &SocketAddr| match address.ip() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    };
    let config = DhtConfig {
        bootstrap: network.dht_bootstrap.clone(),
        bind: network.bind.iter().find_map(v4).unwrap_or(Ipv4Addr::UNSPECIFIED),
        participation: Participation::Client,
    };
    Ok(Arc::new(Mainline::start(config, entropy)?))
}

fn interface_addresses() -> Vec<IpAddr> {
    // Without a list of interfaces a node still has its public address.
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    interfaces.into_iter().map(|interface| interface.ip()).collect()
}

fn not_bound(error: &BindError) -> Failure {
    Failure::new(Code::AddressInUse, error.to_string())
        .hint("name another address or port: --bind ADDRESS:PORT")
}

fn no_dht_socket(error: &io::Error) -> Failure {
    Failure::new(Code::AddressInUse, "no socket for the DHT can be opened")
        .because(error.to_string())
        .hint("the DHT uses IPv4: --bind an IPv4 address of this machine, or --dht-bootstrap none")
}
