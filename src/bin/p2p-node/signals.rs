//! Signals that end a session.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use p2p_node::bridge::{self, Signal, exit};
#[cfg(unix)]
use tokio::signal::unix::{self, SignalKind};
use tokio::sync::mpsc;
use tracing::warn;

use crate::{stderr, watchdog::Watchdog};

/// Two are acted on; more need not be remembered.
const SIGNALS_WAITING_MAX: usize = 4;

/// Time for a last line after the second Ctrl-C.
const AT_ONCE: Duration = Duration::from_millis(500);

/// Signals as they come, for as long as the runtime lives, and a way to add to them.
///
/// From the first one on, `watchdog` sees to the end, should nobody act on it.
pub(crate) fn listen(watchdog: Watchdog) -> (mpsc::Sender<Signal>, mpsc::Receiver<Signal>) {
    let (signals, received) = mpsc::channel(SIGNALS_WAITING_MAX);
    let sender = signals.clone();
    let mut is_ending = false;
    let handle = move |signal| {
        match (signal, is_ending) {
            (Signal::Interrupt, true) => watchdog.arm(AT_ONCE, exit::INTERRUPTED),
            _ => watchdog.arm(bridge::STOP_TIME_MAX, exit::INTERNAL),
        }
        if signal == Signal::Interrupt && !is_ending && io::stderr().is_terminal() {
            stderr::write(b"\nstopping; press Ctrl-C again to quit now\n");
        }
        is_ending = true;
        // Who does not listen has had enough of them, or is ending.
        let _ = sender.try_send(signal);
    };
    match Caught::begin() {
        Ok(caught) => drop(tokio::spawn(caught.each(handle))),
        Err(error) => warn!(%error, "signals cannot be caught"),
    }
    (signals, received)
}

/// The signals of this process, which end it no more from the moment that this exists.
#[cfg(unix)]
struct Caught {
    terminate: unix::Signal,
    hang_up: unix::Signal,
    interrupt: unix::Signal,
}

#[cfg(unix)]
impl Caught {
    fn begin() -> io::Result<Self> {
        Ok(Self {
            terminate: unix::signal(SignalKind::terminate())?,
            hang_up: unix::signal(SignalKind::hangup())?,
            interrupt: unix::signal(SignalKind::interrupt())?,
        })
    }

    async fn each(mut self, mut handle: impl FnMut(Signal)) {
        loop {
            handle(tokio::select! {
                _ = self.terminate.recv() => Signal::Terminate,
                _ = self.hang_up.recv() => Signal::Terminate,
                _ = self.interrupt.recv() => Signal::Interrupt,
            });
        }
    }
}

/// Ctrl-C, which ends the process no more from the moment that this exists.
#[cfg(windows)]
struct Caught {
    interrupt: tokio::signal::windows::CtrlC,
}

#[cfg(windows)]
impl Caught {
    fn begin() -> io::Result<Self> {
        Ok(Self { interrupt: tokio::signal::windows::ctrl_c()? })
    }

    async fn each(mut self, mut handle: impl FnMut(Signal)) {
        while self.interrupt.recv().await.is_some() {
            handle(Signal::Interrupt);
        }
    }
}
