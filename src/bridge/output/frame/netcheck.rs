//! The answer to `netcheck` as protobuf.

use super::{count, texts};
use crate::{
    bridge::reply::netcheck::{
        LifetimeReply, NetcheckReply, PairReply, PortsReply, ServerReply, WayReply,
    },
    proto::stdio::event,
};

impl From<&NetcheckReply> for event::Netcheck {
    fn from(netcheck: &NetcheckReply) -> Self {
        Self {
            udp: netcheck.udp,
            public_addrs: texts(&netcheck.public_addrs),
            mapping: netcheck.mapping.to_owned(),
            stun_servers: count(netcheck.stun_servers),
            dht_nodes: count(netcheck.dht_nodes),
            verdicts: netcheck.verdicts.clone(),
            local_addrs: texts(&netcheck.local_addrs),
            filtering: netcheck.filtering.to_owned(),
            ports: Some((&netcheck.ports).into()),
            addresses: netcheck.addresses.to_owned(),
            hairpin: netcheck.hairpin.to_owned(),
            lifetime: Some((&netcheck.lifetime).into()),
            keep_alive_ms: netcheck.keep_alive_ms,
            servers: netcheck.servers.iter().map(event::netcheck::Server::from).collect(),
            helpers: count(netcheck.helpers),
            helper: netcheck.helper,
            complete: netcheck.complete,
            pairs: netcheck.pairs.iter().map(event::netcheck::Pair::from).collect(),
        }
    }
}

impl From<&PortsReply> for event::netcheck::Ports {
    fn from(ports: &PortsReply) -> Self {
        Self {
            allocation: ports.allocation.to_owned(),
            step: ports.step.unwrap_or_default(),
            low: ports.low.unwrap_or_default().into(),
            high: ports.high.unwrap_or_default().into(),
            seen: count(ports.seen),
            by_chance_once_in: ports.by_chance_once_in.unwrap_or_default(),
        }
    }
}

impl From<&LifetimeReply> for event::netcheck::Lifetime {
    fn from(lifetime: &LifetimeReply) -> Self {
        Self {
            state: lifetime.state.to_owned(),
            at_least_ms: lifetime.at_least_ms.unwrap_or_default(),
            less_than_ms: lifetime.less_than_ms.unwrap_or_default(),
        }
    }
}

impl From<&ServerReply> for event::netcheck::Server {
    fn from(server: &ServerReply) -> Self {
        Self {
            name: server.name.clone(),
            addr: server.addr.to_string(),
            rtt_ms: server.rtt_ms.unwrap_or_default(),
        }
    }
}

impl From<&PairReply> for event::netcheck::Pair {
    fn from(pair: &PairReply) -> Self {
        Self {
            peer: pair.peer.to_string(),
            addrs: texts(&pair.addrs),
            mapping: pair.mapping.to_owned(),
            filtering: pair.filtering.to_owned(),
            ports: Some((&pair.ports).into()),
            record_age_ms: pair.record_age_ms,
            helpers: count(pair.helpers),
            outlook: pair.outlook.to_owned(),
            verdict: pair.verdict.clone(),
            ways: pair.ways.iter().map(event::netcheck::Way::from).collect(),
        }
    }
}

impl From<&WayReply> for event::netcheck::Way {
    fn from(way: &WayReply) -> Self {
        Self {
            method: way.method.clone(),
            why: way.why.clone(),
            outlook: way.outlook.to_owned(),
            takes: way.takes.clone(),
        }
    }
}
