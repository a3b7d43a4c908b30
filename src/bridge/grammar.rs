//! All commands and events with their keys, in one table.
//!
//! The JSON commands are checked against it, `help` and the schema are made from it.

mod events;
mod netcheck;

pub use events::{EVENTS, PARTS};

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
        usage: "netcheck [<peer>]",
        does: "find out what this network lets through, and whether a peer can be reached",
        keys: Some(&[
            sometimes("peer", Kind::Text),
            sometimes("lifetime_ms", Kind::Integer(LIFETIME_MS.0, LIFETIME_MS.1)),
        ]),
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

/// How long `netcheck` may leave a mapping silent, in milliseconds: as long as the node does, which brings everything else
/// into these limits.
pub const LIFETIME_MS: (u64, u64) = (4_000, 600_000);

/// An hour, in milliseconds: longer than any dial makes sense, and no timer overflows.
pub const TIMEOUT_MS_MAX: u64 = 3_600_000;

/// The keys that every JSON command may have, besides `cmd`.
pub const COMMON_KEYS: [Key; 2] =
    [sometimes("id", Kind::Part("id")), sometimes("timeout_ms", Kind::Integer(1, TIMEOUT_MS_MAX))];

/// The command that `word` stands for.
pub fn command(word: &str) -> Option<&'static CommandForm> {
    COMMANDS.iter().find(|form| form.cmd == word || form.also == Some(word))
}

/// Characters of an id that is a string: enough for a UUID or a path of two, and small enough to be kept
/// with every running command.
pub const ID_CHARACTERS_MAX: u64 = 64;

/// The last integer that a JSON reader with doubles does not take for another one.
pub const ID_NUMBER_MAX: u64 = (1 << 53) - 1;
