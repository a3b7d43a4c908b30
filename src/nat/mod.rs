//! Finding a way through NATs. Everything here is pure: time, entropy and datagrams come in as
//! arguments, and what is to be done comes out as values.

pub mod discovery;
pub mod distance;
pub mod engine;
pub mod gather;
pub mod hairpin;
pub mod inference;
pub mod lifetime;
pub mod opener;
pub mod ports_in_use;
pub mod prediction;
pub mod proved;
pub mod punch;
pub(crate) mod rate;
pub mod sampler;
pub mod strategy;
pub mod stun;
pub mod stun_client;
pub mod stun_server;
pub mod volley;

#[cfg(test)]
mod story {
    use std::{sync::LazyLock, time::Instant};

    /// Some moment for a test to count from, always the same: only differences matter.
    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be made up")]
    pub(super) fn moment() -> Instant {
        static MOMENT: LazyLock<Instant> = LazyLock::new(Instant::now);
        *MOMENT
    }
}
