//! How far away an address is, as far as the address itself can say.

use std::net::IpAddr;

/// How far away an address is, nearest first: the order in which open paths are preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Distance {
    /// This host.
    SameHost,
    /// A private network that both sides are on: RFC 1918, RFC 4193, or one link.
    SameNetwork,
    /// Everything else, the shared addresses of RFC 6598 included: carriers and overlay networks give
    /// those to hosts that are anything but near each other.
    Internet,
}

impl Distance {
    /// How far away `ip` is.
    pub fn of(ip: IpAddr) -> Self {
        let (is_host, is_network) = match ip.to_canonical() {
            IpAddr::V4(ip) => (ip.is_loopback(), ip.is_private() || ip.is_link_local()),
            IpAddr::V6(ip) => {
                (ip.is_loopback(), ip.is_unique_local() || ip.is_unicast_link_local())
            }
        };
        match (is_host, is_network) {
            (true, _) => Self::SameHost,
            (false, true) => Self::SameNetwork,
            (false, false) => Self::Internet,
        }
    }
}

/// Whether `ip` is of the range that carriers share out to subscribers behind their NATs (RFC 6598).
/// Overlay networks use it too.
pub fn is_shared(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => matches!(ip.octets(), [100, second, ..] if second & 0xC0 == 0x40),
        IpAddr::V6(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearer_is_less() {
        let nearest_first = [
            ("127.0.0.1", Distance::SameHost),
            ("::1", Distance::SameHost),
            ("192.168.1.20", Distance::SameNetwork),
            ("169.254.1.1", Distance::SameNetwork),
            ("fd00::1", Distance::SameNetwork),
            ("fe80::1", Distance::SameNetwork),
            ("100.64.0.1", Distance::Internet),
            ("198.51.100.9", Distance::Internet),
            ("2001:db8::9", Distance::Internet),
        ];
        for (text, distance) in nearest_first {
            assert_eq!(Distance::of(text.parse().unwrap()), distance, "{text}");
        }
        let shared = ["100.64.0.1", "100.127.255.255", "::ffff:100.64.0.1"];
        assert!(shared.iter().all(|ip| is_shared(ip.parse().unwrap())));
        assert!(!is_shared("100.128.0.1".parse().unwrap()));
        assert!(nearest_first.is_sorted_by_key(|(_, distance)| *distance));
    }
}
