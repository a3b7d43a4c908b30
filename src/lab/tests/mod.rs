//! Stories about the lab itself. Everything runs in virtual time.

mod nat;
mod oracle;
mod prediction;
mod punching;
mod quinn;
mod socket;
mod world;

use std::{future::Future, net::SocketAddr};

/// Runs a story under a paused clock: waiting costs nothing.
fn in_virtual_time<T>(story: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(story)
}

fn at(endpoint: &str) -> SocketAddr {
    endpoint.parse().unwrap()
}
