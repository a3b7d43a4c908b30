//! A user's shell, home and network; and the programs that run there, which end with the story.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    os::unix::{fs::symlink, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::markdown::root;

/// What keeps programs off the public network. Every node has both.
const NETWORK_VARIABLES: [&str; 2] = ["P2P_NODE_DHT_BOOTSTRAP", "P2P_NODE_STUN"];

/// A network that a program may use: never the public one.
#[derive(Clone)]
pub(crate) struct Network {
    /// In the order of [`NETWORK_VARIABLES`].
    values: [String; 2],
}

impl Network {
    /// Nothing but this machine.
    pub(crate) fn none() -> Self {
        Self { values: ["none", "none"].map(ToOwned::to_owned) }
    }

    /// The network that `p2p-node testnet` announces in its first line.
    pub(crate) fn announced(line: &str) -> Self {
        let announcement: Value = serde_json::from_str(line).unwrap();
        let servers = |name: &str| -> String {
            let servers = announcement[name].as_array().unwrap().iter();
            let servers: Vec<_> = servers.map(|server| server.as_str().unwrap()).collect();
            assert!(servers.iter().all(|server| server.starts_with("127.0.0.1:")));
            servers.join(",")
        };
        let values = ["bootstrap", "stun"].map(servers);
        assert!(values.iter().all(|value| !value.is_empty()), "{line}");
        Self { values }
    }
}

/// A user on a machine: a folder to work in, and folders of their own for what programs keep.
pub(crate) struct Home {
    folder: PathBuf,
    user: &'static str,
    network: Network,
}

impl Home {
    /// A user in a new folder, which has the repository's `python` in it.
    pub(crate) fn new(story: &str, network: &Network) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("docs-{story}"));
        // What an earlier run left.
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(folder.join("bin")).unwrap();
        symlink(root().join("python"), folder.join("python")).unwrap();
        symlink(env!("CARGO_BIN_EXE_p2p-node"), folder.join("bin/p2p-node")).unwrap();
        Self::at(folder, "user", network.clone())
    }

    /// The same folder, as if on another machine: nothing else is shared.
    pub(crate) fn elsewhere(&self) -> Self {
        Self::at(self.folder.clone(), "other", self.network.clone())
    }

    fn at(folder: PathBuf, user: &'static str, network: Network) -> Self {
        fs::create_dir_all(folder.join(user).join("run")).unwrap();
        Self { folder, user, network }
    }

    /// The folder that is its alone.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join(self.user)
    }

    /// Starts a documented command, as a shell would.
    pub(crate) fn start(&self, line: &str) -> Running {
        Running::of(&mut self.command(line))
    }

    /// Runs a documented command to its end.
    pub(crate) fn run(&self, line: &str, within: Duration) -> Ended {
        let mut running = self.start(line);
        drop(running.stdin.take());
        running.end(within)
    }

    /// The only place that makes a command which may become a node.
    fn command(&self, line: &str) -> Command {
        let line = line.replace("cargo run --release --bin p2p-node --", "p2p-node");
        // A pipeline needs the shell to stay; everything else takes its place, and its signals.
        let line = if line.contains('|') { line } else { format!("exec {line}") };
        let own = |name: &str| self.path().join(name);
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new("bash");
        command
            .args(["-c", &line])
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", format!("{}:{path}", self.folder.join("bin").display()))
            .env("HOME", self.path())
            .env("XDG_DATA_HOME", own("data"))
            .env("XDG_RUNTIME_DIR", own("run"))
            .env("P2P_NODE_BIN", env!("CARGO_BIN_EXE_p2p-node"))
            .env("P2P_NODE_BIND", "127.0.0.1")
            .env("P2P_NODE_NO_LAN", "1")
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .envs(NETWORK_VARIABLES.into_iter().zip(&self.network.values))
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

/// A program at work. Dropping it ends it, and all that it started in its group.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: mpsc::Receiver<(Stream, String)>,
    heard: Vec<(Stream, String)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stream {
    Out,
    Err,
}

/// A program that has ended.
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Running {
    fn of(command: &mut Command) -> Self {
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let (sender, lines) = mpsc::channel();
        read(child.stdout.take().unwrap(), Stream::Out, sender.clone());
        read(child.stderr.take().unwrap(), Stream::Err, sender);
        Self { stdin: child.stdin.take(), child, lines, heard: Vec::new() }
    }

    /// Types a line.
    pub(crate) fn type_line(&mut self, line: &str) {
        // It may have ended: then the wait for what it says to this tells why.
        let _ = writeln!(self.stdin.as_mut().unwrap(), "{line}");
    }

    /// The next line on stdout that is wanted; those before it are passed over.
    pub(crate) fn until<T>(&mut self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((stream, line)) = self.lines.recv_timeout(left) else {
                panic!("no {what}; instead:\n{}", self.said());
            };
            let found = wanted(&line).filter(|_| stream == Stream::Out);
            self.heard.push((stream, line));
            if let Some(found) = found {
                return found;
            }
        }
    }

    /// The next line on stderr with this in it.
    pub(crate) fn notice(&mut self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok((stream, line)) = self.lines.recv_timeout(left) else {
                panic!("no {wanted}; instead:\n{}", self.said());
            };
            let is_wanted = stream == Stream::Err && line.contains(wanted);
            self.heard.push((stream, line));
            if is_wanted {
                return;
            }
        }
    }

    /// What a service manager does.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// The next event of this name.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        self.until(name, |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            (event["event"] == name).then_some(event)
        })
    }

    /// The answer to the next command.
    pub(crate) fn answer(&mut self) -> Value {
        self.until("answer", |line| {
            let event: Value = serde_json::from_str(line).ok()?;
            let is_answer = event["event"] == "ok" || event["event"] == "error";
            is_answer.then_some(event)
        })
    }

    /// What Ctrl-C does.
    pub(crate) fn interrupt(&self) {
        self.signal("INT");
    }

    /// Waits for the end.
    pub(crate) fn end(mut self, within: Duration) -> Ended {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => self.heard.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    panic!("no end within {within:?}:\n{}", self.said())
                }
            }
        }
        Ended {
            code: self.child.wait().unwrap().code(),
            stdout: self.text(Stream::Out),
            stderr: self.text(Stream::Err),
        }
    }

    fn text(&self, wanted: Stream) -> String {
        let lines = self.heard.iter().filter(|(stream, _)| *stream == wanted);
        lines.map(|(_, line)| format!("{line}\n")).collect()
    }

    fn said(&self) -> String {
        self.heard.iter().map(|(_, line)| format!("  {line}\n")).collect()
    }

    fn signal(&self, name: &str) {
        let group = format!("-{}", self.child.id());
        let kill = Command::new("kill").args(["-s", name, "--", &group]).output();
        // The group may be gone already.
        let _ = kill;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What was waited for has no group any more that would be ours.
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            self.signal("KILL");
            let _ = self.child.wait();
        }
    }
}

fn read(from: impl Read + Send + 'static, stream: Stream, to: mpsc::Sender<(Stream, String)>) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if to.send((stream, line)).is_err() {
                return;
            }
        }
    });
}

/// How long a story waits for one thing to happen: far more than it takes.
const PATIENCE: Duration = Duration::from_secs(40);

#[test]
fn no_program_is_started_with_the_public_network() {
    for network in [
        Network::none(),
        Network::announced(r#"{"bootstrap":["127.0.0.1:1"],"stun":["127.0.0.1:2"]}"#),
    ] {
        let command = Home::new("guard", &network).command("p2p-node");
        for (variable, value) in NETWORK_VARIABLES.into_iter().zip(&network.values) {
            let set = command.get_envs().find(|(name, _)| *name == variable);
            assert_eq!(set.unwrap().1.unwrap().to_str(), Some(value.as_str()));
        }
    }
    // And no other place starts any: `kill` here, and `--help` in `reference`.
    let starts = |file: &str| crate::markdown::text(file).matches("Command::new(").count();
    // The pattern above is one of them.
    assert_eq!(starts("tests/docs/shell.rs"), 3);
    assert_eq!(starts("tests/docs/reference.rs"), 1);
    assert_eq!(starts("tests/docs/stories.rs") + starts("tests/docs/markdown.rs"), 0);
}
