//! Chooses the encoder, and gathers what it makes until it is written.

use bytes::Bytes;

use super::{Output, frame, grease::Grease, json};
use crate::{bridge::output::Notation, entropy::Entropy};

/// Turns events into bytes of one notation.
#[derive(Debug)]
pub(in crate::bridge) struct Encoder {
    notation: Notation,
    grease: Option<Grease>,
}

/// Bytes in the order in which they are to be written: small events together, large payloads apart, as
/// they are.
#[derive(Debug, Default)]
pub(in crate::bridge) struct Chunks {
    whole: Vec<Bytes>,
    growing: Vec<u8>,
    size: usize,
}

impl Encoder {
    /// Writes `notation`, with things that mean nothing out of `grease`.
    pub(in crate::bridge) fn new(notation: Notation, grease: Option<Entropy>) -> Self {
        Self { notation, grease: grease.map(Grease::new) }
    }

    /// Appends `output` to `chunks`; returns how many bytes that are.
    pub(in crate::bridge) fn encode(&mut self, output: &Output<'_>, chunks: &mut Chunks) -> usize {
        let before = chunks.size();
        let is_due = self.grease.as_mut().is_some_and(|grease| grease.is_due(output));
        let mut grease = self.grease.as_mut().filter(|_| is_due);
        match self.notation {
            Notation::Lines => {
                if let Some(grease) = &mut grease {
                    chunks.growing().extend_from_slice(grease.json_event().as_bytes());
                }
                json::encode(output, chunks, grease);
            }
            Notation::Frames => {
                if let Some(grease) = &mut grease {
                    chunks.growing().extend_from_slice(&grease.frame());
                }
                frame::encode(output, chunks, grease);
            }
            Notation::Terminal(render) => {
                if let Some(line) = render(output) {
                    let growing = chunks.growing();
                    growing.extend_from_slice(line.as_bytes());
                    growing.push(b'\n');
                }
            }
        }
        chunks.size() - before
    }
}

impl Chunks {
    /// Where small things are appended.
    pub(super) fn growing(&mut self) -> &mut Vec<u8> {
        &mut self.growing
    }

    /// Appends something large without copying it.
    pub(super) fn push(&mut self, bytes: Bytes) {
        if !self.growing.is_empty() {
            let growing = std::mem::take(&mut self.growing);
            self.size += growing.len();
            self.whole.push(growing.into());
        }
        self.size += bytes.len();
        self.whole.push(bytes);
    }

    /// How many bytes there are.
    pub(in crate::bridge) fn size(&self) -> usize {
        self.size + self.growing.len()
    }

    /// Everything, in order.
    pub(in crate::bridge) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let growing = Some(&self.growing[..]).filter(|bytes| !bytes.is_empty());
        self.whole.iter().map(|bytes| &bytes[..]).chain(growing)
    }

    /// Forgets everything, but keeps room that is not too large for what comes next.
    pub(in crate::bridge) fn clear(&mut self) {
        self.whole.clear();
        self.growing.clear();
        self.growing.shrink_to(GROWING_BYTES_KEPT);
        self.size = 0;
    }
}

/// Room that is kept for small events: what some thousand of them need.
const GROWING_BYTES_KEPT: usize = 256 * 1024;
