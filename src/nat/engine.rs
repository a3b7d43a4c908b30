//! Tries all that may open a path to one peer: the plain probes of [`Punch`] at once, and beside them
//! whatever [`strategy`](super::strategy) says of the two NATs.
//!
//! ```text
//!  0            head start                       every STEP without a path
//!  ├ plain probes ───────────────────────────────────────────────────────▶
//!                 ├ volley: crowd, spray, or both ──────────▶ spent
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

mod report;

use std::{
    collections::{BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

pub use self::report::{Openers, Output, Setup};
use super::{
    punch::{self, Facts, Opened, Punch},
    strategy::{Aim, CROWD, Method, Order, Party, Plan, plans},
    volley::{self, Address, DATAGRAMS_PER_ATTEMPT_MAX, Volley},
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

/// How long the peer's router is left in peace after loud openers: longer than one sulks (5 s are usual).
///
/// Quiet openers keep our own NAT open meanwhile.
const QUIET_TIME: Duration = Duration::from_secs(6);

/// Routers that a quiet opener may cross: more than there are between a host and the NATs in front of
/// it, carrier's included, and fewer than there are to the peer's.
pub const QUIET_HOPS: u8 = 5;

/// What plain probes get before many more sockets are opened for a birthday: two round trips of 75 ms.
const HEAD_START: Duration = Duration::from_millis(150);

/// How long two NATs that count wait for the peer's answer, which says how far its count has got.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Time until a volley that was refused asks again.
const LEAVE_RETRY: Duration = Duration::from_secs(1);

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
    /// Datagrams that may still be asked for in this attempt.
    allowance: u32,
    /// What the volley under way was granted.
    granted: u32,
    loudness: Loudness,
    /// The volley that there is to be, and when.
    planned: Option<(Order, Instant)>,
    /// A volley that waits for leave.
    asked: Option<Order>,
    volley: Option<Volley>,
    /// Sockets opened for volleys.
    extra: BTreeSet<SocketIndex>,
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

/// How far our probes to the peer's own addresses get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loudness {
    /// To the peer.
    Loud,
    /// Pings through our own NATs only, until the peer is heard.
    QuietUntilHeard,
    /// None any further, heard or not: a router that was disturbed forgets.
    Silent,
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
            allowance: DATAGRAMS_PER_ATTEMPT_MAX,
            granted: 0,
            loudness: match (setup.openers, setup.side) {
                (Openers::Quiet, Side::Initiator) => Loudness::QuietUntilHeard,
                (Openers::Loud, _) | (Openers::Quiet, Side::Responder) => Loudness::Loud,
            },
            planned: None,
            asked: None,
            volley: None,
            extra: BTreeSet::new(),
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
        self.theirs.party = theirs;
        self.theirs.forecast = forecast.or(self.theirs.forecast);
        if !addresses.is_empty() {
            self.theirs.addresses = addresses;
        }
        self.peer_begins = self.peer_begins.min(now);
        if matches!(self.state, State::Trying { .. }) {
            self.plan(now);
            if let Some((_, at)) = &mut self.planned {
                *at = now;
            }
        }
    }

    /// Takes in that our own NATs behave otherwise than we thought, if they do.
    pub fn handle_own_news(&mut self, ours: Party, now: Instant) {
        if ours == self.ours {
            return;
        }
        self.ours = ours;
        if matches!(self.state, State::Trying { .. }) {
            self.plan(now);
        }
    }

    /// Tries `candidates` too.
    pub fn add_candidates(&mut self, candidates: &[Candidate], now: Instant) {
        self.theirs.candidates.extend(candidates);
        self.punch.add_candidates(candidates, now);
    }

    /// Begins the plain probes anew, as [`Punch::restart`] does. A volley that is under way goes on; after a
    /// path or the deadline there is another one, out of what was allowed for both.
    pub fn restart(&mut self, candidates: &[Candidate], deadline: Instant, now: Instant) {
        self.theirs.candidates = candidates.to_vec();
        self.punch.restart(candidates, deadline, now);
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
        match (&mut self.volley, &self.state) {
            (Some(volley), State::Trying { .. }) => {
                self.extra.insert(socket);
                volley.handle_socket_opened(socket, now);
                self.drain(now, entropy);
            }
            (Some(_) | None, _) => self.outputs.push_back(Output::CloseSocket(socket)),
        }
    }

    /// Takes in that no more sockets can be opened: what there is must do.
    pub fn handle_socket_refused(&mut self) {
        if let Some(volley) = &mut self.volley {
            volley.handle_socket_refused();
        }
    }

    /// Takes in that the link goes over `socket`, and closes the others. Where several ports were hit at
    /// once, each side may have proved another path first; that of whoever dials is the one.
    pub fn handle_used(&mut self, socket: SocketIndex) {
        self.state = State::Open { best: socket, until: None };
        self.end_volley();
        self.planned = None;
        self.close_sockets(|other| other == socket);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, entropy: &mut Entropy) {
        self.punch.handle_timeout(now, entropy);
        if let Some((order, _)) = self.planned.take_if(|(_, at)| *at <= now) {
            self.ask_leave(order);
        }
        if let Some(volley) = &mut self.volley {
            volley.handle_timeout(now);
        }
        match &mut self.state {
            State::Trying { next_step } if *next_step <= now => self.change_openers(now),
            State::Open { best, until } if until.is_some_and(|until| until <= now) => {
                let best = *best;
                *until = None;
                self.close_sockets(|socket| socket == best);
            }
            State::Trying { .. } | State::Open { .. } | State::GaveUp => {}
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
        let planned = self.planned.map(|(_, at)| at);
        let volley = self.volley.as_ref().and_then(Volley::poll_timeout);
        [self.punch.poll_timeout(), planned, volley, state].into_iter().flatten().min()
    }

    /// What was done and seen in this attempt.
    pub fn facts(&self) -> &Facts {
        self.punch.facts()
    }

    /// Says what will be tried, and when the volley begins if there is one.
    fn plan(&mut self, now: Instant) {
        self.planned = None;
        for plan in plans(&self.ours, &self.theirs.party, self.side) {
            if let Method::Volley(order) = plan.method {
                self.planned = Some((order, self.begins_at(order, now)));
            }
            if plan.method != Method::QuietOpeners {
                self.outputs.push_back(announce(plan));
            }
        }
    }

    fn begins_at(&self, order: Order, now: Instant) -> Instant {
        let both_work = match self.side {
            Side::Responder => now,
            Side::Initiator => self.peer_begins.max(now),
        };
        match order.aim {
            // Each aims at where the other's count is now.
            Aim::Next { .. } if order.crowd > 0 && self.side == Side::Initiator => {
                both_work + ANSWER_WAIT
            }
            Aim::Next { .. } => both_work,
            Aim::Endpoint if order.crowd < CROWD => both_work,
            Aim::Endpoint | Aim::Block { .. } | Aim::Anywhere => both_work + HEAD_START,
        }
    }

    /// A volley is due. One that is under way ends: there are never two crowds at a time.
    fn ask_leave(&mut self, order: Order) {
        self.end_volley();
        self.close_unheard_sockets(None);
        if self.allowance > 0 && !self.theirs.addresses.is_empty() {
            self.asked = Some(order);
            let (datagrams, crowd) = (self.allowance, order.crowd);
            self.outputs.push_back(Output::AskLeave { datagrams, crowd });
        }
    }

    fn end_volley(&mut self) {
        self.asked = None;
        if let Some(volley) = self.volley.take() {
            self.allowance = self.allowance.saturating_sub(volley.sent());
            let unspent = std::mem::take(&mut self.granted).saturating_sub(volley.sent());
            if unspent > 0 {
                self.outputs.push_back(Output::Unspent(unspent));
            }
        }
    }

    /// Takes in how many datagrams the volley that asked may send. With none, it asks again a little
    /// later: another one may have to end first.
    pub fn handle_leave(&mut self, datagrams: u32, now: Instant, entropy: &mut Entropy) {
        let (Some(order), State::Trying { .. }, Some(main)) =
            (self.asked.take(), &self.state, self.main)
        else {
            if datagrams > 0 {
                self.outputs.push_back(Output::Unspent(datagrams));
            }
            return;
        };
        if datagrams == 0 {
            self.planned = Some((order, now + LEAVE_RETRY));
            return;
        }
        let addresses = self.theirs.addresses.clone();
        let endpoints = self.theirs.candidates.iter().map(|candidate| candidate.address).collect();
        self.granted = datagrams.min(self.allowance);
        let setup = volley::Setup {
            order,
            main,
            addresses,
            endpoints,
            forecast: self.theirs.forecast,
            allowance: self.granted,
        };
        self.volley = Some(Volley::new(setup, now, entropy));
    }

    /// Nothing has opened: goes on in another way.
    fn change_openers(&mut self, now: Instant) {
        let offered = plans(&self.ours, &self.theirs.party, self.side);
        let quiet = offered.into_iter().find(|plan| plan.method == Method::QuietOpeners);
        let (Some(quiet), Side::Initiator) = (quiet, self.side) else {
            self.state = State::Trying { next_step: now + STEP };
            return;
        };
        let (loudness, time) = match self.loudness {
            Loudness::Loud => {
                self.outputs.push_back(Output::Trying(quiet));
                (Loudness::Silent, QUIET_TIME)
            }
            Loudness::QuietUntilHeard | Loudness::Silent => (Loudness::Loud, STEP),
        };
        self.loudness = loudness;
        self.state = State::Trying { next_step: now + time };
    }

    /// Makes the parts' outputs our own.
    fn drain(&mut self, now: Instant, entropy: &mut Entropy) {
        while let Some(output) = self.volley.as_mut().and_then(Volley::poll_output) {
            match output {
                volley::Output::OpenSocket => {
                    let family = self.theirs.addresses.first().map(|at| Family::of(at.ip()));
                    self.outputs.extend(family.map(|family| Output::OpenSocket { family }));
                }
                volley::Output::Ping(path) => self.punch.guess(path, now, entropy),
            }
        }
        while let Some(output) = self.punch.poll_output() {
            match output {
                punch::Output::Transmit { path, probe } => {
                    let hops = self.hops(&probe, path.remote);
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
                    self.planned = None;
                    self.end_volley();
                    self.close_sockets(|_| false);
                    self.outputs.push_back(Output::GaveUp(facts));
                }
            }
        }
    }

    /// The hops that a probe may make, if not as many as usual. Guessed ports were never disturbed.
    fn hops(&self, probe: &Probe, remote: SocketAddr) -> Option<u8> {
        let is_named = self.theirs.candidates.iter().any(|known| known.address == remote);
        let is_quiet = match (self.loudness, probe) {
            (Loudness::Loud, _) => false,
            (Loudness::QuietUntilHeard, Probe::Ping { .. }) => self.punch.facts().heard.is_empty(),
            (Loudness::QuietUntilHeard, Probe::Pong { .. }) => false,
            (Loudness::Silent, _) => true,
        };
        (is_named && is_quiet).then_some(QUIET_HOPS)
    }

    fn settle(&mut self, opened: Opened, now: Instant) {
        let best = opened.path.socket;
        self.planned = None;
        self.end_volley();
        self.close_unheard_sockets(Some(best));
        self.state = State::Open { best, until: Some(now + KEEP_HEARD) };
    }

    fn close_unheard_sockets(&mut self, best: Option<SocketIndex>) {
        let heard: BTreeSet<SocketIndex> =
            self.punch.facts().heard.iter().map(|path| path.socket).collect();
        self.close_sockets(|socket| best == Some(socket) || heard.contains(&socket));
    }

    fn close_sockets(&mut self, is_wanted: impl Fn(SocketIndex) -> bool) {
        let unwanted: Vec<SocketIndex> =
            self.extra.iter().filter(|socket| !is_wanted(**socket)).copied().collect();
        for socket in unwanted {
            self.extra.remove(&socket);
            self.outputs.push_back(Output::CloseSocket(socket));
        }
    }
}

fn announce(plan: Plan) -> Output {
    match plan.method {
        Method::Incompatible => Output::Incompatible(plan),
        Method::SameNetwork
        | Method::Direct
        | Method::Simultaneous
        | Method::Volley(_)
        | Method::QuietOpeners => Output::Trying(plan),
    }
}

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;
