//! From bytes to commands, in either notation.

use super::{
    command::{self, Command, Rejected},
    frames::{Cut, FRAME_BYTES_MAX, Frame, FrameSplitter, too_large},
    lines::{LINE_BYTES_MAX, LineSplitter},
    output::Notation,
    recipient::Known,
};
use crate::failure::{Code, Failure};

/// What stdin says.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A command.
    Command(Command),
    /// What is no command. The next one is not affected.
    Rejected(Rejected),
    /// Nothing that follows can be understood.
    Lost(Failure),
}

/// Takes bytes as they come, and gives the commands in them.
#[derive(Debug)]
pub struct Reader {
    splitter: Splitter,
    start: Start,
    known: Known,
}

/// The first bytes of all, as long as they may show that the program writes another notation.
#[derive(Debug)]
enum Start {
    Open(Vec<u8>),
    Judged,
}

#[derive(Debug)]
enum Splitter {
    Lines(LineSplitter),
    Frames(FrameSplitter),
}

impl Reader {
    /// Reads what `notation` has on stdin.
    pub fn new(notation: Notation) -> Self {
        let splitter = match notation {
            Notation::Lines | Notation::Terminal(_) => {
                Splitter::Lines(LineSplitter::new(LINE_BYTES_MAX))
            }
            Notation::Frames => Splitter::Frames(FrameSplitter::new(FRAME_BYTES_MAX)),
        };
        Self { splitter, start: Start::Open(Vec::new()), known: Known::default() }
    }

    /// Takes bytes from the front of `chunk`, and appends to `inputs` what they say, until the chunk is used
    /// up or there are `inputs_max` inputs.
    pub fn read(&mut self, chunk: &mut &[u8], inputs: &mut Vec<Input>, inputs_max: usize) {
        if let Some(input) = self.judge(chunk) {
            inputs.push(input);
        }
        let known = &mut self.known;
        while inputs.len() < inputs_max {
            let input = match &mut self.splitter {
                Splitter::Lines(splitter) => match splitter.next_line(chunk) {
                    Some(line) => read_line(line, known),
                    None => return,
                },
                Splitter::Frames(splitter) => {
                    match splitter.next_frame(chunk, |cut| read_frame(cut, known)) {
                        Some(input) => Some(input),
                        None => return,
                    }
                }
            };
            inputs.extend(input);
        }
    }

    /// What the end of the input says.
    pub fn finish(mut self) -> Option<Input> {
        match self.splitter {
            Splitter::Lines(splitter) => {
                splitter.finish().and_then(|line| read_line(line, &mut self.known))
            }
            Splitter::Frames(splitter) if splitter.is_between_frames() => None,
            Splitter::Frames(_) => {
                let failure = Failure::new(Code::BadRequest, "stdin ended inside a frame");
                Some(rejected(failure.hint("write the whole frame before closing stdin")))
            }
        }
    }

    /// Says when the first bytes are evidently of another notation.
    fn judge(&mut self, chunk: &[u8]) -> Option<Input> {
        let Start::Open(start) = &mut self.start else {
            return None;
        };
        let missing = START_BYTES - start.len();
        start.extend(chunk.iter().take(missing));
        let is_whole = start.len() == START_BYTES;
        let input = match &mut self.splitter {
            Splitter::Lines(_) if start.iter().copied().any(is_never_typed) => {
                Some(rejected(looks_like_frames()))
            }
            Splitter::Frames(splitter) if is_whole && start.iter().copied().all(is_typed) => {
                splitter.give_up();
                Some(Input::Lost(looks_like_lines()))
            }
            Splitter::Lines(_) | Splitter::Frames(_) => None,
        };
        if is_whole || input.is_some() {
            self.start = Start::Judged;
        }
        input
    }
}

fn read_line(line: Result<String, Failure>, known: &mut Known) -> Option<Input> {
    match line {
        Ok(line) => Some(match command::parse(line, known)? {
            Ok(command) => Input::Command(command),
            Err(rejected) => Input::Rejected(rejected),
        }),
        Err(failure) => Some(rejected(failure)),
    }
}

fn read_frame(cut: Cut<Frame<'_>>, known: &mut Known) -> Input {
    match cut {
        Cut::Frame(frame) => match command::parse_frame(frame, known) {
            Ok(command) => Input::Command(command),
            Err(rejected) => Input::Rejected(rejected),
        },
        Cut::TooLarge(size, start) => Input::Rejected(Rejected {
            id: command::frame_id(start.bytes()),
            failure: too_large(size),
        }),
        Cut::Lost => Input::Lost(
            Failure::new(Code::BadRequest, "what stands where a frame's length should is none")
                .because("nobody can tell where the next frame begins")
                .hint("write a varint length in front of each Command, and nothing else"),
        ),
    }
}

fn rejected(failure: Failure) -> Input {
    Input::Rejected(Rejected { id: None, failure })
}

fn looks_like_frames() -> Failure {
    Failure::new(Code::BadRequest, "these bytes look like protobuf frames, but lines are expected")
        .hint("for frames start the node with --stdio protobuf")
}

fn looks_like_lines() -> Failure {
    Failure::new(Code::BadRequest, "this looks like a line, but protobuf frames are expected")
        .hint("for lines start the node without --stdio protobuf")
}

/// Whether a byte stands in no text that somebody types or a program prints.
fn is_never_typed(byte: u8) -> bool {
    byte.is_ascii_control() && !matches!(byte, b'\t' | b'\n' | b'\r' | ESCAPE)
}

/// Whether a byte is a character that somebody types within a line.
fn is_typed(byte: u8) -> bool {
    (b' '..=b'~').contains(&byte)
}

/// What a terminal sends for an arrow key begins so.
const ESCAPE: u8 = 0x1b;

/// Bytes that are enough to tell: a frame has its length, the key of an id or a command, and within that
/// another length and key, one of which is never a printable character. No line is shorter.
const START_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::{
        bridge::command::{Id, Verb},
        proto::stdio,
    };

    fn read(notation: Notation, chunks: &[&[u8]]) -> Vec<Input> {
        let mut reader = Reader::new(notation);
        let mut inputs = Vec::new();
        for chunk in chunks {
            reader.read(&mut &chunk[..], &mut inputs, usize::MAX);
        }
        inputs.extend(reader.finish());
        inputs
    }

    fn hint(input: &Input) -> &str {
        match input {
            Input::Command(command) => panic!("{command:?}"),
            Input::Rejected(Rejected { failure, .. }) | Input::Lost(failure) => &failure.hint,
        }
    }

    fn status(id: u64) -> Vec<u8> {
        use stdio::command::{Status, Verb};
        let verb = Some(Verb::Status(Status {}));
        stdio::Command { id, timeout_ms: 0, verb }.encode_length_delimited_to_vec()
    }

    #[test]
    fn frames_among_lines_are_recognised() {
        let inputs = read(Notation::Lines, &[&status(7)]);
        assert!(hint(&inputs[0]).contains("--stdio protobuf"));
        for line in ["list\n", "\tlist\n", "\u{1b}[Alist\n", "é\n"] {
            let inputs = read(Notation::Lines, &[line.as_bytes()]);
            assert_eq!(inputs.len(), 1, "{line:?}");
        }
    }

    #[test]
    fn lines_among_frames_are_recognised_and_end_it_all() {
        for line in [r#"{"cmd":"list"}"#, "list\n", "@7 status\n", "send bob \"hi\"\n"] {
            for inputs in [
                read(Notation::Frames, &[line.as_bytes()]),
                read(Notation::Frames, &[&line.as_bytes()[..1], &line.as_bytes()[1..]]),
            ] {
                assert_eq!(inputs.len(), 1, "{line:?}");
                assert!(matches!(&inputs[0], Input::Lost(_)));
                assert!(hint(&inputs[0]).contains("without --stdio protobuf"));
            }
        }
    }

    #[test]
    fn every_frame_that_a_program_may_begin_with_is_taken_for_one() {
        use stdio::command::Verb;
        let message =
            crate::proto::Message { payload: vec![b'x'; 60].into(), ..Default::default() };
        for verb in [
            Verb::Hello(stdio::command::Hello {
                protocol: 1,
                client: "x".repeat(50),
                credit: None,
            }),
            Verb::Send(stdio::command::Send { peer: "x".repeat(52), message: None }),
            Verb::Send(stdio::command::Send {
                peer: String::new(),
                message: Some(message.clone()),
            }),
            Verb::Broadcast(stdio::command::Broadcast { message: Some(message) }),
            Verb::Connect(stdio::command::Connect { peer: "x".repeat(52) }),
            Verb::Disconnect(stdio::command::Disconnect { peer: "x".repeat(52) }),
            Verb::Ping(stdio::command::Ping { peer: "x".repeat(52) }),
        ] {
            for (id, timeout_ms) in [(0, 0), (33, 0), (0, 33)] {
                let verb = Some(verb.clone());
                let frame = stdio::Command { id, timeout_ms, verb };
                let inputs = read(Notation::Frames, &[&frame.encode_length_delimited_to_vec()]);
                assert!(!matches!(&inputs[..], [Input::Lost(_)]), "{frame:?}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_one_frame_does_not_spoil_the_next() {
        let mut large = vec![0x80, 0x80, 0x80, 0x10, 0x08, 0x07];
        large.resize(4 + 0x0200_0000, 0);
        let malformed = [3, 0x08, 0x05, 0xff];
        let [
            Input::Rejected(first),
            Input::Rejected(second),
            Input::Rejected(third),
            Input::Command(fourth),
        ] = &read(Notation::Frames, &[&large, &malformed, &[2, 0x08, 0x09], &status(8)])[..]
        else {
            panic!("three that are wrong and one that is right");
        };
        let number = |number| Some(Id::Number(number));
        assert_eq!((&first.id, first.failure.code), (&number(7), Code::MessageTooLarge));
        assert_eq!((&second.id, second.failure.code), (&number(5), Code::BadRequest));
        assert_eq!((&third.id, third.failure.code), (&number(9), Code::UnknownCommand));
        assert_eq!((&fourth.id, &fourth.verb), (&number(8), &Verb::Status));
    }

    #[test]
    fn an_end_inside_a_frame_is_told() {
        let frame = status(7);
        assert_eq!(read(Notation::Frames, &[&frame]).len(), 1);
        assert!(hint(&read(Notation::Frames, &[&frame[..3]])[0]).contains("whole frame"));
    }
}
