//! The public API: a [`Node`], what it is told ([`Config`]), what it stands on ([`Environment`]), what
//! it tells ([`Event`]), and the messages that arrive ([`Inbox`]).
//!
//! Inside, one task, the `driver`, owns every machine. What belongs together has a room: `reaching` (we dial
//! somebody), `being_reached` (somebody dials us), `links` that are up, `messages` in them, the `network`
//! around us, and `helping` others to meet. In each, pure machines decide and further methods of the driver
//! perform.

pub mod clock;
pub mod config;
pub mod environment;
pub mod event;

mod being_reached;
mod driver;
mod events;
mod explain;
mod handle;
mod helping;
mod links;
mod messages;
mod netcheck;
mod network;
mod reaching;
mod start;

pub use clock::Clock;
pub use config::{Config, HelperMode, Role};
pub use environment::Environment;
pub use event::{Event, Target};
pub use handle::{Answer, Node, Request};
pub use messages::received::{Handover, IN_REPLY_TO, Inbox, Received};
pub use netcheck::{Life, Netcheck, Outlook, Pair, Ports, Question, StunServer, Way};
pub use network::{lan, stun_service};
