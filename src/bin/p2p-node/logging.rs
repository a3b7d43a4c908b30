//! Logs, on stderr only: stdout belongs to the protocol.

use std::io::{self, IsTerminal};

use tracing_subscriber::EnvFilter;

/// Starts to log what `filter` lets through, for instance `info` or `p2p_node=debug`.
pub(crate) fn start(filter: EnvFilter) {
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
}
