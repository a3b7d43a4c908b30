//! The program as a user's shell sees it: what it prints, what it leaves on disk, how it exits.
//!
//! No test here starts a node that may leave this machine: `home` makes every command, and says `none` for
//! the DHT and for STUN, or names a test network on loopback.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]
#![allow(
    clippy::disallowed_methods,
    reason = "real programs take real time, and waits for them have deadlines"
)]

mod home;
#[cfg(unix)]
mod lifecycle;
#[cfg(unix)]
mod oneshot;
mod outbox;
#[cfg(unix)]
mod running;
#[cfg(target_os = "linux")]
mod terminal;

use std::{
    fs::{self, File},
    path::Path,
    process::Command,
};

use home::{Home, Outcome};
use p2p_node::{identity::PeerId, ticket::Ticket};

#[test]
fn help_shows_examples_for_every_command() {
    let home = Home::new("help");
    let listed = home.run(&["--help"]).stdout;
    let commands = listed.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // What goes on in a second line is set in further.
    let commands = commands.lines().filter(|line| !line.starts_with("   "));
    let commands = commands.map(|line| line.split_whitespace().next().unwrap());
    let commands: Vec<&str> = commands.filter(|command| *command != "help").collect();
    assert!(commands.len() >= 10, "{commands:?}");
    let helps = commands.iter().map(|command| vec![*command, "--help"]);
    for args in helps.chain([vec!["--help"], vec!["help", "id"]]) {
        let outcome = home.run(&args);
        assert_eq!(outcome.exit_code, Some(0));
        assert!(outcome.stdout.contains("Examples:\n  p2p-node "), "{args:?}");
    }
}

#[test]
fn the_identity_is_made_once_and_is_the_users_alone() {
    let home = Home::new("id");
    let first = home.run(&["id"]);
    assert_eq!(first.exit_code, Some(0), "{}", first.stderr);
    assert!(first.stdout.trim_end().parse::<PeerId>().is_ok(), "{}", first.stdout);
    assert_eq!(home.run(&["id"]).stdout, first.stdout);
    let text = fs::read_to_string(home.identity()).unwrap();
    assert_eq!(text.len(), 65);
    assert!(text.trim_end().chars().all(|c| c.is_ascii_hexdigit()));
    #[cfg(unix)]
    {
        assert_eq!(mode(&home.identity()), 0o600);
        assert_eq!(mode(home.identity().parent().unwrap()), 0o700);
    }
}

#[test]
fn a_ticket_leads_to_the_identity() {
    let home = Home::new("ticket");
    let file = home.path.join("bob.key");
    let file = file.to_str().unwrap();
    let id = home.run(&["id", "--identity", file]).stdout;
    let ticket = |outcome: Outcome| -> Ticket { outcome.stdout.trim_end().parse().unwrap() };
    let bare = ticket(home.run(&["ticket", "--identity", file]));
    assert_eq!(bare.peer.to_string(), id.trim_end());
    assert!(bare.addresses.is_empty());
    let addressed = home.run(&["ticket", "--identity", file, "--addrs", "192.0.2.1:7", "[::1]:7"]);
    let addresses = ["192.0.2.1:7", "[::1]:7"].map(|address| address.parse().unwrap());
    assert_eq!(ticket(addressed).addresses, addresses);
    assert!(!home.identity().exists(), "only the named file is used");
}

#[cfg(unix)]
#[test]
fn an_identity_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt;

    let home = Home::new("permissions");
    home.run(&["id"]);
    fs::set_permissions(home.identity(), fs::Permissions::from_mode(0o640)).unwrap();
    let outcome = home.run(&["id"]);
    assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (Some(3), ""));
    let remedy = format!("  try: chmod 600 '{}'\n", home.identity().display());
    assert!(outcome.stderr.starts_with("error[key_permissions]: "), "{}", outcome.stderr);
    assert!(outcome.stderr.ends_with(&remedy), "{}", outcome.stderr);
    let outcome = home.run_node(&["--mode", "server"]);
    assert_eq!(outcome.exit_code, Some(3));
    assert_eq!(outcome.events(), ["hello", "error", "bye"]);
    assert!(outcome.stdout.contains(r#""code":"key_permissions""#));
}

#[test]
fn a_damaged_identity_is_not_replaced() {
    let home = Home::new("damaged");
    home.run(&["id"]);
    let file = fs::OpenOptions::new().write(true).truncate(true).open(home.identity());
    drop(file.unwrap());
    let outcome = home.run(&["id"]);
    assert_eq!(outcome.exit_code, Some(3));
    assert!(outcome.stderr.starts_with("error[key_unreadable]: "), "{}", outcome.stderr);
    assert_eq!(fs::read(home.identity()).unwrap(), b"");
}

#[test]
fn two_nodes_do_not_run_with_one_identity() {
    let home = Home::new("in-use");
    let id = home.run(&["id"]).stdout;
    // What the other node does.
    let lock = File::create(home.identity().with_file_name("identity.key.lock")).unwrap();
    lock.try_lock().unwrap();
    let outcome = home.run_node(&["--mode", "server"]);
    assert_eq!(outcome.exit_code, Some(3));
    assert_eq!(outcome.events(), ["hello", "error", "bye"]);
    assert!(outcome.stdout.contains(r#""code":"key_in_use""#), "{}", outcome.stdout);
    assert_eq!(home.run(&["id"]).stdout, id, "it can be looked at");
}

#[test]
fn a_client_leaves_no_identity_behind() {
    let home = Home::new("client");
    let outcome = home.run_node(&["--mode", "client"]);
    assert_eq!(outcome.events()[0], "hello");
    assert!(!home.identity().exists());
}

#[test]
fn a_secret_file_without_a_secret_is_refused() {
    let home = Home::new("secret");
    let file = home.path.join("secret");
    for content in [None, Some("\n")] {
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let secret = ["--service-secret-file", file.to_str().unwrap()];
        let outcome = home.run_node(&[&["--service", "myapi:v1"], &secret[..]].concat());
        assert_eq!(outcome.exit_code, Some(3));
        assert!(outcome.stdout.contains(r#""code":"config_invalid""#), "{}", outcome.stdout);
    }
}

#[test]
fn completions_are_scripts_that_their_shells_take() {
    let home = Home::new("completions");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let outcome = home.run(&["completions", shell]);
        assert_eq!(outcome.exit_code, Some(0));
        for word in ["testnet", "stdin-eof"] {
            assert!(outcome.stdout.contains(word), "{shell}: {word}");
        }
    }
    let script = home.path.join("completions.bash");
    fs::write(&script, home.run(&["completions", "bash"]).stdout).unwrap();
    let read = Command::new("bash").arg("-n").arg(&script).status();
    assert!(read.unwrap().success());
}

#[test]
fn the_schemas_can_be_had_without_the_sources() {
    let home = Home::new("schema");
    let schema: serde_json::Value = serde_json::from_str(&home.run(&["schema"]).stdout).unwrap();
    assert_eq!(schema["title"], "p2p-stdio/1");
    let folder = home.path.join("proto");
    assert_eq!(home.run(&["schema", "--proto", folder.to_str().unwrap()]).exit_code, Some(0));
    let printed = home.run(&["schema", "--proto"]).stdout;
    for name in ["stdio.proto", "message.proto"] {
        let written = fs::read_to_string(folder.join(name)).unwrap();
        assert!(written.contains("syntax = \"proto3\";") && printed.contains(&written), "{name}");
    }
}

#[test]
fn the_manual_has_a_page_for_every_command() {
    let home = Home::new("manual");
    let page = home.run(&["man"]);
    assert_eq!(page.exit_code, Some(0));
    for heading in [".SH NAME", ".SH SYNOPSIS", ".SH OPTIONS", ".SH SUBCOMMANDS"] {
        assert!(page.stdout.contains(heading), "{heading}");
    }
    let folder = home.path.join("man");
    assert_eq!(home.run(&["man", folder.to_str().unwrap()]).exit_code, Some(0));
    let send = fs::read_to_string(folder.join("p2p-node-send.1")).unwrap();
    assert!(send.contains("16 MiB at most"), "{send}");
    let nowhere = home.run(&["man", "/dev/null/folder"]);
    assert_eq!(nowhere.exit_code, Some(3));
    assert!(nowhere.stderr.starts_with("error[config_invalid]: "), "{}", nowhere.stderr);
}

#[test]
fn wrong_usage_is_told_on_stderr_and_nothing_starts() {
    let home = Home::new("usage");
    for args in [
        &["--colour"][..],
        &["--mode", "both"],
        &["--service", "two words"],
        &["--service-secret-file", "secret"],
        &["--stun", "stun.example.org"],
        &["--dht-bootstrap", "none,127.0.0.1:1"],
        &["--identity", "a.key", "--ephemeral"],
        &["--allow", "bob"],
        &["--connect", "p2p1broken"],
        &["--connect-timeout", "0"],
        &["--bind", "localhost"],
        &["--log", "p2p_node=loud"],
        &["--stdio", "morse"],
        &["--stdin-eof", "wait"],
        &["--parent-pid", "0"],
        &["--connect", "service", "--connect-file", "ticket"],
        &["--color", "sometimes"],
        &["ticket", "--addrs", "here"],
        &["dance"],
    ] {
        let outcome = home.run(args);
        assert_eq!((outcome.exit_code, outcome.stdout.as_str()), (Some(2), ""), "{args:?}");
        assert!(outcome.stderr.starts_with("error: "), "{args:?}: {}", outcome.stderr);
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_default() {
    let home = Home::new("precedence");
    let mode = |command: &mut Command| {
        let outcome = Outcome::of(command.output().unwrap());
        let hello: serde_json::Value =
            serde_json::from_str(outcome.stdout.lines().next().unwrap()).unwrap();
        hello["mode"].as_str().unwrap().to_owned()
    };
    assert_eq!(mode(&mut home.node_command(&[])), "client");
    assert_eq!(mode(home.node_command(&[]).env("P2P_NODE_MODE", "server")), "server");
    let both = &mut home.node_command(&["--mode", "client"]);
    assert_eq!(mode(both.env("P2P_NODE_MODE", "server")), "client");
}

#[test]
fn a_typed_identity_choice_wins_over_an_inherited_one() {
    let home = Home::new("choice");
    let file = home.path.join("kept.key");
    let ephemeral = &mut home.node_command(&["--ephemeral", "--mode", "server"]);
    ephemeral.env("P2P_NODE_IDENTITY", &file).output().unwrap();
    assert!(!file.exists());
    let kept = &mut home.node_command(&["--identity", file.to_str().unwrap()]);
    kept.env("P2P_NODE_EPHEMERAL", "true").output().unwrap();
    assert!(file.exists());
}

#[test]
fn logs_never_reach_stdout() {
    let home = Home::new("logs");
    let outcome = home.run_node(&["--log", "trace", "--mode", "server", "--ephemeral"]);
    assert_eq!(outcome.events()[0], "hello");
    assert!(!outcome.stderr.is_empty());
}

#[cfg(unix)]
fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;

    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
