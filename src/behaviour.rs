//! How a NAT behaves, in the words of RFC 4787.

use std::{fmt, time::Duration};

use crate::{
    proto::rendezvous::{
        NatBehaviour as Wire, PortAllocation as WireAllocation,
        nat_behaviour::Dependence as WireDependence, port_allocation::Kind as WireKind,
    },
    time::UnixMillis,
};

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

/// Where a NAT that gives out ports in order had got to.
///
/// The age counts from when the port was seen first: later mappings, also those of other hosts behind
/// the NAT, have taken the ports after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortCounter {
    /// The external port of the newest mapping that was seen.
    pub port: u16,
    /// When it was seen first, by the clock of the host behind the NAT.
    pub seen_at: UnixMillis,
    /// Mappings that other hosts behind the NAT make in a minute; 0 if none were noticed.
    pub others_per_minute: u32,
}

/// What helps to foresee the next ports of a NAT, and is out of date in seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortHint {
    /// One that gives out ports in order had got so far.
    Counter(PortCounter),
    /// One that gives them out of a block: this one of the block was in use for nothing, as far as is known. With all
    /// others taken it is the next.
    Free(u16),
}

impl PortHint {
    /// Where a NAT that counts had got to.
    pub const fn counter(self) -> Option<PortCounter> {
        match self {
            Self::Counter(counter) => Some(counter),
            Self::Free(_) => None,
        }
    }
}

/// Whether hosts behind a NAT reach each other by its public address (RFC 4787, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hairpin {
    /// They do.
    Works,
    /// They do not.
    Missing,
}

/// At how many public addresses a NAT shows one host (RFC 4787, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pooling {
    /// At one, whatever the socket: it has no other, or pairs each host with one.
    Paired,
    /// Each mapping at any of several.
    Arbitrary,
}

/// How long a mapping lives without a datagram, as far as it was measured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lifetime {
    /// A mapping was still there after so long.
    pub at_least: Option<Duration>,
    /// A mapping was forgotten after so long.
    pub less_than: Option<Duration>,
}

impl Lifetime {
    /// What two measurements say together. Where they contradict each other, the shorter life counts: who
    /// keeps a mapping alive must not trust the longer one.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let less_than = self.less_than.into_iter().chain(other.less_than).min();
        let fits = |life: &Duration| less_than.is_none_or(|end| *life < end);
        let at_least = self.at_least.into_iter().chain(other.at_least).filter(fits).max();
        Self { at_least, less_than }
    }

    /// Whether nothing was measured.
    pub fn is_unknown(self) -> bool {
        self == Self::default()
    }
}

/// How the NATs in front of a host behave together; `None` where nothing is known yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NatBehaviour {
    /// Mapping behaviour (RFC 4787, section 4.1).
    pub mapping: Option<Dependence>,
    /// Filtering behaviour (RFC 4787, section 5).
    pub filtering: Option<Dependence>,
    /// How the ports of new mappings are chosen; told only where mappings depend on the destination, as
    /// nobody else has to guess them.
    pub allocation: Option<PortAllocation>,
    /// Which port comes next.
    pub hint: Option<PortHint>,
}

impl NatBehaviour {
    /// Nothing but how mappings and filters depend on the remote address.
    pub const fn new(mapping: Option<Dependence>, filtering: Option<Dependence>) -> Self {
        Self { mapping, filtering, allocation: None, hint: None }
    }

    /// The same without what is out of date in seconds: for records that live for hours in little room.
    #[must_use]
    pub const fn without_hint(self) -> Self {
        Self { hint: None, ..self }
    }

    /// Whether it is the same but for what every look shows otherwise: where a count has got to, and how far the ports
    /// seen of a block reach.
    pub fn is_like(self, other: Self) -> bool {
        let ports = [self, other].map(|nat| nat.allocation);
        let both_are_blocks =
            ports.iter().all(|known| matches!(known, Some(PortAllocation::Block { .. })));
        let [ours, theirs] = [self, other].map(|nat| match both_are_blocks {
            true => Self { allocation: None, ..nat.without_hint() },
            false => nat.without_hint(),
        });
        ours == theirs
    }

    /// As it stands in a record or an offer made at `made_at`.
    pub fn to_wire(self, made_at: UnixMillis) -> Wire {
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
        let ports = self.allocation.map(|allocation| to_wire(allocation, self.hint, made_at));
        Wire { mapping: wire(self.mapping), filtering: wire(self.filtering), ports }
    }

    /// From a record or an offer made at `made_at`; values we do not know count as unknown.
    pub fn from_wire(wire: Option<Wire>, made_at: UnixMillis) -> Self {
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
        let allocation = wire.ports.as_ref().and_then(allocation);
        Self {
            mapping: dependence(wire.mapping()),
            filtering: dependence(wire.filtering()),
            allocation,
            hint: wire.ports.and_then(|ports| hint(&ports, allocation?, made_at)),
        }
    }

    /// Whether each destination sees another port of this host, so that plain probes need luck.
    pub fn has_dependent_mapping(self) -> bool {
        matches!(
            self.mapping,
            Some(Dependence::AddressDependent | Dependence::AddressAndPortDependent)
        )
    }
}

fn to_wire(
    allocation: PortAllocation,
    hint: Option<PortHint>,
    made_at: UnixMillis,
) -> WireAllocation {
    let (kind, step, low, high) = match allocation {
        PortAllocation::Preserving => (WireKind::Preserving, 0, 0, 0),
        PortAllocation::Sequential { step } => (WireKind::Sequential, step, 0, 0),
        PortAllocation::Block { low, high } => (WireKind::Block, 0, low, high),
        PortAllocation::Random => (WireKind::Random, 0, 0, 0),
    };
    let counter = hint.and_then(PortHint::counter);
    let free_port = match hint {
        Some(PortHint::Free(port)) => port,
        Some(PortHint::Counter(_)) | None => 0,
    };
    let age_ms = counter.map_or(0, |counter| counter.seen_at.age_at(made_at).as_millis());
    WireAllocation {
        kind: kind.into(),
        step,
        low: low.into(),
        high: high.into(),
        last_port: counter.map_or(0, |counter| counter.port.into()),
        last_port_age_ms: u32::try_from(age_ms).unwrap_or(u32::MAX),
        others_per_minute: counter.map_or(0, |counter| counter.others_per_minute),
        free_port: free_port.into(),
    }
}

/// What cannot be true counts as unknown.
fn allocation(wire: &WireAllocation) -> Option<PortAllocation> {
    match wire.kind() {
        WireKind::Unknown => None,
        WireKind::Preserving => Some(PortAllocation::Preserving),
        WireKind::Sequential => {
            let step = Some(wire.step).filter(|step| (1..=STEP_MAX).contains(&step.unsigned_abs()));
            step.map(|step| PortAllocation::Sequential { step })
        }
        WireKind::Block => {
            let (low, high) = (u16::try_from(wire.low).ok()?, u16::try_from(wire.high).ok()?);
            (low != 0 && low <= high).then_some(PortAllocation::Block { low, high })
        }
        WireKind::Random => Some(PortAllocation::Random),
    }
}

/// Of another kind than the allocation it says nothing.
fn hint(
    wire: &WireAllocation,
    allocation: PortAllocation,
    made_at: UnixMillis,
) -> Option<PortHint> {
    let port = |wire: u32| u16::try_from(wire).ok().filter(|port| *port != 0);
    match allocation {
        PortAllocation::Sequential { .. } => {
            let seen_at = UnixMillis(made_at.0.saturating_sub(u64::from(wire.last_port_age_ms)));
            let (port, others_per_minute) = (port(wire.last_port)?, wire.others_per_minute);
            Some(PortHint::Counter(PortCounter { port, seen_at, others_per_minute }))
        }
        PortAllocation::Block { low, high } => {
            let free = port(wire.free_port).filter(|port| (low..=high).contains(port));
            free.map(PortHint::Free)
        }
        PortAllocation::Preserving | PortAllocation::Random => None,
    }
}

/// The largest distance between consecutive ports that is believed: beyond it, a run of mappings would
/// go round the whole range of ports, and nothing could be predicted.
const STEP_MAX: u32 = 1_024;

impl PortCounter {
    /// How long ago the port was seen, at `now` by the same clock.
    pub fn age_at(&self, now: UnixMillis) -> Duration {
        self.seen_at.age_at(now)
    }
}

impl fmt::Display for PortAllocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preserving => f.write_str("ports preserved"),
            Self::Sequential { step } => write!(f, "ports in steps of {step}"),
            Self::Block { low, high } => write!(f, "ports within {low}–{high}"),
            Self::Random => f.write_str("ports without order"),
        }
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.at_least, self.less_than) {
            (None, None) => f.write_str("not known"),
            (Some(life), None) => write!(f, "{} or more", Seconds(life)),
            (None, Some(end)) => write!(f, "less than {}", Seconds(end)),
            (Some(life), Some(end)) => {
                write!(f, "{} or more, less than {}", Seconds(life), Seconds(end))
            }
        }
    }
}

/// A duration in seconds, with a tenth only where there is one.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.subsec_millis() / 100 {
            0 => write!(f, "{} s", self.0.as_secs()),
            tenth => write!(f, "{}.{tenth} s", self.0.as_secs()),
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MADE_AT: UnixMillis = UnixMillis(1_763_820_000_000);

    fn symmetric(allocation: PortAllocation, hint: Option<PortHint>) -> NatBehaviour {
        let mapping = Some(Dependence::AddressAndPortDependent);
        NatBehaviour { allocation: Some(allocation), hint, ..NatBehaviour::new(mapping, None) }
    }

    #[test]
    fn how_ports_are_chosen_and_how_old_the_last_one_is_comes_over_the_wire() {
        let seen_at = UnixMillis(MADE_AT.0 - 1_500);
        let counter = PortCounter { port: 50_112, seen_at, others_per_minute: 90 };
        let counter = Some(PortHint::Counter(counter));
        for nat in [
            symmetric(PortAllocation::Sequential { step: -2 }, counter),
            symmetric(PortAllocation::Block { low: 2_048, high: 3_071 }, None),
            symmetric(
                PortAllocation::Block { low: 2_048, high: 3_071 },
                Some(PortHint::Free(2_500)),
            ),
            symmetric(PortAllocation::Random, None),
            symmetric(PortAllocation::Preserving, None),
            NatBehaviour::default(),
        ] {
            assert_eq!(NatBehaviour::from_wire(Some(nat.to_wire(MADE_AT)), MADE_AT), nat);
        }
        let told = symmetric(PortAllocation::Sequential { step: 1 }, counter).to_wire(MADE_AT);
        assert_eq!(told.ports.map(|ports| ports.last_port_age_ms), Some(1_500));
    }

    #[test]
    fn ports_that_cannot_be_are_not_known() {
        let wire = |kind: WireKind, step, low, high, last_port| WireAllocation {
            kind: kind.into(),
            step,
            low,
            high,
            last_port,
            ..WireAllocation::default()
        };
        for impossible in [
            wire(WireKind::Sequential, 0, 0, 0, 0),
            wire(WireKind::Sequential, 5_000, 0, 0, 70_000),
            wire(WireKind::Sequential, i32::MIN, 0, 0, 0),
            wire(WireKind::Block, 0, 9, 8, 0),
            wire(WireKind::Block, 0, 1, 70_000, 0),
        ] {
            let wire = Wire { ports: Some(impossible), ..Wire::default() };
            assert_eq!(NatBehaviour::from_wire(Some(wire), MADE_AT), NatBehaviour::default());
        }
    }

    #[test]
    fn of_two_lives_of_a_mapping_the_shorter_one_counts() {
        let life = |at_least: Option<u64>, less_than: Option<u64>| {
            let seconds = |life: Option<u64>| life.map(Duration::from_secs);
            Lifetime { at_least: seconds(at_least), less_than: seconds(less_than) }
        };
        let measured = life(Some(30), Some(45));
        assert_eq!(measured.to_string(), "30 s or more, less than 45 s");
        assert_eq!(measured.and(life(Some(20), None)), measured);
        assert_eq!(measured.and(life(Some(60), None)), measured);
        assert_eq!(measured.and(life(None, Some(25))), life(None, Some(25)));
        assert!(life(None, None).and(Lifetime::default()).is_unknown());
    }

    proptest! {
        #[test]
        fn any_numbers_are_taken_calmly(
            (kind, step, low, high) in (any::<i32>(), any::<i32>(), any::<u32>(), any::<u32>()),
            (last_port, last_port_age_ms, others_per_minute, free_port) in any::<(u32, u32, u32, u32)>(),
            made_at in any::<u64>(),
        ) {
            let ports = WireAllocation {
                kind, step, low, high, last_port, last_port_age_ms, others_per_minute, free_port,
            };
            let wire = Wire { ports: Some(ports), ..Wire::default() };
            let nat = NatBehaviour::from_wire(Some(wire), UnixMillis(made_at));
            prop_assert!(nat.allocation.is_none_or(|ports| !ports.to_string().is_empty()));
        }
    }
}
