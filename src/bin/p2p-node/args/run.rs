//! The flags of a node that is driven over stdin and stdout.

use std::path::PathBuf;

use clap::{ArgMatches, ValueEnum, builder::BoolishValueParser, error::ErrorKind};
use p2p_node::{
    bridge::{StdinEof, recipient::Recipient},
    node::Role,
};

use super::{
    network::{NodeArgs, NodeFlags, Typed, conflict, require_service, typed_one},
    values,
};

/// How to run a node.
#[derive(Debug)]
pub(crate) struct RunArgs {
    pub(crate) mode: Role,
    pub(crate) connect: Option<PeerName>,
    pub(crate) stdin_eof: StdinEof,
    pub(crate) parent: Option<u32>,
    pub(crate) stdio: Stdio,
    pub(crate) grease: bool,
    pub(crate) node: NodeArgs,
}

/// Where a peer is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PeerName {
    /// In the arguments or the environment.
    Given(Recipient),
    /// In the first line of this file, because a ticket is a secret.
    InFile(PathBuf),
}

/// What is spoken on stdin and stdout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stdio {
    /// Text on a terminal, JSON elsewhere
    Auto,
    /// One JSON object a line
    Json,
    /// Lines for people
    Text,
    /// Frames of protobuf, as proto/stdio.proto says
    Protobuf,
}

#[derive(Debug, clap::Args)]
pub(super) struct RunFlags {
    /// Whether to publish where this node is, or only to look for others
    #[arg(long, value_enum, default_value = "client", env = "P2P_NODE_MODE")]
    mode: Mode,
    /// Connect at the start, and mean this peer where a command names none: peer id, ticket or service
    #[arg(long, value_name = "TARGET", value_parser = values::target, env = "P2P_NODE_CONNECT", hide_env_values = true)]
    connect: Option<Recipient>,
    /// The same, but the target is the first line of a file: a ticket is a secret, and arguments are not
    #[arg(long, value_name = "FILE", env = "P2P_NODE_CONNECT_FILE")]
    connect_file: Option<PathBuf>,
    /// What to speak on stdin and stdout: in auto, text on a terminal and JSON elsewhere
    #[arg(long, value_enum, default_value = "auto", env = "P2P_NODE_STDIO")]
    stdio: Stdio,
    /// Put events and keys that mean nothing among the others now and then: a program that cannot pass
    /// over them will fail when there are new ones
    #[arg(long, value_parser = BoolishValueParser::new(), env = "P2P_NODE_GREASE")]
    grease: bool,
    /// What the end of stdin means
    #[arg(
        long,
        value_enum,
        value_name = "WHAT",
        default_value = "drain",
        env = "P2P_NODE_STDIN_EOF"
    )]
    stdin_eof: Eof,
    /// End when the process with this id has ended, even if somebody holds stdin open
    #[arg(
        long,
        value_name = "PID",
        value_parser = clap::value_parser!(u32).range(1..=0x7fff_ffff),
        env = "P2P_NODE_PARENT_PID"
    )]
    parent_pid: Option<u32>,
    #[command(flatten)]
    node: NodeFlags,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Publish where this node is
    Server,
    /// Only look for others
    Client,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Eof {
    /// Let running commands end, then stop
    Drain,
    /// Nothing: go on as a service
    Ignore,
    /// Stop at once
    Abort,
}

impl RunArgs {
    pub(super) fn from_flags(flags: RunFlags, matches: &ArgMatches) -> Result<Self, clap::Error> {
        let node = NodeArgs::from_flags(flags.node, matches)?;
        require_service(&node, matches)?;
        Ok(Self {
            mode: match flags.mode {
                Mode::Server => Role::Server,
                Mode::Client => Role::Client,
            },
            connect: match (flags.connect, flags.connect_file) {
                (None, None) => None,
                (Some(given), None) => Some(PeerName::Given(given)),
                (None, Some(file)) => Some(PeerName::InFile(file)),
                (Some(given), Some(file)) => match typed_one(matches, "connect", "connect_file") {
                    Some(Typed::First) => Some(PeerName::Given(given)),
                    Some(Typed::Second) => Some(PeerName::InFile(file)),
                    None => {
                        return Err(conflict(
                            ErrorKind::ArgumentConflict,
                            "--connect and --connect-file both name a peer: use one of them",
                        ));
                    }
                },
            },
            stdin_eof: match flags.stdin_eof {
                Eof::Drain => StdinEof::Drain,
                Eof::Ignore => StdinEof::Ignore,
                Eof::Abort => StdinEof::Abort,
            },
            parent: flags.parent_pid,
            stdio: flags.stdio,
            grease: flags.grease,
            node,
        })
    }
}
