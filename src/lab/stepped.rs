//! The same internet without a runtime: whoever owns it says what time it is. For machines without
//! sockets and clocks, thousands of worlds of which are to be tried in a test.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

pub use super::sockets::SocketId;
use super::{
    internet::Seed,
    nat::Nat,
    network::Network,
    sockets::Binding,
    topology::{HostId, Node, Place},
    trace::Counters,
};

/// An internet whose time passes when its owner says so.
///
/// ```
/// use std::time::Duration;
/// use p2p_node::lab::{Nat, Seed, SteppedInternet};
///
/// let mut world = SteppedInternet::new(Seed(3));
/// let server = world.host(&[], "198.51.100.7".parse().unwrap());
/// let alice = world.host(&[(Nat::home(), vec!["203.0.113.1".parse().unwrap()])], "192.168.1.2".parse().unwrap());
/// let (asked, asking) = (world.bind(server, 3478), world.bind(alice, 5000));
/// world.send(asking, "198.51.100.7:3478".parse().unwrap(), b"who am I?".to_vec(), None, Duration::ZERO);
/// while let Some(at) = world.poll_timeout() {
///     world.handle_timeout(at);
/// }
/// let heard = world.poll_heard().unwrap();
/// assert_eq!((heard.socket, heard.from), (asked, "203.0.113.1:5000".parse().unwrap()));
/// ```
#[derive(Debug)]
pub struct SteppedInternet(Network);

/// A datagram that has come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The socket that it came to.
    pub socket: SocketId,
    /// Its source as the receiver sees it.
    pub from: SocketAddr,
    /// Its payload.
    pub bytes: Vec<u8>,
}

impl SteppedInternet {
    /// An empty internet at the beginning of its time.
    pub fn new(seed: Seed) -> Self {
        Self(Network::new(seed.0))
    }

    /// A host behind these NATs with their public addresses, from the host outwards; on the public
    /// internet if there are none.
    pub fn host(&mut self, nats: &[(Nat, Vec<IpAddr>)], address: IpAddr) -> HostId {
        let mut place = Place::Public;
        for (nat, public) in nats.iter().rev() {
            place = Place::Behind(self.0.add_router(place, *nat, public.clone()));
        }
        self.0.add_host(place, vec![address])
    }

    /// Sets the one-way delay across the public internet, on top of the links'.
    pub fn set_core_delay(&mut self, delay: Duration) {
        self.0.core_delay = delay;
    }

    /// Sets which part of the datagrams is lost on a host's own link, in either direction.
    pub fn set_loss(&mut self, host: HostId, fraction: f64) {
        self.0.wire(Node::Host(host)).link.loss = fraction;
    }

    /// Opens a socket on all addresses of a host. Port 0 takes the lowest free one from 49152 on.
    ///
    /// # Panics
    ///
    /// When the port is taken.
    pub fn bind(&mut self, host: HostId, port: u16) -> SocketId {
        self.0.sockets.bind(Binding { host, address: None, port })
    }

    /// The port of a socket, while it is open.
    pub fn port(&self, socket: SocketId) -> Option<u16> {
        self.0.sockets.binding(socket).map(|binding| binding.port)
    }

    /// Closes a socket.
    pub fn close(&mut self, socket: SocketId) {
        self.0.sockets.close(socket);
    }

    /// Sends a datagram, which may cross so many `hops` if that is given.
    pub fn send(
        &mut self,
        socket: SocketId,
        to: SocketAddr,
        bytes: Vec<u8>,
        hops: Option<u8>,
        now: Duration,
    ) {
        match hops {
            None => self.0.handle_send(socket, None, to, bytes, now),
            Some(hops) => self.0.handle_send_within(socket, None, to, (bytes, hops), now),
        }
    }

    /// When the next datagram moves.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.0.poll_timeout()
    }

    /// Moves every datagram that is due.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.0.handle_timeout(now);
    }

    /// The next datagram that has come in.
    pub fn poll_heard(&mut self) -> Option<Heard> {
        loop {
            let socket = self.0.sockets.poll_readable()?;
            if let Some(arrival) = self.0.sockets.receive(socket) {
                // There may be more in it.
                self.0.sockets.reread(socket);
                return Some(Heard { socket, from: arrival.source, bytes: arrival.bytes });
            }
        }
    }

    /// Datagrams that a host sent and received, and what became of those it sent.
    pub fn counters(&self, host: HostId) -> Counters {
        self.0.counters(host)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Fate;

    #[test]
    fn a_datagram_with_few_hops_opens_its_own_nat_and_does_not_get_to_the_other() {
        let mut world = SteppedInternet::new(Seed(1));
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let alice = world.host(&[(Nat::home(), vec![ip("203.0.113.1")])], ip("192.168.1.2"));
        let bob = world.host(&[], ip("203.0.113.2"));
        let (at_alice, at_bob) = (world.bind(alice, 5000), world.bind(bob, 6000));
        let send = |world: &mut SteppedInternet, socket, to: &str, hops| {
            world.send(socket, to.parse().unwrap(), b"hello".to_vec(), hops, Duration::ZERO);
            while let Some(due) = world.poll_timeout() {
                world.handle_timeout(due);
            }
            world.poll_heard().map(|heard| heard.socket)
        };
        assert_eq!(send(&mut world, at_bob, "203.0.113.1:5000", None), None);
        assert_eq!(send(&mut world, at_alice, "203.0.113.2:6000", Some(5)), None);
        assert_eq!(world.counters(alice).count(Fate::Expired), 1);
        assert_eq!(send(&mut world, at_bob, "203.0.113.1:5000", None), Some(at_alice));
        assert_eq!(send(&mut world, at_alice, "203.0.113.2:6000", Some(10)), Some(at_bob));
    }
}
