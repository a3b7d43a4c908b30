//! Randomness as a value that is handed in, so that a seed replays a whole run.

use std::num::NonZeroU64;

use rand::{Rng, RngCore, SeedableRng, rngs::StdRng};

/// A stream of random bits, good enough for keys when seeded by the operating system.
#[derive(Debug, Clone)]
pub struct Entropy(StdRng);

impl Entropy {
    /// Seeded by the operating system: for everything but tests, demos and benches.
    pub fn from_system() -> Self {
        Self(StdRng::from_os_rng())
    }

    /// The same seed gives the same stream.
    pub fn from_seed(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed))
    }

    /// A stream of its own, for a part that draws at its own pace.
    pub fn fork(&mut self) -> Self {
        Self(StdRng::from_seed(self.bytes()))
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A random number.
    pub fn number(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A random name: not zero, and not to be met twice.
    pub fn name(&mut self) -> NonZeroU64 {
        loop {
            if let Some(name) = NonZeroU64::new(self.number()) {
                return name;
            }
        }
    }

    /// A random number below `bound`, which must not be zero.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0.random_range(0..bound)
    }
}
