//! The command line and the environment: `--flag` wins over `P2P_NODE_FLAG`, and that over the default.

mod examples;
mod log;
mod netcheck;
mod network;
mod oneshot;
mod run;
mod values;

use std::{net::SocketAddr, path::PathBuf};

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource};
use clap_complete::Shell;

use self::{
    log::LogFlags,
    netcheck::NetcheckFlags,
    network::IdentityFlag,
    oneshot::{ConnectFlags, ListenFlags, PingFlags, SendFlags},
    run::RunFlags,
};
pub(crate) use self::{
    log::{Colour, LogArgs},
    netcheck::NetcheckArgs,
    network::{IdentityChoice, NodeArgs},
    oneshot::{ConnectArgs, Detail, ListenArgs, PingArgs, SendArgs, Shape, Text},
    run::{PeerName, RunArgs, Stdio},
};
use crate::{demo::DemoArgs, testnet::TestnetArgs};

/// What the user wants.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) action: Action,
    pub(crate) log: LogArgs,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Run a node.
    Run(Box<RunArgs>),
    /// Send a message.
    Send(Box<SendArgs>),
    /// Print messages.
    Listen(Box<ListenArgs>),
    /// Show how a peer is reached.
    Connect(Box<ConnectArgs>),
    /// See whether a peer answers.
    Ping(Box<PingArgs>),
    /// Find out what the network lets through.
    Netcheck(Box<NetcheckArgs>),
    /// Print the peer id.
    Id { identity: Option<PathBuf> },
    /// Play the main job.
    Demo(DemoArgs),
    /// Run a network without internet.
    Testnet(TestnetArgs),
    /// Print the schema of the protocol, or of its protobuf form, or write that into a folder.
    Schema { proto: Option<Option<PathBuf>> },
    /// Print a script for a shell.
    Completions(Shell),
    /// Print the manual, or write it into a folder.
    Man { directory: Option<PathBuf> },
    /// Print the ticket.
    Ticket { identity: Option<PathBuf>, addrs: Vec<SocketAddr> },
}

/// Direct messages between two programs behind NATs.
///
/// Without a command it runs a node: commands come from stdin and events go to stdout, one JSON object a
/// line for programs, readable lines on a terminal. `help` on stdin lists the commands.
#[derive(Debug, Parser)]
#[command(
    name = "p2p-node",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    after_long_help = examples::MAIN,
)]
struct Cli {
    #[command(flatten)]
    run: RunFlags,
    #[command(flatten)]
    log: LogFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node that is driven over stdin and stdout, as p2p-node does without a command
    #[command(after_help = examples::RUN)]
    Run(Box<RunFlags>),
    /// Send one message, and end when it is delivered
    #[command(after_help = examples::SEND)]
    Send(Box<SendFlags>),
    /// Print messages as they arrive; others find this node as they find a server
    #[command(after_help = examples::LISTEN)]
    Listen(Box<ListenFlags>),
    /// Connect to a peer, and show how it is reached, or why it is not
    #[command(after_help = examples::CONNECT)]
    Connect(Box<ConnectFlags>),
    /// See whether a peer can be reached, how, and how quickly it answers
    #[command(after_help = examples::PING)]
    Ping(Box<PingFlags>),
    /// Find out what this network lets through, and whether a peer can be reached from it
    #[command(after_help = examples::NETCHECK)]
    Netcheck(Box<NetcheckFlags>),
    /// Print the peer id of this user's identity, which is made if there is none
    #[command(after_help = examples::ID)]
    Id {
        #[command(flatten)]
        identity: IdentityFlag,
    },
    /// Print a ticket that leads to this user's node, without going online
    #[command(after_help = examples::TICKET)]
    Ticket {
        /// Addresses to put into the ticket, so that its holders need not search
        #[arg(long, value_name = "ADDR", num_args = 1.., value_delimiter = ',', env = "P2P_NODE_ADDRS")]
        addrs: Vec<SocketAddr>,
        #[command(flatten)]
        identity: IdentityFlag,
    },
    /// Show two nodes behind simulated NATs finding each other and talking, without internet
    #[command(after_help = examples::DEMO)]
    Demo(DemoArgs),
    /// Run a DHT and STUN servers for a network without internet, until stopped
    #[command(after_help = examples::TESTNET)]
    Testnet(TestnetArgs),
    /// Print the schema of what is spoken on stdin and stdout: JSON Schema, or protobuf
    #[command(after_help = examples::SCHEMA)]
    Schema {
        /// Print the protobuf files, or write them into the folder DIR
        #[arg(long, value_name = "DIR", num_args = 0..=1, env = "P2P_NODE_PROTO")]
        proto: Option<Option<PathBuf>>,
    },
    /// Print what teaches a shell to complete this program's arguments
    #[command(after_help = examples::COMPLETIONS)]
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page, or write the pages of all commands into a folder
    #[command(after_help = examples::MAN)]
    Man {
        /// The folder
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

impl Args {
    /// Reads the command line and the environment; prints help or what is wrong, and exits, if need be.
    pub(crate) fn read() -> Self {
        let matches = Cli::command().get_matches();
        Self::from_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    fn from_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let Cli { run, log, command } = Cli::from_arg_matches(matches)?;
        // Where an argument of the command comes from is known there.
        let own = matches.subcommand().map_or(matches, |(_, own)| own);
        let action = match command {
            None => Action::Run(Box::new(RunArgs::from_flags(run, own)?)),
            Some(Command::Run(flags)) => Action::Run(Box::new(RunArgs::from_flags(*flags, own)?)),
            Some(Command::Send(flags)) => {
                Action::Send(Box::new(SendArgs::from_flags(*flags, own)?))
            }
            Some(Command::Listen(flags)) => {
                Action::Listen(Box::new(ListenArgs::from_flags(*flags, own)?))
            }
            Some(Command::Connect(flags)) => {
                Action::Connect(Box::new(ConnectArgs::from_flags(*flags, own)?))
            }
            Some(Command::Ping(flags)) => {
                Action::Ping(Box::new(PingArgs::from_flags(*flags, own)?))
            }
            Some(Command::Netcheck(flags)) => {
                Action::Netcheck(Box::new(NetcheckArgs::from_flags(*flags, own)?))
            }
            Some(Command::Id { identity }) => Action::Id { identity: identity.identity },
            Some(Command::Demo(args)) => Action::Demo(args),
            Some(Command::Testnet(args)) => Action::Testnet(args),
            Some(Command::Schema { proto }) => Action::Schema { proto },
            Some(Command::Completions { shell }) => Action::Completions(shell),
            Some(Command::Man { directory }) => Action::Man { directory },
            Some(Command::Ticket { addrs, identity }) => {
                Action::Ticket { identity: identity.identity, addrs }
            }
        };
        // Global flags may stand before or after the subcommand; clap knows where this one came from.
        let log_is_typed = source(matches, "log") == Some(ValueSource::CommandLine);
        let is_spent = matches!(action, Action::Connect(_));
        Ok(Self { action, log: log.read(log_is_typed, u8::from(is_spent)) })
    }
}

/// The whole command line, for what is generated from it.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

fn source(matches: &ArgMatches, name: &str) -> Option<ValueSource> {
    matches.try_contains_id(name).ok()?.then(|| matches.value_source(name)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::defaults::{PUBLIC_DHT_BOOTSTRAP, PUBLIC_STUN_SERVERS};

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_names_the_public_servers_that_are_asked() {
        let help = Cli::command().render_long_help().to_string();
        let help: String = help.split_whitespace().collect::<Vec<_>>().join(" ");
        for server in PUBLIC_STUN_SERVERS.iter().chain(&PUBLIC_DHT_BOOTSTRAP) {
            assert!(help.contains(server), "{server}");
        }
    }

    #[test]
    fn every_flag_has_a_twin_in_the_environment() {
        let whole = Cli::command();
        for command in std::iter::once(&whole).chain(whole.get_subcommands()) {
            for arg in command.get_arguments() {
                let Some(name) = arg.get_long() else { continue };
                // A testnet's address would be every node's, too.
                let is_excepted = command.get_name() == "testnet" && name == "bind";
                if matches!(name, "help" | "version" | "verbose") || is_excepted {
                    continue;
                }
                let twin = format!("P2P_NODE_{}", name.to_uppercase().replace('-', "_"));
                assert_eq!(arg.get_env(), Some(std::ffi::OsStr::new(&twin)), "{name}");
            }
        }
    }
}
