//! A prompt on a terminal: what happens is written above it, whenever it happens.
//!
//! The terminal itself edits the line that is typed; what of it was shown is gone when something else is
//! written, but it is still there when Enter is pressed.

use std::{
    io::{self, Read, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// What stands before what is typed.
const PROMPT: &[u8] = b"> ";

/// ECMA-48: to the first column, and erase to the end of the line.
const ERASE: &[u8] = b"\r\x1b[K";

/// The output: draws the prompt whenever nothing more is to be written for now.
#[derive(Debug)]
pub(crate) struct PromptOutput<W: Write> {
    screen: Screen<W>,
}

/// The input: draws the prompt again when a line was typed.
#[derive(Debug)]
pub(crate) struct PromptInput<R, W: Write> {
    input: R,
    screen: Screen<W>,
}

#[derive(Debug)]
struct Screen<W> {
    shared: Arc<Mutex<Shared<W>>>,
}

#[derive(Debug)]
struct Shared<W> {
    output: W,
    state: State,
}

/// Where the cursor is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Behind the prompt, or behind what is being typed there.
    AtPrompt,
    /// Behind lines that are being written.
    Writing,
    /// Nothing more will be written.
    Ended,
}

/// A prompt between `input` and `output`.
pub(crate) fn between<R, W: Write>(input: R, output: W) -> (PromptInput<R, W>, PromptOutput<W>) {
    let shared = Arc::new(Mutex::new(Shared { output, state: State::Writing }));
    let screen = Screen { shared: Arc::clone(&shared) };
    (PromptInput { input, screen: Screen { shared } }, PromptOutput { screen })
}

impl<W: Write> Write for PromptOutput<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut shared = self.screen.lock();
        shared.leave_prompt()?;
        shared.output.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.screen.lock().draw()
    }
}

impl<W: Write> Drop for PromptOutput<W> {
    fn drop(&mut self) {
        let mut shared = self.screen.lock();
        // A terminal that is gone shows no prompt either.
        let _ = shared.leave_prompt().and_then(|()| shared.output.flush());
        shared.state = State::Ended;
    }
}

impl<R: Read, W: Write> Read for PromptInput<R, W> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size = self.input.read(buffer)?;
        let mut shared = self.screen.lock();
        if shared.state == State::AtPrompt {
            // The terminal has begun a new line with the Enter that it echoed. What cannot be drawn is
            // noticed by the next line of output.
            let _ = shared.draw();
        }
        Ok(size)
    }
}

impl<W> Screen<W> {
    fn lock(&self) -> MutexGuard<'_, Shared<W>> {
        // After a panic a prompt may stand twice, or not at all.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<W: Write> Shared<W> {
    fn leave_prompt(&mut self) -> io::Result<()> {
        if self.state == State::AtPrompt {
            self.output.write_all(ERASE)?;
            self.state = State::Writing;
        }
        Ok(())
    }

    fn draw(&mut self) -> io::Result<()> {
        self.leave_prompt()?;
        self.output.write_all(PROMPT)?;
        self.output.flush()?;
        self.state = State::AtPrompt;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_written_above_the_prompt() {
        let typed: &[u8] = b"list\n";
        let (mut input, mut output) = between(typed, Vec::new());
        let shared = Arc::clone(&input.screen.shared);
        let written = || String::from_utf8(std::mem::take(&mut shared.lock().unwrap().output));
        output.write_all(b"hello\n").unwrap();
        output.write_all(b"ready\n").unwrap();
        output.flush().unwrap();
        assert_eq!(written().unwrap(), "hello\nready\n> ");
        let mut line = [0; 64];
        assert_eq!(input.read(&mut line).unwrap(), 5);
        assert_eq!(written().unwrap(), "\r\x1b[K> ");
        output.write_all(b"nobody\n").unwrap();
        assert_eq!(input.read(&mut line).unwrap(), 0);
        output.flush().unwrap();
        assert_eq!(written().unwrap(), "\r\x1b[Knobody\n> ");
        drop(output);
        assert_eq!(input.read(&mut line).unwrap(), 0);
        assert_eq!(written().unwrap(), "\r\x1b[K");
    }
}
