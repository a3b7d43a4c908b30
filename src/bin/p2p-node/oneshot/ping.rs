//! `p2p-node ping`: whether a peer can be reached, over which path, and how quickly it answers.

use std::{
    io::{self, Write},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use p2p_node::{
    bridge::exit,
    failure::Failure,
    node::{Node, Role, Target, event::Pong},
};
use serde::Serialize;
use tokio::time;

use super::{OneShot, fail, find_peer, run};
use crate::{
    args::{Colour, PingArgs},
    exit::complain,
    watchdog::Watchdog,
};

/// An answer, for programs.
#[derive(Debug, Serialize)]
struct PongLine {
    peer: String,
    path: PathLine,
    rtt_ms: f64,
}

#[derive(Debug, Serialize)]
struct PathLine {
    kind: &'static str,
    local: SocketAddr,
    remote: SocketAddr,
}

/// How the answers came.
#[derive(Debug, Default)]
struct Summary {
    asked: u32,
    times: Vec<Duration>,
}

/// Pings the peer that `args` name.
pub(crate) fn ping(args: PingArgs, colour: Colour, watchdog: &Watchdog) -> ExitCode {
    let PingArgs { peer, count, interval, timeout, json, node } = args;
    let (target, node) = match find_peer(&peer, node) {
        Ok(found) => found,
        Err(failure) => return fail(&failure),
    };
    run(node, Role::Client, colour, watchdog, |OneShot { node, mut told, .. }| async move {
        let mut summary = Summary::default();
        for round in 0..count {
            let pause = if round == 0 { Duration::ZERO } else { interval };
            let pong = async {
                time::sleep(pause).await;
                ask(&node, &target, timeout).await
            };
            match told.during(pong).await {
                Ok(Ok(pong)) => {
                    summary.asked += 1;
                    summary.times.push(pong.rtt);
                    if print(&pong, json).is_err() {
                        // Nobody reads any more.
                        break;
                    }
                }
                // Whom the first search does not find, a second finds no better.
                Ok(Err(failure)) if summary.asked == 0 => return Err(failure),
                Ok(Err(failure)) => {
                    summary.asked += 1;
                    complain(&failure);
                }
                Err(stop) if summary.times.is_empty() => return stop.cut_off(),
                Err(_) => break,
            }
        }
        if !json {
            // The answers are printed; nobody may read on.
            let _ = writeln!(io::stdout(), "{}", summary.line());
        }
        Ok(exit::OK)
    })
}

/// One answer, over the link that is there, or over a new one.
async fn ask(node: &Node, target: &Target, timeout: Duration) -> Result<Pong, Failure> {
    let peer = node.connect(target.clone(), None).await?.peer;
    node.ping(peer, Some(timeout)).await
}

fn print(pong: &Pong, json: bool) -> io::Result<()> {
    let (peer, path) = (&pong.peer, &pong.path);
    let kind = path.kind.as_str();
    let rtt_ms = millis(pong.rtt);
    let line = match json {
        true => {
            let path = PathLine { kind, local: path.local, remote: path.remote };
            serde_json::to_string(&PongLine { peer: peer.to_string(), path, rtt_ms })?
        }
        false => {
            let (peer, remote) = (peer.short(), path.remote);
            format!("pong from {peer} via {remote}  {kind} path  {rtt_ms:.1} ms")
        }
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

impl Summary {
    fn line(&self) -> String {
        let (asked, answered) = (self.asked, self.times.len());
        let (Some(least), Some(most)) = (self.times.iter().min(), self.times.iter().max()) else {
            return format!("{asked} asked, none answered");
        };
        let sum: Duration = self.times.iter().sum();
        let mean = sum / u32::try_from(answered).unwrap_or(u32::MAX);
        let [least, mean, most] = [*least, mean, *most].map(millis);
        format!(
            "{asked} asked, {answered} answered; {least:.1} / {mean:.1} / {most:.1} ms (least, mean, most)"
        )
    }
}

/// Milliseconds with microseconds behind the point.
fn millis(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1_000_000.0).round() / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_counts_what_was_asked_and_answered() {
        let times = [30, 40, 32].map(Duration::from_millis).to_vec();
        let line = Summary { asked: 4, times }.line();
        assert_eq!(line, "4 asked, 3 answered; 30.0 / 34.0 / 40.0 ms (least, mean, most)");
        assert_eq!(Summary { asked: 2, times: Vec::new() }.line(), "2 asked, none answered");
    }
}
