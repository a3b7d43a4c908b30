//! Messages: sessions that outlive links (`sessions`), the short way into them (`switchboard`), the way out to the
//! user (`received`), and what lies on disk until it has arrived (`outbox`).

pub(super) mod outbox;
pub(super) mod received;
pub(super) mod sessions;
pub(super) mod switchboard;
