//! The commands for scripts: what they print, and with which code they end.

use std::fs;

use p2p_node::{
    identity::Identity,
    ticket::{Ticket, TicketSecret},
};
use serde_json::Value;

use crate::{
    home::{Home, Outcome},
    running::Running,
};

/// A listener that senders in the same home find.
fn listen(home: &Home, more: &[&str]) -> Running {
    let args = [&["listen", "--service", "myapi:v1"], more].concat();
    let mut listener = Running::start(&mut home.command(&args));
    listener.until_stderr("listening as ");
    listener
}

fn send(home: &Home, args: &[&str]) -> Outcome {
    home.run(&[&["send", "service:myapi:v1"], args].concat())
}

fn pipe(home: &Home, args: &[&str], input: &[u8]) -> Outcome {
    let mut sender = Running::start(&mut home.command(args));
    sender.write(input);
    sender.close_stdin();
    sender.end()
}

#[test]
fn a_message_is_sent_and_printed_and_both_end_with_0() {
    let home = Home::new("send");
    let listener = listen(&home, &["--count", "2"]);
    let outcome = send(&home, &["hello"]);
    assert_eq!(outcome.exit_code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.starts_with("delivered to "), "{outcome:?}");
    assert_eq!(outcome.stderr, "");
    let outcome = send(&home, &["two\nlines\u{1b}[31m", "--json"]);
    let receipt: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(receipt["state"], "delivered");
    let outcome = listener.end();
    assert_eq!(outcome.exit_code, Some(0));
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 3);
    assert!(lines[0].ends_with(": hello"), "{lines:?}");
    assert!(lines[1].ends_with(": two"), "{lines:?}");
    assert_eq!(lines[2], "    lines[31m");
}

#[test]
fn bytes_pass_from_stdin_to_stdout_as_they_are() {
    let home = Home::new("bytes");
    let listener = listen(&home, &["--count", "2", "--payload-only"]);
    let args = ["send", "service:myapi:v1"];
    assert_eq!(pipe(&home, &args, b"a\n\x01b\rc").exit_code, Some(0));
    assert_eq!(pipe(&home, &[&args[..], &["-"]].concat(), b"").exit_code, Some(0));
    let outcome = listener.end();
    assert_eq!(outcome.exit_code, Some(0));
    // Each payload is followed by a line feed of its own.
    assert_eq!(outcome.stdout, "a\n\u{1}b\rc\n");
}

#[test]
fn a_listener_prints_the_event_if_asked_to() {
    let home = Home::new("listen-json");
    let listener = listen(&home, &["--count", "2", "--json"]);
    let args = ["send", "service:myapi:v1", "-", "--type", "image"];
    assert_eq!(pipe(&home, &args, b"\xff\x00").exit_code, Some(0));
    assert_eq!(pipe(&home, &args[..3], b"\xff\x00").exit_code, Some(0));
    let outcome = listener.end();
    let events: Vec<Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let [image, bytes] = events.as_slice() else { panic!("{events:?}") };
    assert_eq!(image["event"], "message");
    assert_eq!(image["message"]["type"], "image");
    assert_eq!(image["message"]["payload"], "/wA=");
    assert_eq!(bytes["message"]["type"], "bytes");
}

#[test]
fn a_ticket_need_not_be_an_argument() {
    let home = Home::new("peer-file");
    let listener = listen(&home, &["--count", "3"]);
    // The ticket lies where clients of the same user look for it, with the listener's address.
    let hand_off = home.path.join("run/p2p-node/myapi%3Av1.ticket");
    let ticket = fs::read_to_string(&hand_off).unwrap().lines().next().unwrap().to_owned();
    let file = hand_off.to_str().unwrap();
    assert_eq!(home.run(&["send", "--peer-file", file, "one"]).exit_code, Some(0));
    let with = |name: &str, value: &str, args: &[&str]| {
        let mut command = home.command(args);
        Outcome::of(command.env(name, value).output().unwrap())
    };
    let outcome = with("P2P_NODE_PEER", &ticket, &["send", "two"]);
    assert_eq!(outcome.exit_code, Some(0), "{outcome:?}");
    let connect = pipe(&home, &["run", "--connect-file", file], b"");
    assert_eq!(connect.exit_code, Some(0), "{connect:?}");
    assert!(connect.stdout.contains(r#""id":"--connect""#), "{connect:?}");
    let outcome = with("P2P_NODE_PEER", "wrong:service", &["send", "service:myapi:v1", "three"]);
    assert_eq!(outcome.exit_code, Some(0), "what is typed wins: {outcome:?}");
    let outcome = listener.end();
    let said: Vec<&str> =
        outcome.stdout.lines().map(|line| line.split_once(": ").unwrap().1).collect();
    assert_eq!(said, ["one", "two", "three"]);
}

#[test]
fn a_ping_tells_path_and_time_of_every_answer() {
    let home = Home::new("ping");
    let _listener = listen(&home, &[]);
    let args = ["ping", "service:myapi:v1", "--count", "2", "--interval", "1ms"];
    let outcome = home.run(&args);
    assert_eq!(outcome.exit_code, Some(0), "{outcome:?}");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    for line in &lines[..2] {
        assert!(line.starts_with("pong from ") && line.contains("  loopback path  "), "{line}");
        assert!(line.ends_with(" ms"), "{line}");
    }
    assert!(lines[2].starts_with("2 asked, 2 answered; "), "{lines:?}");
    let outcome = home.run(&[&args[..], &["--json"]].concat());
    let pongs: Vec<Value> =
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(pongs.len(), 2);
    assert_eq!(pongs[0]["path"]["kind"], "loopback");
}

#[test]
fn a_connect_tells_how_the_peer_is_reached_and_with_v_every_step() {
    let home = Home::new("connect");
    let listener = listen(&home, &[]);
    let args = ["connect", "service:myapi:v1"];
    let outcome = home.run(&args);
    assert_eq!((outcome.exit_code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let is_result = |line: &str| {
        line.starts_with("connected to ") && line.contains("  loopback path 127.0.0.1:")
    };
    assert_eq!(outcome.stdout.lines().count(), 1, "{outcome:?}");
    assert!(is_result(&outcome.stdout), "{outcome:?}");

    let outcome = home.run(&[&args[..], &["-v", "--watch", "1ms"]].concat());
    assert_eq!((outcome.exit_code, outcome.stderr.as_str()), (Some(0), ""), "no logs: {outcome:?}");
    let lines: Vec<&str> = outcome.stdout.lines().collect();
    let (result, timeline) = lines.split_last().unwrap();
    assert!(is_result(result), "{lines:?}");
    let steps: Vec<&str> =
        timeline.iter().map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    let told = ["ourselves", "connecting", "resolve", "punch", "link", "connected"];
    assert!(told.iter().all(|step| steps.contains(step)), "{lines:?}");
    assert!(timeline.iter().any(|line| line.contains("  punch         direct: ")), "{lines:?}");
    drop(listener);
}

#[test]
fn a_connect_tells_events_if_asked_to() {
    let home = Home::new("connect-json");
    let _listener = listen(&home, &[]);
    let events = |more: &[&str]| -> Vec<Value> {
        let args = [&["connect", "service:myapi:v1", "--json", "--watch", "1ms"], more].concat();
        let outcome = home.run(&args);
        assert_eq!(outcome.exit_code, Some(0), "{outcome:?}");
        outcome.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let [connected] = &events(&[])[..] else { panic!("more than the result") };
    assert_eq!(
        (&connected["event"], &connected["direction"]),
        (&"connected".into(), &"out".into())
    );
    let all = events(&["-v"]);
    assert_eq!(all[0]["event"], "connecting");
    let strategies: Vec<&Value> =
        all.iter().map(|event| &event["strategy"]).filter(|strategy| !strategy.is_null()).collect();
    assert!(strategies.contains(&&"direct".into()), "{all:?}");
    assert_eq!(all.iter().filter(|event| event["event"] == "connected").count(), 1);
}

#[test]
fn a_link_that_ends_while_it_is_watched_is_a_failure() {
    let home = Home::new("connect-lost");
    let listener = listen(&home, &[]);
    let args = ["connect", "service:myapi:v1", "-v", "--watch", "5m"];
    let mut watcher = Running::start(&mut home.command(&args));
    watcher.until("  connected  ");
    listener.signal("TERM");
    assert_eq!(listener.end().exit_code, Some(0));
    let outcome = watcher.end();
    assert_eq!(outcome.exit_code, Some(5), "{outcome:?}");
    assert!(outcome.stdout.contains("  disconnected  "), "{outcome:?}");
    assert!(outcome.stderr.starts_with("error[closed_by_peer]: "), "{outcome:?}");
}

#[test]
fn wrong_usage_ends_with_2() {
    let home = Home::new("oneshot-usage");
    for args in [
        &["send"][..],
        &["send", "@last", "x"],
        &["send", "p2p1broken", "x"],
        &["send", "service:a", "x", "y"],
        &["send", "--peer", "service:a", "service:b", "x"],
        &["send", "--peer", "service:a", "--peer-file", "b", "x"],
        &["send", "service:a", "x", "--timeout", "soon"],
        &["send", "service:a", "x", "--type", &"x".repeat(129)],
        &["listen", "--count", "0"],
        &["listen", "--json", "--payload-only"],
        &["listen", "--service-secret-file", "secret"],
        &["ping"],
        &["ping", "service:a", "--count", "0"],
        &["connect"],
        &["connect", "service:a", "service:b"],
        &["connect", "--peer", "service:a", "service:b"],
        &["connect", "service:a", "--watch", "2h"],
        &["completions", "tcsh"],
    ] {
        let outcome = home.run(args);
        assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(outcome.stderr.starts_with("error: "), "{args:?}: {}", outcome.stderr);
    }
    // What only shows when it is tried is an error with a code of its own.
    let too_long = pipe(&home, &["send", "service:a"], &vec![0; 16 * 1024 * 1024 + 1]);
    assert_eq!(too_long.exit_code, Some(2));
    assert!(too_long.stderr.starts_with("error[message_too_large]: "), "{}", too_long.stderr);
    let other = home.run(&["send", "service:a", "x", "--service", "b"]);
    assert_eq!(other.exit_code, Some(2));
    assert!(other.stderr.starts_with("error[invalid_argument]: "), "{}", other.stderr);
}

#[test]
fn a_file_that_names_no_peer_ends_with_3() {
    let home = Home::new("no-peer");
    let file = home.path.join("empty");
    fs::write(&file, "\n").unwrap();
    for file in [file, home.path.join("missing")] {
        let outcome = home.run(&["send", "--peer-file", file.to_str().unwrap(), "x"]);
        assert_eq!(outcome.exit_code, Some(3));
        assert!(outcome.stderr.contains("error[config_invalid]: "), "{}", outcome.stderr);
    }
}

#[test]
fn whoever_is_not_there_ends_with_5() {
    let home = Home::new("unreachable");
    let nobody = Identity::from_seed([9; 32]).peer_id().to_string();
    for args in [
        &["send", &nobody, "x"][..],
        &["ping", &nobody],
        &["connect", &nobody],
        &["send", "service:a", "x"],
    ] {
        let outcome = home.run(args);
        assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (Some(5), ""), "{args:?}");
        let lines: Vec<&str> = outcome.stderr.lines().collect();
        assert_eq!(lines.len(), 3, "{lines:?}");
        assert!(lines[0].starts_with("error[peer_not_found]: "), "{lines:?}");
        assert!(lines[1].starts_with("  why: ") && lines[2].starts_with("  try: "), "{lines:?}");
    }
}

#[test]
fn whoever_is_not_let_in_ends_with_6() {
    let home = Home::new("refused");
    let friend = Identity::from_seed([8; 32]).peer_id().to_string();
    let _listener = listen(&home, &["--allow", &friend]);
    // A bare id proves no knowledge of the ticket, which the hand-off would.
    let file = fs::read_to_string(home.path.join("run/p2p-node/myapi%3Av1.ticket")).unwrap();
    let ticket: Ticket = file.lines().next().unwrap().parse().unwrap();
    let stranger = Ticket { secret: TicketSecret([0; 16]), ..ticket };
    let outcome = home.run(&["send", &stranger.to_string(), "x"]);
    assert_eq!(outcome.exit_code, Some(6), "{outcome:?}");
    assert!(outcome.stderr.starts_with("error[refused]: "), "{outcome:?}");
}

#[test]
fn a_listener_that_hears_nothing_ends_with_7() {
    let home = Home::new("listen-timeout");
    let outcome = home.run(&["listen", "--timeout", "50ms", "--count", "1"]);
    assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (Some(7), ""));
    assert!(outcome.stderr.contains("error[timeout]: time is over"), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("0 of 1 messages have arrived"), "{}", outcome.stderr);
}

#[test]
fn a_listener_and_a_watcher_are_stopped_with_0_and_a_sender_with_130() {
    let home = Home::new("oneshot-stop");
    let listener = listen(&home, &[]);
    let args = ["connect", "service:myapi:v1", "-v", "--watch", "5m"];
    let mut watcher = Running::start(&mut home.command(&args));
    watcher.until("  connected  ");
    watcher.signal("INT");
    let outcome = watcher.end();
    assert_eq!(outcome.exit_code, Some(0), "{outcome:?}");
    assert!(outcome.stdout.contains("\nconnected to "), "{outcome:?}");
    listener.signal("TERM");
    assert_eq!(listener.end().exit_code, Some(0));
    // This port is ours and silent, so that a dial to it takes its whole time.
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let ticket = crate::lifecycle::silent_ticket(&silent).to_string();
    for args in [&["send", &ticket, "x"][..], &["connect", &ticket]] {
        let args = [args, &["--log", "trace", "--connect-timeout", "5m"]].concat();
        let mut sender = Running::start(&mut home.command(&args));
        sender.until_stderr("probe sent");
        sender.signal("INT");
        assert_eq!(sender.end().exit_code, Some(130));
    }
}
