//! The network changes under the node, or the machine sleeps: what follows for everybody.
//!
//! Our addresses are found anew, every link asks at once on all its paths, and whoever waits to be
//! dialled is dialled. Links whose peers do not answer are rescued by `rescue`. A machine that slept
//! tells nobody: its wall clock has gone on while its monotonic clock stood still.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::watch, time::sleep};

use crate::{
    candidate::{Candidate, CandidateKind},
    identity::PeerId,
    node::{
        driver::{Driver, Outcome},
        event::Event,
        explain,
        links::rescue::Rescue,
    },
    time::UnixMillis,
    transport::{link::Link, quic},
};

/// Notices that the machine slept.
#[derive(Debug)]
pub(in crate::node) struct Wakefulness {
    last: (Instant, UnixMillis),
}

impl Wakefulness {
    /// Awake at this moment.
    pub(in crate::node) fn new(now: Instant, unix: UnixMillis) -> Self {
        Self { last: (now, unix) }
    }

    /// When to look at the clocks again.
    pub(in crate::node) fn poll_timeout(&self) -> Instant {
        self.last.0 + LOOK_INTERVAL
    }

    /// Compares the clocks; says for how long the machine slept since the last look, if it did.
    pub(in crate::node) fn check(&mut self, now: Instant, unix: UnixMillis) -> Option<Duration> {
        let (before, unix_before) = std::mem::replace(&mut self.last, (now, unix));
        let awake = now.saturating_duration_since(before);
        let slept = unix_before.age_at(unix).saturating_sub(awake);
        (slept >= SLEEP_MIN).then_some(slept)
    }
}

/// Waits until the network may be another one; for ever without anybody who tells.
pub(in crate::node) async fn changed(changes: &mut Option<watch::Receiver<()>>) {
    if let Some(receiver) = changes
        && receiver.changed().await.is_ok()
    {
        return;
    }
    // Whoever told is gone: asking again would end at once, for ever.
    *changes = None;
    std::future::pending().await
}

impl Driver {
    /// Somebody says that the network may have changed: looks whether it has.
    pub(in crate::node) fn look_at_network(&mut self) {
        let now = self.clock.now();
        if self.addresses.look_again(now) {
            self.handle_network_changed();
        } else if self.addresses.may_hurry(now) {
            // The addresses are the same, but perhaps not the way out.
            self.look_for_ourselves();
        }
    }

    /// Looks at the clocks and the interfaces, if it is time.
    pub(in crate::node) fn wake_roaming(&mut self, now: Instant) {
        if self.wakefulness.poll_timeout() <= now {
            if let Some(slept) = self.wakefulness.check(now, self.clock.unix()) {
                self.handle_woken(slept);
            }
            self.notice_return(now);
        }
        if self.addresses.look_is_due(now) && self.addresses.look_again(now) {
            self.handle_network_changed();
        }
    }

    /// Notices that somebody out there answers again, after nobody did.
    fn notice_return(&mut self, now: Instant) {
        let health = self.rendezvous.as_ref().map(|rendezvous| rendezvous.health());
        let last_answer = health.and_then(|health| health.last_answer);
        let dht_answers = last_answer.is_some_and(|ago| ago < 2 * LOOK_INTERVAL);
        let is_cut_off = self.addresses.discovery.is_silent() && !dht_answers;
        if std::mem::replace(&mut self.is_cut_off, is_cut_off) && !is_cut_off {
            tracing::info!("the network is back");
            self.hurry(now);
        }
        if dht_answers && self.addresses.discovery.is_silent() && self.addresses.may_hurry(now) {
            self.look_for_ourselves();
        }
    }

    /// Whatever waits because it was in vain before is tried now.
    fn hurry(&mut self, now: Instant) {
        self.standing.hurry(now);
        self.sessions.hurry(now);
        self.publishing.hurry(now);
    }

    /// Our addresses are others than before.
    fn handle_network_changed(&mut self) {
        tracing::info!(interfaces = ?self.addresses.interfaces(), "the network has changed");
        for address in self.addresses.newly_absent(&self.bound_sockets) {
            self.events.emit(Event::Warning(explain::bound_address_gone(address)));
        }
        self.start_anew();
        self.ask_all_links(ASK_TIME);
    }

    /// The machine slept: mappings are gone, and peers may have given us up.
    fn handle_woken(&mut self, slept: Duration) {
        tracing::info!(?slept, "the machine slept");
        self.addresses.look_again(self.clock.now());
        self.start_anew();
        self.ask_all_links(ASK_TIME);
        if slept < quic::IDLE_TIMEOUT {
            return;
        }
        let due = self.clock.now() + DOOM_TIME;
        for peer in self.linked_peers() {
            if let Some(live) = self.links.live(peer) {
                live.rescue = Rescue::Doomed { due };
            }
        }
    }

    /// A STUN server sees us elsewhere than before.
    pub(in crate::node) fn handle_moved(&mut self) {
        self.ask_all_links(Duration::ZERO);
    }

    /// Our addresses are others than before: tells every peer that still hears us.
    pub(in crate::node) fn tell_peers_where_we_are(&mut self) {
        let ours = self.addresses.gathered().candidates;
        for live in self.links.neighbours.values().filter_map(|neighbour| neighbour.live.as_ref()) {
            live.link.tell_addresses(ours.iter().map(|candidate| candidate.address));
        }
    }

    /// Takes in where the peer says that it is, as long as `link` lasts.
    pub(in crate::node) fn hear_of_moves(&mut self, link: &Arc<Link>) {
        let (peer, mut addresses) = (link.peer_id(), link.peer_addresses());
        let outcomes = self.outcomes();
        self.spawn(async move {
            while addresses.changed().await.is_ok() {
                let told = addresses.borrow_and_update().clone();
                // A driver that is gone needs no news.
                let _ = outcomes.send(Outcome::PeerMoved(peer, told)).await;
                // Each time up to sixteen addresses are asked, which nobody has proved.
                sleep(NEWS_INTERVAL).await;
            }
        });
    }

    /// A connected peer says where it is now.
    pub(in crate::node) fn handle_peer_moved(&mut self, peer: PeerId, addresses: &[SocketAddr]) {
        let candidate = |address: &SocketAddr| Candidate::new(CandidateKind::Host, *address);
        let candidates: Vec<Candidate> = addresses.iter().filter_map(candidate).collect();
        tracing::debug!(?peer, ?candidates, "the peer has moved");
        if self.links.live(peer).is_some() && !candidates.is_empty() {
            self.open_route(peer, &candidates);
        }
    }

    /// Nothing that was found out about the network holds.
    fn start_anew(&mut self) {
        self.rediscover();
        if let Some(rendezvous) = &self.rendezvous {
            rendezvous.network_changed();
        }
        self.hurry(self.clock.now());
    }

    /// Asks every peer on all its paths; those that do not answer within `patience` are told by other means.
    fn ask_all_links(&mut self, patience: Duration) {
        let now = self.clock.now();
        for peer in self.linked_peers() {
            if let Some(live) = self.links.live(peer) {
                live.upkeep.handle_network_change(now);
            }
            self.drain_upkeep(peer);
            if let Some(live) = self.links.live(peer)
                && let rtt = live.link.rtt()
                && let Rescue::Waiting { due } = &mut live.rescue
            {
                // Where two round trips take longer than that, an answer may still be on its way.
                let patience = if patience.is_zero() { patience } else { patience.max(rtt * 2) };
                *due = (*due).min(now + patience);
            }
            self.look_after(peer);
        }
    }

    fn linked_peers(&self) -> Vec<PeerId> {
        let live = self.links.neighbours.iter().filter(|(_, n)| n.live.is_some());
        live.map(|(peer, _)| *peer).collect()
    }
}

/// Between two looks at the clocks, and at the interfaces where nobody tells of changes: both cost less
/// than a datagram does.
pub(in crate::node) const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Less is a clock that was set right. Nothing of ours ends within it.
const SLEEP_MIN: Duration = Duration::from_secs(5);

/// How long a path has to answer after a change, before the peer is told by other means. A network of
/// containers that comes or goes changes the list of addresses, too, and no path.
const ASK_TIME: Duration = Duration::from_millis(100);

/// News of one peer's addresses are no more frequent than this.
const NEWS_INTERVAL: Duration = Duration::from_secs(2);

/// How long the peer has to answer after a long sleep: the time of a few round trips.
const DOOM_TIME: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    const UNIX: UnixMillis = UnixMillis(1_763_820_000_000);

    fn later(seconds: u64) -> UnixMillis {
        UnixMillis(UNIX.0 + 1_000 * seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn time_that_only_the_wall_clock_knows_of_was_slept() {
        let start = tokio::time::Instant::now().into_std();
        let mut wakefulness = Wakefulness::new(start, UNIX);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(wakefulness.check(at(2), later(2)), None);
        // Busy for a while, then set right by a little.
        assert_eq!(wakefulness.check(at(20), later(20)), None);
        assert_eq!(wakefulness.check(at(22), later(24)), None);
        let slept = Duration::from_secs(600);
        assert_eq!(wakefulness.check(at(24), later(626)), Some(slept));
        assert_eq!(wakefulness.check(at(26), later(628)), None, "told once");
        assert_eq!(wakefulness.check(at(28), later(28)), None, "set back");
        assert_eq!(wakefulness.poll_timeout(), at(30));
    }
}
