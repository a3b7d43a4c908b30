//! Files and directories that nobody but their owner may look into.

#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::{
    fs::{self, DirBuilder, Metadata, OpenOptions},
    io,
    path::Path,
};

/// Opens files; those that it makes are their owner's only (mode 0600).
pub(crate) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    #[cfg(unix)]
    options.mode(0o600);
    options
}

/// Makes `path` and what is missing above it, for their owner only (mode 0700).
pub(crate) fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    builder.mode(0o700);
    builder.create(path)
}

/// Whether group or others may read or write what `metadata` describes.
#[cfg(unix)]
pub(crate) fn is_open_to_others(metadata: &Metadata) -> bool {
    metadata.mode() & 0o077 != 0
}

/// Windows has access lists instead of modes; files in a user's profile are the user's by default.
#[cfg(not(unix))]
pub(crate) fn is_open_to_others(_metadata: &Metadata) -> bool {
    false
}

/// Whether `path` is a directory, no link to one, that is ours alone.
pub(crate) fn is_own_directory(path: &Path) -> bool {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return false;
    };
    metadata.is_dir() && is_ours(&metadata) && !is_open_to_others(&metadata)
}

#[cfg(unix)]
fn is_ours(metadata: &Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(not(unix))]
fn is_ours(_metadata: &Metadata) -> bool {
    true
}
