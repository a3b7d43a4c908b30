//! The flags of the commands for scripts, which do one thing and end.

use std::{path::PathBuf, time::Duration};

use clap::{
    ArgAction, ArgMatches, builder::BoolishValueParser, error::ErrorKind, parser::ValueSource,
};
use p2p_node::bridge::recipient::Recipient;

use super::{
    PeerName,
    network::{NodeArgs, NodeFlags, conflict, require_service},
    source, values,
};

/// What to send.
#[derive(Debug)]
pub(crate) struct SendArgs {
    pub(crate) peer: PeerName,
    pub(crate) text: Text,
    pub(crate) r#type: Option<String>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) json: bool,
    pub(crate) node: NodeArgs,
}

/// Where a message comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Text {
    /// From the arguments.
    Given(String),
    /// Nothing was given: from stdin, unless somebody would have to type there.
    Piped,
    /// From stdin, whoever writes there.
    Stdin,
}

/// What to receive.
#[derive(Debug)]
pub(crate) struct ListenArgs {
    pub(crate) count: Option<u64>,
    pub(crate) timeout: Option<Duration>,
    pub(crate) shape: Shape,
    pub(crate) node: NodeArgs,
}

/// How a message is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A line for people.
    Line,
    /// The payload as it came, and a line feed.
    Payload,
    /// The event `message`.
    Json,
}

/// To whom to connect.
#[derive(Debug)]
pub(crate) struct ConnectArgs {
    pub(crate) peer: PeerName,
    pub(crate) detail: Detail,
    pub(crate) timeout: Option<Duration>,
    /// How long to stay when the link is up.
    pub(crate) watch: Option<Duration>,
    pub(crate) json: bool,
    pub(crate) node: NodeArgs,
}

/// How much is told of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// What it came to.
    Result,
    /// Every step.
    Timeline,
}

/// Whom to ping.
#[derive(Debug)]
pub(crate) struct PingArgs {
    pub(crate) peer: PeerName,
    pub(crate) count: u32,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) json: bool,
    pub(crate) node: NodeArgs,
}

#[derive(Debug, clap::Args)]
pub(super) struct PeerFlags {
    /// The peer, where it is not the first argument
    #[arg(
        id = "named_peer",
        long = "peer",
        value_name = "PEER",
        value_parser = values::target,
        env = "P2P_NODE_PEER",
        hide_env_values = true
    )]
    peer: Option<Recipient>,
    /// A file whose first line is the peer: a ticket is a secret, and arguments are not
    #[arg(long, value_name = "FILE", env = "P2P_NODE_PEER_FILE")]
    peer_file: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct SendFlags {
    /// To whom: service, service:NAME, a peer id or a ticket; left out where --peer or --peer-file says it
    #[arg(value_name = "PEER")]
    first: Option<String>,
    /// What to send; - or nothing reads stdin to its end, bytes and all, 16 MiB at most
    #[arg(value_name = "MESSAGE")]
    second: Option<String>,
    /// The message's type [default: text, or bytes for what is not UTF-8]
    #[arg(long = "type", value_name = "TYPE", value_parser = values::message_type, env = "P2P_NODE_TYPE")]
    r#type: Option<String>,
    /// How long it may take in all, the search for the peer included
    #[arg(long, value_name = "TIME", value_parser = values::duration, env = "P2P_NODE_TIMEOUT")]
    timeout: Option<Duration>,
    /// Print the receipt as JSON
    #[arg(long, value_parser = BoolishValueParser::new(), env = "P2P_NODE_JSON")]
    json: bool,
    #[command(flatten)]
    peer: PeerFlags,
    #[command(flatten)]
    node: NodeFlags,
}

#[derive(Debug, clap::Args)]
pub(super) struct ListenFlags {
    /// End after so many messages
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), env = "P2P_NODE_COUNT")]
    count: Option<u64>,
    /// End after this time, with exit code 7
    #[arg(long, value_name = "TIME", value_parser = values::duration, env = "P2P_NODE_TIMEOUT")]
    timeout: Option<Duration>,
    /// Print nothing but each payload, as it came, and a line feed
    #[arg(long, value_parser = BoolishValueParser::new(), env = "P2P_NODE_PAYLOAD_ONLY")]
    payload_only: bool,
    /// Print each message as JSON, one a line
    #[arg(long, value_parser = BoolishValueParser::new(), env = "P2P_NODE_JSON")]
    json: bool,
    #[command(flatten)]
    node: NodeFlags,
}

#[derive(Debug, clap::Args)]
pub(super) struct ConnectFlags {
    /// To whom: service, service:NAME, a peer id or a ticket; left out where --peer or --peer-file says it
    #[arg(value_name = "PEER")]
    first: Option<String>,
    /// How long it may take in all, the search for the peer included
    #[arg(long, value_name = "TIME", value_parser = values::duration, env = "P2P_NODE_TIMEOUT")]
    timeout: Option<Duration>,
    /// How long to stay when the link is up, in case the path changes [default: 3s with -v, else not at all]
    #[arg(long, value_name = "TIME", value_parser = values::duration, env = "P2P_NODE_WATCH")]
    watch: Option<Duration>,
    /// Print events as JSON, one a line: connected and path_changed, and with -v all of them
    #[arg(long, value_parser = BoolishValueParser::new(), env = "P2P_NODE_JSON")]
    json: bool,
    /// Print every step: what was learned, what is tried and why, and when; -vv and -vvv log, too
    #[arg(short, long, action = ArgAction::Count)]
    verbose: u8,
    #[command(flatten)]
    peer: PeerFlags,
    #[command(flatten)]
    node: NodeFlags,
}

#[derive(Debug, clap::Args)]
pub(super) struct PingFlags {
    /// Whom: service, service:NAME, a peer id or a ticket; left out where --peer or --peer-file says it
    #[arg(value_name = "PEER")]
    first: Option<String>,
    /// How often to ask
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..), env = "P2P_NODE_COUNT")]
    count: u32,
    /// How long to wait between two
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = values::duration, env = "P2P_NODE_INTERVAL")]
    interval: Duration,
    /// How long to wait for each answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = values::duration, env = "P2P_NODE_TIMEOUT")]
    timeout: Duration,
    /// Print each answer as JSON, one a line
    #[arg(long, value_parser = BoolishValueParser::new(), env = "P2P_NODE_JSON")]
    json: bool,
    #[command(flatten)]
    peer: PeerFlags,
    #[command(flatten)]
    node: NodeFlags,
}

impl SendArgs {
    pub(super) fn from_flags(flags: SendFlags, matches: &ArgMatches) -> Result<Self, clap::Error> {
        let named = flags.peer.named(matches)?;
        let (peer, text) = match (flags.first, flags.second, named) {
            (Some(_), Some(_), Named::Typed(_)) => return Err(named_twice()),
            (Some(first), second @ Some(_), _) => (given(&first)?, second),
            // What is left to be said is the message.
            (first, None, Named::Typed(peer) | Named::Inherited(peer)) => (peer, first),
            (Some(first), None, Named::Nowhere) => (given(&first)?, None),
            (None, _, _) => return Err(nobody_named()),
        };
        let text = match text {
            None => Text::Piped,
            Some(text) if text == "-" => Text::Stdin,
            Some(text) => Text::Given(text),
        };
        let node = NodeArgs::from_flags(flags.node, matches)?;
        let (r#type, timeout, json) = (flags.r#type, flags.timeout, flags.json);
        Ok(Self { peer, text, r#type, timeout, json, node })
    }
}

impl ListenArgs {
    pub(super) fn from_flags(
        flags: ListenFlags,
        matches: &ArgMatches,
    ) -> Result<Self, clap::Error> {
        let node = NodeArgs::from_flags(flags.node, matches)?;
        require_service(&node, matches)?;
        let shape = match (flags.payload_only, flags.json) {
            (false, false) => Shape::Line,
            (true, false) => Shape::Payload,
            (false, true) => Shape::Json,
            (true, true) => {
                return Err(conflict(
                    ErrorKind::ArgumentConflict,
                    "--payload-only prints payloads, --json prints JSON: use one of them",
                ));
            }
        };
        Ok(Self { count: flags.count, timeout: flags.timeout, shape, node })
    }
}

impl ConnectArgs {
    pub(super) fn from_flags(
        flags: ConnectFlags,
        matches: &ArgMatches,
    ) -> Result<Self, clap::Error> {
        Ok(Self {
            peer: flags.peer.only(flags.first, matches)?,
            detail: if flags.verbose > 0 { Detail::Timeline } else { Detail::Result },
            timeout: flags.timeout,
            watch: flags.watch,
            json: flags.json,
            node: NodeArgs::from_flags(flags.node, matches)?,
        })
    }
}

impl PingArgs {
    pub(super) fn from_flags(flags: PingFlags, matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            peer: flags.peer.only(flags.first, matches)?,
            count: flags.count,
            interval: flags.interval,
            timeout: flags.timeout,
            json: flags.json,
            node: NodeArgs::from_flags(flags.node, matches)?,
        })
    }
}

/// A peer that is named elsewhere than in the first argument.
enum Named {
    Typed(PeerName),
    Inherited(PeerName),
    Nowhere,
}

impl PeerFlags {
    /// The peer, where the arguments have nothing else to say than who it is.
    fn only(self, first: Option<String>, matches: &ArgMatches) -> Result<PeerName, clap::Error> {
        self.or_first(first, matches)?.ok_or_else(nobody_named)
    }

    /// The peer that the `first` argument names, or a flag.
    pub(super) fn or_first(
        self,
        first: Option<String>,
        matches: &ArgMatches,
    ) -> Result<Option<PeerName>, clap::Error> {
        match (first, self.named(matches)?) {
            (Some(_), Named::Typed(_)) => Err(named_twice()),
            (Some(first), Named::Inherited(_) | Named::Nowhere) => given(&first).map(Some),
            (None, Named::Typed(peer) | Named::Inherited(peer)) => Ok(Some(peer)),
            (None, Named::Nowhere) => Ok(None),
        }
    }

    fn named(self, matches: &ArgMatches) -> Result<Named, clap::Error> {
        let place = |name: &str, peer: PeerName| match source(matches, name) {
            Some(ValueSource::CommandLine) => Named::Typed(peer),
            _ => Named::Inherited(peer),
        };
        let given = self.peer.map(|peer| place("named_peer", PeerName::Given(peer)));
        let in_file = self.peer_file.map(|file| place("peer_file", PeerName::InFile(file)));
        match (given, in_file) {
            (None, None) => Ok(Named::Nowhere),
            (Some(one), None) | (None, Some(one)) => Ok(one),
            (Some(typed @ Named::Typed(_)), Some(Named::Inherited(_)))
            | (Some(Named::Inherited(_)), Some(typed @ Named::Typed(_))) => Ok(typed),
            (Some(_), Some(_)) => Err(named_twice()),
        }
    }
}

fn given(text: &str) -> Result<PeerName, clap::Error> {
    match values::target(text) {
        Ok(recipient) => Ok(PeerName::Given(recipient)),
        Err(why) => Err(conflict(ErrorKind::ValueValidation, &format!("no such peer: {why}"))),
    }
}

fn named_twice() -> clap::Error {
    conflict(ErrorKind::ArgumentConflict, "the peer is named twice: leave one of the names out")
}

fn nobody_named() -> clap::Error {
    conflict(
        ErrorKind::MissingRequiredArgument,
        "no peer is named: give service, service:NAME, a peer id or a ticket; or use --peer-file",
    )
}
