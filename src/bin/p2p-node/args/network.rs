//! The flags of every command that starts a node: who it is, whom it may meet, and how it gets online.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, CommandFactory, ValueEnum, builder::BoolishValueParser, error::ErrorKind,
    parser::ValueSource,
};
use p2p_node::{
    identity::PeerId,
    node::{HelperMode, Target},
    service::ServiceName,
};

use super::{
    Cli, source,
    values::{self, Server},
};
use crate::{
    defaults::{PUBLIC_DHT_BOOTSTRAP, PUBLIC_STUN_SERVERS},
    start::Network,
};

/// How to start a node.
#[derive(Debug)]
pub(crate) struct NodeArgs {
    pub(crate) service: Option<ServiceName>,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) allow: BTreeSet<PeerId>,
    pub(crate) identity: IdentityChoice,
    pub(crate) stun: Vec<String>,
    pub(crate) network: Network,
    pub(crate) connect_timeout: Duration,
    /// Helpers to use before those that are found.
    pub(crate) helpers: Vec<Target>,
    pub(crate) helper_mode: HelperMode,
    /// The directory of the outbox.
    pub(crate) outbox: Option<PathBuf>,
}

/// Which identity to run with.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum IdentityChoice {
    /// A server's is kept in the default file; a client's is new each time.
    ByMode,
    /// It is kept in this file.
    File(PathBuf),
    /// It is new, and gone with the process.
    Ephemeral,
}

#[derive(Debug, clap::Args)]
pub(super) struct IdentityFlag {
    /// The file that keeps the identity [default: $XDG_DATA_HOME/p2p-node/identity.key]
    #[arg(long, value_name = "FILE", env = "P2P_NODE_IDENTITY")]
    pub(super) identity: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Node and network")]
pub(super) struct NodeFlags {
    /// The service to offer (server) or to use (client), for instance myapi:v1
    #[arg(long, value_name = "NAME", env = "P2P_NODE_SERVICE")]
    service: Option<ServiceName>,
    /// A file with a secret that all members of the service share; without one, anybody who knows the
    /// name can find and pose as the service
    #[arg(long, value_name = "FILE", env = "P2P_NODE_SERVICE_SECRET_FILE")]
    service_secret_file: Option<PathBuf>,
    /// Let these peers connect, and otherwise only who proves to know the service's secret or this
    /// node's ticket (repeat, or separate by commas)
    #[arg(long, value_name = "PEER", value_delimiter = ',', env = "P2P_NODE_ALLOW")]
    allow: Vec<PeerId>,
    #[command(flatten)]
    identity: IdentityFlag,
    /// Use a new identity that is gone with the process; clients do so unless --identity is given
    #[arg(long, value_parser = BoolishValueParser::new(), env = "P2P_NODE_EPHEMERAL")]
    ephemeral: bool,
    /// DHT nodes to begin with (repeat, or separate by commas), or none to use no DHT
    /// [default: router.bittorrent.com:6881, dht.transmissionbt.com:6881, dht.libtorrent.org:25401,
    /// relay.pkarr.org:6881]
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        value_parser = values::server,
        env = "P2P_NODE_DHT_BOOTSTRAP"
    )]
    dht_bootstrap: Vec<Server>,
    /// STUN servers to ask for our public address (repeat, or separate by commas), or none to ask nobody
    /// [default: stun.l.google.com:19302, stun.cloudflare.com:3478, stun.nextcloud.com:3478]
    #[arg(
        long,
        value_name = "HOST:PORT",
        value_delimiter = ',',
        value_parser = values::server,
        env = "P2P_NODE_STUN"
    )]
    stun: Vec<Server>,
    /// Addresses to bind (repeat, or separate by commas) [default: all, with any port]
    #[arg(
        long,
        value_name = "ADDR[:PORT]",
        value_delimiter = ',',
        value_parser = values::bind_address,
        env = "P2P_NODE_BIND"
    )]
    bind: Vec<SocketAddr>,
    /// Neither look for nodes on the local network nor be found there (multicast DNS)
    #[arg(long, value_parser = BoolishValueParser::new(), env = "P2P_NODE_NO_LAN")]
    no_lan: bool,
    /// How long a dial may take: 20, 20s, 1500ms or 1m
    #[arg(
        long,
        value_name = "TIME",
        default_value = "20s",
        value_parser = values::duration,
        env = "P2P_NODE_CONNECT_TIMEOUT"
    )]
    connect_timeout: Duration,
    /// Use these reachable nodes, by peer id or ticket, as helpers that forward offers to this server, before
    /// those that list themselves in the DHT (repeat, or separate by commas)
    #[arg(
        long,
        value_name = "PEER|TICKET",
        value_delimiter = ',',
        value_parser = values::helper,
        env = "P2P_NODE_HELPER",
        hide_env_values = true
    )]
    helper: Vec<Target>,
    /// Whether to forward offers to others: in auto, a server does once peers have proved that it can be
    /// reached from everywhere
    #[arg(long, value_enum, default_value = "auto", env = "P2P_NODE_HELPER_MODE")]
    helper_mode: Helping,
    /// Keep messages in this directory until their receivers have them, also over restarts
    #[arg(long, value_name = "DIR", env = "P2P_NODE_OUTBOX")]
    outbox: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Helping {
    /// A server that can be reached does; a client does not
    Auto,
    /// Do
    On,
    /// Do not
    Off,
}

impl From<Helping> for HelperMode {
    fn from(mode: Helping) -> Self {
        match mode {
            Helping::Auto => Self::Auto,
            Helping::On => Self::On,
            Helping::Off => Self::Off,
        }
    }
}

impl NodeArgs {
    /// What `flags` mean.
    pub(super) fn from_flags(flags: NodeFlags, matches: &ArgMatches) -> Result<Self, clap::Error> {
        let identity = identity_choice(&flags, matches)?;
        if identity == IdentityChoice::Ephemeral && flags.outbox.is_some() {
            return Err(conflict(
                ErrorKind::ArgumentConflict,
                "--outbox needs an identity that stays: receivers tell by it what they have already",
            ));
        }
        Ok(Self {
            outbox: flags.outbox,
            helpers: flags.helper,
            helper_mode: flags.helper_mode.into(),
            secret_file: flags.service_secret_file,
            service: flags.service,
            allow: flags.allow.into_iter().collect(),
            identity,
            stun: servers(flags.stun, &PUBLIC_STUN_SERVERS)?,
            network: Network {
                dht_bootstrap: servers(flags.dht_bootstrap, &PUBLIC_DHT_BOOTSTRAP)?,
                bind: flags.bind,
                lan: !flags.no_lan,
            },
            connect_timeout: flags.connect_timeout,
        })
    }
}

/// A typed secret is somebody's: of the service that is named, too.
pub(super) fn require_service(node: &NodeArgs, matches: &ArgMatches) -> Result<(), clap::Error> {
    if node.service.is_none() && source(matches, "service_secret_file") == COMMAND_LINE {
        return Err(conflict(
            ErrorKind::MissingRequiredArgument,
            "--service-secret-file needs the service whose secret it is: --service NAME",
        ));
    }
    Ok(())
}

/// What was typed wins over what is in the environment; both typed, or both inherited, contradict.
fn identity_choice(flags: &NodeFlags, matches: &ArgMatches) -> Result<IdentityChoice, clap::Error> {
    let file = flags.identity.identity.clone().map(IdentityChoice::File);
    match (file, flags.ephemeral) {
        (None, false) => Ok(IdentityChoice::ByMode),
        (None, true) => Ok(IdentityChoice::Ephemeral),
        (Some(file), false) => Ok(file),
        (Some(file), true) => match typed_one(matches, "identity", "ephemeral") {
            Some(Typed::First) => Ok(file),
            Some(Typed::Second) => Ok(IdentityChoice::Ephemeral),
            None => Err(conflict(
                ErrorKind::ArgumentConflict,
                "--identity keeps an identity, --ephemeral throws it away: use one of them",
            )),
        },
    }
}

/// Which of two arguments was typed, while the other comes from the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    First,
    Second,
}

/// See [`Typed`]; `None` if both, or neither.
pub(super) fn typed_one(matches: &ArgMatches, first: &str, second: &str) -> Option<Typed> {
    match (source(matches, first) == COMMAND_LINE, source(matches, second) == COMMAND_LINE) {
        (true, false) => Some(Typed::First),
        (false, true) => Some(Typed::Second),
        (true, true) | (false, false) => None,
    }
}

/// An error of usage.
pub(super) fn conflict(kind: ErrorKind, message: &str) -> clap::Error {
    Cli::command().error(kind, message)
}

fn servers(given: Vec<Server>, public: &[&str]) -> Result<Vec<String>, clap::Error> {
    if given.is_empty() {
        return Ok(public.iter().map(|&server| server.to_owned()).collect());
    }
    if given == [Server::None] {
        return Ok(Vec::new());
    }
    let servers = given.into_iter().map(|server| match server {
        Server::At(server) => Ok(server),
        Server::None => Err(conflict(
            ErrorKind::ArgumentConflict,
            "none means no server at all and stands alone",
        )),
    });
    servers.collect()
}

const COMMAND_LINE: Option<ValueSource> = Some(ValueSource::CommandLine);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn public_servers_are_asked_only_if_none_are_given() {
        let at = |text: &str| Server::At(text.to_owned());
        assert_eq!(servers(Vec::new(), &["public:1"]).unwrap(), ["public:1"]);
        assert_eq!(
            servers(vec![at("own:1"), at("own:2")], &["public:1"]).unwrap(),
            ["own:1", "own:2"]
        );
        assert_eq!(servers(vec![Server::None], &["public:1"]).unwrap(), [""; 0]);
        assert!(servers(vec![Server::None, at("own:1")], &["public:1"]).is_err());
    }
}
