//! Finding a way through NATs. Everything here is pure: time, entropy and datagrams come in as
//! arguments, and what is to be done comes out as values.

pub mod stun;
