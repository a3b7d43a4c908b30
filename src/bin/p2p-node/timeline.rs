//! A connection as it happens: what was learned or tried, and when.

use p2p_node::{
    bridge::terminal::clean,
    node::{
        Event,
        event::{Connection, PathReport},
    },
};
use tokio::time::Instant;

/// Puts steps into lines.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeline {
    begin: Instant,
}

/// Something that happened, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    what: &'static str,
    detail: String,
}

impl Timeline {
    /// Time counts from `begin`.
    pub(crate) fn begin(begin: Instant) -> Self {
        Self { begin }
    }

    /// The line for a step that is taken now.
    pub(crate) fn line(&self, step: &Step) -> String {
        format!("{:>6} ms  {step}", self.begin.elapsed().as_millis())
    }

    /// The same for one of several: `who` takes it.
    pub(crate) fn line_of(&self, who: &str, step: &Step) -> String {
        format!("{:>6} ms  {who:<6}  {step}", self.begin.elapsed().as_millis())
    }
}

impl Step {
    /// Whatever `what` names. Of `detail`, which a peer may have a say in, only text is left.
    pub(crate) fn new(what: &'static str, detail: &str) -> Self {
        Self { what, detail: clean(detail) }
    }

    /// What an event tells of a connection, if it does.
    pub(crate) fn of(event: &Event) -> Option<Self> {
        Some(match event {
            Event::Connecting { target } => Self::new("connecting", &target.to_string()),
            Event::Progress { stage, detail, .. } => Self::new(stage.as_str(), detail),
            Event::Connected(connection) => Self::new("connected", &connected(connection)),
            Event::PathChanged { path, rtt, .. } => {
                let detail = format!("now {}, {:.1} ms", way(path), rtt.as_secs_f64() * 1e3);
                Self::new("path", &detail)
            }
            Event::Disconnected { failure, .. } => Self::new("disconnected", &failure.message),
            Event::Warning(failure) => Self::new("warning", &failure.message),
            Event::Online { .. } | Event::Delivered(_) => return None,
        })
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<12}  {}", self.what, self.detail)
    }
}

fn connected(connection: &Connection) -> String {
    let kind = connection.path.kind.as_str();
    format!("{} over a {kind} path", connection.peer.short())
}

/// A path with both ends.
pub(crate) fn way(path: &PathReport) -> String {
    format!("{} path {} ⇄ {}", path.kind.as_str(), path.local, path.remote)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use p2p_node::{
        identity::Identity,
        node::{
            Target,
            event::{Chosen, PathKind, Stage, Strategy},
        },
    };

    use super::*;

    fn line(event: &Event) -> String {
        Step::of(event).unwrap().to_string()
    }

    #[test]
    fn a_step_says_what_is_tried_and_why() {
        let peer = Identity::from_seed([2; 32]).peer_id();
        let progress = Event::Progress {
            target: Target::Peer(peer),
            peer: Some(peer),
            stage: Stage::Punch,
            elapsed: Duration::from_millis(82),
            detail: "guessed ports: their NAT counts\u{1b}[31m".to_owned(),
            chosen: Some(Chosen {
                strategy: Strategy::GuessedPorts,
                why: "their NAT counts".to_owned(),
            }),
        };
        assert_eq!(line(&progress), "punch         guessed ports: their NAT counts[31m");
    }

    #[test]
    fn a_path_is_shown_with_both_ends() {
        let path = PathReport {
            kind: PathKind::Lan,
            local: "192.168.1.20:41641".parse().unwrap(),
            remote: "192.168.1.30:41641".parse().unwrap(),
        };
        let peer = Identity::from_seed([2; 32]).peer_id();
        let changed = Event::PathChanged { peer, path, rtt: Duration::from_micros(8_250) };
        let expected = "path          now lan path 192.168.1.20:41641 ⇄ 192.168.1.30:41641, 8.2 ms";
        assert_eq!(line(&changed), expected);
    }
}
