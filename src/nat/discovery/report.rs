//! What a discovery knows, and which part of it is worth telling anew.

use std::net::SocketAddr;

use crate::{
    behaviour::{NatBehaviour, PortAllocation},
    nat::inference::{Counted, Inferred, Told},
};

/// What is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Of IPv4, if a server answered over it.
    pub v4: Option<Inferred>,
    /// Of IPv6, likewise.
    pub v6: Option<Inferred>,
    /// Whether more is to come.
    pub stage: Stage,
}

/// Whether more is to come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Servers are being asked; 3 s at most.
    Asking,
    /// All have answered or failed.
    Complete,
}

/// The part of a report whose change is worth another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Summary {
    stage: Stage,
    pub(super) advertised: Vec<SocketAddr>,
    behaviours: [Option<(NatBehaviour, Option<PortAllocation>)>; 2],
}

impl Report {
    /// The same with what somebody told us of each family.
    #[must_use]
    pub fn with(self, v4: Told, v6: Told) -> Self {
        Self {
            v4: self.v4.map(|inferred| inferred.with(v4)),
            v6: self.v6.map(|inferred| inferred.with(v6)),
            stage: self.stage,
        }
    }

    /// Our endpoints as the internet sees them, worth telling a peer, best first.
    pub fn advertised(&self) -> Vec<SocketAddr> {
        let families = [&self.v4, &self.v6];
        let known = families.into_iter().flatten();
        known.flat_map(Inferred::advertised).collect()
    }

    /// What peers are told of our NATs: those of IPv4 if there is any, because IPv6 mostly has none.
    pub fn behaviour(&self) -> NatBehaviour {
        let known = self.v4.as_ref().or(self.v6.as_ref());
        known.map_or_else(NatBehaviour::default, |inferred| inferred.behaviour)
    }

    /// Where the NAT that peers are told of had got to, if it gives out ports in order.
    pub fn counted(&self) -> Option<Counted> {
        self.v4.as_ref().or(self.v6.as_ref())?.counted
    }

    pub(super) fn summary(&self) -> Summary {
        let behaviour = |inferred: &Inferred| (inferred.behaviour, inferred.allocation);
        Summary {
            stage: self.stage,
            advertised: self.advertised(),
            behaviours: [&self.v4, &self.v6].map(|family| family.as_ref().map(behaviour)),
        }
    }
}
