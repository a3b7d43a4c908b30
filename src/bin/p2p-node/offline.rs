//! What can be told without going online: who this user's node is, and how to reach it.

use std::{net::SocketAddr, path::PathBuf};

use p2p_node::{entropy::Entropy, failure::Failure, identity::Identity, ticket::Ticket};

use crate::identity_file;

/// The peer id of the identity in `file`, or in the default file.
pub(crate) fn id(file: Option<PathBuf>) -> Result<String, Failure> {
    Ok(identity(file)?.peer_id().to_string())
}

/// The ticket of the identity in `file`, or in the default file, with `addresses` in it.
pub(crate) fn ticket(file: Option<PathBuf>, addresses: Vec<SocketAddr>) -> Result<String, Failure> {
    Ok(Ticket::of(&identity(file)?, addresses).to_string())
}

fn identity(file: Option<PathBuf>) -> Result<Identity, Failure> {
    let path = file.map_or_else(identity_file::default_path, Ok)?;
    identity_file::load_or_create(&path, &mut Entropy::from_system())
}
