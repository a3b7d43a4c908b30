//! Where the datagrams of a volley go, one after the other.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use crate::{
    entropy::Entropy,
    nat::{
        inference::allocation::{PORT_COUNT, PORT_MIN},
        prediction::{Comb, Forecast},
        strategy::{Aim, BLOCK_CROWD, Order},
    },
};

/// What comes after a round of a crowd.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// The same crowd at another port, at once.
    AtOnce,
    /// The same crowd at another port, after a pause.
    AnotherRound,
    /// There are no others.
    Nothing,
}

/// The targets of one volley.
#[derive(Debug)]
pub(super) struct Targets {
    ips: Vec<IpAddr>,
    order: Order,
    state: State,
    /// The port that was tried last, and at how many of the addresses.
    last: Option<(u16, usize)>,
}

#[derive(Debug)]
enum State {
    /// These, over and over.
    Endpoints { endpoints: Vec<SocketAddr>, next: usize },
    /// A comb of ports.
    Comb(Option<Comb>, Option<Forecast>),
    /// Ranges of ports, each in an order of its own; what an earlier one had is left out.
    Ranges { ranges: Vec<Shuffled>, current: usize },
    /// One port for each round of a crowd.
    Rounds { aims: Aims, round: u32, port: Option<u16> },
}

#[derive(Debug)]
enum Aims {
    /// The middle of the peer's next run.
    Forecast { forecast: Forecast, run: u16 },
    /// Ports of a block: the one that the peer has named, and any others.
    Block { first: Option<u16>, others: Shuffled },
}

impl Targets {
    pub(super) fn new(
        order: Order,
        ips: Vec<IpAddr>,
        endpoints: Vec<SocketAddr>,
        (forecast, free_port): (Option<Forecast>, Option<u16>),
        entropy: &mut Entropy,
    ) -> Self {
        let state = match (order.aim, order.crowd) {
            (Aim::Endpoint, _) => {
                let is_there = |endpoint: &SocketAddr| ips.contains(&endpoint.ip());
                let endpoints = endpoints.into_iter().filter(is_there).take(1).collect();
                State::Endpoints { endpoints, next: 0 }
            }
            (Aim::Next { step, run }, 0) => {
                let mut anywhere = || {
                    let middle = entropy.below(usize::from(PORT_COUNT));
                    let middle = PORT_MIN.saturating_add(u16::try_from(middle).unwrap_or_default());
                    Comb::around(middle, step, u32::from(run))
                };
                let comb = if forecast.is_none() { Some(anywhere()) } else { None };
                State::Comb(comb, forecast)
            }
            (Aim::Next { run, .. }, _) => match forecast {
                Some(forecast) => {
                    let aims = Aims::Forecast { forecast, run };
                    State::Rounds { aims, round: 0, port: None }
                }
                None => State::Endpoints { endpoints: vec![], next: 0 },
            },
            (Aim::Block { low, high }, 0) => {
                let margin = (high - low).max(BLOCK_MARGIN);
                let around = (low.saturating_sub(margin), high.saturating_add(margin));
                let ranges = [(low, high), around, (PORT_MIN, u16::MAX)];
                let ranges = ranges.map(|(low, high)| Shuffled::new(low, high, entropy)).into();
                State::Ranges { ranges, current: 0 }
            }
            (Aim::Block { low, high }, _) => {
                // The outermost ports are known because somebody else has them.
                let inside = (low.saturating_add(1), high.saturating_sub(1).max(low));
                let others = Shuffled::new(inside.0, inside.1, entropy);
                let aims = Aims::Block { first: free_port, others };
                State::Rounds { aims, round: 0, port: None }
            }
            (Aim::Anywhere, _) => {
                let ranges = vec![Shuffled::new(PORT_MIN, u16::MAX, entropy)];
                State::Ranges { ranges, current: 0 }
            }
        };
        Self { ips, order, state, last: None }
    }

    /// The next target; `None` if there are no more.
    pub(super) fn next(&mut self, now: Instant) -> Option<SocketAddr> {
        if let Some((port, tried)) = &mut self.last
            && let Some(ip) = self.ips.get(*tried)
        {
            *tried += 1;
            return Some(SocketAddr::new(*ip, *port));
        }
        let port = match &mut self.state {
            State::Endpoints { endpoints, next } => {
                let endpoint = endpoints.get(*next % endpoints.len().max(1)).copied();
                *next += 1;
                return endpoint;
            }
            State::Comb(comb, forecast) => {
                if let (Some(forecast), Aim::Next { run, .. }) = (forecast.take(), self.order.aim) {
                    *comb = Some(Comb::new(&forecast, u32::from(run), now));
                }
                comb.as_mut()?.next()?
            }
            State::Ranges { ranges, current } => next_of_ranges(ranges, current)?,
            State::Rounds { aims, round, port } => match *port {
                Some(port) => port,
                None => {
                    let chosen = aims.port(*round, now)?;
                    *port = Some(chosen);
                    chosen
                }
            },
        };
        self.last = Some((port, 1));
        self.ips.first().map(|ip| SocketAddr::new(*ip, port))
    }

    /// A round of a crowd of so many sockets is over: turns to the next target, if that is worth it.
    pub(super) fn after_round(&mut self, crowd: usize) -> Next {
        let State::Rounds { aims, round, port } = &mut self.state else {
            return Next::Nothing;
        };
        let mappings = crowd.saturating_mul(usize::try_from(*round + 1).unwrap_or(usize::MAX));
        let is_small = self.order.crowd < BLOCK_FILL_MIN;
        let next = match aims {
            // Every round makes new mappings on both sides, in step with each other.
            Aims::Forecast { .. } if is_small && *round + 1 < ROUNDS_MAX => Next::AnotherRound,
            // Until our own block is full.
            Aims::Block { .. } if !is_small && mappings < usize::from(BLOCK_CROWD) => Next::AtOnce,
            Aims::Forecast { .. } | Aims::Block { .. } => Next::Nothing,
        };
        // A crowd goes to one address in each round.
        self.last = None;
        if next != Next::Nothing {
            (*round, *port) = (*round + 1, None);
        }
        next
    }
}

impl Aims {
    fn port(&mut self, round: u32, now: Instant) -> Option<u16> {
        match self {
            Self::Forecast { forecast, run } => {
                let ahead = u32::from(*run) * round + u32::from(*run / 2);
                Some(forecast.port(ahead, now))
            }
            Self::Block { first, others } => first.take().or_else(|| others.next()),
        }
    }
}

fn next_of_ranges(ranges: &mut [Shuffled], current: &mut usize) -> Option<u16> {
    loop {
        let (before, rest) = ranges.split_at_mut_checked(*current)?;
        let range = rest.first_mut()?;
        match range.next() {
            Some(port) if before.iter().any(|earlier| earlier.holds(port)) => {}
            Some(port) => return Some(port),
            None => *current += 1,
        }
    }
}

/// All ports of a range, each once, in an order that jumps about.
#[derive(Debug)]
struct Shuffled {
    low: u16,
    count: u32,
    start: u32,
    /// Has no divisor in common with `count`, so that the walk comes to every port.
    stride: u32,
    done: u32,
}

impl Shuffled {
    fn new(low: u16, high: u16, entropy: &mut Entropy) -> Self {
        let count = u32::from(high.saturating_sub(low)) + 1;
        let below = |entropy: &mut Entropy| {
            let bound = usize::try_from(count).unwrap_or(1).max(1);
            u32::try_from(entropy.below(bound)).unwrap_or_default()
        };
        let start = below(entropy);
        let mut stride = below(entropy).max(1);
        while greatest_common_divisor(stride, count) != 1 {
            stride += 1;
        }
        Self { low, count, start, stride, done: 0 }
    }

    fn holds(&self, port: u16) -> bool {
        port >= self.low && u32::from(port - self.low) < self.count
    }

    fn next(&mut self) -> Option<u16> {
        if self.done >= self.count {
            return None;
        }
        let walked = u64::from(self.start) + u64::from(self.done) * u64::from(self.stride);
        self.done += 1;
        let offset = u16::try_from(walked % u64::from(self.count)).unwrap_or_default();
        Some(self.low.saturating_add(offset))
    }
}

fn greatest_common_divisor(one: u32, other: u32) -> u32 {
    if other == 0 { one } else { greatest_common_divisor(other, one % other) }
}

/// How far a block is taken to reach beyond the ports seen, at least: half of the usual size.
const BLOCK_MARGIN: u16 = 512;

/// A crowd of so many is there to fill a block; a smaller one has its ports in order.
const BLOCK_FILL_MIN: u16 = 256;

/// Rounds of two that count: they are over before the next offer is made, which says how far the count has got
/// by then. Whatever came in between would make it wrong.
const ROUNDS_MAX: u32 = 3;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_range_comes_first_and_no_port_comes_twice() {
        let order = Order { crowd: 0, aim: Aim::Block { low: 2_000, high: 2_500 } };
        let ip = IpAddr::from([198, 51, 100, 1]);
        let mut entropy = Entropy::from_seed(1);
        let mut targets = Targets::new(order, vec![ip], vec![], (None, None), &mut entropy);
        let now = crate::nat::story::moment();
        let ports: Vec<u16> =
            std::iter::from_fn(|| targets.next(now)).map(|target| target.port()).collect();
        assert_eq!(ports.len(), usize::from(PORT_COUNT));
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), ports.len());
        assert!(ports[..501].iter().all(|port| (2_000..=2_500).contains(port)));
        assert!(ports[501..1_200].iter().all(|port| (1_024..=3_100).contains(port)));
    }

    #[test]
    fn of_a_block_the_port_that_the_peer_names_comes_first_and_then_any_others() {
        let order = Order { crowd: 1_024, aim: Aim::Block { low: 2_000, high: 3_000 } };
        let ip = IpAddr::from([198, 51, 100, 1]);
        let now = crate::nat::story::moment();
        for seed in 0..20 {
            let hints = (None, Some(2_345));
            let mut entropy = Entropy::from_seed(seed);
            let mut targets = Targets::new(order, vec![ip], vec![], hints, &mut entropy);
            let first = targets.next(now).unwrap();
            assert_eq!(first, SocketAddr::new(ip, 2_345));
            // Half of the sockets that were wanted could be had: the rest of our block is filled with another aim.
            assert_eq!(targets.after_round(512), Next::AtOnce);
            let second = targets.next(now).unwrap().port();
            assert!((2_001..=2_999).contains(&second));
            assert_eq!(targets.after_round(512), Next::Nothing);
        }
    }

    #[test]
    fn any_port_comes_in_any_order_once() {
        for seed in 0..20 {
            let mut shuffled = Shuffled::new(PORT_MIN, u16::MAX, &mut Entropy::from_seed(seed));
            let ports: BTreeSet<u16> = std::iter::from_fn(|| shuffled.next()).collect();
            assert_eq!(ports.len(), usize::from(PORT_COUNT));
        }
    }
}
