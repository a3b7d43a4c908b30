//! A DHT of one's own: many `mainline` nodes in this process, for tests, the demo and networks without
//! internet.

use std::{
    io,
    net::{Ipv4Addr, SocketAddrV4},
};

use mainline::async_dht::AsyncDht;

use super::mainline::{NodePlan, Participation, Start, build};

/// A DHT that ends when it is dropped.
#[derive(Debug)]
pub struct Testnet {
    nodes: Vec<AsyncDht>,
    addresses: Vec<SocketAddrV4>,
}

/// Nodes that others are told to start from: one may be busy.
const BOOTSTRAP_NODES: usize = 3;

impl Testnet {
    /// Starts `count` nodes, at least one, spread over `addresses`, or on loopback if there are none.
    ///
    /// Each node costs a thread; twenty are up within a fraction of a second, and know each other within
    /// another.
    ///
    /// # Errors
    /// When no socket can be opened on one of the addresses.
    pub async fn start(addresses: &[Ipv4Addr], count: usize) -> io::Result<Self> {
        let binds = addresses.iter().copied().cycle().chain(std::iter::repeat(Ipv4Addr::LOCALHOST));
        Self::start_nodes(binds.take(count.max(1)), 0).await
    }

    /// Starts `count` nodes on loopback, the first on `port`, so that others can know it beforehand.
    ///
    /// # Errors
    /// When the port is taken.
    pub async fn start_at(port: u16, count: usize) -> io::Result<Self> {
        Self::start_nodes(std::iter::repeat_n(Ipv4Addr::LOCALHOST, count.max(1)), port).await
    }

    async fn start_nodes(
        binds: impl Iterator<Item = Ipv4Addr>,
        first_port: u16,
    ) -> io::Result<Self> {
        let mut testnet = Self { nodes: Vec::new(), addresses: Vec::new() };
        for bind in binds {
            let (start, port) = match testnet.addresses.first() {
                None => (Start::First, first_port),
                Some(first) => (Start::From(vec![*first]), 0),
            };
            let plan = NodePlan { start, bind, port, participation: Participation::Server };
            let built = tokio::task::spawn_blocking(move || build(&plan)).await;
            let node = built.map_err(io::Error::other)??.as_async();
            testnet.addresses.push(node.info().await.local_addr());
            testnet.nodes.push(node);
        }
        Ok(testnet)
    }

    /// Nodes to start from, as `host:port`.
    pub fn bootstrap(&self) -> Vec<String> {
        self.addresses.iter().take(BOOTSTRAP_NODES).map(ToString::to_string).collect()
    }

    /// Where all nodes are.
    pub fn addresses(&self) -> &[SocketAddrV4] {
        &self.addresses
    }

    /// Ends all nodes but the first `count`: the others fall silent without a word.
    pub fn silence_all_but(&mut self, count: usize) {
        self.nodes.truncate(count);
    }
}
