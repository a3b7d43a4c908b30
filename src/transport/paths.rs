//! Over which path a datagram goes: QUIC dials virtual addresses, which stand for peers (`route`), and every one has
//! paths (`path_table`) that are watched (`upkeep`) and changed without QUIC's noticing.

pub mod path_table;
pub mod repeats;
pub mod route;
pub mod routes;
pub mod slot;
pub mod traffic;
pub mod upkeep;
