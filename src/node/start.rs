//! Brings a node to life: sockets, QUIC and the driver's task.

use std::io;

use tokio::sync::mpsc;

use super::{
    config::Config,
    driver::{Driver, Inputs, Parts},
    environment::Environment,
    event::Event,
    events::Events,
    handle::{self, Node, Way},
    messages::{
        outbox::{Contents, Outbox, Store},
        received::Inbox,
        switchboard::Switchboard,
    },
    network::{
        addresses::{Addresses, News},
        extra::Extra,
    },
};
use crate::{
    candidate::canonical,
    datagram::BoundSocket,
    failure::{Code, Failure},
    ticket::Ticket,
    transport::{paths::path_table::PathTable, quic::Endpoint, sockets::socket_set::SocketSet},
};

impl Node {
    /// Starts a node; must be called inside a tokio runtime. Its events come out of the receiver, its
    /// messages out of the inbox; the node slows its peers down while nobody takes them.
    ///
    /// # Errors
    /// When a socket does not know its own address.
    pub fn start(
        config: Config,
        environment: Environment,
    ) -> Result<(Self, mpsc::Receiver<Event>, Inbox), Failure> {
        let Environment { sockets, interfaces, changes, rendezvous, lan, .. } = environment;
        let Environment { clock, mut entropy, crypto, outbox, extra_sockets, .. } = environment;
        let (sockets, datagrams) = SocketSet::new(sockets, PathTable::new());
        let bound_sockets: Vec<BoundSocket> = sockets
            .local_addresses()
            .into_iter()
            .map(|(index, local)| BoundSocket { index, local: canonical(local) })
            .collect();
        let endpoint = Endpoint::new(&config.identity, crypto, entropy.fork(), sockets.clone())
            .map_err(|error| no_endpoint(&error))?;
        let (request_sender, requests) = mpsc::channel(REQUESTS_MAX);
        let (event_sender, events) = mpsc::channel(EVENTS_MAX);
        let (outcome_sender, outcomes) = mpsc::channel(OUTCOMES_MAX);
        let (deliveries, inbox) = Inbox::new();
        let switchboard = Switchboard::default();
        let now = clock.now();
        let outbox = outbox.map(Store::open).transpose()?;
        let (outbox, seen) = outbox.map_or((None, Vec::new()), |(store, contents)| {
            let Contents { entries, seen } = contents;
            (Some(Outbox::new(store, entries, (now, clock.unix()))), seen)
        });
        let node = Self::new(handle::Parts {
            peer_id: config.identity.peer_id(),
            ticket: Ticket::of(&config.identity, Vec::new()),
            requests: request_sender,
            switchboard: switchboard.clone(),
            way: if outbox.is_some() { Way::ThroughOutbox } else { Way::Short },
            clock,
            patience: config.connect_timeout,
        });
        let news = if changes.is_some() { News::Told } else { News::Polled };
        let servers = config.stun_servers.clone();
        let addresses = Addresses::new(interfaces, &bound_sockets, servers, (clock.now(), news));
        let driver = Driver::new(Parts {
            config,
            clock,
            entropy,
            sockets,
            bound_sockets,
            endpoint,
            rendezvous,
            lan,
            addresses,
            extra: Extra::new(extra_sockets),
            events: Events::new(event_sender),
            deliveries,
            switchboard,
            outbox,
            seen,
            outcomes: outcome_sender,
        });
        // Ends by itself when the last handle is dropped.
        tokio::spawn(driver.run(Inputs { requests, datagrams, outcomes, changes }));
        Ok((node, events, inbox))
    }
}

fn no_endpoint(error: &io::Error) -> Failure {
    Failure::new(Code::AddressInUse, "the sockets cannot be used")
        .because(error.to_string())
        .hint("name another address: --bind ADDRESS:PORT")
}

/// Calls that wait for the driver, which takes each within microseconds.
const REQUESTS_MAX: usize = 1_024;

/// Events that wait for the user.
const EVENTS_MAX: usize = 16;

/// Reports of tasks that wait for the driver.
const OUTCOMES_MAX: usize = 1_024;
