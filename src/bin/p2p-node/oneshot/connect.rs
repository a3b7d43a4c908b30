//! `p2p-node connect`: how a peer is reached, or why it is not; with `-v`, every step on the way.

use std::{
    io::{self, Write},
    process::ExitCode,
    time::Duration,
};

use p2p_node::{
    bridge::{Notation, exit, output::Output, terminal::Style},
    failure::Failure,
    node::{Event, Node, Role, event::Connection},
};
use tokio::time::{self, Instant};

use super::{OneShot, Stop, Told, fail, find_peer, run, tell};
use crate::{
    args::{Colour, ConnectArgs, Detail},
    timeline::{Step, Timeline, way},
    watchdog::Watchdog,
};

/// Connects to the peer that `args` name.
pub(crate) fn connect(args: ConnectArgs, colour: Colour, watchdog: &Watchdog) -> ExitCode {
    let ConnectArgs { peer, detail, timeout, watch, json, node } = args;
    let (target, node) = match find_peer(&peer, node) {
        Ok(found) => found,
        Err(failure) => return fail(&failure),
    };
    let watch = watch.unwrap_or(match detail {
        Detail::Result => Duration::ZERO,
        Detail::Timeline => WATCH_TIME,
    });
    run(node, Role::Client, colour, watchdog, |OneShot { node, mut told, .. }| async move {
        let form = match (json, detail) {
            (true, detail) => Form::Events(detail),
            (false, Detail::Result) => Form::Line(told.style),
            (false, Detail::Timeline) => Form::Timeline(Timeline::begin(Instant::now())),
        };
        let mut report = Report { form, is_connected: false, lost: None };
        report.introduce(&node).await?;
        let connecting = node.connect(target, timeout);
        let connected = told.watching(connecting, |event| report.tell(event)).await;
        let connection = match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(failure)) => {
                report.catch_up(&mut told);
                return Err(failure);
            }
            Err(stop) => return stop.cut_off(),
        };
        match report.watch(&mut told, watch).await {
            Ok(()) => {}
            Err(Stop::Signal(_)) => report.catch_up(&mut told),
            Err(stop @ Stop::NodeGone) => return stop.cut_off(),
        }
        match report.lost.take() {
            Some(failure) => Err(failure),
            None => {
                report.conclude(&as_it_is_now(&node, connection).await);
                Ok(exit::OK)
            }
        }
    })
}

/// What is told, and what has been.
struct Report {
    form: Form,
    is_connected: bool,
    /// Why the link is gone again.
    lost: Option<Failure>,
}

/// How a connection is told.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// In a line on stdout when it is there; meanwhile on stderr, if somebody sees that.
    Line(Option<Style>),
    /// Step by step, and then in a line.
    Timeline(Timeline),
    /// As events.
    Events(Detail),
}

impl Report {
    /// Says who connects, and from where.
    async fn introduce(&self, node: &Node) -> Result<(), Failure> {
        if let Form::Timeline(timeline) = &self.form {
            let status = node.status().await?;
            let addresses: Vec<_> =
                status.local_addresses.iter().map(ToString::to_string).collect();
            let detail = format!("{} at {}", status.peer_id.short(), addresses.join(", "));
            print(&timeline.line(&Step::new("ourselves", &detail)));
        }
        Ok(())
    }

    fn tell(&mut self, event: &Event) {
        match event {
            Event::Connected(_) => self.is_connected = true,
            Event::Disconnected { failure, .. } => self.lost = Some(failure.clone()),
            Event::Online { .. }
            | Event::Connecting { .. }
            | Event::Progress { .. }
            | Event::PathChanged { .. }
            | Event::Delivered(_)
            | Event::Warning(_) => {}
        }
        let is_result = matches!(
            event,
            Event::Connected(_) | Event::PathChanged { .. } | Event::Disconnected { .. }
        );
        match &self.form {
            // That it is connected, the last line says.
            Form::Line(_) if matches!(event, Event::Connected(_)) => {}
            Form::Line(style) => tell(event, *style),
            Form::Timeline(timeline) => {
                if let Some(step) = Step::of(event) {
                    print(&timeline.line(&step));
                }
            }
            Form::Events(Detail::Timeline) => print_event(event),
            Form::Events(Detail::Result) if is_result => print_event(event),
            Form::Events(Detail::Result) => {}
        }
    }

    /// Tells what has happened already.
    fn catch_up(&mut self, told: &mut Told) {
        while let Ok(event) = told.events.try_recv() {
            self.tell(&event);
        }
    }

    /// Tells what happens for so long, or until the link is gone; that it is up, in any case.
    async fn watch(&mut self, told: &mut Told, limit: Duration) -> Result<(), Stop> {
        let begin = Instant::now();
        let until = |report: &Self| match report.is_connected {
            true => begin + limit,
            false => begin + limit.max(LAG_MAX),
        };
        while self.lost.is_none() {
            match time::timeout_at(until(self), told.next()).await {
                Ok(event) => self.tell(&event?),
                Err(_) => break,
            }
        }
        Ok(())
    }

    fn conclude(&self, connection: &Connection) {
        if let Form::Line(_) | Form::Timeline(_) = &self.form {
            print(&line(connection));
        }
    }
}

/// The connection with its path of this moment.
async fn as_it_is_now(node: &Node, connection: Connection) -> Connection {
    let peers = node.peers().await.unwrap_or_default();
    let now = peers.into_iter().map(|status| status.connection);
    now.into_iter().find(|now| now.peer == connection.peer).unwrap_or(connection)
}

fn line(connection: &Connection) -> String {
    let Connection { peer, path, rtt, took, .. } = connection;
    let (peer, way, took) = (peer.short(), way(path), took.as_millis());
    format!("connected to {peer}  {way}  {:.1} ms  after {took} ms", rtt.as_secs_f64() * 1e3)
}

fn print_event(event: &Event) {
    write(&Output::from(event).encode(Notation::Lines));
}

fn print(line: &str) {
    write(format!("{line}\n").as_bytes());
}

/// Nobody may read on: the exit code says how it went, too.
fn write(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}

/// Better paths than the first one are found within a few round trips.
const WATCH_TIME: Duration = Duration::from_secs(3);

/// How long the event of a link may come after the answer.
const LAG_MAX: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use p2p_node::{
        identity::Identity,
        node::event::{Direction, PathKind, PathReport},
    };

    use super::*;

    #[test]
    fn the_line_has_the_peer_both_ends_and_both_times() {
        let peer = Identity::from_seed([2; 32]).peer_id();
        let connection = Connection {
            peer,
            direction: Direction::Outgoing,
            path: PathReport {
                kind: PathKind::Direct,
                local: "192.168.1.20:41641".parse().unwrap(),
                remote: "198.51.100.9:50112".parse().unwrap(),
            },
            rtt: Duration::from_micros(34_149),
            took: Duration::from_millis(1_021),
        };
        let expected = format!(
            "connected to {}  direct path 192.168.1.20:41641 ⇄ 198.51.100.9:50112  34.1 ms  after 1021 ms",
            peer.short()
        );
        assert_eq!(line(&connection), expected);
    }
}
