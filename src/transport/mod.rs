//! Carrying messages: one socket, one path manager, QUIC, frames.

pub mod demux;
pub mod udp;
