//! Direct messages between two programs behind NATs.
//!
//! `p2p-node` finds its own public endpoints with STUN ([`nat`]), finds its peer through the BitTorrent
//! mainline DHT ([`dht`]), opens the NATs on both sides with coordinated hole punching, and runs QUIC
//! over the opened path ([`transport`]). [`node`] composes these into one public type; [`bridge`] lets
//! any language drive it over stdin and stdout; [`lab`] is an internet in a box for tests and the demo.
//!
//! The modules at the root of the crate are the vocabulary that those parts share: values without
//! effects. ARCHITECTURE.md walks through a connection and names the directions that imports may take.

pub mod behaviour;
pub mod candidate;
pub mod datagram;
pub mod entropy;
pub mod failure;
pub mod forwarding;
pub mod identity;
pub mod offer;
pub mod probe;
pub mod proto;
pub mod sealing;
pub mod service;
pub mod ticket;
pub mod time;

pub mod dht;
pub mod lab;
pub mod nat;
pub mod transport;

pub mod bridge;
pub mod node;
