//! Whom a command is for: how the user may name a peer, and which peer that is now.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    failure::{Code, Failure},
    identity::PeerId,
    node::{Event, Target},
    service::ServiceName,
    ticket::Ticket,
};

/// A peer as the user names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipient {
    /// Nobody was named: the peer that the node was started for, else any server of its service.
    Unnamed,
    /// `service`: any server of the node's service.
    Service,
    /// `service:<name>`.
    NamedService(ServiceName),
    /// A peer id.
    Peer(PeerId),
    /// A ticket.
    Ticket(Ticket),
    /// `@last`: whoever sent the latest message.
    Last,
    /// The node's service by its bare name, or the first characters of a connected peer's id.
    Word(String),
}

/// The characters of a peer id that name a connected peer, at least.
///
/// Among 1,024 peers, four characters meet a second peer by chance once in a thousand names.
pub const PREFIX_CHARACTERS_MIN: usize = 4;

impl Recipient {
    /// Reads what the user wrote.
    ///
    /// # Errors
    /// [`Code::InvalidTicket`] for a damaged ticket, [`Code::InvalidArgument`] for what cannot name a peer.
    pub fn parse(text: &str) -> Result<Self, Failure> {
        match text {
            "service" => return Ok(Self::Service),
            "@last" => return Ok(Self::Last),
            _ => {}
        }
        if let Some(name) = text.strip_prefix("service:") {
            let name = name.parse().map_err(|error| {
                Failure::new(Code::InvalidArgument, format!("{error}")).hint("service:myapi:v1")
            })?;
            return Ok(Self::NamedService(name));
        }
        // No peer id starts like this: its alphabet has no 2.
        if text.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("p2p1")) {
            return text.parse().map(Self::Ticket).map_err(|error| {
                Failure::new(Code::InvalidTicket, "the ticket cannot be read")
                    .because(format!("{error}"))
                    .hint("copy the whole word that starts with p2p1")
            });
        }
        if let Ok(peer) = text.parse() {
            return Ok(Self::Peer(peer));
        }
        if text.parse::<ServiceName>().is_err() {
            return Err(unknown(text, "it is empty, or too long, or contains spaces"));
        }
        Ok(Self::Word(text.to_owned()))
    }
}

/// Peer ids that were read before: to see that 52 characters are a key takes longer than all else that
/// is done with a short message.
#[derive(Debug, Default)]
pub struct Known(BTreeMap<String, PeerId>);

/// Ids that are remembered: those of as many peers as a node connects.
const KNOWN_MAX: usize = 1_024;

impl Known {
    /// As [`Recipient::parse`].
    ///
    /// # Errors
    /// As [`Recipient::parse`].
    pub fn parse(&mut self, text: &str) -> Result<Recipient, Failure> {
        if let Some(peer) = self.0.get(text) {
            return Ok(Recipient::Peer(*peer));
        }
        let recipient = Recipient::parse(text)?;
        if let Recipient::Peer(peer) = &recipient {
            if self.0.len() >= KNOWN_MAX {
                self.0.clear();
            }
            self.0.insert(text.to_owned(), *peer);
        }
        Ok(recipient)
    }
}

/// Who can be named by less than an id or a ticket.
#[derive(Debug)]
pub struct Directory {
    service: Option<ServiceName>,
    unnamed: Option<Recipient>,
    connected: BTreeSet<PeerId>,
    /// The server on this machine that commands for the service went to last.
    nearby: Option<PeerId>,
    last_sender: Option<PeerId>,
}

/// Peers that are remembered as connected: twice what a node connects, should it be slow to tell of losses.
const CONNECTED_MAX: usize = 2_048;

impl Directory {
    /// For a node of `service`; `unnamed` is who is meant where nobody is named.
    pub fn new(service: Option<ServiceName>, unnamed: Option<Recipient>) -> Self {
        Self { service, unnamed, connected: BTreeSet::new(), nearby: None, last_sender: None }
    }

    /// Follows what the node tells.
    pub fn handle_event(&mut self, event: &Event) {
        match event {
            Event::Connected(connection) => self.handle_connected(connection.peer),
            Event::Disconnected { peer, .. } => {
                self.connected.remove(peer);
            }
            Event::Online { .. }
            | Event::Connecting { .. }
            | Event::Progress { .. }
            | Event::PathChanged { .. }
            | Event::Delivered(_)
            | Event::Warning(_) => {}
        }
    }

    /// Follows who sends.
    pub fn handle_message(&mut self, sender: PeerId) {
        self.last_sender = Some(sender);
    }

    /// Learns from the answer to a command that `peer` is connected, which may be ahead of the event.
    pub fn handle_connected(&mut self, peer: PeerId) {
        if self.connected.len() < CONNECTED_MAX {
            self.connected.insert(peer);
        }
    }

    /// Whom `recipient` means now. `nearby` looks for a server of the node's service on this machine,
    /// which is preferred to those that only the DHT knows.
    ///
    /// # Errors
    /// [`Code::InvalidArgument`] if that is nobody or several, [`Code::NotReady`] if nobody has sent yet.
    pub fn resolve(
        &mut self,
        recipient: &Recipient,
        nearby: impl FnOnce() -> Option<Ticket>,
    ) -> Result<Target, Failure> {
        match recipient {
            Recipient::Unnamed => match self.unnamed.clone() {
                Some(recipient) if recipient != Recipient::Unnamed => {
                    self.resolve(&recipient, nearby)
                }
                Some(_) | None => self.server(nearby),
            },
            Recipient::Service => self.server(nearby),
            Recipient::NamedService(name) if self.service.as_ref() == Some(name) => {
                self.server(nearby)
            }
            Recipient::NamedService(name) => Err(self.other_service(name)),
            Recipient::Peer(peer) => Ok(Target::Peer(*peer)),
            Recipient::Ticket(ticket) => Ok(Target::Ticket(ticket.clone())),
            Recipient::Last => self.last_sender.map(Target::Peer).ok_or_else(|| {
                Failure::new(Code::NotReady, "@last is whoever sent the latest message")
                    .because("no message has arrived yet")
                    .hint("name the peer by its id or ticket")
            }),
            Recipient::Word(word) => match &self.service {
                Some(service) if service.as_str() == word => self.server(nearby),
                Some(_) | None => self.by_prefix(word),
            },
        }
    }

    fn server(&mut self, nearby: impl FnOnce() -> Option<Ticket>) -> Result<Target, Failure> {
        if let Some(ticket) = nearby() {
            self.nearby = Some(ticket.peer);
            return Ok(Target::Ticket(ticket));
        }
        // It may have died without its link's knowing yet: what is in flight waits for it, and so does the rest.
        if let Some(server) = self.nearby.filter(|server| self.connected.contains(server)) {
            return Ok(Target::Peer(server));
        }
        let service = self.service.clone().map(Target::Service);
        service.ok_or_else(|| {
            Failure::new(Code::InvalidArgument, "no peer is named and the node has no service")
                .because("no server without a service runs on this machine either")
                .hint("name a peer id or a ticket, or start the node with --service NAME")
        })
    }

    fn other_service(&self, name: &ServiceName) -> Failure {
        let own = self.service.as_ref();
        let own = own.map_or_else(|| "has none".to_owned(), |own| format!("has {own}"));
        Failure::new(Code::InvalidArgument, format!("{name} is not the node's service"))
            .because(format!("a node has one service; this one {own}"))
            .hint(format!("start a node with --service {name}"))
    }

    fn by_prefix(&self, prefix: &str) -> Result<Target, Failure> {
        if prefix.len() < PREFIX_CHARACTERS_MIN {
            let why = format!("the start of an id needs {PREFIX_CHARACTERS_MIN} characters");
            return Err(self.hint_at_known(unknown(prefix, &why)));
        }
        let mut found = self.connected.iter().filter(|peer| peer.to_string().starts_with(prefix));
        match (found.next(), found.next()) {
            (Some(peer), None) => Ok(Target::Peer(*peer)),
            (None, _) => {
                Err(self.hint_at_known(unknown(prefix, "no connected peer's id starts so")))
            }
            (Some(_), Some(_)) => Err(Failure::new(
                Code::InvalidArgument,
                format!("{prefix:?} is the start of several connected peers' ids"),
            )
            .hint("give more characters; list shows the peers")),
        }
    }

    fn hint_at_known(&self, failure: Failure) -> Failure {
        let known: Vec<String> = self.connected.iter().take(3).map(PeerId::short).collect();
        match known.is_empty() {
            true => {
                failure.hint("name the peer by its 52-character id or its ticket, or say service")
            }
            false => failure.hint(format!("connected: {}; list shows all", known.join(", "))),
        }
    }
}

fn unknown(text: &str, why: &str) -> Failure {
    let shown: String = text.chars().take(SHOWN_CHARACTERS_MAX).collect();
    Failure::new(Code::InvalidArgument, format!("{shown:?} names no peer"))
        .because(why)
        .hint("a peer is a 52-character id, a ticket, service, @last, or the start of a connected peer's id")
}

/// Characters of the user's own text that an error repeats.
const SHOWN_CHARACTERS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Identity;

    fn identity(seed: u8) -> Identity {
        Identity::from_seed([seed; 32])
    }

    fn peer(seed: u8) -> PeerId {
        identity(seed).peer_id()
    }

    fn directory() -> Directory {
        let mut directory = Directory::new(Some("myapi:v1".parse().unwrap()), None);
        directory.handle_connected(peer(1));
        directory.handle_connected(peer(2));
        directory
    }

    fn resolve(directory: &mut Directory, text: &str) -> Result<Target, Code> {
        let recipient = Recipient::parse(text).map_err(|failure| failure.code)?;
        directory.resolve(&recipient, || None).map_err(|failure| failure.code)
    }

    #[test]
    fn every_way_to_name_a_peer_leads_to_it() {
        let mut directory = directory();
        let service = Target::Service("myapi:v1".parse().unwrap());
        let ticket = Ticket::of(&identity(3), Vec::new());
        let id = peer(1).to_string();
        for (text, target) in [
            (id.as_str(), Target::Peer(peer(1))),
            (&id[..4], Target::Peer(peer(1))),
            (&ticket.to_string(), Target::Ticket(ticket.clone())),
            (&ticket.to_string().to_uppercase(), Target::Ticket(ticket)),
            ("service", service.clone()),
            ("service:myapi:v1", service.clone()),
            ("myapi:v1", service),
        ] {
            assert_eq!(resolve(&mut directory, text), Ok(target), "{text}");
        }
    }

    #[test]
    fn what_is_read_twice_is_read_the_same_way() {
        let mut known = Known::default();
        for round in 0..2 {
            for text in [&peer(1).to_string()[..], "service", "@last", "nobody", ""] {
                assert_eq!(known.parse(text), Recipient::parse(text), "{text} {round}");
            }
        }
        assert_eq!(known.0.len(), 1);
        for seed in 0..=255 {
            for part in 0..5 {
                let mut bytes = [seed; 32];
                bytes[0] = part;
                known.parse(&Identity::from_seed(bytes).peer_id().to_string()).unwrap();
            }
        }
        assert!(known.0.len() <= KNOWN_MAX);
    }

    #[test]
    fn names_that_lead_nowhere_are_refused() {
        let mut directory = directory();
        for (text, code) in [
            ("", Code::InvalidArgument),
            ("nobody", Code::InvalidArgument),
            (&peer(1).to_string()[..3], Code::InvalidArgument),
            ("service:other", Code::InvalidArgument),
            ("service:", Code::InvalidArgument),
            ("p2p1broken", Code::InvalidTicket),
            ("@last", Code::NotReady),
        ] {
            assert_eq!(resolve(&mut directory, text), Err(code), "{text}");
        }
        directory.service = None;
        assert_eq!(resolve(&mut directory, "service"), Err(Code::InvalidArgument));
    }

    #[test]
    fn last_is_who_sent_the_latest_message() {
        let mut directory = directory();
        for sender in [peer(1), peer(2)] {
            directory.handle_message(sender);
        }
        assert_eq!(resolve(&mut directory, "@last"), Ok(Target::Peer(peer(2))));
    }

    #[test]
    fn a_lost_peer_is_not_named_by_its_first_characters_any_more() {
        let mut directory = directory();
        directory.handle_event(&Event::Disconnected {
            peer: peer(1),
            failure: Failure::new(Code::ConnectionLost, "lost"),
            will_retry: false,
        });
        let prefix = &peer(1).to_string()[..6];
        assert_eq!(resolve(&mut directory, prefix), Err(Code::InvalidArgument));
    }

    #[test]
    fn a_server_on_this_machine_is_preferred() {
        let ticket = Ticket::of(&identity(9), Vec::new());
        let target = directory().resolve(&Recipient::Service, || Some(ticket.clone()));
        assert_eq!(target, Ok(Target::Ticket(ticket)));
    }

    #[test]
    fn a_server_that_was_on_this_machine_is_meant_until_its_link_is_gone() {
        let mut directory = directory();
        let ticket = Ticket::of(&identity(1), Vec::new());
        directory.resolve(&Recipient::Service, || Some(ticket)).unwrap();
        let target = directory.resolve(&Recipient::Service, || None);
        assert_eq!(target, Ok(Target::Peer(peer(1))));
        directory.handle_event(&Event::Disconnected {
            peer: peer(1),
            failure: Failure::new(Code::ConnectionLost, "lost"),
            will_retry: false,
        });
        let target = directory.resolve(&Recipient::Service, || None);
        assert_eq!(target, Ok(Target::Service("myapi:v1".parse().unwrap())));
    }

    #[test]
    fn nobody_named_means_the_peer_that_the_node_was_started_for() {
        let mut directory = Directory::new(None, Some(Recipient::Peer(peer(7))));
        let target = directory.resolve(&Recipient::Unnamed, || None);
        assert_eq!(target, Ok(Target::Peer(peer(7))));
    }
}
