//! quinn, as it comes, over simulated sockets.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{
    ClientConfig, Endpoint, EndpointConfig, ServerConfig, TokioRuntime,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rcgen::{CertifiedKey, KeyPair, PKCS_ED25519};

use super::in_virtual_time;
use crate::lab::{Internet, LabSocket, Nat, Seed};

/// One certificate that both sides know.
struct Certificate(CertifiedKey<KeyPair>);

impl Certificate {
    fn new() -> Self {
        let signing_key = KeyPair::generate_for(&PKCS_ED25519).unwrap();
        let parameters = rcgen::CertificateParams::new(vec!["lab".to_owned()]).unwrap();
        let cert = parameters.self_signed(&signing_key).unwrap();
        Self(CertifiedKey { cert, signing_key })
    }

    fn server(&self) -> ServerConfig {
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(self.0.signing_key.serialize_der());
        let tls = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![self.0.cert.der().clone()], key.into())
            .unwrap();
        ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
    }

    fn client(&self) -> ClientConfig {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.0.cert.der().clone()).unwrap();
        let tls = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()))
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn endpoint(socket: Arc<LabSocket>, seed: u8, certificate: &Certificate) -> Endpoint {
    let mut config = EndpointConfig::default();
    config.rng_seed(Some([seed; 32]));
    let server = Some(certificate.server());
    let mut endpoint =
        Endpoint::new_with_abstract_socket(config, server, socket, Arc::new(TokioRuntime)).unwrap();
    endpoint.set_default_client_config(certificate.client());
    endpoint
}

/// Where a server on the public internet sees a socket.
async fn public_endpoint(server: &LabSocket, socket: &LabSocket) -> SocketAddr {
    socket.send_to(server.local_endpoint(), b"who am I?");
    server.recv_from().await.1
}

/// What came of a connection between two homes.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    digest: u64,
    handshake: Duration,
    echoed: usize,
    ended: Duration,
    datagrams: u64,
}

/// Alice, behind a NAT, opens a connection to Bob behind his, and sends `size` bytes that he echoes.
fn echo_between_homes(seed: u64, size: usize) -> Report {
    in_virtual_time(async {
        let world = Internet::new(Seed(seed));
        let alice = world.router(Nat::home(), "203.0.113.1").host("192.168.1.2");
        let bob = world.router(Nat::home(), "203.0.113.2").host("10.0.0.2");
        let (at_alice, at_bob) = (alice.bind(0), bob.bind(0));
        let server = world.host("198.51.100.7").bind(3478);
        let seen_alice = public_endpoint(&server, &at_alice).await;
        let seen_bob = public_endpoint(&server, &at_bob).await;
        at_bob.send_to(seen_alice, b"open your filter");

        let certificate = Certificate::new();
        let dialler = endpoint(at_alice, 1, &certificate);
        let acceptor = endpoint(at_bob, 2, &certificate);
        let echo = tokio::spawn(async move {
            let connection = acceptor.accept().await.unwrap().await.unwrap();
            let (mut send, mut receive) = connection.accept_bi().await.unwrap();
            let heard = receive.read_to_end(1 << 24).await.unwrap();
            send.write_all(&heard).await.unwrap();
            send.finish().unwrap();
            connection.closed().await;
        });
        let dialled_at = world.elapsed();
        let connection = dialler.connect(seen_bob, "lab").unwrap().await.unwrap();
        let handshake = world.elapsed() - dialled_at;
        let (mut send, mut receive) = connection.open_bi().await.unwrap();
        send.write_all(&vec![7; size]).await.unwrap();
        send.finish().unwrap();
        let echoed = receive.read_to_end(1 << 24).await.unwrap().len();
        connection.close(0_u32.into(), b"bye");
        echo.await.unwrap();
        dialler.wait_idle().await;
        Report {
            digest: world.digest(),
            handshake,
            echoed,
            ended: world.elapsed(),
            datagrams: alice.counters().sent,
        }
    })
}

#[test]
fn quinn_connects_through_two_nats_in_one_round_trip_of_virtual_time() {
    let report = echo_between_homes(5, 1_000_000);
    assert_eq!(report.echoed, 1_000_000);
    // 1 + 10 + 10 + 10 + 1 ms one way.
    assert_eq!(report.handshake, Duration::from_millis(64));
}

#[test]
fn the_same_seed_gives_the_same_trace_of_quinn() {
    assert_eq!(echo_between_homes(5, 300_000), echo_between_homes(5, 300_000));
}

#[test]
fn quinn_survives_loss_jitter_and_a_restart_of_the_dialler_s_nat() {
    in_virtual_time(async {
        let world = Internet::new(Seed(9));
        let home = world.router(Nat::home(), "203.0.113.1");
        home.change_link(|link| (link.loss, link.jitter_ms) = (0.05, 10));
        let certificate = Certificate::new();
        let server = world.host("198.51.100.7").bind(4433);
        let target = server.local_endpoint();
        let acceptor = endpoint(server, 1, &certificate);
        let dialler = endpoint(home.host("192.168.1.2").bind(0), 2, &certificate);
        let reader = tokio::spawn(async move {
            let connection = acceptor.accept().await.unwrap().await.unwrap();
            let mut read = Vec::new();
            for _ in 0..2 {
                let mut receive = connection.accept_uni().await.unwrap();
                read.push(receive.read_to_end(1 << 24).await.unwrap().len());
            }
            read
        });
        let connection = dialler.connect(target, "lab").unwrap().await.unwrap();
        for _ in 0..2 {
            let mut send = connection.open_uni().await.unwrap();
            send.write_all(&vec![1; 100_000]).await.unwrap();
            send.finish().unwrap();
            assert_eq!(send.stopped().await, Ok(None), "all of it arrived");
            home.forget_mappings();
        }
        assert_eq!(reader.await.unwrap(), [100_000, 100_000]);
    });
}

#[test]
fn quinn_connects_over_ipv6_and_from_a_dual_stack_socket_to_ipv4() {
    in_virtual_time(async {
        let world = Internet::new(Seed(9));
        let certificate = Certificate::new();
        let server = world.host("2001:db8:1::7").address("198.51.100.7").bind(443);
        let acceptor = endpoint(server, 1, &certificate);
        let client = world.host("2001:db8:2::2").address("203.0.113.2").bind(0);
        let dialler = endpoint(client, 2, &certificate);
        tokio::spawn(async move {
            let mut connections = Vec::new();
            while let Some(incoming) = acceptor.accept().await {
                connections.push(incoming.await.unwrap());
            }
        });
        for target in ["[2001:db8:1::7]:443", "198.51.100.7:443"] {
            let target: SocketAddr = target.parse().unwrap();
            dialler.connect(target, "lab").unwrap().await.unwrap();
        }
    });
}
