//! The command line and the environment: `--flag` wins over `P2P_NODE_FLAG`, and that over the default.

mod values;

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use clap::{
    ArgAction, ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum,
    error::ErrorKind, parser::ValueSource,
};
use p2p_node::{bridge::recipient::Recipient, identity::PeerId, node::Role, service::ServiceName};
use tracing_subscriber::EnvFilter;
use values::Server;

use crate::{
    defaults::{PUBLIC_DHT_BOOTSTRAP, PUBLIC_STUN_SERVERS},
    demo::DemoArgs,
    start::Network,
    testnet::TestnetArgs,
};

/// What the user wants.
#[derive(Debug)]
pub(crate) struct Args {
    pub(crate) action: Action,
    /// What to log.
    pub(crate) filter: EnvFilter,
}

/// What to do.
#[derive(Debug)]
pub(crate) enum Action {
    /// Run a node.
    Run(Box<RunArgs>),
    /// Print the peer id.
    Id { identity: Option<PathBuf> },
    /// Play the main job.
    Demo(DemoArgs),
    /// Run a network without internet.
    Testnet(TestnetArgs),
    /// Print the ticket.
    Ticket { identity: Option<PathBuf>, addrs: Vec<SocketAddr> },
}

/// How to run a node.
#[derive(Debug)]
pub(crate) struct RunArgs {
    pub(crate) mode: Role,
    pub(crate) service: Option<ServiceName>,
    pub(crate) secret_file: Option<PathBuf>,
    pub(crate) allow: BTreeSet<PeerId>,
    pub(crate) connect: Option<Recipient>,
    pub(crate) identity: IdentityChoice,
    pub(crate) stun: Vec<String>,
    pub(crate) network: Network,
    pub(crate) connect_timeout: Duration,
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

/// Direct messages between two programs behind NATs.
///
/// Reads commands from stdin and writes events to stdout, one JSON object a line. `help` on stdin lists
/// the commands.
#[derive(Debug, Parser)]
#[command(
    name = "p2p-node",
    version,
    max_term_width = 100,
    args_conflicts_with_subcommands = true,
    after_long_help = RUN_EXAMPLES,
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
    /// Print the peer id of this user's identity, which is made if there is none
    #[command(after_help = ID_EXAMPLES)]
    Id {
        #[command(flatten)]
        identity: IdentityFlag,
    },
    /// Show two nodes behind simulated NATs finding each other and talking, without internet
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Run a DHT and STUN servers for a network without internet, until stopped
    #[command(after_help = TESTNET_EXAMPLES)]
    Testnet(TestnetArgs),
    /// Print a ticket that leads to this user's node, without going online
    #[command(after_help = TICKET_EXAMPLES)]
    Ticket {
        /// Addresses to put into the ticket, so that its holders need not search
        #[arg(long, value_name = "ADDR", num_args = 1.., value_delimiter = ',')]
        addrs: Vec<SocketAddr>,
        #[command(flatten)]
        identity: IdentityFlag,
    },
}

#[derive(Debug, clap::Args)]
struct IdentityFlag {
    /// The file that keeps the identity [default: $XDG_DATA_HOME/p2p-node/identity.key]
    #[arg(long, value_name = "FILE", env = "P2P_NODE_IDENTITY")]
    identity: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct RunFlags {
    /// Whether to publish where this node is, or only to look for others
    #[arg(long, value_enum, default_value = "client", env = "P2P_NODE_MODE")]
    mode: Mode,
    /// The service to offer (server) or to use (client), for instance myapi:v1
    #[arg(long, value_name = "NAME", env = "P2P_NODE_SERVICE")]
    service: Option<ServiceName>,
    /// A file with a secret that all members of the service share; without one, anybody who knows the
    /// name can find and pose as the service
    #[arg(long, value_name = "FILE", requires = "service", env = "P2P_NODE_SERVICE_SECRET_FILE")]
    service_secret_file: Option<PathBuf>,
    /// Let these peers connect, and otherwise only who proves to know the service's secret or this
    /// node's ticket (repeat, or separate by commas)
    #[arg(long, value_name = "PEER", value_delimiter = ',', env = "P2P_NODE_ALLOW")]
    allow: Vec<PeerId>,
    /// Connect at the start, and mean this peer where a command names none: peer id, ticket or service
    #[arg(long, value_name = "TARGET", value_parser = values::target, env = "P2P_NODE_CONNECT", hide_env_values = true)]
    connect: Option<Recipient>,
    #[command(flatten)]
    identity: IdentityFlag,
    /// Use a new identity that is gone with the process; clients do so unless --identity is given
    #[arg(long, env = "P2P_NODE_EPHEMERAL")]
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
    /// How long a dial may take: 20, 20s, 1500ms or 1m
    #[arg(
        long,
        value_name = "TIME",
        default_value = "20s",
        value_parser = values::duration,
        env = "P2P_NODE_CONNECT_TIMEOUT"
    )]
    connect_timeout: Duration,
}

#[derive(Debug, clap::Args)]
struct LogFlags {
    /// What to log on stderr: error, warn, info, debug, trace, or a filter like p2p_node=debug
    /// [default: RUST_LOG, else warn]
    #[arg(long, value_name = "LEVEL", global = true, value_parser = values::filter, env = "P2P_NODE_LOG")]
    log: Option<String>,
    /// Log more: -v for info, -vv for debug, -vvv for trace
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Mode {
    /// Publish where this node is
    Server,
    /// Only look for others
    Client,
}

impl Args {
    /// Reads the command line and the environment; prints help or what is wrong, and exits, if need be.
    pub(crate) fn read() -> Self {
        let matches = Cli::command().get_matches();
        Self::from_matches(&matches).unwrap_or_else(|error| error.exit())
    }

    fn from_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let Cli { run, log, command } = Cli::from_arg_matches(matches)?;
        let action = match command {
            Some(Command::Id { identity }) => Action::Id { identity: identity.identity },
            Some(Command::Demo(args)) => Action::Demo(args),
            Some(Command::Testnet(args)) => Action::Testnet(args),
            Some(Command::Ticket { addrs, identity }) => {
                Action::Ticket { identity: identity.identity, addrs }
            }
            None => Action::Run(Box::new(RunArgs::from_flags(run, matches)?)),
        };
        // Global flags may stand before or after the subcommand; clap knows where this one came from.
        let log_is_typed = source(matches, "log") == Some(ValueSource::CommandLine);
        Ok(Self { action, filter: log.filter(log_is_typed, std::env::var("RUST_LOG").ok()) })
    }
}

impl RunArgs {
    fn from_flags(flags: RunFlags, matches: &ArgMatches) -> Result<Self, clap::Error> {
        let identity = identity_choice(&flags, matches)?;
        Ok(Self {
            mode: match flags.mode {
                Mode::Server => Role::Server,
                Mode::Client => Role::Client,
            },
            service: flags.service,
            secret_file: flags.service_secret_file,
            allow: flags.allow.into_iter().collect(),
            connect: flags.connect,
            identity,
            stun: servers(flags.stun, &PUBLIC_STUN_SERVERS)?,
            network: Network {
                dht_bootstrap: servers(flags.dht_bootstrap, &PUBLIC_DHT_BOOTSTRAP)?,
                bind: flags.bind,
            },
            connect_timeout: flags.connect_timeout,
        })
    }
}

impl LogFlags {
    fn filter(&self, log_is_typed: bool, rust_log: Option<String>) -> EnvFilter {
        let verbose = match self.verbose {
            0 => None,
            1 => Some("info"),
            2 => Some("debug"),
            _ => Some("trace"),
        };
        let (typed, inherited) = match log_is_typed {
            true => (self.log.as_deref(), None),
            false => (None, self.log.as_deref()),
        };
        let chosen = typed.or(verbose).or(inherited).or(rust_log.as_deref());
        EnvFilter::builder().parse_lossy(chosen.unwrap_or(DEFAULT_FILTER))
    }
}

/// What was typed wins over what is in the environment; both typed, or both inherited, contradict.
fn identity_choice(flags: &RunFlags, matches: &ArgMatches) -> Result<IdentityChoice, clap::Error> {
    let file = flags.identity.identity.clone().map(IdentityChoice::File);
    match (file, flags.ephemeral) {
        (None, false) => Ok(IdentityChoice::ByMode),
        (None, true) => Ok(IdentityChoice::Ephemeral),
        (Some(file), false) => Ok(file),
        (Some(file), true) => match (source(matches, "identity"), source(matches, "ephemeral")) {
            (Some(ValueSource::CommandLine), Some(ValueSource::EnvVariable)) => Ok(file),
            (Some(ValueSource::EnvVariable), Some(ValueSource::CommandLine)) => {
                Ok(IdentityChoice::Ephemeral)
            }
            _ => Err(Cli::command().error(
                ErrorKind::ArgumentConflict,
                "--identity keeps an identity, --ephemeral throws it away: use one of them",
            )),
        },
    }
}

fn source(matches: &ArgMatches, name: &str) -> Option<ValueSource> {
    matches.try_contains_id(name).ok()?.then(|| matches.value_source(name)).flatten()
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
        Server::None => Err(Cli::command()
            .error(ErrorKind::ArgumentConflict, "none means no server at all and stands alone")),
    });
    servers.collect()
}

const RUN_EXAMPLES: &str = "\
Examples:
  p2p-node --mode server --service myapi:v1
  p2p-node --mode client --service myapi:v1
  echo 'say service hello' | p2p-node --service myapi:v1
  p2p-node --connect p2p1…
  p2p-node --mode server --service myapi:v1 --service-secret-file secret --bind 0.0.0.0:41641

Commands on stdin:
  send <peer> {\"type\": \"request\", \"payload\": \"hello\"}
  say <peer> hello
  list, status, ticket, connect <peer>, disconnect <peer>, help, quit

Every flag can be set in the environment as P2P_NODE_FLAG, for instance P2P_NODE_SERVICE.

Exit codes: 0 done, 1 bug, 2 usage, 3 configuration or identity, 4 no network, 5 peer not found or not
reached, 6 refused or not who it should be, 7 timeout, 130 interrupted twice.";

const ID_EXAMPLES: &str = "\
Examples:
  p2p-node id
  p2p-node id --identity ./bob.key";

const TICKET_EXAMPLES: &str = "\
Examples:
  p2p-node ticket
  p2p-node ticket --addrs 192.168.1.20:41641 [2001:db8::9]:41641
  p2p-node --connect \"$(ssh host p2p-node ticket)\"";

/// What a person should look at. What the DHT's and STUN's libraries say of strangers' bytes is not.
const DEFAULT_FILTER: &str = "warn,mainline=off,stun_types=error";

const DEMO_EXAMPLES: &str = "\
Examples:
  p2p-node demo
  p2p-node demo --nat symmetric --peer-nat full-cone --rtt 200
  p2p-node demo --nat symmetric --peer-nat symmetric     (cannot be opened, and says why)";

const TESTNET_EXAMPLES: &str = "\
Examples:
  p2p-node testnet
  p2p-node testnet --bind 192.168.1.20 --nodes 40";

#[cfg(test)]
mod tests {
    use super::*;

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
        for arg in Cli::command().get_arguments() {
            let Some(name) = arg.get_long() else { continue };
            if matches!(name, "help" | "version" | "verbose") {
                continue;
            }
            let twin = format!("P2P_NODE_{}", name.to_uppercase().replace('-', "_"));
            assert_eq!(arg.get_env(), Some(std::ffi::OsStr::new(&twin)));
        }
    }

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

    #[test]
    fn a_typed_level_wins_over_verbosity_and_that_over_the_environment() {
        let filter = |log: Option<&str>, verbose, typed, rust_log: Option<&str>| {
            let flags = LogFlags { log: log.map(str::to_owned), verbose };
            flags.filter(typed, rust_log.map(str::to_owned)).to_string()
        };
        assert_eq!(filter(Some("error"), 1, true, Some("trace")), "error");
        assert_eq!(filter(Some("error"), 1, false, Some("trace")), "info");
        assert_eq!(filter(Some("error"), 0, false, Some("trace")), "error");
        assert_eq!(filter(None, 0, false, Some("trace")), "trace");
        assert_eq!(filter(None, 0, false, None), "stun_types=error,mainline=off,warn");
    }
}
