//! Looks how our NAT gives out ports now: a few fresh sockets ask a STUN server each, and are closed.
//!
//! A socket that is kept alive shows one mapping, however old; where the NAT has got to only a new one
//! shows. So an offer or an answer across NATs that count takes a sample first: one round trip to the
//! quickest server, and no more than [`SAMPLE_WAIT`].

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::{
    datagram::{BoundSocket, Datagram, Family, SocketIndex},
    entropy::Entropy,
    nat::{
        inference::Observation,
        stun::Response,
        stun_client::{self, StunClient},
    },
};

/// How long a sample is waited for: most servers answer within 100 ms, and one request that was lost is
/// repeated after 150 ms.
pub const SAMPLE_WAIT: Duration = Duration::from_millis(400);

/// Fresh sockets that tell a step from chance, together with those that are there anyway.
pub const SAMPLES_FOR_KIND: u16 = 6;

/// Fresh sockets that tell how far a NAT has got whose step is known. The second is for what gets lost.
pub const SAMPLES_FOR_COUNT: u16 = 2;

/// Looks how our NAT gives out ports now.
#[derive(Debug)]
pub struct Sampler {
    servers: Vec<SocketAddr>,
    /// Servers that were asked, one for each socket.
    asked: usize,
    client: StunClient,
    /// The sockets that have not had an answer.
    sockets: BTreeMap<SocketIndex, SocketAddr>,
    /// Asked for and not yet there.
    opening: u16,
    observations: Vec<Observation>,
    /// When it ends; `None` once it has.
    deadline: Option<Instant>,
    outputs: VecDeque<Output>,
}

/// What a [`Sampler`] wants done, or found out.
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
    /// What was seen, in the order of asking: for [`Samples`](super::inference::Samples).
    Done(Vec<Observation>),
}

impl Sampler {
    /// Asks `servers`, all of one family and quickest first, from `count` fresh sockets.
    pub fn new(servers: &[SocketAddr], count: u16, now: Instant) -> Self {
        let family = servers.first().map(|server| Family::of(server.ip()));
        let opening = if family.is_some() { count } else { 0 };
        let open = family.into_iter().cycle().take(opening.into());
        let mut sampler = Self {
            servers: servers.to_vec(),
            asked: 0,
            client: StunClient::new(),
            sockets: BTreeMap::new(),
            opening,
            observations: vec![],
            deadline: Some(now + SAMPLE_WAIT),
            outputs: open.map(|family| Output::OpenSocket { family }).collect(),
        };
        sampler.finish_if_complete();
        sampler
    }

    /// Takes in a socket that was asked for.
    pub fn handle_socket_opened(
        &mut self,
        socket: BoundSocket,
        now: Instant,
        entropy: &mut Entropy,
    ) {
        self.opening = self.opening.saturating_sub(1);
        let next = self.servers.get(self.asked % self.servers.len().max(1)).copied();
        let (Some(server), Some(_)) = (next, self.deadline) else {
            return self.outputs.push_back(Output::CloseSocket(socket.index));
        };
        self.asked += 1;
        self.sockets.insert(socket.index, socket.local);
        self.client.ask(socket.index, server, now, entropy);
        self.drain();
    }

    /// Takes in that no more sockets can be opened.
    pub fn handle_socket_refused(&mut self) {
        self.opening = 0;
        self.finish_if_complete();
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
        self.drain();
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            return self.finish();
        }
        self.client.handle_timeout(now);
        self.drain();
    }

    /// The next thing to do or to know, until there is none.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let deadline = self.deadline?;
        Some(self.client.poll_timeout().map_or(deadline, |due| due.min(deadline)))
    }

    fn drain(&mut self) {
        while let Some(output) = self.client.poll_output() {
            match output {
                stun_client::Output::Transmit(datagram) => {
                    self.outputs.push_back(Output::Transmit(datagram));
                }
                stun_client::Output::Answered(answer) => {
                    let Some(local) = self.sockets.remove(&answer.socket) else { continue };
                    self.outputs.push_back(Output::CloseSocket(answer.socket));
                    self.observations.push(Observation {
                        socket: answer.socket,
                        local,
                        server: answer.server,
                        reflexive: answer.reflexive,
                        at: answer.asked_at,
                        since: answer.asked_at,
                    });
                }
                stun_client::Output::Failed { socket, .. } => {
                    if self.sockets.remove(&socket).is_some() {
                        self.outputs.push_back(Output::CloseSocket(socket));
                    }
                }
            }
        }
        self.finish_if_complete();
    }

    fn finish_if_complete(&mut self) {
        if self.opening == 0 && self.sockets.is_empty() && self.deadline.is_some() {
            self.finish();
        }
    }

    fn finish(&mut self) {
        self.deadline = None;
        self.client.forget_all();
        let open = std::mem::take(&mut self.sockets).into_keys();
        self.outputs.extend(open.map(Output::CloseSocket));
        let mut observations = std::mem::take(&mut self.observations);
        observations.sort_by_key(|seen| (seen.at, seen.socket));
        self.outputs.push_back(Output::Done(observations));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::{
        story::moment,
        stun::{self, Message},
    };

    const SERVERS: [&str; 2] = ["203.0.113.1:3478", "203.0.113.2:3478"];

    fn sampler(start: Instant) -> Sampler {
        Sampler::new(&SERVERS.map(|server| server.parse().unwrap()), 3, start)
    }

    fn bound(index: u16) -> BoundSocket {
        BoundSocket {
            index: SocketIndex(index),
            local: SocketAddr::from(([0, 0, 0, 0], 5_000 + index)),
        }
    }

    fn outputs(sampler: &mut Sampler) -> Vec<Output> {
        std::iter::from_fn(|| sampler.poll_output()).collect()
    }

    /// Opens three sockets: their requests.
    fn asked(sampler: &mut Sampler, start: Instant) -> Vec<Datagram> {
        assert_eq!(outputs(sampler), vec![Output::OpenSocket { family: Family::V4 }; 3]);
        let mut entropy = Entropy::from_seed(1);
        (1..=3)
            .map(|index| {
                sampler.handle_socket_opened(bound(index), start, &mut entropy);
                match sampler.poll_output() {
                    Some(Output::Transmit(datagram)) => datagram,
                    other => panic!("{other:?}"),
                }
            })
            .collect()
    }

    fn answer(sampler: &mut Sampler, request: &Datagram, port: u16, now: Instant) {
        let Ok(Message::Request(asked)) = stun::decode(&request.bytes) else {
            panic!("a request");
        };
        let outcome = Ok(SocketAddr::from(([198, 51, 100, 9], port)));
        let response = Response { transaction: asked.transaction, outcome };
        sampler.handle_response(request.socket, request.remote, &response, now);
    }

    #[test]
    fn every_fresh_socket_asks_one_server_and_is_closed_when_it_knows() {
        let start = moment();
        let mut sampler = sampler(start);
        let requests = asked(&mut sampler, start);
        let servers: Vec<String> = requests.iter().map(|it| it.remote.to_string()).collect();
        assert_eq!(servers, [SERVERS[0], SERVERS[1], SERVERS[0]]);
        // Answers come in any order; what was seen comes in the order of asking.
        for (index, port) in [(2, 50_002), (0, 50_000), (1, 50_001)] {
            answer(&mut sampler, &requests[index], port, start + Duration::from_millis(40));
        }
        let told = outputs(&mut sampler);
        assert_eq!(told.len(), 4);
        let Some(Output::Done(observations)) = told.last() else { panic!("{told:?}") };
        let ports: Vec<u16> = observations.iter().map(|seen| seen.reflexive.port()).collect();
        assert_eq!(ports, [50_000, 50_001, 50_002]);
        assert_eq!(sampler.poll_timeout(), None);
    }

    #[test]
    fn a_sample_ends_in_time_with_what_there_is() {
        let start = moment();
        let mut sampler = sampler(start);
        let requests = asked(&mut sampler, start);
        answer(&mut sampler, &requests[0], 50_000, start);
        while let Some(due) = sampler.poll_timeout() {
            assert!(due <= start + SAMPLE_WAIT);
            sampler.handle_timeout(due);
        }
        let told = outputs(&mut sampler);
        let closed = told.iter().filter(|it| matches!(it, Output::CloseSocket(_))).count();
        let repeated = told.iter().filter(|it| matches!(it, Output::Transmit(_))).count();
        assert_eq!((closed, repeated), (3, 2));
        assert!(matches!(told.last(), Some(Output::Done(seen)) if seen.len() == 1));
        sampler.handle_socket_opened(bound(9), start, &mut Entropy::from_seed(1));
        assert_eq!(outputs(&mut sampler), [Output::CloseSocket(SocketIndex(9))]);
    }

    #[test]
    fn without_servers_or_sockets_it_is_over_at_once() {
        let start = moment();
        let mut nobody = Sampler::new(&[], 3, start);
        assert_eq!(outputs(&mut nobody), [Output::Done(vec![])]);
        let mut sampler = sampler(start);
        outputs(&mut sampler);
        sampler.handle_socket_refused();
        assert_eq!(outputs(&mut sampler), [Output::Done(vec![])]);
    }
}
