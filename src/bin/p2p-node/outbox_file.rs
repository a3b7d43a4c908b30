//! The file of the outbox, and the identity that lies beside it.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

use p2p_node::failure::{Code, Failure};

use crate::private;

/// Opens the outbox in `directory`, which is made if there is none.
///
/// # Errors
/// [`Code::OutboxUnusable`] when that does not work.
pub(crate) fn open(directory: &Path) -> Result<File, Failure> {
    let file = directory.join("outbox.redb");
    let open = || -> io::Result<File> {
        private::create_directory(directory)?;
        private::options().read(true).write(true).create(true).truncate(false).open(&file)
    };
    open().map_err(|error| {
        Failure::new(Code::OutboxUnusable, format!("{} cannot be opened", file.display()))
            .because(error.to_string())
            .hint("--outbox names a directory that this user may write to")
    })
}

/// Where a client with this outbox keeps its identity: receivers tell what they have by its sender.
pub(crate) fn identity(directory: &Path) -> PathBuf {
    directory.join("identity.key")
}
