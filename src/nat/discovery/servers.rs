//! Which addresses of which servers are asked, and which answer.

use std::{net::SocketAddr, time::Duration};

use super::{Discovery, SOCKETS_MAX};
use crate::{candidate::canonical, datagram::Family, nat::stun_client::QUERIES_MAX};

/// Server addresses that are asked, so that a whole round is under way at once.
pub const SERVERS_MAX: usize = QUERIES_MAX / SOCKETS_MAX;

/// Addresses of one family behind one server's name that are asked: a second one tells whether the
/// mapping depends on the address.
const ADDRESSES_PER_NAME_MAX: usize = 2;

impl Discovery {
    /// The servers that are asked, and how long their last answers took that were measured: `None` for those
    /// that do not answer.
    pub fn servers(&self) -> impl Iterator<Item = (&str, SocketAddr, Option<Duration>)> {
        self.servers.iter().map(|(name, address)| {
            let mut seen = self.observations.iter();
            let is_answering = seen.any(|seen| seen.server == *address);
            let rtt = self.rtts.get(address).copied().filter(|_| is_answering);
            (name.as_str(), *address, rtt)
        })
    }
}

/// The addresses to ask of these servers, with the servers' names: two of each family for each name, and
/// [`SERVERS_MAX`] in all.
pub(super) fn choose_addresses(servers: &[(String, Vec<SocketAddr>)]) -> Vec<(String, SocketAddr)> {
    let mut chosen: Vec<(String, SocketAddr)> = vec![];
    for (name, addresses) in servers {
        for family in [Family::V4, Family::V6] {
            let of_family = addresses
                .iter()
                .map(|address| canonical(*address))
                .filter(|address| Family::of(address.ip()) == family);
            for address in of_family.take(ADDRESSES_PER_NAME_MAX) {
                if !chosen.iter().any(|(_, known)| *known == address) {
                    chosen.push((name.clone(), address));
                }
            }
        }
    }
    chosen.truncate(SERVERS_MAX);
    chosen
}
