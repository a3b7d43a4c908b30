//! The wire between a host or a router and what is in front of it: delay, jitter, loss, size.

use std::{net::IpAddr, time::Duration};

use rand::{Rng, rngs::StdRng};

use super::trace::Fate;

/// An access link, the same in both directions.
///
/// Delays are whole milliseconds, because that is how finely tokio's clock wakes sleepers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Link {
    /// One-way delay in milliseconds.
    pub delay_ms: u64,
    /// Up to this many milliseconds more, drawn for each datagram, so that datagrams overtake each
    /// other.
    pub jitter_ms: u64,
    /// The share of datagrams that is lost, from 0 to 1.
    pub loss: f64,
    /// The longest IP packet in bytes; what does not fit is dropped, never fragmented.
    pub mtu: usize,
}

impl Link {
    /// A good wire with this one-way delay.
    pub const fn with_delay_ms(delay_ms: u64) -> Self {
        Self { delay_ms, jitter_ms: 0, loss: 0.0, mtu: 1_500 }
    }
}

/// A link in use.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) link: Link,
    pub(super) up: bool,
    rng: StdRng,
}

impl Wire {
    pub(super) fn new(link: Link, rng: StdRng) -> Self {
        Self { link, up: true, rng }
    }

    /// How long a datagram takes over this wire, or why it does not come through.
    pub(super) fn carry(&mut self, length: usize, destination: IpAddr) -> Result<Duration, Fate> {
        let headers = match destination {
            IpAddr::V4(_) => 20 + 8,
            IpAddr::V6(_) => 40 + 8,
        };
        if !self.up {
            return Err(Fate::LinkDown);
        }
        if length + headers > self.link.mtu {
            return Err(Fate::TooBig);
        }
        if self.link.loss > 0.0 && self.rng.random_bool(self.link.loss.min(1.0)) {
            return Err(Fate::Lost);
        }
        let jitter_ms = match self.link.jitter_ms {
            0 => 0,
            most => self.rng.random_range(0..=most),
        };
        Ok(Duration::from_millis(self.link.delay_ms + jitter_ms))
    }
}
