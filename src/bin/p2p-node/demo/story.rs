//! What the demo prints: the timelines of both nodes in one, and what they come to.

use std::io::{self, Write};

use p2p_node::{
    node::{
        Event,
        event::{PathReport, Stage},
    },
    proto::Message,
};
use tokio::time::Instant;

use crate::timeline::{Step, Timeline};

/// Prints a line for each step.
#[derive(Debug)]
pub(super) struct Story {
    timeline: Timeline,
    path: Option<PathReport>,
    offer_read: Option<Instant>,
    linked: Option<Instant>,
}

impl Story {
    /// Time counts from `begin`.
    pub(super) fn begin(begin: Instant) -> Self {
        Self { timeline: Timeline::begin(begin), path: None, offer_read: None, linked: None }
    }

    /// Prints what `event` tells.
    pub(super) fn print(
        &mut self,
        who: &str,
        event: &Event,
        out: &mut impl Write,
    ) -> io::Result<()> {
        if let (Event::Progress { stage: Stage::Offer, .. }, "server") = (event, who) {
            self.offer_read.get_or_insert_with(Instant::now);
        }
        if let (Event::Connected(connection), "client") = (event, who) {
            self.path = Some(connection.path);
            self.linked = Some(Instant::now());
        }
        Step::of(event).map_or(Ok(()), |step| self.print_step(who, &step, out))
    }

    /// Prints a message that arrived.
    pub(super) fn print_message(
        &self,
        who: &str,
        message: &Message,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let text = String::from_utf8_lossy(&message.payload);
        self.print_step(who, &Step::new("message", &format!("\"{text}\"")), out)
    }

    /// Prints one line.
    pub(super) fn print_step(
        &self,
        who: &str,
        step: &Step,
        out: &mut impl Write,
    ) -> io::Result<()> {
        writeln!(out, "{}", self.timeline.line_of(who, step))?;
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
