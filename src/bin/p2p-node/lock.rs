//! A file that is locked for as long as a process lives, so that another one can tell.

use std::{
    fs::{File, TryLockError},
    io,
    path::Path,
};

use crate::private;

/// An advisory lock; the system takes it back when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at `path`, or `None` if another process has it. The file is made, and stays.
    pub(crate) fn try_take(path: &Path) -> io::Result<Option<Self>> {
        let file = private::options().create(true).append(true).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Whether a living process has the lock at `path`.
    pub(crate) fn is_taken(path: &Path) -> bool {
        let Ok(file) = File::open(path) else {
            return false;
        };
        matches!(file.try_lock_shared(), Err(TryLockError::WouldBlock))
    }
}
