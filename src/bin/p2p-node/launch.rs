//! From arguments to a node that runs.

use std::{fs, io, path::Path};

use p2p_node::{
    bridge::{Started, recipient::Recipient, values::Admission},
    entropy::Entropy,
    failure::{Code, Failure},
    identity::Identity,
    node::{Config, Role, Target},
    service::{Service, ServiceName},
    ticket::Ticket,
};
use tracing::{debug, warn};
use zeroize::Zeroizing;

use crate::{
    args::{IdentityChoice, NodeArgs},
    handoff::{self, HandOff},
    identity_file,
    lock::Lock,
    outbox_file, private, start,
};

/// Bytes of a secret file that are read; a secret needs 32.
const SECRET_BYTES_MAX: usize = 64 * 1024;

/// What is kept for as long as the node runs.
#[derive(Debug, Default)]
pub(crate) struct Held {
    identity: Option<Lock>,
    hand_off: Option<HandOff>,
}

/// Whom a client wants to be connected to all the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The one that it is told to connect to, or else a server of its service.
    Named(Option<Recipient>),
    /// Nobody: it dials when it is told to.
    Nobody,
}

/// Finds servers on this machine for a client. A server does not look for others.
pub(crate) fn nearby(
    mode: Role,
    service: Option<ServiceName>,
) -> Box<dyn Fn() -> Option<Ticket> + Send + Sync> {
    let directory = handoff::directory();
    match mode {
        Role::Client => Box::new(move || handoff::find(&directory, service.as_ref())),
        Role::Server => Box::new(|| None),
    }
}

/// Starts a node with its identity, and leaves a server's ticket for clients on this machine.
///
/// # Errors
/// When a file that the arguments name is no good, or no socket can be opened.
pub(crate) async fn start(
    args: NodeArgs,
    mode: Role,
    standing: Standing,
    held: &mut Held,
) -> Result<Started, Failure> {
    let outbox = args.outbox.as_deref().map(outbox_file::open).transpose()?;
    let identity = identity(&args, mode, held)?;
    let mut config = Config::new(identity.clone(), mode);
    config.service =
        args.service.map(|name| service(name, args.secret_file.as_deref())).transpose()?;
    config.allow = args.allow;
    config.stun_servers = args.stun;
    config.connect_timeout = args.connect_timeout;
    config.helpers = args.helpers;
    config.helper_mode = args.helper_mode;
    // A server on this machine is handed over when it is needed; others take a search, so it begins now.
    let service_name = config.service.as_ref().map(|service| service.name.clone());
    config.standing = match standing {
        Standing::Named(Some(Recipient::Peer(peer))) => Some(Target::Peer(peer)),
        Standing::Named(Some(Recipient::Ticket(ticket))) => Some(Target::Ticket(ticket)),
        Standing::Named(_) if nearby(mode, service_name.clone())().is_none() => {
            service_name.map(Target::Service)
        }
        Standing::Named(_) | Standing::Nobody => None,
    };
    let admission = Admission::of(&config);
    let service = config.service.as_ref().map(|service| service.name.clone());
    let bind = args.network.bind.clone();
    let (node, events, inbox) = start::start(config, args.network, outbox)?;
    let addresses = node.status().await?.local_addresses;
    if mode == Role::Server {
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

fn identity(args: &NodeArgs, mode: Role, held: &mut Held) -> Result<Identity, Failure> {
    let mut entropy = Entropy::from_system();
    let path = match (&args.identity, mode) {
        (IdentityChoice::File(path), _) => path.clone(),
        (IdentityChoice::ByMode, Role::Server) => identity_file::default_path()?,
        (IdentityChoice::ByMode, Role::Client) => match &args.outbox {
            Some(directory) => outbox_file::identity(directory),
            None => return Ok(Identity::generate(&mut entropy)),
        },
        (IdentityChoice::Ephemeral, _) => return Ok(Identity::generate(&mut entropy)),
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
