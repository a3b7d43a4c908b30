//! A bridge with pipes for stdin and stdout, and a fake node behind it.

use std::{
    future::Future,
    io::{self, BufRead, BufReader, PipeReader, PipeWriter, Read, Write},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use prost::Message as _;
use tokio::sync::mpsc;

use super::fake_node::{self, Control, Manner};
use crate::{
    bridge::{Io, Notation, Options, Signal, Started, StdinEof, run},
    entropy::Entropy,
    failure::Failure,
    node::{Role, clock::Clock},
    proto::stdio::Event,
    time::UnixMillis,
};

/// Long enough for a machine that does ten other things.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// A bridge that runs on a thread of its own.
pub(super) struct Bridge {
    stdin: Option<PipeWriter>,
    stdout: Receiver<String>,
    signals: mpsc::Sender<Signal>,
    exit_code: Receiver<u8>,
    pub(super) node: Control,
}

/// The ends of the bridge that a test holds.
pub(super) struct Ends {
    pub(super) stdin: PipeWriter,
    pub(super) stdout: PipeReader,
    pub(super) signals: mpsc::Sender<Signal>,
}

/// Pipes, and the signals' channel.
pub(super) fn io() -> (Io<PipeReader, PipeWriter>, Ends) {
    let (input, stdin) = io::pipe().unwrap();
    let (stdout, output) = io::pipe().unwrap();
    let (signals, signalled) = mpsc::channel(4);
    let io = Io { input, output, signals: signalled };
    (io, Ends { stdin, stdout, signals })
}

/// The same in every test, so that what is made up is known.
pub(super) fn options() -> Options {
    Options {
        notation: Notation::Lines,
        role: Role::Server,
        pid: 4711,
        service: Some("myapi:v1".parse().unwrap()),
        connect: None,
        stdin_eof: StdinEof::Drain,
        ending: Box::new(|_| {}),
        nearby: Box::new(|| None),
        entropy: Entropy::from_seed(1),
        grease: None,
        clock: Clock::starting_at(UnixMillis(1_763_820_000_000)),
    }
}

/// A start that succeeds with `started`.
pub(super) async fn start_with(started: Started) -> Result<Started, Failure> {
    std::future::ready(Ok(started)).await
}

impl Bridge {
    /// A bridge to a fake node that takes the end like `manner`.
    pub(super) fn new(manner: Manner) -> Self {
        Self::with(options(), manner, start_with)
    }

    /// A bridge with `options`; `start` makes what its start comes to.
    pub(super) fn with<F>(
        options: Options,
        manner: Manner,
        start: impl FnOnce(Started) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = Result<Started, Failure>>,
    {
        let (io, ends) = io();
        let stdout = match options.notation {
            Notation::Frames => read_frames(ends.stdout),
            Notation::Lines | Notation::Terminal(_) => read_lines(ends.stdout),
        };
        let (code, exit_code) = channel();
        let (control, node) = channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            let exit_code = runtime.block_on(async move {
                let (started, hands) = fake_node::start(manner);
                control.send(hands).map_err(|_| ()).unwrap();
                run(io, options, start(started)).await
            });
            code.send(exit_code).unwrap();
        });
        Self {
            stdin: Some(ends.stdin),
            stdout,
            signals: ends.signals,
            exit_code,
            node: node.recv().unwrap(),
        }
    }

    /// Types bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        self.stdin.as_mut().expect("stdin is open").write_all(bytes).unwrap();
    }

    /// Gives stdin away, to a thread that writes more than a pipe holds.
    pub(super) fn take_stdin(&mut self) -> PipeWriter {
        self.stdin.take().expect("stdin is open")
    }

    /// Closes stdin.
    pub(super) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// The next line from stdout; `None` at its end.
    pub(super) fn read(&self) -> Option<String> {
        match self.stdout.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => panic!("stdout says nothing more"),
        }
    }

    /// Reads past `hello` and `ready`.
    pub(super) fn skip_greeting(&self) {
        assert!(self.read().unwrap().starts_with(r#"{"event":"hello""#));
        assert!(self.read().unwrap().starts_with(r#"{"event":"ready""#));
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.signals.blocking_send(signal).unwrap();
    }

    pub(super) fn exit_code(&self) -> u8 {
        self.exit_code.recv_timeout(PATIENCE).expect("the bridge ends")
    }
}

fn read_lines(stdout: PipeReader) -> Receiver<String> {
    let (lines, read) = channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            if lines.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    read
}

/// Events as JSON, nested as they are in frames.
fn read_frames(mut stdout: PipeReader) -> Receiver<String> {
    let (events, read) = channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut part = [0; 4_096];
        loop {
            let size = stdout.read(&mut part).unwrap();
            if size == 0 {
                return assert_eq!(bytes, b"", "stdout ends between two frames");
            }
            bytes.extend_from_slice(&part[..size]);
            let mut rest = &bytes[..];
            while let Ok(event) = Event::decode_length_delimited(&mut rest) {
                bytes = rest.to_vec();
                rest = &bytes;
                if events.send(serde_json::to_string(&event).unwrap()).is_err() {
                    return;
                }
            }
        }
    });
    read
}
