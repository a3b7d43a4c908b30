//! Signals that end a session.

use std::{
    convert::Infallible,
    io::{self, IsTerminal},
    time::Duration,
};

use p2p_node::bridge::{self, Signal, exit};
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
    tokio::spawn(async move {
        let Err(error) = catch(handle).await;
        warn!(%error, "signals cannot be caught");
    });
    (signals, received)
}

#[cfg(unix)]
async fn catch(mut handle: impl FnMut(Signal)) -> io::Result<Infallible> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        handle(tokio::select! {
            _ = terminate.recv() => Signal::Terminate,
            _ = hang_up.recv() => Signal::Terminate,
            _ = interrupt.recv() => Signal::Interrupt,
        });
    }
}

#[cfg(not(unix))]
async fn catch(mut handle: impl FnMut(Signal)) -> io::Result<Infallible> {
    loop {
        tokio::signal::ctrl_c().await?;
        handle(Signal::Interrupt);
    }
}
