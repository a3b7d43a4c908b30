//! Whom the filter in front of us lets in: proved by peers that came in from where we had sent nothing.
//!
//! A NAT or firewall that lets in a first packet from where nothing was ever sent lets in everybody's; one that
//! lets in another port of an address that was sent to looks at addresses only. One such peer may have been let in by
//! a rule made for it, and one host can have many names: it takes two peers at two public addresses. Each has
//! proved who it is, and that it is where it seems to be, by coming to a link over that path; a datagram alone, which
//! anybody can forge or repeat, proves nothing. Nor does one that does not arrive.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{behaviour::Dependence, datagram::Family, identity::PeerId};

/// Where we sent to, and who came in all the same.
#[derive(Debug, Default)]
pub(in crate::node) struct Reachability {
    sent: BTreeMap<IpAddr, Sent>,
    /// When the table was last too small to hold an address.
    overflowed: Option<Instant>,
    /// When what is over was last thrown out of it.
    sifted: Option<Instant>,
    witnesses: BTreeMap<PeerId, Witness>,
}

/// What we sent to one address.
#[derive(Debug)]
struct Sent {
    /// When we last sent something.
    at: Instant,
    ports: Ports,
}

#[derive(Debug)]
enum Ports {
    /// These, and when.
    Few(BTreeMap<u16, Instant>),
    /// More than are remembered: any port may be one of them.
    Many,
}

/// From where somebody came in, as our filter sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::node) enum Arrival {
    /// From an address that we had sent to, but not from a port that we had sent to.
    FromAnotherPort,
    /// From an address that we had sent nothing to.
    Unannounced,
}

#[derive(Clone, Copy, Debug)]
struct Witness {
    ip: IpAddr,
    arrival: Arrival,
    at: Instant,
}

impl Reachability {
    /// Takes in that we send something to `remote`, other than an answer to QUIC.
    pub(in crate::node) fn handle_sent(&mut self, remote: SocketAddr, now: Instant) {
        let (ip, port) = (remote.ip().to_canonical(), remote.port());
        if self.sent.len() >= SENT_MAX && !self.sent.contains_key(&ip) {
            if self.sifted.is_none_or(|at| at + SIFTED_EVERY <= now) {
                self.sent.retain(|_, sent| !is_over(sent.at, now));
                self.sifted = Some(now);
            }
            if self.sent.len() >= SENT_MAX {
                self.overflowed = Some(now);
                return;
            }
        }
        let none = || Sent { at: now, ports: Ports::Few(BTreeMap::new()) };
        let sent = self.sent.entry(ip).or_insert_with(none);
        sent.at = now;
        sent.ports.add(port, now);
    }

    /// How a datagram from `remote` got in at `now`; `None` if we had opened the way for it, or may have.
    pub(in crate::node) fn arrival(&self, remote: SocketAddr, now: Instant) -> Option<Arrival> {
        if !is_public(remote.ip()) || self.overflowed.is_some_and(|at| !is_over(at, now)) {
            return None;
        }
        let sent = self.sent.get(&remote.ip().to_canonical());
        let Some(sent) = sent.filter(|sent| !is_over(sent.at, now)) else {
            return Some(Arrival::Unannounced);
        };
        let port_was_sent_to = match &sent.ports {
            Ports::Few(ports) => ports.get(&remote.port()).is_some_and(|at| !is_over(*at, now)),
            Ports::Many => true,
        };
        (!port_was_sent_to).then_some(Arrival::FromAnotherPort)
    }

    /// Takes in that `peer` has come in from `ip` in this way, and proved who it is and that it is there.
    pub(in crate::node) fn handle_witness(
        &mut self,
        peer: PeerId,
        (ip, arrival): (IpAddr, Arrival),
        now: Instant,
    ) {
        self.witnesses.retain(|_, witness| now < witness.at + WITNESS_AGE_MAX);
        let before = self.witnesses.get(&peer).map(|witness| witness.arrival);
        if before > Some(arrival) {
            // What it has proved before says more.
            return;
        }
        if self.witnesses.len() >= WITNESSES_MAX && before.is_none() {
            let worth = |(_, witness): &(&PeerId, &Witness)| (witness.arrival, witness.at);
            match self
                .witnesses
                .iter()
                .min_by_key(worth)
                .map(|(peer, least)| (*peer, least.arrival))
            {
                Some((least, shown)) if shown <= arrival => drop(self.witnesses.remove(&least)),
                Some(_) | None => return,
            }
        }
        self.witnesses.insert(peer, Witness { ip: ip.to_canonical(), arrival, at: now });
    }

    /// Our addresses are others: what was proved of the old ones says nothing of them.
    pub(in crate::node) fn handle_moved(&mut self) {
        self.witnesses.clear();
    }

    /// Whom the filter in front of our addresses of `family` lets in, if that is proved.
    pub(in crate::node) fn filtering(&self, family: Family, now: Instant) -> Option<Dependence> {
        let proved = |least: Arrival| {
            let mut addresses = self.witnesses.values().filter(|witness| {
                let is_fresh = now < witness.at + WITNESS_AGE_MAX;
                is_fresh && witness.arrival >= least && Family::of(witness.ip) == family
            });
            addresses.next().is_some_and(|first| addresses.any(|other| other.ip != first.ip))
        };
        if proved(Arrival::Unannounced) {
            Some(Dependence::EndpointIndependent)
        } else if proved(Arrival::FromAnotherPort) {
            Some(Dependence::AddressDependent)
        } else {
            None
        }
    }

    /// Whether anybody can reach us.
    pub(in crate::node) fn is_proved(&self, now: Instant) -> bool {
        let everybody = Some(Dependence::EndpointIndependent);
        [Family::V4, Family::V6].into_iter().any(|family| self.filtering(family, now) == everybody)
    }

    /// When something that was proved is too old.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        self.witnesses.values().map(|witness| witness.at + WITNESS_AGE_MAX).min()
    }

    /// Forgets what is too old.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant) {
        self.witnesses.retain(|_, witness| now < witness.at + WITNESS_AGE_MAX);
    }
}

impl Ports {
    fn add(&mut self, port: u16, now: Instant) {
        let Self::Few(ports) = self else { return };
        ports.insert(port, now);
        if ports.len() > PORTS_MAX {
            *self = Self::Many;
        }
    }
}

fn is_over(at: Instant, now: Instant) -> bool {
    at + MEMORY <= now
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

/// A full table is looked through so often at most.
const SIFTED_EVERY: Duration = Duration::from_secs(10);

/// Ports of one address that we remember to have sent to: a peer has some endpoints at each of its addresses, and
/// who guesses ports tries thousands.
const PORTS_MAX: usize = 8;

/// Peers that are remembered to have come in; two are enough, and others may go where the two were.
const WITNESSES_MAX: usize = 8;

/// How long it is believed what a witness has shown: routers are set anew, and a rule for one port is taken back, without our
/// addresses becoming others.
const WITNESS_AGE_MAX: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn at(text: &str) -> SocketAddr {
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
        let (mut reachability, now) = (Reachability::default(), start());
        let unannounced = |address: &str| (ip(address), Arrival::Unannounced);
        reachability.handle_witness(peer(1), unannounced("198.51.100.1"), now);
        reachability.handle_witness(peer(2), unannounced("198.51.100.1"), now);
        assert!(!reachability.is_proved(now), "one host with two names");
        reachability.handle_witness(peer(4), unannounced("2001:db8::1"), now);
        assert!(!reachability.is_proved(now), "each family has its own filter");
        reachability.handle_witness(peer(3), unannounced("198.51.100.2"), now);
        assert!(reachability.is_proved(now));
        assert_eq!(reachability.filtering(Family::V6, now), None);
        reachability.handle_moved();
        assert!(!reachability.is_proved(now));
    }

    #[test]
    fn what_was_proved_ages() {
        let (mut reachability, now) = (Reachability::default(), start());
        for (seed, address) in [(1, "198.51.100.1"), (2, "198.51.100.2")] {
            reachability.handle_witness(peer(seed), (ip(address), Arrival::Unannounced), now);
        }
        let end = now + WITNESS_AGE_MAX;
        assert_eq!(reachability.poll_timeout(), Some(end));
        assert!(reachability.is_proved(end - Duration::from_secs(1)));
        assert!(!reachability.is_proved(end));
        reachability.handle_timeout(end);
        assert_eq!(reachability.poll_timeout(), None);
    }

    #[test]
    fn who_was_sent_something_and_who_is_near_prove_nothing() {
        let (mut reachability, now) = (Reachability::default(), start());
        let far = at("198.51.100.1:4000");
        assert_eq!(reachability.arrival(far, now), Some(Arrival::Unannounced));
        for near in ["192.168.1.2", "10.0.0.1", "100.64.0.1", "127.0.0.1", "::1", "fd00::1"] {
            assert_eq!(reachability.arrival(SocketAddr::new(ip(near), 1), now), None, "{near}");
        }
        reachability.handle_sent(far, now);
        assert_eq!(reachability.arrival(far, now + Duration::from_secs(599)), None);
        assert_eq!(reachability.arrival(far, now + MEMORY), Some(Arrival::Unannounced));
    }

    #[test]
    fn another_port_of_an_address_that_was_sent_to_shows_a_filter_for_addresses() {
        let (mut reachability, now) = (Reachability::default(), start());
        for (seed, address) in [(1, "198.51.100.1"), (2, "198.51.100.2")] {
            reachability.handle_sent(SocketAddr::new(ip(address), 4_000), now);
            let other = SocketAddr::new(ip(address), 50_000);
            let arrival = reachability.arrival(other, now);
            assert_eq!(arrival, Some(Arrival::FromAnotherPort));
            assert_eq!(reachability.filtering(Family::V4, now), None);
            reachability.handle_witness(peer(seed), (other.ip(), arrival.unwrap()), now);
        }
        let filtering = reachability.filtering(Family::V4, now);
        assert_eq!(filtering, Some(Dependence::AddressDependent));
        assert!(!reachability.is_proved(now));
        // A volley tries thousands of ports: after it, any port may have been opened.
        (1..100)
            .for_each(|port| reachability.handle_sent(at(&format!("198.51.100.1:{port}")), now));
        assert_eq!(reachability.arrival(at("198.51.100.1:50001"), now), None);
    }

    #[test]
    fn what_a_witness_shows_later_takes_back_nothing() {
        let (mut reachability, now) = (Reachability::default(), start());
        for (seed, address) in [(1, "198.51.100.1"), (2, "198.51.100.2")] {
            reachability.handle_witness(peer(seed), (ip(address), Arrival::Unannounced), now);
            let later = (ip(address), Arrival::FromAnotherPort);
            reachability.handle_witness(peer(seed), later, now);
        }
        // Nor do many that show less.
        for seed in 3..100 {
            let less = (ip("198.51.100.9"), Arrival::FromAnotherPort);
            reachability.handle_witness(peer(seed), less, now);
        }
        assert_eq!(reachability.witnesses.len(), WITNESSES_MAX);
        assert!(reachability.is_proved(now));
    }

    #[test]
    fn what_cannot_be_remembered_proves_nothing() {
        let (mut reachability, now) = (Reachability::default(), start());
        for number in 0..10_000_u32 {
            reachability.handle_sent((IpAddr::from(number.to_be_bytes()), 4_000).into(), now);
        }
        assert_eq!(reachability.sent.len(), SENT_MAX);
        assert_eq!(reachability.arrival(at("198.51.100.1:4000"), now), None);
    }
}
