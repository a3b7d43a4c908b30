//! An internet in a box: hosts, links, NATs and firewalls in this process, for tests and the demo.
//!
//! Datagrams are real bytes, sent through a [`LabSocket`] by quinn or by hand. They cross the links and
//! NATs between two hosts one by one, each hop in its own time, and arrive, or meet one of the
//! [`Fate`]s that the [`Trace`] tells of. Nothing leaves the process.
//!
//! ```
//! use p2p_node::lab::{Internet, Nat, Seed, Verdict};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
//! # .block_on(async {
//! let world = Internet::new(Seed(3));
//! let server = world.host("198.51.100.7").bind(3478);
//! let home = world.router(Nat::home(), "203.0.113.1").delay_ms(15);
//! let alice = home.host("192.168.1.2");
//! let office = world.router(Nat::cgnat(), "203.0.113.2").router(Nat::home(), "100.64.0.9");
//! let bob = office.host("10.0.0.2");
//! assert_eq!(world.verdict(&alice, &bob), Verdict::Plain);
//!
//! let socket = alice.bind(5000);
//! socket.send_to("198.51.100.7:3478".parse().unwrap(), b"who am I?");
//! let (question, seen_from) = server.recv_from().await;
//! assert_eq!(question, b"who am I?");
//! assert_eq!(seen_from, "203.0.113.1:5000".parse().unwrap());
//! assert_eq!(world.elapsed().as_millis(), 1 + 15 + 10 + 10);
//! # });
//! ```
//!
//! **Delays** add up. Every host and router has one link to what is in front of it, and a datagram pays
//! for each link that it crosses and once for the public internet: 1 ms for links inside a router's
//! network, 10 ms for links to the public internet, 10 ms for the internet itself, unless set otherwise.
//! Two homes are thus 32 ms apart.
//!
//! **Time** is tokio's. Under a paused clock a run takes no time, and the same [`Seed`] gives the same
//! trace as long as the programs in it draw their randomness from seeds too; [`Internet::digest`]
//! compares runs, also across processes. With the clock running, the same world runs in real time.
//!
//! **Inside**, `network` is a machine without clock or sockets that moves datagrams over a `topology`,
//! through `nat_box`es, into the queues of `sockets`. `driver` lets tokio's time pass for it; [`Internet`],
//! [`Host`], [`Router`] and [`LabSocket`] are handles to what the driver holds. The [`oracle`] shares
//! only the topology with all this: it says which hosts can meet, and tests hold the two against each
//! other.
//!
//! **Not modelled**: bandwidth, queues in routers, fragmentation, ECN, TCP, and port mapping protocols.

mod driver;
mod host;
mod internet;
mod link;
mod nat;
mod nat_box;
mod network;
pub mod oracle;
mod port_picker;
mod router;
mod socket;
mod sockets;
mod stepped;
mod topology;
mod trace;

pub use host::Host;
pub use internet::{Address, Internet, Seed};
pub use link::Link;
pub use nat::{Collision, Filtering, Mapping, Nat, Pooling, Ports};
pub use oracle::Verdict;
pub use router::Router;
pub use socket::LabSocket;
pub use stepped::{Heard, SocketId, SteppedInternet};
pub use topology::{HostId, RouterId};
pub use trace::{Counters, Fate, Row, Trace};

#[cfg(test)]
mod tests;
