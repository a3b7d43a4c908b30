//! The file that keeps an identity: 64 hexadecimal digits, the Ed25519 seed, and a line feed.
//!
//! Hexadecimal, because a person may have to copy it into a password store or out of a backup. Whoever
//! has the file is the node: it is its owner's only (mode 0600), and a lock beside it makes sure that
//! no two nodes run with it.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use data_encoding::{HEXLOWER, HEXLOWER_PERMISSIVE};
use p2p_node::{
    entropy::Entropy,
    failure::{Code, Failure},
    identity::Identity,
};
use zeroize::Zeroizing;

use crate::{lock::Lock, private};

/// More than a seed, a line feed and an editor's blanks have.
const FILE_BYTES_MAX: u64 = 256;

/// Where a user's identity is kept when no file is named; its directory is made if it is missing.
///
/// # Errors
/// When the user has no home, or the directory cannot be made.
pub(crate) fn default_path() -> Result<PathBuf, Failure> {
    let directory = data_directory().ok_or_else(|| {
        Failure::new(Code::KeyUnreadable, "there is no place for the identity")
            .because("neither XDG_DATA_HOME nor HOME is set to an absolute path")
            .hint("name a file with --identity FILE, or use --ephemeral")
    })?;
    let directory = directory.join("p2p-node");
    private::create_directory(&directory).map_err(|error| unreadable(&directory, &error))?;
    Ok(directory.join("identity.key"))
}

/// The identity in `path`, made anew if there is no such file.
///
/// # Errors
/// [`Code::KeyPermissions`] if others may read the file, [`Code::KeyUnreadable`] for all other reasons.
pub(crate) fn load_or_create(path: &Path, entropy: &mut Entropy) -> Result<Identity, Failure> {
    match File::open(path) {
        Ok(file) => load(path, file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            create(path, entropy).map_err(|error| unreadable(path, &error))
        }
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// Makes sure that no other node runs with the identity in `path`, until the lock is dropped.
///
/// # Errors
/// [`Code::KeyInUse`] if one does.
pub(crate) fn lock(path: &Path) -> Result<Lock, Failure> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".lock");
    let lock =
        Lock::try_take(&path.with_file_name(name)).map_err(|error| unreadable(path, &error))?;
    lock.ok_or_else(|| {
        let path = path.display();
        Failure::new(Code::KeyInUse, format!("another node runs with the identity in {path}"))
            .because("two nodes with one identity would take each other's messages")
            .hint("stop the other one, or use --ephemeral, or another file with --identity FILE")
    })
}

fn load(path: &Path, file: File) -> Result<Identity, Failure> {
    let metadata = file.metadata().map_err(|error| unreadable(path, &error))?;
    if private::is_open_to_others(&metadata) {
        let path = path.display();
        return Err(Failure::new(Code::KeyPermissions, format!("others than you can read {path}"))
            .because("whoever has the identity file can pose as this node")
            .hint(format!("chmod 600 '{path}'")));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(FILE_BYTES_MAX)
        .read_to_string(&mut text)
        .map_err(|error| unreadable(path, &error))?;
    let seed = HEXLOWER_PERMISSIVE.decode(text.trim_end().as_bytes()).map(Zeroizing::new).ok();
    let seed = seed.and_then(|seed| <[u8; 32]>::try_from(seed.as_slice()).ok());
    seed.map(Identity::from_seed).ok_or_else(|| {
        let path = path.display();
        Failure::new(Code::KeyUnreadable, format!("{path} holds no identity"))
            .because("an identity file is 64 hexadecimal digits")
            .hint("restore it from a backup, or move it away to get a new identity")
    })
}

/// Exclusive, so that of two programs that start at once only one makes the identity.
fn create(path: &Path, entropy: &mut Entropy) -> io::Result<Identity> {
    let identity = Identity::generate(entropy);
    let text = Zeroizing::new(HEXLOWER.encode(identity.seed()) + "\n");
    let mut file = private::options().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    Ok(identity)
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let path = path.display();
    Failure::new(Code::KeyUnreadable, format!("{path} cannot be read or made"))
        .because(error.to_string())
        .hint("name another file with --identity FILE, or use --ephemeral")
}

#[cfg(not(windows))]
fn data_directory() -> Option<PathBuf> {
    // The XDG specification: relative paths are to be ignored.
    let absolute =
        |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME").or_else(|| Some(absolute("HOME")?.join(".local/share")))
}

#[cfg(windows)]
fn data_directory() -> Option<PathBuf> {
    std::env::var_os("LOCALAPPDATA").map(PathBuf::from)
}
