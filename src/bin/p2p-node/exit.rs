//! How a command that is not a session ends: one line on stdout, or three on stderr, and an exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use p2p_node::{
    bridge::{
        exit::exit_code,
        terminal::{self, Style},
    },
    failure::{Code, Failure},
};

use crate::stderr;

/// Prints what a command came to, and turns it into the process's exit code.
pub(crate) fn report(outcome: Result<String, Failure>) -> ExitCode {
    let printed = outcome.and_then(|line| {
        writeln!(io::stdout(), "{line}").map_err(|error| {
            Failure::new(Code::Internal, "stdout cannot be written").because(error.to_string())
        })
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure);
            ExitCode::from(exit_code(failure.code))
        }
    }
}

/// What went wrong, why, and what to do, on stderr.
pub(crate) fn complain(failure: &Failure) {
    let text = terminal::failure(failure, Style::Plain) + "\n";
    stderr::write(text.as_bytes());
}
