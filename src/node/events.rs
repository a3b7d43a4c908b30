//! The way of events to the user: bounded, and the driver never waits for it.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::event::Event;

/// Events on their way; what does not fit the channel waits here.
#[derive(Debug)]
pub(super) struct Events {
    sender: mpsc::Sender<Event>,
    backlog: VecDeque<Event>,
}

impl Events {
    /// Events that go to the receiver of `sender`.
    pub(super) fn new(sender: mpsc::Sender<Event>) -> Self {
        Self { sender, backlog: VecDeque::new() }
    }

    /// A sender for a session, which waits while the user is slow and so slows its peer.
    pub(super) fn sender(&self) -> mpsc::Sender<Event> {
        self.sender.clone()
    }

    /// Tells the user. A user who does not listen misses progress first; then, of the driver's own
    /// events, the oldest.
    pub(super) fn emit(&mut self, event: Event) {
        self.backlog.push_back(event);
        self.flush();
        if self.backlog.len() > BACKLOG_MAX {
            self.backlog.retain(|event| !matches!(event, Event::Progress { .. }));
        }
        while self.backlog.len() > BACKLOG_MAX {
            self.backlog.pop_front();
        }
    }

    /// Hands over what waits, as far as there is room.
    pub(super) fn flush(&mut self) {
        while let Some(event) = self.backlog.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(event)) = self.sender.try_send(event) {
                self.backlog.push_front(event);
                return;
            }
        }
    }

    /// Waits until what waits can be handed over; for ever when nothing does.
    pub(super) async fn room(&self) {
        if self.backlog.is_empty() {
            std::future::pending::<()>().await;
        }
        // The permit is given back at once: the driver alone pushes here, and sessions only make it wait longer.
        let _ = self.sender.reserve().await;
    }
}

/// A dial makes some ten events; the rest is room for a hundred peers that come and go while the user is
/// busy.
const BACKLOG_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::{Code, Failure};

    #[test]
    fn a_user_who_does_not_listen_costs_a_bounded_backlog_and_no_later_event() {
        let (sender, mut receiver) = mpsc::channel(1);
        let mut events = Events::new(sender);
        let warning = |index: usize| Event::Warning(Failure::new(Code::Timeout, index.to_string()));
        for index in 0..2 * BACKLOG_MAX {
            events.emit(warning(index));
        }
        assert_eq!(events.backlog.len(), BACKLOG_MAX);
        assert_eq!(receiver.try_recv(), Ok(warning(0)));
        events.flush();
        assert_eq!(events.backlog.back(), Some(&warning(2 * BACKLOG_MAX - 1)));
    }
}
