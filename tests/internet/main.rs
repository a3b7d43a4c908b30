//! Whole nodes on the simulated internet, in virtual time: every promise of the main job, seeded.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs
)]

mod stories;
mod world;
