//! What a node is told before it starts.

use std::{collections::BTreeSet, time::Duration};

use super::event::Target;
use crate::{
    identity::{Identity, PeerId},
    service::Service,
};

/// What a node is told by its user.
#[derive(Clone, Debug)]
pub struct Config {
    /// Who it is.
    pub identity: Identity,
    /// What it does with its service.
    pub role: Role,
    /// The service that it serves or uses.
    pub service: Option<Service>,
    /// Whom a client wants to be connected to all the time; its service, if it has one.
    pub standing: Option<Target>,
    /// If not empty, the only peers that may connect without proving that they know a secret.
    pub allow: BTreeSet<PeerId>,
    /// STUN servers as `host:port`.
    pub stun_servers: Vec<String>,
    /// How long a dial may take when its caller names no other time.
    pub connect_timeout: Duration,
    /// Peers that may be connected at the same time.
    pub peers_max: usize,
    /// Helpers to use before those that are found in the DHT.
    pub helpers: Vec<Target>,
    /// Whether this node is one.
    pub helper_mode: HelperMode,
}

/// Whether a node forwards offers to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HelperMode {
    /// A server does, once peers have proved that it can be reached; a client does not.
    #[default]
    Auto,
    /// It does.
    On,
    /// It does not.
    Off,
}

/// Which side of a service a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Publishes where it is and answers offers.
    Server,
    /// Looks servers up and dials them; publishes nothing.
    Client,
}

impl Config {
    /// The usual limits for `identity` in `role`, without a service.
    pub fn new(identity: Identity, role: Role) -> Self {
        Self {
            identity,
            role,
            service: None,
            standing: None,
            allow: BTreeSet::new(),
            stun_servers: Vec::new(),
            connect_timeout: CONNECT_TIMEOUT,
            peers_max: PEERS_MAX,
            helpers: Vec::new(),
            helper_mode: HelperMode::Auto,
        }
    }
}

/// Time for several attempts with fresh offers; a person waits no longer for a first connection.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// A connected idle peer costs some 30 KiB; this keeps a node below 100 MiB.
pub const PEERS_MAX: usize = 1_024;
