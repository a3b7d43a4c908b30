//! How a client finds a server on the same machine without any network: the server leaves its ticket in
//! a file that only its user can read.
//!
//! The file is `<service>.ticket`, or `default.ticket` for a server without a service, in a directory of
//! the user's own. A lock beside it tells whether the server that wrote it still lives.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use p2p_node::{
    sealing::Key,
    service::ServiceName,
    ticket::{ADDRESSES_MAX, Ticket},
};

use crate::{lock::Lock, private};

/// More than the longest ticket and a process id have.
const FILE_BYTES_MAX: u64 = 2_048;

/// Characters of a file's name that a service's name may take; file systems allow 255 with the ending.
const NAME_CHARACTERS_MAX: usize = 200;

/// A ticket that lies ready for clients, until this is dropped.
#[derive(Debug)]
pub(crate) struct HandOff {
    file: PathBuf,
    _lock: Lock,
}

impl HandOff {
    /// Leaves `ticket` in `directory` for clients of `service`. `None` if another server has done so.
    pub(crate) fn publish(
        directory: &Path,
        service: Option<&ServiceName>,
        ticket: &Ticket,
    ) -> io::Result<Option<Self>> {
        private::create_directory(directory)?;
        if !private::is_own_directory(directory) {
            return Err(io::Error::other("the directory is not this user's alone"));
        }
        let name = file_name(service);
        let Some(lock) = Lock::try_take(&directory.join(format!("{name}.lock")))? else {
            return Ok(None);
        };
        // Under another name first: a client never sees half a ticket. What lies there is of a server
        // that died.
        let (new, file) =
            (directory.join(format!("{name}.new")), directory.join(format!("{name}.ticket")));
        let mut writer = private::options().write(true).create(true).truncate(true).open(&new)?;
        writeln!(writer, "{ticket}\npid {}", std::process::id())?;
        fs::rename(&new, &file)?;
        Ok(Some(Self { file, _lock: lock }))
    }
}

impl Drop for HandOff {
    fn drop(&mut self) {
        // What stays is ignored, because nobody holds the lock.
        let _ = fs::remove_file(&self.file);
    }
}

/// The ticket of a living server of `service` on this machine.
pub(crate) fn find(directory: &Path, service: Option<&ServiceName>) -> Option<Ticket> {
    if !private::is_own_directory(directory) {
        return None;
    }
    let name = file_name(service);
    let file = File::open(directory.join(format!("{name}.ticket"))).ok()?;
    if !Lock::is_taken(&directory.join(format!("{name}.lock"))) {
        return None;
    }
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    text.lines().next()?.parse().ok()
}

/// Where this user's servers leave their tickets.
pub(crate) fn directory() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    match runtime.filter(|path| path.is_absolute()) {
        Some(runtime) => runtime.join("p2p-node"),
        None => std::env::temp_dir().join(fallback_name()),
    }
}

/// Addresses under which a server that is bound to `local` is reached from the same machine, best first.
pub(crate) fn addresses(bind: &[SocketAddr], local: &[SocketAddr]) -> Vec<SocketAddr> {
    let everywhere = bind.is_empty() || bind.iter().any(|address| address.ip().is_unspecified());
    let mut addresses = Vec::new();
    for address in local.iter().filter(|_| everywhere) {
        let loopback = match address {
            SocketAddr::V4(address) => SocketAddr::from((Ipv4Addr::LOCALHOST, address.port())),
            SocketAddr::V6(address) => SocketAddr::from((Ipv6Addr::LOCALHOST, address.port())),
        };
        if !addresses.contains(&loopback) {
            addresses.push(loopback);
        }
    }
    let others = local.iter().filter(|address| !addresses.contains(address)).copied();
    let others: Vec<SocketAddr> = others.collect();
    addresses.extend(others);
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

/// The service's name with everything escaped that a file system may take amiss.
fn file_name(service: Option<&ServiceName>) -> String {
    let Some(service) = service else {
        return "default".to_owned();
    };
    let mut name = String::new();
    for byte in service.as_str().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => name.push(char::from(byte)),
            b'.' if !name.is_empty() => name.push('.'),
            _ => name += &format!("%{byte:02X}"),
        }
    }
    if name.len() <= NAME_CHARACTERS_MAX {
        return name;
    }
    let digest = Key::derive("p2p-node hand-off", service.as_str().as_bytes(), &[]);
    data_encoding::HEXLOWER.encode(digest.as_bytes())
}

#[cfg(unix)]
fn fallback_name() -> String {
    format!("p2p-node-{}", rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn fallback_name() -> String {
    "p2p-node".to_owned()
}

#[cfg(test)]
mod tests {
    use p2p_node::identity::Identity;

    use super::*;

    /// A directory that no other test uses.
    fn directory(test: &str) -> PathBuf {
        let directory =
            std::env::temp_dir().join(format!("p2p-node-test-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        directory
    }

    fn service() -> ServiceName {
        "myapi:v1".parse().unwrap()
    }

    fn ticket() -> Ticket {
        let address = "127.0.0.1:41641".parse().unwrap();
        Ticket::of(&Identity::from_seed([1; 32]), vec![address])
    }

    #[test]
    fn a_client_finds_the_server_for_as_long_as_it_lives() {
        let directory = directory("lives");
        assert_eq!(find(&directory, Some(&service())), None);
        let left = HandOff::publish(&directory, Some(&service()), &ticket()).unwrap().unwrap();
        assert_eq!(find(&directory, Some(&service())), Some(ticket()));
        assert_eq!(find(&directory, None), None);
        let second = HandOff::publish(&directory, Some(&service()), &ticket()).unwrap();
        assert!(second.is_none(), "the first server stays");
        drop(left);
        assert_eq!(find(&directory, Some(&service())), None);
        assert!(!directory.join("myapi%3Av1.ticket").exists());
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_a_dead_server_left_is_ignored() {
        let directory = directory("dead");
        let left = HandOff::publish(&directory, None, &ticket()).unwrap().unwrap();
        let copy = directory.join("copy");
        fs::copy(&left.file, &copy).unwrap();
        drop(left);
        fs::rename(copy, directory.join("default.ticket")).unwrap();
        assert_eq!(find(&directory, None), None);
        fs::remove_dir_all(directory).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_others_may_change_is_not_trusted() {
        use std::os::unix::fs::{PermissionsExt, symlink};

        let directory = directory("trust");
        let left = HandOff::publish(&directory, None, &ticket()).unwrap().unwrap();
        let link = directory.with_extension("link");
        let _ = fs::remove_file(&link);
        symlink(&directory, &link).unwrap();
        assert_eq!(find(&link, None), None);
        assert!(HandOff::publish(&link, Some(&service()), &ticket()).is_err());
        fs::set_permissions(&directory, fs::Permissions::from_mode(0o770)).unwrap();
        assert_eq!(find(&directory, None), None);
        drop(left);
        fs::remove_file(link).unwrap();
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn no_service_name_leads_out_of_the_directory() {
        let name = |text: &str| file_name(Some(&text.parse().unwrap()));
        assert_eq!(name("my-api_1.2"), "my-api_1.2");
        assert_eq!(name("../x/y"), "%2E.%2Fx%2Fy");
        assert_eq!(name(&"ü".repeat(64)).len(), 64);
    }

    #[test]
    fn loopback_comes_first_where_the_server_listens_on_it() {
        let lan: SocketAddr = "192.168.1.20:41641".parse().unwrap();
        let loopback: SocketAddr = "127.0.0.1:41641".parse().unwrap();
        assert_eq!(addresses(&[], &[lan]), [loopback, lan]);
        assert_eq!(
            addresses(&["0.0.0.0:41641".parse().unwrap()], &[lan, loopback]),
            [loopback, lan]
        );
        assert_eq!(addresses(&[lan], &[lan]), [lan]);
    }
}
