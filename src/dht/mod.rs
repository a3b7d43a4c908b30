//! Rendezvous through the BitTorrent mainline DHT.
//!
//! [`rendezvous`] is the trait that the rest of the program uses, [`mainline`] fulfils it on the real
//! network and [`memory`] in virtual time. What is stored lies where [`location`] says, under keys that
//! [`blinding`] makes, as [`item`]s; [`record`] and [`service_record`] are what they hold and
//! [`publication`] says when they are renewed.

pub mod blinding;
pub mod courier;
pub mod inbox;
pub mod item;
pub mod location;
pub mod mainline;
pub mod memory;
pub mod publication;
pub mod record;
pub mod rendezvous;
pub mod service_record;
pub mod testnet;

#[cfg(test)]
mod vectors;

/// A moment for pure machines to start at in tests.
#[cfg(test)]
fn some_instant() -> std::time::Instant {
    tokio::time::Instant::now().into_std()
}
