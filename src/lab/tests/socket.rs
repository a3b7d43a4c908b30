//! What quinn relies on in a socket, checked without quinn.

use std::{
    io::IoSliceMut,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use quinn::{
    AsyncUdpSocket,
    udp::{RecvMeta, Transmit},
};

use super::{at, in_virtual_time};
use crate::lab::{Internet, LabSocket, Seed};

/// One batch of [`LabSocket::poll_recv`] into buffers of this size, as (bytes, stride) per buffer.
fn receive(socket: &LabSocket, buffers: usize, size: usize) -> Option<Vec<(usize, usize)>> {
    let mut rooms = vec![vec![0; size]; buffers];
    let mut slices: Vec<_> = rooms.iter_mut().map(|room| IoSliceMut::new(room)).collect();
    let mut meta = vec![RecvMeta::default(); buffers];
    let mut cx = Context::from_waker(Waker::noop());
    match socket.poll_recv(&mut cx, &mut slices, &mut meta) {
        Poll::Pending => None,
        Poll::Ready(filled) => {
            let filled = meta.iter().take(filled.unwrap());
            Some(filled.map(|meta| (meta.len, meta.stride)).collect())
        }
    }
}

fn transmit(contents: &[u8], segment_size: Option<usize>) -> Transmit<'_> {
    Transmit { destination: at("198.51.100.2:2"), ecn: None, contents, segment_size, src_ip: None }
}

fn pair(world: &Internet) -> (Arc<LabSocket>, Arc<LabSocket>) {
    let (alice, bob) = (world.host("198.51.100.1"), world.host("198.51.100.2"));
    (alice.bind(1), bob.bind(2))
}

#[test]
fn segments_travel_as_datagrams_and_come_in_together() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let (from, to) = pair(&world);
        let three_and_a_half = transmit(&[7; 350], Some(100));
        from.try_send(&three_and_a_half).unwrap();
        from.try_send(&transmit(&[8; 200], None)).unwrap();
        assert_eq!(receive(&to, 4, 1_500), None);
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(receive(&to, 4, 1_500), Some(vec![(350, 100), (200, 200)]));

        to.set_receive_segments_max(1);
        from.try_send(&three_and_a_half).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(receive(&to, 3, 1_500), Some(vec![(100, 100); 3]));
        assert_eq!(receive(&to, 3, 1_500), Some(vec![(50, 50)]));
        assert_eq!(receive(&to, 3, 1_500), None);
    });
}

#[test]
fn a_small_buffer_cuts_one_datagram_and_never_splits_two() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let (from, to) = pair(&world);
        from.try_send(&transmit(&[7; 300], Some(100))).unwrap();
        from.try_send(&transmit(&[7; 400], None)).unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let batches = Some(vec![(200, 100), (100, 100), (250, 250)]);
        assert_eq!(receive(&to, 3, 250), batches);
    });
}

#[test]
fn an_empty_datagram_arrives_and_has_a_stride_to_walk_by() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let (from, to) = pair(&world);
        from.send_to(at("198.51.100.2:2"), b"");
        from.send_to(at("198.51.100.2:2"), b"x");
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert_eq!(receive(&to, 2, 1_500), Some(vec![(0, 1), (1, 1)]));
    });
}

#[test]
fn every_waiting_reader_is_woken() {
    in_virtual_time(async {
        let world = Internet::new(Seed(1));
        let (from, to) = pair(&world);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let to = Arc::clone(&to);
                tokio::spawn(async move { to.recv_from().await.0 })
            })
            .collect();
        tokio::task::yield_now().await;
        from.send_to(at("198.51.100.2:2"), b"a");
        from.send_to(at("198.51.100.2:2"), b"b");
        let mut heard = Vec::new();
        for reader in readers {
            heard.extend(reader.await.unwrap());
        }
        heard.sort_unstable();
        assert_eq!(heard, b"ab");
    });
}
