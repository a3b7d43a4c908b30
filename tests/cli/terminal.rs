//! The program on a terminal: a person reads lines, not JSON.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::OwnedFd,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Instant,
};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

use crate::{
    home::Home,
    running::{PATIENCE, Running},
};

/// A program on a terminal of its own.
struct Person {
    child: Child,
    keyboard: File,
    screen: mpsc::Receiver<Vec<u8>>,
    /// All that was on the screen, and how much of it was waited for.
    seen: String,
    read: usize,
}

impl Person {
    fn start(command: &mut Command) -> Self {
        // Ours alone: a program that held its own terminal open would never see it close.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = openpt(flags).unwrap();
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let name = ptsname(&terminal, Vec::new()).unwrap().into_string().unwrap();
        let open =
            || -> OwnedFd { File::options().read(true).write(true).open(&name).unwrap().into() };
        command.stdin(open()).stdout(open()).stderr(open());
        let child = command.spawn().unwrap();
        // The command would hold the terminal open, and the program's end would not show.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let keyboard = File::from(terminal);
        let mut shown = keyboard.try_clone().unwrap();
        let (sender, screen) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = [0; 4_096];
            // Reading fails when the program has closed its end.
            while let Ok(size @ 1..) = shown.read(&mut buffer) {
                if sender.send(buffer[..size].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, screen, seen: String::new(), read: 0 }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until `wanted` is on the screen, behind what was waited for before.
    fn sees(&mut self, wanted: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(place) = self.seen[self.read..].find(wanted) {
                self.read += place + wanted.len();
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(bytes) = self.screen.recv_timeout(left) else {
                panic!("no {wanted:?}; instead:\n{}", self.seen);
            };
            self.seen += &String::from_utf8_lossy(&bytes);
        }
    }

    /// All that is on the screen, to the end of the program, and its exit code.
    fn end(mut self) -> (String, Option<i32>) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.screen.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(bytes) => self.seen += &String::from_utf8_lossy(&bytes),
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("no end:\n{}", self.seen),
            }
        }
        let exit_code = self.child.wait().unwrap().code();
        (std::mem::take(&mut self.seen), exit_code)
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|ended| ended.is_none()) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

const SERVER: [&str; 4] = ["--mode", "server", "--service", "myapi:v1"];

fn on_terminal(home: &Home, args: &[&str]) -> Person {
    Person::start(home.command(args).env("TERM", "xterm").env("NO_COLOR", "1"))
}

#[test]
fn a_person_reads_lines_and_no_json() {
    let home = Home::new("terminal");
    let mut person = on_terminal(&home, &SERVER);
    person.sees("p2p-node ");
    person.sees("this is ");
    person.sees("\r\n> ");
    let nasty = "hi\u{1b}[2J\u{1b}]0;title\u{7}\u{202e}\u{9b}31m there";
    let mut client = Running::start(&mut home.command(&["--service", "myapi:v1"]));
    client.write(format!("say service {nasty}\n").as_bytes());
    client.event("ok");
    person.sees(": hi[2J]0;title31m there\r\n");
    person.press("say @last and \u{e4}\n");
    assert_eq!(client.event("message")["message"]["payload"], "and \u{e4}");
    person.sees("delivered to ");
    person.press("send @last\n");
    person.sees("error[invalid_argument]: ");
    person.sees("\r\n  why: ");
    person.sees("\r\n  try: ");
    person.press("quit\n");
    client.event("disconnected");
    let (rest, exit_code) = person.end();
    assert_eq!(exit_code, Some(0));
    assert!(!rest.contains('{'), "{rest}");
}

#[test]
fn nothing_on_the_screen_is_json_and_nothing_is_painted_unasked() {
    let home = Home::new("no-json");
    let mut person = on_terminal(&home, &SERVER);
    for (typed, answer) in [
        ("list\n", "nobody is connected"),
        ("status\n", "running for"),
        ("ticket\n", "p2p1"),
        ("connect service\n", "error[peer_not_found]"),
        ("\n# nothing\nnonsense\n", "error[unknown_command]"),
    ] {
        person.press(typed);
        person.sees(answer);
    }
    person.press("\u{4}");
    let (screen, exit_code) = person.end();
    assert_eq!(exit_code, Some(2), "that of the last command that failed");
    assert!(!screen.contains("{\"") && !screen.contains("\"event\""), "{screen}");
    // Erasing the prompt's line is all that is done to the terminal.
    assert_eq!(screen.matches('\u{1b}').count(), screen.matches("\r\u{1b}[K").count());
}

#[test]
fn the_environment_and_the_flag_decide_on_colours() {
    let home = Home::new("colours");
    let painted = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = home.command(args);
        let mut person = Person::start(command.envs(variables.iter().copied()));
        person.sees("this is ");
        person.press("quit\n");
        person.end().0.contains("\u{1b}[0m")
    };
    let xterm = ("TERM", "xterm");
    assert!(painted(&[], &[xterm]));
    assert!(!painted(&[], &[xterm, ("NO_COLOR", "1")]));
    assert!(painted(&["--color", "always"], &[xterm, ("NO_COLOR", "1")]));
    assert!(!painted(&["--color", "never"], &[xterm, ("CLICOLOR_FORCE", "1")]));
    assert!(!painted(&[], &[("TERM", "dumb")]));
    // Without a terminal, too.
    let outcome = |variable: &str| {
        let mut command = home.command(&["--stdio", "text"]);
        let output = command.env(variable, "1").output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(outcome("CLICOLOR_FORCE").contains("\u{1b}["));
    assert!(!outcome("NO_COLOR").contains('\u{1b}'));
}

#[test]
fn a_program_on_a_terminal_may_still_ask_for_json() {
    let home = Home::new("terminal-json");
    let mut person = on_terminal(&home, &["--stdio", "json"]);
    person.sees(r#"{"event":"ready""#);
    person.press("quit\n");
    let (rest, exit_code) = person.end();
    assert!(rest.contains(r#"{"event":"bye","reason":"shutdown","exit_code":0}"#), "{rest}");
    assert_eq!(exit_code, Some(0));
}

#[test]
fn the_first_interrupt_says_what_a_second_does() {
    let home = Home::new("terminal-interrupt");
    let mut person = on_terminal(&home, &SERVER);
    person.sees("\r\n> ");
    let id = person.child.id().to_string();
    assert!(Command::new("kill").args(["-s", "INT", &id]).status().unwrap().success());
    person.sees("press Ctrl-C again to quit now");
    assert_eq!(person.end().1, Some(0));
}
