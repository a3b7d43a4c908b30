//! The one place that makes a node.

use std::net::SocketAddr;

use p2p_node::{
    failure::{Code, Failure},
    node::{Config, Event, Node},
};
use tokio::sync::mpsc;

/// How the node gets into the network.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    /// DHT nodes to begin with, as `host:port`; none means no DHT.
    pub(crate) dht_bootstrap: Vec<String>,
    /// Addresses to bind; none means all, IPv4 and IPv6, with any port.
    pub(crate) bind: Vec<SocketAddr>,
}

/// Starts a node.
///
/// # Errors
/// When its sockets cannot be opened.
#[allow(clippy::unused_async, reason = "starting a node binds sockets")]
pub(crate) async fn start(
    config: Config,
    network: Network,
) -> Result<(Node, mpsc::Receiver<Event>), Failure> {
    let Network {
        dht_bootstrap,
        bind,
    } = network;
    tracing::debug!(?config, ?dht_bootstrap, ?bind, "starting");
    Err(Failure::new(
        Code::Internal,
        "this build cannot start a node",
    ))
}
