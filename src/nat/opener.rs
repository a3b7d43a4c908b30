//! A socket that the peer's router has not heard of: a second attempt at a peer whose router punishes
//! datagrams that come before it has sent any itself.
//!
//! Such a router leads its own side's flow to whoever came too early through another port, or lets nothing
//! pass between the two for a while. Nothing that is known to have been sent from can be cured of that; a
//! port that was never used needs no cure. So the socket asks a STUN server where it is seen, which goes into
//! another offer, and says nothing that gets as far as the peer's router until the peer is heard on it.
//!
//! ```text
//!   Opening ──a socket──▶ Asking ──seen──▶ Knocking: pings that get through our own NATs only
//!                                              │ the peer is heard
//!                                              ▼
//!                                            Heard: nothing is held back any more
//! ```

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::{
    stun::Response,
    stun_client::{self, StunClient},
};
use crate::{
    datagram::{Datagram, Path, SocketIndex},
    entropy::Entropy,
};

/// Servers that are asked at once; the first answer counts.
const SERVERS_ASKED: usize = 2;

/// Time between two pings that keep our own NAT open: routers forget after 30 s, and one may get lost.
const KNOCK_EVERY: Duration = Duration::from_secs(2);

/// A fresh socket that keeps quiet.
#[derive(Debug)]
pub struct Opener {
    servers: Vec<SocketAddr>,
    /// Where the peer may be.
    targets: Vec<SocketAddr>,
    client: StunClient,
    state: State,
    outputs: VecDeque<Output>,
}

/// What an [`Opener`] wants done, or found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// A socket, bound to any port, is wanted.
    OpenSocket,
    /// A question to a STUN server, to be sent.
    Ask(Datagram),
    /// The socket is seen here: to be offered to the peer.
    Seen(SocketAddr),
    /// A ping on this path.
    Ping(Path),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening,
    Asking(SocketIndex),
    Knocking { socket: SocketIndex, next: Instant },
    Heard(SocketIndex),
}

impl Opener {
    /// Wants a socket at once. `servers` are STUN servers, quickest first, and `targets` where the peer may be.
    pub fn new(servers: Vec<SocketAddr>, targets: Vec<SocketAddr>) -> Self {
        let outputs = VecDeque::from([Output::OpenSocket]);
        Self { servers, targets, client: StunClient::new(), state: State::Opening, outputs }
    }

    /// Takes in a socket; `false` if none is wanted any more.
    pub fn handle_socket_opened(
        &mut self,
        socket: SocketIndex,
        now: Instant,
        entropy: &mut Entropy,
    ) -> bool {
        if self.state != State::Opening {
            return false;
        }
        self.state = State::Asking(socket);
        for server in self.servers.iter().take(SERVERS_ASKED) {
            self.client.ask(socket, *server, now, entropy);
        }
        self.drain(now);
        true
    }

    /// Takes in a STUN server's response.
    pub fn handle_response(
        &mut self,
        (socket, remote): (SocketIndex, SocketAddr),
        response: &Response,
        now: Instant,
    ) {
        self.client.handle_response(socket, remote, response, now);
        self.drain(now);
    }

    /// Takes in that the peer was heard on the socket.
    pub fn handle_heard(&mut self) {
        if let Some(socket) = self.socket() {
            self.state = State::Heard(socket);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        match &mut self.state {
            State::Knocking { socket, next } if *next <= now => {
                *next = now + KNOCK_EVERY;
                let socket = *socket;
                let paths = self.targets.iter().map(|remote| Path { socket, remote: *remote });
                self.outputs.extend(paths.map(Output::Ping));
            }
            State::Asking(_) => {
                self.client.handle_timeout(now);
                self.drain(now);
            }
            State::Opening | State::Knocking { .. } | State::Heard(_) => {}
        }
    }

    /// The next thing to do or to know, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Asking(_) => self.client.poll_timeout(),
            State::Knocking { next, .. } => Some(next),
            State::Opening | State::Heard(_) => None,
        }
    }

    /// Its socket, if it has one.
    pub fn socket(&self) -> Option<SocketIndex> {
        match self.state {
            State::Opening => None,
            State::Asking(socket) | State::Knocking { socket, .. } | State::Heard(socket) => {
                Some(socket)
            }
        }
    }

    /// Whether `socket` is its own.
    pub fn has(&self, socket: SocketIndex) -> bool {
        self.socket() == Some(socket)
    }

    /// Whether nothing that it sends may get as far as the peer.
    pub fn is_quiet(&self) -> bool {
        !matches!(self.state, State::Heard(_))
    }

    /// Whether the socket that it wants is not there yet.
    pub fn is_waiting_for_socket(&self) -> bool {
        self.state == State::Opening
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.client.poll_output() {
            match (output, self.state) {
                (stun_client::Output::Transmit(datagram), _) => {
                    self.outputs.push_back(Output::Ask(datagram));
                }
                (stun_client::Output::Answered(answer), State::Asking(socket)) => {
                    self.state = State::Knocking { socket, next: now };
                    // Our NAT is open before the peer can have read where.
                    self.handle_timeout(now);
                    self.outputs.push_back(Output::Seen(answer.reflexive));
                }
                // A second answer says the same; without any, the loud sockets must do.
                (stun_client::Output::Answered(_) | stun_client::Output::Failed { .. }, _) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::{
        story::moment,
        stun::{self, Message},
    };

    const SOCKET: SocketIndex = SocketIndex(7);
    const SERVERS: [&str; 3] = ["203.0.113.1:3478", "203.0.113.2:3478", "203.0.113.3:3478"];
    const SEEN: &str = "198.51.100.9:50007";
    const PEER: &str = "198.51.100.20:4000";

    fn outputs(opener: &mut Opener) -> Vec<Output> {
        std::iter::from_fn(|| opener.poll_output()).collect()
    }

    fn opened(now: Instant) -> (Opener, Vec<Datagram>) {
        let servers = SERVERS.map(|server| server.parse().unwrap()).to_vec();
        let mut opener = Opener::new(servers, vec![PEER.parse().unwrap()]);
        assert_eq!(outputs(&mut opener), [Output::OpenSocket]);
        assert!(opener.handle_socket_opened(SOCKET, now, &mut Entropy::from_seed(1)));
        let asked = outputs(&mut opener);
        let questions: Vec<Datagram> = asked
            .iter()
            .filter_map(|output| match output {
                Output::Ask(datagram) => Some(datagram.clone()),
                Output::OpenSocket | Output::Seen(_) | Output::Ping(_) => None,
            })
            .collect();
        assert_eq!(questions.len(), asked.len());
        (opener, questions)
    }

    fn answer(opener: &mut Opener, question: &Datagram, now: Instant) {
        let Ok(Message::Request(asked)) = stun::decode(&question.bytes) else {
            panic!("a request");
        };
        let outcome = Ok(SEEN.parse().unwrap());
        let response = Response { transaction: asked.transaction, outcome };
        opener.handle_response((question.socket, question.remote), &response, now);
    }

    #[test]
    fn it_asks_two_servers_opens_our_nat_and_says_where_it_is_seen_once() {
        let now = moment();
        let (mut opener, questions) = opened(now);
        assert_eq!(questions.len(), 2);
        for question in &questions {
            answer(&mut opener, question, now);
        }
        let ping = Output::Ping(Path { socket: SOCKET, remote: PEER.parse().unwrap() });
        assert_eq!(outputs(&mut opener), [ping.clone(), Output::Seen(SEEN.parse().unwrap())]);
        assert!(opener.is_quiet());
        let next = opener.poll_timeout().unwrap();
        assert_eq!(next, now + KNOCK_EVERY);
        opener.handle_timeout(next);
        assert_eq!(outputs(&mut opener), [ping]);
        opener.handle_heard();
        assert!(!opener.is_quiet() && opener.poll_timeout().is_none());
    }

    #[test]
    fn without_an_answer_nothing_is_offered_and_a_second_socket_is_not_wanted() {
        let now = moment();
        let (mut opener, _) = opened(now);
        while let Some(due) = opener.poll_timeout() {
            opener.handle_timeout(due);
        }
        assert!(outputs(&mut opener).iter().all(|output| matches!(output, Output::Ask(_))));
        assert!(!opener.handle_socket_opened(SocketIndex(8), now, &mut Entropy::from_seed(1)));
        assert_eq!(opener.socket(), Some(SOCKET));
    }
}
