//! Messages that outlive the program that sends them.

use std::{fs, process::Command};

use serde_json::{Value, json};

use crate::{home::Home, running::Running};

/// A server at the same address whenever it is started, and the ticket that leads there.
struct Server {
    address: String,
    ticket: String,
}

fn serve(home: &Home, address: &str) -> (Running, Server) {
    let args = ["--mode", "server", "--bind", address];
    let mut running = Running::start(&mut home.command(&args));
    let address = running.event("ready")["addrs"][0].as_str().unwrap().to_owned();
    let ticket = home.run(&["ticket", "--addrs", &address]).stdout.trim().to_owned();
    (running, Server { address, ticket })
}

fn client(home: &Home, server: &Server) -> Command {
    let outbox = home.path.join("outbox");
    let mut command = home.command(&["--connect", &server.ticket, "--outbox"]);
    command.arg(outbox);
    command
}

fn send(client: &mut Running, id: &str, timeout_ms: u64) -> Value {
    let message = json!({"type": "t", "payload": "x", "id": id});
    let command = json!({"cmd": "send", "id": id, "message": message, "timeout_ms": timeout_ms});
    client.write(format!("{command}\n").as_bytes());
    loop {
        let line = client.until(&format!("\"id\":\"{id}\""));
        let event: Value = serde_json::from_str(&line).unwrap();
        if event["event"] == "ok" || event["event"] == "error" {
            return event;
        }
    }
}

#[test]
fn what_is_queued_survives_the_end_of_sender_and_receiver_and_arrives_once() {
    let (home, sender) = (Home::new("outbox-server"), Home::new("outbox-client"));
    let (running, server) = serve(&home, "127.0.0.1:0");
    drop(running);

    let mut first = Running::start(&mut client(&sender, &server));
    for id in ["a", "b"] {
        assert_eq!(send(&mut first, id, 300)["state"], "queued");
    }
    // Killed, as if the power had failed.
    drop(first);

    let mut second = Running::start(&mut client(&sender, &server));
    second.event("ready");
    let (mut running, server) = serve(&home, &server.address);
    let arrived = ["a", "b"].map(|_| running.event("message")["message"]["id"].clone());
    assert_eq!(arrived, ["a", "b"]);
    let mut told = ["a", "b"].map(|_| second.event("delivered")["message_id"].to_string());
    // Receipts that come together are told of in any order.
    told.sort();
    assert_eq!(told, ["\"a\"", "\"b\""]);
    assert_eq!(send(&mut second, "c", 20_000)["state"], "delivered");
    drop(second);

    // Nothing is left over, and nothing comes twice.
    let mut third = Running::start(&mut client(&sender, &server));
    assert_eq!(send(&mut third, "d", 20_000)["state"], "delivered");
    third.close_stdin();
    assert_eq!(third.end().exit_code, Some(0));
    running.close_stdin();
    let outcome = running.end();
    let ids: Vec<String> = outcome
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|event| event["event"] == "message")
        .map(|event| event["message"]["id"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(ids, ["a", "b", "c", "d"]);
}

#[test]
fn an_outbox_is_for_one_node_and_must_be_one() {
    let home = Home::new("outbox-unusable");
    let (_running, server) = serve(&home, "127.0.0.1:0");
    let mut first = Running::start(&mut client(&home, &server));
    first.event("ready");
    // With an identity of its own it does not fail for the lock of the other's.
    let mut second = client(&home, &server);
    second.args(["--identity", home.path.join("another.key").to_str().unwrap()]);
    let outcome = Running::start(&mut second).end();
    assert_eq!(outcome.exit_code, Some(3), "{outcome:?}");
    assert!(outcome.stdout.contains(r#""code":"outbox_unusable""#), "{outcome:?}");

    let broken = Home::new("outbox-broken");
    fs::create_dir_all(broken.path.join("outbox")).unwrap();
    fs::write(broken.path.join("outbox/outbox.redb"), "no database").unwrap();
    let outcome = Running::start(&mut client(&broken, &server)).end();
    assert_eq!(outcome.exit_code, Some(3), "{outcome:?}");
    let outcome = home.run(&["--ephemeral", "--outbox", "x"]);
    assert_eq!(outcome.exit_code, Some(2));
}
