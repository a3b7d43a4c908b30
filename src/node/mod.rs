//! The public API: a [`Node`], what it is told ([`Config`]), what it stands on ([`Environment`]), what
//! it tells ([`Event`]), and the messages that arrive ([`Inbox`]).
//!
//! Inside, one task, the `driver`, owns every machine. `dial` decides how a peer is reached; the files
//! that are named for an activity (`dialling`, `answering`, `linking`, `routing`, `addresses`,
//! `publishing`, `standing`, `helping`) perform what machines decide.

pub mod clock;
pub mod config;
pub mod environment;
pub mod event;
pub mod lan;
pub mod stun_service;

mod addresses;
mod answering;
mod arriving;
mod dial;
mod dialling;
mod driver;
mod events;
mod explain;
mod found;
mod handle;
mod helping;
mod linking;
mod netcheck;
mod outbox;
mod publishing;
mod received;
mod rescue;
mod roaming;
mod routing;
mod sessions;
mod standing;
mod start;
mod switchboard;

pub use clock::Clock;
pub use config::{Config, HelperMode, Role};
pub use environment::Environment;
pub use event::{Event, Target};
pub use handle::{Answer, Node, Request};
pub use netcheck::Netcheck;
pub use received::{Handover, IN_REPLY_TO, Inbox, Received};
