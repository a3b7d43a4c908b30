//! What a NAT does, in the words of RFC 4787: a description that tests write down and the oracle reads.
//!
//! The behaviours are independent of each other, so a test takes the preset that is nearest and names
//! what differs:
//!
//! ```
//! use p2p_node::lab::{Nat, Ports};
//!
//! let nat = Nat { hairpin: true, ports: Ports::Random, ..Nat::home() };
//! # assert!(nat.hairpin);
//! ```

use std::time::Duration;

/// Which destinations share one public endpoint (RFC 4787, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mapping {
    /// One public endpoint whatever the destination.
    EndpointIndependent,
    /// One for each destination address.
    AddressDependent,
    /// One for each destination address and port.
    AddressAndPortDependent,
}

impl Mapping {
    /// Every kind, most helpful first.
    pub const ALL: [Self; 3] =
        [Self::EndpointIndependent, Self::AddressDependent, Self::AddressAndPortDependent];
}

/// Whose datagrams come in through a mapping (RFC 4787, section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Filtering {
    /// Anybody's, as long as the mapping lives.
    EndpointIndependent,
    /// Those of addresses that the inside has sent to through this mapping.
    AddressDependent,
    /// Those of addresses and ports that the inside has sent to through this mapping.
    AddressAndPortDependent,
}

impl Filtering {
    /// Every kind, most helpful first.
    pub const ALL: [Self; 3] =
        [Self::EndpointIndependent, Self::AddressDependent, Self::AddressAndPortDependent];
}

/// How a NAT picks the port of a new mapping (RFC 4787, section 4.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ports {
    /// The inside port; when that is taken, see [`Collision`].
    Preserving,
    /// The last port plus `step`, from a start that the seed decides.
    Sequential {
        /// The distance from one port to the next; zero counts as one.
        step: u16,
    },
    /// A random port in a contiguous block that belongs to the inside address.
    Block {
        /// Ports in a block.
        size: u16,
    },
    /// A random port.
    Random,
}

/// What a NAT that preserves ports does when the port is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Collision {
    /// The next free port above it.
    NextPort,
    /// A random one.
    RandomPort,
}

/// Which of several public addresses a mapping gets (RFC 4787, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pooling {
    /// An inside address always gets the same one.
    Paired,
    /// Each mapping gets any of them.
    Arbitrary,
}

/// A NAT's behaviour.
///
/// The same filtering and lifetimes hold for addresses that the router does not translate because it
/// has no public address of their family: that is how a home router firewalls IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nat {
    /// Which destinations share a public endpoint.
    pub mapping: Mapping,
    /// Whose datagrams come in.
    pub filtering: Filtering,
    /// How public ports are picked.
    pub ports: Ports,
    /// What happens when a port that is to be preserved is taken.
    pub collision: Collision,
    /// Which of several public addresses a mapping gets.
    pub pooling: Pooling,
    /// Mappings that other hosts inside, which are not simulated, make in a second on average; each
    /// takes a port for as long as an unanswered mapping lives.
    pub others_per_s: u32,
    /// Whether inside hosts reach each other by their public endpoints (RFC 4787, section 6). The
    /// receiver then sees the sender's public endpoint.
    pub hairpin: bool,
    /// How long a mapping, and the permission to answer, outlives the last outbound datagram.
    pub lifetime: Duration,
    /// The same until the first answer has come in.
    pub unreplied_lifetime: Duration,
    /// Whether a datagram that arrives before the inside has sent to its source makes the later mapping
    /// to that source use another port, as Linux connection tracking does when the router itself did
    /// not drop the early datagram.
    pub punishes_early_inbound: bool,
    /// How long nothing comes in from a remote to an outside endpoint after a datagram came that the inside
    /// had not asked for; each further one begins that time anew. Some routers and firewalls take such a
    /// datagram for an attack. Zero for those that do not.
    pub refusal: Duration,
}

/// RFC 4787, REQ-5: a UDP mapping must not expire in less than two minutes.
const LIFETIME: Duration = Duration::from_secs(120);

impl Nat {
    /// Anybody can send to an open mapping.
    pub const fn full_cone() -> Self {
        Self {
            mapping: Mapping::EndpointIndependent,
            filtering: Filtering::EndpointIndependent,
            ports: Ports::Preserving,
            collision: Collision::NextPort,
            pooling: Pooling::Paired,
            others_per_s: 0,
            hairpin: false,
            lifetime: LIFETIME,
            unreplied_lifetime: LIFETIME,
            punishes_early_inbound: false,
            refusal: Duration::ZERO,
        }
    }

    /// One public endpoint for all; only addresses that were sent to can answer.
    pub const fn address_restricted() -> Self {
        Self { filtering: Filtering::AddressDependent, ..Self::full_cone() }
    }

    /// One public endpoint for all; only endpoints that were sent to can answer.
    pub const fn port_restricted() -> Self {
        Self { filtering: Filtering::AddressAndPortDependent, ..Self::full_cone() }
    }

    /// What most homes have: [`Self::port_restricted`].
    pub const fn home() -> Self {
        Self::port_restricted()
    }

    /// Another public endpoint for every destination; only that destination can answer.
    pub const fn symmetric(ports: Ports) -> Self {
        Self { mapping: Mapping::AddressAndPortDependent, ports, ..Self::port_restricted() }
    }

    /// A carrier's NAT: endpoint-independent as RFC 6888 asks, a block of ports for each subscriber,
    /// no hairpinning.
    pub const fn cgnat() -> Self {
        Self { ports: Ports::Block { size: 512 }, ..Self::port_restricted() }
    }

    /// A Linux router with `masquerade` and an open input chain: it forgets unanswered flows after
    /// 30 s and punishes early datagrams.
    pub const fn linux() -> Self {
        Self {
            unreplied_lifetime: Duration::from_secs(30),
            punishes_early_inbound: true,
            ..Self::port_restricted()
        }
    }

    /// A home router that takes unsolicited datagrams for an attack, and then lets nothing pass between
    /// the two endpoints for five seconds.
    pub const fn refusing() -> Self {
        Self { refusal: Duration::from_secs(5), ..Self::port_restricted() }
    }

    /// No translation asked for, only a filter: what [`Router`](super::Router)s without a public
    /// address do.
    pub(super) const fn firewall(filtering: Filtering) -> Self {
        Self { filtering, ..Self::full_cone() }
    }
}
