//! A program that speaks JSON lines: its events are waited for, and its end is ours.

use std::{
    any::Any,
    cell::RefCell,
    collections::VecDeque,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdin, Command, Stdio},
    rc::Rc,
    sync::{
        Arc, Mutex,
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// A running program. Dropping it kills it.
pub struct Process {
    child: Child,
    stdin: ChildStdin,
    events: mpsc::Receiver<Value>,
    /// What has arrived and nobody has waited for yet.
    pending: RefCell<VecDeque<Value>>,
    stderr: Arc<Mutex<String>>,
    _kept: Rc<dyn Any>,
}

impl Process {
    /// Starts the program in a process group of its own; it keeps what it runs on, `kept`.
    pub fn start(command: &mut Command, kept: Rc<dyn Any>) -> Self {
        let mut child = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdin = child.stdin.take().expect("stdin is piped");
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        Self {
            child,
            stdin,
            events: events_of(stdout),
            pending: RefCell::default(),
            stderr: text_of(stderr),
            _kept: kept,
        }
    }

    /// What it has written to stderr.
    pub fn log(&self) -> String {
        self.stderr.lock().expect("nobody panics while holding it").clone()
    }

    /// Writes a line to its stdin.
    pub fn tell(&self, line: &Value) {
        // It may have ended: then the wait for an answer says so, with its last words.
        let _ = writeln!(&self.stdin, "{line}");
    }

    /// The first event of this name that nobody has waited for yet.
    ///
    /// # Panics
    ///
    /// If it does not come in time.
    pub fn wait_for(&self, event: &str, within: Duration) -> Value {
        self.wait_until(event, within, |value| value["event"] == event)
    }

    /// The first line like this that nobody has waited for yet.
    ///
    /// # Panics
    ///
    /// If it does not come in time.
    pub fn wait_until(&self, what: &str, within: Duration, like: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + within;
        let mut pending = self.pending.borrow_mut();
        if let Some(found) = pending.iter().position(&like) {
            return pending.remove(found).expect("it was just found there");
        }
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.events.recv_timeout(left) {
                Ok(event) if like(&event) => return event,
                Ok(event) => pending.push_back(event),
                Err(why) => panic!(
                    "no {what} {}; instead: {}\nstderr: {}",
                    match why {
                        RecvTimeoutError::Timeout => format!("within {within:?}"),
                        RecvTimeoutError::Disconnected => "before the program ended".into(),
                    },
                    listing(&pending),
                    self.log(),
                ),
            }
        }
    }

    /// All lines that have come and nobody has waited for.
    pub fn take_told(&self) -> Vec<Value> {
        let mut pending = self.pending.borrow_mut();
        pending.extend(self.events.try_iter());
        pending.drain(..).collect()
    }

    /// Whether an event of this name has come that nobody has waited for.
    pub fn has_told(&self, event: &str) -> bool {
        let mut pending = self.pending.borrow_mut();
        pending.extend(self.events.try_iter());
        pending.iter().any(|told| told["event"] == event)
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        // Both fail only if it has ended and been waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn events_of(stdout: impl Read + Send + 'static) -> mpsc::Receiver<Value> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // What is not JSON is kept as it is: no wait matches it, and it shows up in the complaint.
            let event = serde_json::from_str(&line).unwrap_or(Value::String(line));
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    receiver
}

fn text_of(stderr: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let filled = Arc::clone(&text);
    thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            let mut text = filled.lock().expect("nobody panics while holding it");
            text.push_str(&line);
            text.push('\n');
        }
    });
    text
}

/// The events, long ones cut.
fn listing(events: &VecDeque<Value>) -> String {
    let lines = events.iter().map(|event| {
        let line = event.to_string();
        let end = line.char_indices().nth(400).map_or(line.len(), |(end, _)| end);
        format!("\n  {}", &line[..end])
    });
    lines.collect()
}
