//! What may be in front of a host, and who dials whom: the names of the matrix.

use std::fmt;

/// What is in front of a host, the most helpful first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Side {
    Open,
    FullCone,
    AddressRestricted,
    /// The usual home: the NAT keeps the port.
    PortRestricted,
    /// The same, but the port outside is another than the one inside.
    PortChanged,
    /// A home whose carrier has a NAT, too.
    CarrierAndHome,
    /// Every destination gets the next port.
    Sequential,
    /// The same while other hosts take ports, too.
    SequentialShared,
    /// Every destination gets any port of a block of 1,024.
    Block,
    /// Every destination gets any port at all.
    Random,
}

/// Who dials whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Pair {
    pub(crate) client: Side,
    pub(crate) server: Side,
}

impl Side {
    pub(crate) const ALL: [Self; 10] = [
        Self::Open,
        Self::FullCone,
        Self::AddressRestricted,
        Self::PortRestricted,
        Self::PortChanged,
        Self::CarrierAndHome,
        Self::Sequential,
        Self::SequentialShared,
        Self::Block,
        Self::Random,
    ];

    /// As the file of figures has it, and the names of criterion's benches.
    pub(crate) const fn key(self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::FullCone => "full_cone",
            Self::AddressRestricted => "address_restricted",
            Self::PortRestricted => "port_restricted",
            Self::PortChanged => "port_changed",
            Self::CarrierAndHome => "home_behind_cgnat",
            Self::Sequential => "sequential",
            Self::SequentialShared => "sequential_shared",
            Self::Block => "block",
            Self::Random => "random",
        }
    }

    /// As the head of a column has it.
    pub(crate) const fn short(self) -> &'static str {
        match self {
            Self::Open => "none",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address",
            Self::PortRestricted => "port",
            Self::PortChanged => "port, changed",
            Self::CarrierAndHome => "CGNAT",
            Self::Sequential => "sequential",
            Self::SequentialShared => "shared",
            Self::Block => "block",
            Self::Random => "random",
        }
    }
}

impl Pair {
    pub(crate) const fn new(client: Side, server: Side) -> Self {
        Self { client, server }
    }

    /// Both sides have the same.
    pub(crate) const fn both(side: Side) -> Self {
        Self::new(side, side)
    }

    /// Every pair, a client's all in a row.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        let of = |client| Side::ALL.map(|server| Self { client, server });
        Side::ALL.into_iter().flat_map(of)
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Open => "none",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::PortChanged => "port-restricted, port changed",
            Self::CarrierAndHome => "home behind CGNAT",
            Self::Sequential => "symmetric, sequential",
            Self::SequentialShared => "symmetric, sequential, shared",
            Self::Block => "symmetric, block of 1,024",
            Self::Random => "symmetric, random",
        })
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} × {}", self.client, self.server))
    }
}
