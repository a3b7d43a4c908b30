//! The name of a peer that lies in a file, because a ticket is a secret and arguments are for all to see.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use p2p_node::{
    bridge::recipient::Recipient,
    failure::{Code, Failure},
};
use tracing::warn;

use crate::{args::PeerName, private};

/// More than the longest ticket has.
const FILE_BYTES_MAX: u64 = 4_096;

/// The peer that `name` means.
///
/// # Errors
/// When its file cannot be read, or names no peer.
pub(crate) fn read(name: &PeerName) -> Result<Recipient, Failure> {
    match name {
        PeerName::Given(recipient) => Ok(recipient.clone()),
        PeerName::InFile(file) => first_line(file),
    }
}

fn first_line(path: &Path) -> Result<Recipient, Failure> {
    let shown = path.display();
    let unreadable = |error: io::Error| {
        Failure::new(Code::ConfigInvalid, format!("{shown} cannot be read"))
            .because(error.to_string())
            .hint("name a file whose first line is a peer id, a ticket or a service")
    };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_file() && private::is_open_to_others(&metadata) {
        warn!("others than you can read {shown}; chmod 600 '{shown}'");
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Err(Failure::new(Code::ConfigInvalid, format!("{shown} names no peer"))
            .because("its first line is empty")
            .hint(format!("p2p-node ticket > '{shown}'")));
    }
    Recipient::parse(line)
}
