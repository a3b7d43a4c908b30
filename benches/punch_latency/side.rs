//! The hosts that are dialled from and to: each 15 ms away from the core of the internet, whatever is in
//! front of it, so that all peers are one round trip of 80 ms apart.

use std::{fmt, time::Duration};

use p2p_node::lab::{Nat, Ports, Verdict, oracle};

use crate::world::{Home, World};

/// Between any two hosts: 15 ms to the core, 10 ms across it, 15 ms from it, and back.
pub(crate) const ROUND_TRIP: Duration = Duration::from_millis(80);

/// What is in front of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Open,
    FullCone,
    AddressRestricted,
    PortRestricted,
    CarrierAndHome,
    Symmetric,
}

/// Who dials whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pair {
    pub(crate) client: Side,
    pub(crate) server: Side,
}

impl Side {
    const ALL: [Self; 6] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::CarrierAndHome,
        Self::Symmetric,
    ];

    /// The NATs from the host outwards.
    fn nats(self) -> Vec<Nat> {
        match self {
            Self::Open => vec![],
            Self::FullCone => vec![Nat::full_cone()],
            Self::AddressRestricted => vec![Nat::address_restricted()],
            Self::PortRestricted => vec![Nat::port_restricted()],
            Self::CarrierAndHome => vec![Nat::home(), Nat::cgnat()],
            Self::Symmetric => vec![Nat::symmetric(Ports::Random)],
        }
    }

    /// A host there, `loss` of whose datagrams are lost on the way to the internet, and from it.
    pub(crate) fn home(self, world: &mut World, loss: f64) -> Home {
        let nats = self.nats();
        // The links behind the outermost one have 1 ms each.
        let hops = u64::try_from(nats.len()).expect("two at most");
        let home = world.behind_all(&nats).delay_ms(15 - hops);
        home.change_uplink(|link| link.loss = loss);
        home
    }
}

impl Pair {
    /// The pairs that the oracle says plain probes open.
    pub(crate) fn all_plain() -> impl Iterator<Item = Self> {
        let pairs = Side::ALL
            .into_iter()
            .flat_map(|client| Side::ALL.map(|server| Self { client, server }));
        pairs.filter(|pair| {
            oracle::between(&pair.client.nats(), &pair.server.nats()) == Verdict::Plain
        })
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Open => "none",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::CarrierAndHome => "home behind CGNAT",
            Self::Symmetric => "symmetric",
        })
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} × {}", self.client, self.server))
    }
}
