//! Notices that whoever started this process is gone: the process that `--parent-pid` names has ended, or
//! nobody can read stdout any more.
//!
//! The end of stdin is not enough, because another child of the same parent may hold the pipe open. A
//! thread of its own waits, so that it costs nothing while nothing happens.

use p2p_node::bridge::Signal;
use tokio::sync::mpsc;

/// Begins to watch; tells `signals` once.
#[cfg(unix)]
pub(crate) fn watch(parent: Option<u32>, signals: mpsc::Sender<Signal>) {
    let wait = move || {
        let gone = match unix::wait(parent, &std::io::stdout()) {
            Ok(gone) => gone,
            Err(error) => {
                tracing::warn!(%error, "the parent process cannot be watched");
                return;
            }
        };
        tracing::debug!(?gone, "the parent is gone");
        // Whoever does not listen any more is ending already.
        let _ = signals.blocking_send(Signal::ParentGone);
    };
    if let Err(error) = std::thread::Builder::new().name("parent".to_owned()).spawn(wait) {
        tracing::warn!(%error, "the parent process cannot be watched");
    }
}

/// Begins to watch; tells `signals` once.
#[cfg(not(unix))]
pub(crate) fn watch(parent: Option<u32>, _: mpsc::Sender<Signal>) {
    if parent.is_some() {
        tracing::warn!("--parent-pid is not supported on this system; the end of stdin is");
    }
}

#[cfg(unix)]
mod unix {
    use std::{
        io,
        os::fd::{AsFd, BorrowedFd, OwnedFd},
    };

    use rustix::{
        event::{PollFd, PollFlags, Timespec, poll},
        io::Errno,
        process::{Pid, getppid, test_kill_process},
    };

    /// What is gone.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) enum Gone {
        Process,
        Reader,
    }

    /// How often a system is asked that cannot tell by itself. A parent's end is noticed within two seconds.
    const ASK_EVERY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

    /// Waits until the process `parent` has ended, or `output` has no reader.
    pub(super) fn wait(parent: Option<u32>, output: &impl AsFd) -> io::Result<Gone> {
        let parent = parent.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        let handle = match parent.map(handle).transpose() {
            Ok(handle) => handle.flatten(),
            Err(Errno::SRCH) => return Ok(Gone::Process),
            Err(error) => return Err(error.into()),
        };
        let asked = parent.filter(|_| handle.is_none());
        let was_parent = parent.is_some() && getppid() == parent;
        loop {
            if asked.is_some_and(|parent| has_ended(parent, was_parent)) {
                return Ok(Gone::Process);
            }
            if let Some(gone) = wait_once(handle.as_ref(), output.as_fd(), asked.is_some())? {
                return Ok(gone);
            }
        }
    }

    fn wait_once(
        handle: Option<&OwnedFd>,
        output: BorrowedFd<'_>,
        is_asked: bool,
    ) -> io::Result<Option<Gone>> {
        // A writer waits for nothing; that its reader is gone is told unasked.
        let mut waits = vec![PollFd::from_borrowed_fd(output, PollFlags::empty())];
        waits.extend(handle.map(|handle| PollFd::new(handle, PollFlags::IN)));
        match poll(&mut waits, is_asked.then_some(&ASK_EVERY)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut told = waits.iter().map(|wait| !wait.revents().is_empty());
        let (output_told, handle_told) = (told.next() == Some(true), told.next() == Some(true));
        Ok(match (handle_told, output_told) {
            (true, _) => Some(Gone::Process),
            (false, true) => Some(Gone::Reader),
            (false, false) => None,
        })
    }

    /// What becomes readable when the process ends; `None` where there is no such thing.
    #[cfg(target_os = "linux")]
    fn handle(process: Pid) -> Result<Option<OwnedFd>, Errno> {
        use rustix::process::{PidfdFlags, pidfd_open};

        match pidfd_open(process, PidfdFlags::empty()) {
            Ok(handle) => Ok(Some(handle)),
            Err(Errno::SRCH) => Err(Errno::SRCH),
            // An old kernel, or a sandbox that forbids it.
            Err(_) => Ok(None),
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn handle(_: Pid) -> Result<Option<OwnedFd>, Errno> {
        Ok(None)
    }

    /// A parent that has ended may stay as a zombie, but it has no children any more.
    fn has_ended(process: Pid, was_parent: bool) -> bool {
        let is_other = was_parent && getppid() != Some(process);
        is_other || test_kill_process(process) == Err(Errno::SRCH)
    }

    #[cfg(test)]
    mod tests {
        use std::process::{Command, Stdio};

        use super::*;

        #[test]
        fn the_end_of_a_process_is_noticed_with_and_without_help_of_the_system() {
            let (_reader, output) = io::pipe().unwrap();
            let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
            let process = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
            assert!(!has_ended(process, false));
            drop(child.stdin.take());
            assert_eq!(wait(Some(child.id()), &output).unwrap(), Gone::Process);
            child.wait().unwrap();
            assert!(has_ended(process, false));
            assert_eq!(wait(Some(child.id()), &output).unwrap(), Gone::Process);
        }

        #[test]
        fn a_pipe_without_a_reader_is_noticed_though_nothing_is_written() {
            let (reader, output) = io::pipe().unwrap();
            drop(reader);
            assert_eq!(wait(None, &output).unwrap(), Gone::Reader);
            let own = std::process::id();
            assert_eq!(wait(Some(own), &output).unwrap(), Gone::Reader);
        }
    }
}
