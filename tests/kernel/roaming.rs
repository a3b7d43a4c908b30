//! The release binary on machines that change their networks, and on one that leads nowhere.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    lab::{Distance, Host, KernelLab, or_skip},
    nat::Nat,
    scenario::{DELIVERY, Node, START, World, connect, heard, p2p_node, say},
};

/// As in the simulated world.
const ROUND_TRIP: Duration = Duration::from_millis(42);

/// What a change may cost here: the word of it goes through a DHT of 24 nodes, each of which is asked once a
/// second at most, and which have just been asked for everything else.
const CHANGE: Duration = Duration::from_secs(40);

fn world() -> Option<World> {
    World::within(KernelLab::with(Distance { round_trip: ROUND_TRIP, percent_lost: 0 }))
}

/// Two linked nodes, and the hosts that they run on.
struct Pair {
    server: Node,
    client: Node,
}

fn pair(world: &World, hosts: [&Host; 2]) -> Pair {
    let pair = Pair { server: world.server(hosts[0]), client: world.client(hosts[1]) };
    connect(&pair.client).expect("two usual homes find each other");
    say(&pair.client, 2, &pair.server.peer_id, "before");
    assert_eq!(heard(&pair.server).1, "before");
    pair
}

impl Pair {
    /// Both say something, at once, and hear each other; nobody has seen the link end.
    fn go_on(&self, what: &str) {
        let began = Instant::now();
        tell(&self.client, 3, &self.server.peer_id, "from the client");
        tell(&self.server, 3, &self.client.peer_id, "from the server");
        for (node, text) in [(&self.server, "from the client"), (&self.client, "from the server")] {
            let event = node.process.wait_for("message", CHANGE);
            assert_eq!(event["message"]["payload"], text);
            eprintln!("{what}: {} ms to {text:?}", began.elapsed().as_millis());
        }
        for node in [&self.client, &self.server] {
            node.process.tell(&json!({"cmd": "peers", "id": 4}));
            let peers = node.process.wait_until("peers", DELIVERY, |event| event["id"] == 4);
            assert_eq!(peers["peers"].as_array().map(Vec::len), Some(1), "{peers}");
            assert!(!node.process.has_told("disconnected"), "{what}: the link has ended");
        }
    }
}

fn tell(node: &Node, id: u64, peer: &Value, payload: &str) {
    let message = json!({"type": "t", "payload": payload});
    node.process.tell(&json!({"cmd": "send", "id": id, "peer": peer, "message": message}));
}

#[test]
fn a_client_that_moves_to_another_network_keeps_its_link() {
    let Some(world) = world() else { return };
    let homes = [0, 1, 2].map(|_| world.home(Nat::Masquerade));
    let (server, client) = (homes[0].host(), homes[1].host());
    let pair = pair(&world, [&server, &client]);
    client.move_to(&homes[2]);
    pair.go_on("the client moves");
}

#[test]
fn a_server_that_moves_to_another_network_keeps_its_link() {
    let Some(world) = world() else { return };
    let homes = [0, 1, 2].map(|_| world.home(Nat::Masquerade));
    let (server, client) = (homes[0].host(), homes[1].host());
    let pair = pair(&world, [&server, &client]);
    server.move_to(&homes[2]);
    pair.go_on("the server moves");
}

#[test]
fn a_client_that_gets_another_address_keeps_its_link() {
    let Some(world) = world() else { return };
    let homes = [0, 1].map(|_| world.home(Nat::Masquerade));
    let (server, client) = (homes[0].host(), homes[1].host());
    let pair = pair(&world, [&server, &client]);
    client.renumber("192.168.1.77", "192.168.1.1");
    pair.go_on("the client is renumbered");
}

/// No DHT and no STUN server is asked, and no packet could leave.
#[test]
fn two_hosts_on_a_network_that_leads_nowhere_find_each_other_by_the_name_of_their_service() {
    let Some(lab) = or_skip(KernelLab::new()) else { return };
    let home = lab.home(Nat::Masquerade);
    home.unplug();
    let (server, client) = (home.host(), home.host());
    let start = |host: &Host, mode: &str, more: &[&str]| {
        let usual = ["--mode", mode, "--service", "myapi:v1", "--ephemeral"];
        let nowhere = ["--dht-bootstrap", "none", "--stun", "none"];
        let process = host.spawn(&p2p_node(), &[&usual[..], &nowhere[..], more].concat());
        let peer_id = process.wait_for("ready", START)["peer_id"].clone();
        Node { process, peer_id }
    };
    let (server, client) = (start(&server, "server", &[]), start(&client, "client", &[]));
    let began = Instant::now();
    let connected = client.process.wait_for("connected", Duration::from_secs(20));
    eprintln!("found by multicast after {} ms", began.elapsed().as_millis());
    assert_eq!(connected["peer"], server.peer_id, "{connected}");
    assert_eq!(connected["path"]["kind"], "lan", "{connected}");
    say(&client, 2, &server.peer_id, "hello");
    assert_eq!(heard(&server), (client.peer_id, json!("hello")));

    let deaf = home.host();
    let deaf = start(&deaf, "client", &["--no-lan"]);
    let error = connect(&deaf).expect_err("it is told not to listen");
    assert_eq!(error["code"], "peer_not_found", "{error}");
}
