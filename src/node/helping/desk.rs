//! A helper's side: forwards offers to the nodes that it serves.
//!
//! Each datagram that comes in makes one go out at the most, and no larger one. Nobody is remembered before
//! it has shown, with a cookie, that it receives at its address. The helper knows a node that it serves by
//! an ephemeral key and an address, and nothing else of it; tokens follow from that key and our identity, so
//! they outlive a restart of ours.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    candidate::encode_compact,
    datagram::Path,
    entropy::Entropy,
    forwarding::{
        self, Cookie, Delivered, Granted, LinkKeys, Packet, Sealed, Token, Transaction, Wish,
    },
    identity::Identity,
    nat::rate::{Bucket, Limit, Source},
    sealing::Key,
    time::UnixMillis,
};

/// Everything that a helper remembers.
#[derive(Debug)]
pub(in crate::node) struct Desk {
    identity: Identity,
    secret: Key,
    served: BTreeMap<Token, Served>,
    errands: BTreeMap<Transaction, Errand>,
    callers: BTreeMap<Source, Bucket>,
    offers: Bucket,
    asks: Bucket,
    newcomers: Bucket,
    entropy: Entropy,
}

#[derive(Debug)]
struct Served {
    keys: LinkKeys,
    path: Path,
    heard_at: Instant,
    offers: Bucket,
}

/// An offer on its way; its replies go back there.
#[derive(Debug)]
struct Errand {
    from: Path,
    transaction: Transaction,
    to: Token,
    until: Instant,
    /// Bytes that may still go back.
    budget: usize,
}

/// A datagram to send.
pub(in crate::node) type Transmit = (Path, Vec<u8>);

impl Desk {
    /// A helper that serves nobody yet.
    pub(in crate::node) fn new(identity: Identity, entropy: Entropy) -> Self {
        Self {
            secret: identity.derive("helping"),
            identity,
            served: BTreeMap::new(),
            errands: BTreeMap::new(),
            callers: BTreeMap::new(),
            offers: Bucket::default(),
            asks: Bucket::default(),
            newcomers: Bucket::default(),
            entropy,
        }
    }

    /// Takes in a datagram that came over `path`; returns what goes out on it.
    pub(in crate::node) fn handle_datagram(
        &mut self,
        path: Path,
        datagram: &[u8],
        (now, unix): (Instant, UnixMillis),
    ) -> Option<Transmit> {
        match forwarding::parse(datagram)? {
            Packet::Ask { transaction, cookie, ephemeral, sealed } => {
                if !self.asks.has_room(ASK_LIMIT, now) {
                    return None;
                }
                self.asks.take(ASK_LIMIT, now);
                if !self.is_good(cookie, path, unix) {
                    let fresh = self.cookie(path, unix.seconds() / COOKIE_SECONDS);
                    return Some((path, forwarding::challenge(transaction, fresh)));
                }
                self.handle_ask(path, (transaction, ephemeral), (datagram, sealed), now)
            }
            Packet::Offer { token, transaction, offer } => {
                self.handle_offer(path, (token, transaction), offer, now)
            }
            Packet::Answer { errand, sealed } => {
                self.handle_answer(errand, (datagram, sealed), now)
            }
            Packet::Challenge { .. }
            | Packet::Grant { .. }
            | Packet::Delivery { .. }
            | Packet::Reply { .. } => None,
        }
    }

    fn handle_ask(
        &mut self,
        path: Path,
        (transaction, ephemeral): (Transaction, [u8; 32]),
        (datagram, sealed): (&[u8], Sealed<'_>),
        now: Instant,
    ) -> Option<Transmit> {
        let token = self.token(&ephemeral);
        let known = self.served.get(&token).map(|served| served.keys.clone());
        let keys = match known {
            Some(keys) => keys,
            None if self.has_room_for(path, now) => {
                self.newcomers.take(NEWCOMER_LIMIT, now);
                LinkKeys::of_helper(&self.identity, &ephemeral)
            }
            None => return None,
        };
        match keys.open_ask(datagram, sealed)? {
            Wish::End => {
                self.served.remove(&token);
                None
            }
            Wish::Keep => {
                let granted = Granted { token, seen: path.remote };
                let grant = keys.grant(transaction, granted, &mut self.entropy);
                let offers = self.served.get(&token).map(|served| served.offers);
                let offers = offers.unwrap_or_default();
                self.served.insert(token, Served { keys, path, heard_at: now, offers });
                Some((path, grant))
            }
        }
    }

    fn has_room_for(&mut self, path: Path, now: Instant) -> bool {
        self.served.retain(|_, served| now < served.heard_at + SERVED_TIME);
        let source = Source::of(path.remote.ip());
        let is_neighbour = |served: &&Served| Source::of(served.path.remote.ip()) == source;
        self.newcomers.has_room(NEWCOMER_LIMIT, now)
            && self.served.len() < SERVED_MAX
            && self.served.values().filter(is_neighbour).count() < SERVED_AT_ONE_SOURCE_MAX
    }

    fn handle_offer(
        &mut self,
        path: Path,
        (token, transaction): (Token, Transaction),
        offer: &[u8],
        now: Instant,
    ) -> Option<Transmit> {
        let served = self.served.get_mut(&token)?;
        if served.heard_at + SERVED_TIME <= now || !self.offers.has_room(ALL_LIMIT, now) {
            return None;
        }
        if self.callers.len() >= CALLERS_MAX {
            self.callers.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.errands.len() >= ERRANDS_MAX {
            self.errands.retain(|_, errand| now < errand.until);
        }
        if self.callers.len() >= CALLERS_MAX || self.errands.len() >= ERRANDS_MAX {
            return None;
        }
        let caller = self.callers.entry(Source::of(path.remote.ip())).or_default();
        let is_copy = self.errands.values().any(|errand| {
            (errand.from, errand.transaction, errand.to) == (path, transaction, token)
        });
        let is_allowed = is_copy || served.offers.has_room(SERVED_LIMIT, now);
        if !caller.has_room(CALLER_LIMIT, now) || !is_allowed {
            return None;
        }
        caller.take(CALLER_LIMIT, now);
        if !is_copy {
            served.offers.take(SERVED_LIMIT, now);
        }
        self.offers.take(ALL_LIMIT, now);
        let name = self.entropy.bytes();
        let errand = Errand {
            from: path,
            transaction,
            to: token,
            until: now + ERRAND_TIME,
            budget: forwarding::OFFER_SIZE,
        };
        self.errands.insert(name, errand);
        let delivered = Delivered { errand: name, seen: path.remote, offer: offer.to_vec() };
        Some((served.path, served.keys.delivery(&delivered, &mut self.entropy)))
    }

    fn handle_answer(
        &mut self,
        name: Transaction,
        (datagram, sealed): (&[u8], Sealed<'_>),
        now: Instant,
    ) -> Option<Transmit> {
        let errand = self.errands.get_mut(&name).filter(|errand| now < errand.until)?;
        let served = self.served.get(&errand.to)?;
        let answer = served.keys.open_answer(datagram, sealed)?;
        let reply = forwarding::reply(errand.transaction, errand.from.remote, &answer);
        errand.budget = errand.budget.checked_sub(reply.len())?;
        Some((errand.from, reply))
    }

    fn token(&self, ephemeral: &[u8; 32]) -> Token {
        let [a, b, c, d, e, f, g, ..] = self.secret.authenticate(&[b"token", ephemeral]);
        Token([a, b, c, d, e, f, g])
    }

    fn is_good(&self, cookie: Cookie, path: Path, unix: UnixMillis) -> bool {
        let period = unix.seconds() / COOKIE_SECONDS;
        [period, period.saturating_sub(1)].into_iter().any(|p| self.cookie(path, p) == cookie)
    }

    fn cookie(&self, path: Path, period: u64) -> Cookie {
        let address = encode_compact(path.remote);
        let code = self.secret.authenticate(&[b"cookie", &period.to_be_bytes(), &address]);
        let mut cookie = Cookie::default();
        cookie.copy_from_slice(code.first_chunk::<16>().expect("a code has 32 bytes"));
        cookie
    }
}

/// Nodes that one helper serves: some 300 KiB, and 80 datagrams a second to keep their links.
const SERVED_MAX: usize = 1_024;

/// Of these behind one address, or in one IPv6 subnet: behind a carrier's NAT sit many.
const SERVED_AT_ONE_SOURCE_MAX: usize = 64;

/// A node that was not heard for so long is not served any more: three of its questions were lost.
pub(super) const SERVED_TIME: Duration = Duration::from_secs(75);

/// Offers on their way at a time: as many as the limits below let through while one waits for its answer.
const ERRANDS_MAX: usize = 1_024;

/// How long an offer's answer may take: the way to the served node and back, and its own work.
const ERRAND_TIME: Duration = Duration::from_secs(3);

/// Callers whose rate is remembered; each is forgotten when it has its whole burst back, after 7.5 s.
const CALLERS_MAX: usize = 1_024;

/// Offers from one source: three dials with the copies that each sends in its first half second, and two a second.
const CALLER_LIMIT: Limit = Limit { burst: 15, interval: Duration::from_millis(500) };

/// Offers to one node: each makes it probe up to 16 addresses. A further copy of an offer does not count: the node
/// has read it already, or the one before was lost.
const SERVED_LIMIT: Limit = Limit { burst: 20, interval: Duration::from_millis(200) };

/// Offers in all: 140 KB a second.
const ALL_LIMIT: Limit = Limit { burst: 200, interval: Duration::from_millis(5) };

/// Questions in all: twice what the most nodes ask.
const ASK_LIMIT: Limit = Limit { burst: 500, interval: Duration::from_millis(5) };

/// Key agreements, which cost some 100 µs each.
const NEWCOMER_LIMIT: Limit = Limit { burst: 100, interval: Duration::from_millis(20) };

/// A cookie is good for one to two of these.
const COOKIE_SECONDS: u64 = 60;

#[cfg(test)]
mod tests;
