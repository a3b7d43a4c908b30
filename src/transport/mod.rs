//! Carrying messages: one socket, one path manager, QUIC, frames.

pub mod demux;
pub mod path_table;
mod quic_header;
mod route;
mod routes;
mod slot;
pub mod socket_set;
pub mod traffic;
pub mod udp;
pub mod upkeep;

#[cfg(test)]
mod loopback_tests;
