//! The local network: what nodes tell each other on it, and what they keep to themselves.
//!
//! A server announces where it listens and, for each name that it can be found by, a [`Mark`]: its peer id,
//! sealed under a key that follows from the name. Whoever knows the name opens it; to all others each mark is
//! random bytes, others in each run.

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
};

use tokio::sync::mpsc;

use crate::{
    candidate::{Candidate, CandidateKind, is_unicast},
    dht::location::Name,
    entropy::Entropy,
    identity::PeerId,
    node::{
        config::Role,
        driver::{Driver, Outcome},
    },
};

/// A way to be heard on the local network, and to hear who is there.
pub trait Lan: Send + Sync + fmt::Debug + 'static {
    /// Says from here on that a node with these marks listens on `port`, at the addresses that the host has.
    fn announce(&self, port: u16, marks: Vec<Mark>);

    /// Hears who is there: those that are there already, and those that come and go, until the receiver is
    /// dropped.
    fn listen(&self) -> mpsc::Receiver<Heard>;
}

/// What is heard on the local network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A node, or where it is now.
    Here {
        /// Names the announcement.
        announcement: String,
        /// Where it listens.
        addresses: Vec<SocketAddr>,
        /// Who it is, for those who know.
        marks: Vec<Mark>,
    },
    /// It is there no more.
    Gone {
        /// As before.
        announcement: String,
    },
}

/// A peer id that only those can read who know a name of the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark(pub [u8; MARK_SIZE]);

/// Bytes of a mark: a nonce, the sealed peer id, the seal's tag.
pub const MARK_SIZE: usize = 12 + 32 + 16;

/// Marks of one announcement: of a service, a peer id and a ticket, and one to spare.
pub const MARKS_MAX: usize = 4;

impl Mark {
    /// Marks `peer` for those who know `name`.
    pub fn new(peer: &PeerId, name: &Name, entropy: &mut Entropy) -> Self {
        let nonce: [u8; 12] = entropy.bytes();
        let sealed = name.lan_key().seal(nonce, CONTEXT, peer.as_bytes());
        let bytes = [nonce.as_slice(), &sealed].concat();
        Self(bytes.try_into().expect("a nonce, an id and a tag are this long"))
    }

    /// Who it is, if it was made for `name`.
    pub fn open(&self, name: &Name) -> Option<PeerId> {
        let (nonce, sealed) = self.0.split_first_chunk()?;
        let id = name.lan_key().open(*nonce, CONTEXT, sealed).ok()?;
        let peer = PeerId::from_slice(&id).ok()?;
        match name {
            Name::Service(_) => Some(peer),
            Name::Peer(named) | Name::Ticket(named, _) => (peer == *named).then_some(peer),
        }
    }
}

/// Who is on the local network.
#[derive(Debug, Default)]
pub(in crate::node) struct Neighbourhood {
    is_listening: bool,
    heard: BTreeMap<String, (Vec<Candidate>, Vec<Mark>)>,
}

impl Neighbourhood {
    /// Takes in what was heard.
    fn note(&mut self, heard: Heard) {
        match heard {
            Heard::Gone { announcement } => drop(self.heard.remove(&announcement)),
            Heard::Here { announcement, addresses, mut marks } => {
                let is_known = self.heard.contains_key(&announcement);
                if !is_known && self.heard.len() == HEARD_MAX {
                    return;
                }
                let usable = addresses.into_iter().filter(|address| is_unicast(*address));
                let candidate = |address| Candidate::new(CandidateKind::Host, address);
                let candidates: Vec<Candidate> = usable.filter_map(candidate).collect();
                marks.truncate(MARKS_MAX);
                self.heard.insert(announcement, (best_first(candidates), marks));
            }
        }
    }

    /// Those who go by `name`, and where they are.
    fn named(&self, name: &Name) -> Vec<(PeerId, Vec<Candidate>)> {
        let who = |marks: &[Mark]| marks.iter().find_map(|mark| mark.open(name));
        let known = self.heard.values();
        known.filter_map(|(candidates, marks)| Some((who(marks)?, candidates.clone()))).collect()
    }
}

/// IPv4 first, as local networks go; no more than a host has.
fn best_first(mut candidates: Vec<Candidate>) -> Vec<Candidate> {
    candidates.sort_by_key(|candidate| (candidate.address.is_ipv6(), candidate.address));
    candidates.truncate(ADDRESSES_MAX);
    candidates
}

impl Driver {
    /// A server lets itself be found on the local network.
    pub(in crate::node) fn begin_announcing(&mut self) {
        let (Some(lan), Role::Server) = (self.lan.clone(), self.config.role) else {
            return;
        };
        let is_reachable = |ip: IpAddr| !ip.is_loopback();
        let bound = self.bound_sockets.iter().map(|socket| socket.local);
        let Some(local) = bound.into_iter().find(|local| is_reachable(local.ip())) else {
            return;
        };
        let (us, names) = (self.us, self.own_names());
        let marks = names.iter().map(|name| Mark::new(&us, name, &mut self.entropy)).collect();
        lan.announce(local.port(), marks);
    }

    /// Begins to hear who is on the local network, with the first dial.
    pub(in crate::node) fn begin_listening(&mut self) {
        let Some(lan) = self.lan.clone().filter(|_| !self.neighbourhood.is_listening) else {
            return;
        };
        self.neighbourhood.is_listening = true;
        let (mut heard, outcomes) = (lan.listen(), self.outcomes());
        self.spawn(async move {
            while let Some(heard) = heard.recv().await {
                // A driver that is gone needs no neighbours.
                let _ = outcomes.send(Outcome::Neighbour(heard)).await;
            }
        });
    }

    /// Takes in what was heard on the local network.
    pub(in crate::node) fn handle_neighbour(&mut self, heard: Heard) {
        let is_here = matches!(heard, Heard::Here { .. });
        self.neighbourhood.note(heard);
        if is_here {
            for (id, name) in self.dialling.names() {
                self.tell_of_neighbours(id, &name);
            }
        }
    }

    /// Tells a dial who of those on the local network goes by `name`.
    pub(in crate::node) fn tell_of_neighbours(
        &mut self,
        id: crate::node::driver::DialId,
        name: &Name,
    ) {
        for (peer, candidates) in self.neighbourhood.named(name) {
            tracing::debug!(?peer, ?candidates, "on the local network");
            self.tell_dial(id, |dial, now| dial.handle_nearby(peer, candidates, now));
        }
    }
}

const CONTEXT: &[u8] = b"p2p-node/1 lan";

/// Announcements that are remembered; more nodes are on no network that multicast works on.
const HEARD_MAX: usize = 256;

/// Addresses of one announcement that are used.
const ADDRESSES_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{identity::Identity, service::Service, ticket::Ticket};

    fn service(name: &str) -> Name {
        Name::Service(Service::open(name.parse().unwrap()))
    }

    #[test]
    fn a_mark_tells_who_knows_the_name_and_nobody_else() {
        let identity = Identity::from_seed([7; 32]);
        let (us, mut entropy) = (identity.peer_id(), Entropy::from_seed(1));
        let secret = Ticket::of(&identity, Vec::new()).secret;
        let names = [service("myapi:v1"), Name::Peer(us), Name::Ticket(us, secret)];
        for (index, name) in names.iter().enumerate() {
            let mark = Mark::new(&us, name, &mut entropy);
            assert_ne!(
                mark,
                Mark::new(&us, name, &mut entropy),
                "nothing shows that it is the same"
            );
            for (other, asked) in names.iter().enumerate() {
                assert_eq!(mark.open(asked), (index == other).then_some(us));
            }
            assert_eq!(mark.open(&service("myapi:v2")), None);
        }
    }

    #[test]
    fn who_knows_a_peers_id_cannot_mark_others_with_it() {
        let [us, them] = [7, 8].map(|seed| Identity::from_seed([seed; 32]).peer_id());
        let mark = Mark::new(&them, &Name::Peer(us), &mut Entropy::from_seed(1));
        assert_eq!(mark.open(&Name::Peer(us)), None);
    }

    #[test]
    fn a_network_full_of_noise_is_remembered_in_part() {
        let mut neighbourhood = Neighbourhood::default();
        let address = |port| SocketAddr::from(([192, 168, 1, 2], port));
        for number in 0..1_000_u16 {
            neighbourhood.note(Heard::Here {
                announcement: number.to_string(),
                addresses: (1..100).map(address).collect(),
                marks: vec![Mark([0; MARK_SIZE]); 100],
            });
        }
        assert_eq!(neighbourhood.heard.len(), HEARD_MAX);
        let (candidates, marks) = &neighbourhood.heard["0"];
        assert_eq!((candidates.len(), marks.len()), (ADDRESSES_MAX, MARKS_MAX));
        neighbourhood.note(Heard::Gone { announcement: "0".to_owned() });
        assert_eq!(neighbourhood.heard.len(), HEARD_MAX - 1);
        assert_eq!(neighbourhood.named(&service("myapi:v1")), []);
    }

    #[test]
    fn nothing_is_sent_where_no_datagram_may_go() {
        let mut neighbourhood = Neighbourhood::default();
        let (us, name) = (Identity::from_seed([7; 32]).peer_id(), service("myapi:v1"));
        let addresses =
            ["224.0.0.1:5000", "0.0.0.0:5000", "[fd00::1]:5000", "10.0.0.1:5000", "10.0.0.1:0"];
        neighbourhood.note(Heard::Here {
            announcement: "one".to_owned(),
            addresses: addresses.map(|address| address.parse().unwrap()).to_vec(),
            marks: vec![Mark::new(&us, &name, &mut Entropy::from_seed(1))],
        });
        let [(peer, candidates)] = neighbourhood.named(&name).try_into().unwrap();
        let usable: Vec<String> = candidates.iter().map(|c| c.address.to_string()).collect();
        assert_eq!((peer, usable), (us, vec!["10.0.0.1:5000".into(), "[fd00::1]:5000".into()]));
    }
}
