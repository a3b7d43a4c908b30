//! The public API: a [`Node`], what it is told ([`Config`]), what it stands on ([`Environment`]), what
//! it tells ([`Event`]), and the messages that arrive ([`Inbox`]).
//!
//! Inside, one task, the `driver`, owns every machine. `dial` decides how a peer is reached; the files
//! that are named for an activity (`dialling`, `answering`, `linking`, `routing`, `addresses`,
//! `extra`, `publishing`, `standing`, `helping`, `checking`) perform what machines decide.

pub mod clock;
pub mod config;
pub mod environment;
pub mod event;
pub mod lan;
pub mod stun_service;

mod addresses;
mod answering;
mod arriving;
mod attempt;
mod checking;
mod conversing;
mod dial;
mod dialling;
mod driver;
mod events;
mod explain;
mod extra;
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
mod sampling;
mod sessions;
mod standing;
mod start;
mod switchboard;

pub use clock::Clock;
pub use config::{Config, HelperMode, Role};
pub use environment::Environment;
pub use event::{Event, Target};
pub use handle::{Answer, Node, Request};
pub use netcheck::{Life, Netcheck, Outlook, Pair, Ports, Question, StunServer, Way};
pub use received::{Handover, IN_REPLY_TO, Inbox, Received};
