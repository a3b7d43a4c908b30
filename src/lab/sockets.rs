//! The sockets of all hosts: who listens on which port, and what waits in the receive queues.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{IpAddr, SocketAddr},
};

use super::topology::HostId;

/// Datagrams that wait in a socket before more are dropped: about what a system with a generous
/// receive buffer of 6 MB holds.
const QUEUE_MAX: usize = 4_096;

/// The first of the ports that are given to sockets that do not ask for one (RFC 6335, section 6).
const EPHEMERAL_MIN: u16 = 49_152;

/// A socket's number, in the order of creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SocketId(u64);

/// A datagram that has come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Arrival {
    /// The source as the receiver sees it.
    pub(super) source: SocketAddr,
    /// The address of the host that it came to.
    pub(super) local: IpAddr,
    pub(super) bytes: Vec<u8>,
}

/// Where a socket listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Binding {
    pub(super) host: HostId,
    /// One address of the host, or all that it has.
    pub(super) address: Option<IpAddr>,
    pub(super) port: u16,
}

/// Why a datagram found no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rejected {
    NoSocket,
    QueueFull,
}

/// All open sockets.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    last_id: u64,
    /// The ephemeral port of each host whose turn it is, as systems take one after the other or any: a router
    /// may still know the one that was closed last.
    next_port: BTreeMap<HostId, u16>,
    by_binding: BTreeMap<Binding, SocketId>,
    open: BTreeMap<SocketId, (Binding, VecDeque<Arrival>)>,
    /// Sockets that have got something since the shell last asked.
    readable: BTreeSet<SocketId>,
}

impl Sockets {
    /// Opens a socket; port 0 asks for the next free ephemeral one.
    ///
    /// # Panics
    ///
    /// When the port is taken, or when all ephemeral ones are.
    pub(super) fn bind(&mut self, mut binding: Binding) -> SocketId {
        if binding.port == 0 {
            let next = self.next_port.entry(binding.host).or_insert(EPHEMERAL_MIN);
            let is_free =
                |port: &u16| !self.by_binding.contains_key(&Binding { port: *port, ..binding });
            binding.port = (*next..=u16::MAX)
                .chain(EPHEMERAL_MIN..*next)
                .find(is_free)
                .expect("a host has fewer than 16384 sockets without a port of their own");
            *next = binding.port.checked_add(1).unwrap_or(EPHEMERAL_MIN);
        }
        assert!(
            !self.by_binding.contains_key(&binding),
            "port {} is taken on {}",
            binding.port,
            binding.host
        );
        self.last_id += 1;
        let id = SocketId(self.last_id);
        self.by_binding.insert(binding, id);
        self.open.insert(id, (binding, VecDeque::new()));
        id
    }

    pub(super) fn close(&mut self, id: SocketId) {
        if let Some((binding, _)) = self.open.remove(&id) {
            self.by_binding.remove(&binding);
            self.readable.remove(&id);
        }
    }

    pub(super) fn binding(&self, id: SocketId) -> Option<Binding> {
        self.open.get(&id).map(|(binding, _)| *binding)
    }

    /// Puts a datagram into the queue of the socket on `local`.
    pub(super) fn deliver(
        &mut self,
        host: HostId,
        local: SocketAddr,
        source: SocketAddr,
        bytes: Vec<u8>,
    ) -> Result<(), Rejected> {
        let one = Binding { host, address: Some(local.ip()), port: local.port() };
        let all = Binding { address: None, ..one };
        let id = *self
            .by_binding
            .get(&one)
            .or_else(|| self.by_binding.get(&all))
            .ok_or(Rejected::NoSocket)?;
        let (_, queue) = self.open.get_mut(&id).ok_or(Rejected::NoSocket)?;
        if queue.len() >= QUEUE_MAX {
            return Err(Rejected::QueueFull);
        }
        queue.push_back(Arrival { source, local: local.ip(), bytes });
        self.readable.insert(id);
        Ok(())
    }

    /// The oldest datagram in a socket, left there.
    pub(super) fn peek(&self, id: SocketId) -> Option<&Arrival> {
        self.open.get(&id)?.1.front()
    }

    /// Takes the oldest datagram out of a socket.
    pub(super) fn receive(&mut self, id: SocketId) -> Option<Arrival> {
        self.open.get_mut(&id)?.1.pop_front()
    }

    /// Has [`Self::poll_readable`] return the socket again if something waits in it.
    pub(super) fn reread(&mut self, id: SocketId) {
        if self.peek(id).is_some() {
            self.readable.insert(id);
        }
    }

    /// A socket that has got something since it was last returned here.
    pub(super) fn poll_readable(&mut self) -> Option<SocketId> {
        self.readable.pop_first()
    }
}
