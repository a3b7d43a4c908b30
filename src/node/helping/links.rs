//! A served node's side: its links to helpers, each kept alive by asking again and again.
//!
//! ```text
//! Asking ──granted──▶ Linked ──no answer to five questions──▶ gone: another helper is found
//! ```
//!
//! A link is an ephemeral key and an address: it is no connection, carries no messages, and is none of the
//! node's peers. A helper does not learn who we are.

use std::{
    collections::VecDeque,
    net::IpAddr,
    time::{Duration, Instant},
};

use crate::{
    datagram::Path,
    entropy::Entropy,
    forwarding::{
        self, Cookie, Delivered, HELPERS_MAX, Helper, LinkKeys, Packet, Token, Transaction, Wish,
    },
    identity::{Ephemeral, PeerId},
};

/// Links to helpers, and to those that were asked to become one.
#[derive(Debug)]
pub(in crate::node) struct HelperLinks {
    links: Vec<HelperLink>,
    outputs: VecDeque<Output>,
    entropy: Entropy,
}

/// What the owner is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::node) enum Output {
    /// Send this.
    Transmit(Path, Vec<u8>),
    /// Other helpers, or other tokens, are to be published than before.
    Changed,
    /// This one does not answer.
    Gone(PeerId),
}

/// An offer that came by a helper, and the way back to whoever made it.
#[derive(Debug)]
pub(in crate::node) struct Forwarded {
    pub(in crate::node) delivered: Delivered,
    pub(in crate::node) way_back: WayBack,
}

/// The way back to the maker of a forwarded offer. The helper lets two answers through, of which one is
/// empty, within three seconds of the offer.
#[derive(Clone, Debug)]
pub(in crate::node) struct WayBack {
    path: Path,
    keys: LinkKeys,
    errand: Transaction,
}

impl WayBack {
    /// Where the helper is.
    pub(in crate::node) fn helper(&self) -> IpAddr {
        self.path.remote.ip()
    }
}

#[derive(Debug)]
struct HelperLink {
    helper: PeerId,
    /// Where it may be; the one that answered, once it has.
    paths: Vec<Path>,
    ephemeral: Ephemeral,
    keys: LinkKeys,
    cookie: Cookie,
    transaction: Transaction,
    /// Questions without an answer.
    asked: usize,
    next: Instant,
    granted: Option<Token>,
}

impl HelperLinks {
    /// No links.
    pub(in crate::node) fn new(entropy: Entropy) -> Self {
        Self { links: Vec::new(), outputs: VecDeque::new(), entropy }
    }

    /// How many more may be asked.
    pub(in crate::node) fn missing(&self) -> usize {
        HELPERS_MAX.saturating_sub(self.links.len())
    }

    /// Whether `helper` is one, or asked to be.
    pub(in crate::node) fn has(&self, helper: PeerId) -> bool {
        self.links.iter().any(|link| link.helper == helper)
    }

    /// What is to be published: those that serve us.
    pub(in crate::node) fn helpers(&self) -> Vec<Helper> {
        let helper = |link: &HelperLink| {
            Some(Helper { address: link.paths.first()?.remote, token: link.granted? })
        };
        self.links.iter().filter_map(helper).collect()
    }

    /// Asks `helper`, which may be reached over `paths`, to serve us.
    pub(in crate::node) fn ask(&mut self, helper: PeerId, mut paths: Vec<Path>, now: Instant) {
        paths.truncate(PATHS_MAX);
        if paths.is_empty() || self.missing() == 0 || self.has(helper) {
            return;
        }
        let ephemeral = Ephemeral::generate(&mut self.entropy);
        self.links.push(HelperLink {
            keys: LinkKeys::of_served(&ephemeral, &helper),
            transaction: self.entropy.bytes(),
            helper,
            paths,
            ephemeral,
            cookie: Cookie::default(),
            asked: 0,
            next: now,
            granted: None,
        });
        self.handle_timeout(now);
    }

    /// Our addresses are others: shows every helper the new ones.
    pub(in crate::node) fn handle_moved(&mut self, now: Instant) {
        for link in &mut self.links {
            link.next = now;
        }
        self.handle_timeout(now);
    }

    /// Asks those that are due, and lets go of those that do not answer.
    pub(in crate::node) fn handle_timeout(&mut self, now: Instant) {
        let is_gone = |link: &mut HelperLink| link.next <= now && link.asked >= PATIENCE.len();
        let gone: Vec<HelperLink> = self.links.extract_if(.., is_gone).collect();
        for link in gone {
            self.outputs.push_back(Output::Gone(link.helper));
            if link.granted.is_some() {
                self.outputs.push_back(Output::Changed);
            }
        }
        for index in 0..self.links.len() {
            if self.links.get(index).is_some_and(|link| link.next <= now) {
                self.transmit(index, now);
            }
        }
    }

    /// Tells every helper that it need not serve us any more.
    pub(in crate::node) fn end(&mut self) {
        for link in std::mem::take(&mut self.links) {
            let head = (link.transaction, link.cookie, &link.ephemeral.public);
            let farewell = link.keys.ask(head, Wish::End, &mut self.entropy);
            let paths = link.paths.iter().filter(|_| link.granted.is_some());
            let farewells = paths.map(|path| Output::Transmit(*path, farewell.clone()));
            self.outputs.extend(farewells);
        }
    }

    /// Takes in a datagram that came over `path`; returns the offer in it, if there is one.
    pub(in crate::node) fn handle_datagram(
        &mut self,
        path: Path,
        datagram: &[u8],
        now: Instant,
    ) -> Option<Forwarded> {
        let is_from = |link: &HelperLink| link.paths.contains(&path);
        let index = self.links.iter().position(is_from)?;
        let link = self.links.get_mut(index)?;
        match forwarding::parse(datagram)? {
            Packet::Challenge { transaction, cookie } => {
                // Only what answers a question, and not what answers the answer to another one.
                let is_new = transaction == link.transaction && link.cookie != cookie;
                if is_new && (1..PATIENCE.len()).contains(&link.asked) {
                    link.cookie = cookie;
                    self.transmit(index, now);
                }
                None
            }
            Packet::Grant { transaction, sealed } => {
                if transaction == link.transaction
                    && let Some(granted) = link.keys.open_grant(datagram, sealed)
                {
                    link.asked = 0;
                    link.next = now + KEEP_INTERVAL;
                    link.paths = vec![path];
                    link.transaction = self.entropy.bytes();
                    if link.granted.replace(granted.token) != Some(granted.token) {
                        tracing::info!(helper = ?link.helper, at = %path.remote, seen = %granted.seen, "a helper serves us");
                        self.outputs.push_back(Output::Changed);
                    }
                }
                None
            }
            Packet::Delivery { sealed } => {
                let delivered = link.keys.open_delivery(datagram, sealed)?;
                let way_back = WayBack { path, keys: link.keys.clone(), errand: delivered.errand };
                Some(Forwarded { delivered, way_back })
            }
            Packet::Ask { .. }
            | Packet::Offer { .. }
            | Packet::Answer { .. }
            | Packet::Reply { .. } => None,
        }
    }

    /// Sends `answer`, which may be empty, to the maker of a forwarded offer: that is what tells it that
    /// the offer was read.
    pub(in crate::node) fn answer(&mut self, way: &WayBack, answer: &[u8]) {
        let datagram = way.keys.answer(way.errand, answer, &mut self.entropy);
        self.outputs.push_back(Output::Transmit(way.path, datagram));
    }

    /// The next thing to do.
    pub(in crate::node) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When a helper is due to be asked.
    pub(in crate::node) fn poll_timeout(&self) -> Option<Instant> {
        self.links.iter().map(|link| link.next).min()
    }

    fn transmit(&mut self, index: usize, now: Instant) {
        let Some(link) = self.links.get_mut(index) else {
            return;
        };
        link.next = now + PATIENCE.get(link.asked).copied().unwrap_or_default();
        link.asked += 1;
        for &path in &link.paths {
            let head = (link.transaction, link.cookie, &link.ephemeral.public);
            let ask = link.keys.ask(head, Wish::Keep, &mut self.entropy);
            self.outputs.push_back(Output::Transmit(path, ask));
        }
    }
}

/// How long each question waits for its answer, a challenge's too. All of them together take ten seconds.
const PATIENCE: [Duration; 6] = [
    Duration::from_millis(400),
    Duration::from_millis(800),
    Duration::from_millis(1_600),
    Duration::from_millis(2_400),
    Duration::from_millis(2_400),
    Duration::from_millis(2_400),
];

/// Between two questions to a helper that serves us: below the 30 s after which NATs forget a mapping.
const KEEP_INTERVAL: Duration = Duration::from_secs(20);

/// Addresses of one helper that are asked at once.
const PATHS_MAX: usize = 4;

#[cfg(test)]
mod tests;
