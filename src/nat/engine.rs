//! Tries all that may open a path to one peer: the plain probes of [`Punch`] at once, and beside them
//! whatever [`strategy`](super::strategy) says of the two NATs.
//!
//! ```text
//!  0            head start                       every STEP without a path
//!  ├ plain probes ───────────────────────────────────────────────────────▶
//!                 ├ volley: crowd, spray, or both ──▶ the same pairs again, and other ports ──▶
//!                      ├ a fresh socket that keeps quiet ────────────────────────────────────▶
//!                                                 ├ quiet openers, and loud ones again ───▶
//! ```
//!
//! The plain probes go on through all of it: they cost little, and what was inferred may be wrong. A
//! volley begins when the peer is likely to be at work too: for the side that received the offer at
//! once, for the other at [`Setup::peer_begins`], or when [`Engine::handle_news`] brings the peer's answer,
//! which two NATs that count wait for, because every attempt moves the count on.
//!
//! The first path that answers ends it. Sockets on which the peer was not heard are closed at once, the
//! others [`KEEP_HEARD`] later, unless [`Engine::handle_used`] says before that on which one the link is.

mod guessing;
mod openers;
mod report;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

pub use self::report::{Openers, Output, Setup};
use self::{
    guessing::Guessing,
    openers::{Fresh, Loudness},
};
use super::{
    punch::{self, Facts, Opened, Punch},
    strategy::Party,
    volley::{self, Address, Volley},
};
use crate::{
    candidate::Candidate,
    datagram::{Family, SocketIndex},
    entropy::Entropy,
    nat::prediction::Forecast,
    probe::{Probe, Side},
};

/// Without a path, something changes at least this often.
pub const STEP: Duration = Duration::from_secs(3);

/// Routers that a quiet opener may cross: more than there are between a host and the NATs in front of
/// it, carrier's included, and fewer than there are to the peer's.
pub const QUIET_HOPS: u8 = 5;

/// How long sockets on which the peer was heard are kept beside the one that answered first.
pub const KEEP_HEARD: Duration = Duration::from_secs(3);

/// Opens a path to one peer by all means.
#[derive(Debug)]
pub struct Engine {
    punch: Punch,
    side: Side,
    main: Option<SocketIndex>,
    ours: Party,
    theirs: Peer,
    peer_begins: Instant,
    loudness: Loudness,
    fresh: Fresh,
    guessing: Guessing,
    state: State,
    outputs: VecDeque<Output>,
}

/// What is known of the peer.
#[derive(Debug)]
struct Peer {
    party: Party,
    forecast: Option<Forecast>,
    addresses: Vec<Address>,
    candidates: Vec<Candidate>,
}

#[derive(Debug)]
enum State {
    /// No path yet.
    Trying {
        next_step: Instant,
    },
    /// This path works; at `until` the sockets that are not needed are closed.
    Open {
        best: SocketIndex,
        until: Option<Instant>,
    },
    GaveUp,
}

impl Engine {
    /// Begins at once: [`Self::poll_timeout`] is `now`.
    pub fn new(setup: Setup, now: Instant) -> Self {
        let main = setup.punch.sockets.iter().find(|socket| {
            let family = Family::of(socket.local.ip());
            setup.addresses.first().is_some_and(|address| family == Family::of(address.ip()))
        });
        let main = main.or_else(|| setup.punch.sockets.first()).map(|socket| socket.index);
        let theirs = Peer {
            party: setup.theirs,
            forecast: setup.forecast,
            addresses: setup.addresses,
            candidates: setup.punch.candidates.clone(),
        };
        let mut engine = Self {
            punch: Punch::new(setup.punch, now),
            side: setup.side,
            main,
            ours: setup.ours,
            theirs,
            peer_begins: setup.peer_begins,
            loudness: Loudness::first(setup.openers, setup.side),
            fresh: Fresh::new(setup.servers, now),
            guessing: Guessing::new(now),
            state: State::Trying { next_step: now + STEP },
            outputs: VecDeque::new(),
        };
        engine.plan(now);
        engine
    }

    /// Takes in what the peer has told of itself since: its answer to the offer, a fresher record, a second
    /// witness of its address. Without addresses, those known so far stay.
    pub fn handle_news(
        &mut self,
        theirs: Party,
        forecast: Option<Forecast>,
        addresses: Vec<Address>,
        now: Instant,
    ) {
        let is_same = |party: &Party| party.nat.without_hint() == theirs.nat.without_hint();
        let is_elsewhere = self.theirs.party.public != theirs.public
            || (!addresses.is_empty() && addresses != self.theirs.addresses);
        let is_other = is_elsewhere || !is_same(&self.theirs.party);
        self.theirs.party = theirs;
        self.theirs.forecast = forecast.or(self.theirs.forecast);
        if !addresses.is_empty() {
            self.theirs.addresses = addresses;
        }
        self.peer_begins = self.peer_begins.min(now);
        if matches!(self.state, State::Trying { .. }) {
            self.take_news(is_other && (is_elsewhere || !self.is_filling_on()), now);
        }
    }

    /// Takes in that our own NATs behave otherwise than we thought, if they do. What is not known any more, as
    /// nobody answers, was so when it was.
    pub fn handle_own_news(&mut self, ours: Party, now: Instant) {
        let is_lost = ours.nat.mapping.is_none() && self.ours.nat.mapping.is_some();
        if ours == self.ours || is_lost {
            return;
        }
        let is_elsewhere = ours.public != self.ours.public;
        self.ours = ours;
        let is_unchanged = !is_elsewhere && self.is_filling_on();
        if matches!(self.state, State::Trying { .. }) && !is_unchanged {
            self.plan(now);
        }
    }

    /// Tries `candidates` too.
    pub fn add_candidates(&mut self, candidates: &[Candidate], now: Instant) {
        self.theirs.candidates.extend(candidates);
        self.punch.add_candidates(candidates, now);
    }

    /// Begins the plain probes anew, as [`Punch::restart`] does. A volley that is under way goes on; after a
    /// path or the deadline there is another one. Where a path has opened just now nothing begins anew: the
    /// offer was made before its maker knew, and a link is coming up.
    pub fn restart(&mut self, candidates: &[Candidate], deadline: Instant, now: Instant) {
        self.theirs.candidates = candidates.to_vec();
        if matches!(self.state, State::Open { until: Some(until), .. } if now < until) {
            return self.punch.add_candidates(candidates, now);
        }
        self.punch.restart(candidates, deadline, now);
        if self.side == Side::Responder {
            self.take_sign_of_work(now);
        }
        if !matches!(self.state, State::Trying { .. }) {
            self.state = State::Trying { next_step: now + STEP };
            self.plan(now);
        }
    }

    /// Takes in an authentic probe of the peer that came from `from` to `socket`.
    pub fn handle_probe(
        &mut self,
        socket: SocketIndex,
        from: SocketAddr,
        probe: Probe,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        self.note_heard(socket, now);
        self.punch.handle_probe(socket, from, probe, now, entropy);
        self.drain(now, entropy);
    }

    /// Takes in a socket that [`Output::OpenSocket`] asked for.
    pub fn handle_socket_opened(
        &mut self,
        socket: SocketIndex,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        let is_trying = matches!(self.state, State::Trying { .. });
        if is_trying && self.fresh.handle_socket_opened(socket, now, entropy) {
            return self.drain(now, entropy);
        }
        match &mut self.guessing.volley {
            Some(volley) if is_trying => {
                self.guessing.extra.insert(socket);
                volley.handle_socket_opened(socket, now);
                self.drain(now, entropy);
            }
            Some(_) | None => self.outputs.push_back(Output::CloseSocket(socket)),
        }
    }

    /// Takes in that no more sockets can be opened: what there is must do.
    pub fn handle_socket_refused(&mut self) {
        if !self.fresh.handle_socket_refused()
            && let Some(volley) = &mut self.guessing.volley
        {
            volley.handle_socket_refused();
        }
    }

    /// Takes in that the link goes over `socket`, and closes the others. Where several ports were hit at
    /// once, each side may have proved another path first; that of whoever dials is the one.
    pub fn handle_used(&mut self, socket: SocketIndex) {
        self.state = State::Open { best: socket, until: None };
        self.end_volley();
        self.guessing.planned = None;
        self.close_sockets(|other| other == socket);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, entropy: &mut Entropy) {
        self.punch.handle_timeout(now, entropy);
        self.guess(now);
        match &mut self.state {
            State::Trying { next_step } => {
                if *next_step <= now {
                    self.change_openers(now);
                }
                self.open_afresh(now);
            }
            State::Open { best, until } if until.is_some_and(|until| until <= now) => {
                let best = *best;
                *until = None;
                self.close_sockets(|socket| socket == best);
            }
            State::Open { .. } | State::GaveUp => {}
        }
        self.drain(now, entropy);
    }

    /// The next thing to do or to know, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let state = match self.state {
            State::Trying { next_step } => Some(next_step),
            State::Open { until, .. } => until,
            State::GaveUp => None,
        };
        let is_trying = matches!(self.state, State::Trying { .. });
        let fresh = self.fresh.poll_timeout().filter(|_| is_trying);
        let due = [self.punch.poll_timeout(), self.guessing.poll_timeout(), fresh, state];
        due.into_iter().flatten().min()
    }

    /// What was done and seen in this attempt.
    pub fn facts(&self) -> &Facts {
        self.punch.facts()
    }

    /// Makes the parts' outputs our own.
    fn drain(&mut self, now: Instant, entropy: &mut Entropy) {
        while let Some(output) = self.guessing.volley.as_mut().and_then(Volley::poll_output) {
            match output {
                volley::Output::OpenSocket => {
                    let family = self.theirs.addresses.first().map(|at| Family::of(at.ip()));
                    self.outputs.extend(family.map(|family| Output::OpenSocket { family }));
                }
                volley::Output::Ping(path) => self.punch.guess(path, now, entropy),
                volley::Output::AskAgain(datagrams) => {
                    let leave = volley::Leave::Again { datagrams };
                    self.outputs.push_back(Output::AskLeave(leave));
                }
            }
        }
        self.drain_fresh(now, entropy);
        while let Some(output) = self.punch.poll_output() {
            match output {
                punch::Output::Transmit { path, probe } => {
                    let hops = self.hops(&probe, path);
                    self.outputs.push_back(Output::Transmit { path, probe, hops });
                }
                punch::Output::Heard { path } => self.outputs.push_back(Output::Heard { path }),
                punch::Output::Open(opened) => {
                    self.outputs.push_back(Output::Open(opened));
                    self.settle(opened, now);
                }
                punch::Output::Better(opened) => {
                    self.outputs.push_back(Output::Better(opened));
                    self.settle(opened, now);
                }
                punch::Output::GaveUp(facts) => {
                    self.state = State::GaveUp;
                    self.guessing.planned = None;
                    self.end_volley();
                    self.close_sockets(|_| false);
                    self.outputs.push_back(Output::GaveUp(facts));
                }
            }
        }
    }

    fn settle(&mut self, opened: Opened, now: Instant) {
        let best = opened.path.socket;
        self.guessing.planned = None;
        self.end_volley();
        self.close_unheard_sockets(best, now);
        self.state = State::Open { best, until: Some(now + KEEP_HEARD) };
    }

    fn close_unheard_sockets(&mut self, best: SocketIndex, now: Instant) {
        let heard = self.guessing.heard_lately(now);
        self.close_sockets(|socket| best == socket || heard.contains(&socket));
    }

    fn close_sockets(&mut self, is_wanted: impl Fn(SocketIndex) -> bool) {
        let unwanted = self.guessing.take_sockets(|socket| !is_wanted(socket)).into_iter();
        let fresh = self.fresh.close(&is_wanted);
        self.outputs.extend(unwanted.chain(fresh).map(Output::CloseSocket));
    }
}

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
#[cfg(test)]
mod world_codec;
