//! The sockets that everything shares: opened in `udp`, told apart by the first byte of what arrives (`demux`), and
//! one socket to QUIC (`socket_set`).

pub mod demux;
pub mod socket;
pub mod socket_set;
pub mod udp;
