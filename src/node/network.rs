//! The network around the node: where we are (`addresses`), how our NAT gives out ports (`sampling`), sockets for
//! more than one look at it (`extra`), what is found out when somebody asks (`checking`), what follows when it changes
//! (`roaming`), and who is on our side of it (`lan`).

pub(super) mod addresses;
pub(super) mod checking;
pub(super) mod extra;
pub mod lan;
pub(super) mod roaming;
pub(super) mod sampling;
pub mod stun_service;
