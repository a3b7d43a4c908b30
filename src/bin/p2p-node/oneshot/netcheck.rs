//! `p2p-node netcheck`: what this network lets through, and what that means; with a peer named, also for that pair.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use p2p_node::{
    bridge::{exit, reply::netcheck::NetcheckReply, terminal::netcheck_lines},
    failure::Failure,
    node::{Netcheck, Outlook, Question, Role},
};

use super::{OneShot, fail, find_peer, run};
use crate::{
    args::{Colour, NetcheckArgs},
    watchdog::Watchdog,
};

/// Finds out what `args` ask for.
pub(crate) fn netcheck(args: NetcheckArgs, colour: Colour, watchdog: &Watchdog) -> ExitCode {
    let NetcheckArgs { peer, lifetime, timeout, json, node } = args;
    let named = match peer {
        Some(peer) => find_peer(&peer, node).map(|(target, node)| (Some(target), node)),
        None => Ok((None, node)),
    };
    let (peer, node) = match named {
        Ok(found) => found,
        Err(failure) => return fail(&failure),
    };
    let question = Question { peer, lifetime };
    run(node, Role::Client, colour, watchdog, |OneShot { node, mut told, .. }| async move {
        let is_pair = question.peer.is_some();
        match told.during(node.netcheck(question, timeout)).await {
            Ok(netcheck) => print(netcheck?, is_pair, json),
            Err(stop) => stop.cut_off(),
        }
    })
}

fn print(netcheck: Netcheck, is_pair: bool, json: bool) -> Result<u8, Failure> {
    let exit_code = exit_code(&netcheck, is_pair);
    let reply = NetcheckReply::from(netcheck);
    let text = match json {
        true => serde_json::to_string(&reply).expect("all keys are strings"),
        false => netcheck_lines(&reply),
    };
    // It is as it is, whether anybody reads that or not.
    let _ = writeln!(io::stdout(), "{text}");
    Ok(exit_code)
}

/// 4 if no UDP comes back, 5 if the peer that was named is not found or will not be reached, 0 otherwise.
fn exit_code(netcheck: &Netcheck, is_pair: bool) -> u8 {
    let mut outlooks = netcheck.pairs.iter().map(|pair| pair.outlook);
    match (netcheck.udp, is_pair) {
        (false, _) => exit::NETWORK,
        (true, true) if outlooks.all(|outlook| outlook == Outlook::Impossible) => exit::PEER,
        (true, _) => exit::OK,
    }
}
