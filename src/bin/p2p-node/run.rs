//! The main use of the program: a node that is driven over stdin and stdout.

use std::{fs, io, path::Path, process::ExitCode};

use p2p_node::{
    bridge::{self, Io, Options, Started, exit, output::Admission},
    entropy::Entropy,
    failure::{Code, Failure},
    identity::Identity,
    node::{Config, Role, Target, clock::Clock},
    service::{Service, ServiceName},
    ticket::Ticket,
};
use tokio::runtime;
use tracing::{debug, warn};
use zeroize::Zeroizing;

use crate::{
    args::{IdentityChoice, RunArgs},
    exit::complain,
    handoff::{self, HandOff},
    identity_file,
    lock::Lock,
    private, signals,
    start::start,
};

/// Bytes of a secret file that are read; a secret needs 32.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// What is kept for as long as the node runs.
#[derive(Debug, Default)]
struct Held {
    identity: Option<Lock>,
    hand_off: Option<HandOff>,
}

/// Runs a node until its user wants no more.
pub(crate) fn run(args: RunArgs) -> ExitCode {
    block_on(async { ExitCode::from(session(args).await) })
}

/// Runs `program` on threads of its own.
pub(crate) fn block_on(program: impl Future<Output = ExitCode>) -> ExitCode {
    let runtime = match runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&Failure::new(Code::Internal, "no threads").because(error.to_string()));
            return ExitCode::from(exit::INTERNAL);
        }
    };
    let code = runtime.block_on(program);
    // Whatever a task still waits for, the process ends now.
    runtime.shutdown_background();
    code
}

async fn session(args: RunArgs) -> u8 {
    let io = Io { input: io::stdin(), output: io::stdout(), signals: signals::listen() };
    let options = Options {
        role: args.mode,
        pid: std::process::id(),
        service: args.service.clone(),
        connect: args.connect.clone(),
        nearby: nearby(args.mode, args.service.clone()),
        entropy: Entropy::from_system(),
        clock: Clock::system(),
    };
    let mut held = Held::default();
    bridge::run(io, options, start_node(args, &mut held)).await
}

/// Finds servers on this machine for a client. A server does not look for others.
fn nearby(
    mode: Role,
    service: Option<ServiceName>,
) -> Box<dyn Fn() -> Option<Ticket> + Send + Sync> {
    let directory = handoff::directory();
    match mode {
        Role::Client => Box::new(move || handoff::find(&directory, service.as_ref())),
        Role::Server => Box::new(|| None),
    }
}

async fn start_node(args: RunArgs, held: &mut Held) -> Result<Started, Failure> {
    let identity = identity(&args, held)?;
    let mut config = Config::new(identity.clone(), args.mode);
    config.service =
        args.service.map(|name| service(name, args.secret_file.as_deref())).transpose()?;
    config.allow = args.allow;
    config.stun_servers = args.stun;
    config.connect_timeout = args.connect_timeout;
    // A server on this machine is handed over when it is needed; others take a search, so it begins now.
    let service_name = config.service.as_ref().map(|service| service.name.clone());
    if nearby(args.mode, service_name.clone())().is_none() {
        config.standing = service_name.map(Target::Service);
    }
    let admission = Admission::of(&config);
    let service = config.service.as_ref().map(|service| service.name.clone());
    let bind = args.network.bind.clone();
    let (node, events, inbox) = start(config, args.network)?;
    let addresses = node.status().await?.local_addresses;
    if args.mode == Role::Server {
        if let Some(warning) = admission.warning() {
            warn!("{warning}");
        }
        let ticket = Ticket::of(&identity, handoff::addresses(&bind, &addresses));
        held.hand_off = HandOff::publish(&handoff::directory(), service.as_ref(), &ticket)
            .inspect_err(|error| debug!(%error, "clients on this machine have to search"))
            .unwrap_or_default();
    }
    Ok(Started { node, events, inbox, addresses, admission })
}

fn identity(args: &RunArgs, held: &mut Held) -> Result<Identity, Failure> {
    let mut entropy = Entropy::from_system();
    let path = match (&args.identity, args.mode) {
        (IdentityChoice::File(path), _) => path.clone(),
        (IdentityChoice::ByMode, Role::Server) => identity_file::default_path()?,
        (IdentityChoice::Ephemeral, _) | (IdentityChoice::ByMode, Role::Client) => {
            return Ok(Identity::generate(&mut entropy));
        }
    };
    let identity = identity_file::load_or_create(&path, &mut entropy)?;
    held.identity = Some(identity_file::lock(&path)?);
    Ok(identity)
}

fn service(name: ServiceName, secret_file: Option<&Path>) -> Result<Service, Failure> {
    let Some(file) = secret_file else {
        return Ok(Service::open(name));
    };
    let shown = file.display();
    let unreadable = |error: io::Error| {
        Failure::new(Code::ConfigInvalid, format!("{shown} cannot be read"))
            .because(error.to_string())
            .hint("--service-secret-file names the file with the service's secret")
    };
    let metadata = fs::metadata(file).map_err(unreadable)?;
    if private::is_open_to_others(&metadata) {
        warn!("others than you can read {shown}; chmod 600 '{shown}'");
    }
    let secret = Zeroizing::new(fs::read(file).map_err(unreadable)?);
    let trimmed = secret.strip_suffix(b"\n").unwrap_or(&secret);
    let trimmed = trimmed.strip_suffix(b"\r").unwrap_or(trimmed);
    if trimmed.is_empty() || trimmed.len() > SECRET_BYTES_MAX {
        return Err(Failure::new(Code::ConfigInvalid, format!("{shown} holds no secret"))
            .because(format!("a secret has 1 to {SECRET_BYTES_MAX} bytes"))
            .hint(format!("head -c 32 /dev/urandom | base64 > '{shown}'")));
    }
    Ok(Service::private(name, trimmed))
}
