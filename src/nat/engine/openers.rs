//! How far our probes get, where the peer's router may punish those that come before it has sent any: to the
//! peer, or through our own NATs only; and from which socket.
//!
//! Once a router was disturbed by an endpoint, it may lead what it sends there through another port for as
//! long as both go on. So there is a second way: a socket that nobody has heard of, see
//! [`Opener`](crate::nat::opener), beside the loud ones.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{Engine, Openers, Output, QUIET_HOPS, STEP, State};
use crate::{
    datagram::{Family, Path, SocketIndex},
    entropy::Entropy,
    nat::{
        distance::Distance,
        opener::{self, Opener},
        strategy::{Method, Plan, plans},
        stun::Response,
    },
    probe::{Probe, Side},
};

/// How far our probes to the peer's own addresses get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loudness {
    /// To the peer.
    Loud,
    /// Pings through our own NATs only, until the peer is heard.
    QuietUntilHeard,
    /// None any further, heard or not: a router that was disturbed forgets.
    Silent,
}

impl Loudness {
    pub(super) fn first(openers: Openers, side: Side) -> Self {
        match (openers, side) {
            (Openers::Quiet, Side::Initiator) => Self::QuietUntilHeard,
            (Openers::Loud, _) | (Openers::Quiet, Side::Responder) => Self::Loud,
        }
    }
}

/// The socket that keeps quiet, when it is time for it.
#[derive(Debug)]
pub(super) struct Fresh {
    servers: Vec<SocketAddr>,
    due: Option<Instant>,
    /// When a peer that is heard, but does not answer, is tried from another port, too.
    due_if_heard: Instant,
    opener: Option<Opener>,
}

impl Fresh {
    pub(super) fn new(servers: Vec<SocketAddr>, now: Instant) -> Self {
        let due = (!servers.is_empty()).then_some(now + FRESH_AFTER);
        Self { servers, due, due_if_heard: now + FRESH_AFTER, opener: None }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let opener = self.opener.as_ref().and_then(Opener::poll_timeout);
        opener.into_iter().chain(self.due).min()
    }

    /// Takes in a socket if it is the one that was asked for.
    pub(super) fn handle_socket_opened(
        &mut self,
        socket: SocketIndex,
        now: Instant,
        entropy: &mut Entropy,
    ) -> bool {
        let opener = self.opener.as_mut();
        opener.is_some_and(|opener| opener.handle_socket_opened(socket, now, entropy))
    }

    /// Takes in that there is no socket, if one was asked for.
    pub(super) fn handle_socket_refused(&mut self) -> bool {
        self.opener.take_if(|opener| opener.is_waiting_for_socket()).is_some()
    }

    /// The socket to be closed, unless it is wanted.
    pub(super) fn close(&mut self, is_wanted: impl Fn(SocketIndex) -> bool) -> Option<SocketIndex> {
        self.due = None;
        self.opener.take().and_then(|opener| opener.socket()).filter(|socket| !is_wanted(*socket))
    }
}

impl Engine {
    /// Takes in when the peer will have read our offer, and been heard if its probes get through.
    pub fn handle_read(&mut self, heard_by: Instant) {
        if let Some(due) = &mut self.fresh.due {
            *due = (*due).min(heard_by);
        }
    }

    /// Takes in a STUN server's answer to a socket that this engine has asked for.
    pub fn handle_response(
        &mut self,
        (socket, remote): (SocketIndex, SocketAddr),
        response: &Response,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        if let Some(opener) = &mut self.fresh.opener {
            opener.handle_response((socket, remote), response, now);
            self.drain(now, entropy);
        }
    }

    /// Begins with a fresh socket if it is time and nothing was heard, and does what is due on it.
    pub(super) fn open_afresh(&mut self, now: Instant) {
        if !self.punch.facts().heard.is_empty()
            && let Some(due) = &mut self.fresh.due
        {
            *due = (*due).max(self.fresh.due_if_heard);
        }
        if self.fresh.due.take_if(|due| *due <= now).is_some()
            && self.side == Side::Initiator
            && let Some(quiet) = self.quiet_plan()
        {
            let why = format!("{}: from a port that it has not heard of", quiet.why);
            self.outputs.push_back(Output::Trying(Plan { why, ..quiet }));
            let servers = self.fresh.servers.clone();
            let is_there = |address: &SocketAddr| {
                Family::of(address.ip()) == Family::V4
                    && Distance::of(address.ip()) == Distance::Internet
            };
            let candidates = self.theirs.candidates.iter().map(|candidate| candidate.address);
            let targets = candidates.filter(is_there).collect();
            self.fresh.opener = Some(Opener::new(servers, targets));
        }
        if let Some(opener) = &mut self.fresh.opener {
            opener.handle_timeout(now);
        }
    }

    pub(super) fn drain_fresh(&mut self, now: Instant, entropy: &mut Entropy) {
        while let Some(output) = self.fresh.opener.as_mut().and_then(Opener::poll_output) {
            match output {
                opener::Output::OpenSocket => {
                    self.outputs.push_back(Output::OpenSocket { family: Family::V4 });
                }
                opener::Output::Ask(datagram) => self.outputs.push_back(Output::Ask(datagram)),
                opener::Output::Seen(endpoint) => self.outputs.push_back(Output::Offer(endpoint)),
                opener::Output::Ping(path) => self.punch.guess(path, now, entropy),
            }
        }
    }

    fn quiet_plan(&self) -> Option<Plan> {
        let offered = plans(&self.ours, &self.theirs.party);
        offered.into_iter().find(|plan| plan.method == Method::QuietOpeners)
    }

    /// Nothing has opened: goes on in another way.
    pub(super) fn change_openers(&mut self, now: Instant) {
        let (Some(quiet), Side::Initiator) = (self.quiet_plan(), self.side) else {
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

    /// The hops that a probe may make, if not as many as usual. Guessed ports were never disturbed.
    pub(super) fn hops(&self, probe: &Probe, path: Path) -> Option<u8> {
        if let Some(opener) = self.fresh.opener.as_ref().filter(|it| it.has(path.socket)) {
            return opener.is_quiet().then_some(QUIET_HOPS);
        }
        let is_named = self.theirs.candidates.iter().any(|known| known.address == path.remote);
        let is_quiet = match (self.loudness, probe) {
            (Loudness::Loud, _) => false,
            (Loudness::QuietUntilHeard, Probe::Ping { .. }) => self.punch.facts().heard.is_empty(),
            (Loudness::QuietUntilHeard, Probe::Pong { .. }) => false,
            (Loudness::Silent, _) => true,
        };
        (is_named && is_quiet).then_some(QUIET_HOPS)
    }

    /// The peer was heard on `socket`.
    pub(super) fn note_heard(&mut self, socket: SocketIndex, now: Instant) {
        self.guessing.note_heard(socket, now);
        if let Some(opener) = self.fresh.opener.as_mut().filter(|it| it.has(socket)) {
            opener.handle_heard();
        }
    }
}

/// When a fresh socket is opened at the latest, if there is no path by then: half of what may pass without
/// anything new, as it takes another offer.
const FRESH_AFTER: Duration = Duration::from_millis(1_500);

/// How long the peer's router is left in peace after loud openers: longer than one sulks (5 s are usual).
///
/// Quiet openers keep our own NAT open meanwhile.
pub(super) const QUIET_TIME: Duration = Duration::from_secs(6);
