//! Carrying messages: one socket, one path manager, QUIC, frames.
//!
//! From the wire upwards: [`udp`] opens sockets, [`demux`] tells STUN, probes and QUIC apart,
//! [`socket_set`] is what quinn takes for its socket, [`path_table`] and [`upkeep`] know over which path a
//! peer is reached, [`tls`] and [`quic`] configure the connection, [`link`] makes it one between two peers
//! who know each other, in [`frame`]s, and a [`session`] goes from link to link.

pub mod demux;
pub mod path_table;
mod quic_header;
mod repeats;
pub mod route;
mod routes;
mod slot;
pub mod socket;
pub mod socket_set;
pub mod stray;
pub mod traffic;
pub mod udp;
pub mod upkeep;

pub mod admission;
pub mod frame;
pub mod link;
pub mod loss;
pub mod quic;
mod seeded;
pub mod session;
pub mod tls;

#[cfg(test)]
mod loopback_tests;
