//! Carrying messages: one socket, one path manager, QUIC, frames.
