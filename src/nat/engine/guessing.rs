//! The volleys of an engine: which one there is to be and when, what it may send, and what follows it.
//!
//! ```text
//!   planned ──due──▶ leave asked ──granted──▶ firing ──▶ again: what was tried, as long as it takes
//!      ▲                 │ refused              │           │ a spray: OTHER_PORTS_AFTER
//!      ├─────────────────┴──────────────────────┴───────────┤ news that change the aim
//!      └──FORGOTTEN_AFTER── resting ◀──OTHER_PORTS_AFTER────┘ what has filled a block
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{Engine, KEEP_HEARD, Output, State};
use crate::{
    behaviour::PortHint,
    datagram::SocketIndex,
    entropy::Entropy,
    nat::{
        strategy::{Aim, CROWD, Method, Order, Plan, RUN_TO_MEET, plans},
        volley::{self, DATAGRAMS_PER_VOLLEY_MAX, Leave, Volley},
    },
    probe::Side,
};

/// The volleys of one engine, one at a time.
#[derive(Debug)]
pub(super) struct Guessing {
    /// Datagrams to new ports that may still be asked for, and since when there are so many.
    allowance: (u32, Instant),
    /// What the volley under way was granted.
    granted: u32,
    /// The volley that there is to be, and when.
    pub(super) planned: Option<(Order, Instant)>,
    /// A volley that waits for leave.
    asked: Option<Order>,
    pub(super) volley: Option<Volley>,
    /// What the volley under way is about, and when it is to be doubted.
    under_way: Option<(Order, Instant)>,
    /// When a spray, or what has filled a block, turns to other ports.
    other_ports: Option<Instant>,
    /// What fills a block anew when the NAT has forgotten what filled it before.
    resting: Option<(Order, Instant)>,
    /// Sockets opened for volleys.
    pub(super) extra: BTreeSet<SocketIndex>,
    /// When the peer was last heard on the sockets on which it was.
    heard: BTreeMap<SocketIndex, Instant>,
}

impl Guessing {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            allowance: (DATAGRAMS_PER_VOLLEY_MAX, now),
            granted: 0,
            planned: None,
            asked: None,
            volley: None,
            under_way: None,
            other_ports: None,
            resting: None,
            extra: BTreeSet::new(),
            heard: BTreeMap::new(),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let planned = self.planned.or(self.resting).map(|(_, at)| at);
        let volley = self.volley.as_ref().and_then(Volley::poll_timeout);
        let doubt = self.under_way.map(|(_, doubt)| doubt);
        [planned, volley, doubt, self.other_ports].into_iter().flatten().min()
    }

    /// Lets go of the sockets that are like this.
    pub(super) fn take_sockets(&mut self, is_it: impl Fn(SocketIndex) -> bool) -> Vec<SocketIndex> {
        let taken = self.extra.iter().copied().filter(|socket| is_it(*socket)).collect();
        self.extra.retain(|socket| !is_it(*socket));
        self.heard.retain(|socket, _| !is_it(*socket));
        taken
    }

    /// The peer was heard on `socket`.
    pub(super) fn note_heard(&mut self, socket: SocketIndex, now: Instant) {
        self.heard.insert(socket, now);
    }

    /// Where the peer was heard so lately that a link may be coming up there, whatever was begun anew since.
    pub(super) fn heard_lately(&self, now: Instant) -> BTreeSet<SocketIndex> {
        let lately = self.heard.iter().filter(|(_, at)| now < **at + KEEP_HEARD);
        lately.map(|(socket, _)| *socket).collect()
    }

    /// Counts what was sent against what an attempt may send.
    fn spend(&mut self, sent: u32) {
        self.allowance.0 = self.allowance.0.saturating_sub(sent);
    }

    /// What may be asked for now.
    fn allowed(&mut self, now: Instant) -> u32 {
        let (_, since) = self.allowance;
        if since + OTHER_PORTS_AFTER <= now {
            self.allowance = (DATAGRAMS_PER_VOLLEY_MAX, now);
        }
        self.allowance.0
    }
}

impl Engine {
    /// Says what will be tried, and when the volley begins if there is one.
    pub(super) fn plan(&mut self, now: Instant) {
        (self.guessing.planned, self.guessing.resting) = (None, None);
        for plan in plans(&self.ours, &self.theirs.party) {
            if let Method::Volley(order) = plan.method {
                self.guessing.planned = Some((order, self.begins_at(order, now)));
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

    /// The peer has told something of itself, and so is at work: what was planned begins. What is under way
    /// goes on, unless the news are of another kind of NAT, or of how far its count has got.
    pub(super) fn take_news(&mut self, is_other: bool, now: Instant) {
        let guessing = &mut self.guessing;
        let is_count = guessing.under_way.is_some_and(|(order, _)| meets_a_count(order));
        if let Some((_, at)) = &mut guessing.planned
            && !is_other
        {
            *at = now;
        } else if let Some(volley) = &mut guessing.volley
            && !is_other
            && !is_count
        {
            volley.handle_peer_at_work(now);
        } else if is_other || is_count {
            self.plan_at(now);
        }
    }

    /// The peer is at work, as far as it shows.
    pub(super) fn take_sign_of_work(&mut self, now: Instant) {
        if let Some(volley) = &mut self.guessing.volley {
            volley.handle_peer_at_work(now);
        }
    }

    /// Whether the volley under way fills our block, or has, and there would be the same one again but for the edges of
    /// the peer's: the ports that another one would need are taken.
    pub(super) fn is_filling_on(&self) -> bool {
        let guessing = &self.guessing;
        let Some((under_way, _)) =
            guessing.under_way.or(guessing.resting).filter(|(order, _)| fills_a_block(*order))
        else {
            return false;
        };
        let is_same = |order: Order| fills_a_block(order) && order.crowd == under_way.crowd;
        let again = plans(&self.ours, &self.theirs.party);
        again.iter().any(|plan| matches!(plan.method, Method::Volley(order) if is_same(order)))
    }

    fn plan_at(&mut self, now: Instant) {
        self.plan(now);
        if let Some((_, at)) = &mut self.guessing.planned {
            *at = now;
        }
    }

    /// Does what is due of volleys.
    pub(super) fn guess(&mut self, now: Instant) {
        let guessing = &mut self.guessing;
        let rested = guessing.resting.take_if(|(_, at)| *at <= now);
        guessing.planned = guessing.planned.or(rested);
        if let Some((order, _)) = self.guessing.planned.take_if(|(_, at)| *at <= now) {
            self.ask_leave(order, now);
        }
        if let Some(volley) = &mut self.guessing.volley {
            volley.handle_timeout(now);
            if volley.is_held_up() {
                // Others wait for their turn, and this one has had its own.
                let order = self.guessing.under_way.map(|(order, _)| order);
                self.end_volley();
                self.close_crowd(now);
                self.guessing.planned = order.map(|order| (order, now + TURN_PAUSE));
            }
        }
        if let Some((order, _)) = self.guessing.under_way.filter(|(_, doubt)| *doubt <= now) {
            self.guessing.under_way = Some((order, now + OTHER_PORTS_AFTER));
            self.doubt(order, now);
        }
        if self.guessing.other_ports.is_some_and(|at| at <= now) {
            self.guessing.other_ports = Some(now + OTHER_PORTS_AFTER);
            self.turn_to_other_ports(now);
        }
    }

    fn is_peer_at_work(&self, now: Instant) -> bool {
        self.guessing.volley.as_ref().is_some_and(|volley| volley.is_peer_at_work(now))
    }

    fn turn_to_other_ports(&mut self, now: Instant) {
        let Some((order, _)) = self.guessing.under_way.filter(|_| self.is_peer_at_work(now)) else {
            return;
        };
        let why = if fills_a_block(order) {
            // To say it again would keep our own ports taken, and the one of theirs that it waits for may be in use
            // for something else.
            self.end_volley();
            self.close_crowd(now);
            self.guessing.resting = Some((order, now + FORGOTTEN_AFTER));
            "no pair of ports has met: others, when our NAT has forgotten these"
        } else {
            self.guessing.planned = Some((order, now));
            "none of the ports that we tried has answered: now others"
        };
        self.outputs.push_back(Output::Trying(Plan::new(Method::Volley(order), why)));
    }

    /// A volley that should have met has not, although the peer is at work: either the way between the two
    /// is blocked, or one of the NATs is not what it seemed.
    fn doubt(&mut self, order: Order, now: Instant) {
        if !self.is_peer_at_work(now) {
            return;
        }
        let why = if fills_a_block(order) {
            "no pair of ports has met, as it happens to one in ten that fill a block: a look at our NAT, and \
             the same pairs again"
        } else {
            "no pair of ports has met, which is a chance in thousands: a look at our NAT, and the same pairs \
             again"
        };
        self.outputs.push_back(Output::Trying(Plan::new(Method::Volley(order), why)));
        self.outputs.push_back(Output::Doubtful);
    }

    /// A volley is due. One that is under way ends: there are never two crowds at a time.
    fn ask_leave(&mut self, order: Order, now: Instant) {
        self.end_volley();
        self.close_crowd(now);
        let datagrams = self.guessing.allowed(now);
        if self.theirs.addresses.is_empty() {
            return;
        }
        if datagrams == 0 {
            self.guessing.planned = Some((order, self.guessing.allowance.1 + OTHER_PORTS_AFTER));
            return;
        }
        self.guessing.asked = Some(order);
        let leave = Leave::New { datagrams, crowd: order.crowd };
        self.outputs.push_back(Output::AskLeave(leave));
    }

    pub(super) fn end_volley(&mut self) {
        let guessing = &mut self.guessing;
        (guessing.asked, guessing.under_way, guessing.other_ports) = (None, None, None);
        guessing.resting = None;
        if let Some(volley) = guessing.volley.take() {
            guessing.spend(volley.sent());
            let unspent = std::mem::take(&mut guessing.granted).saturating_sub(volley.sent());
            if unspent > 0 {
                self.outputs.push_back(Output::Unspent(unspent));
            }
        }
    }

    /// Closes the sockets of volleys on which the peer was not heard lately.
    fn close_crowd(&mut self, now: Instant) {
        let heard = self.guessing.heard_lately(now);
        let unheard = self.guessing.take_sockets(|socket| !heard.contains(&socket));
        self.outputs.extend(unheard.into_iter().map(Output::CloseSocket));
    }

    /// Takes in how many datagrams the volley that asked may send. With none, it asks again a little
    /// later: another one may have to end first.
    pub fn handle_leave(&mut self, datagrams: u32, now: Instant, entropy: &mut Entropy) {
        if self.guessing.asked.is_none()
            && let Some(volley) = &mut self.guessing.volley
        {
            return volley.handle_again(datagrams, now);
        }
        let (Some(order), State::Trying { .. }, Some(main)) =
            (self.guessing.asked.take(), &self.state, self.main)
        else {
            if datagrams > 0 {
                self.outputs.push_back(Output::Unspent(datagrams));
            }
            return;
        };
        if datagrams == 0 {
            self.guessing.planned = Some((order, now + LEAVE_RETRY));
            return;
        }
        let addresses = self.theirs.addresses.clone();
        let endpoints = self.theirs.candidates.iter().map(|candidate| candidate.address).collect();
        let allowance = datagrams.min(self.guessing.allowance.0);
        let setup = volley::Setup {
            order,
            main,
            addresses,
            endpoints,
            forecast: self.theirs.forecast,
            free_port: match self.theirs.party.nat.hint {
                Some(PortHint::Free(port)) => Some(port),
                Some(PortHint::Counter(_)) | None => None,
            },
            allowance,
        };
        self.guessing.granted = allowance;
        self.guessing.under_way = Some((order, now + DOUBT_AFTER));
        self.guessing.other_ports = match order.crowd {
            0 => Some(now + OTHER_PORTS_AFTER),
            _ => given_up_after(order).map(|after| now + after),
        };
        self.guessing.volley = Some(Volley::new(setup, now, entropy));
    }
}

/// Whether both sides count, so that each answer tells where the next runs will be.
fn meets_a_count(order: Order) -> bool {
    matches!(order.aim, Aim::Next { .. }) && order.crowd == RUN_TO_MEET
}

/// Whether it takes all the ports that our NAT has for us, so that there is nothing left for another one.
fn fills_a_block(order: Order) -> bool {
    matches!(order.aim, Aim::Block { .. } | Aim::Next { .. }) && order.crowd >= CROWD
}

/// How long what fills a block says the same again. Two full blocks that have not met after more than half a minute have met
/// a long outage, or a port that is in use for something else; where the peer counts, the one port that all of ours aim at
/// is somebody's by then, and an outage of 20 s is to be outlived.
fn given_up_after(order: Order) -> Option<Duration> {
    let seconds = match order.aim {
        Aim::Next { .. } => 25,
        Aim::Block { .. } | Aim::Endpoint | Aim::Anywhere => 45,
    };
    fills_a_block(order).then_some(Duration::from_secs(seconds))
}

pub(super) fn announce(plan: Plan) -> Output {
    match plan.method {
        Method::Incompatible => Output::Incompatible(plan),
        Method::SameNetwork
        | Method::Direct
        | Method::Simultaneous
        | Method::Volley(_)
        | Method::QuietOpeners => Output::Trying(plan),
    }
}

/// What plain probes get before many more sockets are opened for a birthday: two round trips of 75 ms.
const HEAD_START: Duration = Duration::from_millis(150);

/// How long two NATs that count wait for the peer's answer, which says how far its count has got.
const ANSWER_WAIT: Duration = Duration::from_secs(1);

/// Time until a volley that was refused asks again.
const LEAVE_RETRY: Duration = Duration::from_secs(1);

/// When a volley is doubted: a spray takes 8 s, and has met a crowd by then but for once in ten million times.
const DOUBT_AFTER: Duration = Duration::from_secs(10);

/// When a spray turns to other ports, and an attempt may ask for as many datagrams again: a router with room
/// for 4,096 entries forgets those of an earlier spray within 30 s or is full.
const OTHER_PORTS_AFTER: Duration = Duration::from_secs(20);

/// After how long of silence a block is taken to be empty again: Linux and most carriers forget what was never answered
/// after 30 s. Where it takes longer, the volley finds fewer ports, and the next one more.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(35);

/// How long a volley that had its turn waits for the next one.
const TURN_PAUSE: Duration = Duration::from_secs(3);
