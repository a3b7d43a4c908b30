//! What a user is promised, with the release binary behind real NATs.
//!
//! `testnet` runs the DHT and STUN on a public host, a server and a client run wherever the story puts
//! them, and nobody tells either where the other one is.

use std::{env, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use super::{
    lab::{Distance, Host, KernelLab, Router, Skip, or_skip},
    nat::Nat,
    process::Process,
};

pub(super) const SERVICE: &str = "myapi:v1";

/// From the start of a program to a word from it.
pub(super) const START: Duration = Duration::from_secs(10);

/// The node's own limit for a dial is 20 s; every answer must be there by then, good or bad.
const DIAL: Duration = Duration::from_secs(25);

/// From a sent message to the acknowledgement, once there is a link.
pub(super) const DELIVERY: Duration = Duration::from_secs(10);

#[test]
fn two_usual_homes() {
    let Some(world) = World::new() else { return };
    let (server, client) = (world.home(Nat::Masquerade), world.home(Nat::Masquerade));
    world.they_talk(&server.host(), &client.host());
}

#[test]
fn a_usual_home_is_reached_from_a_full_cone() {
    let Some(world) = World::new() else { return };
    let (server, client) = (world.home(Nat::Masquerade), world.home(Nat::FullCone));
    world.they_talk(&server.host(), &client.host());
}

#[test]
fn a_full_cone_is_reached_from_a_usual_home() {
    let Some(world) = World::new() else { return };
    let (server, client) = (world.home(Nat::FullCone), world.home(Nat::Masquerade));
    world.they_talk(&server.host(), &client.host());
}

#[test]
fn a_symmetric_home_is_reached_from_a_full_cone() {
    let Some(world) = World::new() else { return };
    let (server, client) = (world.home(Nat::FullyRandom), world.home(Nat::FullCone));
    world.they_talk(&server.host(), &client.host());
}

#[test]
fn a_symmetric_home_is_reached_from_one_that_filters_by_address_only() {
    let Some(world) = World::new() else { return };
    let (server, client) = (world.home(Nat::FullyRandom), world.home(Nat::AddressRestricted));
    world.they_talk(&server.host(), &client.host());
}

#[test]
fn a_symmetric_home_is_reached_from_a_usual_one() {
    let Some(world) = World::new() else { return };
    let (server, client) = (world.home(Nat::FullyRandom), world.home(Nat::Masquerade));
    world.they_talk(&server.host(), &client.host());
}

#[test]
fn a_usual_home_is_reached_from_a_symmetric_one() {
    let Some(world) = World::new() else { return };
    let (server, client) = (world.home(Nat::Masquerade), world.home(Nat::FullyRandom));
    world.they_talk(&server.host(), &client.host());
}

#[test]
fn a_public_server_is_reached_from_a_home() {
    let Some(world) = World::new() else { return };
    let server = world.lab.public_host(&["198.51.100.20"]);
    world.they_talk(&server, &world.home(Nat::Masquerade).host());
}

#[test]
fn a_home_is_reached_from_a_public_client() {
    let Some(world) = World::new() else { return };
    let client = world.lab.public_host(&["198.51.100.20"]);
    world.they_talk(&world.home(Nat::Masquerade).host(), &client);
}

#[test]
fn a_home_behind_a_carrier_is_reached_from_a_usual_home() {
    let Some(world) = World::new() else { return };
    let carrier = world.lab.carrier(Nat::Masquerade);
    let (server, client) = (carrier.home(Nat::Masquerade), world.home(Nat::Masquerade));
    world.they_talk(&server.host(), &client.host());
}

#[test]
fn two_hosts_of_one_home_find_the_short_way() {
    let Some(world) = World::new() else { return };
    let home = world.home(Nat::Masquerade);
    let connected = world.they_talk(&home.host(), &home.host());
    assert_eq!(connected["path"]["kind"], "lan", "{connected}");
}

#[test]
fn distance_costs_time_but_nothing_else() {
    let round_trip = Duration::from_millis(80);
    let distance = Distance { round_trip, percent_lost: 0 };
    let Some(world) = World::within(KernelLab::with(distance)) else {
        return;
    };
    let (server, client) = (world.home(Nat::Masquerade), world.home(Nat::Masquerade));
    let connected = world.they_talk(&server.host(), &client.host());
    let rtt_ms = connected["rtt_ms"].as_f64().expect("it is measured");
    assert!((80.0..200.0).contains(&rtt_ms), "{connected}");
}

#[test]
fn two_symmetric_homes_are_told_so() {
    let Some(world) = World::new() else { return };
    let (server, client) = (world.home(Nat::FullyRandom), world.home(Nat::FullyRandom));
    let (server, client) = (server.host(), client.host());
    let _server = world.server(&server);
    let client = world.client(&client);
    let error = connect(&client).expect_err("two random symmetric NATs leave no way");
    let code = &error["code"];
    assert_eq!(code, "nat_incompatible", "{error}");
    assert_explains_itself(&error);
}

#[test]
fn a_service_that_nobody_serves_is_not_found() {
    let Some(world) = World::new() else { return };
    let (server, client) = (world.home(Nat::Masquerade), world.home(Nat::Masquerade));
    let (server, client) = (server.host(), client.host());
    let _server = world.server(&server);
    let client = world.start(&client, "client", "nobodys:v1");
    client.process.tell(&json!({"cmd": "connect", "id": 1, "peer": "service"}));
    let error = answer(&client, 1, Duration::from_secs(10)).expect_err("nobody serves it");
    assert_eq!(error["code"], "peer_not_found", "{error}");
    assert_explains_itself(&error);
}

#[test]
fn a_dht_that_does_not_answer_is_named_as_the_reason() {
    let Some(mut world) = World::new() else {
        return;
    };
    // The core loses without a word what nobody has.
    world.bootstrap = vec!["198.51.100.99:6881".into()];
    let client = world.home(Nat::Masquerade).host();
    let client = world.client(&client);
    let error = connect(&client).expect_err("nobody can be found without a DHT");
    assert_eq!(error["code"], "dht_unreachable", "{error}");
    assert_explains_itself(&error);
}

#[test]
fn five_mebibytes_arrive_intact() {
    let Some(world) = World::new() else { return };
    let (server, client) = (world.home(Nat::Masquerade).host(), world.home(Nat::Masquerade).host());
    let (server, client) = (world.server(&server), world.client(&client));
    connect(&client).expect("two usual homes find each other");

    let payload = letters(5 * 1024 * 1024);
    client.process.tell(&json!({
        "cmd": "send", "id": 2, "peer": "service",
        "message": {"type": "large", "payload": payload},
    }));
    let message = server.process.wait_for("message", Duration::from_secs(60));
    let arrived = message["message"]["payload"].as_str().expect("text stays text");
    assert_eq!(arrived.len(), payload.len());
    assert!(arrived == payload, "the payload was changed on its way");
    let delivered = answer(&client, 2, DELIVERY).expect("it was delivered");
    assert_eq!(delivered["state"], "delivered", "{delivered}");
}

#[test]
fn a_hundred_messages_arrive_once_and_in_order() {
    let Some(world) = World::new() else { return };
    world.they_count_to_a_hundred();
}

#[test]
fn a_hundred_messages_arrive_once_and_in_order_though_packets_are_lost() {
    let distance = Distance { round_trip: Duration::from_millis(40), percent_lost: 10 };
    let Some(world) = World::within(KernelLab::with(distance)) else {
        return;
    };
    world.they_count_to_a_hundred();
}

#[test]
fn a_killed_server_is_noticed() {
    let Some(world) = World::new() else { return };
    let (server, client) = (world.home(Nat::Masquerade).host(), world.home(Nat::Masquerade).host());
    let (mut server, client) = (world.server(&server), world.client(&client));
    connect(&client).expect("two usual homes find each other");
    let connected = client.process.wait_for("connected", START);

    server.process.kill();
    let disconnected = client.process.wait_for("disconnected", Duration::from_secs(60));
    assert_eq!(disconnected["peer"], connected["peer"], "{disconnected}");
}

/// A running node.
pub(super) struct Node {
    pub(super) process: Process,
    /// As its `ready` says.
    pub(super) peer_id: Value,
}

/// A lab with a DHT and STUN in the public part of it.
pub(super) struct World {
    pub(super) lab: KernelLab,
    bootstrap: Vec<String>,
    stun: Vec<String>,
    _testnet: Process,
    _testnets_host: Host,
}

impl World {
    pub(super) fn new() -> Option<Self> {
        Self::within(KernelLab::new())
    }

    pub(super) fn within(lab: Result<KernelLab, Skip>) -> Option<Self> {
        let lab = or_skip(lab)?;
        let addresses = ["198.51.100.10", "198.51.100.11"];
        let host = lab.public_host(&addresses);
        let [first, second] = addresses;
        let arguments = ["testnet", "--bind", first, "--bind", second, "--nodes", "24"];
        let testnet = host.spawn(&p2p_node(), &arguments);
        let servers = testnet.wait_until("list of servers", START, |line| {
            line["bootstrap"].is_array() && line["stun"].is_array()
        });
        Some(Self {
            lab,
            bootstrap: texts(&servers["bootstrap"]),
            stun: texts(&servers["stun"]),
            _testnet: testnet,
            _testnets_host: host,
        })
    }

    pub(super) fn home(&self, nat: Nat) -> Router {
        self.lab.home(nat)
    }

    /// What a node is told of this world.
    pub(super) fn flags(&self) -> Vec<&str> {
        let bootstrap = self.bootstrap.iter().flat_map(|node| ["--dht-bootstrap", node]);
        let stun = self.stun.iter().flat_map(|server| ["--stun", server]);
        ["--ephemeral", "--no-lan"].into_iter().chain(bootstrap).chain(stun).collect()
    }

    /// A node that takes commands.
    fn start(&self, host: &Host, mode: &str, service: &str) -> Node {
        self.launch(host, &["--mode", mode, "--service", service])
    }

    /// A node that takes commands, with these flags beside those of this world.
    pub(super) fn launch(&self, host: &Host, flags: &[&str]) -> Node {
        let arguments = [flags, &self.flags()].concat();
        let process = host.spawn(&p2p_node(), &arguments);
        process.wait_for("hello", START);
        let peer_id = process.wait_for("ready", START)["peer_id"].clone();
        assert!(peer_id.is_string(), "`ready` names the peer");
        Node { process, peer_id }
    }

    /// A node that looks others up.
    pub(super) fn client(&self, host: &Host) -> Node {
        self.start(host, "client", SERVICE)
    }

    /// A node that can be found.
    pub(super) fn server(&self, host: &Host) -> Node {
        let server = self.start(host, "server", SERVICE);
        server.process.wait_for("online", Duration::from_secs(30));
        server
    }

    /// A server here and a client there find each other and exchange a message each way. Returns the
    /// client's `connected`.
    fn they_talk(&self, server: &Host, client: &Host) -> Value {
        let (server, client) = (self.server(server), self.client(client));
        if let Err(error) = connect(&client) {
            let logs = [&server, &client].map(|node| node.process.log());
            panic!("{error}\nserver:\n{}\nclient:\n{}", logs[0], logs[1]);
        }
        let connected = client.process.wait_for("connected", DELIVERY);
        assert_eq!(connected["peer"], server.peer_id, "{connected}");

        say(&client, 2, &json!("service"), "hello");
        assert_eq!(heard(&server), (client.peer_id.clone(), json!("hello")));
        say(&server, 3, &client.peer_id, "and back");
        assert_eq!(heard(&client), (server.peer_id, json!("and back")));
        connected
    }

    /// A client behind one usual home sends a hundred messages at once to a server behind another.
    fn they_count_to_a_hundred(&self) {
        let (server, client) = (self.home(Nat::Masquerade), self.home(Nat::Masquerade));
        let (server, client) = (self.server(&server.host()), self.client(&client.host()));
        for number in 0..100 {
            // No `connect` first: `send` dials by itself.
            client.process.tell(&json!({
                "cmd": "send", "id": number, "peer": "service",
                "message": {"type": "count", "payload": number.to_string()},
            }));
        }
        for number in 0..100_u64 {
            let message = server.process.wait_for("message", DIAL);
            assert_eq!(message["message"]["payload"], number.to_string());
            answer(&client, number, DELIVERY).expect("it was delivered");
        }
    }
}

pub(super) fn connect(client: &Node) -> Result<Value, Value> {
    client.process.tell(&json!({"cmd": "connect", "id": 1, "peer": "service"}));
    answer(client, 1, DIAL)
}

/// Sends a message and waits until the other side has it.
pub(super) fn say(node: &Node, id: u64, peer: &Value, payload: &str) {
    let message = json!({"type": "t", "payload": payload});
    node.process.tell(&json!({"cmd": "send", "id": id, "peer": peer, "message": message}));
    let delivered = answer(node, id, DELIVERY).expect("there is a link");
    assert_eq!(delivered["state"], "delivered", "{delivered}");
}

/// Who sent the next message, and its payload.
pub(super) fn heard(node: &Node) -> (Value, Value) {
    let event = node.process.wait_for("message", DELIVERY);
    (event["peer"].clone(), event["message"]["payload"].clone())
}

/// The answer to the command `id`: an event `ok` or, as an error, an event `error`.
pub(super) fn answer(node: &Node, id: u64, within: Duration) -> Result<Value, Value> {
    let answer = node.process.wait_until(&format!("answer to {id}"), within, |event| {
        event["id"] == id && (event["event"] == "ok" || event["event"] == "error")
    });
    if answer["event"] == "ok" { Ok(answer) } else { Err(answer) }
}

/// A failure says what failed, why, and what to do.
fn assert_explains_itself(error: &Value) {
    for field in ["message", "why", "hint"] {
        let text = error[field].as_str().unwrap_or_default();
        assert!(!text.is_empty(), "no `{field}` in {error}");
    }
}

/// So many letters in an order that no shift or repetition leaves the same.
fn letters(count: usize) -> String {
    let mut state = 1_u32;
    let letter = |_| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [number, ..] = state.to_be_bytes();
        char::from(b'a' + number % 26)
    };
    (0..count).map(letter).collect()
}

fn texts(list: &Value) -> Vec<String> {
    let texts = list.as_array().expect("a list of servers");
    let text = |text: &Value| text.as_str().expect("a server is host:port").to_owned();
    texts.iter().map(text).collect()
}

/// The program under test: `P2P_NODE_BIN`, or the release build beside this test's own.
pub(super) fn p2p_node() -> String {
    let built = || {
        let own = env::current_exe().expect("a test knows where it is");
        // From target/debug/deps/kernel-… to target/.
        let target = own.ancestors().nth(3).expect("tests lie in a target folder");
        target.join("release").join("p2p-node")
    };
    let path = env::var_os("P2P_NODE_BIN").map_or_else(built, PathBuf::from);
    assert!(
        path.is_file(),
        "{} is not there: `cargo build --release --bin p2p-node`, or set P2P_NODE_BIN",
        path.display()
    );
    path.into_os_string().into_string().expect("its path is text")
}
