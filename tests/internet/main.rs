//! Whole nodes on the simulated internet, in virtual time: every promise of the main job, seeded.
//!
//! `world` builds the internets and starts nodes in them, `peer` is a node as tests see it. A test that
//! fails prints its seed; `P2P_NODE_SEED` replays it.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    missing_docs
)]

mod behaviour;
mod blocked;
mod determinism;
mod failures;
mod helpers;
mod lan;
mod loss;
mod matrix;
mod multicast;
mod netcheck;
mod peer;
mod places;
mod roaming;
mod served;
mod sessions;
mod stories;
mod swarm;
mod told;
mod volleys;
mod world;
