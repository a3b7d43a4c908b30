//! Which ways to a peer are worth trying, best first: a pure function of how both sides' NATs behave.
//!
//! Both sides ask it, each with itself first, and so do what belongs together: where one opens a crowd of
//! sockets, the other sprays ports.
//!
//! | ours × theirs | what opens it |
//! |---|---|
//! | a filter that lets anybody in, or none | the address itself |
//! | independent × independent | probes from both sides at once |
//! | independent × dependent, ports in order | a run of mappings there, a comb of ports here |
//! | independent × dependent, block or random | a crowd of sockets there, random ports here, the block first |
//! | dependent × dependent, ports in order | a run on both sides, each aimed at the middle of the other's |
//! | dependent × dependent, block and block, or block and in order | the same with runs that fill the block |
//! | dependent × dependent, random | nothing: said at once, with what would help |
//! | same public address | the local network and the hairpin first |

use std::{fmt, net::IpAddr};

use crate::behaviour::{Dependence, NatBehaviour, PortAllocation};

/// Mappings that a NAT with ports in order is made to open for an independent peer.
///
/// A comb with teeth half a run apart is round all ports after 504 probes, 2 s, even if it knows nothing.
pub const RUN: u16 = 256;

/// Mappings of a run that is to be met by another: enough for 32 of others on either side of the middle.
///
/// Every round of it moves our own count on by as much, and all of it may go to an address that only the
/// peer itself vouches for.
pub const RUN_TO_MEET: u16 = 32;

/// Sockets of a crowd behind a NAT with random ports, see [`super::volley`] for the odds.
pub const CROWD: u16 = 512;

/// Sockets of each side that fills its block with mappings towards one endpoint.
///
/// Carriers' smallest common block has 512 ports, the usual one 1,024 to 2,048. Whoever cannot open so many
/// files goes on with fewer, and has a chance in proportion.
pub const BLOCK_CROWD: u16 = 1_024;

/// One side, as the other knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Party {
    /// How its NATs behave.
    pub nat: NatBehaviour,
    /// The addresses that the internet sees it from.
    pub public: Vec<IpAddr>,
}

/// One way to a peer, with the reason for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What to do.
    pub method: Method,
    /// Why, for people.
    pub why: String,
}

/// What our side does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Addresses of the local network first, and the public one in case the NAT hairpins.
    SameNetwork,
    /// The addresses as they are: no signalling is needed.
    Direct,
    /// Probes from both sides at once.
    Simultaneous,
    /// Many datagrams that meet the peer's.
    Volley(Order),
    /// Probes that open our NAT and do not get as far as theirs, in case it punishes early ones.
    QuietOpeners,
    /// No direct way.
    Incompatible,
}

/// A volley: from how many sockets, at what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Sockets to open for it; 0 if it leaves through the one that is there.
    pub crowd: u16,
    /// Where its datagrams go.
    pub aim: Aim,
}

/// Where the datagrams of a volley go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// The peer's own endpoints, which are the same for everybody.
    Endpoint,
    /// Ports that follow one another in steps of `step`, in runs of `run`.
    Next {
        /// Distance between consecutive ports.
        step: i32,
        /// Mappings of the peer in one run.
        run: u16,
    },
    /// Ports of a block first, then those around it, then all others.
    Block {
        /// Lowest port seen.
        low: u16,
        /// Highest port seen.
        high: u16,
    },
    /// Any port.
    Anywhere,
}

/// The ways to `theirs` from `ours`, best first.
pub fn plans(ours: &Party, theirs: &Party) -> Vec<Plan> {
    let mut plans = vec![];
    if ours.public.iter().any(|ip| theirs.public.contains(ip)) {
        let why = "both are seen from the same public address";
        plans.push(Plan::new(Method::SameNetwork, why));
    }
    plans.push(Plan::new(Method::Direct, why_direct(&theirs.nat)));
    if is_open(&ours.nat) || is_open(&theirs.nat) {
        return plans;
    }
    let (our, their) = (ours.nat.has_dependent_mapping(), theirs.nat.has_dependent_mapping());
    match (our, their) {
        (false, false) => {
            let why = "neither NAT is known to give each destination another port";
            plans.push(Plan::new(Method::Simultaneous, why));
            plans.push(Plan::new(
                Method::QuietOpeners,
                "their router may punish probes that come before it has sent any",
            ));
        }
        (true, false) => {
            plans.push(Plan::new(
                Method::Simultaneous,
                "their filter may look at addresses only, and then lets our probes in",
            ));
            if !lets_any_port_in(&theirs.nat) {
                plans.push(crowd_at_endpoint(&ours.nat));
            }
        }
        (false, true) => {
            plans.push(Plan::new(
                Method::Simultaneous,
                "our filter may look at addresses only, and then lets their probes in",
            ));
            if !lets_any_port_in(&ours.nat) {
                plans.push(ports_at(&theirs.nat));
            }
        }
        (true, true) => plans.push(meeting(&ours.nat, &theirs.nat)),
    }
    plans
}

impl Plan {
    /// A way, with the reason for it.
    pub(super) fn new(method: Method, why: impl Into<String>) -> Self {
        Self { method, why: why.into() }
    }

    fn volley(crowd: u16, aim: Aim, why: impl Into<String>) -> Self {
        Self::new(Method::Volley(Order { crowd, aim }), why)
    }
}

/// Whether anybody who knows the address gets in, and is answered from there.
///
/// A public address alone does not show that: most hosts with one have a firewall, and that its filter is open only peers
/// can show. What is tried beside the address itself is not begun where that answers.
fn is_open(nat: &NatBehaviour) -> bool {
    let lets_anybody_in =
        matches!(nat.filtering, Some(Dependence::None | Dependence::EndpointIndependent));
    lets_anybody_in && !nat.has_dependent_mapping()
}

fn lets_any_port_in(nat: &NatBehaviour) -> bool {
    match nat.filtering {
        Some(Dependence::None | Dependence::EndpointIndependent | Dependence::AddressDependent) => {
            true
        }
        Some(Dependence::AddressAndPortDependent) | None => false,
    }
}

fn why_direct(theirs: &NatBehaviour) -> &'static str {
    if theirs.mapping == Some(Dependence::None) {
        "they have no NAT"
    } else if is_open(theirs) {
        "their filter lets anybody in"
    } else {
        "what we know of their NAT may be wrong, and this costs next to nothing"
    }
}

/// We open mappings, and the peer guesses one of them.
fn crowd_at_endpoint(ours: &NatBehaviour) -> Plan {
    let (crowd, kind) = match ours.allocation {
        Some(PortAllocation::Sequential { .. }) => (RUN, "a run of our next ports"),
        Some(PortAllocation::Block { .. }) => (RUN, "a quarter of our block of ports"),
        Some(PortAllocation::Preserving | PortAllocation::Random) | None => {
            (CROWD, "one port of ours in 126")
        }
    };
    let why = format!("our NAT gives each destination another port: {kind} is for them to hit");
    Plan::volley(crowd, Aim::Endpoint, why)
}

/// The peer opens mappings, and we guess one of them.
fn ports_at(theirs: &NatBehaviour) -> Plan {
    let aim = aim_at(theirs);
    let why = match aim {
        Aim::Next { step, .. } => {
            format!("their NAT counts ports in steps of {step}: we try those that come next")
        }
        Aim::Block { low, high } => {
            format!("their NAT takes ports from a block: we try {low} to {high} first")
        }
        Aim::Endpoint | Aim::Anywhere => {
            "their NAT takes ports without order: they open 512 and we try any".to_owned()
        }
    };
    Plan::volley(0, aim, why)
}

fn aim_at(theirs: &NatBehaviour) -> Aim {
    match theirs.allocation {
        Some(PortAllocation::Sequential { step }) => Aim::Next { step, run: RUN },
        Some(PortAllocation::Block { low, high }) => Aim::Block { low, high },
        // A preserved port is taken when the next destination comes; where the others go is not known.
        Some(PortAllocation::Preserving | PortAllocation::Random) | None => Aim::Anywhere,
    }
}

/// Both have another port for each destination: a datagram arrives only if both ports were foreseen.
fn meeting(ours: &NatBehaviour, theirs: &NatBehaviour) -> Plan {
    use PortAllocation::{Block, Sequential};
    match (ours.allocation, theirs.allocation) {
        (Some(Sequential { .. }), Some(Sequential { step })) => {
            let why = format!("both NATs count ports, theirs in steps of {step}: both runs meet");
            Plan::volley(RUN_TO_MEET, Aim::Next { step, run: RUN_TO_MEET }, why)
        }
        (Some(Sequential { .. }), Some(Block { low, high })) => Plan::volley(
            RUN_TO_MEET,
            Aim::Block { low, high },
            format!("we count ports and they fill their block: we aim inside {low} to {high}"),
        ),
        (Some(Block { .. }), Some(Sequential { step })) => {
            let why =
                format!("they count ports in steps of {step}, and we fill our block of ports");
            Plan::volley(BLOCK_CROWD, Aim::Next { step, run: RUN_TO_MEET }, why)
        }
        (Some(Block { .. }), Some(Block { low, high })) => {
            let why = "both NATs take ports from a block: each side fills its own, which leaves other \
                       programs behind it without ports for half a minute";
            Plan::volley(BLOCK_CROWD, Aim::Block { low, high }, why)
        }
        (None, _) | (_, None) => Plan::new(
            Method::Simultaneous,
            "both NATs give each destination another port, and how is not known of one of them",
        ),
        (Some(_), Some(_)) => Plan::new(Method::Incompatible, INCOMPATIBLE),
    }
}

/// What is said when nothing opens a pair, with what would help.
const INCOMPATIBLE: &str = "both NATs give each destination another port, and at least one of them without \
                            order. IPv6, a forwarded port or another network on either side would help, or \
                            a relay";

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.method, self.why)
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SameNetwork => f.write_str("local network"),
            Self::Direct => f.write_str("direct"),
            Self::Simultaneous => f.write_str("probes from both sides"),
            Self::Volley(Order { crowd: 0, .. }) => f.write_str("guessed ports"),
            Self::Volley(Order { crowd, .. }) => write!(f, "{crowd} more sockets"),
            Self::QuietOpeners => f.write_str("quiet openers"),
            Self::Incompatible => f.write_str("no direct way"),
        }
    }
}

#[cfg(test)]
mod tests;
