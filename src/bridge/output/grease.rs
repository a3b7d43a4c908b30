//! Things that mean nothing, put among the events now and then.
//!
//! Whoever reads events has to pass over what it does not know, because new events and keys come within
//! one version. A reader that was never shown any is not known to do it.

use data_encoding::HEXLOWER;
use prost::encoding::{WireType, encode_key, encode_varint};

use super::Output;
use crate::entropy::Entropy;

/// Draws when and what.
#[derive(Debug)]
pub(super) struct Grease {
    entropy: Entropy,
    /// Events until the next.
    left: usize,
}

/// Events between two greased ones, on average.
const INTERVAL: usize = 20;

/// The first field number of `Event` that means nothing, and will not for long.
const FIELD_NUMBER_MIN: u32 = 1_000;

/// How many such numbers are used.
const FIELD_NUMBERS: usize = 1_000;

impl Grease {
    pub(super) fn new(mut entropy: Entropy) -> Self {
        let left = draw(&mut entropy);
        Self { entropy, left }
    }

    /// Whether something is to be added to `output` and in front of it.
    ///
    /// Not to the first event, by which a reader tells the program it wanted from another.
    pub(super) fn is_due(&mut self, output: &Output<'_>) -> bool {
        if matches!(output, Output::Hello { .. }) {
            return false;
        }
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                false
            }
            None => {
                self.left = draw(&mut self.entropy);
                true
            }
        }
    }

    /// A line with an event that does not exist.
    pub(super) fn json_event(&mut self) -> String {
        let (name, member) = (self.name(), self.json_member());
        format!("{{\"event\":\"{name}\",{member}}}\n")
    }

    /// A key that does not exist, with its value.
    pub(super) fn json_member(&mut self) -> String {
        let name = self.name();
        let value = match self.entropy.below(4) {
            0 => "null".to_owned(),
            1 => self.entropy.below(1_000).to_string(),
            2 => "[{}]".to_owned(),
            _ => format!("{name:?}"),
        };
        format!("\"{name}\":{value}")
    }

    /// A frame with an event that does not exist.
    pub(super) fn frame(&mut self) -> Vec<u8> {
        let field = self.field();
        let mut frame = Vec::new();
        encode_varint(u64::try_from(field.len()).unwrap_or_default(), &mut frame);
        frame.extend_from_slice(&field);
        frame
    }

    /// A field that does not exist.
    pub(super) fn field(&mut self) -> Vec<u8> {
        let number = u32::try_from(self.entropy.below(FIELD_NUMBERS)).unwrap_or_default();
        let value = self.entropy.bytes::<8>();
        let mut field = Vec::new();
        encode_key(FIELD_NUMBER_MIN + number, WireType::LengthDelimited, &mut field);
        encode_varint(u64::try_from(value.len()).unwrap_or_default(), &mut field);
        field.extend_from_slice(&value);
        field
    }

    fn name(&mut self) -> String {
        format!("grease_{}", HEXLOWER.encode(&self.entropy.bytes::<3>()))
    }
}

fn draw(entropy: &mut Entropy) -> usize {
    entropy.below(2 * INTERVAL - 1)
}
