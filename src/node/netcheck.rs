//! What this network lets through, and what that means for connections: the facts that a check gathers. What they mean
//! in general `verdicts` says, and for one peer `pair`.

mod pair;
mod verdicts;

use std::{net::SocketAddr, time::Duration};

pub(super) use self::pair::{Ours, judge};
pub use self::pair::{Outlook, Pair, Way};
use super::event::Target;
use crate::{
    behaviour::{Dependence, Hairpin, Lifetime, NatBehaviour, Pooling, PortAllocation},
    nat::{inference::Inferred, lifetime::Finding},
};

/// What a check is to look at besides the network itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// A peer: its record is looked up, and the way to it is judged. It is not dialled.
    pub peer: Option<Target>,
    /// The longest silence after which it is looked whether the NAT has forgotten a mapping; the check takes as
    /// long, and six seconds more at most. See [`SILENCE_MIN`](crate::nat::lifetime::SILENCE_MIN) and
    /// [`SILENCE_MAX`](crate::nat::lifetime::SILENCE_MAX) for what it is brought into.
    pub lifetime: Option<Duration>,
}

/// What is known of the network around this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netcheck {
    /// Whether any answer came back over UDP.
    pub udp: bool,
    /// Our addresses on our own interfaces.
    pub local_addresses: Vec<SocketAddr>,
    /// Our addresses as STUN servers see them.
    pub public_addresses: Vec<SocketAddr>,
    /// How the NAT maps our port; `None` as long as too few servers answered.
    pub mapping: Option<Dependence>,
    /// Whom the filter lets in; `None` as long as peers have not shown it.
    pub filtering: Option<Dependence>,
    /// How the NAT chooses ports.
    pub ports: Ports,
    /// At how many public addresses the NAT shows us; `None` without one.
    pub pooling: Option<Pooling>,
    /// Whether the NAT turns back what is sent to its own public address.
    pub hairpin: Option<Hairpin>,
    /// How long the NAT keeps a mapping without a datagram.
    pub lifetime: Life,
    /// How often our mapping is kept alive, at least.
    pub keep_alive: Duration,
    /// The STUN servers that were asked, in that order.
    pub stun_servers: Vec<StunServer>,
    /// DHT nodes that answered lately.
    pub dht_nodes: usize,
    /// Helpers that forward offers to us.
    pub helpers: usize,
    /// Whether we forward offers to others.
    pub is_helper: bool,
    /// Whether all that was to be found out was, before the time was over.
    pub is_complete: bool,
    /// For people: which kinds of peers will work, which not, and what to do.
    pub verdicts: Vec<String>,
    /// What it means for the peer that was named: for each server, if that is a service.
    pub pairs: Vec<Pair>,
}

/// How the NAT chooses ports, as far as a few fresh sockets show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ports {
    /// `None` if there is no NAT, or not enough was seen.
    pub allocation: Option<PortAllocation>,
    /// Ports that this rests on.
    pub seen: usize,
    /// Of a block: in how many of as many NATs with random ports they would lie so close together once.
    pub by_chance_once_in: Option<u64>,
}

/// How long the NAT keeps a mapping without a datagram.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Life {
    /// Nobody asked, and nothing has shown it.
    #[default]
    NotMeasured,
    /// It was measured in vain: no server answered, or no socket could be opened.
    NotFound,
    /// The NAT keeps ports, so that nothing is seen from outside when it forgets a mapping.
    PortsKept,
    /// As far as it was measured.
    Measured(Lifetime),
}

/// A STUN server that was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StunServer {
    /// Its name, as the user wrote it.
    pub name: String,
    /// One of its addresses.
    pub address: SocketAddr,
    /// How long its answer took; `None` if there was none.
    pub rtt: Option<Duration>,
}

/// What was seen, before it is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) local_addresses: Vec<SocketAddr>,
    pub(super) public_addresses: Vec<SocketAddr>,
    pub(super) nat: NatBehaviour,
    pub(super) ports: Ports,
    pub(super) pooling: Option<Pooling>,
    pub(super) hairpin: Option<Hairpin>,
    pub(super) lifetime: Life,
    pub(super) keep_alive: Duration,
    pub(super) stun_servers: Vec<StunServer>,
    pub(super) stun_configured: bool,
    pub(super) dht_nodes: usize,
    pub(super) dht_configured: bool,
    pub(super) helpers: usize,
    pub(super) is_helper: bool,
    pub(super) is_complete: bool,
}

impl Seen {
    /// Says what it means, and what it means for the peers that were looked up; `None` if none was named.
    pub(super) fn judge(self, named: Option<(&Target, Vec<Pair>)>) -> Netcheck {
        let udp = self.has_udp();
        let mut verdicts = self.verdicts();
        let pairs = match named {
            None => vec![],
            Some((target, pairs)) => {
                verdicts.extend(self.verdicts_on(target, &pairs));
                pairs
            }
        };
        Netcheck {
            udp,
            local_addresses: self.local_addresses,
            public_addresses: self.public_addresses,
            mapping: self.nat.mapping,
            filtering: self.nat.filtering,
            ports: self.ports,
            pooling: self.pooling,
            hairpin: self.hairpin,
            lifetime: self.lifetime,
            keep_alive: self.keep_alive,
            stun_servers: self.stun_servers,
            dht_nodes: self.dht_nodes,
            helpers: self.helpers,
            is_helper: self.is_helper,
            is_complete: self.is_complete,
            verdicts,
            pairs,
        }
    }

    fn answering(&self) -> usize {
        self.stun_servers.iter().filter(|server| server.rtt.is_some()).count()
    }

    pub(super) fn has_udp(&self) -> bool {
        self.answering() > 0 || self.dht_nodes > 0
    }
}

impl Netcheck {
    /// STUN servers that answered.
    pub fn stun_servers_answering(&self) -> usize {
        self.stun_servers.iter().filter(|server| server.rtt.is_some()).count()
    }
}

impl Ports {
    /// What `inferred` says of them.
    pub(super) fn of(inferred: &Inferred) -> Self {
        Self {
            allocation: inferred.allocation,
            seen: inferred.evidence.ports.len(),
            by_chance_once_in: inferred.by_chance_once_in(),
        }
    }
}

impl From<Finding> for Life {
    fn from(finding: Finding) -> Self {
        match finding {
            Finding::Measured(lifetime) => Self::Measured(lifetime),
            Finding::PortsKept => Self::PortsKept,
            Finding::Nothing => Self::NotFound,
        }
    }
}
