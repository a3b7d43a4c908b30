//! Kinds of NAT, made of nftables rules, or else of a program in user space.
//!
//! Those of nftables keep a host's port if it is free, except the symmetric one, and drop what arrives
//! unasked. They must: a datagram that the router itself accepts before the inside host has sent
//! anything takes the flow's place in the connection table, and the host's own datagram is then given
//! another port than STUN has seen.

use super::user_nat::{NatBox, UserNat};

/// A kind of NAT, in the words of RFC 4787.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nat {
    /// Linux' `masquerade`: endpoint-independent mapping, address- and port-dependent filtering. Most homes.
    Masquerade,
    /// Endpoint-independent mapping, address-dependent filtering.
    AddressRestricted,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// `masquerade fully-random`: another random port for every destination, address- and port-dependent
    /// filtering.
    FullyRandom,
    /// The same out of a block of ports, `low` to `high`. As for every NAT of the Linux kernel, a port is taken for one
    /// destination only.
    Block { low: u16, high: u16 },
    /// What no rules make.
    InUserSpace(UserNat),
}

impl From<UserNat> for Nat {
    fn from(nat: UserNat) -> Self {
        Self::InUserSpace(nat)
    }
}

impl Nat {
    /// The rules of a router whose outside is the interface `wan`, and whose inside network this is.
    pub fn rules(self, inside: &str) -> String {
        let block;
        let (masquerade, inbound) = match self {
            Self::Masquerade => ("masquerade", ""),
            Self::AddressRestricted => (
                "masquerade",
                "iifname wan udp dport . ip saddr @contacted dnat to udp dport map @inside",
            ),
            Self::FullCone => ("masquerade", "iifname wan dnat to udp dport map @inside"),
            Self::FullyRandom => ("masquerade fully-random", ""),
            Self::Block { low, high } => {
                block = format!("meta l4proto udp masquerade to :{low}-{high} fully-random");
                (block.as_str(), "")
            }
            Self::InUserSpace(_) => return NatBox::rules(inside),
        };
        format!(
            "
            table ip lab {{
                # Which inside endpoint an outside port stands for, and whom it has sent to.
                map inside {{
                    type inet_service : ipv4_addr . inet_service
                    flags dynamic
                    size 65536
                }}
                set contacted {{
                    type inet_service . ipv4_addr
                    flags dynamic
                    size 65536
                }}
                chain translate {{
                    type nat hook postrouting priority srcnat
                    oifname wan {masquerade}
                }}
                chain remember {{
                    type filter hook postrouting priority srcnat + 10
                    oifname wan update @inside {{ udp sport : ct original ip saddr . ct original proto-src }}
                    oifname wan update @contacted {{ udp sport . ip daddr }}
                }}
                chain admit {{
                    type nat hook prerouting priority dstnat
                    {inbound}
                }}
                chain forward {{
                    type filter hook forward priority filter
                    iifname wan ct state established,related accept
                    iifname wan ct status dnat accept
                    iifname wan drop
                }}
                chain unasked {{
                    type filter hook input priority filter
                    iifname wan meta l4proto udp drop
                }}
            }}
            "
        )
    }
}
