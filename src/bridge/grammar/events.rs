//! All events, and the parts that they and commands share.

use super::{
    ADDRESSES, COUNT, EventForm, ID_CHARACTERS_MAX, ID_NUMBER_MAX, Key, Kind, Part, Shape, always,
    netcheck, sometimes,
};

/// What stands in an `ok` besides its reply.
const ID: Key = always("id", Kind::Part("id"));

/// Who it is about.
const WHO: Key = always("peer", Kind::Part("peer_id"));

const RTT_MS: Key = always("rtt_ms", Kind::Decimal);

const PATH: Key = always("path", Kind::Part("path"));

const DIRECTION: Key = always("direction", Kind::OneOf(&["out", "in"]));

const TOOK_MS: Key = always("took_ms", COUNT);

const CODE: Key = always("code", Kind::Part("code"));

const WHAT: Key = always("message", Kind::Text);

const WHY: Key = sometimes("why", Kind::Text);

const HINT: Key = sometimes("hint", Kind::Text);

const GIVEN: Key = always("message", Kind::Part("message"));

const MESSAGE_ID: Key = always("message_id", Kind::Text);

const STATE: Key = always("state", Kind::OneOf(&["delivered", "queued"]));

/// Who has a message, or is to have it, if that is known yet.
const RECEIVER: Key = sometimes("peer", Kind::Part("peer_id"));

/// Once it is acknowledged.
const RECEIPT_RTT_MS: Key = sometimes("rtt_ms", Kind::Decimal);

/// What a step of a dial may say that it tries.
const STRATEGIES: [&str; 8] = [
    "same_network",
    "direct",
    "simultaneous",
    "guessed_ports",
    "crowd",
    "meeting_ports",
    "quiet_openers",
    "none",
];

/// All events, in the order in which a session meets them.
pub const EVENTS: [EventForm; 26] = [
    EventForm {
        event: "hello",
        when: "first, always",
        keys: &[
            always("node", Kind::OneOf(&["p2p-node"])),
            always("version", Kind::Text),
            always("protocols", Kind::List(&Kind::Integer(1, 255))),
            always("pid", COUNT),
            always("mode", Kind::OneOf(&["server", "client"])),
        ],
    },
    EventForm {
        event: "ready",
        when: "second, once: the sockets are open and commands work",
        keys: &[
            always("peer_id", Kind::Part("peer_id")),
            always("ticket", Kind::Text),
            always("addrs", ADDRESSES),
            sometimes("service", Kind::Text),
            always("admission", Kind::OneOf(&["anyone", "secret", "allow-list"])),
            sometimes("warning", Kind::Text),
        ],
    },
    EventForm {
        event: "online",
        when: "a server's records are in the DHT",
        keys: &[always("dht_nodes", COUNT), always("addrs", ADDRESSES), TOOK_MS],
    },
    EventForm {
        event: "connecting",
        when: "a dial begins",
        keys: &[always("target", Kind::Text), sometimes("peer", Kind::Part("peer_id"))],
    },
    EventForm {
        event: "progress",
        when: "a step of a dial",
        keys: &[
            sometimes("peer", Kind::Part("peer_id")),
            always("target", Kind::Text),
            always("stage", Kind::Text),
            always("elapsed_ms", COUNT),
            always("detail", Kind::Text),
            sometimes("strategy", Kind::OneOf(&STRATEGIES)),
            sometimes("why", Kind::Text),
        ],
    },
    EventForm {
        event: "connected",
        when: "a link is up, whoever dialled",
        keys: &[WHO, DIRECTION, PATH, RTT_MS, TOOK_MS],
    },
    EventForm {
        event: "path_changed",
        when: "a peer is reached over another path than before",
        keys: &[WHO, PATH, RTT_MS],
    },
    EventForm {
        event: "disconnected",
        when: "a link is gone",
        keys: &[WHO, CODE, WHAT, WHY, HINT, always("will_retry", Kind::Boolean)],
    },
    EventForm { event: "message", when: "a message has arrived", keys: &[WHO, GIVEN] },
    EventForm {
        event: "delivered",
        when: "a message that was answered as queued has arrived",
        keys: &[MESSAGE_ID, RECEIVER, STATE, RECEIPT_RTT_MS],
    },
    EventForm {
        event: "ok",
        when: "a send, say or reply is done",
        keys: &[ID, MESSAGE_ID, RECEIVER, STATE, RECEIPT_RTT_MS],
    },
    EventForm {
        event: "ok",
        when: "a broadcast is done",
        keys: &[
            ID,
            always("sent", Kind::List(&Kind::Part("receipt"))),
            always("failed", Kind::List(&Kind::Part("failed"))),
        ],
    },
    EventForm { event: "ok", when: "a request is answered", keys: &[ID, WHO, GIVEN] },
    EventForm {
        event: "ok",
        when: "a connect is done",
        keys: &[ID, WHO, DIRECTION, PATH, RTT_MS, TOOK_MS],
    },
    EventForm { event: "ok", when: "a disconnect is done", keys: &[ID, WHO] },
    EventForm {
        event: "ok",
        when: "list",
        keys: &[ID, always("peers", Kind::List(&Kind::Part("link")))],
    },
    EventForm {
        event: "ok",
        when: "status",
        keys: &[
            ID,
            always("peer_id", Kind::Part("peer_id")),
            always("online", Kind::Boolean),
            always("nat", Kind::Text),
            always("local_addrs", ADDRESSES),
            always("public_addrs", ADDRESSES),
            always("peers", COUNT),
            always("uptime_ms", COUNT),
            always("dht_nodes", COUNT),
        ],
    },
    EventForm { event: "ok", when: "ping", keys: &[ID, WHO, RTT_MS, PATH] },
    EventForm { event: "ok", when: "netcheck", keys: &netcheck::ID_AND_KEYS },
    EventForm { event: "ok", when: "ticket", keys: &[ID, always("ticket", Kind::Text)] },
    EventForm {
        event: "ok",
        when: "help",
        keys: &[ID, always("commands", Kind::List(&Kind::Part("usage")))],
    },
    EventForm {
        event: "ok",
        when: "hello is accepted",
        keys: &[ID, always("protocol", Kind::Integer(1, 1))],
    },
    EventForm { event: "ok", when: "listen, credit, cancel or shutdown is done", keys: &[ID] },
    EventForm {
        event: "error",
        when: "a command failed, or (id null) something else",
        keys: &[
            ID,
            CODE,
            WHAT,
            WHY,
            HINT,
            always("retryable", Kind::Boolean),
            sometimes("peer", Kind::Part("peer_id")),
            sometimes("elapsed_ms", COUNT),
        ],
    },
    EventForm {
        event: "warning",
        when: "something that the user may want to mend; the node goes on",
        keys: &[CODE, WHAT, WHY, HINT],
    },
    EventForm {
        event: "bye",
        when: "last",
        keys: &[
            always(
                "reason",
                Kind::OneOf(&["stdin_eof", "shutdown", "signal", "parent_gone", "fatal"]),
            ),
            always("exit_code", Kind::Integer(0, 255)),
        ],
    },
];

/// What the forms share. `code` is not here: it is the list of all codes.
pub const PARTS: [Part; 13] = [
    Part {
        name: "id",
        shape: Shape::Either(&[
            Kind::ShortText(ID_CHARACTERS_MAX),
            Kind::Integer(0, ID_NUMBER_MAX),
            Kind::Part("nothing"),
        ]),
    },
    Part {
        name: "message_in",
        shape: Shape::Object(&[
            always("type", Kind::ShortText(128)),
            always("payload", Kind::Anything),
            sometimes("encoding", Kind::OneOf(&["utf8", "base64"])),
            sometimes("id", Kind::ShortText(128)),
            sometimes("timestamp", Kind::Signed),
            sometimes("metadata", Kind::Texts),
        ]),
    },
    Part {
        name: "message",
        shape: Shape::Object(&[
            always("id", Kind::Text),
            always("type", Kind::Text),
            always("payload", Kind::Text),
            always("encoding", Kind::OneOf(&["utf8", "base64"])),
            always("timestamp", Kind::Signed),
            always("metadata", Kind::Texts),
        ]),
    },
    Part {
        name: "path",
        shape: Shape::Object(&[
            always("kind", Kind::OneOf(&["loopback", "lan", "direct"])),
            always("local", Kind::Text),
            always("remote", Kind::Text),
        ]),
    },
    Part {
        name: "link",
        shape: Shape::Object(&[
            WHO,
            DIRECTION,
            PATH,
            RTT_MS,
            TOOK_MS,
            always("connected_ms", COUNT),
            always("path_ms", COUNT),
            sometimes("loss_percent", Kind::Decimal),
            always("messages_sent", COUNT),
            always("messages_received", COUNT),
        ]),
    },
    Part { name: "receipt", shape: Shape::Object(&[MESSAGE_ID, RECEIVER, STATE, RECEIPT_RTT_MS]) },
    Part { name: "failed", shape: Shape::Object(&[WHO, CODE, WHAT, WHY, HINT]) },
    Part {
        name: "usage",
        shape: Shape::Object(&[always("usage", Kind::Text), always("does", Kind::Text)]),
    },
    netcheck::PORTS_PART,
    netcheck::LIFETIME_PART,
    netcheck::STUN_SERVER_PART,
    netcheck::PAIR_PART,
    netcheck::WAY_PART,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::event::Strategy;

    #[test]
    fn every_strategy_of_a_dial_is_listed() {
        assert_eq!(STRATEGIES, Strategy::ALL.map(Strategy::as_str));
    }
}
