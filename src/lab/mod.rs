//! An internet in a box.

mod internet;
mod link;
mod nat;
mod nat_box;
mod network;
pub mod oracle;
mod socket;
mod sockets;
mod topology;
mod trace;

pub use internet::{Address, Host, Internet, Router, Seed};
pub use link::Link;
pub use nat::{Filtering, Mapping, Nat, Ports};
pub use oracle::Verdict;
pub use socket::LabSocket;
pub use topology::{HostId, RouterId};
pub use trace::{Counters, Fate, Row, Trace};

#[cfg(test)]
mod tests;
