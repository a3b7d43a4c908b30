//! Driving a node over stdin and stdout: the protocol `p2p-stdio/1`.
//!
//! Bytes from stdin become lines ([`lines`]), lines become commands ([`command`]), whom a command is
//! for is looked up among what the user may call a peer ([`recipient`]), and what happens becomes lines
//! for stdout ([`output`]). Those parts are pure. The shell, [`run()`], feeds a node with them: one thread
//! reads stdin, one thread owns stdout, and in between one task routes.

pub mod command;
pub mod exit;
mod fields;
pub mod lines;
mod message;
pub mod output;
pub mod recipient;
pub mod reply;
mod run;
mod session;
mod stdin;
mod stdout;
pub mod terminal;
mod work;

pub use run::{Io, Notation, Options, Render, Signal, Started, StdinEof, run};
pub use session::STOP_TIME_MAX;

#[cfg(test)]
mod tests;
