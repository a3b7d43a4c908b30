//! Driving a node over stdin and stdout: the protocol `p2p-stdio/1`.
//!
//! Bytes from stdin are cut into [`lines`] or [`frames`] and become commands ([`reader`], [`command`]);
//! whom a command is for is looked up among what the user may call a peer ([`recipient`]); and what
//! happens becomes bytes for stdout, in one of three notations ([`output`]). The [`grammar`] lists what
//! there is to say. Those parts are pure. The shell, [`run()`], feeds a node with them: one thread reads
//! stdin, one thread owns stdout, and in between one task routes.
//!
//! # Memory
//!
//! What a program can make a node hold, whatever it writes or leaves unread: four commands that are being
//! read (24 MiB each as lines, 16 MiB as frames), 64 MiB of messages under way, 8 MiB of events and 1 MiB
//! of answers that wait to be written, and one event of each lane beyond that (16 MiB as frames, 22 MiB
//! as lines); in the worst case 240 MiB. Payloads in frames are copied once on their way in, and not
//! on their way out.

pub mod command;
pub mod driven;
pub mod exit;
mod fields;
pub mod frames;
pub mod grammar;
mod intake;
mod jobs;
pub mod lines;
mod message;
mod options;
pub mod output;
mod perform;
pub mod reader;
pub mod recipient;
pub mod reply;
mod run;
mod schema;
mod session;
mod stdin;
mod stdout;
pub mod terminal;
pub mod values;
mod work;

pub use options::{Io, Options, Signal, Started, StdinEof};
pub use output::{Notation, Render};
pub use run::run;
pub use schema::{PROTO, schema};
pub use session::STOP_TIME_MAX;

#[cfg(test)]
mod tests;
