//! What stands in the way for a while: a path that loses everything, a router that restarts.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::{
    lab::{KernelLab, Router},
    nat::Nat,
    scenario::{DELIVERY, Node, World, answer, connect, heard, say},
    user_nat::UserNat,
};

/// Between two homes.
const ROUND_TRIP: Duration = Duration::from_millis(80);

/// As long as it takes a user to think that nothing will come of it.
const BLOCKED: Duration = Duration::from_secs(20);

/// How soon after that everything is as it should be. The promise is three; what lies on top is for a machine that has other
/// work.
const FREE: Duration = Duration::from_secs(6);

fn world() -> Option<World> {
    World::within(KernelLab::with_access_lines(ROUND_TRIP))
}

fn easy_home(world: &World) -> Router {
    world.home(Nat::InUserSpace(UserNat::EASY))
}

/// One client is told to connect and to be patient, another one wants to be connected all the time.
#[test]
fn a_path_that_loses_everything_for_20_s_is_open_soon_after_it_is_free() {
    let Some(world) = world() else { return };
    let [servers, patients, constants] = [0; 3].map(|_| easy_home(&world));
    let clients = [&patients, &constants];
    for client in clients {
        world.lab.block(servers.address(), client.address());
    }
    let hosts = [servers.host(), patients.host(), constants.host()];
    let server = world.server(&hosts[0]);

    // Whoever names the peer does not dial by itself at the start.
    let patient = world.launch(&hosts[1], &["--mode", "client"]);
    let command = json!({"cmd": "connect", "id": 1, "peer": server.peer_id, "timeout_ms": 60_000});
    patient.process.tell(&command);
    let constant = world.client(&hosts[2]);
    thread::sleep(BLOCKED);
    for client in [&patient, &constant] {
        assert!(!client.process.has_told("connected"), "the path was blocked");
    }
    world.lab.unblock();

    let free = Instant::now();
    for (name, client) in [("patient", &patient), ("constant", &constant)] {
        let connected = client.process.wait_for("connected", FREE.saturating_sub(free.elapsed()));
        eprintln!("{name}: {} ms after the block", free.elapsed().as_millis());
        assert_eq!(connected["peer"], server.peer_id);
    }
    answer(&patient, 1, DELIVERY).expect("it is connected");
}

#[test]
fn a_router_that_restarts_and_gives_out_other_ports_costs_no_link() {
    let Some(world) = world() else { return };
    let homes = [0; 2].map(|_| world.home(Nat::InUserSpace(UserNat::CHANGING)));
    let hosts = homes.each_ref().map(Router::host);
    let (server, client) = (world.server(&hosts[0]), world.client(&hosts[1]));
    connect(&client).expect("two homes find each other");
    say(&client, 2, &server.peer_id, "before");
    assert_eq!(heard(&server).1, "before");

    for (name, home) in [("the client's", &homes[1]), ("the server's", &homes[0])] {
        home.nat_box().restart();
        let began = Instant::now();
        for (from, to) in [(&client, &server), (&server, &client)] {
            tell(from, to);
            assert_eq!(heard_within(to, RESTART), "after");
        }
        eprintln!("{name} router: {} ms until both were heard", began.elapsed().as_millis());
        for node in [&client, &server] {
            assert!(!node.process.has_told("disconnected"), "the link has ended");
        }
    }
}

/// The word of it may have to go through a DHT of 24 nodes.
const RESTART: Duration = Duration::from_secs(40);

fn tell(from: &Node, to: &Node) {
    let message = json!({"type": "t", "payload": "after"});
    from.process.tell(&json!({"cmd": "send", "id": 9, "peer": to.peer_id, "message": message}));
}

fn heard_within(node: &Node, within: Duration) -> serde_json::Value {
    node.process.wait_for("message", within)["message"]["payload"].clone()
}
