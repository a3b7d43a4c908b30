//! Whether this node and one peer will meet, how, and how long that takes: a pure function of what is known of both,
//! which asks the same table as a dial does.

use std::{net::SocketAddr, time::Duration};

use crate::{
    behaviour::{Dependence, NatBehaviour, PortAllocation},
    candidate::Candidate,
    identity::PeerId,
    nat::strategy::{Aim, Method, Party, Plan, plans},
    node::{
        helping::reachability::is_public,
        reaching::{attempt::public_addresses, dial::Found},
    },
    time::UnixMillis,
};

/// What is known of a peer that was looked up, and whether it will be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Who it is.
    pub peer: PeerId,
    /// Where it says that it is.
    pub addresses: Vec<SocketAddr>,
    /// How its NAT behaves, as it says.
    pub nat: NatBehaviour,
    /// How old its record is; `None` for addresses out of a ticket.
    pub record_age: Option<Duration>,
    /// Helpers that forward offers to it.
    pub helpers: usize,
    /// What would be tried, in that order.
    pub ways: Vec<Way>,
    /// Whether it will be reached.
    pub outlook: Outlook,
    /// The same for people: by which way, how quickly, or what would help.
    pub verdict: String,
}

/// One way to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// What is done.
    pub method: String,
    /// Why.
    pub why: String,
    /// How likely it opens.
    pub outlook: Outlook,
    /// How long it takes once the peer has been found, for people.
    pub takes: String,
}

/// Whether a peer will be reached. Best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outlook {
    /// It will, unless something in between blocks UDP or the record is wrong.
    Opens,
    /// In nearly all cases.
    Likely,
    /// Sometimes.
    Unlikely,
    /// Nothing is known that tells.
    Unknown,
    /// It will not, on these two networks.
    Impossible,
}

/// Ourselves, as far as it matters for a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) struct Ours {
    pub(in crate::node) party: Party,
    pub(in crate::node) candidates: Vec<Candidate>,
    /// Whether UDP comes back at all.
    pub(in crate::node) has_udp: bool,
}

/// What a dial from us to `found` would try, and what would come of it.
pub(in crate::node) fn judge(ours: &Ours, found: &Found, now: UnixMillis) -> Pair {
    let theirs = Party { nat: found.nat, public: public_addresses(&found.candidates) };
    let mut ways = ways(ours, found, &theirs);
    if !ours.has_udp {
        // What is near may still be reached.
        ways.retain(|way| way.outlook != Outlook::Impossible);
        for way in &mut ways {
            way.outlook = Outlook::Unlikely;
        }
    }
    let outlook = ways.iter().map(|way| way.outlook).min().unwrap_or(Outlook::Impossible);
    // Of those that are good enough, the one that is tried first is the one that it will be.
    let good = |way: &&Way| way.outlook <= outlook.max(Outlook::Likely);
    let best = ways.iter().find(good);
    Pair {
        peer: found.peer,
        addresses: found.candidates.iter().map(|candidate| candidate.address).collect(),
        nat: found.nat,
        record_age: (found.made_at != UnixMillis::default()).then(|| found.made_at.age_at(now)),
        helpers: found.helpers.len(),
        outlook,
        verdict: verdict(ours, best, found),
        ways,
    }
}

fn ways(ours: &Ours, found: &Found, theirs: &Party) -> Vec<Way> {
    let mut ways = vec![];
    let has_public_v6 = |candidates: &[Candidate]| {
        let mut addresses = candidates.iter().map(|candidate| candidate.address.ip());
        addresses.any(|ip| ip.is_ipv6() && is_public(ip))
    };
    if has_public_v6(&ours.candidates) && has_public_v6(&found.candidates) {
        ways.push(Way {
            method: "IPv6".to_owned(),
            why:
                "both have public IPv6 addresses: there are firewalls at most, and both sides open \
                  their own"
                    .to_owned(),
            outlook: Outlook::Likely,
            takes: ONE_ROUND_TRIP.to_owned(),
        });
    }
    let tried = plans(&ours.party, theirs).into_iter();
    // A second try of the same, for routers that punish: nothing that a verdict rests on.
    let tried = tried.filter(|plan| plan.method != Method::QuietOpeners);
    let is_said = |plan: &Plan, way: &Way| {
        // It is tried in case that what we know is wrong; if it is right, nothing comes of it.
        plan.method != Method::Direct || way.outlook != Outlook::Impossible
    };
    ways.extend(tried.filter_map(|plan| {
        let way = way(&plan, &ours.party.nat, &theirs.nat);
        is_said(&plan, &way).then_some(way)
    }));
    ways
}

fn way(plan: &Plan, ours: &NatBehaviour, theirs: &NatBehaviour) -> Way {
    let (outlook, takes) = match plan.method {
        Method::SameNetwork => (Outlook::Likely, NEARBY),
        Method::Direct if lets_everybody_in(theirs) => (Outlook::Opens, ONE_ROUND_TRIP),
        Method::Direct if lets_everybody_in(ours) => {
            (Outlook::Opens, "as soon as the peer has our offer, and one round trip")
        }
        Method::Direct if theirs.mapping == Some(Dependence::None) => {
            (Outlook::Likely, ONE_ROUND_TRIP)
        }
        Method::Direct if theirs.mapping.is_none() => (Outlook::Unknown, ONE_ROUND_TRIP),
        Method::Direct => (Outlook::Impossible, ONE_ROUND_TRIP),
        Method::Simultaneous => (simultaneous(ours, theirs), TWO_ROUND_TRIPS),
        Method::Volley(order) => match (order.aim, order.crowd) {
            _ if ours.has_dependent_mapping() && theirs.has_dependent_mapping() => {
                meeting(ours, theirs)
            }
            (Aim::Next { .. }, _) => (Outlook::Opens, IN_ORDER),
            (_, _) if counts(ours) => (Outlook::Opens, IN_ORDER),
            (_, _) => (Outlook::Opens, BIRTHDAY),
        },
        Method::QuietOpeners => (Outlook::Unknown, TWO_ROUND_TRIPS),
        Method::Incompatible => (Outlook::Impossible, "never"),
    };
    Way { method: plan.method.to_string(), why: plan.why.clone(), outlook, takes: takes.to_owned() }
}

fn simultaneous(ours: &NatBehaviour, theirs: &NatBehaviour) -> Outlook {
    let is_known = |nat: &NatBehaviour| nat.mapping.is_some();
    match (ours.has_dependent_mapping(), theirs.has_dependent_mapping()) {
        (false, false) if is_known(ours) && is_known(theirs) => Outlook::Opens,
        (false, false) => Outlook::Unknown,
        (true, false) => by_address(theirs),
        (false, true) => by_address(ours),
        (true, true) => Outlook::Unlikely,
    }
}

/// Whether plain probes from changing ports get in.
fn by_address(independent: &NatBehaviour) -> Outlook {
    match independent.filtering {
        Some(Dependence::AddressAndPortDependent) => Outlook::Impossible,
        Some(_) => Outlook::Opens,
        None => Outlook::Unlikely,
    }
}

fn meeting(ours: &NatBehaviour, theirs: &NatBehaviour) -> (Outlook, &'static str) {
    match (counts(ours), counts(theirs)) {
        (true, true) => (Outlook::Likely, IN_ORDER),
        (false, false) => (Outlook::Likely, "a second or two, if the blocks are small"),
        (true, false) | (false, true) => (Outlook::Unlikely, "a second or two"),
    }
}

fn counts(nat: &NatBehaviour) -> bool {
    matches!(nat.allocation, Some(PortAllocation::Sequential { .. }))
}

fn lets_everybody_in(nat: &NatBehaviour) -> bool {
    let is_open = matches!(nat.filtering, Some(Dependence::None | Dependence::EndpointIndependent));
    is_open && !nat.has_dependent_mapping()
}

fn verdict(ours: &Ours, best: Option<&Way>, found: &Found) -> String {
    if !ours.has_udp {
        return "UDP does not leave this network, or nobody answers: only on the same local network \
                can they meet. Another network helps."
            .to_owned();
    }
    if found.candidates.is_empty() {
        return "Its record names no address; has it found out its own yet? Look again in some seconds."
            .to_owned();
    }
    let Some(best) = best else {
        return HELP.to_owned();
    };
    let offers = match found.helpers.len() {
        0 => {
            " Its record names no helper, so our offer goes through the DHT, which takes a second more."
        }
        _ => "",
    };
    match best.outlook {
        Outlook::Opens | Outlook::Likely | Outlook::Unlikely => {
            // Whom the address alone reaches is not waited for.
            let needs_offer = ![ONE_ROUND_TRIP, NEARBY].contains(&best.takes.as_str());
            let offers = if needs_offer { offers } else { "" };
            format!("{}: {}. It takes {}.{offers}", capital(&best.method), best.why, best.takes)
        }
        Outlook::Unknown => format!(
            "How one of the NATs behaves is not known. {}: {}. A second STUN server (--stun) on that side \
             would tell.",
            capital(&best.method),
            best.why
        ),
        Outlook::Impossible => format!("{}. {HELP}", capital(&best.why)),
    }
}

fn capital(text: &str) -> String {
    let mut characters = text.chars();
    let first = characters.next().map(|first| first.to_uppercase().to_string());
    first.unwrap_or_default() + characters.as_str()
}

const ONE_ROUND_TRIP: &str = "one round trip";
const NEARBY: &str = "one round trip, if they are on one local network";
const TWO_ROUND_TRIPS: &str = "one or two round trips";

/// `benches/README.md`: 2.5 to 4 round trips, the 99th percentile no more, by a helper.
const IN_ORDER: &str = "two to four round trips, more if many share that NAT";

/// The odds of [`crate::nat::volley`]: half of all after 0.85 s, all but one in 10,000 after 5 s.
const BIRTHDAY: &str = "under a second in half of all cases, five seconds nearly always";

/// What would help where nothing opens a pair.
const HELP: &str = "IPv6 on both sides, a UDP port that is forwarded to one of them (--bind 0.0.0.0:PORT there), or \
                    another network on either side would help.";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{candidate::CandidateKind, identity::Identity};

    const SYMMETRIC: Dependence = Dependence::AddressAndPortDependent;

    fn nat(mapping: Option<Dependence>, allocation: Option<PortAllocation>) -> NatBehaviour {
        NatBehaviour { allocation, ..NatBehaviour::new(mapping, None) }
    }

    fn candidates(addresses: &[&str]) -> Vec<Candidate> {
        let candidate = |address: &&str| {
            Candidate::new(CandidateKind::ServerReflexive, address.parse().unwrap()).unwrap()
        };
        addresses.iter().map(candidate).collect()
    }

    fn ours(nat: NatBehaviour, addresses: &[&str]) -> Ours {
        let candidates = candidates(addresses);
        let party = Party { nat, public: public_addresses(&candidates) };
        Ours { party, candidates, has_udp: true }
    }

    fn found(nat: NatBehaviour, addresses: &[&str]) -> Found {
        let peer = Identity::from_seed([2; 32]).peer_id();
        let candidates = candidates(addresses);
        Found { peer, made_at: MADE_AT, candidates, nat, helpers: vec![] }
    }

    const MADE_AT: UnixMillis = UnixMillis(1_763_820_000_000);
    const US: &str = "198.51.100.1:4000";
    const THEM: &str = "203.0.113.9:5000";

    fn judged(our: NatBehaviour, their: NatBehaviour) -> Pair {
        let now = UnixMillis(MADE_AT.0 + 90_000);
        judge(&ours(our, &[US]), &found(their, &[THEM]), now)
    }

    #[test]
    fn each_pair_of_nats_has_its_outlook() {
        use PortAllocation::{Block, Random, Sequential};
        let home = nat(Some(Dependence::EndpointIndependent), None);
        let forwarded = NatBehaviour { filtering: Some(Dependence::EndpointIndependent), ..home };
        let public = nat(Some(Dependence::None), None);
        let random = nat(Some(SYMMETRIC), Some(Random));
        let in_order = nat(Some(SYMMETRIC), Some(Sequential { step: 1 }));
        let block = nat(Some(SYMMETRIC), Some(Block { low: 2_048, high: 3_071 }));
        let unknown = nat(None, None);
        for (our, their, outlook) in [
            (home, home, Outlook::Opens),
            (home, forwarded, Outlook::Opens),
            (random, forwarded, Outlook::Opens),
            (forwarded, random, Outlook::Opens),
            (home, random, Outlook::Opens),
            (random, home, Outlook::Opens),
            (random, public, Outlook::Opens),
            (in_order, home, Outlook::Opens),
            (in_order, in_order, Outlook::Likely),
            (block, block, Outlook::Likely),
            (in_order, block, Outlook::Unlikely),
            (home, unknown, Outlook::Unknown),
            (random, random, Outlook::Impossible),
            (random, in_order, Outlook::Impossible),
        ] {
            let pair = judged(our, their);
            assert_eq!(pair.outlook, outlook, "{our:?} × {their:?}: {pair:#?}");
            assert!(!pair.verdict.is_empty() && !pair.ways.is_empty());
            assert_eq!(pair.record_age, Some(Duration::from_secs(90)));
        }
    }

    #[test]
    fn a_pair_without_a_way_is_told_what_would_help() {
        let random = nat(Some(SYMMETRIC), Some(PortAllocation::Random));
        let verdict = judged(random, random).verdict;
        assert!(verdict.contains("IPv6") && verdict.contains("--bind"), "{verdict}");
    }

    #[test]
    fn ipv6_on_both_sides_helps_whatever_ipv4_does() {
        let random = nat(Some(SYMMETRIC), Some(PortAllocation::Random));
        let both = judge(
            &ours(random, &[US, "[2001:db8:a::1]:4000"]),
            &found(random, &[THEM, "[2001:db8:b::1]:4000"]),
            MADE_AT,
        );
        assert_eq!(both.outlook, Outlook::Likely);
        let one = judge(
            &ours(random, &[US, "[2001:db8:a::1]:4000"]),
            &found(random, &[THEM, "[fd00::1]:4000"]),
            MADE_AT,
        );
        assert_eq!(one.outlook, Outlook::Impossible);
    }

    #[test]
    fn without_udp_hardly_anything_is_left() {
        let home = nat(Some(Dependence::EndpointIndependent), None);
        let ours = Ours { has_udp: false, ..ours(home, &[US]) };
        let pair = judge(&ours, &found(home, &[THEM]), MADE_AT);
        assert_eq!(pair.outlook, Outlook::Unlikely);
        assert!(pair.verdict.contains("UDP does not leave"), "{}", pair.verdict);
    }
}
