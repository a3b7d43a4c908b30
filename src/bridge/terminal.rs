//! Events as lines for a person at a terminal. What is read is the same commands as everywhere.
//!
//! A message's text is its sender's, and so may be a part of an error: nothing of it moves the cursor,
//! changes colours, or turns the direction of what stands beside it.

mod netcheck;

use std::{fmt::Write, net::SocketAddr, time::Duration};

pub use self::netcheck::netcheck_lines;
use super::{
    output::Output,
    reply::{CommandHelp, Delivery, Failed, Link, Path, Peer, Reply, StatusReply},
    values::{Ending, Reason},
};
use crate::{failure::Failure, identity::PeerId, node::Target, proto::Message};

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Text alone.
    Plain,
    /// With colours.
    Coloured,
}

/// [`render`] in plain style.
pub fn plain(output: &Output<'_>) -> Option<String> {
    render(output, Style::Plain)
}

/// [`render`] in colours.
pub fn coloured(output: &Output<'_>) -> Option<String> {
    render(output, Style::Coloured)
}

/// The line, or the few lines, that `output` is to a person, without the last line feed; `None` for what a
/// person need not see.
pub fn render(output: &Output<'_>, style: Style) -> Option<String> {
    Some(match output {
        Output::Hello { version, mode, .. } => {
            let text = format!("p2p-node {version}, {mode}; help lists the commands, Ctrl-D ends");
            style.dim(&text)
        }
        Output::Ready { peer_id, ticket, service, .. } => {
            let service = service.map(|name| format!(", {}", clean(name))).unwrap_or_default();
            let who = style.bold(&peer_id.to_string());
            format!("this is {who}{service}\nits ticket, which is a secret: {ticket}")
        }
        Output::Online { dht_nodes, took_ms, .. } => style.good(&format!(
            "online: others can find this node at {dht_nodes} DHT nodes, after {}",
            seconds(*took_ms)
        )),
        Output::Connecting { target, .. } => style.dim(&format!("looking for {}", shown(target))),
        Output::Progress { stage, elapsed_ms, detail, .. } => {
            style.dim(&format!("  {elapsed_ms:>6} ms  {stage:<8} {}", clean(detail)))
        }
        Output::Connected(link) => connected(link, style),
        Output::PathChanged { peer, path, rtt_ms } => {
            let peer = style.bold(&peer.short());
            format!("{peer} is now reached over a {} path, {rtt_ms:.0} ms", path.kind)
        }
        Output::Disconnected { peer, reason, will_retry } => {
            let again = if *will_retry { "; connecting again" } else { "" };
            let line = format!("lost {}: {}{again}", peer.short(), clean(reason.message));
            with_causes(style.warned(&line), reason.why, reason.hint, style)
        }
        Output::Message { peer, message } => said(peer, message, style),
        Output::Delivered(delivery) => delivered(delivery, style),
        Output::Ok { reply, .. } => return answer(reply, style),
        Output::Error { reason, .. } => explained("error", reason, style),
        Output::Warning(reason) => explained("warning", reason, style),
        Output::Bye { exit_code: 0, .. } => return None,
        Output::Bye { reason, exit_code } => {
            let why = match reason {
                Ending::StdinEof | Ending::Shutdown => "the last failure decides",
                Ending::Signal | Ending::ParentGone => "stopped from outside",
                Ending::Fatal => "it cannot go on",
            };
            style.dim(&format!("exit code {exit_code}: {why}"))
        }
    })
}

/// A failure in three lines: what, why, and what to do.
pub fn failure(failure: &Failure, style: Style) -> String {
    explained("error", &Reason::from(failure), style)
}

/// `text` without anything that does more to a terminal than to show characters.
///
/// Line breaks stay, and what follows them is set in, so that no line pretends to be another's.
pub fn clean(text: &str) -> String {
    let mut cleaned = String::with_capacity(text.len());
    let mut characters = text.chars();
    for character in characters.by_ref().take(CHARACTERS_SHOWN_MAX) {
        match character {
            '\n' | '\u{2028}' | '\u{2029}' => cleaned.push_str("\n    "),
            '\t' => cleaned.push(' '),
            _ if is_treacherous(character) => {}
            _ => cleaned.push(character),
        }
    }
    let more = characters.count();
    if more > 0 {
        cleaned += &format!("… and {more} more characters");
    }
    cleaned
}

/// Controls, which a terminal obeys, and format characters that reorder or hide what stands beside them.
/// Joiners stay: languages need them.
fn is_treacherous(character: char) -> bool {
    character.is_control()
        || matches!(character,
            // Marks and overrides of direction, and isolates (UAX 9, section 2).
            '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{206f}'
            // Without width, or without any look: soft hyphen, spaces, fillers, annotations, tags.
            | '\u{00ad}' | '\u{115f}' | '\u{1160}' | '\u{180e}' | '\u{200b}' | '\u{2060}'..='\u{2065}'
            | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e0fff}')
}

fn connected(link: &Link, style: Style) -> String {
    let peer = style.bold(&link.peer.short());
    let Link { path, rtt_ms, took_ms, .. } = link;
    let how = format!("over a {} path to {}, {rtt_ms:.0} ms", path.kind, path.remote);
    match link.direction {
        "in" => format!("{peer} {} {how}", style.good("connected")),
        _ => {
            format!("{} to {peer} {how}, after {}", style.good("connected"), seconds(*took_ms))
        }
    }
}

fn said(peer: &PeerId, message: &Message, style: Style) -> String {
    let text = match std::str::from_utf8(&message.payload) {
        Ok(text) => clean(text),
        Err(_) => format!("({} bytes that are no text)", message.payload.len()),
    };
    format!("{} {text}", style.bold(&format!("{}:", peer.short())))
}

fn delivered(delivery: &Delivery, style: Style) -> String {
    let Delivery { peer, state, rtt_ms, .. } = delivery;
    let after = rtt_ms.map(|rtt_ms| format!(" after {rtt_ms:.0} ms")).unwrap_or_default();
    let way = if *state == "queued" { "for" } else { "to" };
    let peer = peer.map_or_else(|| "the service".to_owned(), |peer| peer.short());
    style.dim(&format!("{state} {way} {peer}{after}"))
}

fn answer(reply: &Reply, style: Style) -> Option<String> {
    Some(match reply {
        Reply::Delivered(delivery) => delivered(delivery, style),
        Reply::Broadcast { sent, failed } => broadcast(sent, failed, style),
        Reply::Answered { peer, message } => said(peer, message, style),
        Reply::Pong { peer, rtt_ms, path: Path { kind, remote, .. } } => {
            let peer = style.bold(&peer.short());
            format!("pong from {peer} via {remote}  {kind} path  {rtt_ms:.1} ms")
        }
        Reply::Netcheck(netcheck) => netcheck_lines(netcheck),
        // The event says the same, or there is nothing to say.
        Reply::Connected(_) | Reply::Protocol { .. } | Reply::Nothing {} => return None,
        Reply::Disconnected { peer } => format!("disconnected from {}", peer.short()),
        Reply::Peers { peers } if peers.is_empty() => "nobody is connected".to_owned(),
        Reply::Peers { peers } => lines(peers.iter().map(|peer| peer_line(peer, style))),
        Reply::Status(status) => status_lines(status),
        Reply::Ticket { ticket } => ticket.clone(),
        Reply::Help { commands } => lines(commands.iter().map(|CommandHelp { usage, does }| {
            format!("{} {does}", style.bold(&format!("{usage:<24}")))
        })),
    })
}

fn broadcast(sent: &[Delivery], failed: &[Failed], style: Style) -> String {
    if sent.is_empty() && failed.is_empty() {
        return "nobody is connected".to_owned();
    }
    let failed = failed.iter().map(|Failed { peer, failure }| {
        style.warned(&format!("not to {}: {}", peer.short(), clean(&failure.message)))
    });
    lines(sent.iter().map(|delivery| delivered(delivery, style)).chain(failed))
}

fn peer_line(peer: &Peer, style: Style) -> String {
    let Peer { link, connected_ms, path_ms, loss_percent, messages_sent, messages_received } = peer;
    let way = if link.direction == "in" { "dialled us" } else { "dialled" };
    let lost = loss_percent.map_or_else(String::new, |percent| format!(", {percent} % lost"));
    format!(
        "{}  {} path to {} for {}, {:.0} ms{lost}; {way}, connected for {}; {messages_sent} messages sent, {messages_received} received",
        style.bold(&link.peer.short()),
        link.path.kind,
        link.path.remote,
        seconds(*path_ms),
        link.rtt_ms,
        seconds(*connected_ms)
    )
}

fn status_lines(status: &StatusReply) -> String {
    let online = match (status.online, status.dht_nodes) {
        (true, nodes) => format!("yes; {nodes} DHT nodes answered lately"),
        (false, nodes) => format!("no record of this node; {nodes} DHT nodes answered lately"),
    };
    let rows = [
        ("peer id", status.peer_id.to_string()),
        ("online", online),
        ("NAT", clean(&status.nat)),
        ("local", addresses(&status.local_addrs)),
        ("public", addresses(&status.public_addrs)),
        ("peers", status.peers.to_string()),
        ("running for", seconds(status.uptime_ms)),
    ];
    table(&rows)
}

fn addresses(addresses: &[SocketAddr]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    if addresses.is_empty() { "none known".to_owned() } else { addresses.join(", ") }
}

fn table(rows: &[(&str, String)]) -> String {
    lines(rows.iter().map(|(name, value)| format!("{name:<12} {value}")))
}

fn explained(kind: &str, reason: &Reason<'_>, style: Style) -> String {
    let head = format!("{kind}[{}]:", reason.code);
    let head = if kind == "error" { style.bad(&head) } else { style.warned(&head) };
    let what = format!("{head} {}", clean(reason.message));
    with_causes(what, reason.why, reason.hint, style)
}

fn with_causes(mut text: String, why: &str, hint: &str, style: Style) -> String {
    for (label, line) in [("why:", why), ("try:", hint)] {
        if !line.is_empty() {
            text += &format!("\n  {} {}", style.dim(label), clean(line));
        }
    }
    text
}

/// A peer that is looked for, without a ticket's secret.
fn shown(target: &Target) -> String {
    clean(&target.to_string())
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.collect::<Vec<_>>().join("\n")
}

fn seconds(millis: u64) -> String {
    format!("{:.1} s", Duration::from_millis(millis).as_secs_f64())
}

impl Style {
    fn bold(self, text: &str) -> String {
        self.paint("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    fn warned(self, text: &str) -> String {
        self.paint("33", text)
    }

    fn bad(self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// ECMA-48, section 8.3.117: SELECT GRAPHIC RENDITION.
    fn paint(self, rendition: &str, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => {
                let mut painted = String::with_capacity(text.len() + 12);
                let _never_fails = write!(painted, "\x1b[{rendition}m{text}\x1b[0m");
                painted
            }
        }
    }
}

/// Some fifty lines of a wide terminal: whoever needs more lets a program read it.
const CHARACTERS_SHOWN_MAX: usize = 8_000;

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        bridge::values::Admission,
        failure::Code,
        identity::{Identity, PeerId},
        node::{
            Event, Role,
            event::{Connection, Direction, PathKind, PathReport, Receipt, SendState, Stage},
        },
        proto::Message,
        ticket::Ticket,
    };

    fn bob() -> PeerId {
        Identity::from_seed([2; 32]).peer_id()
    }

    fn message(payload: &[u8]) -> Message {
        Message { payload: Bytes::copy_from_slice(payload), ..Message::default() }
    }

    fn said(payload: &[u8]) -> String {
        let message = message(payload);
        let output = Output::Message { peer: bob(), message: &message };
        plain(&output).unwrap()
    }

    fn told(event: &Event) -> String {
        plain(&Output::from(event)).unwrap()
    }

    fn path() -> PathReport {
        PathReport {
            kind: PathKind::Direct,
            local: "192.168.1.20:41641".parse().unwrap(),
            remote: "198.51.100.9:50112".parse().unwrap(),
        }
    }

    fn connection(direction: Direction) -> Connection {
        let (rtt, took) = (Duration::from_micros(34_100), Duration::from_millis(1_021));
        Connection { peer: bob(), direction, path: path(), rtt, took }
    }

    #[test]
    fn messages_are_their_senders_short_id_and_text() {
        let bob = bob().short();
        assert_eq!(said(b"hello"), format!("{bob}: hello"));
        assert_eq!(said("schöne Grüße 👩‍👩‍👧".as_bytes()), format!("{bob}: schöne Grüße 👩‍👩‍👧"));
        assert_eq!(said(&[0xff; 1_000]), format!("{bob}: (1000 bytes that are no text)"));
    }

    #[test]
    fn a_peers_text_cannot_move_the_cursor_nor_pretend_to_be_anothers() {
        let bob = bob().short();
        for (nasty, shown) in [
            ("\x1b[2J\x1b[31mred", "[2J[31mred"),
            ("\x1b]0;title\x07x", "]0;titlex"),
            ("\u{9b}31mcsi in one character", "31mcsi in one character"),
            ("back\x08\x08\x7f\r\0", "back"),
            ("abc\u{202e}fed\u{202c}", "abcfed"),
            ("\u{2066}isolate\u{2069}\u{200f}", "isolate"),
            ("in\u{200b}visi\u{feff}ble\u{e0041}", "invisible"),
            ("one\ncarol: two\u{2028}three", "one\n    carol: two\n    three"),
            ("a\tb", "a b"),
        ] {
            assert_eq!(said(nasty.as_bytes()), format!("{bob}: {shown}"), "{nasty:?}");
        }
    }

    #[test]
    fn a_very_long_text_is_cut() {
        let shown = said("x".repeat(CHARACTERS_SHOWN_MAX + 5).as_bytes());
        assert!(shown.ends_with("x… and 5 more characters"));
    }

    #[test]
    fn errors_say_what_why_and_what_to_do() {
        let failed = Failure::new(Code::PunchTimeout, "no answer from m2ka\x1b[1m")
            .because("312 probes;\u{202e} it said \"\x07\"")
            .hint("try IPv6");
        let output = Output::error(None, &failed, Some(bob()), None);
        let expected = "error[punch_timeout]: no answer from m2ka[1m\n  why: 312 probes; it said \"\"\n  try: try IPv6";
        assert_eq!(plain(&output).unwrap(), expected);
        assert_eq!(failure(&failed, Style::Plain), expected);
        let short = Failure::new(Code::Internal, "a bug");
        assert_eq!(told(&Event::Warning(short)), "warning[internal]: a bug");
    }

    #[test]
    fn what_happens_is_told_in_a_line() {
        let bob = bob();
        let target = Target::Ticket(Ticket::of(&Identity::from_seed([2; 32]), Vec::new()));
        let short = bob.short();
        let progress = Event::Progress {
            target: target.clone(),
            peer: Some(bob),
            stage: Stage::Punch,
            elapsed: Duration::from_millis(934),
            detail: "probing 2 addresses".to_owned(),
            chosen: None,
        };
        let lost = Event::Disconnected {
            peer: bob,
            failure: Failure::new(Code::ConnectionLost, "nothing was heard"),
            will_retry: true,
        };
        let receipt = Receipt {
            peer: Some(bob),
            message_id: "01".to_owned(),
            state: SendState::Delivered,
            rtt: Duration::from_millis(35),
        };
        for (event, line) in [
            (Event::Connecting { target }, format!("looking for {short}")),
            (progress, "     934 ms  punch    probing 2 addresses".to_owned()),
            (
                Event::Connected(connection(Direction::Outgoing)),
                format!(
                    "connected to {short} over a direct path to 198.51.100.9:50112, 34 ms, after 1.0 s"
                ),
            ),
            (
                Event::Connected(connection(Direction::Incoming)),
                format!("{short} connected over a direct path to 198.51.100.9:50112, 34 ms"),
            ),
            (lost, format!("lost {short}: nothing was heard; connecting again")),
            (Event::Delivered(receipt), format!("delivered to {short} after 35 ms")),
        ] {
            assert_eq!(told(&event), line);
        }
    }

    #[test]
    fn the_greeting_says_who_this_is_and_the_end_only_if_it_failed() {
        let alice = Identity::from_seed([1; 32]);
        let ticket = Ticket::of(&alice, Vec::new());
        let hello = plain(&Output::hello(4711, Role::Client)).unwrap();
        assert!(hello.starts_with("p2p-node ") && hello.contains("client"), "{hello}");
        let ready = Output::Ready {
            peer_id: alice.peer_id(),
            ticket: &ticket,
            addrs: &[],
            service: Some("myapi:v1"),
            admission: Admission::Anyone,
            warning: None,
        };
        let expected = format!(
            "this is {}, myapi:v1\nits ticket, which is a secret: {ticket}",
            alice.peer_id()
        );
        assert_eq!(plain(&ready).unwrap(), expected);
        let bye = |reason, exit_code| plain(&Output::Bye { reason, exit_code });
        assert_eq!(bye(Ending::StdinEof, 0), None);
        assert_eq!(bye(Ending::StdinEof, 5).unwrap(), "exit code 5: the last failure decides");
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let connected = Event::Connected(connection(Direction::Outgoing));
        let painted = coloured(&Output::from(&connected)).unwrap();
        let mut bare = String::new();
        for part in painted.split('\x1b') {
            bare += part.split_once('m').filter(|_| part.starts_with('[')).map_or(part, |p| p.1);
        }
        assert_eq!(bare, told(&connected));
        assert_ne!(painted, bare);
    }

    proptest! {
        #[test]
        fn nothing_treacherous_passes_whatever_is_sent(text in any::<String>(), bytes in any::<Vec<u8>>()) {
            for shown in [said(text.as_bytes()), said(&bytes)] {
                prop_assert!(shown.chars().all(|c| c == '\n' || !is_treacherous(c)), "{shown:?}");
                prop_assert!(shown.lines().skip(1).all(|line| line.starts_with("    ")), "{shown:?}");
            }
        }
    }
}
