//! What the documents say of codes, flags, commands, events and tests is what there is.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use p2p_node::{
    bridge::{
        exit::exit_code,
        grammar::{COMMANDS, EVENTS},
    },
    failure::Code,
};
use serde_json::Value;

use crate::markdown::{Document, root, text};

#[test]
fn every_code_is_documented_as_it_is() {
    let rows = Document::read("PROTOCOL.md").table("code | exit");
    let documented: Vec<[String; 3]> =
        rows.iter().map(|row| [row[0].clone(), row[1].clone(), row[2].clone()]).collect();
    let expected = Code::ALL.map(|code| {
        let again = if code.is_retryable() { "yes" } else { "no" };
        [format!("`{code}`"), exit_code(code).to_string(), again.to_owned()]
    });
    assert_eq!(documented, expected);
    assert!(rows.iter().all(|row| row.len() == 5 && !row[3].is_empty() && !row[4].is_empty()));
}

#[test]
fn codes_that_the_quick_start_explains_exist() {
    for row in Document::read("QUICKSTART.md").table("code") {
        let code = row[0].trim_matches('`');
        assert!(Code::ALL.iter().any(|known| known.as_str() == code), "{code}");
    }
}

#[test]
fn every_command_on_stdin_is_documented() {
    let protocol = Document::read("PROTOCOL.md").quoted();
    for form in COMMANDS {
        assert!(protocol.iter().any(|quoted| quoted == form.usage), "{}", form.usage);
    }
}

#[test]
fn every_event_is_documented_and_shown_in_a_golden_conversation() {
    let names = |events: &[Value]| -> BTreeSet<String> { events.iter().map(name).collect() };
    let documented: Vec<Value> = Document::read("PROTOCOL.md")
        .blocks("json")
        .iter()
        .flat_map(|block| block.lines())
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}")))
        .collect();
    let known: BTreeSet<String> = EVENTS.iter().map(|form| form.event.to_owned()).collect();
    assert_eq!(names(&documented), known);
    assert_eq!(names(&golden_events()), known);
}

#[test]
fn every_flag_and_variable_that_is_documented_exists() {
    let help: String = [&["--help"][..], &["id", "--help"], &["ticket", "--help"]]
        .into_iter()
        .chain([&["demo", "--help"][..], &["testnet", "--help"], &["send", "--help"]])
        .chain([
            &["listen", "--help"][..],
            &["connect", "--help"],
            &["ping", "--help"],
            &["netcheck", "--help"],
            &["schema", "--help"],
        ])
        .map(help)
        .collect();
    let known = words(&help);
    let of_cargo = ["--release", "--bin", "--bench", "--test", "--no-capture", "--nocapture"];
    let of_benches = [
        ["P2P_NODE_BENCH_SEEDS", "P2P_NODE_BENCH_ROUNDS", "P2P_NODE_BENCH_ROWS"].as_slice(),
        &["P2P_NODE_KERNEL_RUNS", "P2P_NODE_KERNEL_CELLS", "--record", "--redraw"],
    ]
    .concat();
    let of_python = ["P2P_NODE_BIN"];
    assert!(of_python.iter().all(|name| text("python/p2p_node/_binary.py").contains(name)));
    for document in Document::all() {
        for word in words(&document.text) {
            let is_ours = word.starts_with("--") || word.starts_with("P2P_NODE_");
            let elsewhere =
                of_cargo.iter().chain(&of_benches).chain(&of_python).any(|known| *known == word);
            let is_known = known.contains(&word) || elsewhere;
            assert!(!is_ours || is_known, "{}: {word}", document.path);
        }
    }
}

#[test]
fn tests_that_the_architecture_relies_on_exist() {
    let sources = [sources("src"), sources("tests")].concat();
    let mut checked = 0;
    for quoted in Document::read("ARCHITECTURE.md").quoted() {
        let is_name = quoted.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        if is_name && quoted.matches('_').count() >= 3 {
            checked += 1;
            assert!(sources.contains(&format!("fn {quoted}(")), "{quoted}");
        }
    }
    assert!(checked > 8, "{checked} names were found");
}

/// The events of the golden conversations.
fn golden_events() -> Vec<Value> {
    let files = fs::read_dir(root().join("tests/transcripts")).unwrap();
    let texts = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let lines: Vec<String> =
        texts.flat_map(|text| text.lines().map(ToOwned::to_owned).collect::<Vec<_>>()).collect();
    let events = lines.iter().filter_map(|line| line.strip_prefix("< "));
    events.map(|event| serde_json::from_str(event).unwrap()).collect()
}

fn name(event: &Value) -> String {
    event["event"].as_str().unwrap().to_owned()
}

/// What the program says of itself.
fn help(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_p2p-node"))
        .args(args)
        .env("P2P_NODE_DHT_BOOTSTRAP", "none")
        .env("P2P_NODE_STUN", "none")
        .env("P2P_NODE_NO_LAN", "1")
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

fn words(text: &str) -> BTreeSet<String> {
    let separate = |c: char| !(c.is_ascii_alphanumeric() || c == '-' || c == '_');
    let words = text.split(separate).filter(|word| word.len() > 2);
    // A placeholder such as `P2P_NODE_*` or the dashes of a table name nothing.
    words
        .filter(|word| !word.ends_with('_') && word.chars().any(|c| c.is_ascii_alphanumeric()))
        .map(ToOwned::to_owned)
        .collect()
}

fn sources(folder: &str) -> String {
    fn collect(folder: &Path, all: &mut String) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, all);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                all.push_str(&fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut all = String::new();
    collect(&root().join(folder), &mut all);
    all
}

#[test]
fn no_test_starts_the_program_with_the_public_network() {
    let program = concat!("env!(\"CARGO_BIN", "_EXE_p2p-node\")");
    let mut checked = 0;
    for folder in fs::read_dir(root().join("tests")).unwrap() {
        let files = fs::read_dir(folder.unwrap().path());
        for file in files.into_iter().flatten().map(|file| file.unwrap().path()) {
            let Ok(source) = fs::read_to_string(&file) else {
                continue;
            };
            if source.contains(program) {
                checked += 1;
                for variable in ["P2P_NODE_DHT_BOOTSTRAP", "P2P_NODE_STUN", "P2P_NODE_NO_LAN"] {
                    assert!(source.contains(variable), "{}: {variable}", file.display());
                }
            }
        }
    }
    assert!(checked >= 3, "{checked} files start it");
}

#[test]
fn the_licences_are_there() {
    let manifest = text("Cargo.toml");
    assert!(manifest.contains(r#"license = "MIT OR Apache-2.0""#));
    assert!(text("LICENSE-MIT").starts_with("MIT License"));
    assert!(text("LICENSE-APACHE").contains("Version 2.0, January 2004"));
}
