//! A network namespace that ends with its owner, or else with the next lab.

use std::{
    env, fs,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU32, Ordering},
};

use super::command::{ip, run};

/// Where `ip netns` keeps its names.
const NAMES: &str = "/run/netns";

/// A namespace of this process.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// A new, empty one, without IPv6 and without doubts about where packets come from.
    pub fn new(label: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("p2p{}-{number}-{label}", process::id());
        ip(&format!("netns add {name}"));
        let namespace = Self { name };
        namespace.ip("link set lo up");
        for setting in [
            "net.ipv6.conf.all.disable_ipv6=1",
            "net.ipv6.conf.default.disable_ipv6=1",
            "net.ipv4.conf.all.rp_filter=0",
            "net.ipv4.conf.default.rp_filter=0",
        ] {
            namespace.set(setting);
        }
        namespace
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// A directory that ends with it, for what its programs keep: machines do not share files.
    pub fn directory(&self) -> PathBuf {
        let directory = directory_of(&self.name);
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
        directory
    }

    /// Runs `ip` in it.
    pub fn ip(&self, arguments: &str) -> String {
        ip(&format!("-n {} {arguments}", self.name))
    }

    /// Loads a set of nftables rules.
    pub fn load_rules(&self, rules: &str) {
        run("ip", &format!("netns exec {} nft -f -", self.name), rules)
            .unwrap_or_else(|complaint| panic!("{complaint}\n{rules}"));
    }

    /// Sets a `sysctl`.
    pub fn set(&self, setting: &str) {
        let (key, value) = setting.split_once('=').expect("a setting is key=value");
        let path = format!("/proc/sys/{}", key.replace('.', "/"));
        let arguments = format!("netns exec {} tee {path}", self.name);
        run("ip", &arguments, value).unwrap_or_else(|complaint| panic!("{complaint}"));
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name);
    }
}

/// The namespaces of the process `owner`.
pub fn names_of(owner: u32) -> Vec<String> {
    let mut names = all_names();
    names.retain(|name| owner_of(name) == Some(owner));
    names
}

/// Removes what labs of processes that are no more have left behind.
pub fn sweep() {
    for name in all_names() {
        let owner = owner_of(&name);
        if owner.is_some_and(|owner| !Path::new(&format!("/proc/{owner}")).exists()) {
            remove(&name);
        }
    }
}

fn all_names() -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMES) else {
        return Vec::new();
    };
    entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect()
}

/// 4711 for `p2p4711-0-core`.
fn owner_of(name: &str) -> Option<u32> {
    let (owner, _) = name.strip_prefix("p2p")?.split_once('-')?;
    owner.parse().ok()
}

/// Ends what runs in the namespace, then the namespace. Two sweeps may meet, so neither step must succeed.
fn remove(name: &str) {
    let inside = run("ip", &format!("netns pids {name}"), "").unwrap_or_default();
    for pid in inside.split_whitespace() {
        let _ = run("kill", &format!("-KILL {pid}"), "");
    }
    let _ = run("ip", &format!("netns delete {name}"), "");
    let _ = fs::remove_dir_all(directory_of(name));
}

fn directory_of(name: &str) -> PathBuf {
    env::temp_dir().join(name)
}
