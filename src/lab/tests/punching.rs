//! What the oracle calls prediction and birthday, done by hand once each.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use tokio::time::timeout;

use super::in_virtual_time;
use crate::lab::{Internet, LabSocket, Nat, Ports, Seed, Verdict};

/// Who a socket hears from within a second.
async fn heard_from(socket: &LabSocket) -> Option<SocketAddr> {
    let heard = timeout(Duration::from_secs(1), socket.recv_from()).await;
    heard.ok().map(|(_, from)| from)
}

/// Where a server on the public internet sees a socket.
async fn seen(server: &LabSocket, socket: &LabSocket) -> SocketAddr {
    socket.send_to(server.local_endpoint(), b"who am I?");
    server.recv_from().await.1
}

#[test]
fn two_sequential_nats_open_when_both_sides_predict_the_next_port() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let server = world.host("198.51.100.7").bind(3478);
        let nat = Nat::symmetric(Ports::Sequential { step: 2 });
        let alice = world.router(nat, "203.0.113.1").host("192.168.1.2");
        let bob = world.router(nat, "203.0.113.2").host("10.0.0.2");
        assert_eq!(world.verdict(&alice, &bob), Verdict::NeedsPrediction);

        let (at_alice, at_bob) = (alice.bind(0), bob.bind(0));
        let mut next = [seen(&server, &at_alice).await, seen(&server, &at_bob).await];
        next.iter_mut().for_each(|next| next.set_port(next.port() + 2));
        let [alice_next, bob_next] = next;
        at_alice.send_to(bob_next, b"hello");
        at_bob.send_to(alice_next, b"hello");
        assert_eq!(heard_from(&at_alice).await, Some(bob_next));
        assert_eq!(heard_from(&at_bob).await, Some(alice_next));
    });
}

/// 256 sockets against 1024 of 64512 ports meet with a probability of 98 %.
#[test]
fn a_random_nat_is_opened_by_a_birthday() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let server = world.host("198.51.100.7").bind(3478);
        let alice = world.router(Nat::home(), "203.0.113.1").host("192.168.1.2");
        let bob = world.router(Nat::symmetric(Ports::Random), "203.0.113.2").host("10.0.0.2");
        assert_eq!(world.verdict(&alice, &bob), Verdict::NeedsBirthday);

        let at_alice = alice.bind(0);
        let target = seen(&server, &at_alice).await;
        let at_bob: Vec<Arc<LabSocket>> = (0..256).map(|_| bob.bind(0)).collect();
        for socket in &at_bob {
            socket.send_to(target, b"hello");
        }
        let mut draw = StdRng::seed_from_u64(1);
        let mut ports = BTreeSet::new();
        while ports.len() < 1_024 {
            ports.insert(draw.random_range(1_024..=u16::MAX));
        }
        for port in ports {
            at_alice.send_to(SocketAddr::new([203, 0, 113, 2].into(), port), b"hello");
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(bob.counters().received > 0, "a port was hit");

        for socket in &at_bob {
            socket.send_to(target, b"again");
        }
        assert!(heard_from(&at_alice).await.is_some(), "and answers");
    });
}
