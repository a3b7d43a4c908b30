//! Peers that do not keep to the protocol: each ends its own link, with a reason, and nothing more.

use bytes::BytesMut;
use quinn::{ConnectionError, SendStream};
use tokio::io::AsyncReadExt;

use super::*;
use crate::{
    entropy::Entropy,
    proto::wire::{
        Ack, Addresses, Control, Hello, Ping, Resume, Sequenced, Welcome, control::Kind,
    },
    transport::{
        frame::{Chunks, Frame, FrameReader},
        link::{Loss, wire::control},
        quic::tls::Pin,
    },
};

/// A dialler who got through TLS and then does as it likes.
struct Stranger {
    world: World,
    connection: quinn::Connection,
    accepting: JoinHandle<(Result<Link, LinkError>, u128)>,
}

impl Stranger {
    async fn new() -> Self {
        let world = World::new();
        let accepting = world.bob_accepts(anyone());
        let pin = Pin::new(identity(BOB).peer_id());
        let rtt = Duration::from_millis(100);
        let connecting = world.alice.connect(address(BOB), pin, rtt).unwrap();
        let connection = connecting.await.unwrap();
        Self { world, connection, accepting }
    }

    async fn stream(&self, bytes: &[u8]) -> SendStream {
        let mut stream = self.connection.open_uni().await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream
    }

    /// Opens a control stream and sends `frames` on it.
    async fn says(&self, frames: &[Control]) -> SendStream {
        self.stream(&[&[1], bytes_of(frames).as_slice()].concat()).await
    }

    /// Says hello, so that Bob is linked.
    async fn linked() -> (Self, Talk, SendStream) {
        let (stranger, bob, mut stream) = Self::greeted().await;
        stream.write_all(&bytes_of(&[resume(7)])).await.unwrap();
        (stranger, bob, stream)
    }

    /// Says hello and does not resume.
    async fn greeted() -> (Self, Talk, SendStream) {
        let mut stranger = Self::new().await;
        let stream = stranger.says(&[hello(1)]).await;
        let (bob, _) = (&mut stranger.accepting).await.unwrap();
        let bob = Talk::new(bob.unwrap(), &stranger.world.bob);
        (stranger, bob, stream)
    }

    /// The name of Bob's session, as he tells it.
    async fn told_session(&self) -> u64 {
        let mut stream = self.connection.accept_uni().await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), 1);
        let mut frames = FrameReader::<_, Control>::new(stream);
        loop {
            let frame = frames.next().await.unwrap().unwrap();
            if let Some(Kind::Resume(resume)) = frame.kind {
                return resume.session;
            }
        }
    }

    /// What Bob makes of it, and the number and reason that he closes with.
    async fn outcome(self) -> (Result<Link, LinkError>, u64, String) {
        let (number, reason) = closed_with(&self.connection).await;
        (self.accepting.await.unwrap().0, number, reason)
    }
}

fn hello(version: u32) -> Control {
    control(Hello { version, epoch: 1, ..Hello::default() })
}

fn resume(session: u64) -> Control {
    control(Resume { session, peer_session: 0, received: 0 })
}

fn sequenced(sequence: u64) -> Sequenced {
    Sequenced { sequence, message: Some(message(sequence, 5)), durable: false }
}

fn bytes_of<M: Frame + Clone>(frames: &[M]) -> Vec<u8> {
    let mut chunks = Chunks::default();
    for frame in frames {
        chunks.push(frame.clone()).unwrap();
    }
    chunks.take().concat()
}

async fn closed_with(connection: &quinn::Connection) -> (u64, String) {
    let end = connection.closed().await;
    let ConnectionError::ApplicationClosed(close) = end else {
        panic!("{end}");
    };
    (close.error_code.into_inner(), String::from_utf8(close.reason.to_vec()).unwrap())
}

fn violation(what: &str) -> LinkError {
    LinkError::Lost(Loss::Violation(what.to_owned()))
}

#[tokio::test(start_paused = true)]
async fn a_dialler_without_a_hello_is_no_link_and_its_messages_are_not_handed_on() {
    let stranger = Stranger::new().await;
    let _control = stranger.stream(&[1]).await;
    let _messages = stranger.stream(&[&[2], bytes_of(&[sequenced(1)]).as_slice()].concat()).await;
    let start = stranger.world.start;
    let (bob, number, _) = stranger.outcome().await;
    assert_eq!(bob.err(), Some(LinkError::TimedOut));
    assert_eq!((number, start.elapsed().as_secs()), (5, 10));
}

#[tokio::test(start_paused = true)]
async fn of_addresses_that_a_peer_makes_up_sixteen_at_most_count_and_nonsense_does_not() {
    let (_stranger, bob, mut stream) = Stranger::linked().await;
    let mut told = bob.peer_addresses();
    let nonsense = [&[][..], &[1; 5], &[0; 6], &[1; 100]].map(<[u8]>::to_vec);
    let plenty = (1..100).map(|byte| vec![192, 0, 2, byte, 0, byte]);
    let endpoints = nonsense.into_iter().chain(plenty).map(Into::into).collect();
    let frame = control(Addresses { endpoints });
    stream.write_all(&bytes_of(&[frame])).await.unwrap();
    told.changed().await.unwrap();
    let told: Vec<String> = told.borrow().iter().map(ToString::to_string).collect();
    assert_eq!((told.len(), told[0].as_str()), (16, "192.0.2.1:1"));
    assert_eq!(bob.ended(), None);
}

#[tokio::test(start_paused = true)]
async fn another_version_is_named_on_both_sides() {
    let stranger = Stranger::new().await;
    let _control = stranger.says(&[hello(7)]).await;
    let (bob, number, reason) = stranger.outcome().await;
    assert_eq!(bob.err(), Some(LinkError::VersionMismatch { theirs: Some(7) }));
    assert_eq!((number, reason.as_str()), (3, "1"));
}

#[tokio::test(start_paused = true)]
async fn a_dialler_learns_that_the_acceptor_speaks_another_version() {
    let world = World::new();
    let bob = world.bob.clone();
    tokio::spawn(async move {
        let arrival = bob.arrival().await.unwrap();
        let connection = arrival.incoming.accept().unwrap().await.unwrap();
        let mut stream = connection.open_uni().await.unwrap();
        let bytes = [&[1], bytes_of(&[hello(2)]).as_slice()].concat();
        stream.write_all(&bytes).await.unwrap();
        connection.closed().await;
    });
    let (alice, _) = world.alice_dials(dial(BOB, &[])).await;
    assert_eq!(alice.err(), Some(LinkError::VersionMismatch { theirs: Some(2) }));
}

#[tokio::test(start_paused = true)]
async fn random_bytes_on_the_control_stream_are_an_error_and_no_more() {
    let mut entropy = Entropy::from_seed(1);
    for _ in 0..50 {
        let stranger = Stranger::new().await;
        let noise: [u8; 200] = entropy.bytes();
        let mut stream = stranger.stream(&[&[1], noise.as_slice()].concat()).await;
        stream.finish().unwrap();
        let (bob, number, reason) = stranger.outcome().await;
        let error = bob.err().unwrap();
        assert_eq!((error, number), (violation(&reason), 4));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_an_unknown_kind_ends_the_handshake() {
    let stranger = Stranger::new().await;
    let _stream = stranger.stream(&[9]).await;
    let (bob, number, _) = stranger.outcome().await;
    let error = violation("a stream of kind 9 where 1 was next");
    assert_eq!((bob.err(), number), (Some(error), 4));
}

#[tokio::test(start_paused = true)]
async fn an_oversized_frame_ends_the_link_by_its_length_alone() {
    let (stranger, bob, _control) = Stranger::linked().await;
    let mut length = BytesMut::new();
    prost::encoding::encode_varint(1 << 30, &mut length);
    let _messages = stranger.stream(&[&[2], length.as_ref()].concat()).await;
    let what = "a frame of 1073741824 bytes where 16908288 are allowed";
    assert_eq!(bob.closed().await, violation(what));
    assert_eq!(closed_with(&stranger.connection).await, (4, what.to_owned()));
}

#[tokio::test(start_paused = true)]
async fn control_frames_at_the_wrong_time_end_the_link() {
    let cases = [
        (hello(1), "a second hello or welcome"),
        (control(Welcome {}), "a second hello or welcome"),
        (control(Ack { delivered: 3 }), "message 3 is said to have arrived where 0 were sent"),
        (resume(7), "a second resume"),
    ];
    for (frame, what) in cases {
        let (_stranger, bob, mut control_stream) = Stranger::linked().await;
        control_stream.write_all(&bytes_of(&[frame])).await.unwrap();
        assert_eq!(bob.closed().await, violation(what));
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_out_of_sequence_ends_the_link() {
    let (stranger, bob, _control) = Stranger::linked().await;
    let frames = bytes_of(&[sequenced(1), sequenced(3)]);
    let _messages = stranger.stream(&[&[2], frames.as_slice()].concat()).await;
    assert_eq!(bob.receive().await, Ok(message(1, 5)));
    let end = bob.receive().await;
    assert_eq!(end, Err(violation("message 3 where 2 was next")));
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_pings_is_answered_with_measure_and_the_link_lives() {
    let (_stranger, bob, mut control_stream) = Stranger::linked().await;
    let pings: Vec<_> = (0..20_000).map(|number| control(Ping { number })).collect();
    control_stream.write_all(&bytes_of(&pings)).await.unwrap();
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(bob.ended(), None);
}

#[tokio::test(start_paused = true)]
async fn a_kind_of_frame_from_the_future_is_passed_over() {
    let (_stranger, bob, mut control_stream) = Stranger::linked().await;
    // Field 15, length-delimited, two bytes.
    control_stream.write_all(&[4, 0x7a, 2, 1, 2]).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bob.ended(), None);
}

#[tokio::test(start_paused = true)]
async fn a_hello_that_does_not_name_its_run_is_a_violation() {
    let stranger = Stranger::new().await;
    let _control = stranger.says(&[control(Hello { version: 1, ..Hello::default() })]).await;
    let (bob, number, reason) = stranger.outcome().await;
    assert_eq!((bob.err(), number), (Some(violation(&reason)), 4));
    assert_eq!(reason, "a hello without epoch");
}

#[tokio::test(start_paused = true)]
async fn resumes_and_acks_that_break_the_rules_end_the_link() {
    let unnamed = "a session without a name";
    let cases = [
        (vec![resume(0)], unnamed),
        (vec![control(Ack { delivered: 0 })], "an ack before the resume"),
        (vec![resume(7), resume(8)], "a second resume"),
    ];
    for (frames, what) in cases {
        let (_stranger, bob, mut control_stream) = Stranger::greeted().await;
        control_stream.write_all(&bytes_of(&frames)).await.unwrap();
        assert_eq!(bob.closed().await, violation(what));
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_rules_hold_before_there_is_a_session() {
    for (frames, what) in [
        (vec![control(Ack { delivered: 0 })], "an ack before the resume"),
        (vec![resume(7), resume(8)], "a second resume"),
    ] {
        let mut stranger = Stranger::new().await;
        let _control = stranger.says(&[&[hello(1)], frames.as_slice()].concat()).await;
        let bob = (&mut stranger.accepting).await.unwrap().0.unwrap();
        assert_eq!(bob.closed().await, violation(what));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_has_more_than_was_sent_is_found_out() {
    let mut stranger = Stranger::new().await;
    let mut control_stream = stranger.says(&[hello(1)]).await;
    let link = (&mut stranger.accepting).await.unwrap().0.unwrap();
    let bob = Talk::new(link, &stranger.world.bob);
    let session = stranger.told_session().await;
    let boast = Resume { session: 7, peer_session: session, received: 1 };
    control_stream.write_all(&bytes_of(&[control(boast)])).await.unwrap();
    let what = "message 1 is said to have arrived where 0 were sent";
    assert_eq!(bob.closed().await, violation(what));
}

#[tokio::test(start_paused = true)]
async fn messages_wait_for_the_resume() {
    let (stranger, bob, mut control_stream) = Stranger::greeted().await;
    let _messages = stranger.stream(&[&[2], bytes_of(&[sequenced(1)]).as_slice()].concat()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(bob.session.status().arrived, 0);
    control_stream.write_all(&bytes_of(&[resume(7)])).await.unwrap();
    assert_eq!(bob.receive().await, Ok(message(1, 5)));
}

#[tokio::test(start_paused = true)]
async fn a_message_without_a_number_ends_the_link() {
    let (stranger, bob, _control) = Stranger::linked().await;
    let _messages = stranger.stream(&[&[2], bytes_of(&[sequenced(0)]).as_slice()].concat()).await;
    assert_eq!(bob.closed().await, violation("message 0 where 1 was next"));
}
