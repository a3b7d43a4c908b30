//! A thousand sessions with one server: how long it takes to accept them all, and what each costs while
//! nothing happens.
//!
//! ```text
//! cargo bench --bench sessions
//! P2P_NODE_BENCH_SESSIONS=100 cargo bench --bench sessions
//! ```
//!
//! The server is the program itself, so that its memory and its time are its own; the clients are nodes
//! in this process. All is on loopback. Needs Linux: memory and time are read from `/proc`.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench is run by hand, and prints"
)]
#![allow(
    clippy::disallowed_methods,
    reason = "a bench reads the clock and opens sockets of its own"
)]

use std::{
    env, fs,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use p2p_node::{
    entropy::Entropy,
    identity::Identity,
    node::{Clock, Config, Environment, Node, Role, Target, environment::ExtraSockets},
    proto::Message,
    ticket::Ticket,
    transport::{quic::tls::Crypto, sockets::udp::UdpSocket},
};
use serde_json::Value;
use tokio::{runtime::Runtime, sync::Semaphore, task::JoinSet};

fn main() {
    let is_measured = env::args().any(|argument| argument == "--bench");
    if !is_measured || env::args().any(|argument| argument == "--list") {
        return;
    }
    let sessions = env::var("P2P_NODE_BENCH_SESSIONS").map_or(SESSIONS, |sessions| {
        sessions.parse().expect("P2P_NODE_BENCH_SESSIONS is a number")
    });
    let runtime = Runtime::new().unwrap();
    runtime.block_on(measure(sessions));
}

async fn measure(sessions: usize) {
    let (server, ticket) = Server::start();
    // A first client: what only one of them costs is not counted for all.
    let mut clients = vec![client(&ticket).await];
    tokio::time::sleep(SETTLE).await;
    let before = server.usage();
    let began = Instant::now();
    let room = Arc::new(Semaphore::new(DIALS_AT_ONCE));
    let mut dials = JoinSet::new();
    for _ in 0..sessions {
        let (ticket, permit) = (ticket.clone(), room.clone().acquire_owned().await.unwrap());
        dials.spawn(async move {
            let client = client(&ticket).await;
            drop(permit);
            client
        });
    }
    clients.extend(dials.join_all().await);
    let accepted = began.elapsed();
    let at_accept = server.usage();
    tokio::time::sleep(SETTLE).await;
    let idle_began = server.usage();
    tokio::time::sleep(IDLE).await;
    let idle = server.usage();
    let target = Target::Ticket(ticket.clone());
    let began = Instant::now();
    for node in &clients {
        node.send(target.clone(), Message::default(), None).await.unwrap();
    }
    let answered = began.elapsed();

    let count = u32::try_from(sessions).unwrap();
    let each = |bytes: u64| bytes / u64::from(count) / 1024;
    println!("# {sessions} sessions with one server\n");
    println!("| what | figure |\n|---|---|");
    println!(
        "| all accepted | after {:.2} s, {:.0} a second |",
        accepted.as_secs_f64(),
        f64::from(count) / accepted.as_secs_f64()
    );
    println!(
        "| the server's CPU time for each | {:.2} ms |",
        1e3 * (at_accept.cpu - before.cpu) / f64::from(count)
    );
    println!(
        "| resident memory of the server | {:.1} MB, before them {:.1} MB |",
        megabytes(idle.resident),
        megabytes(before.resident)
    );
    println!("| of that for each idle session | {} KiB |", each(idle.resident - before.resident));
    println!(
        "| its CPU while all are idle | {:.2} % of one core |",
        100.0 * (idle.cpu - idle_began.cpu) / IDLE.as_secs_f64()
    );
    println!(
        "| one message from each in turn, to its receipt | {:.2} ms |",
        1e3 * answered.as_secs_f64() / f64::from(count)
    );
}

/// A node that is connected to the server.
async fn client(ticket: &Ticket) -> Node {
    let mut entropy = Entropy::from_system();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let environment = Environment {
        sockets: vec![socket.into()],
        extra_sockets: ExtraSockets::system(),
        interfaces: Arc::new(|| vec![Ipv4Addr::LOCALHOST.into()]),
        changes: None,
        lan: None,
        rendezvous: None,
        clock: Clock::system(),
        entropy: entropy.fork(),
        crypto: Crypto::system(),
        outbox: None,
    };
    let config = Config::new(Identity::generate(&mut entropy), Role::Client);
    let (node, mut events, mut inbox) = Node::start(config, environment).unwrap();
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    tokio::spawn(async move { while inbox.next().await.is_some() {} });
    node.connect(Target::Ticket(ticket.clone()), None).await.unwrap();
    node
}

/// The program as a server; killed when it is dropped.
struct Server(Child);

/// What a process has used.
#[derive(Clone, Copy)]
struct Usage {
    /// Bytes.
    resident: u64,
    /// Seconds.
    cpu: f64,
}

impl Server {
    fn start() -> (Self, Ticket) {
        let mut child = Command::new(env!("CARGO_BIN_EXE_p2p-node"))
            .args(["--mode", "server", "--ephemeral", "--bind", "127.0.0.1:0"])
            .args(["--dht-bootstrap", "none", "--stun", "none", "--no-lan"])
            .env_clear()
            .env("XDG_RUNTIME_DIR", env!("CARGO_TARGET_TMPDIR"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut ready = || -> Option<Value> {
            let event: Value = serde_json::from_str(&lines.next()?.ok()?).ok()?;
            Some(event)
        };
        let ready = std::iter::from_fn(&mut ready).find(|event| event["event"] == "ready").unwrap();
        // Whatever else it tells is read, so that it does not stand still.
        thread::spawn(move || lines.for_each(drop));
        let mut ticket: Ticket = ready["ticket"].as_str().unwrap().parse().unwrap();
        let address: SocketAddr = ready["addrs"][0].as_str().unwrap().parse().unwrap();
        ticket.addresses = vec![address];
        (Self(child), ticket)
    }

    fn usage(&self) -> Usage {
        let read =
            |name: &str| fs::read_to_string(format!("/proc/{}/{name}", self.0.id())).unwrap();
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        let kilobytes: u64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
        let stat = read("stat");
        // After the program's name in parentheses: user and system time are fields 14 and 15 of all.
        let times = stat.rsplit_once(')').unwrap().1.split_whitespace().skip(11).take(2);
        let ticks: u32 = times.map(|ticks| ticks.parse::<u32>().unwrap()).sum();
        Usage { resident: 1024 * kilobytes, cpu: f64::from(ticks) / TICKS_PER_SECOND }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn megabytes(bytes: u64) -> f64 {
    f64::from(u32::try_from(bytes / 1_000).unwrap()) / 1e3
}

/// As many as a server takes, less the first.
const SESSIONS: usize = 1_000;

/// Clients that dial at the same time.
const DIALS_AT_ONCE: usize = 32;

/// Until allocations and timers of the handshakes are over.
const SETTLE: Duration = Duration::from_secs(3);

const IDLE: Duration = Duration::from_secs(10);

/// What Linux counts in, on every common machine.
const TICKS_PER_SECOND: f64 = 100.0;
