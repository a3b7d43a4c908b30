//! A program at work: what is typed, what it says, and its end.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::home::Outcome;

/// How long one thing may take on a machine with better things to do.
pub(crate) const PATIENCE: Duration = Duration::from_secs(40);

/// A program at work. Dropping it ends it.
pub(crate) struct Running {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Stream<ChildStdout>,
    stderr: Stream<ChildStderr>,
}

/// An output of the program, read from the moment that somebody wants it.
enum Stream<S> {
    Unread(Option<S>),
    Read { lines: mpsc::Receiver<String>, heard: Vec<String> },
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let piped = [Stdio::piped(), Stdio::piped(), Stdio::piped()];
        let [stdin, stdout, stderr] = piped;
        let mut child = command.stdin(stdin).stdout(stdout).stderr(stderr).spawn().unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: Stream::Unread(child.stdout.take()),
            stderr: Stream::Unread(child.stderr.take()),
            child,
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().unwrap().write_all(bytes).unwrap();
    }

    pub(crate) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Nobody reads stderr any more.
    pub(crate) fn close_stderr(&mut self) {
        self.stderr = Stream::Unread(None);
    }

    /// Gives stdout away.
    pub(crate) fn take_stdout(&mut self) -> ChildStdout {
        match std::mem::replace(&mut self.stdout, Stream::Unread(None)) {
            Stream::Unread(stdout) => stdout.unwrap(),
            Stream::Read { .. } => panic!("stdout is read already"),
        }
    }

    /// The next line on stdout that is wanted; those before it are passed over.
    pub(crate) fn until(&mut self, wanted: &str) -> String {
        self.stdout.until(wanted)
    }

    /// The same on stderr.
    pub(crate) fn until_stderr(&mut self, wanted: &str) -> String {
        self.stderr.until(wanted)
    }

    /// The next event of this name.
    pub(crate) fn event(&mut self, name: &str) -> Value {
        let line = self.until(&format!("\"event\":\"{name}\""));
        serde_json::from_str(&line).unwrap()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(killed.success());
    }

    /// Waits for the end.
    pub(crate) fn end(mut self) -> Outcome {
        let deadline = Instant::now() + PATIENCE;
        let stderr = self.stderr.rest(deadline);
        let stdout = self.stdout.rest(deadline);
        let exit_code = self.child.wait().unwrap().code();
        Outcome { exit_code, stdout, stderr }
    }

    /// Waits for the end; returns the exit code and the seconds of CPU time that it all took.
    #[cfg(target_os = "linux")]
    pub(crate) fn end_with_cpu_time(mut self) -> (Option<i32>, f64) {
        // What has ended stays as a zombie, with its figures, until it is waited for.
        self.stderr.rest(Instant::now() + PATIENCE);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap();
        (self.child.wait().unwrap().code(), ticks / 100.0)
    }
}

impl<S: Read + Send + 'static> Stream<S> {
    fn until(&mut self, wanted: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (lines, heard) = self.reading();
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = lines.recv_timeout(left) else {
                panic!("no {wanted}; instead:\n{}", heard.join("\n"));
            };
            heard.push(line.clone());
            if line.contains(wanted) {
                return line;
            }
        }
    }

    /// All that was said, to the end.
    fn rest(&mut self, deadline: Instant) -> String {
        if let Self::Unread(None) = self {
            return String::new();
        }
        loop {
            let (lines, heard) = self.reading();
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => heard.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => return heard.join("\n"),
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("no end:\n{}", heard.join("\n")),
            }
        }
    }

    fn reading(&mut self) -> (&mpsc::Receiver<String>, &mut Vec<String>) {
        if let Self::Unread(stream) = self {
            let stream = stream.take().expect("it is open");
            let (sender, lines) = mpsc::channel();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
            *self = Self::Read { lines, heard: Vec::new() };
        }
        match self {
            Self::Read { lines, heard } => (lines, heard),
            Self::Unread(_) => panic!("it is read since a moment ago"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}
