//! Asks STUN servers from which address they see our sockets: many queries at once, each with its own
//! retransmissions.
//!
//! A query is one socket and one server. All its requests carry the same transaction, as RFC 8489,
//! section 6.2.1, has it, so a late answer to the first request still counts. Only the server that was
//! asked can answer, on the socket that asked; whatever else arrives is counted and forgotten.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use thiserror::Error;

use crate::{
    candidate::canonical,
    datagram::{Datagram, SocketIndex},
    entropy::Entropy,
    nat::stun::{self, Refusal, Response, TransactionId},
};

/// When the requests of one query are sent, counted from the first.
///
/// The first wait is 150 ms, doubled each time, where RFC 8489 recommends 500 ms: a person waits for
/// the outcome, most servers answer within 100 ms, and a request too many costs 20 bytes. With 15 % of
/// the datagrams lost each way, five requests fail together once in 600 queries.
pub const REQUESTS_AT: [Duration; 5] = [
    Duration::ZERO,
    Duration::from_millis(150),
    Duration::from_millis(450),
    Duration::from_millis(1_050),
    Duration::from_millis(2_250),
];

/// When a query that nobody answered has failed, counted from its first request.
///
/// 750 ms after the last request: a satellite's round trip still fits.
pub const QUERY_TIMEOUT: Duration = Duration::from_secs(3);

/// Queries under way at the same time: 16 servers for each of 4 sockets.
pub const QUERIES_MAX: usize = 64;

/// Asks STUN servers.
#[derive(Debug, Default)]
pub struct StunClient {
    /// In the order in which they were asked.
    queries: Vec<Query>,
    outputs: VecDeque<Output>,
    ignored: Ignored,
}

/// What a [`StunClient`] wants done, or found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To be sent.
    Transmit(Datagram),
    /// A query was answered.
    Answered(Answer),
    /// A query was not, and is over.
    Failed {
        /// The socket that asked.
        socket: SocketIndex,
        /// The server that was asked.
        server: SocketAddr,
        /// Why it failed.
        why: QueryError,
    },
}

/// What a server said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The socket that asked.
    pub socket: SocketIndex,
    /// The server that answered.
    pub server: SocketAddr,
    /// Where it sees the socket.
    pub reflexive: SocketAddr,
    /// When the first request was sent: the mapping is at least as old, unless that one was lost.
    pub asked_at: Instant,
    /// From request to answer; `None` if there was more than one request, because nobody can say which
    /// of them was answered (Karn's rule, RFC 8489, section 6.2.1).
    pub rtt: Option<Duration>,
}

/// Why a query failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum QueryError {
    /// No answer to any of the requests.
    #[error("no answer to {} requests in {} ms", REQUESTS_AT.len(), QUERY_TIMEOUT.as_millis())]
    Silent,
    /// The server answered, but not with our address.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// [`QUERIES_MAX`] queries are under way.
    #[error("{QUERIES_MAX} queries are under way")]
    TooManyQueries,
}

/// Responses that answered nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ignored {
    /// Of no query under way: late, doubled, or never asked for.
    pub unasked: u64,
    /// Of a query under way, but not from the server or not on the socket it belongs to.
    pub misdirected: u64,
}

#[derive(Debug)]
struct Query {
    transaction: TransactionId,
    socket: SocketIndex,
    server: SocketAddr,
    asked_at: Instant,
    /// Requests sent, at least one.
    requests: usize,
}

impl StunClient {
    /// A client with nothing to ask yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks `server` where it sees `socket`. Does nothing if that is being asked already.
    pub fn ask(
        &mut self,
        socket: SocketIndex,
        server: SocketAddr,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        let server = canonical(server);
        if self.is_asking(socket, server) {
            return;
        }
        if self.queries.len() == QUERIES_MAX {
            let why = QueryError::TooManyQueries;
            self.outputs.push_back(Output::Failed { socket, server, why });
            return;
        }
        let query = Query {
            transaction: TransactionId::random(entropy),
            socket,
            server,
            asked_at: now,
            requests: 1,
        };
        self.outputs.push_back(query.transmit());
        self.queries.push(query);
    }

    /// Forgets all queries; answers to them will be ignored.
    pub fn forget_all(&mut self) {
        self.queries.clear();
        self.outputs.clear();
    }

    /// Takes in a response that came from `remote` to `socket`.
    pub fn handle_response(
        &mut self,
        socket: SocketIndex,
        remote: SocketAddr,
        response: &Response,
        now: Instant,
    ) {
        let asked = self.queries.iter().position(|query| query.transaction == response.transaction);
        let Some(position) = asked else {
            self.ignored.unasked += 1;
            return;
        };
        let is_answer = |query: &Query| query.socket == socket && query.server == canonical(remote);
        if !self.queries.get(position).is_some_and(is_answer) {
            self.ignored.misdirected += 1;
            return;
        }
        let query = self.queries.remove(position);
        self.outputs.push_back(match response.outcome {
            Ok(reflexive) => Output::Answered(query.answer(reflexive, now)),
            Err(refusal) => query.failed(refusal.into()),
        });
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let outputs = &mut self.outputs;
        self.queries.retain_mut(|query| {
            if now < query.next() {
                return true;
            }
            if query.requests == REQUESTS_AT.len() {
                outputs.push_back(query.failed(QueryError::Silent));
                return false;
            }
            query.requests += 1;
            outputs.push_back(query.transmit());
            true
        });
    }

    /// The next thing to do or to know, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.queries.iter().map(Query::next).min()
    }

    /// Whether any query is under way.
    pub fn is_idle(&self) -> bool {
        self.queries.is_empty()
    }

    /// What was received for nothing.
    pub fn ignored(&self) -> Ignored {
        self.ignored
    }

    fn is_asking(&self, socket: SocketIndex, server: SocketAddr) -> bool {
        let mut queries = self.queries.iter();
        queries.any(|query| query.socket == socket && query.server == server)
    }
}

impl Query {
    /// When the next request is due, or the query has failed.
    fn next(&self) -> Instant {
        let wait = REQUESTS_AT.get(self.requests).unwrap_or(&QUERY_TIMEOUT);
        self.asked_at + *wait
    }

    fn transmit(&self) -> Output {
        Output::Transmit(Datagram {
            socket: self.socket,
            remote: self.server,
            bytes: stun::encode_request(self.transaction),
        })
    }

    fn answer(&self, reflexive: SocketAddr, now: Instant) -> Answer {
        let asked_once = self.requests == 1;
        Answer {
            socket: self.socket,
            server: self.server,
            reflexive,
            asked_at: self.asked_at,
            rtt: asked_once.then(|| now.saturating_duration_since(self.asked_at)),
        }
    }

    fn failed(&self, why: QueryError) -> Output {
        Output::Failed { socket: self.socket, server: self.server, why }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::{story::moment, stun::Message};

    const OURS: SocketIndex = SocketIndex(0);

    struct World {
        client: StunClient,
        entropy: Entropy,
        start: Instant,
    }

    impl World {
        fn new() -> Self {
            Self { client: StunClient::new(), entropy: Entropy::from_seed(1), start: moment() }
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn ask(&mut self, server: SocketAddr) {
            self.client.ask(OURS, server, self.start, &mut self.entropy);
        }

        fn outputs(&mut self) -> Vec<Output> {
            std::iter::from_fn(|| self.client.poll_output()).collect()
        }

        /// The transactions and times in ms of the requests until `millis`, then all else.
        fn run_until(&mut self, millis: u64) -> (Vec<(TransactionId, u128)>, Vec<Output>) {
            let (mut requests, mut others, mut now) = (vec![], vec![], self.start);
            loop {
                for output in self.outputs() {
                    match &output {
                        Output::Transmit(datagram) => {
                            let elapsed = (now - self.start).as_millis();
                            requests.push((transaction_of(datagram), elapsed));
                        }
                        Output::Answered(_) | Output::Failed { .. } => others.push(output),
                    }
                }
                match self.client.poll_timeout() {
                    Some(next) if next <= self.at(millis) => now = next,
                    _ => return (requests, others),
                }
                self.client.handle_timeout(now);
            }
        }

        fn answer(&mut self, from: SocketAddr, response: &Response, millis: u64) -> Vec<Output> {
            let now = self.at(millis);
            self.client.handle_response(OURS, from, response, now);
            self.outputs()
        }
    }

    fn transaction_of(datagram: &Datagram) -> TransactionId {
        match stun::decode(&datagram.bytes) {
            Ok(Message::Request(request)) => request.transaction,
            other => panic!("not a request: {other:?}"),
        }
    }

    fn server(number: u8) -> SocketAddr {
        SocketAddr::from(([203, 0, 113, number], 3478))
    }

    fn reflexive() -> SocketAddr {
        SocketAddr::from(([198, 51, 100, 9], 50_112))
    }

    fn response(transaction: TransactionId) -> Response {
        Response { transaction, outcome: Ok(reflexive()) }
    }

    fn answered(start: Instant, rtt: Option<Duration>) -> Vec<Output> {
        vec![Output::Answered(Answer {
            socket: OURS,
            server: server(1),
            reflexive: reflexive(),
            asked_at: start,
            rtt,
        })]
    }

    #[test]
    fn a_server_that_answers_at_once_is_asked_once() {
        let mut world = World::new();
        world.ask(server(1));
        let (requests, _) = world.run_until(40);
        let outputs = world.answer(server(1), &response(requests[0].0), 40);
        let rtt = Some(Duration::from_millis(40));
        assert_eq!(outputs, answered(world.start, rtt));
        assert_eq!(world.run_until(10_000), (vec![], vec![]));
        assert!(world.client.is_idle());
    }

    #[test]
    fn a_silent_server_is_asked_five_times_in_one_transaction_and_fails_after_3_s() {
        let mut world = World::new();
        world.ask(server(1));
        let (requests, others) = world.run_until(2_999);
        let times: Vec<u128> = requests.iter().map(|request| request.1).collect();
        assert_eq!(times, [0, 150, 450, 1_050, 2_250]);
        assert!(requests.iter().all(|request| request.0 == requests[0].0));
        assert_eq!(others, []);
        world.client.handle_timeout(world.at(3_000));
        let failed = Output::Failed { socket: OURS, server: server(1), why: QueryError::Silent };
        assert_eq!(world.outputs(), [failed]);
        assert_eq!(world.client.poll_timeout(), None);
    }

    #[test]
    fn an_answer_after_a_retransmission_counts_but_times_nothing() {
        let mut world = World::new();
        world.ask(server(1));
        let (requests, _) = world.run_until(200);
        let outputs = world.answer(server(1), &response(requests[0].0), 200);
        assert_eq!(outputs, answered(world.start, None));
    }

    #[test]
    fn forged_misdirected_late_and_doubled_answers_are_ignored_and_counted() {
        let mut world = World::new();
        world.ask(server(1));
        let (requests, _) = world.run_until(0);
        let genuine = response(requests[0].0);
        let guess = response(TransactionId::random(&mut Entropy::from_seed(9)));
        assert_eq!(world.answer(server(1), &guess, 10), []);
        assert_eq!(world.answer(server(2), &genuine, 10), []);
        let (start, other) = (world.start, SocketIndex(1));
        world.client.handle_response(other, server(1), &genuine, start);
        assert_eq!(world.outputs(), []);
        assert_eq!(world.answer(server(1), &genuine, 20).len(), 1);
        assert_eq!(world.answer(server(1), &genuine, 21), []);
        let expected = Ignored { unasked: 2, misdirected: 2 };
        assert_eq!(world.client.ignored(), expected);
    }

    #[test]
    fn a_refusal_ends_the_query() {
        let mut world = World::new();
        world.ask(server(1));
        let (requests, _) = world.run_until(0);
        let refusal = Refusal { code: 401 };
        let response = Response { transaction: requests[0].0, outcome: Err(refusal) };
        let failed =
            Output::Failed { socket: OURS, server: server(1), why: QueryError::Refused(refusal) };
        assert_eq!(world.answer(server(1), &response, 10), [failed]);
        assert!(world.client.is_idle());
    }

    #[test]
    fn the_same_question_is_asked_once_and_no_more_than_64_at_a_time() {
        let mut world = World::new();
        for number in 0..64 {
            world.ask(server(number));
            world.ask(server(number));
        }
        assert_eq!(world.outputs().len(), 64);
        world.ask(server(64));
        let failed =
            Output::Failed { socket: OURS, server: server(64), why: QueryError::TooManyQueries };
        assert_eq!(world.outputs(), [failed]);
    }
}
