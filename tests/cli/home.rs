//! A user's home, and the one place that makes commands: none that leaves this machine.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

/// A user's home that no other test uses.
pub(crate) struct Home {
    pub(crate) path: PathBuf,
}

impl Home {
    pub(crate) fn new(test: &str) -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{test}"));
        // What an earlier run left.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("run")).unwrap();
        Self { path }
    }

    pub(crate) fn identity(&self) -> PathBuf {
        self.path.join("data/p2p-node/identity.key")
    }

    /// The program, in an environment that keeps it on this machine.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_p2p-node"));
        command
            .env_clear()
            .env("HOME", &self.path)
            .env("XDG_DATA_HOME", self.path.join("data"))
            .env("XDG_RUNTIME_DIR", self.path.join("run"))
            .env("P2P_NODE_DHT_BOOTSTRAP", "none")
            .env("P2P_NODE_STUN", "none")
            .env("P2P_NODE_NO_LAN", "1")
            .env("P2P_NODE_BIND", "127.0.0.1")
            .stdin(Stdio::null())
            .args(args);
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.command(args).output().unwrap())
    }

    /// The same where flags win over an environment that a test has changed.
    pub(crate) fn node_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(&["--stun", "none", "--dht-bootstrap", "none"]);
        command.args(["--bind", "127.0.0.1"]).args(args);
        command
    }

    pub(crate) fn run_node(&self, args: &[&str]) -> Outcome {
        Outcome::of(self.node_command(args).output().unwrap())
    }
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) exit_code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Outcome {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            exit_code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The names of the events on stdout; panics if there is anything else.
    pub(crate) fn events(&self) -> Vec<String> {
        let name = |line: &str| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["event"].as_str().unwrap().to_owned()
        };
        self.stdout.lines().map(name).collect()
    }
}
