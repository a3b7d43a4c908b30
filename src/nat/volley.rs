//! Many datagrams to find one pair of ports: the birthday.
//!
//! A NAT with dependent mapping takes another port for every socket and destination. It opens only to who
//! sends to the port that one of its mappings has, from the endpoint which that mapping is for. So one side
//! makes many mappings (a *crowd* of sockets, one datagram from each to the peer), and the other tries
//! ports (a *spray*), or both do both.
//!
//! **A crowd of S sockets against a spray of n ports, none twice, of P = 64,512**: missed with probability
//! `(1 - S/P)^n`.
//!
//! | sockets | half are met at | 99 % | 99.9 % | 1 - 10⁻⁴ | missed after 2,048 |
//! |---|---|---|---|---|---|
//! | 128 | 350 | 2,319 | 3,478 | 4,638 | 1.7 · 10⁻² |
//! | 256 | 175 | 1,159 | 1,738 | 2,317 | 2.9 · 10⁻⁴ |
//! | 512 | 87 | 578 | 867 | 1,156 | 8.3 · 10⁻⁸ |
//!
//! The two sides' datagrams are fewest when S and n are alike, and files are what limits S: a program may
//! open 1,024 by default. So 512 sockets at [`CROWD_PACE`] are open after half a second, and ports at
//! [`SPRAY_PACE`] have met one of them 0.35 s after that in half of all cases, after 4.7 s in all but one
//! of 10,000.
//!
//! **Two crowds, in blocks of R ports each.** If N mappings on each side aim at random ports of the other's
//! block, `N²/R²` pairs fit on average and none does with probability `exp(-N²/R²)`: with all ports of
//! both blocks taken, 37 %. But if all mappings of one side aim at *one* port of the other's block, it is
//! enough that the other side has a mapping at that port, `N/R`, and that the port which this mapping
//! aims at has one on our side, `N/R`: the chance is `(N/R)²`, which no choice of aims can beat, and nearly
//! certain when both blocks are full. So each side aims at as few ports as its sockets allow, and only
//! one port in the block has to be known, not where it begins and ends. Best it is one that the other side names: of its
//! ports some are in use for something else, and it knows of most of them.
//!
//! **What was tried is tried again**, for as long as the peer is at work: whatever was lost, because the way
//! between the two was blocked, needs no other ports. A spray that has missed nothing but the way holds its
//! own filters open for some 2,048 ports, and of a crowd of 512 about 16 mappings are among them. So it is
//! enough that every socket of the crowd says again what it said (`again_every`): the first of those 16
//! that does so after the way is free is heard. That costs no router another entry, and keeps those that
//! there are from being forgotten.
//!
//! **Limits.** A volley sends [`DATAGRAMS_PER_VOLLEY_MAX`] datagrams to new ports at most, and what it
//! repeats at its pace; neither is more than its owner grants out of a [`Budget`] for all. To an address that
//! has only one witness it sends [`UNPROVED_MAX`] and repeats nothing.

mod again;
mod budget;
mod targets;

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

pub use self::budget::{AGAIN_PER_MINUTE_MAX, Budget, DATAGRAMS_PER_MINUTE_MAX};
use self::{again::Again, targets::Targets};
use super::{
    prediction::Forecast,
    proved::Proved,
    strategy::{Aim, Order, RUN_TO_MEET},
};
use crate::{
    datagram::{Path, SocketIndex},
    entropy::Entropy,
};

/// Time between two datagrams of a spray: 250 a second, 180 kbit/s with all headers.
///
/// Every one makes an entry in our own router's table, where small ones have room for some thousands.
pub const SPRAY_PACE: Duration = Duration::from_millis(4);

/// Time between two sockets of a crowd.
///
/// They cost the router as many entries as a web page with many pictures, and all are wanted before the
/// spray has tried its first hundred ports.
pub const CROWD_PACE: Duration = Duration::from_millis(1);

/// Datagrams of one volley to new ports: what a spray needs to miss a crowd of 512 once in ten million
/// times.
pub const DATAGRAMS_PER_VOLLEY_MAX: u32 = 2_048;

/// Datagrams of one volley to an address that only the peer itself vouches for: as many as plain probes
/// would send to one address that it names.
pub const UNPROVED_MAX: u32 = 40;

/// Addresses of one peer that a volley goes to: with each, the chance of every datagram shrinks.
pub const ADDRESSES_MAX: usize = 2;

/// Datagrams that are made good at a time, if the owner wakes late: timers are a millisecond coarse.
const LATE_MAX: usize = 8;

/// Time from one round of a crowd to the next, at other ports: a round trip to the other side of the earth.
const ROUND_PAUSE: Duration = Duration::from_millis(400);

/// Where a volley may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// Two witnesses: any number of datagrams.
    Proved(Proved),
    /// The peer's word only.
    Claimed(IpAddr),
}

impl Address {
    /// The address itself.
    pub fn ip(&self) -> IpAddr {
        match self {
            Self::Proved(proved) => proved.ip(),
            Self::Claimed(ip) => *ip,
        }
    }
}

/// With what a volley begins.
#[derive(Clone, Debug)]
pub struct Setup {
    /// What to do.
    pub order: Order,
    /// The socket that sprays, if the order asks for no crowd.
    pub main: SocketIndex,
    /// Where the peer is: one address, or some of those that its NAT spreads mappings over. Of these,
    /// [`ADDRESSES_MAX`] are tried.
    pub addresses: Vec<Address>,
    /// The peer's endpoints at those addresses, best first.
    pub endpoints: Vec<SocketAddr>,
    /// Where its NAT had got to, if it counts.
    pub forecast: Option<Forecast>,
    /// A port of its block that was in use for nothing.
    pub free_port: Option<u16>,
    /// Datagrams that may be sent, out of a [`Budget`].
    pub allowance: u32,
}

/// What a volley wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// One more socket, to be handed in with [`Volley::handle_socket_opened`].
    OpenSocket,
    /// A ping on this path.
    Ping(Path),
    /// So many that were sent before are to be sent again: [`Volley::handle_again`] says how many may be.
    AskAgain(u32),
}

/// What a volley wants to send, and has to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// So many datagrams to new ports, from so many sockets of its own, at the most.
    New {
        /// Datagrams.
        datagrams: u32,
        /// Sockets.
        crowd: u16,
    },
    /// So many that were sent before, from as many sockets as there are.
    Again {
        /// Datagrams.
        datagrams: u32,
    },
}

/// Many datagrams that are to meet the peer's.
///
/// ```text
///                 a socket each CROWD_PACE         all sent
///    Firing ── target ──▶ ping from every socket ──▶ next target ──▶ Again: what was sent, over and over
///                                                            (Spent, where only one vouches for the address)
/// ```
#[derive(Debug)]
pub struct Volley {
    main: SocketIndex,
    /// Sockets that are still to be opened.
    wanted: u16,
    /// Asked for and not yet there.
    opening: u16,
    crowd: Vec<SocketIndex>,
    kind: Kind,
    targets: Targets,
    /// Where the crowd aims, and how many of it have sent there.
    target: Option<(SocketAddr, usize)>,
    datagrams_left: u32,
    next_slot: Option<Instant>,
    /// What was sent to new ports, in this order.
    tried: Vec<Path>,
    phase: Phase,
    /// Whether what was tried may be tried again.
    is_proved: bool,
    again_every: Duration,
    /// When the peer was last known to be at work.
    peer_at_work: Instant,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Spray,
    Crowd,
}

#[derive(Debug)]
enum Phase {
    Firing,
    Again(Again),
    Spent,
}

impl Volley {
    /// Begins at once: [`Self::poll_timeout`] is `now`.
    pub fn new(setup: Setup, now: Instant, entropy: &mut Entropy) -> Self {
        let limits = setup.addresses.iter().map(|address| match address {
            Address::Proved(_) => DATAGRAMS_PER_VOLLEY_MAX,
            Address::Claimed(_) => UNPROVED_MAX,
        });
        let limit = limits.min().unwrap_or(0);
        let is_proved = setup.addresses.iter().all(|at| matches!(at, Address::Proved(_)));
        let ips = setup.addresses.iter().take(ADDRESSES_MAX).map(Address::ip).collect();
        let order = setup.order;
        let kind = if order.crowd == 0 { Kind::Spray } else { Kind::Crowd };
        let datagrams_left = setup.allowance.min(limit);
        Self {
            main: setup.main,
            wanted: order.crowd.min(u16::try_from(datagrams_left).unwrap_or(u16::MAX)),
            opening: 0,
            crowd: vec![],
            kind,
            targets: Targets::new(
                order,
                ips,
                setup.endpoints,
                (setup.forecast, setup.free_port),
                entropy,
            ),
            target: None,
            datagrams_left,
            next_slot: Some(now),
            tried: vec![],
            phase: Phase::Firing,
            is_proved,
            again_every: again_every(order),
            peer_at_work: now,
            outputs: VecDeque::new(),
        }
    }

    /// Takes in a socket that was asked for; its first datagram leaves at once.
    pub fn handle_socket_opened(&mut self, socket: SocketIndex, now: Instant) {
        self.opening = self.opening.saturating_sub(1);
        self.crowd.push(socket);
        if self.is_firing() && self.next_slot.is_some() && self.target.is_some() {
            self.ping_from_crowd(now);
        }
    }

    /// Takes in that no more sockets can be had: goes on with those that there are.
    pub fn handle_socket_refused(&mut self) {
        self.opening = 0;
        self.wanted = 0;
    }

    /// Takes in that the peer is at work: it has made an offer, or answered ours. If that was not known for a
    /// while, everything that was tried is tried once more, as fast as at first.
    pub fn handle_peer_at_work(&mut self, now: Instant) {
        let before = std::mem::replace(&mut self.peer_at_work, now);
        if let Phase::Again(again) = &mut self.phase
            && before + AT_WORK_MAX < now
        {
            again.hurry(self.tried.len());
            self.next_slot = self.next_slot.map(|_| now);
        }
    }

    /// Takes in how many of those that were sent before may be sent again.
    pub fn handle_again(&mut self, datagrams: u32, now: Instant) {
        if let Phase::Again(again) = &mut self.phase {
            let due = again.handle_leave(datagrams, now);
            self.next_slot = Some(due);
        }
    }

    /// Whether the peer is known to be at work.
    pub fn is_peer_at_work(&self, now: Instant) -> bool {
        now <= self.peer_at_work + AT_WORK_MAX
    }

    /// Whether it sends to new ports still.
    pub fn is_firing(&self) -> bool {
        matches!(self.phase, Phase::Firing)
    }

    /// Whether it may say again what it has said, and was not allowed to for so long that others had better
    /// have their turn.
    pub fn is_held_up(&self) -> bool {
        matches!(&self.phase, Phase::Again(again) if again.is_held_up())
    }

    /// Does what is due at `now`: if the owner wakes late, as much as it has missed, within bounds.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..LATE_MAX {
            let Some(slot) = self.next_slot.filter(|slot| *slot <= now) else { return };
            if !self.is_firing() {
                break;
            }
            match self.kind {
                Kind::Spray => self.spray(slot, now),
                Kind::Crowd => self.gather(slot, now),
            }
        }
        let Some(slot) = self.next_slot.filter(|slot| *slot <= now) else { return };
        match (&mut self.phase, self.kind) {
            // What was missed beyond that is not made good.
            (Phase::Firing, _) => self.next_slot = Some(now),
            (Phase::Again(again), kind) => {
                let first_pace = match kind {
                    Kind::Spray => SPRAY_PACE,
                    Kind::Crowd => CROWD_PACE,
                };
                let is_at_work = now <= self.peer_at_work + AT_WORK_MAX;
                let every =
                    if is_at_work { self.again_every } else { self.again_every * IDLE_FACTOR };
                let (paths, next) = again.take(&self.tried, (first_pace, every), (slot, now));
                self.outputs.extend(paths.into_iter().map(Output::Ping));
                self.next_slot = next;
                if next.is_none() {
                    self.outputs.push_back(Output::AskAgain(again::SLICE));
                }
            }
            (Phase::Spent, _) => self.next_slot = None,
        }
    }

    /// Sends nothing more.
    pub fn stop(&mut self) {
        self.next_slot = None;
        self.outputs.clear();
    }

    /// The next thing to do, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next; not while it waits for leave, and never again
    /// once it is spent.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next_slot
    }

    /// Datagrams sent to new ports so far.
    pub fn sent(&self) -> u32 {
        u32::try_from(self.tried.len()).unwrap_or(u32::MAX)
    }

    /// All that may be sent to new ports was sent.
    fn finish_firing(&mut self, now: Instant) {
        let may_repeat = self.is_proved && !self.tried.is_empty();
        self.phase = if may_repeat { Phase::Again(Again::default()) } else { Phase::Spent };
        self.next_slot = may_repeat.then_some(now);
    }

    fn spray(&mut self, slot: Instant, now: Instant) {
        match self.targets.next(now) {
            Some(target) if self.datagrams_left > 0 => {
                self.ping(self.main, target);
                self.next_slot = Some(slot + SPRAY_PACE);
            }
            Some(_) | None => self.finish_firing(now),
        }
    }

    /// One step of a crowd: another socket, or another datagram from one that there is.
    fn gather(&mut self, slot: Instant, now: Instant) {
        if self.target.is_none() {
            self.target = self.targets.next(now).map(|target| (target, 0));
        }
        if self.target.is_none() || self.datagrams_left == 0 {
            return self.finish_firing(now);
        }
        self.next_slot = Some(slot + CROWD_PACE);
        if self.wanted > 0 {
            self.wanted -= 1;
            self.opening += 1;
            self.outputs.push_back(Output::OpenSocket);
        } else {
            self.ping_from_crowd(now);
        }
    }

    fn ping_from_crowd(&mut self, now: Instant) {
        let Some((target, done)) = self.target else { return };
        if let Some(socket) = self.crowd.get(done).copied() {
            self.target = Some((target, done + 1));
            return self.ping(socket, target);
        }
        if self.wanted > 0 || self.opening > 0 {
            return;
        }
        // All have sent there.
        self.target = None;
        match self.targets.after_round(self.crowd.len()) {
            // At the slot that is next in any case.
            targets::Next::AtOnce => {}
            targets::Next::AnotherRound => self.next_slot = Some(now + ROUND_PAUSE),
            targets::Next::Nothing => self.finish_firing(now),
        }
    }

    fn ping(&mut self, socket: SocketIndex, remote: SocketAddr) {
        if self.datagrams_left == 0 {
            return;
        }
        self.datagrams_left -= 1;
        let path = Path { socket, remote };
        self.tried.push(path);
        self.outputs.push_back(Output::Ping(path));
    }
}

/// Within how long all that a volley has tried is tried again, while the peer is at work.
///
/// Every mapping of a crowd may be the one that is waited for. Of 512 in front of an endpoint many are, so that
/// half a round finds one; where both sides have crowds it may be one of 1,024, and a way that is free is
/// to be found within 3 s; those of two that count are few, and soon there are others. A spray only holds filters open, which routers forget after 30 s.
fn again_every(order: Order) -> Duration {
    match (order.crowd, order.aim) {
        (0, _) => Duration::from_secs(20),
        (_, Aim::Endpoint) => Duration::from_secs(5),
        (..=RUN_TO_MEET, _) => Duration::from_secs(1),
        (_, Aim::Next { .. } | Aim::Block { .. } | Aim::Anywhere) => Duration::from_millis(2_500),
    }
}

/// How long a sign that the peer is at work holds: three offers or answers, of which two may be lost.
const AT_WORK_MAX: Duration = Duration::from_secs(8);

/// How much slower what was tried is tried again while nothing shows that the peer is at work.
const IDLE_FACTOR: u32 = 4;

#[cfg(test)]
mod tests;
