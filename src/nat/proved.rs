//! Addresses that many datagrams may go to: only where two that have nothing to do with each other say
//! that the peer is.
//!
//! A peer tells us its addresses itself. One that names somebody else's would have us send what we
//! send there to a victim: some 40 datagrams for plain probes, which is little more than a handshake, but
//! thousands for a birthday. So those need a second witness.

use std::net::IpAddr;

/// Who says that a peer is at an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Witness {
    /// The peer itself, in an offer or an answer that is for us.
    Peer,
    /// A record that the peer keeps in the DHT, where everybody can see it, and long before it is of use.
    Record,
    /// Whoever runs our node: the peer is on our list, knows our secret, or was named by its key.
    Owner,
    /// An authentic probe or packet of the peer that came from there to us.
    Heard,
    /// Somebody else, at this address, who had a datagram of the peer from there: the helper that
    /// forwarded its offer, a DHT node that it stored with.
    Bystander(IpAddr),
}

/// An address where a peer is, as two independent witnesses say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Proved(IpAddr);

impl Proved {
    /// `address`, if `one` and `other` are two witnesses and neither speaks for itself there.
    ///
    /// ```
    /// use p2p_node::nat::proved::{Proved, Witness};
    ///
    /// let peer = "198.51.100.9".parse().unwrap();
    /// let helper = Witness::Bystander("203.0.113.7".parse().unwrap());
    /// assert!(Proved::by(peer, Witness::Peer, helper).is_some());
    /// assert!(Proved::by(peer, helper, helper).is_none());
    /// ```
    pub fn by(address: IpAddr, one: Witness, other: Witness) -> Option<Self> {
        let address = address.to_canonical();
        let is_elsewhere = |witness: Witness| match witness {
            Witness::Peer | Witness::Record | Witness::Owner | Witness::Heard => true,
            Witness::Bystander(at) => at.to_canonical() != address,
        };
        (one != other && is_elsewhere(one) && is_elsewhere(other)).then_some(Self(address))
    }

    /// The address.
    pub fn ip(self) -> IpAddr {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_takes_two_witnesses_that_are_not_there_themselves() {
        let address: IpAddr = "198.51.100.9".parse().unwrap();
        let helper = Witness::Bystander("203.0.113.7".parse().unwrap());
        let node = Witness::Bystander("203.0.113.8".parse().unwrap());
        let neighbour = Witness::Bystander(address);
        assert_eq!(Proved::by(address, helper, node).map(Proved::ip), Some(address));
        assert!(Proved::by(address, Witness::Peer, Witness::Heard).is_some());
        for (one, other) in
            [(Witness::Peer, Witness::Peer), (helper, helper), (Witness::Peer, neighbour)]
        {
            assert_eq!(Proved::by(address, one, other), None);
        }
    }
}
