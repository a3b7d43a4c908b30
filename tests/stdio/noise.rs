//! Nonsense on stdin, drawn from a seed: it ends in answers, never in a crash or a hang.

use p2p_node::{
    bridge::{
        Notation,
        output::Output,
        reader::{Input, Reader},
    },
    entropy::Entropy,
    proto::stdio,
};
use prost::Message as _;

use crate::{Session, echo, options, seed::seed};

/// Inputs that go through the codecs.
const INPUTS: usize = 20_000;

/// Whole sessions, each with a hundred inputs.
const SESSIONS: usize = 40;

/// Something like a line that a program may write.
const LINES: [&str; 16] = [
    r#"{"cmd":"send","id":7,"peer":"$","message":{"type":"t","payload":"hi","metadata":{"k":"v"}}}"#,
    r#"{"cmd":"request","id":"a","peer":"$","message":{"type":"t","payload":"AA==","encoding":"base64"}}"#,
    r#"{"cmd":"reply","peer":"$","to":"01ab","message":{"type":"t","payload":{"n":[1,2,{}]}}}"#,
    r#"{"cmd":"broadcast","timeout_ms":5,"message":{"type":"t","payload":null}}"#,
    r#"{"cmd":"hello","protocol":1,"client":"x","credit":3}"#,
    r#"{"cmd":"credit","messages":3}"#,
    r#"{"cmd":"listen","enabled":false}"#,
    r#"{"cmd":"cancel","target":7}"#,
    r#"{"cmd":"ping","peer":"$"}"#,
    "@x send $ {\"type\":\"t\",\"payload\":\"hi\"}",
    "say @last hello there",
    "connect service:x",
    "@1 status",
    "netcheck",
    "help",
    "# nothing",
];

#[test]
fn no_input_upsets_the_codecs() {
    let mut entropy = Entropy::from_seed(seed());
    let mut commands = 0;
    for notation in [Notation::Lines, Notation::Frames] {
        for _ in 0..INPUTS / 2 {
            let mut inputs = Vec::new();
            let mut reader = Reader::new(notation);
            for part in input(&mut entropy, notation).chunks(1 + entropy.below(64)) {
                let mut part = part;
                while !part.is_empty() {
                    let before = inputs.len();
                    reader.read(&mut part, &mut inputs, before + 1 + entropy.below(3));
                }
            }
            inputs.extend(reader.finish());
            commands += inputs.iter().filter(|input| matches!(input, Input::Command(_))).count();
            for input in &inputs {
                if let Input::Rejected(rejected) = input {
                    let error = Output::error(rejected.id.as_ref(), &rejected.failure, None, None);
                    assert!(!error.encode(notation).is_empty());
                    assert!(!rejected.failure.message.is_empty());
                }
            }
        }
    }
    assert!(commands > INPUTS / 20, "{commands} commands were among them");
}

#[test]
fn every_session_of_nonsense_comes_to_its_end() {
    let mut entropy = Entropy::from_seed(seed());
    for round in 0..SESSIONS {
        let notation = if round % 2 == 0 { Notation::Lines } else { Notation::Frames };
        let mut options = options(notation);
        options.grease = (round % 3 == 0).then(|| entropy.fork());
        let bytes: Vec<u8> = (0..100).flat_map(|_| input(&mut entropy, notation)).collect();
        let session = Session::new(options);
        for number in 0..10 {
            let message = p2p_node::proto::Message {
                payload: vec![b'x'; entropy.below(100_000)].into(),
                timestamp: number,
                ..Default::default()
            };
            let arriving = session.hands.arriving(message);
            session.hands.messages.try_send(arriving).map_err(|_| ()).unwrap();
        }
        let (output, _) = session.play(bytes);
        let names = events(notation, &output);
        assert_eq!(names.first().map(String::as_str), Some("hello"), "round {round}");
        assert_eq!(names.last().map(String::as_str), Some("bye"), "round {round}");
    }
}

/// The names of all events; panics if something else is among them.
fn events(notation: Notation, output: &[u8]) -> Vec<String> {
    if let Notation::Lines = notation {
        return std::str::from_utf8(output)
            .unwrap()
            .lines()
            .map(|line| {
                let event: serde_json::Value = serde_json::from_str(line).unwrap();
                event["event"].as_str().unwrap().to_owned()
            })
            .collect();
    }
    let mut names = Vec::new();
    let mut rest = output;
    while !rest.is_empty() {
        let event = stdio::Event::decode_length_delimited(&mut rest).unwrap();
        use stdio::event::Kind;
        names.push(match event.kind {
            Some(Kind::Hello(_)) => "hello".to_owned(),
            Some(Kind::Bye(_)) => "bye".to_owned(),
            kind => format!("{kind:?}"),
        });
    }
    names
}

/// A command, more or less.
fn input(entropy: &mut Entropy, notation: Notation) -> Vec<u8> {
    let mut bytes = match notation {
        Notation::Lines | Notation::Terminal(_) => {
            let line = LINES[entropy.below(LINES.len())];
            format!("{}\n", line.replace('$', &echo::bob().to_string())).into_bytes()
        }
        Notation::Frames => frame(entropy),
    };
    match entropy.below(6) {
        0 => {
            for _ in 0..=entropy.below(4) {
                let place = entropy.below(bytes.len());
                bytes[place] = entropy.bytes::<1>()[0];
            }
        }
        1 => bytes.truncate(entropy.below(bytes.len())),
        2 => {
            let place = entropy.below(bytes.len());
            let part = entropy.bytes::<5>();
            bytes.splice(place..place, part);
        }
        3 if entropy.below(10) == 0 => bytes = entropy.bytes::<200>().to_vec(),
        _ => {}
    }
    bytes
}

fn frame(entropy: &mut Entropy) -> Vec<u8> {
    use stdio::command::{self, Verb};
    let peer =
        [String::new(), echo::bob().to_string(), "@last".to_owned()][entropy.below(3)].clone();
    let message = (entropy.below(8) > 0).then(|| p2p_node::proto::Message {
        r#type: "t".to_owned(),
        payload: vec![b'x'; entropy.below(300)].into(),
        metadata: [("k".to_owned(), "v".to_owned())].into(),
        ..Default::default()
    });
    let verb = match entropy.below(12) {
        0 => Verb::Hello(command::Hello { protocol: 1, client: String::new(), credit: Some(3) }),
        1 => Verb::Send(command::Send { peer, message }),
        2 => Verb::Broadcast(command::Broadcast { message }),
        3 => Verb::Request(command::Request { peer, message }),
        4 => Verb::Reply(command::Reply { peer, to: "01ab".to_owned(), message }),
        5 => Verb::Credit(command::Credit { messages: 2 }),
        6 => Verb::Connect(command::Connect { peer }),
        7 => Verb::Cancel(command::Cancel { target: 1 }),
        8 => Verb::Ping(command::Ping { peer }),
        9 => Verb::Listen(command::Listen { enabled: entropy.below(2) == 0 }),
        10 => Verb::Status(command::Status {}),
        _ => Verb::Help(command::Help {}),
    };
    let id = u64::try_from(entropy.below(5)).unwrap();
    let timeout_ms = u32::try_from(entropy.below(3)).unwrap();
    stdio::Command { id, timeout_ms, verb: Some(verb) }.encode_length_delimited_to_vec()
}
