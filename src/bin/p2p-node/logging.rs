//! Logs, on stderr only: stdout belongs to the protocol.

use std::io;

use crate::{args::LogArgs, stderr::Stderr};

/// Starts to log what the user wants to see.
pub(crate) fn start(args: LogArgs) {
    tracing_subscriber::fmt()
        .with_env_filter(args.filter)
        .with_writer(|| Stderr)
        .with_ansi(args.colour.is_for(&io::stderr()))
        .init();
}
