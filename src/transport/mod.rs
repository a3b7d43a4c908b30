//! Carrying messages: one socket, one path manager, QUIC, frames.
//!
//! From the wire upwards: [`sockets`] opens them and tells STUN, probes and QUIC apart, [`paths`] knows over
//! which path a peer is reached, [`quic`] configures the connection, with certificates and resets, [`link`]
//! makes it one between two peers who know each other, in [`frame`]s, and a [`session`] goes from link to link.

pub mod frame;
pub mod link;
pub mod paths;
pub mod quic;
pub mod session;
pub mod sockets;

#[cfg(test)]
mod loopback_tests;
