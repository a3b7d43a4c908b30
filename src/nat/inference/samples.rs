//! Observations while they are worth something: they age, and a contradiction ends them.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Inferred, Observation, infer};
use crate::datagram::Family;

/// An observation older than this is not used: laptops change networks within minutes.
pub const SAMPLE_AGE_MAX: Duration = Duration::from_secs(300);

/// Observations kept; a round asks 16 servers about four sockets.
const SAMPLES_MAX: usize = 64;

/// What servers said, for as long as it can be believed.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<Observation>);

impl Samples {
    /// Remembers an observation; the oldest gives way if there are too many.
    pub fn add(&mut self, observation: Observation) {
        if self.0.len() >= SAMPLES_MAX {
            self.0.remove(0);
        }
        self.0.push(observation);
    }

    /// What the samples show at `now`.
    pub fn inferred(&self, family: Family, now: Instant) -> Option<Inferred> {
        let is_fresh =
            |seen: &&Observation| now.saturating_duration_since(seen.at) <= SAMPLE_AGE_MAX;
        let fresh: Vec<Observation> = self.0.iter().filter(is_fresh).copied().collect();
        infer(family, &fresh)
    }

    /// Takes in where a peer saw us, and forgets everything if that cannot be reconciled with it; returns
    /// whether it did. The NAT, or the network, is another one then.
    pub fn handle_seen_at(&mut self, observed: SocketAddr, now: Instant) -> bool {
        let family = Family::of(observed.ip());
        let is_wrong = self
            .inferred(family, now)
            .is_some_and(|inferred| inferred.is_contradicted_by(observed));
        if is_wrong {
            self.0.retain(|seen| Family::of(seen.server.ip()) != family);
        }
        is_wrong
    }
}
