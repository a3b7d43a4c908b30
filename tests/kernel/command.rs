//! Running the system's programs, with their complaints in the panic when they fail.

use std::{
    io::Write,
    process::{Command, Stdio},
};

/// What `ip` prints.
///
/// # Panics
///
/// If it fails: the lab is not what the test believes, so nothing after it means anything.
pub fn ip(arguments: &str) -> String {
    run("ip", arguments, "").unwrap_or_else(|complaint| panic!("{complaint}"))
}

/// Runs a program with arguments that contain no spaces themselves, and gives it `input` to read.
///
/// # Errors
///
/// The command line and what the program said on stderr, if it cannot be started or fails.
pub fn run(program: &str, arguments: &str, input: &str) -> Result<String, String> {
    let failed = |why: &str| format!("{program} {arguments}: {why}");
    let mut child = Command::new(program)
        .args(arguments.split_whitespace())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&error.to_string()))?;
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A program that does not read its input says on stderr why it failed.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().map_err(|error| failed(&error.to_string()))?;
    if !output.status.success() {
        return Err(failed(&String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
