//! Rules about the source itself, held like any other promise.
//!
//! ARCHITECTURE.md says what may name what; `source.rs` reads the files; here stand the rules. A rule
//! prints every place that breaks it, not only the first.

mod source;

use std::{collections::BTreeSet, path::Path};

use source::{File, rust_files, text_files};

/// Lines of code, tests not counted, beyond which a part of a file wants its own name.
const LINES_MAX: usize = 500;

/// Parts of the crate with directions of their own. Every other file at the root is vocabulary.
const PARTS: [&str; 7] = ["nat", "dht", "transport", "node", "bridge", "lab", "bin"];

/// Words that reach outside the program.
const EFFECTS: [&str; 9] = [
    "Instant::now",
    "SystemTime::now",
    "UdpSocket",
    "spawn_blocking",
    "std::env",
    "std::fs",
    "std::process",
    "thread::spawn",
    "tokio::spawn",
];

/// The shell: the files, and the folders with a closing slash, that may name [`EFFECTS`].
const SHELL: [&str; 18] = [
    "bin/",
    "dht/mainline/driver.rs",
    "dht/mainline/keeper.rs",
    "dht/mainline.rs",
    "dht/memory.rs",
    "dht/rendezvous.rs",
    "dht/testnet.rs",
    "lab/",
    "node/clock.rs",
    "node/start.rs",
    "transport/link.rs",
    "transport/link/handshake.rs",
    "transport/link/tasks.rs",
    "transport/quic.rs",
    "transport/session.rs",
    "transport/session/carrier.rs",
    "transport/sockets/socket_set.rs",
    "transport/sockets/udp.rs",
];

/// Words that mark unfinished work. Spelled in halves, for this file is read too.
const UNFINISHED: [&str; 5] = [
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
    concat!("#[ig", "nore"),
];

#[test]
fn every_file_says_what_it_is_for() {
    let silent = rust_files("src")
        .into_iter()
        .chain(rust_files("tests"))
        .chain(rust_files("benches"))
        .filter(|file| !file.text.starts_with("//!"))
        .map(|file| format!("{} does not begin with `//!`", file.path));
    none(silent);
}

#[test]
fn no_file_outgrows_its_name() {
    let large = rust_files("src").into_iter().filter_map(|file| {
        let lines = file.code().lines().count();
        (lines > LINES_MAX).then(|| format!("{} has {lines} lines of code", file.path))
    });
    none(large);
}

#[test]
fn parts_name_only_what_they_rest_on() {
    let wrong = rust_files("src").into_iter().flat_map(|file| {
        let own = part_of(&file).to_owned();
        let named = file.names_at_crate_root();
        named
            .into_iter()
            .filter(|name| !may_name(&own, name))
            .map(|name| format!("{} names `{name}`, which `{own}` may not", file.path))
            .collect::<Vec<_>>()
    });
    none(wrong);
}

#[test]
fn effects_stay_in_the_shell() {
    let effects = rust_files("src").into_iter().filter(|file| !is_shell(file)).flat_map(|file| {
        file.statements()
            .flat_map(|(number, line)| {
                EFFECTS
                    .iter()
                    .filter(|effect| source::has_word(line, effect))
                    .map(|effect| format!("{}:{number} names `{effect}`", file.path))
                    .collect::<Vec<_>>()
            })
            .collect::<Vec<_>>()
    });
    none(effects);
}

#[test]
fn nothing_is_left_open() {
    let open = ["src", "tests", "benches", "python", "proto"]
        .into_iter()
        .flat_map(|folder| text_files(folder, &["rs", "py", "proto"]))
        .flat_map(|file| {
            file.text
                .lines()
                .zip(1..)
                .filter(|(line, _)| UNFINISHED.iter().any(|word| line.contains(word)))
                .map(|(line, number)| format!("{}:{number} {}", file.path, line.trim()))
                .collect::<Vec<_>>()
        });
    none(open);
}

#[test]
fn the_code_map_is_the_code() {
    let Ok(map) = source::read("ARCHITECTURE.md") else {
        return;
    };
    let mentioned: BTreeSet<String> = source::quoted(&map)
        .filter(|name| name.starts_with("src/"))
        .map(|name| name.trim_end_matches('/').to_owned())
        .collect();
    let dead = mentioned
        .iter()
        .filter(|name| !source::root().join(name).exists())
        .map(|name| format!("ARCHITECTURE.md names `{name}`, which is not there"));
    let missing = source::entries("src")
        .into_iter()
        .filter(|name| !mentioned.iter().any(|path| Path::new(path).starts_with(name)))
        .map(|name| format!("ARCHITECTURE.md does not name `{name}`"));
    none(dead.chain(missing));
}

#[test]
fn directions_are_as_architecture_md_promises() {
    for part in ["nat", "dht", "transport"] {
        assert!(may_name(part, part) && may_name(part, "ticket"));
        assert!(
            ["nat", "dht", "transport"].iter().filter(|other| may_name(part, other)).eq([&part])
        );
        assert!(!may_name(part, "node") && !may_name(part, "lab"));
        assert!(may_name("node", part) && !may_name("bridge", part) && !may_name("ticket", part));
    }
    assert!(may_name("bridge", "node") && may_name("bridge", "failure"));
    assert!(!may_name("node", "bridge") && !may_name("node", "lab"));
    assert!(may_name("lab", "lab") && !may_name("lab", "time"));
    assert!(may_name("ticket", "identity") && !may_name("ticket", "node"));
    assert!(PARTS.iter().all(|name| may_name("lib", name) && may_name("bin", name)));
}

/// Whether code of the part `own` may name `other`, both being names at the root of the crate.
fn may_name(own: &str, other: &str) -> bool {
    let vocabulary = !PARTS.contains(&other);
    match own {
        "lib" | "bin" => true,
        "lab" => other == "lab",
        "nat" | "dht" | "transport" => vocabulary || other == own,
        "node" => vocabulary || ["node", "nat", "dht", "transport"].contains(&other),
        "bridge" => vocabulary || ["bridge", "node"].contains(&other),
        _ => vocabulary,
    }
}

/// `nat` for `src/nat/punch.rs`, `ticket` for `src/ticket.rs`.
fn part_of(file: &File) -> &str {
    let first = file.path_in_src().split('/').next().unwrap_or_default();
    first.trim_end_matches(".rs")
}

fn is_shell(file: &File) -> bool {
    let path = file.path_in_src();
    SHELL.iter().any(|entry| match entry.strip_suffix('/') {
        Some(folder) => Path::new(path).starts_with(folder),
        None => path == *entry,
    })
}

fn none(faults: impl Iterator<Item = String>) {
    let faults: Vec<_> = faults.collect();
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
}
