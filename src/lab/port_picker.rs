//! Which public port a NAT gives to its next mapping (RFC 4787, section 4.2).

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use rand::{Rng, rngs::StdRng};

use super::nat::{Collision, Ports};

/// Ports below are reserved for services, and no NAT hands them out (RFC 4787, section 4.2.2).
const PORT_MIN: u16 = 1_024;

/// Random draws before a free port is searched for one by one.
const DRAWS_MAX: u32 = 64;

/// A NAT's port allocation with what it remembers.
#[derive(Debug)]
pub(super) struct PortPicker {
    ports: Ports,
    collision: Collision,
    last_sequential: u16,
    /// The first port of the block of an inside address.
    blocks: BTreeMap<IpAddr, u16>,
    rng: StdRng,
}

impl PortPicker {
    pub(super) fn new(ports: Ports, collision: Collision, mut rng: StdRng) -> Self {
        Self {
            ports,
            collision,
            last_sequential: rng.random_range(PORT_MIN..=u16::MAX),
            blocks: BTreeMap::new(),
            rng,
        }
    }

    /// The port for a new mapping of `inside`, if one is left.
    pub(super) fn pick(
        &mut self,
        inside: SocketAddr,
        is_free: impl Fn(u16) -> bool,
    ) -> Option<u16> {
        let all = PortRange { first: PORT_MIN, last: u16::MAX };
        match self.ports {
            Ports::Preserving => {
                let wanted = inside.port().max(PORT_MIN);
                match self.collision {
                    Collision::RandomPort if !is_free(wanted) => self.draw(all, is_free),
                    Collision::RandomPort | Collision::NextPort => {
                        all.first_free(wanted, 1, is_free)
                    }
                }
            }
            Ports::Sequential { step } => {
                let step = step.max(1);
                let next = all.after(self.last_sequential, step);
                self.last_sequential = all.first_free(next, step, is_free)?;
                Some(self.last_sequential)
            }
            Ports::Block { size } => {
                let block = self.block(inside.ip(), size.max(1))?;
                self.draw(block, is_free)
            }
            Ports::Random => self.draw(all, is_free),
        }
    }

    /// The time until another host inside makes a mapping, when that happens `per_s` times a second at
    /// random moments.
    pub(super) fn gap(&mut self, per_s: u32) -> Duration {
        let draw: f64 = self.rng.random_range(f64::MIN_POSITIVE..1.0);
        Duration::from_secs_f64(-draw.ln() / f64::from(per_s.max(1)))
    }

    /// One of `count` things.
    pub(super) fn choose(&mut self, count: usize) -> usize {
        self.rng.random_range(0..count.max(1))
    }

    /// Inside addresses get other blocks from now on.
    pub(super) fn forget_blocks(&mut self) {
        self.blocks.clear();
    }

    /// The block of an inside address, drawn among those that nobody has yet.
    fn block(&mut self, inside: IpAddr, size: u16) -> Option<PortRange> {
        let first = match self.blocks.get(&inside) {
            Some(&first) => first,
            None => {
                let mut free: Vec<u16> =
                    (PORT_MIN..=u16::MAX - (size - 1)).step_by(size.into()).collect();
                free.retain(|first| !self.blocks.values().any(|taken| taken == first));
                let drawn = self.rng.random_range(0..free.len().max(1));
                let first = *free.get(drawn)?;
                self.blocks.insert(inside, first);
                first
            }
        };
        Some(PortRange { first, last: first + (size - 1) })
    }

    fn draw(&mut self, range: PortRange, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        for _ in 0..DRAWS_MAX {
            let port = self.rng.random_range(range.first..=range.last);
            if is_free(port) {
                return Some(port);
            }
        }
        let start = self.rng.random_range(range.first..=range.last);
        range.first_free(start, 1, is_free)
    }
}

/// Ports from `first` to `last`, both included.
#[derive(Clone, Copy, Debug)]
struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The first free port of those that are a multiple of `step` from `start`.
    fn first_free(self, start: u16, step: u16, is_free: impl Fn(u16) -> bool) -> Option<u16> {
        let mut port = start;
        for _ in self.first..=self.last {
            if is_free(port) {
                return Some(port);
            }
            port = self.after(port, step);
        }
        None
    }

    /// The port `step` after `port`; past the end it goes on at the first.
    fn after(self, port: u16, step: u16) -> u16 {
        match port.checked_add(step) {
            Some(next) if next <= self.last => next,
            Some(_) | None => self.first,
        }
    }
}
