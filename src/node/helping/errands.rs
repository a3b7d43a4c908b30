//! A caller's side: offers on their way through helpers, repeated until the peer has read one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    datagram::Path,
    entropy::Entropy,
    forwarding::{self, HELPERS_MAX, Token, Transaction},
    node::driver::DialId,
};

/// All offers on their way.
#[derive(Debug, Default)]
pub(in crate::node) struct Errands {
    all: BTreeMap<Transaction, Errand>,
}

#[derive(Debug)]
struct Errand {
    dial: DialId,
    path: Path,
    datagram: Vec<u8>,
    sent: usize,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nobody has said that the offer was read.
    Waiting { next: Instant },
    /// The peer is heard, so it has read one; who had it is still of interest.
    Heard { until: Instant },
    /// A helper says that it was; a longer answer may follow.
    Read { until: Instant },
}

impl Errands {
    /// Sends `sealed` by each of `helpers`, in the place of what this dial had sent before.
    pub(in crate::node) fn begin(
        &mut self,
        dial: DialId,
        helpers: &[(Path, Token)],
        sealed: &[u8],
        (now, entropy): (Instant, &mut Entropy),
    ) {
        self.end(dial);
        for &(path, token) in helpers.iter().take(HELPERS_MAX) {
            let transaction = entropy.bytes();
            let datagram = forwarding::offer(token, transaction, sealed);
            let state = State::Waiting { next: now };
            self.all.insert(transaction, Errand { dial, path, datagram, sent: 0, state });
        }
    }

    /// Forgets what this dial had sent.
    pub(in crate::node) fn end(&mut self, dial: DialId) {
        self.all.retain(|_, errand| errand.dial != dial);
    }

    /// Takes in that the peer has read an offer, as a helper says; returns whose it was, and whether it is news.
    pub(in crate::node) fn handle_reply(
        &mut self,
        path: Path,
        transaction: Transaction,
        now: Instant,
    ) -> Option<(DialId, bool)> {
        let errand = self.all.get(&transaction).filter(|errand| errand.path == path)?;
        let dial = errand.dial;
        let mut is_news = true;
        for errand in self.all.values_mut().filter(|errand| errand.dial == dial) {
            is_news &= !matches!(errand.state, State::Read { .. });
            errand.state = State::Read { until: now + ANSWER_TIME };
        }
        Some((dial, is_news))
    }

    /// Takes in that the peer of this dial is heard: nothing is sent again.
    pub(in crate::node) fn handle_heard(&mut self, dial: DialId, now: Instant) {
        for errand in self.all.values_mut().filter(|errand| errand.dial == dial) {
            if let State::Waiting { .. } = errand.state {
                errand.state = State::Heard { until: now + ANSWER_TIME };
            }
        }
    }

    /// The next datagram that is due.
    pub(in crate::node) fn poll_transmit(&mut self, now: Instant) -> Option<(Path, Vec<u8>)> {
        self.all.retain(|_, errand| match errand.state {
            State::Waiting { next } => now < next || errand.sent < INTERVALS.len(),
            State::Heard { until } | State::Read { until } => now < until,
        });
        self.all.values_mut().find_map(|errand| match errand.state {
            State::Waiting { next } if next <= now => {
                let interval = INTERVALS.get(errand.sent).copied().unwrap_or_default();
                errand.sent += 1;
                errand.state = State::Waiting { next: now + interval };
                Some((errand.path, errand.datagram.clone()))
            }
            State::Waiting { .. } | State::Heard { .. } | State::Read { .. } => None,
        })
    }

    /// When the next datagram is due.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        let due = |errand: &Errand| match errand.state {
            State::Waiting { next } => next,
            State::Heard { until } | State::Read { until } => until,
        };
        self.all.values().map(due).min()
    }
}

/// When an offer is sent again unless the peer is heard first, which takes one and a half round trips: a second
/// copy at once, since one in seven may be lost on the way, and then ever later. The dial makes a new one after
/// 2.5 s.
const INTERVALS: [Duration; 7] = [
    Duration::from_millis(20),
    Duration::from_millis(60),
    Duration::from_millis(120),
    Duration::from_millis(200),
    Duration::from_millis(400),
    Duration::from_millis(700),
    Duration::from_millis(900),
];

/// How long a second reply is taken after the first.
const ANSWER_TIME: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{datagram::SocketIndex, offer};

    fn path(number: u8) -> Path {
        let address = ([203, 0, 113, number], 4_000);
        Path { socket: SocketIndex(0), remote: address.into() }
    }

    #[expect(clippy::disallowed_methods, reason = "the zero of virtual time")]
    fn begun() -> (Errands, Instant) {
        let (mut errands, now) = (Errands::default(), Instant::now());
        let helpers = [1, 2, 3, 4].map(|number| (path(number), Token([number; 7])));
        let sealed = [9; offer::SEALED_SIZE];
        errands.begin(DialId(1), &helpers, &sealed, (now, &mut Entropy::from_seed(1)));
        (errands, now)
    }

    fn sent(errands: &mut Errands, now: Instant) -> Vec<(Path, Vec<u8>)> {
        std::iter::from_fn(|| errands.poll_transmit(now)).collect()
    }

    fn transaction(datagram: &[u8]) -> Transaction {
        match forwarding::parse(datagram) {
            Some(forwarding::Packet::Offer { transaction, .. }) => transaction,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_offer_goes_to_three_helpers_seven_times_if_nobody_answers() {
        let (mut errands, now) = begun();
        let mut count = sent(&mut errands, now).len();
        while let Some(next) = errands.poll_timeout() {
            count += sent(&mut errands, next).len();
            assert!(next <= now + Duration::from_millis(2_500));
        }
        assert_eq!(count, 21);
    }

    #[test]
    fn a_peer_that_is_heard_has_read_the_offer() {
        let (mut errands, now) = begun();
        let (at, first) = sent(&mut errands, now).first().unwrap().clone();
        errands.handle_heard(DialId(1), now);
        assert_eq!(sent(&mut errands, now + Duration::from_secs(1)), []);
        // Its answer is taken all the same.
        assert_eq!(errands.handle_reply(at, transaction(&first), now), Some((DialId(1), true)));
    }

    #[test]
    fn the_first_reply_ends_it_for_all_helpers() {
        let (mut errands, now) = begun();
        let datagrams = sent(&mut errands, now);
        let (at, first) = datagrams.first().unwrap();
        let named = transaction(first);
        assert_eq!(errands.handle_reply(path(9), named, now), None, "from elsewhere");
        assert_eq!(errands.handle_reply(*at, [0; 8], now), None, "made up");
        assert_eq!(errands.handle_reply(*at, named, now), Some((DialId(1), true)));
        assert_eq!(errands.handle_reply(*at, named, now), Some((DialId(1), false)));
        let later = now + Duration::from_secs(1);
        assert_eq!(sent(&mut errands, later), []);
        assert_eq!(sent(&mut errands, now + ANSWER_TIME), []);
        assert_eq!(errands.poll_timeout(), None);
    }

    #[test]
    fn a_new_offer_of_a_dial_takes_the_place_of_the_old_one() {
        let (mut errands, now) = begun();
        let old = sent(&mut errands, now).first().unwrap().clone();
        let sealed = [8; offer::SEALED_SIZE];
        let mut entropy = Entropy::from_seed(2);
        errands.begin(DialId(1), &[(path(1), Token([1; 7]))], &sealed, (now, &mut entropy));
        assert_eq!(errands.handle_reply(old.0, transaction(&old.1), now), None);
        assert_eq!(sent(&mut errands, now).len(), 1);
        errands.end(DialId(1));
        assert_eq!(errands.poll_timeout(), None);
    }
}
