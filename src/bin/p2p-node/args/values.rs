//! What may stand behind a flag.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use p2p_node::{bridge::recipient::Recipient, node::Target};
use tracing_subscriber::EnvFilter;

/// An entry of a list of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Server {
    /// `none`: use no server at all.
    None,
    /// `host:port`.
    At(String),
}

/// `HOST:PORT`, or `none`.
pub(super) fn server(text: &str) -> Result<Server, String> {
    if text == "none" {
        return Ok(Server::None);
    }
    let (host, port) = text.rsplit_once(':').ok_or("a server is HOST:PORT, or none")?;
    let is_host = !host.is_empty() && !host.contains(|c: char| c.is_whitespace() || c == ',');
    let is_bare_ipv6 = host.contains(':') && !host.starts_with('[');
    match (is_host && !is_bare_ipv6, port.parse::<u16>()) {
        (true, Ok(1..)) => Ok(Server::At(text.to_owned())),
        _ => Err("a server is HOST:PORT, for instance stun.example.org:3478 or [2001:db8::1]:3478"
            .to_owned()),
    }
}

/// `ADDR` or `ADDR:PORT`.
pub(super) fn bind_address(text: &str) -> Result<SocketAddr, String> {
    let with_port = text.parse::<SocketAddr>();
    let without_port = text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 0));
    with_port.or(without_port).map_err(|_| {
        "an address is for instance 192.168.1.20, 0.0.0.0:41641, :: or [::]:41641".to_owned()
    })
}

/// `20`, `20s`, `1500ms` or `1m`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit_ms = match text.strip_prefix(digits) {
        Some("" | "s") => 1_000,
        Some("ms") => 1,
        Some("m") => 60_000,
        _ => return Err("the units are ms, s and m".to_owned()),
    };
    let count: u64 = digits.parse().map_err(|_| "a time is for instance 20s or 1500ms")?;
    let duration_ms =
        count.checked_mul(unit_ms).filter(|millis| (1..=TIMEOUT_MS_MAX).contains(millis));
    duration_ms.map(Duration::from_millis).ok_or_else(|| "a time is 1 ms to 60 m".to_owned())
}

/// A peer as it can be named before the node runs.
pub(super) fn target(text: &str) -> Result<Recipient, String> {
    match Recipient::parse(text).map_err(|failure| failure.to_string())? {
        Recipient::Last | Recipient::Unnamed => Err("nobody has sent anything yet".to_owned()),
        recipient @ (Recipient::Service
        | Recipient::NamedService(_)
        | Recipient::Peer(_)
        | Recipient::Ticket(_)
        | Recipient::Word(_)) => Ok(recipient),
    }
}

/// A helper: one peer, by its id or its ticket.
pub(super) fn helper(text: &str) -> Result<Target, String> {
    match Recipient::parse(text).map_err(|failure| failure.to_string())? {
        Recipient::Peer(peer) => Ok(Target::Peer(peer)),
        Recipient::Ticket(ticket) => Ok(Target::Ticket(ticket)),
        Recipient::Service
        | Recipient::NamedService(_)
        | Recipient::Word(_)
        | Recipient::Last
        | Recipient::Unnamed => Err("a helper is named by its peer id or its ticket".to_owned()),
    }
}

/// What a message may have as its type.
pub(super) fn message_type(text: &str) -> Result<String, String> {
    match text.len() {
        0..=TYPE_BYTES_MAX => Ok(text.to_owned()),
        size => Err(format!("a type has at most {TYPE_BYTES_MAX} bytes; this one has {size}")),
    }
}

/// What [`EnvFilter`] understands.
pub(super) fn filter(text: &str) -> Result<String, String> {
    match EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// PROTOCOL.md, section 7: bytes of a message's type.
const TYPE_BYTES_MAX: usize = 128;

/// An hour: nobody waits longer for a connection.
const TIMEOUT_MS_MAX: u64 = 3_600_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_a_host_and_a_port() {
        for text in ["127.0.0.1:3478", "[::1]:3478", "stun.example.org:3478"] {
            assert_eq!(server(text), Ok(Server::At(text.to_owned())));
        }
        for text in ["", "host", "host:", ":1", "host:0", "host:70000", "::1:1", "two words:1"] {
            assert!(server(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_to_bind_may_lack_the_port() {
        for (text, address) in [
            ("192.168.1.20", "192.168.1.20:0"),
            ("0.0.0.0:41641", "0.0.0.0:41641"),
            ("::", "[::]:0"),
            ("[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(bind_address(text), Ok(address.parse().unwrap()));
        }
        assert!(bind_address("localhost").is_err());
    }

    #[test]
    fn a_helper_is_one_peer() {
        let peer = p2p_node::identity::Identity::from_seed([7; 32]).peer_id();
        assert_eq!(helper(&peer.to_string()), Ok(Target::Peer(peer)));
        for text in ["service:myapi:v1", "@last", "myapi:v1"] {
            assert!(helper(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_have_units() {
        for (text, millis) in [("20", 20_000), ("20s", 20_000), ("1500ms", 1_500), ("2m", 120_000)]
        {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)));
        }
        for text in ["", "s", "0", "1h", "-1", "61m", "99999999999999999999", "1.5s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
