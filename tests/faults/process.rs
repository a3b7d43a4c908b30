//! A node as a process of its own, and somebody who makes it send all the time.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::ledger::Record;

/// Long enough for a machine that does ten other things.
const PATIENCE: Duration = Duration::from_secs(30);

/// Time for a message; what the peer's death leaves open is told by then.
const TIMEOUT_MS: u64 = 4_000;

/// Messages without an answer at a time.
const IN_FLIGHT: usize = 32;

/// A running node. Killed when it is dropped.
pub(crate) struct Node {
    name: &'static str,
    child: Child,
    stdin: Arc<Mutex<Option<ChildStdin>>>,
    log: Arc<Log>,
    reader: Option<JoinHandle<()>>,
}

/// What a node has printed.
#[derive(Default)]
struct Log {
    told: Mutex<Told>,
    more: Condvar,
}

#[derive(Default)]
struct Told {
    events: Vec<Value>,
    ended: bool,
}

/// A thread that makes a node send.
pub(crate) struct Talk {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

/// The ticket of the identity in `file`, with its address.
pub(crate) fn ticket(file: &Path, port: u16) -> String {
    let address = format!("127.0.0.1:{port}");
    let output =
        command().args(["ticket", "--addrs", &address, "--identity"]).arg(file).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The program, that may not leave this machine.
fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_p2p-node"));
    command
        .env_clear()
        .env("P2P_NODE_DHT_BOOTSTRAP", "none")
        .env("P2P_NODE_STUN", "none")
        .env("P2P_NODE_NO_LAN", "1")
        .stdin(Stdio::null());
    command
}

impl Node {
    pub(crate) fn server(identity: &Path, port: u16, name: &'static str) -> Self {
        Self::start(name, identity, &["--mode", "server", "--bind", &format!("127.0.0.1:{port}")])
    }

    pub(crate) fn client(identity: &Path, ticket: &str, name: &'static str) -> Self {
        Self::start(name, identity, &["--connect", ticket, "--bind", "127.0.0.1:0"])
    }

    fn start(name: &'static str, identity: &Path, args: &[&str]) -> Self {
        let mut child = command()
            .args(args)
            .args(["--stun", "none", "--dht-bootstrap", "none", "--identity"])
            .arg(identity)
            .env("XDG_RUNTIME_DIR", identity.parent().unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        let stdin = Arc::new(Mutex::new(child.stdin.take()));
        let log = Arc::new(Log::default());
        let (stdout, writer) = (child.stdout.take().unwrap(), log.clone());
        let reader = thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // A killed node may leave half a line.
                if let Ok(event) = serde_json::from_str(&line) {
                    writer.told.lock().unwrap().events.push(event);
                    writer.more.notify_all();
                }
            }
            writer.told.lock().unwrap().ended = true;
            writer.more.notify_all();
        });
        let node = Self { name, child, stdin, log, reader: Some(reader) };
        node.log.until(|told| told.find("ready").is_some()).expect("the node starts");
        node
    }

    pub(crate) fn peer_id(&self) -> String {
        self.ready()["peer_id"].as_str().unwrap().to_owned()
    }

    pub(crate) fn port(&self) -> u16 {
        let address = self.ready()["addrs"][0].as_str().unwrap().to_owned();
        address.parse::<std::net::SocketAddr>().unwrap().port()
    }

    fn ready(&self) -> Value {
        self.log.told.lock().unwrap().find("ready").unwrap().clone()
    }

    pub(crate) fn await_connected(&self) {
        self.log.until(|told| told.find("connected").is_some()).expect("the node connects");
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
    }

    /// Ends the node in peace, if it is still there, and says what became of it all.
    pub(crate) fn end(mut self, sent: u64) -> Record {
        drop(self.stdin.lock().unwrap().take());
        self.log.until(|told| told.ended).expect("the node ends");
        let _ = self.child.wait();
        self.reader.take().unwrap().join().unwrap();
        let told = std::mem::take(&mut *self.log.told.lock().unwrap());
        Record::of(self.name, sent, &told.events)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Log {
    /// Waits until `wanted`; `None` when the node has ended, or nothing happens for too long.
    fn until(&self, wanted: impl Fn(&Told) -> bool) -> Option<()> {
        let end = Instant::now() + PATIENCE;
        let mut told = self.told.lock().unwrap();
        while !wanted(&told) {
            let left = end.checked_duration_since(Instant::now())?;
            if told.ended {
                return None;
            }
            told = self.more.wait_timeout(told, left).unwrap().0;
        }
        Some(())
    }
}

impl Told {
    fn find(&self, event: &str) -> Option<&Value> {
        self.events.iter().find(|told| told["event"] == event)
    }

    /// Messages that have been answered for.
    fn answers(&self) -> usize {
        self.events.iter().filter(|told| told["id"].is_u64()).count()
    }
}

impl Talk {
    /// Makes `node` send numbered messages to `peer` until told to stop, or until it dies.
    pub(crate) fn begin(node: &Node, peer: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, stdin, log) = (stop.clone(), node.stdin.clone(), node.log.clone());
        let (name, peer) = (node.name, peer.to_owned());
        let thread = thread::spawn(move || {
            let mut sent = 0;
            while !stopped.load(Ordering::Relaxed) {
                let in_flight = usize::try_from(sent).unwrap() - log.told.lock().unwrap().answers();
                if in_flight >= IN_FLIGHT {
                    thread::sleep(Duration::from_millis(1));
                    continue;
                }
                let message = json!({"id": format!("{name}-{sent}"), "type": "t", "payload": "x"});
                let command = json!({"cmd": "send", "id": sent, "peer": peer, "message": message, "timeout_ms": TIMEOUT_MS});
                let written =
                    stdin.lock().unwrap().as_mut().map(|stdin| writeln!(stdin, "{command}"));
                if !matches!(written, Some(Ok(()))) {
                    break;
                }
                sent += 1;
            }
            let all = usize::try_from(sent).unwrap();
            log.until(|told| told.answers() >= all || told.ended)
                .expect("every message is answered");
            sent
        });
        Self { stop, thread }
    }

    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// How many messages were sent.
    pub(crate) fn finish(self) -> u64 {
        self.stop();
        self.thread.join().expect("every message is answered")
    }
}
