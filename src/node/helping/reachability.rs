//! Whether anybody can reach us: proved by peers that came in without our having sent them anything.
//!
//! A NAT or firewall that lets in a first packet from where nothing was ever sent lets in everybody's. One
//! such peer may have been let in by a rule made for it, and one host can have many names: it takes two
//! peers at two public addresses.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::identity::PeerId;

/// Where we sent to, and who came in all the same.
#[derive(Debug, Default)]
pub(in crate::node) struct Reachability {
    /// When we last sent something there.
    sent: BTreeMap<IpAddr, Instant>,
    /// When the table was last too small to hold an address.
    overflowed: Option<Instant>,
    witnesses: BTreeMap<PeerId, IpAddr>,
}

impl Reachability {
    /// Takes in that we send something to `ip`, other than an answer to QUIC.
    pub(in crate::node) fn handle_sent(&mut self, ip: IpAddr, now: Instant) {
        let ip = ip.to_canonical();
        if self.sent.len() >= SENT_MAX && !self.sent.contains_key(&ip) {
            self.sent.retain(|_, at| now < *at + MEMORY);
            if self.sent.len() >= SENT_MAX {
                self.overflowed = Some(now);
                return;
            }
        }
        self.sent.insert(ip, now);
    }

    /// Whether QUIC's first packet from `ip`, at `now`, came without our having opened the way for it.
    pub(in crate::node) fn is_unannounced(&self, ip: IpAddr, now: Instant) -> bool {
        let is_over = |at: &Instant| *at + MEMORY <= now;
        is_public(ip)
            && self.sent.get(&ip.to_canonical()).is_none_or(is_over)
            && self.overflowed.as_ref().is_none_or(is_over)
    }

    /// Takes in that `peer` has come in from `ip`, unannounced, and proved who it is.
    pub(in crate::node) fn handle_witness(&mut self, peer: PeerId, ip: IpAddr) {
        if self.witnesses.len() < WITNESSES_MAX {
            self.witnesses.insert(peer, ip.to_canonical());
        }
    }

    /// Our addresses are others: what was proved of the old ones says nothing of them.
    pub(in crate::node) fn handle_moved(&mut self) {
        self.witnesses.clear();
    }

    /// Whether we can be reached.
    pub(in crate::node) fn is_proved(&self) -> bool {
        let mut addresses = self.witnesses.values();
        addresses.next().is_some_and(|first| addresses.any(|other| other != first))
    }
}

/// Whether `ip` is an address of the public internet.
pub(in crate::node) fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => {
            let [a, b, ..] = ip.octets();
            let is_shared = a == 100 && (64..128).contains(&b);
            let is_local = ip.is_private() || ip.is_loopback() || ip.is_link_local() || is_shared;
            !is_local && !ip.is_unspecified() && !ip.is_multicast() && !ip.is_broadcast()
        }
        IpAddr::V6(ip) => {
            let is_local = ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local();
            !is_local && !ip.is_unspecified() && !ip.is_multicast()
        }
    }
}

/// How long a filter may stay open after something was sent: RFC 4787 asks for two minutes at least, and
/// some routers keep UDP for five.
const MEMORY: Duration = Duration::from_secs(10 * 60);

/// Addresses that we remember to have sent to. While there are more, nothing is proved.
const SENT_MAX: usize = 4_096;

/// Peers that are remembered to have come in; two are enough.
const WITNESSES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn peer(seed: u8) -> PeerId {
        Identity::from_seed([seed; 32]).peer_id()
    }

    #[expect(clippy::disallowed_methods, reason = "the zero of virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn two_peers_at_two_addresses_prove_it() {
        let mut reachability = Reachability::default();
        reachability.handle_witness(peer(1), ip("198.51.100.1"));
        reachability.handle_witness(peer(2), ip("198.51.100.1"));
        assert!(!reachability.is_proved(), "one host with two names");
        reachability.handle_witness(peer(3), ip("198.51.100.2"));
        assert!(reachability.is_proved());
        reachability.handle_moved();
        assert!(!reachability.is_proved());
    }

    #[test]
    fn who_was_sent_something_and_who_is_near_prove_nothing() {
        let (mut reachability, now) = (Reachability::default(), start());
        let far = ip("198.51.100.1");
        assert!(reachability.is_unannounced(far, now));
        for near in ["192.168.1.2", "10.0.0.1", "100.64.0.1", "127.0.0.1", "::1", "fd00::1"] {
            assert!(!reachability.is_unannounced(ip(near), now), "{near}");
        }
        reachability.handle_sent(far, now);
        assert!(!reachability.is_unannounced(far, now + Duration::from_secs(599)));
        assert!(reachability.is_unannounced(far, now + MEMORY));
    }

    #[test]
    fn what_cannot_be_remembered_proves_nothing() {
        let (mut reachability, now) = (Reachability::default(), start());
        for number in 0..10_000_u32 {
            reachability.handle_sent(IpAddr::from(number.to_be_bytes()), now);
        }
        assert_eq!(reachability.sent.len(), SENT_MAX);
        assert!(!reachability.is_unannounced(ip("198.51.100.1"), now));
    }
}
