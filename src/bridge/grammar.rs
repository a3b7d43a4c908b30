//! All commands and events with their keys, in one table.
//!
//! The JSON commands are checked against it, `help` and the schema are made from it.

/// A command.
#[derive(Debug)]
pub struct CommandForm {
    /// Its `cmd`.
    pub cmd: &'static str,
    /// Another `cmd` for the same.
    pub also: Option<&'static str>,
    /// How to type it.
    pub usage: &'static str,
    /// What it does.
    pub does: &'static str,
    /// Its keys in JSON, besides `cmd`, `id` and `timeout_ms`. `None` if it can only be typed.
    pub keys: Option<&'static [Key]>,
}

/// An event; one entry for each kind of `ok`.
#[derive(Debug)]
pub struct EventForm {
    /// Its `event`.
    pub event: &'static str,
    /// When it comes.
    pub when: &'static str,
    /// Its keys, besides `event`.
    pub keys: &'static [Key],
}

/// A member of an object.
#[derive(Debug)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// What may stand there.
    pub kind: Kind,
    /// Whether it may be missing.
    pub need: Need,
}

/// Whether a member may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It is always there.
    Always,
    /// It may be missing.
    Sometimes,
}

/// What may stand somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any string.
    Text,
    /// A string of at most so many characters.
    ShortText(u64),
    /// One of these strings.
    OneOf(&'static [&'static str]),
    /// An integer from the first to the last.
    Integer(u64, u64),
    /// Any integer.
    Signed,
    /// A number that is not negative.
    Decimal,
    /// `true` or `false`.
    Boolean,
    /// An object whose values are strings.
    Texts,
    /// Whatever is JSON.
    Anything,
    /// Several of these.
    List(&'static Self),
    /// What the part of this name says.
    Part(&'static str),
}

/// An object or value that several forms have.
#[derive(Debug)]
pub struct Part {
    /// By which [`Kind::Part`] names it.
    pub name: &'static str,
    /// What it is.
    pub shape: Shape,
}

/// What a [`Part`] is.
#[derive(Debug)]
pub enum Shape {
    /// An object with these members.
    Object(&'static [Key]),
    /// One of these.
    Either(&'static [Kind]),
}

const fn always(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, need: Need::Always }
}

const fn sometimes(name: &'static str, kind: Kind) -> Key {
    Key { name, kind, need: Need::Sometimes }
}

/// Who is meant, if not the one whom the node was started for.
const PEER: Key = sometimes("peer", Kind::Text);

/// What is sent.
const MESSAGE: Key = always("message", Kind::Part("message_in"));

/// Milliseconds, and counts.
const COUNT: Kind = Kind::Integer(0, u64::MAX);

/// Addresses with ports.
const ADDRESSES: Kind = Kind::List(&Kind::Text);

/// All commands, in the order of `help`.
pub const COMMANDS: [CommandForm; 18] = [
    CommandForm {
        cmd: "send",
        also: None,
        usage: "send <peer> <json>",
        does: "send JSON, or a message {\"type\":…,\"payload\":…}",
        keys: Some(&[PEER, MESSAGE]),
    },
    CommandForm {
        cmd: "say",
        also: None,
        usage: "say <peer> <text>",
        does: "send the rest of the line as text",
        keys: None,
    },
    CommandForm {
        cmd: "broadcast",
        also: None,
        usage: "broadcast <json>",
        does: "send to all connected peers",
        keys: Some(&[MESSAGE]),
    },
    CommandForm {
        cmd: "request",
        also: None,
        usage: "request <peer> <json>",
        does: "send, and wait for the reply",
        keys: Some(&[PEER, MESSAGE]),
    },
    CommandForm {
        cmd: "reply",
        also: None,
        usage: "reply <peer> <message id> <json>",
        does: "answer a message",
        keys: Some(&[PEER, always("to", Kind::ShortText(128)), MESSAGE]),
    },
    CommandForm {
        cmd: "list",
        also: Some("peers"),
        usage: "list",
        does: "show the connected peers (also: peers)",
        keys: Some(&[]),
    },
    CommandForm {
        cmd: "connect",
        also: None,
        usage: "connect <peer>",
        does: "open a connection",
        keys: Some(&[PEER]),
    },
    CommandForm {
        cmd: "disconnect",
        also: None,
        usage: "disconnect <peer>",
        does: "close a connection",
        keys: Some(&[PEER]),
    },
    CommandForm {
        cmd: "ping",
        also: None,
        usage: "ping <peer>",
        does: "measure how long a connected peer takes to answer",
        keys: Some(&[PEER]),
    },
    CommandForm {
        cmd: "status",
        also: None,
        usage: "status",
        does: "show addresses, NAT, uptime, traffic",
        keys: Some(&[]),
    },
    CommandForm {
        cmd: "netcheck",
        also: None,
        usage: "netcheck",
        does: "find out what this network lets through",
        keys: Some(&[]),
    },
    CommandForm {
        cmd: "ticket",
        also: None,
        usage: "ticket",
        does: "show the ticket that lets others reach this node",
        keys: Some(&[]),
    },
    CommandForm {
        cmd: "listen",
        also: None,
        usage: "listen on|off",
        does: "let messages come, or wait",
        keys: Some(&[always("enabled", Kind::Boolean)]),
    },
    CommandForm {
        cmd: "hello",
        also: None,
        usage: "hello 1 [<credit>]",
        does: "say, first of all, which version is spoken and how many messages may come",
        keys: Some(&[
            always("protocol", Kind::Integer(0, 0xffff_ffff)),
            sometimes("client", Kind::ShortText(128)),
            sometimes("credit", Kind::Integer(0, 0xffff_ffff)),
        ]),
    },
    CommandForm {
        cmd: "credit",
        also: None,
        usage: "credit <number>",
        does: "let so many more messages come, after a hello with credit",
        keys: Some(&[always("messages", Kind::Integer(1, CREDIT_MAX))]),
    },
    CommandForm {
        cmd: "cancel",
        also: None,
        usage: "cancel <id>",
        does: "give a running command up",
        keys: Some(&[always("target", Kind::Part("id"))]),
    },
    CommandForm {
        cmd: "help",
        also: None,
        usage: "help",
        does: "show the commands; <peer>: id, ticket, service, @last, or the start of an id",
        keys: Some(&[]),
    },
    CommandForm {
        cmd: "shutdown",
        also: Some("quit"),
        usage: "quit",
        does: "stop the node (also: shutdown)",
        keys: Some(&[]),
    },
];

/// Messages that one `credit` may allow.
pub const CREDIT_MAX: u64 = 1_000_000;

/// An hour, in milliseconds: longer than any dial makes sense, and no timer overflows.
pub const TIMEOUT_MS_MAX: u64 = 3_600_000;

/// The keys that every JSON command may have.
pub const COMMON_KEYS: [Key; 3] = [
    always("cmd", Kind::Text),
    sometimes("id", Kind::Part("id")),
    sometimes("timeout_ms", Kind::Integer(1, TIMEOUT_MS_MAX)),
];

/// The command that `word` stands for.
pub fn command(word: &str) -> Option<&'static CommandForm> {
    COMMANDS.iter().find(|form| form.cmd == word || form.also == Some(word))
}

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

/// Once it is acknowledged.
const RECEIPT_RTT_MS: Key = sometimes("rtt_ms", Kind::Decimal);

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
        keys: &[MESSAGE_ID, WHO, STATE, RECEIPT_RTT_MS],
    },
    EventForm {
        event: "ok",
        when: "a send, say or reply is done",
        keys: &[ID, MESSAGE_ID, WHO, STATE, RECEIPT_RTT_MS],
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
    EventForm {
        event: "ok",
        when: "netcheck",
        keys: &[
            ID,
            always("udp", Kind::Boolean),
            always("public_addrs", ADDRESSES),
            always(
                "mapping",
                Kind::OneOf(&[
                    "endpoint-independent",
                    "address-dependent",
                    "address-and-port-dependent",
                    "none",
                    "unknown",
                ]),
            ),
            always("stun_servers", COUNT),
            always("dht_nodes", COUNT),
            always("verdicts", Kind::List(&Kind::Text)),
        ],
    },
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
pub const PARTS: [Part; 8] = [
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
            always("messages_sent", COUNT),
            always("messages_received", COUNT),
        ]),
    },
    Part { name: "receipt", shape: Shape::Object(&[MESSAGE_ID, WHO, STATE, RECEIPT_RTT_MS]) },
    Part { name: "failed", shape: Shape::Object(&[WHO, CODE, WHAT, WHY, HINT]) },
    Part {
        name: "usage",
        shape: Shape::Object(&[always("usage", Kind::Text), always("does", Kind::Text)]),
    },
];

/// Characters of an id that is a string: enough for a UUID or a path of two, and small enough to be kept
/// with every running command.
pub const ID_CHARACTERS_MAX: u64 = 64;

/// The last integer that a JSON reader with doubles does not take for another one.
pub const ID_NUMBER_MAX: u64 = (1 << 53) - 1;
