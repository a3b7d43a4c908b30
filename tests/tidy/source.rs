//! The source tree as the rules see it: files, their code without tests, and the names in it.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

/// One file of the tree.
pub(crate) struct File {
    /// From the root of the repository, with `/`.
    pub(crate) path: String,
    pub(crate) text: String,
    /// Whether it is compiled for tests only, as its parent says.
    pub(crate) for_tests: bool,
}

impl File {
    /// The path below `src/`.
    pub(crate) fn path_in_src(&self) -> &str {
        self.path.strip_prefix("src/").unwrap_or(&self.path)
    }

    /// The text without what is compiled for tests only.
    pub(crate) fn code(&self) -> String {
        if self.for_tests {
            return String::new();
        }
        without_tests(&self.text)
    }

    /// The code's lines with their numbers, comments left out.
    pub(crate) fn statements(&self) -> impl Iterator<Item = (usize, &str)> {
        let numbers = self.code().lines().count();
        let lines = self.text.lines().zip(1..).take(numbers);
        lines.map(|(line, number)| (number, line)).filter(|(_, line)| !is_comment(line))
    }

    /// The modules that it declares for tests only, as paths without `.rs`.
    fn test_modules(&self) -> Vec<String> {
        let path = self.path.trim_end_matches(".rs");
        let folder = ["/mod", "/lib", "/main"]
            .iter()
            .find_map(|root| path.strip_suffix(root))
            .unwrap_or(path);
        let lines: Vec<_> = self.text.lines().map(str::trim).collect();
        lines
            .windows(2)
            .filter_map(|pair| match pair {
                ["#[cfg(test)]", declaration] => {
                    declaration.strip_prefix("mod ")?.strip_suffix(';')
                }
                _ => None,
            })
            .map(|module| format!("{folder}/{module}"))
            .collect()
    }

    /// The names at the root of the crate that the code leads to, by whatever path.
    pub(crate) fn names_at_crate_root(&self) -> BTreeSet<String> {
        let code = self.code();
        let code: Vec<_> = code.lines().filter(|line| !is_comment(line)).collect();
        let code = code.join("\n");
        let inside = self.path_in_src();
        let depth = inside.matches('/').count() + usize::from(!inside.ends_with("mod.rs"));
        // From `src/nat/punch.rs`, two levels below the root, `super::super::` is the root.
        let above_root = "super::".repeat(depth);
        let mut names = names_after(&code, "crate::");
        names.extend(names_after(&code, "p2p_node::"));
        names.extend(names_after(&code, &above_root));
        names.remove("super");
        names
    }
}

/// What follows `prefix`, alone or in a group: `dht` and `nat` in `crate::{dht::Key, nat}`.
pub(crate) fn names_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let (before, rest) = (&code[..at], &code[at + prefix.len()..]);
        // `other_crate::x` and `self::super::x` end in the prefix without being it.
        if before.ends_with(|c: char| is_word(c) || c == ':') {
            continue;
        }
        match rest.strip_prefix('{') {
            None => names.extend(first_word(rest)),
            Some(group) => names.extend(heads(group)),
        }
    }
    names
}

/// The first word of each entry of a group, up to its closing brace; inner groups are skipped.
fn heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 0;
    for entry in group.split_inclusive([',', '{', '}']) {
        if depth == 0 {
            heads.extend(first_word(entry.trim_start()));
        }
        match entry.chars().last() {
            Some('{') => depth += 1,
            Some('}') if depth == 0 => break,
            Some('}') => depth -= 1,
            _ => {}
        }
    }
    heads
}

fn first_word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| is_word(*c)).collect();
    (!word.is_empty()).then_some(word)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Whether `word` stands in `line` on its own, not as the end or the beginning of a longer one.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word)
    })
}

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// The text up to its test module; single items for tests are left out where they stand.
fn without_tests(text: &str) -> String {
    let mut code = Vec::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line.trim() != "#[cfg(test)]" {
            code.push(line);
            continue;
        }
        match lines.peek() {
            Some(item) if item.trim_end().ends_with(';') => {
                // The lines keep their numbers.
                code.extend(["", ""]);
                lines.next();
            }
            _ => break,
        }
    }
    code.join("\n")
}

/// What stands in single backticks.
pub(crate) fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// The root of the repository.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: &str) -> io::Result<String> {
    fs::read_to_string(root().join(path))
}

/// The `.rs` files below `folder`, in order of their paths; none if there is no such folder.
pub(crate) fn rust_files(folder: &str) -> Vec<File> {
    let mut files = text_files(folder, &["rs"]);
    mark_tests(&mut files);
    files
}

/// Marks the files of modules that are declared for tests only, and what lies below them.
fn mark_tests(files: &mut [File]) {
    let modules: Vec<_> = files.iter().flat_map(File::test_modules).collect();
    for file in files {
        let path = Path::new(&file.path);
        file.for_tests = modules
            .iter()
            .any(|module| path.with_extension("") == Path::new(module) || path.starts_with(module));
    }
}

/// The files below `folder` whose names end so.
pub(crate) fn text_files(folder: &str, extensions: &[&str]) -> Vec<File> {
    let mut paths = Vec::new();
    collect(&root().join(folder), &mut paths);
    paths.sort();
    paths
        .into_iter()
        .filter(|path| {
            let extension = path.extension().and_then(|extension| extension.to_str());
            extension.is_some_and(|extension| extensions.contains(&extension))
        })
        .map(|path| File {
            text: fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}")),
            path: from_root(&path),
            for_tests: false,
        })
        .collect()
}

/// The folders and files directly in `folder`.
pub(crate) fn entries(folder: &str) -> Vec<String> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder is part of the repository");
    entries.map(|entry| from_root(&entry.expect("the folder can be listed").path())).collect()
}

fn collect(folder: &Path, paths: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    for path in entries.map(|entry| entry.expect("the folder can be listed").path()) {
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        match path.is_dir() {
            true if !hidden => collect(&path, paths),
            true => {}
            false => paths.push(path),
        }
    }
}

fn from_root(path: &Path) -> String {
    let path = path.strip_prefix(root()).unwrap_or(path);
    path.to_string_lossy().replace('\\', "/")
}

#[test]
fn names_are_found_alone_and_in_groups() {
    let code = "use crate::{\n    nat::punch::{self, Punch, deep::{a, b}},\n    time,\n};\nfn f(_: crate::dht::Id) {}";
    assert_eq!(names_after(code, "crate::"), set(&["dht", "nat", "time"]));
    assert_eq!(names_after("use crate::{node}; use x::{bridge};", "crate::"), set(&["node"]));
    assert_eq!(names_after("my_crate::nat; ::crate::nat", "crate::"), set(&[]));
}

#[test]
fn the_root_is_also_reached_by_climbing() {
    let names = |path: &str, text: &str| file(path, text).names_at_crate_root();
    assert_eq!(names("src/nat/mod.rs", "use super::dht::Key;"), set(&["dht"]));
    assert_eq!(names("src/nat/punch.rs", "use super::stun;"), set(&[]));
    assert_eq!(names("src/nat/punch.rs", "use super::super::{dht, node};"), set(&["dht", "node"]));
    assert_eq!(names("src/ticket.rs", "use super::nat;"), set(&["nat"]));
    assert_eq!(
        names("src/bin/p2p-node/main.rs", "use p2p_node::{bridge, node::Node};"),
        set(&["bridge", "node"])
    );
    assert_eq!(names("src/nat/mod.rs", "//! See [`crate::node`].\n/// And crate::dht\n"), set(&[]));
}

#[test]
fn code_ends_where_its_tests_begin() {
    let text = "fn a() {}\n#[cfg(test)]\nmod lab_tests;\nfn b() {}\n#[cfg(test)]\nmod tests {\n fn c() {}\n}";
    assert_eq!(without_tests(text), "fn a() {}\n\n\nfn b() {}");
}

#[test]
fn modules_for_tests_are_known_by_their_parents_word() {
    let mut files = [
        file("src/nat/mod.rs", "mod stun;\n#[cfg(test)]\nmod world;\n"),
        file("src/nat/stun.rs", "#[cfg(test)]\nmod servers;"),
        file("src/nat/stun/servers.rs", ""),
        file("src/nat/world/mod.rs", ""),
        file("src/nat/world/homes.rs", ""),
        file("src/nat/worldly.rs", ""),
    ];
    mark_tests(&mut files);
    let for_tests = files.map(|file| file.for_tests);
    assert_eq!(for_tests, [false, false, true, true, true, false]);
}

#[test]
fn words_stand_on_their_own() {
    assert!(has_word("use std::net::UdpSocket;", "UdpSocket"));
    assert!(!has_word("impl AsyncUdpSocket for Socket {", "UdpSocket"));
    assert!(!has_word("UdpSocketState", "UdpSocket"));
    assert!(has_word("tokio::time::Instant::now()", "Instant::now"));
}

#[test]
fn quotes_are_read_line_by_line() {
    let quotes: Vec<_> = quoted("the `src/nat/` and `src/lib.rs`,\nan odd `").collect();
    assert_eq!(quotes, ["src/nat/", "src/lib.rs", ""]);
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn file(path: &str, text: &str) -> File {
    File { path: path.to_owned(), text: text.to_owned(), for_tests: false }
}
