//! A STUN server on a socket of its own, for offline networks: tests, the demo, `testnet`.

use std::{future::poll_fn, io::IoSliceMut, sync::Arc};

use quinn::{
    AsyncUdpSocket,
    udp::{RecvMeta, Transmit},
};

use crate::{
    nat::{stun, stun_server::StunServer},
    node::clock::Clock,
};

/// Answers Binding requests on `socket`, within the limits of every node's responder, until dropped.
pub async fn serve(socket: Arc<dyn AsyncUdpSocket>, clock: Clock) {
    let mut server = StunServer::new();
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        let mut meta = [RecvMeta::default()];
        let received = poll_fn(|context| {
            let mut buffers = [IoSliceMut::new(&mut buffer)];
            socket.poll_recv(context, &mut buffers, &mut meta)
        });
        let (Ok(_), [meta]) = (received.await, meta) else {
            // Linux reports that an earlier answer found nobody; the next request is not worse for it.
            tokio::task::yield_now().await;
            continue;
        };
        let coalesced = buffer.get(..meta.len).unwrap_or_default();
        for datagram in coalesced.chunks(meta.stride.max(1)) {
            let Ok(stun::Message::Request(request)) = stun::decode(datagram) else {
                continue;
            };
            let Some(answer) = server.handle_request(meta.addr, request, clock.now()) else {
                continue;
            };
            let transmit = Transmit {
                destination: meta.addr,
                ecn: None,
                contents: &answer,
                segment_size: None,
                src_ip: meta.dst_ip,
            };
            // What does not leave is asked for again.
            let _ = socket.try_send(&transmit);
        }
    }
}

/// As much as a socket hands over at once: 64 coalesced datagrams at most, none over 1,024 bytes of use.
const BUFFER_SIZE: usize = 64 * 1_500;
