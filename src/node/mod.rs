//! The public API: a [`Node`], what it is told ([`Config`]), and what it tells ([`Event`]).

pub mod clock;
pub mod config;
pub mod event;
mod handle;

pub use config::{Config, Role};
pub use event::{Event, Target};
pub use handle::{Answer, Node, Request};
