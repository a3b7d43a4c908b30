//! A helper that is flooded, over real sockets: its limits hold, it amplifies nothing, and it helps again afterwards.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    lab::{Host, KernelLab},
    nat::Nat,
    process::Process,
    scenario::{Node, SERVICE, World, connect},
    user_nat::UserNat,
};

const HELPER: &str = "198.51.100.30";
const HELPER_PORT: u16 = 41_641;

/// Far above every limit.
const PER_SECOND: u32 = 300;
const SECONDS: u64 = 2;

/// PROTOCOL.md, section 4, a helper's limits: at once, and then each second.
const FROM_ONE_SOURCE: [u64; 2] = [15, 2];
const TO_ONE_SERVED: [u64; 2] = [20, 5];

/// From a question to its answer, on a busy machine.
const SOON: Duration = Duration::from_secs(20);

/// As long as it takes the limits to have their bursts back, which are 5 s at the most.
const RECOVERED: Duration = Duration::from_secs(5);

#[test]
fn a_flooded_helper_keeps_its_limits_and_helps_again_afterwards() {
    let Some(world) = World::within(KernelLab::new()) else { return };
    let host = world.lab.public_host(&[HELPER]);
    let bind = format!("{HELPER}:{HELPER_PORT}");
    let helping = ["--mode", "server", "--service", "helper:v1", "--helper-mode", "on"];
    let helper = world.launch(&host, &[&helping[..], &["--bind", &bind]].concat());
    helper.process.wait_for("online", SOON);
    let watcher = script(&host, &["watch", &HELPER_PORT.to_string()]);
    watcher.wait_for("ready", SOON);

    let homes = [0; 2].map(|_| world.home(Nat::InUserSpace(UserNat::EASY)));
    let [server, client] = homes.each_ref().map(super::lab::Router::host);
    let id = helper.peer_id.as_str().expect("ids are text");
    let serving = ["--mode", "server", "--service", SERVICE, "--helper", id];
    let server = world.launch(&server, &serving);
    server.process.wait_for("online", SOON);
    is_reached_by_helper(&world, &client);

    let token = count(&watcher)["token"].as_str().expect("a token is text").to_owned();
    assert_eq!(token.len(), 14, "the client's offer went by the helper");
    let offer = format!("0b04{token}?{}", "55".repeat(683));
    let strangers: Vec<_> =
        (41..46).map(|last| world.lab.public_host(&[&format!("198.51.100.{last}")])).collect();

    let flooded = flood(&watcher, &strangers[..1], &offer, [("out", "5")]);
    holds(&flooded, FROM_ONE_SOURCE, "offers from one source");

    // The served node's limit recovers while others are tried. Nobody has this token.
    let nobodys = format!("0b04{}?{}", "00".repeat(7), "55".repeat(683));
    assert_eq!(flood(&watcher, &strangers, &nobodys, [("out", "5")]).seen, [[0, 0]]);

    // Whoever cannot show a cookie is challenged, with fewer bytes than it sent.
    let question = format!("0b01?{}", "00".repeat(16 + 32 + 12 + 1 + 16));
    let flooded = flood(&watcher, &strangers, &question, [("in", "1"), ("out", "2")]);
    let [asked, challenged] = flooded.seen;
    assert!(0 < challenged[0] && challenged[0] <= 500 + 200 * flooded.seconds, "{challenged:?}");
    assert!(challenged[0] <= asked[0] && 2 * challenged[1] < asked[1], "{asked:?} {challenged:?}");

    let flooded = flood(&watcher, &strangers, &offer, [("out", "5")]);
    holds(&flooded, TO_ONE_SERVED, "offers to one served node, from five sources");

    thread::sleep(RECOVERED);
    is_reached_by_helper(&world, &client);
}

/// A new client's offer goes by the helper.
fn is_reached_by_helper(world: &World, host: &Host) -> Node {
    let client = world.client(host);
    connect(&client).expect("it has a helper");
    let told = client.process.take_told();
    let by_helper = told.iter().any(|event| {
        event["stage"] == "offer" && event["detail"].to_string().contains("from a helper")
    });
    assert!(by_helper, "{told:#?}");
    client
}

/// What the helper saw of some kinds during a flood: datagrams and bytes, and how many seconds it lasted, begun ones counted.
struct Flooded<const N: usize> {
    seen: [[u64; 2]; N],
    seconds: u64,
}

/// Sends this from all of these hosts at once.
fn flood<const N: usize>(
    watcher: &Process,
    hosts: &[Host],
    pattern: &str,
    kinds: [(&str, &str); N],
) -> Flooded<N> {
    let began = Instant::now();
    let before = count(watcher);
    let per_second = (PER_SECOND / u32::try_from(hosts.len()).expect("a few")).to_string();
    let (port, seconds) = (HELPER_PORT.to_string(), SECONDS.to_string());
    let arguments = ["send", HELPER, &port, &per_second, &seconds, pattern];
    let floods: Vec<_> = hosts.iter().map(|host| script(host, &arguments)).collect();
    for flood in floods {
        flood.wait_for("done", Duration::from_secs(30));
    }
    let after = count(watcher);
    let seen = kinds.map(|(direction, kind)| {
        [0, 1].map(|unit| {
            let total = |count: &Value| count[direction][kind][unit].as_u64().unwrap_or(0);
            total(&after) - total(&before)
        })
    });
    Flooded { seen, seconds: began.elapsed().as_secs() + 1 }
}

fn count(watcher: &Process) -> Value {
    watcher.tell(&json!({"cmd": "count"}));
    watcher.wait_for("count", SOON)
}

/// All that a limit lets through was let through, and no more.
fn holds(flooded: &Flooded<1>, [at_once, each_second]: [u64; 2], what: &str) {
    let [[datagrams, _]] = flooded.seen;
    eprintln!("{what}: {datagrams} let through");
    let most = at_once + each_second * flooded.seconds;
    assert!((at_once..=most).contains(&datagrams), "{what}: {datagrams}, at most {most}");
}

fn script(host: &Host, arguments: &[&str]) -> Process {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/flood.py");
    host.spawn("python3", &[&[script], arguments].concat())
}
