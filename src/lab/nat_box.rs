//! One NAT at work: translates the datagrams that cross it, in both directions.
//!
//! A *mapping* binds an inside endpoint to an outside one. Each mapping holds *sessions*: the remotes
//! that the inside has sent to through it, with the time until which they may answer. Filtering looks
//! at the sessions; the mapping lives as long as its longest session. Addresses of a family in which the
//! router has no public address get a mapping to themselves, which makes the box a stateful firewall.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rand::rngs::StdRng;

use super::{
    nat::{Filtering, Mapping, Nat, Pooling},
    port_picker::PortPicker,
    trace::Fate,
};

/// Sessions that a mapping holds: as many as a remote address has ports.
const SESSIONS_MAX: usize = 65_536;

/// Early datagrams that a punishing NAT remembers.
const EARLY_MAX: usize = 65_536;

/// Ports of other hosts after which those that are free again are forgotten.
const RETIRED_MAX: usize = 16_384;

/// A router's tables.
#[derive(Debug)]
pub(super) struct NatBox {
    nat: Nat,
    public: Vec<IpAddr>,
    mappings: BTreeMap<Key, Entry>,
    /// Which mapping holds an outside endpoint.
    holders: BTreeMap<SocketAddr, Key>,
    /// Outside endpoints of mappings that were forgotten, and until when nobody gets them.
    retired: BTreeMap<SocketAddr, Duration>,
    /// Unsolicited datagrams as (outside endpoint, remote), and until when they are remembered.
    early: BTreeMap<(SocketAddr, SocketAddr), Duration>,
    /// Pairs of outside endpoint and remote between which nothing passes, and until when.
    refused: BTreeMap<(SocketAddr, SocketAddr), Duration>,
    /// When another host inside makes its next mapping.
    next_other: Duration,
    ports: PortPicker,
}

/// What makes two outbound datagrams share a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    inside: SocketAddr,
    remotes: Remotes,
}

/// The destinations that a mapping serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Remotes {
    Any,
    Address(IpAddr),
    Endpoint(SocketAddr),
}

#[derive(Debug)]
struct Entry {
    outside: SocketAddr,
    sessions: BTreeMap<SocketAddr, Session>,
    /// The end of the longest session.
    expires: Duration,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    last_outbound: Duration,
    replied: bool,
}

impl NatBox {
    /// A NAT with these public addresses; without one in some family, a firewall for that family.
    pub(super) fn new(nat: Nat, public: Vec<IpAddr>, rng: StdRng) -> Self {
        Self {
            nat,
            public,
            mappings: BTreeMap::new(),
            holders: BTreeMap::new(),
            retired: BTreeMap::new(),
            early: BTreeMap::new(),
            refused: BTreeMap::new(),
            next_other: Duration::ZERO,
            ports: PortPicker::new(nat.ports, nat.collision, rng),
        }
    }

    /// Translates the source of a datagram on its way out, and lets its destination answer.
    pub(super) fn handle_outbound(
        &mut self,
        inside: SocketAddr,
        remote: SocketAddr,
        now: Duration,
    ) -> Result<SocketAddr, Fate> {
        let translated = public_address(&self.public, inside.ip());
        self.let_others_map(translated, now);
        let usual = Key {
            inside,
            remotes: match (translated, self.nat.mapping) {
                (None, _) | (Some(_), Mapping::EndpointIndependent) => Remotes::Any,
                (Some(_), Mapping::AddressDependent) => Remotes::Address(remote.ip()),
                (Some(_), Mapping::AddressAndPortDependent) => Remotes::Endpoint(remote),
            },
        };
        let own = Key { inside, remotes: Remotes::Endpoint(remote) };
        if self.is_alive(own, now) {
            return self.open_session(own, remote, now);
        }
        let outside = self.mapping(usual, translated, now)?;
        let came_early = self.early.get(&(outside, remote)).is_some_and(|&until| now < until);
        if !came_early || translated.is_none() {
            return self.open_session(usual, remote, now);
        }
        self.mapping(own, translated, now)?;
        self.open_session(own, remote, now)
    }

    /// Translates the destination of a datagram on its way in, if the filter lets it pass.
    pub(super) fn handle_inbound(
        &mut self,
        outside: SocketAddr,
        remote: SocketAddr,
        now: Duration,
    ) -> Result<SocketAddr, Fate> {
        let routed = public_address(&self.public, outside.ip()).is_none();
        if routed && self.nat.filtering == Filtering::EndpointIndependent {
            return Ok(outside);
        }
        let pair = (outside, remote);
        let is_refused = self.refused.get(&pair).is_some_and(|&until| now < until);
        let passed =
            if is_refused { Err(Fate::Filtered) } else { self.pass_inbound(outside, remote, now) };
        if passed.is_err() && self.nat.punishes_early_inbound {
            self.remember_early(outside, remote, now);
        }
        if passed.is_err() && !self.nat.refusal.is_zero() && self.refused.len() < EARLY_MAX {
            self.refused.insert(pair, now + self.nat.refusal);
        }
        passed
    }

    /// Makes the mappings that other hosts inside have made since this was last asked.
    fn let_others_map(&mut self, translated: Option<IpAddr>, now: Duration) {
        let (Some(address), true) = (translated, self.nat.others_per_s > 0) else {
            return;
        };
        while self.next_other <= now {
            let at = self.next_other;
            // Port 0 belongs to none of the hosts that are simulated.
            let other = SocketAddr::new(IpAddr::from([192, 0, 2, 1]), 0);
            if let Some(outside) = self.allocate(other, address, at) {
                self.retired.insert(outside, at + self.nat.unreplied_lifetime);
            }
            self.next_other = at + self.ports.gap(self.nat.others_per_s);
        }
        if self.retired.len() >= RETIRED_MAX {
            self.retired.retain(|_, until| now < *until);
        }
    }

    /// The public address of a new mapping.
    fn pooled(&mut self, usual: IpAddr) -> IpAddr {
        let pool: Vec<IpAddr> =
            self.public.iter().filter(|ip| ip.is_ipv4() == usual.is_ipv4()).copied().collect();
        match self.nat.pooling {
            Pooling::Paired => usual,
            Pooling::Arbitrary => pool.get(self.ports.choose(pool.len())).copied().unwrap_or(usual),
        }
    }

    /// Turns back a datagram from the inside to one of the box's own public endpoints.
    pub(super) fn handle_hairpin(
        &mut self,
        inside: SocketAddr,
        target: SocketAddr,
        now: Duration,
    ) -> Result<(SocketAddr, SocketAddr), Fate> {
        if !self.nat.hairpin {
            return Err(Fate::NoHairpin);
        }
        let source = self.handle_outbound(inside, target, now)?;
        let receiver = self.handle_inbound(target, source, now)?;
        Ok((source, receiver))
    }

    /// Forgets every mapping. Until they would have expired, nobody gets their endpoints again, so
    /// that what follows is seen from other ports.
    pub(super) fn forget_mappings(&mut self) {
        for entry in std::mem::take(&mut self.mappings).into_values() {
            self.retired.insert(entry.outside, entry.expires);
        }
        self.holders.clear();
        self.ports.forget_blocks();
        self.early.clear();
        self.refused.clear();
    }

    /// Takes other public addresses; the mappings on the old ones are gone.
    pub(super) fn set_public(&mut self, public: Vec<IpAddr>) {
        self.forget_mappings();
        self.public = public;
    }

    fn remember_early(&mut self, outside: SocketAddr, remote: SocketAddr, now: Duration) {
        if self.early.len() >= EARLY_MAX {
            self.early.retain(|_, until| now < *until);
        }
        if self.early.len() < EARLY_MAX {
            let until = now + self.nat.unreplied_lifetime;
            self.early.insert((outside, remote), until);
        }
    }

    /// The outside endpoint of a mapping, which is made if there is none that lives.
    fn mapping(
        &mut self,
        key: Key,
        translated: Option<IpAddr>,
        now: Duration,
    ) -> Result<SocketAddr, Fate> {
        match self.mappings.get(&key) {
            Some(entry) if now < entry.expires => return Ok(entry.outside),
            Some(_) => self.remove(key),
            None => {}
        }
        let outside = match translated {
            None => key.inside,
            Some(usual) => {
                let address = self.pooled(usual);
                self.allocate(key.inside, address, now).ok_or(Fate::NatFull)?
            }
        };
        if let Some(expired) = self.holders.insert(outside, key) {
            self.mappings.remove(&expired);
        }
        self.mappings.insert(
            key,
            Entry {
                outside,
                sessions: BTreeMap::new(),
                expires: now + self.nat.unreplied_lifetime,
            },
        );
        Ok(outside)
    }

    /// An endpoint for a new mapping. One whose holder has expired is free.
    fn allocate(
        &mut self,
        inside: SocketAddr,
        address: IpAddr,
        now: Duration,
    ) -> Option<SocketAddr> {
        let (retired, holders, mappings) = (&self.retired, &self.holders, &self.mappings);
        let is_free = |port| {
            let outside = SocketAddr::new(address, port);
            let resting = retired.get(&outside).is_some_and(|&until| now < until);
            let holder = holders.get(&outside).and_then(|key| mappings.get(key));
            !resting && holder.is_none_or(|entry| now >= entry.expires)
        };
        let port = self.ports.pick(inside, is_free)?;
        Some(SocketAddr::new(address, port))
    }

    fn remove(&mut self, key: Key) {
        if let Some(entry) = self.mappings.remove(&key) {
            self.holders.remove(&entry.outside);
        }
    }

    /// RFC 4787, REQ-6: outbound datagrams refresh the mapping.
    fn open_session(
        &mut self,
        key: Key,
        remote: SocketAddr,
        now: Duration,
    ) -> Result<SocketAddr, Fate> {
        let nat = self.nat;
        let entry = self.mappings.get_mut(&key).ok_or(Fate::NoMapping)?;
        if entry.sessions.len() >= SESSIONS_MAX && !entry.sessions.contains_key(&remote) {
            entry.sessions.retain(|_, session| now < session.expires(&nat));
            if entry.sessions.len() >= SESSIONS_MAX {
                return Err(Fate::NatFull);
            }
        }
        let replied = entry
            .sessions
            .get(&remote)
            .is_some_and(|session| session.replied && now < session.expires(&nat));
        let session = Session { last_outbound: now, replied };
        entry.sessions.insert(remote, session);
        entry.expires = entry.expires.max(session.expires(&nat));
        Ok(entry.outside)
    }

    fn pass_inbound(
        &mut self,
        outside: SocketAddr,
        remote: SocketAddr,
        now: Duration,
    ) -> Result<SocketAddr, Fate> {
        let nat = self.nat;
        let key = *self.holders.get(&outside).ok_or(Fate::NoMapping)?;
        let entry = self.mappings.get_mut(&key).ok_or(Fate::NoMapping)?;
        if now >= entry.expires {
            return Err(Fate::NoMapping);
        }
        if !entry.permits(&nat, remote, now) {
            return Err(Fate::Filtered);
        }
        if let Some(session) = entry.sessions.get_mut(&remote)
            && now < session.expires(&nat)
        {
            session.replied = true;
            entry.expires = entry.expires.max(session.expires(&nat));
        }
        Ok(key.inside)
    }

    fn is_alive(&self, key: Key, now: Duration) -> bool {
        self.mappings.get(&key).is_some_and(|entry| now < entry.expires)
    }
}

impl Entry {
    fn permits(&self, nat: &Nat, remote: SocketAddr, now: Duration) -> bool {
        let lives = |session: &Session| now < session.expires(nat);
        match nat.filtering {
            Filtering::EndpointIndependent => true,
            Filtering::AddressDependent => self
                .sessions
                .range(SocketAddr::new(remote.ip(), 0)..=SocketAddr::new(remote.ip(), u16::MAX))
                .any(|(_, session)| lives(session)),
            Filtering::AddressAndPortDependent => self.sessions.get(&remote).is_some_and(lives),
        }
    }
}

impl Session {
    fn expires(&self, nat: &Nat) -> Duration {
        let lifetime = if self.replied { nat.lifetime } else { nat.unreplied_lifetime };
        self.last_outbound + lifetime
    }
}

/// The public address that an inside address is seen from: always the same one (RFC 4787, REQ-2:
/// *paired* pooling), and none in a family without public addresses.
pub(super) fn public_address(public: &[IpAddr], inside: IpAddr) -> Option<IpAddr> {
    let family: Vec<IpAddr> =
        public.iter().copied().filter(|address| address.is_ipv4() == inside.is_ipv4()).collect();
    let last_octet = match inside {
        IpAddr::V4(address) => address.octets().last().copied(),
        IpAddr::V6(address) => address.octets().last().copied(),
    };
    let chosen = usize::from(last_octet.unwrap_or(0)).checked_rem(family.len())?;
    family.get(chosen).copied()
}
