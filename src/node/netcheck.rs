//! What this network lets through, and what that means for connections: facts, then verdicts.

use std::net::SocketAddr;

use crate::behaviour::{Dependence, NatBehaviour};

/// What is known of the network around this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netcheck {
    /// Whether any answer came back over UDP.
    pub udp: bool,
    /// Our addresses as STUN servers see them.
    pub public_addresses: Vec<SocketAddr>,
    /// How the NAT maps our port; `None` as long as too few servers answered.
    pub mapping: Option<Dependence>,
    /// STUN servers that answered.
    pub stun_servers: usize,
    /// DHT nodes that answered lately.
    pub dht_nodes: usize,
    /// For people: which kinds of peers will work, which not, and what to do.
    pub verdicts: Vec<String>,
}

/// What was seen, before it is judged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) public_addresses: Vec<SocketAddr>,
    pub(super) nat: NatBehaviour,
    pub(super) stun_servers: usize,
    pub(super) stun_configured: bool,
    pub(super) dht_nodes: usize,
    pub(super) dht_configured: bool,
}

impl Seen {
    /// Says what it means.
    pub(super) fn judge(self) -> Netcheck {
        let udp = self.stun_servers > 0 || self.dht_nodes > 0;
        let verdicts = self.verdicts(udp);
        Netcheck {
            udp,
            mapping: self.nat.mapping,
            public_addresses: self.public_addresses,
            stun_servers: self.stun_servers,
            dht_nodes: self.dht_nodes,
            verdicts,
        }
    }

    fn verdicts(&self, udp: bool) -> Vec<String> {
        let mut verdicts = Vec::new();
        let mut say = |text: &str| verdicts.push(text.to_owned());
        match (udp, self.stun_configured || self.dht_configured) {
            (false, true) => {
                say(
                    "UDP does not leave this network, or nobody answers: only peers on this network \
                     can be reached. Try another network, or ask for UDP to be let out.",
                );
            }
            (false, false) => {
                say(
                    "No STUN server and no DHT were named: only peers whose addresses are known can \
                     be reached. Name some with --stun and --dht-bootstrap.",
                );
            }
            (true, _) => say(self.mapping_verdict()),
        }
        if udp && self.dht_configured && self.dht_nodes == 0 {
            say(
                "No DHT node has answered: peers cannot be looked up. Tickets with addresses still \
                 work (p2p-node ticket --addrs).",
            );
        }
        if udp && self.stun_configured && self.stun_servers == 0 {
            say("No STUN server has answered: our public address is not known, so peers on other \
                 networks may not reach this node. --stun HOST:PORT names another server.");
        }
        verdicts
    }

    fn mapping_verdict(&self) -> &'static str {
        match self.nat.mapping {
            Some(Dependence::None) => {
                "There is no NAT in front of this node: every peer that can send UDP will reach it."
            }
            Some(Dependence::EndpointIndependent) => {
                "The NAT keeps one port for all destinations: peers behind home routers, carrier NAT \
                 and none at all will work."
            }
            Some(Dependence::AddressDependent | Dependence::AddressAndPortDependent) => {
                "The NAT uses another port for every destination: peers without NAT, or whose NAT \
                 keeps its port, will work; two such NATs will not meet. Forwarding a UDP port to this \
                 machine, or IPv6, helps."
            }
            None => {
                "Too few STUN servers have answered to tell how the NAT behaves: a second --stun \
                 server tells."
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(mapping: Option<Dependence>) -> Seen {
        Seen {
            nat: NatBehaviour::new(mapping, None),
            stun_servers: 2,
            stun_configured: true,
            dht_nodes: 5,
            dht_configured: true,
            ..Seen::default()
        }
    }

    #[test]
    fn a_network_without_udp_says_what_still_works() {
        let seen = Seen { stun_servers: 0, dht_nodes: 0, ..seen(None) };
        let check = seen.judge();
        assert!(!check.udp);
        assert_eq!(check.verdicts.len(), 1);
        assert!(check.verdicts.iter().any(|verdict| verdict.contains("UDP does not leave")));
    }

    #[test]
    fn each_mapping_has_its_verdict() {
        let verdict = |mapping| seen(mapping).judge().verdicts;
        let verdicts = [
            verdict(None),
            verdict(Some(Dependence::None)),
            verdict(Some(Dependence::EndpointIndependent)),
            verdict(Some(Dependence::AddressAndPortDependent)),
        ];
        assert!(verdicts.iter().all(|verdicts| verdicts.len() == 1));
        let distinct: std::collections::BTreeSet<_> = verdicts.iter().collect();
        assert_eq!(distinct.len(), 4);
    }

    #[test]
    fn a_dht_that_does_not_answer_is_told_beside_the_nat() {
        let seen = Seen { dht_nodes: 0, ..seen(Some(Dependence::EndpointIndependent)) };
        assert_eq!(seen.judge().verdicts.len(), 2);
    }
}
