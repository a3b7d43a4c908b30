//! The connection as it happens: who learned what, and when.

use std::io::{self, Write};

use p2p_node::{
    node::{
        Event,
        event::{PathReport, Stage},
    },
    proto::Message,
};
use tokio::time::Instant;

/// Prints a line for each step.
#[derive(Debug)]
pub(super) struct Timeline {
    begin: Instant,
    path: Option<PathReport>,
    offer_read: Option<Instant>,
    linked: Option<Instant>,
}

impl Timeline {
    /// Time counts from `begin`.
    pub(super) fn begin(begin: Instant) -> Self {
        Self { begin, path: None, offer_read: None, linked: None }
    }

    /// Prints what `event` tells.
    pub(super) fn print(
        &mut self,
        who: &str,
        event: &Event,
        out: &mut impl Write,
    ) -> io::Result<()> {
        match event {
            Event::Connecting { target } => self.note(who, "connecting", &target.to_string(), out),
            Event::Progress { stage, detail, .. } => {
                if who == "server" && *stage == Stage::Offer {
                    self.offer_read.get_or_insert_with(Instant::now);
                }
                self.note(who, stage.as_str(), detail, out)
            }
            Event::Connected(connection) => {
                if who == "client" {
                    self.path = Some(connection.path);
                    self.linked = Some(Instant::now());
                }
                let kind = connection.path.kind.as_str();
                let detail = format!("{} over a {kind} path", connection.peer.short());
                self.note(who, "connected", &detail, out)
            }
            Event::PathChanged { path, .. } => {
                self.note(who, "path", &format!("now {}", path.remote), out)
            }
            Event::Disconnected { failure, .. } => {
                self.note(who, "disconnected", &failure.message, out)
            }
            Event::Warning(failure) => self.note(who, "warning", &failure.message, out),
            Event::Online { .. } | Event::Delivered(_) => Ok(()),
        }
    }

    /// Prints a message that arrived.
    pub(super) fn print_message(
        &self,
        who: &str,
        message: &Message,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let text = String::from_utf8_lossy(&message.payload);
        self.note(who, "message", &format!("\"{text}\""), out)
    }

    /// Prints one line.
    pub(super) fn note(
        &self,
        who: &str,
        what: &str,
        detail: &str,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let elapsed = self.begin.elapsed().as_millis();
        writeln!(out, "{elapsed:>6} ms  {who:<6}  {what:<12}  {detail}")?;
        out.flush()
    }

    /// Prints what it came to.
    pub(super) fn summary(&self, out: &mut impl Write) -> io::Result<()> {
        if let Some(path) = &self.path {
            writeln!(
                out,
                "\nBoth talk directly: {} ⇄ {}. Nothing was relayed.",
                path.local, path.remote
            )?;
        }
        if let (Some(read), Some(linked)) = (self.offer_read, self.linked) {
            let took = linked.saturating_duration_since(read).as_millis();
            writeln!(out, "From the server's reading the offer to the client's link: {took} ms.")?;
        }
        Ok(())
    }
}
