//! Two sessions under a random schedule, against a plain queue: links that come, die in the middle of a byte
//! stream, overlap, are used by one side only; restarts, forgetting, withdrawals, slow consumers.
//!
//! A schedule follows from its seed. One that fails prints it; `P2P_NODE_SEED` begins with that one.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    time::Duration,
};

use tokio::time::Instant;

use super::world::{Side, Way};
use crate::{
    entropy::Entropy,
    proto::Message,
    transport::session::{
        IN_FLIGHT_LENGTH_MAX, IN_FLIGHT_SIZE_MAX, MESSAGE_SIZE_MAX, QUEUE_LENGTH_MAX,
        QUEUE_SIZE_MAX, UNDELIVERED_MAX, WAITING_LENGTH_MAX, WAITING_SIZE_MAX,
        machine::{Fate, NotAttached, Reading, Rejected},
        message::Durability,
    },
};

const SCHEDULES: u64 = 2_500;
const STEPS: usize = 200;

#[tokio::test(start_paused = true)]
async fn every_schedule_delivers_once_and_in_order_or_tells_the_truth() {
    let given = env::var("P2P_NODE_SEED").ok().map(|seed| seed.parse().unwrap());
    let mut totals = BTreeMap::<&str, usize>::new();
    for seed in given.map_or(1..=SCHEDULES, |seed: u64| seed..=seed) {
        let replay = Replay(seed);
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
            world.check();
        }
        world.calm();
        for (what, count) in world.count() {
            *totals.entry(what).or_default() += count;
        }
        drop(replay);
    }
    println!("{totals:?}");
    if given.is_none() {
        let met =
            ["delivered", "not sent", "unknown", "restarts", "forgotten", "earlier", "doubles"];
        for what in met {
            assert!(totals.get(what).is_some_and(|&count| count > 50), "{what} in {totals:?}");
        }
    }
}

struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("to replay: P2P_NODE_SEED={} cargo nextest run --lib every_schedule", self.0);
        }
    }
}

struct World {
    entropy: Entropy,
    now: Instant,
    /// Every other schedule has no restarts and no forgetting, so that nothing may be unknown.
    is_peaceful: bool,
    sides: [Side; 2],
    /// Sessions that each side has had.
    lives: [usize; 2],
    /// Restarts and forgettings of each side.
    breaks: [usize; 2],
    /// Of those, how many the peer has been told of by a resume.
    told: [usize; 2],
    names: u64,
    links: Vec<Link>,
    /// By ticket.
    sent: Vec<Sent>,
    /// Tickets in the order in which each side's consumer was given them.
    given: [Vec<u32>; 2],
    /// Tickets that a consumer holds, in the order of its session's.
    held: [Vec<u32>; 2],
    /// Ids that a consumer was done with.
    done: [BTreeSet<String>; 2],
    earlier: usize,
    forgotten: usize,
    doubles: usize,
}

/// Where one side and the next message of the other meet: `ways[n]` carries what side `n` says.
struct Link {
    ways: [Way; 2],
    runs: [std::num::NonZeroU64; 2],
    /// Breaks of each side before its session came to it.
    breaks: [usize; 2],
    /// The life of each side that has a hold on it; none when it has noticed the end.
    lives: [Option<usize>; 2],
}

struct Sent {
    from: usize,
    life: usize,
    number: u64,
    id: String,
    durability: Durability,
    fate: Option<Fate>,
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            entropy: Entropy::from_seed(seed),
            now: Instant::now(),
            is_peaceful: seed.is_multiple_of(2),
            sides: [Side::new(1, 2), Side::new(3, 4)],
            lives: [0; 2],
            breaks: [0; 2],
            told: [0; 2],
            names: 5,
            links: Vec::new(),
            sent: Vec::new(),
            given: Default::default(),
            held: Default::default(),
            done: Default::default(),
            earlier: 0,
            forgotten: 0,
            doubles: 0,
        }
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(10);
        let side = self.entropy.below(2);
        let link = self.pick_link();
        match self.entropy.below(100) {
            0..20 => self.send(side),
            20..26 => self.new_link(),
            26..36 => self.attach(side, link),
            36..50 => self.write(side, link),
            50..62 => self.deliver_control(side, link),
            62..76 => self.deliver_messages(side, link),
            76..84 => self.take(side),
            84..91 => self.settle(side),
            91..94 => self.cut(link),
            94..97 => self.notice(side, link),
            97 => self.withdraw(),
            98..100 if self.is_peaceful => {}
            98 => self.restart(side),
            _ => self.forget(side),
        }
    }

    /// Mostly one of the latest.
    fn pick_link(&mut self) -> Option<usize> {
        let recent = self.links.len().min(3);
        (recent > 0).then(|| self.links.len() - 1 - self.entropy.below(recent))
    }

    fn send(&mut self, from: usize) {
        let size = [0, 1, 20, 200, 9_000, 40_000][self.entropy.below(6)];
        let ticket = u32::try_from(self.sent.len()).unwrap();
        let durability = [Durability::Volatile, Durability::Durable][self.entropy.below(2)];
        // The sender's outbox sends a durable message again if it does not know.
        let again = self.sent.iter().filter(|sent| sent.from == from).find(|sent| {
            let is_unknown = sent.fate.as_ref().is_some_and(|it| matches!(it, Fate::Unknown(_)));
            let is_gone = sent.fate.is_none() && sent.life != self.lives[from];
            sent.durability == Durability::Durable && (is_unknown || is_gone)
        });
        let id = match again.filter(|_| durability == Durability::Durable) {
            Some(sent) => sent.id.clone(),
            None => format!("m{ticket}"),
        };
        let payload = vec![7; size].into();
        let message =
            Message { id: id.clone(), r#type: ticket.to_string(), payload, ..Message::default() };
        let Ok(number) = self.sides[from].send(message, durability, ticket) else {
            panic!("so few messages find room");
        };
        let life = self.lives[from];
        self.sent.push(Sent { from, life, number, id, durability, fate: None });
    }

    fn new_link(&mut self) {
        self.links.push(Link {
            ways: Default::default(),
            runs: [0, 1].map(|side| self.sides[side].run),
            breaks: self.breaks,
            lives: [0, 1].map(|side| Some(self.lives[side])),
        });
    }

    /// The session of `side` comes to a link that no session of that side has been to.
    fn attach(&mut self, side: usize, link: Option<usize>) {
        let Some(index) = link.filter(|&link| self.has_hold(side, link)) else { return };
        let link = &mut self.links[index];
        if link.ways[side].sender.is_some() {
            return;
        }
        let run = link.runs[1 - side];
        match link.ways[side].attach(&mut self.sides[side], run, u64::try_from(index).unwrap()) {
            Ok(()) => {
                let generation = link.ways[side].sender;
                link.ways[1 - side].receiver = generation;
                link.breaks[side] = self.breaks[side];
                let heard = link.ways[1 - side].deliver_control(&mut self.sides[side], 0);
                self.heard(side, index, heard);
            }
            Err(NotAttached::EarlierRun) => {
                link.lives[side] = None;
                self.earlier += 1;
            }
            Err(NotAttached::Ended) => panic!("nobody ended it"),
        }
    }

    fn has_hold(&self, side: usize, link: usize) -> bool {
        self.links[link].lives[side] == Some(self.lives[side])
    }

    fn write(&mut self, side: usize, link: Option<usize>) {
        let Some(link) = link.filter(|&link| self.has_hold(side, link)) else { return };
        self.links[link].ways[side].write(&mut self.sides[side]);
    }

    fn deliver_control(&mut self, side: usize, link: Option<usize>) {
        let Some(link) = link.filter(|&link| self.has_hold(side, link)) else { return };
        let count = 1 + self.entropy.below(60);
        let way = &mut self.links[link].ways[1 - side];
        let heard = way.deliver_control(&mut self.sides[side], count);
        self.heard(side, link, heard);
    }

    fn deliver_messages(&mut self, side: usize, link: Option<usize>) {
        let Some(link) = link.filter(|&link| self.has_hold(side, link)) else { return };
        let most = [30, 500, 100_000][self.entropy.below(3)];
        let count = 1 + self.entropy.below(most);
        let way = &mut self.links[link].ways[1 - side];
        let heard = way.deliver_messages(&mut self.sides[side], count);
        self.heard(side, link, heard);
    }

    fn heard(&mut self, side: usize, link: usize, heard: Result<(), Rejected>) {
        match heard {
            Ok(()) => {
                self.collect();
                let generation = self.links[link].ways[side].sender;
                let machine = &self.sides[side].machine;
                if generation.is_some_and(|it| machine.reading(it) == Reading::Now) {
                    self.told[1 - side] = self.links[link].breaks[1 - side];
                }
            }
            Err(Rejected::EarlierSession) => {
                self.earlier += 1;
                self.notice(side, Some(link));
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn take(&mut self, side: usize) {
        let before = self.sides[side].machine.inbound().waiting().0;
        let Some(message) = self.sides[side].take(self.now) else { return };
        let taken = before - self.sides[side].machine.inbound().waiting().0;
        self.doubles += taken - 1;
        let ticket: u32 = message.r#type.parse().unwrap();
        let sent = &self.sent[usize::try_from(ticket).unwrap()];
        assert_eq!((sent.from, &sent.id), (1 - side, &message.id));
        assert!(!self.given[side].contains(&ticket), "{ticket} was given twice");
        if sent.durability == Durability::Durable {
            assert!(!self.done[side].contains(&sent.id), "{} was done already", sent.id);
        }
        assert_ne!(sent.fate, Some(Fate::NotSent), "{ticket} was said not to be sent");
        self.given[side].push(ticket);
        self.held[side].push(ticket);
    }

    /// The consumer is done with any of those that it holds.
    fn settle(&mut self, side: usize) {
        if self.held[side].is_empty() {
            return;
        }
        let index = self.entropy.below(self.held[side].len());
        let ticket = self.held[side].remove(index);
        let number = self.sides[side].held.remove(index).unwrap();
        self.sides[side].machine.settle(number);
        self.done[side].insert(self.sent[usize::try_from(ticket).unwrap()].id.clone());
    }

    /// A link dies: of each stream, some of what is on its way still arrives.
    fn cut(&mut self, link: Option<usize>) {
        let Some(link) = link.map(|link| &mut self.links[link]) else { return };
        for way in &mut link.ways {
            let (control, messages) = way.bytes_on_their_way();
            let [control, messages] = [control, messages].map(|size| self.entropy.below(size + 1));
            way.cut((control, messages));
        }
    }

    /// One side notices that a link is dead, or closes one.
    fn notice(&mut self, side: usize, link: Option<usize>) {
        let Some(link) = link.filter(|&link| self.has_hold(side, link)) else { return };
        let link = &mut self.links[link];
        if let Some(generation) = link.ways[side].sender {
            self.sides[side].machine.detach(generation);
        }
        link.lives[side] = None;
    }

    fn withdraw(&mut self) {
        if self.sent.is_empty() {
            return;
        }
        let index = self.sent.len() - 1 - self.entropy.below(self.sent.len().min(5));
        let sent = &self.sent[index];
        if sent.life == self.lives[sent.from] && sent.fate.is_none() {
            self.sides[sent.from].machine.withdraw(sent.number);
        }
    }

    /// The program of `side` is started anew, with the doubles that it had written down.
    fn restart(&mut self, side: usize) {
        let (run, session) = (self.name(), self.name());
        self.begin_anew(side, Side::new(run, session));
        for link in &mut self.links {
            link.lives[side] = None;
        }
    }

    /// `side` forgets its peer, which knows the session that ends.
    fn forget(&mut self, side: usize) {
        let [before, peer] = [side, 1 - side].map(|side| self.sides[side].machine.resume());
        if peer.peer_session != before.session {
            return;
        }
        let name = self.name();
        let run = self.sides[side].run.get();
        let life = self.lives[side];
        self.begin_anew(side, Side::new(run, name));
        self.forgotten += 1;
        // Links that no session has come to can be used by the next one.
        for link in &mut self.links {
            let is_free = link.lives[side] == Some(life) && link.ways[side].sender.is_none();
            link.lives[side] = is_free.then_some(life + 1);
        }
    }

    fn begin_anew(&mut self, side: usize, mut anew: Side) {
        self.collect();
        let doubles = &self.sides[side].machine.inbound().doubles;
        let kept: Vec<_> = doubles.export(self.now).map(|(id, age)| (id.to_owned(), age)).collect();
        anew.machine.inbound_mut().doubles.import(kept, self.now);
        self.sides[side] = anew;
        self.held[side].clear();
        self.lives[side] += 1;
        self.breaks[side] += 1;
    }

    fn name(&mut self) -> u64 {
        self.names += 1;
        self.names
    }

    /// Takes in what became of messages.
    fn collect(&mut self) {
        for side in 0..2 {
            for (ticket, fate) in self.sides[side].fates() {
                let is_news = self.breaks[1 - side] > self.told[1 - side];
                let sent = &mut self.sent[usize::try_from(ticket).unwrap()];
                assert_eq!((sent.from, sent.life), (side, self.lives[side]));
                assert_eq!(sent.fate, None, "{ticket} was settled twice");
                match &fate {
                    Fate::Delivered => {
                        assert!(self.done[1 - side].contains(&sent.id), "{ticket} is not done");
                    }
                    Fate::NotSent => assert!(!self.given[1 - side].contains(&ticket)),
                    Fate::Unknown(_) => assert!(is_news, "{ticket}: nothing has happened"),
                }
                sent.fate = Some(fate);
            }
        }
    }

    fn check(&mut self) {
        self.collect();
        for side in &self.sides {
            let (outbound, inbound) = (side.machine.outbound(), side.machine.inbound());
            let ((waiting, waiting_size), (in_flight, size)) =
                (outbound.waiting(), outbound.in_flight());
            assert!(waiting <= QUEUE_LENGTH_MAX && waiting_size <= QUEUE_SIZE_MAX);
            assert!(in_flight <= IN_FLIGHT_LENGTH_MAX);
            assert!(size < IN_FLIGHT_SIZE_MAX + MESSAGE_SIZE_MAX);
            let (waiting, size) = inbound.waiting();
            assert!(waiting <= WAITING_LENGTH_MAX && size < WAITING_SIZE_MAX + MESSAGE_SIZE_MAX);
            assert!(inbound.handed_over() <= UNDELIVERED_MAX);
        }
    }

    /// One good link, and consumers that take everything: then nothing is left open, and what was given is
    /// what was sent, in its order.
    fn calm(&mut self) {
        self.new_link();
        let link = Some(self.links.len() - 1);
        for side in [0, 1] {
            self.attach(side, link);
        }
        let is_open = |world: &Self| {
            let is_open = |side: &Side| !side.machine.outbound().is_empty();
            world.sides.iter().any(is_open)
        };
        for round in 0.. {
            for side in [0, 1] {
                self.write(side, link);
                for _ in 0..20 {
                    self.deliver_control(side, link);
                }
                self.deliver_messages(side, link);
                self.take(side);
                self.settle(side);
            }
            self.check();
            if !is_open(self) {
                break;
            }
            assert!(round < 20_000, "it goes on for ever");
        }
        while self.sides.iter().any(|side| side.machine.inbound().waiting().0 > 0) {
            self.take(0);
            self.take(1);
        }
        for (from, given) in [(1, &self.given[0]), (0, &self.given[1])] {
            // Each life of the sender counts for itself; later lives have later tickets, and follow.
            assert!(given.is_sorted(), "{given:?}");
            for (ticket, sent) in (0..).zip(&self.sent) {
                if sent.from == from && sent.fate == Some(Fate::Delivered) {
                    let is_done = self.done[1 - from].contains(&sent.id);
                    let was_given = given.contains(&ticket);
                    assert!(is_done && (was_given || sent.durability == Durability::Durable));
                }
                let is_last_life = sent.life == self.lives[sent.from];
                assert!(sent.fate.is_some() || !is_last_life, "{ticket} was never settled");
            }
        }
    }

    fn count(&self) -> Vec<(&'static str, usize)> {
        let fates = |is: fn(&Fate) -> bool| {
            self.sent.iter().filter(|sent| sent.fate.as_ref().is_some_and(is)).count()
        };
        vec![
            ("delivered", fates(|fate| *fate == Fate::Delivered)),
            ("not sent", fates(|fate| *fate == Fate::NotSent)),
            ("unknown", fates(|fate| matches!(fate, Fate::Unknown(_)))),
            ("restarts", self.breaks[0] + self.breaks[1] - self.forgotten),
            ("forgotten", self.forgotten),
            ("earlier", self.earlier),
            ("doubles", self.doubles),
            ("links", self.links.len()),
        ]
    }
}
