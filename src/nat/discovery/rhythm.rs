//! How often a mapping is kept alive: every 20 to 25 s, and more often behind a NAT that forgets sooner.
//!
//! That a NAT does, a measurement shows, or a mapping that had another port when it was asked for again. A router that
//! was restarted looks the same once; so the time is halved at each change, and grows again while nothing changes.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use super::Discovery;
use crate::{behaviour::Lifetime, datagram::SocketIndex, entropy::Entropy};

/// How often a mapping is kept alive.
#[derive(Debug)]
pub(super) struct Rhythm {
    /// The least time between two signs of life.
    base: Duration,
    /// What that was measured to be good for: it grows no further.
    base_max: Duration,
    /// When it was last made shorter or longer.
    changed_at: Option<Instant>,
    /// Mappings were forgotten however often they were kept alive.
    is_vain: bool,
}

impl Discovery {
    /// Keeps mappings alive often enough for a NAT that forgets them after `lifetime`.
    pub fn set_lifetime(&mut self, lifetime: Lifetime, now: Instant) {
        self.rhythm.handle_lifetime(lifetime);
        let due = now + self.rhythm.longest();
        self.timers.keepalive = self.timers.keepalive.map(|planned| planned.min(due));
    }

    /// How much time there is between two signs of life through one mapping, at most.
    pub fn keep_alive(&self) -> Duration {
        self.rhythm.longest()
    }

    pub(super) fn send_signs_of_life(&mut self, now: Instant, entropy: &mut Entropy) {
        let keepers: Vec<(SocketIndex, SocketAddr)> = self
            .answering
            .iter()
            .filter_map(|(socket, servers)| Some((*socket, *servers.front()?)))
            .collect();
        if keepers.is_empty() {
            return;
        }
        for (socket, server) in keepers {
            self.client.ask(socket, server, now, entropy);
        }
        self.timers.keepalive = Some(now + self.rhythm.wait(entropy));
    }
}

impl Default for Rhythm {
    fn default() -> Self {
        Self { base: BASE_MAX, base_max: BASE_MAX, changed_at: None, is_vain: false }
    }
}

impl Rhythm {
    /// Takes in how long the NAT was measured to keep a mapping.
    pub(super) fn handle_lifetime(&mut self, lifetime: Lifetime) {
        // With a fourth more by chance, half of it leaves time to repeat what was lost.
        let safe = lifetime.at_least.or_else(|| Some(lifetime.less_than? / 2)).map(|life| life / 2);
        let Some(safe) = safe.filter(|_| lifetime.less_than.is_some()) else { return };
        self.base_max = safe.clamp(BASE_MIN, BASE_MAX);
        // What was measured counts more than what was guessed from mappings that were forgotten.
        self.base =
            if lifetime.at_least.is_some() { self.base_max } else { self.base.min(self.base_max) };
    }

    /// Takes in that a mapping was not there any more.
    pub(super) fn handle_forgotten(&mut self, now: Instant) {
        // A NAT that forgets even so gives out ports anew for other reasons, and more signs of life would not help.
        let is_vain = self.base == BASE_MIN || self.is_vain;
        self.base = if is_vain { self.base_max } else { (self.base / 2).max(BASE_MIN) };
        self.is_vain = is_vain;
        self.changed_at = Some(now);
    }

    /// Takes in that a mapping was still there.
    pub(super) fn handle_kept(&mut self, now: Instant) {
        let is_quiet = |at: &mut Instant| *at + QUIET <= now;
        if self.changed_at.take_if(is_quiet).is_some() {
            self.is_vain = false;
            self.base = (self.base * 2).min(self.base_max);
            self.changed_at = (self.base < self.base_max).then_some(now);
        }
    }

    /// The time to the next sign of life: up to a fourth more than the least by chance, so that nodes do not fall in
    /// step.
    pub(super) fn wait(&self, entropy: &mut Entropy) -> Duration {
        let spread_ms = usize::try_from((self.base / 4).as_millis()).unwrap_or(usize::MAX);
        let by_chance = u64::try_from(entropy.below(spread_ms)).unwrap_or_default();
        self.base + Duration::from_millis(by_chance)
    }

    /// The most time between two signs of life.
    pub(super) fn longest(&self) -> Duration {
        self.base + self.base / 4
    }
}

/// The least time between two signs of life where nothing is known of the NAT: Linux forgets a UDP flow after 30 s.
const BASE_MAX: Duration = Duration::from_secs(20);

/// No NAT is known that keeps UDP for less than ten seconds and lets calls through.
const BASE_MIN: Duration = Duration::from_secs(5);

/// Time without a change after which it is tried whether fewer signs of life do: each try may cost a mapping.
const QUIET: Duration = Duration::from_secs(60 * 60);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nat::story::moment;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_mapping_is_kept_alive_every_twenty_to_twenty_five_seconds() {
        let (rhythm, mut entropy) = (Rhythm::default(), Entropy::from_seed(1));
        let waits: Vec<Duration> = (0..1_000).map(|_| rhythm.wait(&mut entropy)).collect();
        assert!(waits.iter().all(|wait| (secs(20)..secs(25)).contains(wait)));
        assert_eq!(rhythm.longest(), secs(25));
    }

    #[test]
    fn a_shorter_life_that_was_measured_is_followed_and_a_longer_one_changes_nothing() {
        let life = |at_least: Option<u64>, less_than: Option<u64>| {
            let mut rhythm = Rhythm::default();
            let (at_least, less_than) = (at_least.map(secs), less_than.map(secs));
            rhythm.handle_lifetime(Lifetime { at_least, less_than });
            rhythm.base
        };
        assert_eq!(life(Some(15), Some(30)), Duration::from_millis(7_500));
        assert_eq!(life(None, Some(24)), secs(6));
        assert_eq!(life(None, Some(4)), BASE_MIN);
        assert_eq!(life(Some(15), None), BASE_MAX, "it lived so long, and perhaps for ever");
        assert_eq!(life(Some(90), Some(120)), BASE_MAX);
    }

    #[test]
    fn each_mapping_that_was_forgotten_halves_the_time_and_each_quiet_hour_doubles_it() {
        let (mut rhythm, start) = (Rhythm::default(), moment());
        (0..2).for_each(|_| rhythm.handle_forgotten(start));
        assert_eq!(rhythm.base, BASE_MIN);
        rhythm.handle_kept(start + QUIET - secs(1));
        assert_eq!(rhythm.base, BASE_MIN);
        let mut now = start;
        for expected in [10, 20, 20] {
            now += QUIET;
            rhythm.handle_kept(now);
            assert_eq!(rhythm.base, secs(expected));
        }
    }

    #[test]
    fn a_nat_that_forgets_however_often_it_is_asked_is_asked_no_more_often_than_others() {
        let (mut rhythm, now) = (Rhythm::default(), moment());
        (0..3).for_each(|_| rhythm.handle_forgotten(now));
        assert_eq!(rhythm.base, BASE_MAX);
        rhythm.handle_forgotten(now);
        assert_eq!(rhythm.base, BASE_MAX);
    }
}
