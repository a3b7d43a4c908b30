//! Finds out whether our NAT turns back what one host behind it sends to another by its public address: one of
//! our sockets knocks at the public endpoint of another.
//!
//! A fresh socket asks a STUN server where it is seen. Then each of the two sends a Binding request to where the
//! server sees the other: the first datagram opens that one's filter, and whichever arrives shows that the NAT hairpins.
//! Datagrams go only to endpoints at which STUN servers see us, six in all. RFC 4787, section 6; RFC 5780, section 4.5.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    behaviour::Hairpin,
    datagram::{BoundSocket, Datagram, Family, SocketIndex},
    entropy::Entropy,
    nat::{
        stun::{self, Response, TransactionId},
        stun_client::{self, StunClient},
    },
};

/// What is known before the test.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// The socket that is there.
    pub main: SocketIndex,
    /// Where STUN servers see it.
    pub seen_at: SocketAddr,
    /// The server to ask about the fresh one.
    pub server: SocketAddr,
    /// What it means when nothing is turned back.
    pub silence: Silence,
}

/// What it means when nothing is turned back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Silence {
    /// Both endpoints are the same for everybody, so the NAT does not hairpin.
    ShowsAbsence,
    /// An endpoint may be for the STUN server alone: nothing.
    ShowsNothing,
}

/// The test.
#[derive(Debug)]
pub struct HairpinTest {
    setup: Setup,
    state: State,
    transaction: TransactionId,
    client: StunClient,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
enum State {
    Opening,
    Asking { fresh: SocketIndex },
    Knocking { fresh: SocketIndex, seen_at: SocketAddr, began: Instant, knocks: usize },
    Over,
}

/// What a [`HairpinTest`] wants done, or found out.
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
    /// It is over; `None` if nothing can be said.
    Done(Option<Hairpin>),
}

impl HairpinTest {
    /// Wants a fresh socket, and begins when it is there.
    pub fn new(setup: Setup, entropy: &mut Entropy) -> Self {
        let family = Family::of(setup.seen_at.ip());
        Self {
            setup,
            state: State::Opening,
            transaction: TransactionId::random(entropy),
            client: StunClient::new(),
            outputs: [Output::OpenSocket { family }].into(),
        }
    }

    /// Takes in the socket that was asked for.
    pub fn handle_socket_opened(
        &mut self,
        socket: BoundSocket,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        self.state = State::Asking { fresh: socket.index };
        self.client.ask(socket.index, self.setup.server, now, entropy);
        self.drain(now);
    }

    /// Takes in that there is no room for another socket.
    pub fn handle_socket_refused(&mut self) {
        self.end(None);
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

    /// Takes in a request that came to one of our sockets; says whether it is the test's.
    pub fn handle_request(&mut self, transaction: TransactionId) -> bool {
        let is_ours = transaction == self.transaction;
        if is_ours && matches!(self.state, State::Knocking { .. }) {
            self.end(Some(Hairpin::Works));
        }
        is_ours
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.client.handle_timeout(now);
        self.drain(now);
        self.knock(now);
    }

    /// The next thing to do or to know, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Asking { .. } => self.client.poll_timeout(),
            State::Knocking { began, knocks, .. } => {
                Some(began + KNOCKS_AT.get(knocks).copied().unwrap_or(ANSWER_WAIT))
            }
            State::Opening | State::Over => None,
        }
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.client.poll_output() {
            match output {
                stun_client::Output::Transmit(datagram) => {
                    self.outputs.push_back(Output::Transmit(datagram));
                }
                stun_client::Output::Answered(answer) => {
                    let (fresh, seen_at) = (answer.socket, answer.reflexive);
                    self.state = State::Knocking { fresh, seen_at, began: now, knocks: 0 };
                    self.knock(now);
                }
                stun_client::Output::Failed { .. } => self.end(None),
            }
        }
    }

    fn knock(&mut self, now: Instant) {
        let State::Knocking { fresh, seen_at, began, knocks } = &mut self.state else { return };
        if now >= *began + ANSWER_WAIT {
            return self.end(match self.setup.silence {
                Silence::ShowsAbsence => Some(Hairpin::Missing),
                Silence::ShowsNothing => None,
            });
        }
        while KNOCKS_AT.get(*knocks).is_some_and(|at| *began + *at <= now) {
            *knocks += 1;
            let (there, back) = ((*fresh, self.setup.seen_at), (self.setup.main, *seen_at));
            for (socket, remote) in [there, back] {
                let bytes = stun::encode_request(self.transaction);
                self.outputs.push_back(Output::Transmit(Datagram { socket, remote, bytes }));
            }
        }
    }

    fn end(&mut self, found: Option<Hairpin>) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Asking { fresh } | State::Knocking { fresh, .. } => {
                self.outputs.push_back(Output::CloseSocket(fresh));
            }
            State::Opening => {}
            State::Over => return,
        }
        self.client.forget_all();
        self.outputs.push_back(Output::Done(found));
    }
}

/// When each socket sends to the other: the second for the filter that the first has opened too late, the third for
/// what gets lost.
const KNOCKS_AT: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(100), Duration::from_millis(300)];

/// How long what was sent is waited for: a carrier's NAT may be a few tens of milliseconds away, and this has time
/// for a slow mobile network.
const ANSWER_WAIT: Duration = Duration::from_millis(1_000);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::{story::moment, stun::Message};

    const SERVER: &str = "203.0.113.1:3478";
    const SEEN_AT: &str = "198.51.100.9:4000";
    const FRESH_AT: &str = "198.51.100.9:50000";

    /// A test whose fresh socket is known to be seen at [`FRESH_AT`], and what it has sent.
    fn knocking(silence: Silence) -> (HairpinTest, Vec<Datagram>) {
        let (mut entropy, now) = (Entropy::from_seed(1), moment());
        let (seen_at, server) = (SEEN_AT.parse().unwrap(), SERVER.parse().unwrap());
        let setup = Setup { main: SocketIndex(0), seen_at, server, silence };
        let mut test = HairpinTest::new(setup, &mut entropy);
        assert_eq!(test.poll_output(), Some(Output::OpenSocket { family: Family::V4 }));
        let local = "0.0.0.0:5000".parse().unwrap();
        let fresh = BoundSocket { index: SocketIndex(7), local };
        test.handle_socket_opened(fresh, now, &mut entropy);
        let asked = sent(&mut test);
        let Ok(Message::Request(request)) = stun::decode(&asked[0].bytes) else {
            panic!("a request");
        };
        let outcome = Ok(FRESH_AT.parse().unwrap());
        let response = Response { transaction: request.transaction, outcome };
        test.handle_response(fresh.index, asked[0].remote, &response, now);
        let knocks = sent(&mut test);
        (test, knocks)
    }

    fn sent(test: &mut HairpinTest) -> Vec<Datagram> {
        let outputs = std::iter::from_fn(|| test.poll_output());
        let transmits = outputs.map(|output| {
            let Output::Transmit(datagram) = output else { panic!("{output:?}") };
            datagram
        });
        transmits.collect()
    }

    /// Lets time pass until the test is over: what it has found, and the datagrams that it sent.
    fn wait(mut test: HairpinTest) -> (Option<Hairpin>, usize) {
        let mut sent = 0;
        loop {
            while let Some(output) = test.poll_output() {
                match output {
                    Output::Transmit(_) => sent += 1,
                    Output::Done(found) => return (found, sent),
                    Output::CloseSocket(socket) => assert_eq!(socket, SocketIndex(7)),
                    Output::OpenSocket { .. } => panic!("one socket is enough"),
                }
            }
            let due = test.poll_timeout().expect("it ends");
            assert!(due <= moment() + ANSWER_WAIT);
            test.handle_timeout(due);
        }
    }

    #[test]
    fn each_socket_knocks_at_where_a_server_sees_the_other() {
        let (mut test, knocks) = knocking(Silence::ShowsAbsence);
        let ways: Vec<(u16, String)> =
            knocks.iter().map(|knock| (knock.socket.0, knock.remote.to_string())).collect();
        assert_eq!(ways, [(7, SEEN_AT.to_owned()), (0, FRESH_AT.to_owned())]);
        let Ok(Message::Request(request)) = stun::decode(&knocks[0].bytes) else {
            panic!("a request");
        };
        assert!(!test.handle_request(TransactionId::random(&mut Entropy::from_seed(9))));
        assert!(test.handle_request(request.transaction));
        assert_eq!(wait(test), (Some(Hairpin::Works), 0));
    }

    #[test]
    fn silence_means_something_only_where_an_endpoint_is_the_same_for_everybody() {
        let (test, _) = knocking(Silence::ShowsAbsence);
        assert_eq!(wait(test), (Some(Hairpin::Missing), 4));
        let (test, _) = knocking(Silence::ShowsNothing);
        assert_eq!(wait(test), (None, 4));
    }

    #[test]
    fn without_a_socket_or_an_answer_nothing_is_said() {
        let mut entropy = Entropy::from_seed(1);
        let (seen_at, server) = (SEEN_AT.parse().unwrap(), SERVER.parse().unwrap());
        let silence = Silence::ShowsAbsence;
        let setup = Setup { main: SocketIndex(0), seen_at, server, silence };
        let mut test = HairpinTest::new(setup, &mut entropy);
        test.poll_output();
        test.handle_socket_refused();
        assert_eq!(test.poll_output(), Some(Output::Done(None)));
        assert_eq!(test.poll_timeout(), None);
    }
}
