//! NATs that nftables cannot be told: what they do, and the program on a router that does it.

use std::time::Duration;

use serde_json::{Value, json};

use super::{lab::start_in, namespace::Namespace, process::Process};

/// A NAT in user space, in the words of RFC 4787.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserNat {
    pub mapping: Mapping,
    pub filtering: Filtering,
    pub ports: Ports,
    pub hairpin: Hairpin,
    /// How long a mapping is kept that nothing goes through.
    pub lifetime: Duration,
}

/// For what an inside endpoint gets an outside port of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapping {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

/// Who comes in by a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filtering {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

/// Which port a new mapping gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The inside endpoint's own, if it is free.
    Preserving,
    /// The one that is so much above that of the NAT's last mapping, whoever asked for that.
    Sequential { step: u16, others_per_second: u32 },
    /// Any of these.
    Block { low: u16, high: u16 },
    /// Any at all.
    Random,
}

/// What becomes of packets from the inside to the NAT's own outside address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hairpin {
    /// They are lost.
    Off,
    /// They are sent back in, and come from the sender's outside endpoint.
    FromOutside,
    /// They are sent back in, and come from the sender's inside endpoint, against RFC 4787.
    FromInside,
}

impl UserNat {
    /// Most homes.
    pub const EASY: Self = Self {
        mapping: Mapping::EndpointIndependent,
        filtering: Filtering::AddressAndPortDependent,
        ports: Ports::Preserving,
        hairpin: Hairpin::Off,
        // RFC 4787, requirement 5.
        lifetime: Duration::from_secs(120),
    };

    /// As easy, but with another port than the inside endpoint's: most carriers.
    pub const CHANGING: Self = Self { ports: Ports::Random, ..Self::EASY };

    /// Symmetric, and the ports are given out in order.
    pub const SEQUENTIAL: Self =
        Self::symmetric(Ports::Sequential { step: 1, others_per_second: 0 });

    /// Symmetric, and the ports are in no order.
    pub const RANDOM: Self = Self::symmetric(Ports::Random);

    /// Another port for each destination.
    pub const fn symmetric(ports: Ports) -> Self {
        Self { mapping: Mapping::AddressAndPortDependent, ports, ..Self::EASY }
    }

    fn settings(self, public: &str, inside: &str) -> Value {
        json!({
            "public": public,
            "inside": inside,
            "mapping": match self.mapping {
                Mapping::EndpointIndependent => "endpoint",
                Mapping::AddressDependent => "address",
                Mapping::AddressAndPortDependent => "port",
            },
            "filtering": match self.filtering {
                Filtering::EndpointIndependent => "none",
                Filtering::AddressDependent => "address",
                Filtering::AddressAndPortDependent => "port",
            },
            "ports": match self.ports {
                Ports::Preserving => json!({"kind": "preserving"}),
                Ports::Sequential { step, others_per_second } => {
                    json!({"kind": "sequential", "step": step, "others_per_second": others_per_second})
                }
                Ports::Block { low, high } => json!({"kind": "random", "low": low, "high": high}),
                Ports::Random => json!({"kind": "random"}),
            },
            "hairpin": match self.hairpin {
                Hairpin::Off => "off",
                Hairpin::FromOutside => "outside",
                Hairpin::FromInside => "inside",
            },
            "lifetime_s": self.lifetime.as_secs_f64(),
        })
    }
}

/// The running program.
pub struct NatBox {
    process: Process,
}

impl NatBox {
    /// Sends every datagram that crosses the router through the program, which ends with the value.
    pub fn start(router: &Namespace, nat: UserNat, public: &str, inside: &str) -> Self {
        // What the program sends comes from the router's own address.
        router.set("net.ipv4.conf.all.accept_local=1");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kernel/nat_box.py");
        let settings = nat.settings(public, inside).to_string();
        let process = start_in(router, "python3", &[script, &settings]);
        process.wait_for("ready", START);
        // A volley comes all at once.
        router.ip("link set nat0 up txqueuelen 5000");
        router.ip("route add default dev nat0 table 100");
        router.ip("rule add iif nat0 lookup main pref 10");
        // What is for the router's own address goes to the program, too, and not to the router.
        router.ip("rule add fwmark 1 lookup 100 pref 11");
        router.ip("rule add lookup local pref 20");
        router.ip("rule delete pref 0");
        Self { process }
    }

    /// The rules that say what crosses the router.
    pub fn rules(inside: &str) -> String {
        format!(
            "
            table ip lab {{
                chain divert {{
                    type filter hook prerouting priority raw
                    iifname wan meta l4proto udp meta mark set 1
                    iifname lan meta l4proto udp ip daddr != {{ {inside}, 224.0.0.0/4, 255.255.255.255 }} meta mark set 1
                }}
                chain forward {{
                    type filter hook forward priority filter
                    iifname nat0 accept
                    oifname nat0 accept
                    drop
                }}
            }}
            "
        )
    }

    /// Ends all mappings, as a router does that restarts.
    pub fn restart(&self) {
        self.process.tell(&json!({"cmd": "forget"}));
        self.process.wait_for("forgotten", START);
    }

    /// Forgets that anything was ever sent to these networks.
    pub fn forget(&self, networks: &[&str]) {
        self.process.tell(&json!({"cmd": "forget", "networks": networks}));
        self.process.wait_for("forgotten", START);
    }
}

/// From a question to the program's answer, on a busy machine.
const START: Duration = Duration::from_secs(10);
