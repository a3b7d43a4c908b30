//! Pairs of NATs, and how fast the release binary opens them: 80 ms apart, 40 ms from every server.
//!
//! A server is linked to a helper. A client connects with nothing but the service's name, disconnects, and, when the
//! routers have forgotten each other, connects again: this is the dial whose record is known and whose offer goes by the
//! helper. In CI the pairs run once, and what is held is that they open, or are told that they cannot. With time to spare,
//!
//! ```text
//! P2P_NODE_KERNEL_RUNS=20 cargo test --test kernel -- --nocapture the_table_of_all_pairs
//! ```
//!
//! runs each so often, with a new server each time, prints the times, and holds them against what is promised;
//! `P2P_NODE_KERNEL_CELLS=random` chooses the pairs that have this in their names. Only a machine without other work
//! gives times that mean anything.

mod pairs;
mod places;
mod table;

use std::{thread, time::Duration};

use serde_json::{Value, json};

use self::places::Place;
use super::{
    lab::{Host, KernelLab},
    scenario::{DELIVERY, Node, World, answer, heard, say},
};

/// Between two homes.
const ROUND_TRIP: Duration = Duration::from_millis(80);
const ROUND_TRIP_MS: f64 = 80.0;

/// A server's record names its helper from the start; the inboxes are looked into gently soon after. Nothing says so.
const HELPER_IS_UP: Duration = Duration::from_secs(3);

/// What the longest dial may take, and some more.
const DIAL: Duration = Duration::from_secs(25);

/// A lab with a helper in its public part.
struct Stage {
    world: World,
    helper: Node,
    _helpers_host: Host,
}

/// Two dials of one client to one server.
#[derive(Debug)]
struct Run {
    /// By a service's name, its record in the DHT.
    first: Outcome,
    /// Again, when the record is known and no NAT lets the other side in.
    again: Outcome,
}

/// What came of a dial. Times are the node's own, from `connect`; datagrams are those that client and server sent
/// meanwhile, whatever for.
#[derive(Debug)]
enum Outcome {
    Connected {
        /// When a path was open, if it had to be opened.
        path_ms: Option<f64>,
        link_ms: f64,
        by_helper: bool,
        datagrams: [u32; 2],
    },
    Failed {
        code: String,
        after_ms: f64,
        by_helper: bool,
        datagrams: [u32; 2],
        #[expect(dead_code, reason = "it is printed, as part of the whole")]
        told: Vec<Value>,
    },
}

impl Stage {
    fn new() -> Option<Self> {
        let world = World::within(KernelLab::with_access_lines(ROUND_TRIP))?;
        let host = world.lab.public_host(&["198.51.100.30"]);
        let flags = ["--mode", "server", "--service", "helper:v1", "--helper-mode", "on"];
        let helper = world.launch(&host, &flags);
        helper.process.wait_for("online", DIAL);
        Some(Self { world, helper, _helpers_host: host })
    }

    /// Starts servers of these services, each linked to the helper.
    fn serve(&self, places: &[(&Place, &str)]) -> Vec<Node> {
        let helper = self.helper.peer_id.as_str().expect("ids are text");
        let servers: Vec<_> = places
            .iter()
            .map(|(place, service)| {
                let usual = ["--mode", "server", "--service", service, "--helper", helper];
                let flags = [&usual[..], place.server_flags].concat();
                self.world.launch(&place.server, &flags)
            })
            .collect();
        for server in &servers {
            server.process.wait_for("online", DIAL);
        }
        thread::sleep(HELPER_IS_UP);
        servers
    }

    /// A client that comes anew dials the server twice.
    fn run(&self, place: &Place, server: &Node, service: &str) -> Run {
        let flags = ["--mode", "client", "--service", service];
        let client = self.world.launch(&place.client, &flags);
        let first = dial(place, [&client, server], 1);
        if let Outcome::Connected { .. } = first {
            // The server does not dial, so what it hears of is the client's doing.
            client.process.tell(&json!({"cmd": "disconnect", "peer": server.peer_id}));
            client.process.wait_for("disconnected", DELIVERY);
            server.process.wait_for("disconnected", DELIVERY);
        }
        place.forget_each_other();
        let again = dial(place, [&client, server], 2);
        if let Outcome::Connected { .. } = again {
            say(&client, 3, &server.peer_id, "hello");
            assert_eq!(heard(server), (client.peer_id, json!("hello")));
        }
        Run { first, again }
    }
}

/// Says `connect` to the client, and notes what comes of it.
fn dial(place: &Place, [client, server]: [&Node; 2], id: u64) -> Outcome {
    let _ = client.process.take_told();
    let sent = || [&place.client, &place.server].map(Host::datagrams_sent);
    let before = sent();
    client.process.tell(&json!({"cmd": "connect", "id": id, "peer": "service"}));
    let answer = answer(client, id, DIAL);
    let after = sent();
    let datagrams = [0, 1].map(|side| {
        let count = after[side] - before[side];
        u32::try_from(count).expect("a dial sends few")
    });
    let connected = answer.is_ok().then(|| client.process.wait_for("connected", DELIVERY));
    let told = client.process.take_told();
    let stages = || told.iter().filter(|event| event["event"] == "progress");
    let is_by_helper = |event: &Value| {
        event["stage"] == "offer" && text(&event["detail"]).contains("from a helper")
    };
    let by_helper = stages().any(is_by_helper);
    match (answer, connected) {
        (Ok(_), Some(connected)) => {
            assert_eq!(connected["peer"], server.peer_id, "{connected}");
            server.process.wait_for("connected", DELIVERY);
            let path = stages().find(|event| event["stage"] == "path");
            Outcome::Connected {
                path_ms: path.map(|path| number(&path["elapsed_ms"])),
                link_ms: number(&connected["took_ms"]),
                by_helper,
                datagrams,
            }
        }
        (answer, _) => {
            let error = answer.expect_err("whoever is connected says so");
            let after_ms = number(&error["elapsed_ms"]);
            Outcome::Failed {
                code: text(&error["code"]).to_owned(),
                after_ms,
                by_helper,
                datagrams,
                told,
            }
        }
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}
