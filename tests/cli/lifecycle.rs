//! How a node ends: whoever wants it, and whatever else is broken.

use std::{
    io::{BufRead, BufReader},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    home::{Home, Outcome},
    running::Running,
};

const SERVER: [&str; 4] = ["--mode", "server", "--service", "myapi:v1"];
const CLIENT: [&str; 4] = ["--mode", "client", "--service", "myapi:v1"];

/// A server that clients in the same home find.
fn serve(home: &Home, more: &[&str]) -> Running {
    let mut server = Running::start(&mut home.command(&[&SERVER[..], more].concat()));
    server.event("ready");
    server
}

fn pipe(home: &Home, args: &[&str], input: &str) -> Outcome {
    let mut node = Running::start(&mut home.command(args));
    node.write(input.as_bytes());
    node.close_stdin();
    node.end()
}

#[test]
fn a_piped_command_is_done_before_the_end() {
    let home = Home::new("piped");
    let mut server = serve(&home, &[]);
    let outcome = pipe(&home, &CLIENT, "send service \"hi\"\n");
    assert_eq!(outcome.exit_code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains(r#""state":"delivered""#), "{outcome:?}");
    assert!(outcome.stdout.ends_with(r#"{"event":"bye","reason":"stdin_eof","exit_code":0}"#));
    assert_eq!(server.event("message")["message"]["payload"], "\"hi\"");
}

#[test]
fn a_piped_command_that_fails_gives_its_exit_code() {
    let home = Home::new("piped-failure");
    let nobody = p2p_node::identity::Identity::from_seed([9; 32]).peer_id();
    let args = [&CLIENT[..], &["--connect-timeout", "2s"]].concat();
    let outcome = pipe(&home, &args, &format!("send {nobody} \"hi\"\n"));
    let bye = outcome.stdout.lines().last().unwrap();
    let exit_code = outcome.exit_code.unwrap();
    assert!([4, 5].contains(&exit_code), "{outcome:?}");
    assert_eq!(bye, format!(r#"{{"event":"bye","reason":"stdin_eof","exit_code":{exit_code}}}"#));
}

#[test]
fn a_service_may_do_without_stdin() {
    let home = Home::new("no-stdin");
    let mut server = serve(&home, &["--stdin-eof", "ignore"]);
    server.close_stdin();
    // What goes on after the end of stdin proves that the node does.
    let outcome = pipe(&home, &CLIENT, "say service hello\n");
    assert_eq!(outcome.exit_code, Some(0), "{outcome:?}");
    server.event("message");
    server.signal("TERM");
    let outcome = server.end();
    assert_eq!(outcome.exit_code, Some(0));
    assert!(outcome.stdout.ends_with(r#"{"event":"bye","reason":"signal","exit_code":0}"#));
}

#[test]
fn the_end_of_stdin_can_end_everything_at_once() {
    let home = Home::new("abort");
    // This port is ours and silent, so that a dial to it takes its whole time.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let ticket = silent_ticket(&silent);
    let args = [&CLIENT[..], &["--stdin-eof", "abort", "--connect-timeout", "5m"]].concat();
    let mut node = Running::start(&mut home.command(&args));
    node.write(format!("@7 connect {ticket}\n").as_bytes());
    node.event("connecting");
    node.close_stdin();
    let outcome = node.end();
    assert_eq!(outcome.exit_code, Some(7), "{outcome:?}");
    assert!(outcome.stdout.contains(r#""id":"7","code":"shutting_down""#), "{outcome:?}");
}

pub(crate) fn silent_ticket(socket: &std::net::UdpSocket) -> p2p_node::ticket::Ticket {
    let identity = p2p_node::identity::Identity::from_seed([9; 32]);
    p2p_node::ticket::Ticket::of(&identity, vec![socket.local_addr().unwrap()])
}

#[test]
fn a_node_ends_with_its_parent_though_its_stdin_stays_open() {
    let home = Home::new("parent");
    let node = home.command(&[&SERVER[..], &["--parent-pid"]].concat());
    // A parent that waits for its child, which has the parent's own stdin.
    let mut parent = Command::new("sh");
    let script = "exec 3<&0; \"$0\" \"$@\" $$ <&3 & wait";
    parent.args(["-c", script]).arg(node.get_program()).args(node.get_args()).env_clear();
    parent.envs(node.get_envs().filter_map(|(name, value)| Some((name, value?))));
    parent.env("PATH", std::env::var("PATH").unwrap());
    let mut parent = Running::start(&mut parent);
    parent.event("ready");
    parent.signal("KILL");
    let killed = Instant::now();
    assert_eq!(parent.event("bye")["reason"], "parent_gone");
    // Its outputs end with the node, for the parent has gone before.
    let outcome = parent.end();
    assert!(killed.elapsed() < Duration::from_secs(2), "{:?}", killed.elapsed());
    assert_eq!(outcome.exit_code, None);
}

#[test]
fn a_parent_that_is_gone_already_ends_the_node() {
    let home = Home::new("orphan");
    let mut gone = Command::new("true").spawn().unwrap();
    let id = gone.id().to_string();
    gone.wait().unwrap();
    let node = Running::start(&mut home.command(&["--parent-pid", &id]));
    assert_eq!(node.end().exit_code, Some(0));
}

#[cfg(target_os = "linux")]
#[test]
fn a_node_ends_quietly_when_nobody_reads_stdout() {
    let home = Home::new("closed-stdout");
    let mut server = Running::start(&mut home.command(&SERVER));
    let mut stdout = BufReader::new(server.take_stdout());
    let mut line = String::new();
    while !line.contains(r#""event":"ready""#) {
        stdout.read_line(&mut line).unwrap();
    }
    drop(stdout);
    let (exit_code, cpu_seconds) = server.end_with_cpu_time();
    assert_eq!(exit_code, Some(0));
    assert!(cpu_seconds < 2.0, "{cpu_seconds} s of CPU time");
}

#[test]
fn signals_end_a_node_properly() {
    for signal in ["TERM", "HUP", "INT"] {
        let home = Home::new(&format!("signal-{signal}"));
        let server = serve(&home, &[]);
        server.signal(signal);
        let outcome = server.end();
        assert_eq!(outcome.exit_code, Some(0), "{signal}");
        let bye = r#"{"event":"bye","reason":"signal","exit_code":0}"#;
        assert!(outcome.stdout.ends_with(bye), "{signal}: {}", outcome.stdout);
    }
}

#[test]
fn an_interrupt_of_a_node_that_stops_ends_it_at_once() {
    let home = Home::new("interrupt");
    let mut node = Running::start(&mut home.command(&["--log", "p2p_node=info"]));
    // More than a pipe holds: the node stops, but cannot say so.
    node.write("help\n".repeat(200).as_bytes());
    node.write(b"quit\n");
    let stdout = node.take_stdout();
    node.until_stderr("stopping");
    node.signal("INT");
    assert_eq!(node.end().exit_code, Some(130));
    drop(stdout);
}

#[test]
fn stdout_is_the_protocols_however_much_is_logged() {
    let home = Home::new("pure");
    for logs in [("RUST_LOG", "trace"), ("P2P_NODE_LOG", "trace")] {
        let mut node = Running::start(home.command(&SERVER).env(logs.0, logs.1));
        node.write(b"status\nlist\nquit\n");
        let outcome = node.end();
        assert!(outcome.stderr.contains("DEBUG"), "{}", outcome.stderr);
        let events = outcome.events();
        let expected = ["hello", "ready", "ok", "ok", "ok", "bye"];
        assert_eq!(events, expected);
    }
}

#[test]
fn a_line_over_the_limit_is_told_and_the_next_one_works() {
    let home = Home::new("long-line");
    let mut node = Running::start(&mut home.command(&[]));
    node.write(&vec![b'x'; 25 * 1024 * 1024]);
    assert_eq!(node.event("error")["code"], "line_too_long");
    node.write(b"\n@1 ticket\nquit\n");
    assert_eq!(node.event("ok")["id"], "1");
    assert_eq!(node.end().exit_code, Some(0));
}

#[test]
fn a_stderr_that_nobody_reads_holds_nobody_up() {
    let home = Home::new("stderr");
    let _server = serve(&home, &[]);
    let args = [&CLIENT[..], &["--log", "trace"]].concat();
    let commands = format!("say service {}\n", "x".repeat(20_000)).repeat(100);
    let logged = pipe(&home, &args, &commands).stderr.len();
    assert!(logged > 100_000, "{logged} bytes are no more than a pipe holds");
    for is_closed in [true, false] {
        let mut node = Running::start(&mut home.command(&args));
        if is_closed {
            node.close_stderr();
        }
        node.write(commands.as_bytes());
        node.close_stdin();
        assert_eq!(node.event("bye")["exit_code"], 0);
        // Only then is stderr read.
        assert_eq!(node.end().exit_code, Some(0));
    }
}
