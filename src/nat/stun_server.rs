//! Answers STUN Binding requests, so that every reachable node is a STUN server; never more than a
//! stated number, and never with more than three times what was asked.
//!
//! Anybody can ask, and can claim to be anybody. Two limits hold: one for each source, so that one host
//! cannot use up the other one, and one for all sources together.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant},
};

use crate::nat::{
    rate::{Bucket, Limit, Source},
    stun::{self, Request},
};

/// Answers in one burst, and one second, to one source.
///
/// A node asks us once and then every 20 s at most; behind one address of a carrier's NAT sit many.
const SOURCE_LIMIT: Limit = Limit { burst: 20, interval: Duration::from_millis(200) };

/// Answers in one burst, and in one second, to everybody: at most 200 × 52 bytes.
const GLOBAL_LIMIT: Limit = Limit { burst: 200, interval: Duration::from_millis(5) };

/// Sources that are remembered.
///
/// A source is forgotten once it has its whole burst back, after 4 s at most. In 4 s, 200 + 4 × 200
/// answers are given, so that there is room for every source that must be remembered.
pub const SOURCES_MAX: usize = 1_024;

/// An answer is at most this many times as large as the request.
const AMPLIFICATION_MAX: usize = 3;

/// Answers Binding requests.
#[derive(Debug, Default)]
pub struct StunServer {
    sources: BTreeMap<Source, Bucket>,
    all: Bucket,
    counts: Counts,
}

/// What became of the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Answered.
    pub answered: u64,
    /// Not answered: one source asked too often, or all together did.
    pub limited: u64,
    /// Not answered: the answer would be too large for so small a request.
    pub oversized: u64,
}

impl StunServer {
    /// A server that has answered nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The datagram to send back to `remote`, from the socket that it asked; `None` if it asks too much.
    pub fn handle_request(
        &mut self,
        remote: SocketAddr,
        request: Request,
        now: Instant,
    ) -> Option<Vec<u8>> {
        let answer = stun::encode_response(request.transaction, remote);
        if answer.len() > AMPLIFICATION_MAX.saturating_mul(request.size) {
            self.counts.oversized += 1;
            return None;
        }
        if !self.admits(Source::of(remote.ip()), now) {
            self.counts.limited += 1;
            return None;
        }
        self.counts.answered += 1;
        Some(answer)
    }

    /// What became of the requests so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    fn admits(&mut self, source: Source, now: Instant) -> bool {
        // Asked first: under a flood from many addresses nothing below is touched.
        if !self.all.has_room(GLOBAL_LIMIT, now) {
            return false;
        }
        if self.sources.len() >= SOURCES_MAX {
            self.sources.retain(|_, bucket| !bucket.is_full(now));
        }
        let bucket = self.sources.entry(source).or_default();
        if !bucket.has_room(SOURCE_LIMIT, now) {
            return false;
        }
        bucket.take(SOURCE_LIMIT, now);
        self.all.take(GLOBAL_LIMIT, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{IpAddr, Ipv6Addr, UdpSocket},
        thread,
    };

    use super::*;
    use crate::{
        entropy::Entropy,
        nat::{
            story::moment,
            stun::{Message, Response, TransactionId},
        },
    };

    fn request() -> Request {
        Request { transaction: TransactionId::random(&mut Entropy::from_seed(1)), size: 20 }
    }

    fn stranger(number: u32) -> SocketAddr {
        SocketAddr::new(IpAddr::from((0xC633_0000 + number).to_be_bytes()), 4_000)
    }

    fn answers(server: &mut StunServer, remote: SocketAddr, count: u32, now: Instant) -> usize {
        let asked = (0..count).filter_map(|_| server.handle_request(remote, request(), now));
        asked.count()
    }

    #[test]
    fn who_asks_hears_from_where() {
        let answer = StunServer::new().handle_request(stranger(1), request(), moment());
        let expected = Message::Response(Response {
            transaction: request().transaction,
            outcome: Ok(stranger(1)),
        });
        assert_eq!(stun::decode(&answer.unwrap()), Ok(expected));
    }

    #[test]
    fn one_source_gets_its_burst_and_then_five_answers_a_second() {
        let (mut server, start) = (StunServer::new(), moment());
        assert_eq!(answers(&mut server, stranger(1), 100, start), 20);
        assert_eq!(answers(&mut server, stranger(2), 1, start), 1);
        let later = start + Duration::from_secs(1);
        assert_eq!(answers(&mut server, stranger(1), 100, later), 5);
        assert_eq!(server.counts().limited, 80 + 95);
    }

    #[test]
    fn addresses_of_one_ipv6_subnet_are_one_source() {
        let (mut server, start) = (StunServer::new(), moment());
        let neighbour = |number: u16| {
            let ip = Ipv6Addr::new(0x2001, 0xdb8, 0, 1, 0, 0, 0, number);
            SocketAddr::new(ip.into(), 4_000)
        };
        let answered: usize =
            (0..100).map(|number| answers(&mut server, neighbour(number), 1, start)).sum();
        assert_eq!(answered, 20);
    }

    #[test]
    fn a_flood_from_forged_addresses_costs_a_bounded_number_of_answers_and_entries() {
        let (mut server, start) = (StunServer::new(), moment());
        let mut answered = 0;
        for number in 0..40_000 {
            let now = start + Duration::from_micros(250) * number;
            answered += answers(&mut server, stranger(number), 1, now);
            assert!(server.sources.len() <= SOURCES_MAX);
        }
        assert_eq!(answered, 200 + 10 * 200 - 1);
    }

    #[test]
    fn an_answer_larger_than_three_times_the_request_is_not_given() {
        let tiny = Request { size: 13, ..request() };
        let mut server = StunServer::new();
        assert_eq!(server.handle_request(stranger(1), tiny, moment()), None);
        assert_eq!(server.counts().oversized, 1);
    }

    /// `stunclient` shares no code with us: it reads with `stun_codec`, we write with `stun-types`.
    #[test]
    #[allow(
        clippy::disallowed_methods,
        reason = "real loopback sockets, for an independent client"
    )]
    fn an_independent_client_learns_its_own_address_over_loopback() {
        let serving = UdpSocket::bind("127.0.0.1:0").unwrap();
        let timeout = Some(Duration::from_secs(10));
        serving.set_read_timeout(timeout).unwrap();
        let address = serving.local_addr().unwrap();
        let thread = thread::spawn(move || {
            let mut buffer = [0; 1_500];
            let (size, remote) = serving.recv_from(&mut buffer).unwrap();
            let Ok(Message::Request(request)) = stun::decode(&buffer[..size]) else {
                panic!("not a request: {:02x?}", &buffer[..size]);
            };
            let answer = StunServer::new().handle_request(remote, request, moment());
            serving.send_to(&answer.unwrap(), remote).unwrap();
        });
        let asking = UdpSocket::bind("127.0.0.1:0").unwrap();
        let seen = stunclient::StunClient::new(address).query_external_address(&asking);
        thread.join().unwrap();
        assert_eq!(seen.unwrap(), asking.local_addr().unwrap());
    }
}
