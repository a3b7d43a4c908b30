//! The documents do what they say: their commands run, their links lead somewhere, their tables are the
//! program's own.
//!
//! Everything is started by [`shell::Home`], which keeps every program off the public network: against a
//! test network on loopback, or none at all.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that cannot go on fails")]
#![allow(
    clippy::disallowed_methods,
    reason = "real programs take real time, and waits for them have deadlines"
)]

mod codes;
mod markdown;
mod reference;
mod schema;
#[cfg(unix)]
mod shell;
#[cfg(unix)]
mod stories;

use markdown::Document;

/// What becomes of a documented command.
enum Fate {
    /// A story of `stories` runs it.
    Run,
    /// It is not run, because of this.
    NotRun(&'static str),
}

use Fate::{NotRun, Run};

const DEMO: &str = "cargo run --release --bin p2p-node -- demo";
const DEMO_OPENED: &str =
    "cargo run --release --bin p2p-node -- demo --nat symmetric --peer-nat full-cone";
const DEMO_CLOSED: &str =
    "cargo run --release --bin p2p-node -- demo --nat symmetric --peer-nat symmetric";
const PYTHON_SERVER: &str = "python3 python/p2p_server.py";
const PYTHON_CLIENT: &str = "python3 python/p2p_client.py";
const PYTHON_SERVICE_SERVER: &str = "python3 python/p2p_server.py --service myapi:v1";
const PYTHON_SERVICE_CLIENT: &str = "python3 python/p2p_client.py --service myapi:v1";
const MAKE_SECRET: &str = "head -c 32 /dev/urandom | base64 > secret.txt";
const HIDE_SECRET: &str = "chmod 600 secret.txt";
const SECRET_SERVER: &str =
    "p2p-node --mode server --service myapi:v1 --service-secret-file secret.txt";
const SECRET_CLIENT: &str =
    "p2p-node --mode client --service myapi:v1 --service-secret-file secret.txt";
const TICKET: &str = "p2p-node ticket";
const SERVER: &str = "p2p-node --mode server --service myapi:v1";
const CLIENT: &str = "p2p-node --mode client --service myapi:v1";
const PIPED: &str = "echo 'say service hello' | p2p-node --service myapi:v1";
const SERVICE: &str = "p2p-node --mode server --service myapi:v1 --stdin-eof ignore < /dev/null";
const LISTEN: &str = "p2p-node listen --service myapi:v1 --count 2";
const SEND: &str = "p2p-node send service:myapi:v1 hello";
const SEND_PIPED: &str = "echo 'any bytes, up to 16 MiB' | p2p-node send service:myapi:v1 -";
const PING: &str = "p2p-node ping service:myapi:v1 --count 2";
const CONNECT: &str = "p2p-node connect -v service:myapi:v1";
const TESTNET: &str = "p2p-node testnet";

/// Every command in a `bash` block of README.md and QUICKSTART.md.
const COMMANDS: [(&str, Fate); 24] = [
    (DEMO, Run),
    (DEMO_OPENED, Run),
    (DEMO_CLOSED, Run),
    ("tests/run", NotRun("it runs this test")),
    ("cargo build --bin p2p-node", NotRun("the program that it builds is the one that is tested")),
    (PYTHON_SERVER, Run),
    (PYTHON_CLIENT, Run),
    (PYTHON_SERVICE_SERVER, Run),
    (PYTHON_SERVICE_CLIENT, Run),
    (MAKE_SECRET, Run),
    (HIDE_SECRET, Run),
    (SECRET_SERVER, Run),
    (SECRET_CLIENT, Run),
    (TICKET, Run),
    (SERVER, Run),
    (CLIENT, Run),
    (PIPED, Run),
    (SERVICE, Run),
    (LISTEN, Run),
    (SEND, Run),
    (SEND_PIPED, Run),
    (CONNECT, Run),
    (PING, Run),
    (TESTNET, Run),
];

#[test]
fn every_documented_command_is_run_or_says_why_not() {
    let documents = ["README.md", "QUICKSTART.md"].map(Document::read);
    let documented: Vec<String> = documents
        .iter()
        .flat_map(|document| document.blocks("bash"))
        .flat_map(|block| markdown::commands(&block))
        .collect();
    assert!(!documented.is_empty());
    for command in &documented {
        let fate = COMMANDS.iter().find(|(known, _)| known == command);
        assert!(fate.is_some(), "nothing is said of `{command}`");
    }
    for (command, fate) in &COMMANDS {
        assert!(
            documented.iter().any(|documented| documented == command),
            "no document has `{command}` any more"
        );
        if let NotRun(reason) = fate {
            assert!(!reason.is_empty());
        }
    }
}

#[test]
fn every_relative_link_leads_somewhere() {
    let mut links = 0;
    for document in Document::all() {
        for link in document.links() {
            links += 1;
            let broken = document.broken(&link);
            assert!(broken.is_none(), "{}: {link}: {broken:?}", document.path);
        }
    }
    assert!(links > 20, "{links} links were found");
}

#[test]
fn the_quick_start_asks_for_the_compiler_that_is_needed() {
    let manifest = markdown::text("Cargo.toml");
    let version = manifest
        .lines()
        .find_map(|line| line.strip_prefix("rust-version = "))
        .unwrap()
        .trim_matches('"');
    let needs = format!("Rust ({version} or newer)");
    assert!(markdown::text("QUICKSTART.md").contains(&needs), "{needs}");
}
