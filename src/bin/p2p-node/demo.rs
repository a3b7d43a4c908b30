//! `p2p-node demo`: the main job in one terminal, without internet or root.
//!
//! The DHT is real (`mainline` nodes on loopback), and so is everything in the two nodes; only the network
//! between them is simulated, in real time. Each node sits behind a NAT of its own.

mod story;

use std::{io, io::Write, process::ExitCode, sync::Arc, time::Duration};

use clap::ValueEnum;
use p2p_node::{
    bridge::exit::exit_code,
    dht::{
        mainline::{Config as DhtConfig, Mainline, Participation},
        testnet::Testnet,
    },
    entropy::Entropy,
    failure::{Code, Failure},
    identity::Identity,
    lab::{Host, Internet, Nat, Ports, Seed},
    node::{
        Clock, Config, Environment, Event, Inbox, Node, Role, Target,
        environment::{EXTRA_SOCKETS_MAX, ExtraSockets, OpenSocket},
        stun_service,
    },
    proto::Message,
    service::Service,
    transport::{quic::tls::Crypto, sockets::socket::Socket},
};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use self::story::Story;
use crate::{exit, timeline::Step};

/// How the demo's internet is made.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct DemoArgs {
    /// What the client sits behind
    #[arg(long, value_enum, default_value_t = NatKind::PortRestricted, env = "P2P_NODE_NAT")]
    nat: NatKind,
    /// What the server sits behind
    #[arg(long, value_enum, default_value_t = NatKind::PortRestricted, env = "P2P_NODE_PEER_NAT")]
    peer_nat: NatKind,
    /// Round-trip time between the two, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 80, value_parser = clap::value_parser!(u64).range(10..=2_000), env = "P2P_NODE_RTT")]
    rtt: u64,
}

/// NATs to choose from, most helpful first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum NatKind {
    /// No NAT: a public address
    None,
    /// One public port for all; lets everybody in
    FullCone,
    /// One public port for all; lets in addresses that were sent to
    AddressRestricted,
    /// One public port for all; lets in addresses and ports that were sent to, as most homes do
    PortRestricted,
    /// Such a home behind a carrier's NAT
    Cgnat,
    /// Another random public port for every destination
    Symmetric,
}

/// One of the two nodes.
struct Side {
    node: Node,
    events: mpsc::Receiver<Event>,
    inbox: Inbox,
}

/// Runs the demo and prints as it goes; the exit code is that of the connection.
pub(crate) async fn demo(args: DemoArgs) -> ExitCode {
    match play(args, &mut io::stdout().lock()).await {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(failure)) => ExitCode::from(exit_code(failure.code)),
        Err(error) => {
            let failure = Failure::new(Code::Internal, "the demo cannot run")
                .because(error.to_string())
                .hint("it needs UDP on loopback, and a stdout to write to");
            exit::complain(&failure);
            ExitCode::from(exit_code(Code::Internal))
        }
    }
}

async fn play(args: DemoArgs, out: &mut impl Write) -> io::Result<Result<(), Failure>> {
    write!(out, "{}", args.picture())?;
    let testnet = Testnet::start(&[], DHT_NODES).await?;
    let internet = Internet::new(Seed(1));
    let stun = start_stun(&internet);
    let [server_host, client_host] = args.lay_out(&internet);
    let network = Network { bootstrap: testnet.bootstrap(), stun };
    let mut server = network.start(Role::Server, &server_host)?;
    if let Err(failure) = wait_online(&mut server, out).await? {
        exit::complain(&failure);
        return Ok(Err(failure));
    }
    let mut client = network.start(Role::Client, &client_host)?;
    writeln!(out, "\nclient$ send service {{\"type\":\"greeting\",\"payload\":\"{HELLO}\"}}\n")?;
    let talk = talk(&mut server, &mut client, out).await?;
    client.node.shutdown().await;
    server.node.shutdown().await;
    if let Err(failure) = &talk {
        out.flush()?;
        writeln!(out)?;
        exit::complain(failure);
    }
    Ok(talk)
}

/// The client greets the server by its service's name, and the server greets back.
async fn talk(
    server: &mut Side,
    client: &mut Side,
    out: &mut impl Write,
) -> io::Result<Result<(), Failure>> {
    let mut story = Story::begin(Instant::now());
    let greeting = client.node.clone();
    let mut sending = tokio::spawn(async move {
        greeting.send(Target::Service(service().name), message(HELLO), Some(PATIENCE)).await
    });
    let mut receipt = None;
    let (mut greeted, mut answered) = (false, false);
    while !(greeted && answered && receipt.is_some()) {
        tokio::select! {
            biased;
            Some(event) = server.events.recv() => {
                story.print("server", &event, out)?;
            }
            Some(received) = server.inbox.next() => {
                story.print_message("server", &received.message, out)?;
                greeted = true;
                let (answering, peer) = (server.node.clone(), received.peer);
                // Its arrival at the client shows how it fared.
                tokio::spawn(async move {
                    answering.send(Target::Peer(peer), message(HELLO_BACK), Some(PATIENCE)).await
                });
            }
            Some(event) = client.events.recv() => {
                story.print("client", &event, out)?;
            }
            Some(received) = client.inbox.next() => {
                story.print_message("client", &received.message, out)?;
                answered = true;
            }
            sent = &mut sending, if receipt.is_none() => match sent.map_err(io::Error::other)? {
                Ok(done) => {
                    let step = Step::new("delivered", &format!("acknowledged after {:.0?}", done.rtt));
                    story.print_step("client", &step, out)?;
                    receipt = Some(done);
                }
                Err(failure) => return Ok(Err(failure)),
            },
            else => break,
        }
    }
    story.summary(out)?;
    Ok(Ok(()))
}

async fn wait_online(server: &mut Side, out: &mut impl Write) -> io::Result<Result<(), Failure>> {
    let online = async {
        while let Some(event) = server.events.recv().await {
            if let Event::Online { stored_at, addresses, took } = event {
                return Some((stored_at, addresses, took));
            }
        }
        None
    };
    match timeout(PATIENCE, online).await {
        Ok(Some((stored_at, addresses, took))) => {
            let address = addresses.first().map(ToString::to_string).unwrap_or_default();
            writeln!(
                out,
                "server$ online after {} ms: its record is at {stored_at} DHT nodes and says {address}",
                took.as_millis()
            )?;
            Ok(Ok(()))
        }
        Ok(None) | Err(_) => Ok(Err(Failure::new(Code::Internal, "the server did not get online")
            .because("the embedded DHT did not take its record in time")
            .hint("run it again; on a very busy machine it may take longer"))),
    }
}

/// What both nodes are told of the network.
struct Network {
    bootstrap: Vec<String>,
    stun: Vec<String>,
}

impl Network {
    fn start(&self, role: Role, host: &Host) -> io::Result<Side> {
        let mut entropy = Entropy::from_system();
        let mut config = Config::new(Identity::generate(&mut entropy), role);
        config.service = Some(service());
        config.stun_servers.clone_from(&self.stun);
        let dht = DhtConfig {
            bootstrap: self.bootstrap.clone(),
            bind: std::net::Ipv4Addr::LOCALHOST,
            participation: Participation::Client,
        };
        let interfaces = host.clone();
        let inside = host.clone();
        let open: OpenSocket = Arc::new(move |_| Ok(Socket::plain(inside.bind(0))));
        let environment = Environment {
            sockets: vec![Socket::plain(host.bind(0))],
            extra_sockets: ExtraSockets { open, count_max: EXTRA_SOCKETS_MAX },
            interfaces: Arc::new(move || interfaces.addresses()),
            changes: None,
            lan: None,
            rendezvous: Some(Arc::new(Mainline::start(dht, entropy.fork())?)),
            clock: Clock::system(),
            entropy,
            crypto: Crypto::system(),
            outbox: None,
        };
        let (node, events, inbox) = Node::start(config, environment).map_err(io::Error::other)?;
        Ok(Side { node, events, inbox })
    }
}

fn start_stun(internet: &Internet) -> Vec<String> {
    let servers = ["198.51.100.1", "198.51.100.2"];
    let start = |address| {
        tokio::spawn(stun_service::serve(internet.host(address).bind(3478), Clock::system()));
        format!("{address}:3478")
    };
    servers.map(start).to_vec()
}

impl DemoArgs {
    /// Two hosts that are `rtt` apart: the server's, then the client's.
    fn lay_out(self, internet: &Internet) -> [Host; 2] {
        // A quarter of the way is each side's access line, half of it lies between.
        let access = self.rtt / 8;
        internet.set_core_delay_ms((self.rtt / 2).saturating_sub(2 * access));
        [
            self.peer_nat.host(internet, ["203.0.113.7", "100.64.0.7"], access),
            self.nat.host(internet, ["203.0.113.9", "100.64.0.9"], access),
        ]
    }

    fn picture(self) -> String {
        format!(
            "
   server ── {:<20} ──┐
   192.168.1.2                         internet, {} ms round trip, a DHT and two STUN servers
   client ── {:<20} ──┘

",
            self.peer_nat.words(),
            self.rtt,
            self.nat.words(),
        )
    }
}

impl NatKind {
    /// A host behind such a NAT with the first of `public`, `access` milliseconds from the core.
    fn host(self, internet: &Internet, public: [&str; 2], access: u64) -> Host {
        let [public, carriers] = public;
        let home = |nat| internet.router(nat, public).delay_ms(access).host(INSIDE).delay_ms(0);
        match self {
            Self::None => internet.host(public).delay_ms(access),
            Self::FullCone => home(Nat::full_cone()),
            Self::AddressRestricted => home(Nat::address_restricted()),
            Self::PortRestricted => home(Nat::port_restricted()),
            Self::Symmetric => home(Nat::symmetric(Ports::Random)),
            Self::Cgnat => {
                let carrier = internet.router(Nat::cgnat(), public).delay_ms(access);
                carrier.router(Nat::home(), carriers).delay_ms(0).host(INSIDE).delay_ms(0)
            }
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::None => "no NAT",
            Self::FullCone => "full cone",
            Self::AddressRestricted => "address-restricted",
            Self::PortRestricted => "port-restricted",
            Self::Cgnat => "home and carrier",
            Self::Symmetric => "symmetric",
        }
    }
}

fn service() -> Service {
    Service::open("demo:v1".parse().expect("a name without spaces"))
}

fn message(text: &str) -> Message {
    Message { r#type: "greeting".into(), payload: text.to_owned().into(), ..Message::default() }
}

/// Where a host is inside its home; both homes use the same private network, as homes do.
const INSIDE: &str = "192.168.1.2";

/// Enough for every record to find nodes of its own; they are up within half a second.
const DHT_NODES: usize = 20;

/// The demo ends after this long, whatever happens.
const PATIENCE: Duration = Duration::from_secs(12);

const HELLO: &str = "hello from behind my NAT";
const HELLO_BACK: &str = "and hello from behind mine";
