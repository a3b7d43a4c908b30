//! Measures how long our NAT keeps a mapping that nothing goes through: fresh sockets ask a STUN server where they are
//! seen, keep silent, each for another time, and ask the same server again.
//!
//! A socket that is seen elsewhere then had its mapping forgotten; one that is seen at the same port still had it. That
//! holds only where the NAT gives out ports of its own: one that keeps the socket's port gives a new mapping the old
//! port, and the two cannot be told apart from outside. Of such a NAT nothing is said.
//!
//! All sockets are silent at the same time, so a measurement takes as long as its longest silence and a few seconds.

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    behaviour::Lifetime,
    datagram::{BoundSocket, Datagram, Family, SocketIndex},
    entropy::Entropy,
    nat::{
        stun::Response,
        stun_client::{self, QUERY_TIMEOUT, StunClient},
    },
};

/// The longest silence, if the user does not say another: RFC 4787, REQ-5, wants two minutes at least.
pub const SILENCE: Duration = Duration::from_secs(120);

/// The shortest that the longest silence may be: below it, round trips would count.
pub const SILENCE_MIN: Duration = Duration::from_secs(4);

/// The longest that it may be: no NAT is known that keeps UDP for so long and not for ever.
pub const SILENCE_MAX: Duration = Duration::from_secs(600);

/// How long the sockets are silent, in eighths of the longest silence: 15, 30, 45, 60, 90 and 120 s.
const SILENCES: [u32; 6] = [1, 2, 3, 4, 6, 8];

/// What a measurement came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// What the sockets that could tell have told.
    Measured(Lifetime),
    /// The NAT keeps ports, so that nothing is seen from outside when it forgets a mapping.
    PortsKept,
    /// No server answered, or no socket could be opened.
    Nothing,
}

/// The measurement.
#[derive(Debug)]
pub struct LifetimeTest {
    server: SocketAddr,
    longest: Duration,
    /// When it ends, whatever is missing.
    deadline: Instant,
    client: StunClient,
    sockets: BTreeMap<SocketIndex, Silent>,
    /// Sockets that were asked for and are not there yet.
    opening: usize,
    found: Lifetime,
    /// Sockets whose ports the NAT kept.
    kept: usize,
    is_over: bool,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Silent {
    local_port: u16,
    silence: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    /// It asks for the first time.
    Asking,
    /// It was seen there, and will ask again then.
    Silent { seen_at: SocketAddr, until: Instant },
    /// It asks again.
    AskingAgain { seen_at: SocketAddr },
}

/// What a [`LifetimeTest`] wants done, or found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A socket of this family, bound to any port, is wanted.
    OpenSocket {
        /// IPv4 or IPv6.
        family: Family,
    },
    /// To be sent.
    Transmit(Datagram),
    /// This socket is needed no longer.
    CloseSocket(SocketIndex),
    /// It is over.
    Done(Finding),
}

impl LifetimeTest {
    /// Asks `server`, with silences of up to `longest`, which is brought into its limits.
    pub fn new(server: SocketAddr, longest: Duration, now: Instant) -> Self {
        let longest = longest.clamp(SILENCE_MIN, SILENCE_MAX);
        let open = Output::OpenSocket { family: Family::of(server.ip()) };
        Self {
            server,
            longest,
            deadline: now + Self::time_max(longest),
            client: StunClient::new(),
            sockets: BTreeMap::new(),
            opening: SILENCES.len(),
            found: Lifetime::default(),
            kept: 0,
            is_over: false,
            outputs: SILENCES.iter().map(|_| open.clone()).collect(),
        }
    }

    /// How long a measurement takes at most: its longest silence, and both questions.
    pub fn time_max(longest: Duration) -> Duration {
        longest.clamp(SILENCE_MIN, SILENCE_MAX) + 2 * QUERY_TIMEOUT
    }

    /// Takes in a socket that was asked for.
    pub fn handle_socket_opened(
        &mut self,
        socket: BoundSocket,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        let eighths = SILENCES.len().checked_sub(self.opening).and_then(|it| SILENCES.get(it));
        let (Some(eighths), false) = (eighths, self.is_over) else {
            return self.outputs.push_back(Output::CloseSocket(socket.index));
        };
        self.opening = self.opening.saturating_sub(1);
        let silent = Silent {
            local_port: socket.local.port(),
            silence: self.longest * *eighths / 8,
            state: State::Asking,
        };
        self.sockets.insert(socket.index, silent);
        self.client.ask(socket.index, self.server, now, entropy);
        self.drain(now);
    }

    /// Takes in that there is no room for another socket.
    pub fn handle_socket_refused(&mut self) {
        self.opening = 0;
        self.end_if_complete();
    }

    /// Takes in a response that came from `remote` to `socket`.
    pub fn handle_response(
        &mut self,
        socket: SocketIndex,
        remote: SocketAddr,
        response: &Response,
        now: Instant,
    ) {
        self.client.handle_response(socket, remote, response, now);
        self.drain(now);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, entropy: &mut Entropy) {
        self.client.handle_timeout(now);
        for (index, socket) in &mut self.sockets {
            if let State::Silent { seen_at, until } = socket.state
                && until <= now
            {
                socket.state = State::AskingAgain { seen_at };
                self.client.ask(*index, self.server, now, entropy);
            }
        }
        self.drain(now);
        if self.deadline <= now {
            self.end();
        }
    }

    /// The next thing to do or to know, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_over {
            return None;
        }
        let silences = self.sockets.values().filter_map(|socket| match socket.state {
            State::Silent { until, .. } => Some(until),
            State::Asking | State::AskingAgain { .. } => None,
        });
        silences.chain(self.client.poll_timeout()).chain([self.deadline]).min()
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.client.poll_output() {
            match output {
                stun_client::Output::Transmit(datagram) => {
                    self.outputs.push_back(Output::Transmit(datagram));
                }
                stun_client::Output::Answered(answer) => {
                    self.handle_seen(answer.socket, answer.reflexive, now);
                }
                stun_client::Output::Failed { socket, .. } => self.close(socket),
            }
        }
        self.end_if_complete();
    }

    fn handle_seen(&mut self, index: SocketIndex, seen_at: SocketAddr, now: Instant) {
        let Some(socket) = self.sockets.get_mut(&index) else { return };
        let before = match socket.state {
            State::Asking => {
                // The silence begins with the answer, the last datagram in either direction.
                socket.state = State::Silent { seen_at, until: now + socket.silence };
                return;
            }
            State::Silent { .. } => return,
            State::AskingAgain { seen_at } => seen_at,
        };
        let silence = Some(socket.silence);
        let told = match (before == seen_at, before.port() == socket.local_port) {
            (false, _) => Lifetime { less_than: silence, at_least: None },
            (true, false) => Lifetime { at_least: silence, less_than: None },
            (true, true) => {
                self.kept += 1;
                Lifetime::default()
            }
        };
        self.found = self.found.and(told);
        self.close(index);
    }

    fn close(&mut self, index: SocketIndex) {
        if self.sockets.remove(&index).is_some() {
            self.outputs.push_back(Output::CloseSocket(index));
        }
    }

    fn end_if_complete(&mut self) {
        if self.opening == 0 && self.sockets.is_empty() {
            self.end();
        }
    }

    fn end(&mut self) {
        if std::mem::replace(&mut self.is_over, true) {
            return;
        }
        self.client.forget_all();
        let open = std::mem::take(&mut self.sockets).into_keys();
        self.outputs.extend(open.map(Output::CloseSocket));
        let finding = match (self.found.is_unknown(), self.kept) {
            (false, _) => Finding::Measured(self.found),
            (true, 0) => Finding::Nothing,
            (true, _) => Finding::PortsKept,
        };
        self.outputs.push_back(Output::Done(finding));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::{
        story::moment,
        stun::{self, Message},
    };

    const SERVER: &str = "203.0.113.1:3478";

    /// A NAT that forgets a mapping after `lifetime`, as the server behind it sees the sockets.
    struct Nat {
        lifetime: Duration,
        keeps_ports: bool,
        given: u16,
        /// Of each socket: its port outside, and when something last passed.
        mappings: BTreeMap<SocketIndex, (u16, Instant)>,
    }

    impl Nat {
        fn new(lifetime: u64, keeps_ports: bool) -> Self {
            let lifetime = Duration::from_secs(lifetime);
            Self { lifetime, keeps_ports, given: 20_000, mappings: BTreeMap::new() }
        }

        fn translate(&mut self, index: SocketIndex, now: Instant) -> SocketAddr {
            let live = self.mappings.get(&index).filter(|(_, at)| now < *at + self.lifetime);
            let port = match (live, self.keeps_ports) {
                (Some((port, _)), _) => *port,
                (None, true) => 5_000 + index.0,
                (None, false) => {
                    self.given += 1;
                    self.given
                }
            };
            self.mappings.insert(index, (port, now));
            SocketAddr::from(([198, 51, 100, 9], port))
        }
    }

    /// Lets a measurement run behind `nat`: what it found, and how long that took.
    fn measure(nat: &mut Nat, longest: u64) -> (Finding, Duration) {
        let (start, mut entropy) = (moment(), Entropy::from_seed(1));
        let (mut now, mut opened) = (start, 0);
        let longest = Duration::from_secs(longest);
        let mut test = LifetimeTest::new(SERVER.parse().unwrap(), longest, now);
        loop {
            while let Some(output) = test.poll_output() {
                match output {
                    Output::OpenSocket { .. } => {
                        let local = SocketAddr::from(([0, 0, 0, 0], 5_000 + opened));
                        let socket = BoundSocket { index: SocketIndex(opened), local };
                        opened += 1;
                        test.handle_socket_opened(socket, now, &mut entropy);
                    }
                    Output::Transmit(datagram) => {
                        let Ok(Message::Request(asked)) = stun::decode(&datagram.bytes) else {
                            panic!("a request");
                        };
                        let outcome = Ok(nat.translate(datagram.socket, now));
                        let response = Response { transaction: asked.transaction, outcome };
                        test.handle_response(datagram.socket, datagram.remote, &response, now);
                    }
                    Output::CloseSocket(_) => {}
                    Output::Done(finding) => return (finding, now - start),
                }
            }
            now = test.poll_timeout().expect("it ends");
            test.handle_timeout(now, &mut entropy);
        }
    }

    #[test]
    fn silences_around_the_lifetime_tell_it_from_both_sides() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        for (lifetime, at_least, less_than) in [
            (10, None, seconds(15)),
            (40, seconds(30), seconds(45)),
            (100, seconds(90), seconds(120)),
            (300, seconds(120), None),
        ] {
            let (finding, took) = measure(&mut Nat::new(lifetime, false), 120);
            let expected = Finding::Measured(Lifetime { at_least, less_than });
            assert_eq!((finding, took), (expected, Duration::from_secs(120)), "{lifetime} s");
        }
    }

    #[test]
    fn of_a_nat_that_keeps_ports_nothing_is_said() {
        assert_eq!(measure(&mut Nat::new(10, true), 120).0, Finding::PortsKept);
    }

    #[test]
    fn the_longest_silence_has_limits() {
        let (finding, took) = measure(&mut Nat::new(3, false), 0);
        let (at_least, less_than) = (Some(Duration::from_secs(2)), Some(Duration::from_secs(3)));
        assert_eq!(finding, Finding::Measured(Lifetime { at_least, less_than }));
        assert_eq!(took, SILENCE_MIN);
        assert_eq!(measure(&mut Nat::new(1_000, false), 100_000).1, SILENCE_MAX);
    }

    #[test]
    fn without_answers_or_sockets_it_ends_in_time_and_says_so() {
        let (start, mut entropy) = (moment(), Entropy::from_seed(1));
        let mut test = LifetimeTest::new(SERVER.parse().unwrap(), SILENCE, start);
        let socket = BoundSocket { index: SocketIndex(1), local: "0.0.0.0:1".parse().unwrap() };
        test.handle_socket_opened(socket, start, &mut entropy);
        test.handle_socket_refused();
        let mut end = None;
        while let Some(due) = test.poll_timeout() {
            assert!(due <= start + LifetimeTest::time_max(SILENCE));
            test.handle_timeout(due, &mut entropy);
            end = std::iter::from_fn(|| test.poll_output()).last().or(end);
        }
        assert_eq!(end, Some(Output::Done(Finding::Nothing)));
    }
}
