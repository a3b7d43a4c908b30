//! Cuts the bytes of stdin into lines, whatever the bytes are.

use crate::failure::{Code, Failure};

/// Bytes that a line may have, without the line feed that ends it.
///
/// A payload of 16 MiB in base 64 is 22 MiB; the rest is for its envelope.
pub const LINE_BYTES_MAX: usize = 24 * 1024 * 1024;

/// Collects chunks of bytes until they make a line. Holds one line at most.
#[derive(Debug)]
pub struct LineSplitter {
    state: State,
    limit: usize,
}

#[derive(Debug)]
enum State {
    /// The line so far.
    Collecting(Vec<u8>),
    /// The line is over the limit and has been reported; its rest is dropped.
    Skipping,
}

impl LineSplitter {
    /// Cuts lines of at most `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self { state: State::Collecting(Vec::new()), limit }
    }

    /// Takes bytes from the front of `chunk` until they complete a line or the chunk is used up (`None`).
    ///
    /// # Errors
    /// For a line that is too long ([`Code::LineTooLong`]), or is not UTF-8, or contains a NUL
    /// ([`Code::BadRequest`]). The next line is not affected.
    pub fn next_line(&mut self, chunk: &mut &[u8]) -> Option<Result<String, Failure>> {
        while !chunk.is_empty() {
            let end = chunk.iter().position(|&byte| byte == b'\n');
            let (part, rest) = chunk.split_at(end.unwrap_or(chunk.len()));
            *chunk = rest.strip_prefix(b"\n").unwrap_or(rest);
            let line = match end {
                Some(_) => self.handle_last_part(part),
                None => self.handle_part(part),
            };
            if line.is_some() {
                return line;
            }
        }
        None
    }

    /// The line that the end of the input completes, if there is one.
    ///
    /// # Errors
    /// As [`LineSplitter::next_line`].
    pub fn finish(mut self) -> Option<Result<String, Failure>> {
        match &self.state {
            State::Collecting(line) if line.is_empty() => None,
            State::Collecting(_) | State::Skipping => self.handle_last_part(&[]),
        }
    }

    fn handle_part(&mut self, part: &[u8]) -> Option<Result<String, Failure>> {
        let State::Collecting(line) = &mut self.state else {
            return None;
        };
        if line.len() + part.len() > self.limit {
            self.state = State::Skipping;
            return Some(Err(too_long(self.limit)));
        }
        line.extend_from_slice(part);
        None
    }

    fn handle_last_part(&mut self, part: &[u8]) -> Option<Result<String, Failure>> {
        let over = self.handle_part(part);
        let state = std::mem::replace(&mut self.state, State::Collecting(Vec::new()));
        match state {
            State::Collecting(line) => Some(text(line)),
            State::Skipping => over,
        }
    }
}

fn text(mut line: Vec<u8>) -> Result<String, Failure> {
    if line.ends_with(b"\r") {
        line.pop();
    }
    if line.contains(&0) {
        return Err(Failure::new(Code::BadRequest, "the line contains a NUL")
            .hint("write \\u0000 inside JSON, or send bytes with \"encoding\":\"base64\""));
    }
    String::from_utf8(line).map_err(|error| {
        Failure::new(Code::BadRequest, "the line is not UTF-8")
            .because(error.utf8_error().to_string())
            .hint("send bytes with \"encoding\":\"base64\"")
    })
}

fn too_long(limit: usize) -> Failure {
    Failure::new(Code::LineTooLong, format!("a line of more than {limit} bytes was skipped"))
        .hint("split the message into several")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split<'a>(
        limit: usize,
        chunks: impl Iterator<Item = &'a [u8]>,
    ) -> Vec<Result<String, Code>> {
        let mut splitter = LineSplitter::new(limit);
        let mut lines = Vec::new();
        for mut chunk in chunks {
            while let Some(line) = splitter.next_line(&mut chunk) {
                lines.push(line);
            }
        }
        lines.extend(splitter.finish());
        lines.into_iter().map(|line| line.map_err(|failure| failure.code)).collect()
    }

    /// What the splitter promises, without chunks and without care for memory.
    fn split_naively(limit: usize, bytes: &[u8]) -> Vec<Result<String, Code>> {
        let mut lines: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
        if lines.last().is_some_and(|line| line.is_empty()) {
            lines.pop();
        }
        let judge = |line: &[u8]| {
            if line.len() > limit {
                return Err(Code::LineTooLong);
            }
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let text = std::str::from_utf8(line).map_err(|_| Code::BadRequest)?;
            if text.contains('\0') { Err(Code::BadRequest) } else { Ok(text.to_owned()) }
        };
        lines.into_iter().map(judge).collect()
    }

    #[test]
    fn a_bad_line_does_not_spoil_the_next() {
        let input: &[u8] = b"list\r\nfar too long\n\xff\nnul \0\n\nlast";
        assert_eq!(
            split(8, [input].into_iter()),
            [
                Ok("list".to_owned()),
                Err(Code::LineTooLong),
                Err(Code::BadRequest),
                Err(Code::BadRequest),
                Ok(String::new()),
                Ok("last".to_owned()),
            ]
        );
    }

    #[test]
    fn a_line_without_end_uses_no_more_memory_than_the_limit() {
        let mut splitter = LineSplitter::new(1_000);
        let mut reports = 0;
        for _ in 0..1_000 {
            reports += usize::from(splitter.next_line(&mut [b'x'; 999].as_slice()).is_some());
            if let State::Collecting(line) = &splitter.state {
                assert!(line.capacity() <= 2_000);
            }
        }
        assert_eq!(reports, 1);
        assert_eq!(splitter.finish(), None);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_chunks_make_the_same_lines(
            bytes in proptest::collection::vec(
                prop_oneof![3 => Just(b'\n'), 1 => Just(b'\r'), 1 => Just(0), 9 => b'a'..b'f', 1 => any::<u8>()],
                0..200,
            ),
            limit in 0_usize..12,
            chunk_size in 1_usize..20,
        ) {
            prop_assert_eq!(split(limit, bytes.chunks(chunk_size)), split_naively(limit, &bytes));
        }
    }
}
