//! What becomes of a panic: its story on stderr, and a process that ends, for nothing that it promised can
//! be relied on any more.

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    panic::{self, PanicHookInfo},
    sync::OnceLock,
    thread,
};

use p2p_node::bridge::{self, Signal, exit};
use tokio::sync::mpsc;

use crate::{stderr, watchdog::Watchdog};

/// Who ends the process properly, once there is somebody.
static SIGNALS: OnceLock<mpsc::Sender<Signal>> = OnceLock::new();

/// From now on panics are told on stderr, and `watchdog` sees to the end.
pub(crate) fn watch(watchdog: Watchdog) {
    panic::set_hook(Box::new(move |panic| {
        stderr::write(story(panic, &Backtrace::capture()).as_bytes());
        watchdog.arm(bridge::STOP_TIME_MAX, exit::INTERNAL);
        if let Some(signals) = SIGNALS.get() {
            // Full or closed: then the end is near as it is.
            let _ = signals.try_send(Signal::Panicked);
        }
    }));
}

/// From now on panics are told to `signals`, too.
pub(crate) fn tell(signals: mpsc::Sender<Signal>) {
    // A process runs one session.
    let _ = SIGNALS.set(signals);
}

fn story(panic: &PanicHookInfo<'_>, backtrace: &Backtrace) -> String {
    let thread = thread::current();
    let name = thread.name().unwrap_or("without a name");
    let place = panic.location().map(|place| format!(" at {place}")).unwrap_or_default();
    let payload = panic.payload();
    let said = payload.downcast_ref::<&str>().copied();
    let said = said.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let said = said.unwrap_or("nothing that is text");
    let mut story = format!(
        "p2p-node: this is a bug, please report it: thread {name:?} panicked{place}: {said}\n"
    );
    if backtrace.status() == BacktraceStatus::Captured {
        story += &format!("{backtrace}\n");
    }
    story
}

#[cfg(all(test, unix))]
mod tests {
    use std::{
        io::Read,
        process::{Command, Stdio},
        time::Duration,
    };

    use super::*;

    /// What marks the process in which [`a_panic_in_a_task_ends_the_process_though_stderr_is_closed`]
    /// lets a task panic.
    const MARK: &str = "P2P_NODE_TEST_PANICS";

    #[test]
    fn a_panic_in_a_task_ends_the_process_though_stderr_is_closed() {
        if std::env::var_os(MARK).is_some() {
            panic_in_a_task();
        }
        for is_closed in [true, false] {
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args([
                "--exact",
                concat!(
                    module_path!(),
                    "::a_panic_in_a_task_ends_the_process_though_stderr_is_closed"
                )
                .split_once("::")
                .unwrap()
                .1,
                "--nocapture",
            ]);
            let child = child.env(MARK, "1").stderr(Stdio::piped()).stdout(Stdio::null());
            let mut child = child.spawn().unwrap();
            let mut stderr = child.stderr.take().unwrap();
            let mut told = String::new();
            match is_closed {
                true => drop(stderr),
                false => drop(stderr.read_to_string(&mut told).unwrap()),
            }
            assert_eq!(child.wait().unwrap().code(), Some(42));
            assert_eq!(told.contains("panicked at src/bin/p2p-node/panics.rs"), !is_closed);
        }
    }

    fn panic_in_a_task() -> ! {
        let watchdog = Watchdog::start(|_| std::process::exit(99)).expect("a thread");
        watch(watchdog);
        let (signals, mut told) = mpsc::channel(1);
        tell(signals);
        let runtime = tokio::runtime::Runtime::new().expect("threads");
        runtime.spawn(async { panic!("on purpose") });
        let told = runtime.block_on(told.recv());
        stderr::flush(Duration::from_secs(20));
        std::process::exit(if told == Some(Signal::Panicked) { 42 } else { 1 });
    }
}
