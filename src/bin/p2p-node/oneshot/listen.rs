//! `p2p-node listen`: messages as they arrive, on stdout.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use p2p_node::{
    bridge::{
        Notation, exit,
        output::Output,
        terminal::{self, Style},
    },
    failure::{Code, Failure},
    node::{Received, Role},
};
use tokio::time::{self, Instant};

use super::{OneShot, run};
use crate::{
    args::{Colour, ListenArgs, Shape},
    stderr,
    watchdog::Watchdog,
};

/// Prints what arrives until there is enough of it.
pub(crate) fn listen(args: ListenArgs, colour: Colour, watchdog: &Watchdog) -> ExitCode {
    let ListenArgs { count, timeout, shape, node } = args;
    let style = if colour.is_for(&io::stdout()) { Style::Coloured } else { Style::Plain };
    run(node, Role::Server, colour, watchdog, |one| async move {
        let OneShot { node, mut inbox, mut told } = one;
        stderr::write(format!("listening as {}\n", node.peer_id()).as_bytes());
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut received = 0;
        while count.is_none_or(|count| received < count) {
            let next = async {
                match deadline {
                    Some(deadline) => time::timeout_at(deadline, inbox.next()).await.ok(),
                    None => Some(inbox.next().await),
                }
            };
            match told.during(next).await {
                Ok(Some(Some(message))) => {
                    if print(&message, shape, style).is_err() {
                        // Nobody reads any more, so this was enough; the sender is not told that it was read.
                        return Ok(exit::OK);
                    }
                    received += 1;
                    // Now it is somebody's: the sender may know.
                    drop(message);
                }
                Ok(Some(None)) => return super::Stop::NodeGone.cut_off(),
                Ok(None) => return Err(too_late(received, count)),
                Err(stop) => return stop.well_done(),
            }
        }
        Ok(exit::OK)
    })
}

fn print(received: &Received, shape: Shape, style: Style) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let event = Output::Message { peer: received.peer, message: &received.message };
    match shape {
        Shape::Line => writeln!(out, "{}", terminal::render(&event, style).unwrap_or_default())?,
        Shape::Payload => {
            out.write_all(&received.message.payload)?;
            out.write_all(b"\n")?;
        }
        Shape::Json => out.write_all(&event.encode(Notation::Lines))?,
    }
    out.flush()
}

fn too_late(received: u64, count: Option<u64>) -> Failure {
    let wanted = count.map(|count| format!(" of {count}")).unwrap_or_default();
    Failure::new(Code::Timeout, "time is over")
        .because(format!("{received}{wanted} messages have arrived"))
        .hint("is the sender there, with the same service and secret? wait longer: --timeout")
}
