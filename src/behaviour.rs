//! How a NAT behaves, in the words of RFC 4787.

use std::fmt;

use crate::proto::rendezvous::{NatBehaviour as Wire, nat_behaviour::Dependence as WireDependence};

/// On which part of the remote address a NAT's decision depends (RFC 4787, sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dependence {
    /// There is no NAT (for mapping) or no filter (for filtering).
    None,
    /// The same for every remote address.
    EndpointIndependent,
    /// Depends on the remote IP address.
    AddressDependent,
    /// Depends on the remote IP address and port.
    AddressAndPortDependent,
}

/// How a NAT chooses the external port of a new mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortAllocation {
    /// The external port is the internal one.
    Preserving,
    /// Each new mapping gets the last one's port plus `step`.
    Sequential {
        /// Distance between consecutive ports; never zero.
        step: i32,
    },
    /// Ports lie close together without visible order.
    Block {
        /// Lowest port seen.
        low: u16,
        /// Highest port seen.
        high: u16,
    },
    /// No order was found.
    Random,
}

/// How the NATs in front of a host behave together; `None` where nothing is known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatBehaviour {
    /// Mapping behaviour (RFC 4787, section 4.1).
    pub mapping: Option<Dependence>,
    /// Filtering behaviour (RFC 4787, section 5).
    pub filtering: Option<Dependence>,
}

impl NatBehaviour {
    /// As it stands in records and offers.
    pub fn to_wire(self) -> Wire {
        let wire = |dependence: Option<Dependence>| {
            i32::from(match dependence {
                None => WireDependence::Unknown,
                Some(Dependence::None) => WireDependence::None,
                Some(Dependence::EndpointIndependent) => WireDependence::EndpointIndependent,
                Some(Dependence::AddressDependent) => WireDependence::AddressDependent,
                Some(Dependence::AddressAndPortDependent) => {
                    WireDependence::AddressAndPortDependent
                }
            })
        };
        Wire { mapping: wire(self.mapping), filtering: wire(self.filtering) }
    }

    /// From a record or an offer; values we do not know count as unknown.
    pub fn from_wire(wire: Option<Wire>) -> Self {
        let Some(wire) = wire else {
            return Self::default();
        };
        let dependence = |value: WireDependence| match value {
            WireDependence::Unknown => None,
            WireDependence::None => Some(Dependence::None),
            WireDependence::EndpointIndependent => Some(Dependence::EndpointIndependent),
            WireDependence::AddressDependent => Some(Dependence::AddressDependent),
            WireDependence::AddressAndPortDependent => Some(Dependence::AddressAndPortDependent),
        };
        Self { mapping: dependence(wire.mapping()), filtering: dependence(wire.filtering()) }
    }

    /// Whether each destination sees another port of this host, so that plain probes need luck.
    pub fn has_dependent_mapping(self) -> bool {
        matches!(
            self.mapping,
            Some(Dependence::AddressDependent | Dependence::AddressAndPortDependent)
        )
    }
}

impl fmt::Display for Dependence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::EndpointIndependent => "endpoint-independent",
            Self::AddressDependent => "address-dependent",
            Self::AddressAndPortDependent => "address- and port-dependent",
        })
    }
}

impl fmt::Display for NatBehaviour {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mapping {
            None => f.write_str("mapping not known"),
            Some(Dependence::None) => f.write_str("no NAT"),
            Some(mapping) => write!(f, "{mapping} mapping"),
        }?;
        match self.filtering {
            None => Ok(()),
            Some(filtering) => write!(f, ", {filtering} filtering"),
        }
    }
}
