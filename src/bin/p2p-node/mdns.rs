//! The local network by multicast DNS (RFC 6762) and service discovery (RFC 6763): the one place that makes
//! such sockets, through the `mdns-sd` crate, which keeps them on a thread of its own.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
    sync::OnceLock,
};

use data_encoding::BASE32_NOPAD;
use if_addrs::IfAddr;
use mdns_sd::{IfKind, ResolvedService, ServiceDaemon, ServiceEvent, ServiceInfo};
use p2p_node::{
    entropy::Entropy,
    node::lan::{Heard, Lan, MARK_SIZE, MARKS_MAX, Mark},
};
use tokio::sync::mpsc;

/// Speaks and hears multicast DNS; opens its sockets when it first has to.
pub(crate) struct Mdns {
    daemon: OnceLock<Option<ServiceDaemon>>,
    /// The addresses whose networks are spoken on; all, if there is none.
    addresses: Vec<IpAddr>,
    /// Names this run, and says nothing else.
    instance: String,
}

impl Mdns {
    /// For a node that is bound to these addresses, or to all.
    pub(crate) fn new(addresses: Vec<IpAddr>, entropy: &mut Entropy) -> Self {
        let instance = format!("{:016x}", entropy.number());
        Self { daemon: OnceLock::new(), addresses, instance }
    }

    fn daemon(&self) -> Option<&ServiceDaemon> {
        let open = || {
            let daemon = open(&self.addresses);
            let complain = |error: &mdns_sd::Error| tracing::warn!(%error, "no multicast DNS");
            daemon.inspect_err(complain).ok()
        };
        self.daemon.get_or_init(open).as_ref()
    }

    fn register(&self, daemon: &ServiceDaemon, port: u16, marks: &[Mark]) -> mdns_sd::Result<()> {
        let texts = (1..).zip(marks).map(|(number, mark): (u8, &Mark)| {
            (format!("m{number}"), BASE32_NOPAD.encode(&mark.0).to_lowercase())
        });
        let version = ("v".to_owned(), "1".to_owned());
        let properties: Vec<(String, String)> = [version].into_iter().chain(texts).collect();
        let (host, addresses) = (format!("{}.local.", self.instance), "");
        let info = ServiceInfo::new(
            SERVICE_TYPE,
            &self.instance,
            &host,
            addresses,
            port,
            properties.as_slice(),
        )?;
        daemon.register(info.enable_addr_auto())
    }
}

#[allow(clippy::disallowed_methods, reason = "multicast sockets are opened here")]
fn open(addresses: &[IpAddr]) -> mdns_sd::Result<ServiceDaemon> {
    let daemon = ServiceDaemon::new()?;
    if !addresses.is_empty() {
        daemon.disable_interface(IfKind::All)?;
        let wanted: Vec<IfKind> = addresses.iter().map(|ip| IfKind::Addr(*ip)).collect();
        daemon.enable_interface(wanted)?;
    }
    daemon.disable_interface(vec![IfKind::LoopbackV4, IfKind::LoopbackV6])?;
    Ok(daemon)
}

impl Lan for Mdns {
    fn announce(&self, port: u16, marks: Vec<Mark>) {
        if let Some(daemon) = self.daemon()
            && let Err(error) = self.register(daemon, port, &marks)
        {
            tracing::warn!(%error, "the local network is not told of this node");
        }
    }

    fn listen(&self) -> mpsc::Receiver<Heard> {
        let (sender, receiver) = mpsc::channel(HEARD_MAX);
        let events = self.daemon().and_then(|daemon| daemon.browse(SERVICE_TYPE).ok());
        if let Some(events) = events {
            // Ends with the daemon, or with the receiver.
            tokio::spawn(async move {
                while let Ok(event) = events.recv_async().await {
                    if let Some(heard) = understand(event)
                        && sender.send(heard).await.is_err()
                    {
                        return;
                    }
                }
            });
        }
        receiver
    }
}

impl Drop for Mdns {
    fn drop(&mut self) {
        // Says goodbye to the network; a daemon that has ended needs no word.
        if let Some(Some(daemon)) = self.daemon.get() {
            let _ = daemon.shutdown();
        }
    }
}

impl fmt::Debug for Mdns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mdns").field("instance", &self.instance).finish_non_exhaustive()
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "not our enum, and it grows")]
fn understand(event: ServiceEvent) -> Option<Heard> {
    match event {
        ServiceEvent::ServiceResolved(service) => Some(here(&service)),
        ServiceEvent::ServiceRemoved(_, announcement) => Some(Heard::Gone { announcement }),
        _ => None,
    }
}

fn here(service: &ResolvedService) -> Heard {
    let ours = networks();
    let addresses = service.get_addresses().iter().map(mdns_sd::ScopedIp::to_ip_addr);
    // Whoever answers on this network speaks of this network: nobody shall make us send beyond it.
    let near = addresses.filter(|ip| ours.iter().any(|network| network.contains(*ip)));
    let marks = (1..=MARKS_MAX).filter_map(|number| {
        let text = service.get_property_val_str(&format!("m{number}"))?;
        let bytes = BASE32_NOPAD.decode(text.to_uppercase().as_bytes()).ok()?;
        Some(Mark(<[u8; MARK_SIZE]>::try_from(bytes).ok()?))
    });
    Heard::Here {
        announcement: service.get_fullname().to_owned(),
        addresses: near.map(|ip| SocketAddr::new(ip, service.get_port())).collect(),
        marks: marks.collect(),
    }
}

/// A network that this host has an interface in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct LocalNetwork {
    address: IpAddr,
    netmask: IpAddr,
}

impl LocalNetwork {
    fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, self.netmask, ip) {
            (IpAddr::V4(own), IpAddr::V4(mask), IpAddr::V4(ip)) => {
                (own.to_bits() ^ ip.to_bits()) & mask.to_bits() == 0
            }
            (IpAddr::V6(own), IpAddr::V6(mask), IpAddr::V6(ip)) => {
                // Says nothing without its link, which an address alone does not name.
                let is_link_local = ip.is_unicast_link_local();
                !is_link_local && (own.to_bits() ^ ip.to_bits()) & mask.to_bits() == 0
            }
            _ => false,
        }
    }
}

fn networks() -> Vec<LocalNetwork> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_default();
    let network = |interface: if_addrs::Interface| match interface.addr {
        IfAddr::V4(v4) => LocalNetwork { address: v4.ip.into(), netmask: v4.netmask.into() },
        IfAddr::V6(v6) => LocalNetwork { address: v6.ip.into(), netmask: v6.netmask.into() },
    };
    interfaces.into_iter().map(network).collect()
}

/// As DNS-SD names services.
const SERVICE_TYPE: &str = "_p2p-node._udp.local.";

/// What is heard and waits for the node, which takes each within microseconds.
const HEARD_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_near_if_an_interface_is_in_its_network() {
        let network = |address: &str, netmask: &str| LocalNetwork {
            address: address.parse().unwrap(),
            netmask: netmask.parse().unwrap(),
        };
        let home = network("192.168.1.20", "255.255.255.0");
        assert!(home.contains("192.168.1.30".parse().unwrap()));
        assert!(!home.contains("192.168.2.30".parse().unwrap()));
        assert!(!home.contains("fd00::1".parse().unwrap()));
        let home = network("fd00::20", "ffff:ffff:ffff:ffff::");
        assert!(home.contains("fd00::30".parse().unwrap()));
        assert!(!home.contains("2001:db8::30".parse().unwrap()));
        let link = network("fe80::20", "ffff:ffff:ffff:ffff::");
        assert!(!link.contains("fe80::30".parse().unwrap()));
    }
}
