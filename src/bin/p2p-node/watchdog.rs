//! Ends the process when its end takes too long, whatever its tasks still wait for.
//!
//! A thread of its own, because what is stuck may be the runtime.

use std::{
    io,
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::Duration,
};

use tokio::time::Instant;

/// A hand on the thread. Nothing happens until it is armed.
#[derive(Clone, Debug)]
pub(crate) struct Watchdog {
    orders: mpsc::Sender<Order>,
}

/// When to end the process, and with which exit code.
#[derive(Clone, Copy, Debug)]
struct Order {
    deadline: Instant,
    exit_code: u8,
}

impl Watchdog {
    /// Starts the thread, which ends the process with `exit`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn start(exit: impl FnOnce(u8) + Send + 'static) -> io::Result<Self> {
        let (orders, given) = mpsc::channel();
        thread::Builder::new().name("watchdog".to_owned()).spawn(move || watch(&given, exit))?;
        Ok(Self { orders })
    }

    /// The process is to be gone `limit` from now, and then ends with `exit_code`. The earliest of
    /// several limits holds.
    pub(crate) fn arm(&self, limit: Duration, exit_code: u8) {
        let order = Order { deadline: Instant::now() + limit, exit_code };
        // The thread has gone when it has ended the process.
        let _ = self.orders.send(order);
    }
}

fn watch(orders: &Receiver<Order>, exit: impl FnOnce(u8)) {
    let Ok(mut order) = orders.recv() else {
        return;
    };
    loop {
        let left = order.deadline.saturating_duration_since(Instant::now());
        match orders.recv_timeout(left) {
            Ok(new) if new.deadline < order.deadline => order = new,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return exit(order.exit_code),
            // The process has ended by itself.
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start() -> (Watchdog, Receiver<u8>) {
        let (code, exits) = mpsc::channel();
        (Watchdog::start(move |exit_code| code.send(exit_code).unwrap()).unwrap(), exits)
    }

    #[test]
    fn a_process_whose_end_hangs_is_ended_at_the_earliest_limit() {
        let (watchdog, exits) = start();
        watchdog.arm(Duration::from_secs(600), 1);
        watchdog.arm(Duration::from_millis(5), 130);
        watchdog.arm(Duration::from_secs(500), 1);
        assert_eq!(exits.recv_timeout(Duration::from_secs(20)), Ok(130));
    }

    #[test]
    fn a_process_that_ends_in_time_is_left_alone() {
        let (watchdog, exits) = start();
        watchdog.arm(Duration::from_secs(600), 1);
        drop(watchdog);
        assert_eq!(exits.recv(), Err(mpsc::RecvError));
    }
}
