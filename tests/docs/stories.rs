//! What a reader of README.md and QUICKSTART.md does, and what comes of it.

use std::{fs, time::Duration};

use p2p_node::ticket::Ticket;
use serde_json::Value;

use crate::{
    CLIENT, CONNECT, DEMO, DEMO_CLOSED, DEMO_OPENED, HIDE_SECRET, LISTEN, MAKE_SECRET, PING, PIPED,
    PYTHON_CLIENT, PYTHON_SERVER, PYTHON_SERVICE_CLIENT, PYTHON_SERVICE_SERVER, SECRET_CLIENT,
    SECRET_SERVER, SEND, SEND_PIPED, SERVER, SERVICE, TESTNET, TICKET,
    markdown::{Document, commands},
    shell::{Home, Network, Running},
};

#[test]
fn the_demos_end_as_the_documents_say() {
    let home = Home::new("demo", &Network::none());
    for demo in [DEMO, DEMO_OPENED] {
        let ended = home.run(demo, DEMO_TIME);
        assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
        assert!(ended.stdout.contains("Both talk directly: "), "{}", ended.stdout);
    }
    let ended = home.run(DEMO_CLOSED, DEMO_TIME);
    assert_eq!(ended.code, Some(5), "{}", ended.stdout);
    assert!(ended.stderr.starts_with("error[nat_incompatible]"), "{}", ended.stderr);
    assert!(ended.stderr.contains("\n  try: "), "{}", ended.stderr);
}

#[test]
fn the_demo_in_the_readme_is_what_the_demo_prints() {
    let shown = Document::read("README.md").blocks("").remove(0);
    let ended = Home::new("timeline", &Network::none()).run(DEMO, DEMO_TIME);
    let steps = |text: &str| -> Vec<String> {
        let steps = text.lines().filter_map(|line| line.trim_start().split_once(" ms  "));
        let mut steps: Vec<_> = steps
            .map(|(_, step)| step.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
            .collect();
        // Both sides act at the same time.
        steps.sort();
        steps.dedup();
        steps
    };
    let printed = steps(&ended.stdout);
    for step in steps(&shown) {
        assert!(printed.contains(&step), "{step}\n{}", ended.stdout);
    }
    for line in shown.lines().filter(|line| line.contains('─') || line.contains("client$")) {
        assert!(ended.stdout.contains(line), "{line}\n{}", ended.stdout);
    }
}

#[test]
fn every_line_of_the_quick_start_is_answered() {
    let (_testnet, network) = testnet("by-hand-net");
    let home = Home::new("by-hand", &network);
    let mut server = serve(&home, SERVER);
    let mut client = home.elsewhere().start(CLIENT);
    client.event("ready");
    let typed = commands(&Document::read("QUICKSTART.md").blocks("").remove(0));
    assert_eq!(typed.len(), 6);
    for line in &typed {
        client.type_line(line);
        let answer = client.answer();
        assert_eq!(answer["event"], "ok", "{line}: {answer}");
    }
    assert_eq!(client.event("bye")["exit_code"], 0);
    assert_eq!(client.end(END_TIME).code, Some(0));
    let payload = |event: Value| event["message"]["payload"].as_str().unwrap().to_owned();
    assert_eq!(payload(server.event("message")), "hello");
    assert_eq!(payload(server.event("message")), "hello again");
    stop(server);
}

#[test]
fn a_script_pipes_one_command_in() {
    let (_testnet, network) = testnet("piped-net");
    let home = Home::new("piped", &network);
    let mut server = serve(&home, SERVER);
    let ended = home.elsewhere().run(PIPED, END_TIME);
    assert_eq!(ended.code, Some(0), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains(r#""state":"delivered""#), "{}", ended.stdout);
    assert_eq!(server.event("message")["message"]["payload"], "hello");
    stop(server);
}

#[test]
fn scripts_send_listen_connect_and_ping() {
    let home = Home::new("scripts", &Network::none());
    let mut listener = home.start(LISTEN);
    listener.notice("listening as ");
    let pinged = home.run(PING, END_TIME);
    assert_eq!(pinged.code, Some(0), "{}{}", pinged.stdout, pinged.stderr);
    assert_eq!(pinged.stdout.matches("pong from ").count(), 2, "{}", pinged.stdout);
    let connected = home.run(CONNECT, END_TIME);
    assert_eq!(connected.code, Some(0), "{}{}", connected.stdout, connected.stderr);
    // The steps that the quick start names, as far as a dial on one machine has them.
    for step in ["resolve", "punch", "link"] {
        assert!(connected.stdout.contains(&format!(" ms  {step} ")), "{}", connected.stdout);
    }
    let result = connected.stdout.lines().last().unwrap();
    assert!(result.starts_with("connected to "), "{}", connected.stdout);
    for send in [SEND, SEND_PIPED] {
        let sent = home.run(send, END_TIME);
        assert_eq!(sent.code, Some(0), "{}{}", sent.stdout, sent.stderr);
        assert!(sent.stdout.starts_with("delivered to "), "{}", sent.stdout);
    }
    let heard = listener.end(END_TIME);
    assert_eq!(heard.code, Some(0));
    let said: Vec<&str> =
        heard.stdout.lines().filter_map(|line| Some(line.split_once(": ")?.1)).collect();
    assert_eq!(said, ["hello", "any bytes, up to 16 MiB"]);
}

#[test]
fn a_service_runs_without_stdin() {
    let home = Home::new("service", &Network::none());
    let mut service = home.start(SERVICE);
    service.event("ready");
    assert_eq!(home.run(PIPED, END_TIME).code, Some(0));
    service.event("message");
    service.terminate();
    assert_eq!(service.end(END_TIME).code, Some(0));
}

#[test]
fn a_secret_leads_its_members_to_the_server_and_nobody_else() {
    let (_testnet, network) = testnet("secret-net");
    let home = Home::new("secret", &network);
    for command in [MAKE_SECRET, HIDE_SECRET] {
        assert_eq!(home.run(command, END_TIME).code, Some(0), "{command}");
    }
    let server = serve(&home, SECRET_SERVER);
    let connect = |command: &str| {
        let mut client = home.elsewhere().start(command);
        client.event("ready");
        client.type_line("connect service");
        let answer = client.answer();
        stop(client);
        answer
    };
    assert_eq!(connect(SECRET_CLIENT)["event"], "ok");
    assert_eq!(connect(CLIENT)["code"], "peer_not_found");
    stop(server);
}

#[test]
fn a_ticket_is_printed_without_going_online() {
    let home = Home::new("ticket", &Network::none());
    let printed = || home.run(TICKET, END_TIME).stdout;
    let ticket: Ticket = printed().trim_end().parse().unwrap();
    assert!(ticket.addresses.is_empty());
    assert_eq!(printed(), ticket.to_string() + "\n");
}

#[test]
fn the_testnet_says_how_to_use_it() {
    let home = Home::new("testnet", &Network::none());
    let mut testnet = home.start(TESTNET);
    let first = testnet.until("announcement", |line| Some(line.to_owned()));
    // Checks that it is on loopback.
    let _ = Network::announced(&first);
    testnet
        .until("flags", |line| line.contains("--no-lan --dht-bootstrap 127.0.0.1:").then_some(()));
    testnet.until("P2P_NODE_NO_LAN", |line| (line == "export P2P_NODE_NO_LAN=1").then_some(()));
    for variable in ["P2P_NODE_DHT_BOOTSTRAP", "P2P_NODE_STUN"] {
        let export = format!("export {variable}=127.0.0.1:");
        testnet.until(variable, |line| line.starts_with(&export).then_some(()));
    }
    testnet.interrupt();
    assert_eq!(testnet.end(END_TIME).code, Some(0));
}

#[test]
fn two_scripts_talk_on_one_machine_without_a_network() {
    let home = Home::new("python", &Network::none());
    let mut server = home.start(PYTHON_SERVER);
    server.until("ready", |line| line.ends_with(" is ready").then_some(()));
    let client = home.start(PYTHON_CLIENT);
    they_talk(server, client);
    let run = home.path().join("run/p2p-node");
    let left = fs::read_dir(run).unwrap().map(|entry| entry.unwrap().path());
    let left: Vec<_> = left.filter(|path| path.extension().unwrap() != "lock").collect();
    assert!(left.is_empty(), "{left:?}");
    nothing_runs(&home);
}

#[test]
fn two_scripts_find_each_other_by_service() {
    let (_testnet, network) = testnet("python-net");
    let home = Home::new("python-service", &network);
    let mut server = home.start(PYTHON_SERVICE_SERVER);
    server.until("online", |line| line.starts_with("online: ").then_some(()));
    let client = home.elsewhere().start(PYTHON_SERVICE_CLIENT);
    they_talk(server, client);
    nothing_runs(&home);
}

/// A line each way between the two scripts, and Ctrl-C in both terminals.
fn they_talk(mut server: Running, mut client: Running) {
    client.until("connection", |line| line.starts_with("connected to ").then_some(()));
    client.type_line("hello there");
    server.until("message", |line| line.ends_with(": hello there").then_some(()));
    client.until("receipt", |line| line.starts_with("delivered in ").then_some(()));
    server.type_line("and back");
    client.until("answer", |line| line.ends_with(": and back").then_some(()));
    for terminal in [client, server] {
        terminal.interrupt();
        terminal.end(END_TIME);
    }
}

/// No process is left that was started in this home, by whomever.
fn nothing_runs(home: &Home) {
    let own = format!("HOME={}", home.path().display()).into_bytes();
    let Ok(processes) = fs::read_dir("/proc") else {
        return;
    };
    let environments = processes.map(|entry| entry.unwrap().path().join("environ"));
    let left = environments
        .filter_map(|environment| fs::read(environment).ok())
        .filter(|environment| environment.split(|&byte| byte == 0).any(|entry| entry == own));
    assert_eq!(left.count(), 0);
}

/// A network on loopback that lasts as long as the program, and what leads there.
fn testnet(story: &str) -> (Running, Network) {
    let mut testnet = Home::new(story, &Network::none()).start(TESTNET);
    let first = testnet.until("announcement", |line| Some(line.to_owned()));
    (testnet, Network::announced(&first))
}

/// A server that can be found.
fn serve(home: &Home, command: &str) -> Running {
    let mut server = home.start(command);
    server.event("online");
    server
}

fn stop(mut node: Running) {
    node.type_line("quit");
    assert_eq!(node.end(END_TIME).code, Some(0));
}

/// The demo takes at most 15 s, more on a busy machine.
const DEMO_TIME: Duration = Duration::from_secs(60);

/// A node stops within 5 s and a dial ends within 20.
const END_TIME: Duration = Duration::from_secs(40);
