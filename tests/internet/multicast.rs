//! Multicast on the simulated internet's local networks: what is announced is heard by every host whose
//! address begins with the same three numbers, a moment later.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex},
};

use p2p_node::{
    lab::Host,
    node::lan::{Heard, Lan, Mark},
};
use tokio::{sync::mpsc, time::sleep};

use crate::world::ms;

/// All local networks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Multicast(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    announced: Vec<Announced>,
    listeners: Vec<(Host, mpsc::Sender<Heard>)>,
}

#[derive(Clone, Debug)]
struct Announced {
    host: Host,
    port: u16,
    marks: Vec<Mark>,
}

/// One host's part of it.
#[derive(Debug)]
struct Voice {
    multicast: Multicast,
    host: Host,
}

impl Multicast {
    pub(crate) fn at(&self, host: &Host) -> Arc<dyn Lan> {
        Arc::new(Voice { multicast: self.clone(), host: host.clone() })
    }
}

impl Announced {
    fn heard(&self) -> Heard {
        let at = |ip| SocketAddr::new(ip, self.port);
        Heard::Here {
            announcement: format!("{:?}", self.host.id()),
            addresses: self.host.addresses().into_iter().map(at).collect(),
            marks: self.marks.clone(),
        }
    }
}

impl Lan for Voice {
    fn announce(&self, port: u16, marks: Vec<Mark>) {
        let announced = Announced { host: self.host.clone(), port, marks };
        let mut state = self.multicast.0.lock().unwrap();
        for (host, listener) in &state.listeners {
            if network(host) == network(&self.host) {
                tell(listener.clone(), announced.heard());
            }
        }
        state.announced.push(announced);
    }

    fn listen(&self) -> mpsc::Receiver<Heard> {
        let (sender, receiver) = mpsc::channel(64);
        let mut state = self.multicast.0.lock().unwrap();
        for announced in &state.announced {
            if network(&announced.host) == network(&self.host) {
                tell(sender.clone(), announced.heard());
            }
        }
        state.listeners.push((self.host.clone(), sender));
        receiver
    }
}

/// Answers are up to 120 ms late, so that not all come at once (RFC 6762, section 6).
fn tell(listener: mpsc::Sender<Heard>, heard: Heard) {
    tokio::spawn(async move {
        sleep(ms(120)).await;
        // A node that has ended hears nothing.
        let _ = listener.send(heard).await;
    });
}

fn network(host: &Host) -> [u8; 3] {
    match host.addresses()[0] {
        IpAddr::V4(address) => {
            let [a, b, c, _] = address.octets();
            [a, b, c]
        }
        IpAddr::V6(_) => panic!("local networks are IPv4 here"),
    }
}
