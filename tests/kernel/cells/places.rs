//! Where the two sides of a pair are.

use super::super::{
    lab::{Host, KernelLab, Router},
    nat::Nat,
    user_nat::UserNat,
};

/// Two hosts, and the routers around them.
pub struct Place {
    pub client: Host,
    pub server: Host,
    /// Beyond what all servers are started with.
    pub server_flags: &'static [&'static str],
    routers: Vec<Router>,
}

/// The port that a router forwards to its first host.
const FORWARDED_PORT: u16 = 41_641;
const BOUND: &[&str] = &["--bind", "0.0.0.0:41641"];

/// Everywhere but where the servers are.
const HOMES: [&str; 3] = ["203.0.113.0/24", "100.64.0.0/10", "192.168.0.0/16"];

impl Place {
    fn new(client: Host, server: Host, routers: Vec<Router>) -> Self {
        Self { client, server, server_flags: &[], routers }
    }

    /// From here on no router knows anything that went through it, as if it had just been started.
    pub fn forget_everything(&self) {
        for nat_box in self.routers.iter().filter_map(Router::any_nat_box) {
            nat_box.restart();
        }
    }

    /// From here on no router knows that either side has sent anything to the other.
    pub fn forget_each_other(&self) {
        for nat_box in self.routers.iter().filter_map(Router::any_nat_box) {
            nat_box.forget(&HOMES);
        }
    }
}

/// Two homes.
pub fn homes(lab: &KernelLab, client: impl Into<Nat>, server: impl Into<Nat>) -> Place {
    let routers = [client.into(), server.into()].map(|nat| lab.home(nat));
    Place::new(routers[0].host(), routers[1].host(), routers.into())
}

/// Two hosts in one home.
pub fn in_one_home(lab: &KernelLab, nat: UserNat) -> Place {
    let home = lab.home(Nat::InUserSpace(nat));
    Place::new(home.host(), home.host(), vec![home])
}

/// Two homes, each behind a carrier of its own.
pub fn behind_two_carriers(lab: &KernelLab, carrier: UserNat, home: UserNat) -> Place {
    let carriers = [carrier; 2].map(|nat| lab.carrier(Nat::InUserSpace(nat)));
    let homes = carriers.each_ref().map(|carrier| carrier.home(Nat::InUserSpace(home)));
    let hosts = homes.each_ref().map(Router::host);
    let [client, server] = hosts;
    Place::new(client, server, carriers.into_iter().chain(homes).collect())
}

/// Two homes behind one carrier.
pub fn behind_one_carrier(lab: &KernelLab, carrier: UserNat, home: UserNat) -> Place {
    let carrier = lab.carrier(Nat::InUserSpace(carrier));
    let homes = [home; 2].map(|nat| carrier.home(Nat::InUserSpace(nat)));
    let [client, server] = homes.each_ref().map(Router::host);
    Place::new(client, server, homes.into_iter().chain([carrier]).collect())
}

/// A home, and another one whose router forwards a port to the server.
pub fn port_forwarded(lab: &KernelLab, client: UserNat) -> Place {
    let clients = lab.home(Nat::InUserSpace(client));
    let servers = lab.home(Nat::Masquerade);
    servers.forward_port(FORWARDED_PORT);
    let place = Place::new(clients.host(), servers.host(), vec![clients]);
    Place { server_flags: BOUND, ..place }
}
