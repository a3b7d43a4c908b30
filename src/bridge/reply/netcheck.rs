//! What `netcheck` comes to: the fields of its `ok`, and of the line that `p2p-node netcheck --json` prints.

use std::net::SocketAddr;

use serde::Serialize;

use crate::{
    behaviour::{Dependence, Hairpin, Pooling, PortAllocation},
    bridge::values::{display, millis, whole_millis},
    identity::PeerId,
    node::{self, Life, Outlook},
};

/// What the network lets through.
#[derive(Debug, Serialize)]
pub struct NetcheckReply {
    /// Whether any UDP came back.
    pub udp: bool,
    /// The node's addresses on its own interfaces.
    pub local_addrs: Vec<SocketAddr>,
    /// The node's addresses as STUN servers see them.
    pub public_addrs: Vec<SocketAddr>,
    /// How the NAT maps ports.
    pub mapping: &'static str,
    /// Whom the filter lets in.
    pub filtering: &'static str,
    /// How the NAT chooses ports.
    pub ports: PortsReply,
    /// At how many public addresses the node is seen: `one`, `several` or `unknown`.
    pub addresses: &'static str,
    /// Whether the NAT turns back what is sent to its own public address: `works`, `missing` or `unknown`.
    pub hairpin: &'static str,
    /// How long the NAT keeps a mapping without a datagram.
    pub lifetime: LifetimeReply,
    /// The most time between two signs of life through the node's own mapping.
    pub keep_alive_ms: u64,
    /// STUN servers that answered.
    pub stun_servers: usize,
    /// The STUN servers that were asked.
    pub servers: Vec<ServerReply>,
    /// DHT nodes that answered lately.
    pub dht_nodes: usize,
    /// Helpers that forward offers to the node.
    pub helpers: usize,
    /// Whether the node forwards offers to others.
    pub helper: bool,
    /// Whether everything was found out in time.
    pub complete: bool,
    /// For people.
    pub verdicts: Vec<String>,
    /// What it means for the peer that was named.
    pub pairs: Vec<PairReply>,
}

/// How a NAT chooses ports.
#[derive(Debug, Serialize)]
pub struct PortsReply {
    /// `preserving`, `sequential`, `block`, `random` or `unknown`.
    pub allocation: &'static str,
    /// From one port to the next, if they come in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// The lowest port that was seen, if they come from a block.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub low: Option<u16>,
    /// The highest one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub high: Option<u16>,
    /// Ports that this rests on; 0 if somebody else says so.
    pub seen: usize,
    /// In how many of as many NATs with random ports they would lie so close together once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by_chance_once_in: Option<u64>,
}

/// How long a NAT keeps a mapping without a datagram.
#[derive(Debug, Serialize)]
pub struct LifetimeReply {
    /// `not-measured`, `not-found`, `ports-kept` or `measured`.
    pub state: &'static str,
    /// A mapping was still there after so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at_least_ms: Option<u64>,
    /// A mapping was forgotten after so long.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub less_than_ms: Option<u64>,
}

/// A STUN server that was asked.
#[derive(Debug, Serialize)]
pub struct ServerReply {
    /// As the user named it.
    pub name: String,
    /// One of its addresses.
    pub addr: SocketAddr,
    /// How long its answer took, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// What the network means for one peer.
#[derive(Debug, Serialize)]
pub struct PairReply {
    /// Who it is.
    #[serde(serialize_with = "display")]
    pub peer: PeerId,
    /// Where it says that it is.
    pub addrs: Vec<SocketAddr>,
    /// How its NAT maps ports.
    pub mapping: &'static str,
    /// Whom its filter lets in.
    pub filtering: &'static str,
    /// How its NAT chooses ports.
    pub ports: PortsReply,
    /// How old its record is, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record_age_ms: Option<u64>,
    /// Helpers that forward offers to it.
    pub helpers: usize,
    /// `opens`, `likely`, `unlikely`, `unknown` or `impossible`.
    pub outlook: &'static str,
    /// For people.
    pub verdict: String,
    /// What would be tried, in that order.
    pub ways: Vec<WayReply>,
}

/// One way to a peer.
#[derive(Debug, Serialize)]
pub struct WayReply {
    /// What is done.
    pub method: String,
    /// Why.
    pub why: String,
    /// How likely it opens, in the words of the pair's.
    pub outlook: &'static str,
    /// How long it takes, for people.
    pub takes: String,
}

impl From<node::Netcheck> for NetcheckReply {
    fn from(netcheck: node::Netcheck) -> Self {
        Self {
            udp: netcheck.udp,
            mapping: dependence(netcheck.mapping),
            filtering: dependence(netcheck.filtering),
            ports: netcheck.ports.into(),
            addresses: match netcheck.pooling {
                Some(Pooling::Paired) => "one",
                Some(Pooling::Arbitrary) => "several",
                None => "unknown",
            },
            hairpin: match netcheck.hairpin {
                Some(Hairpin::Works) => "works",
                Some(Hairpin::Missing) => "missing",
                None => "unknown",
            },
            lifetime: netcheck.lifetime.into(),
            keep_alive_ms: whole_millis(netcheck.keep_alive),
            stun_servers: netcheck.stun_servers_answering(),
            servers: netcheck.stun_servers.into_iter().map(ServerReply::from).collect(),
            dht_nodes: netcheck.dht_nodes,
            helpers: netcheck.helpers,
            helper: netcheck.is_helper,
            complete: netcheck.is_complete,
            verdicts: netcheck.verdicts,
            pairs: netcheck.pairs.into_iter().map(PairReply::from).collect(),
            local_addrs: netcheck.local_addresses,
            public_addrs: netcheck.public_addresses,
        }
    }
}

impl From<node::Ports> for PortsReply {
    fn from(ports: node::Ports) -> Self {
        let (allocation, step, low, high) = match ports.allocation {
            Some(PortAllocation::Preserving) => ("preserving", None, None, None),
            Some(PortAllocation::Sequential { step }) => ("sequential", Some(step), None, None),
            Some(PortAllocation::Block { low, high }) => ("block", None, Some(low), Some(high)),
            Some(PortAllocation::Random) => ("random", None, None, None),
            None => ("unknown", None, None, None),
        };
        let node::Ports { seen, by_chance_once_in, .. } = ports;
        Self { allocation, step, low, high, seen, by_chance_once_in }
    }
}

impl From<Life> for LifetimeReply {
    fn from(life: Life) -> Self {
        let (state, lifetime) = match life {
            Life::NotMeasured => ("not-measured", None),
            Life::NotFound => ("not-found", None),
            Life::PortsKept => ("ports-kept", None),
            Life::Measured(lifetime) => ("measured", Some(lifetime)),
        };
        Self {
            state,
            at_least_ms: lifetime.and_then(|lifetime| lifetime.at_least).map(whole_millis),
            less_than_ms: lifetime.and_then(|lifetime| lifetime.less_than).map(whole_millis),
        }
    }
}

impl From<node::StunServer> for ServerReply {
    fn from(server: node::StunServer) -> Self {
        let node::StunServer { name, address, rtt } = server;
        Self { name, addr: address, rtt_ms: rtt.map(millis) }
    }
}

impl From<node::Pair> for PairReply {
    fn from(pair: node::Pair) -> Self {
        let ports = node::Ports { allocation: pair.nat.allocation, ..node::Ports::default() };
        Self {
            peer: pair.peer,
            addrs: pair.addresses,
            mapping: dependence(pair.nat.mapping),
            filtering: dependence(pair.nat.filtering),
            ports: ports.into(),
            record_age_ms: pair.record_age.map(whole_millis),
            helpers: pair.helpers,
            outlook: outlook(pair.outlook),
            verdict: pair.verdict,
            ways: pair.ways.into_iter().map(WayReply::from).collect(),
        }
    }
}

impl From<node::Way> for WayReply {
    fn from(way: node::Way) -> Self {
        let node::Way { method, why, takes, .. } = way;
        Self { method, why, outlook: outlook(way.outlook), takes }
    }
}

fn dependence(dependence: Option<Dependence>) -> &'static str {
    match dependence {
        Some(Dependence::None) => "none",
        Some(Dependence::EndpointIndependent) => "endpoint-independent",
        Some(Dependence::AddressDependent) => "address-dependent",
        Some(Dependence::AddressAndPortDependent) => "address-and-port-dependent",
        None => "unknown",
    }
}

fn outlook(outlook: Outlook) -> &'static str {
    match outlook {
        Outlook::Opens => "opens",
        Outlook::Likely => "likely",
        Outlook::Unlikely => "unlikely",
        Outlook::Unknown => "unknown",
        Outlook::Impossible => "impossible",
    }
}
