//! Carrying messages: one socket, one path manager, QUIC, frames.

pub mod admission;
pub mod frame;
pub mod link;
pub mod quic;
mod seeded;
pub mod tls;
