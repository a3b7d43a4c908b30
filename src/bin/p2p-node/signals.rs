//! Signals that end a session.

use p2p_node::bridge::Signal;
use tokio::sync::mpsc;
use tracing::warn;

/// Two are acted on; more need not be remembered.
const SIGNALS_WAITING_MAX: usize = 4;

/// Signals as they come, for as long as the runtime lives.
pub(crate) fn listen() -> mpsc::Receiver<Signal> {
    let (signals, received) = mpsc::channel(SIGNALS_WAITING_MAX);
    tokio::spawn(async move {
        if let Err(error) = forward(signals).await {
            warn!(%error, "signals cannot be caught");
        }
    });
    received
}

#[cfg(unix)]
async fn forward(signals: mpsc::Sender<Signal>) -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut terminate = signal(SignalKind::terminate())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    loop {
        let signal = tokio::select! {
            _ = terminate.recv() => Signal::Terminate,
            _ = hang_up.recv() => Signal::Terminate,
            _ = interrupt.recv() => Signal::Interrupt,
        };
        if signals.send(signal).await.is_err() {
            return Ok(());
        }
    }
}

#[cfg(not(unix))]
async fn forward(signals: mpsc::Sender<Signal>) -> std::io::Result<()> {
    loop {
        tokio::signal::ctrl_c().await?;
        if signals.send(Signal::Interrupt).await.is_err() {
            return Ok(());
        }
    }
}
