//! What a network means for connections: which kinds of peers will work, which not, and what to do.

use super::{Life, Outlook, Pair, Seen};
use crate::{
    behaviour::{Dependence, Hairpin, Pooling, PortAllocation},
    node::event::Target,
};

impl Seen {
    /// The verdicts on this network, the most important first.
    pub(super) fn verdicts(&self) -> Vec<String> {
        let mut verdicts = Vec::new();
        let mut say = |text: &str| verdicts.push(text.to_owned());
        let udp = self.has_udp();
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
        if udp && self.stun_configured && self.answering() == 0 {
            say("No STUN server has answered: our public address is not known, so peers on other \
                 networks may not reach this node. --stun HOST:PORT names another server.");
        }
        if self.pooling == Some(Pooling::Arbitrary) {
            say(
                "The NAT shows this machine at several public addresses, any of them for each socket: \
                 peers are told of them, and some pairs of NATs take longer to open.",
            );
        }
        if self.hairpin == Some(Hairpin::Missing) {
            say(
                "The NAT does not turn back what is sent to its own public address: peers behind it \
                 are reached only by the addresses that they have inside.",
            );
        }
        if let Some(text) = self.lifetime_verdict() {
            say(&text);
        }
        verdicts
    }

    fn mapping_verdict(&self) -> &'static str {
        let lets_everybody_in =
            matches!(self.nat.filtering, Some(Dependence::None | Dependence::EndpointIndependent));
        match (self.nat.mapping, self.nat.allocation) {
            (Some(Dependence::None), _) if lets_everybody_in => {
                "There is no NAT in front of this node, and peers have come in unannounced: every peer \
                 that can send UDP will reach it."
            }
            (Some(Dependence::None), _) => {
                "There is no NAT in front of this node: every peer that can send UDP will reach it. If \
                 a firewall is in the way, it is opened from both sides."
            }
            (Some(Dependence::EndpointIndependent), _) if lets_everybody_in => {
                "The NAT keeps one port for all destinations and lets everybody in: every peer that can \
                 send UDP will reach this node."
            }
            (Some(Dependence::EndpointIndependent), _) => {
                "The NAT keeps one port for all destinations: peers behind home routers, carrier NAT \
                 and none at all will work."
            }
            (
                Some(Dependence::AddressDependent | Dependence::AddressAndPortDependent),
                Some(PortAllocation::Sequential { .. } | PortAllocation::Block { .. }),
            ) => {
                "The NAT uses another port for every destination, but which one can be guessed: peers \
                 without NAT, behind home routers, and behind NATs like this one will work. Of NATs \
                 that use any port without order, none will. Forwarding a UDP port to this machine, or \
                 IPv6, helps."
            }
            (Some(Dependence::AddressDependent | Dependence::AddressAndPortDependent), _) => {
                "The NAT uses another port for every destination: peers without NAT, or whose NAT \
                 keeps its port, will work; two such NATs will not meet. Forwarding a UDP port to this \
                 machine, or IPv6, helps."
            }
            (None, _) => {
                "Too few STUN servers have answered to tell how the NAT behaves: a second --stun \
                 server tells."
            }
        }
    }

    fn lifetime_verdict(&self) -> Option<String> {
        let often = self.keep_alive.as_secs();
        match self.lifetime {
            Life::NotMeasured => None,
            Life::NotFound => Some(
                "How long the NAT keeps a mapping could not be measured: no STUN server answered \
                 twice."
                    .to_owned(),
            ),
            Life::PortsKept => Some(format!(
                "How long the NAT keeps a mapping cannot be told this way: it gives a new mapping the \
                 port that the old one had. A running node keeps its own alive every {often} s or more \
                 often."
            )),
            Life::Measured(lifetime) => Some(format!(
                "The NAT keeps a mapping without traffic for {lifetime}; a running node keeps its own \
                 alive every {often} s or more often."
            )),
        }
    }

    /// The verdict on each of the peers that `target` led to.
    pub(super) fn verdicts_on(&self, target: &Target, pairs: &[Pair]) -> Vec<String> {
        if pairs.is_empty() {
            let cause = match (self.dht_configured, self.dht_nodes) {
                (false, _) => "this node was started without a DHT",
                (true, 0) => "no DHT node has answered",
                (true, _) => {
                    "nothing is published for it, so it does not run in server mode, or has just begun"
                }
            };
            return vec![format!("Whether {target} can be reached is not known: {cause}.")];
        }
        let verdict = |pair: &Pair| {
            let name = pair.peer.short();
            let yes_or_no = match pair.outlook {
                Outlook::Opens => format!("{name}: yes."),
                Outlook::Likely => format!("{name}: yes, most likely."),
                Outlook::Unlikely => format!("{name}: perhaps."),
                Outlook::Impossible => format!("{name}: no."),
                Outlook::Unknown => format!("{name}: not known."),
            };
            format!("{yes_or_no} {}", pair.verdict)
        };
        pairs.iter().map(verdict).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        behaviour::{Lifetime, NatBehaviour},
        node::netcheck::StunServer,
    };

    fn seen(mapping: Option<Dependence>) -> Seen {
        let server = |number: u8| StunServer {
            name: format!("stun{number}.example:3478"),
            address: ([203, 0, 113, number], 3_478).into(),
            rtt: Some(Duration::from_millis(20)),
        };
        Seen {
            nat: NatBehaviour::new(mapping, None),
            stun_servers: vec![server(1), server(2)],
            stun_configured: true,
            dht_nodes: 5,
            dht_configured: true,
            keep_alive: Duration::from_secs(25),
            ..Seen::default()
        }
    }

    fn symmetric(allocation: PortAllocation) -> Seen {
        let mut seen = seen(Some(Dependence::AddressAndPortDependent));
        seen.nat.allocation = Some(allocation);
        seen
    }

    #[test]
    fn a_network_without_udp_says_what_still_works() {
        let seen = Seen { stun_servers: vec![], dht_nodes: 0, ..seen(None) };
        let check = seen.judge(None);
        assert!(!check.udp);
        assert_eq!(check.verdicts.len(), 1);
        assert!(check.verdicts.iter().any(|verdict| verdict.contains("UDP does not leave")));
    }

    #[test]
    fn each_kind_of_nat_has_its_verdict() {
        let mut open = seen(Some(Dependence::EndpointIndependent));
        open.nat.filtering = Some(Dependence::EndpointIndependent);
        let mut public = seen(Some(Dependence::None));
        public.nat.filtering = Some(Dependence::None);
        let verdicts = [
            seen(None),
            seen(Some(Dependence::None)),
            public,
            seen(Some(Dependence::EndpointIndependent)),
            open,
            symmetric(PortAllocation::Random),
            symmetric(PortAllocation::Sequential { step: 1 }),
        ]
        .map(|seen| seen.judge(None).verdicts);
        assert!(verdicts.iter().all(|verdicts| verdicts.len() == 1));
        let distinct: std::collections::BTreeSet<_> = verdicts.iter().collect();
        assert_eq!(distinct.len(), 7);
    }

    #[test]
    fn a_dht_that_does_not_answer_is_told_beside_the_nat() {
        let seen = Seen { dht_nodes: 0, ..seen(Some(Dependence::EndpointIndependent)) };
        assert_eq!(seen.judge(None).verdicts.len(), 2);
    }

    #[test]
    fn what_else_a_nat_does_is_told_where_it_matters() {
        let home = || seen(Some(Dependence::EndpointIndependent));
        let life = Lifetime { at_least: None, less_than: Some(Duration::from_secs(15)) };
        for (seen, expected) in [
            (Seen { hairpin: Some(Hairpin::Missing), ..home() }, "does not turn back"),
            (Seen { pooling: Some(Pooling::Arbitrary), ..home() }, "several public addresses"),
            (Seen { lifetime: Life::Measured(life), ..home() }, "for less than 15 s"),
            (Seen { lifetime: Life::PortsKept, ..home() }, "cannot be told this way"),
        ] {
            let verdicts = seen.judge(None).verdicts;
            assert!(verdicts.len() == 2 && verdicts[1].contains(expected), "{verdicts:?}");
        }
        let harmless =
            Seen { hairpin: Some(Hairpin::Works), pooling: Some(Pooling::Paired), ..home() };
        assert_eq!(harmless.judge(None).verdicts.len(), 1);
    }

    #[test]
    fn a_peer_that_is_not_found_has_its_own_verdict() {
        let target = Target::Service("myapi:v1".parse().unwrap());
        let check = seen(Some(Dependence::EndpointIndependent)).judge(Some((&target, vec![])));
        assert!(check.pairs.is_empty());
        assert!(check.verdicts[1].contains("nothing is published"), "{:?}", check.verdicts);
    }
}
