//! Who is served by whom, as the DHT says.

use p2p_node::{
    dht::{
        location::Name,
        service_record::{ServiceEntry, ServiceRecord},
    },
    forwarding::Helper,
    time::UnixMillis,
};
use tokio::time::sleep;

use crate::{
    peer::Peer,
    world::{World, ms, service},
};

/// Waits until the service's record names so many helpers of the server.
pub(crate) async fn until_served(world: &World, server: &Peer, count: usize) {
    for _ in 0..600 {
        if helpers_of(world, server).len() == count {
            return;
        }
        sleep(ms(500)).await;
    }
    panic!("{:?}", helpers_of(world, server));
}

/// The helpers that the service's record names.
pub(crate) fn helpers_of(world: &World, server: &Peer) -> Vec<Helper> {
    let name = Name::Service(service());
    let entries = entries(world, &name).into_iter();
    let own = entries.filter(|entry| entry.peer == server.id());
    own.flat_map(|entry| entry.helpers).collect()
}

/// What the record under `name` lists.
pub(crate) fn entries(world: &World, name: &Name) -> Vec<ServiceEntry> {
    let Some(item) = world.dht.stored(name.record().target) else {
        return Vec::new();
    };
    // Its number is when it was written.
    let now = UnixMillis(u64::try_from(item.seq()).unwrap());
    ServiceRecord::open(item.value(), name, now).unwrap().entries
}
