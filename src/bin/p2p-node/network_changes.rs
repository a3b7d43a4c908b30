//! Tells when the machine's network changes: on Linux the kernel says so; elsewhere nobody does, and the
//! node looks at the interfaces every few seconds.

use tokio::sync::watch;

/// A channel that is marked as changed whenever an interface, an address or a route may be another one;
/// `None` where the system does not tell. Must be called within a tokio runtime with I/O.
#[cfg(target_os = "linux")]
pub(crate) fn watch_network() -> Option<watch::Receiver<()>> {
    let socket = netlink::open();
    let socket = socket.inspect_err(|error| tracing::debug!(%error, "the kernel tells nothing"));
    let (sender, receiver) = watch::channel(());
    // Ends with the last receiver.
    tokio::spawn(netlink::follow(socket.ok()?, sender));
    Some(receiver)
}

/// See above.
#[cfg(not(target_os = "linux"))]
pub(crate) fn watch_network() -> Option<watch::Receiver<()>> {
    None
}

#[cfg(target_os = "linux")]
mod netlink {
    //! The kernel's news of the network, rtnetlink(7): that there are some is all that is read.

    use std::{io, os::unix::net::UnixDatagram as StdSocket, time::Duration};

    use rustix::net::{
        AddressFamily, RecvFlags, SocketFlags, SocketType, bind, netlink, recv, socket_with,
    };
    use tokio::{io::Interest, net::UnixDatagram, sync::watch, time::sleep};

    /// Of tokio's sockets the one that is nearest: only whether there is something to read is asked of it.
    pub(super) type Socket = UnixDatagram;

    pub(super) fn open() -> io::Result<Socket> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        // NETLINK_ROUTE is 0, the protocol that is meant if none is named.
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &netlink::SocketAddrNetlink::new(0, GROUPS))?;
        UnixDatagram::from_std(StdSocket::from(socket))
    }

    /// Marks `changes` as long as somebody listens.
    pub(super) async fn follow(socket: Socket, changes: watch::Sender<()>) {
        loop {
            tokio::select! {
                () = changes.closed() => return,
                readable = socket.readable() => if readable.is_err() { return },
            }
            // An interface that comes up has an address a moment later, and a route after that.
            sleep(SETTLE_TIME).await;
            if drain(&socket).is_err() {
                return;
            }
            changes.send_replace(());
        }
    }

    /// Reads all that is there, which is no more than the kernel keeps.
    fn drain(socket: &Socket) -> io::Result<()> {
        let mut buffer = [0_u8; 8_192];
        loop {
            let read = || Ok(recv(socket, &mut buffer, RecvFlags::empty())?);
            match socket.try_io(Interest::READABLE, read) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // So much that some was lost: it is a change all the same.
                Err(error) if error.raw_os_error() == Some(NO_BUFFERS) => {}
                Err(error) => return Err(error),
            }
        }
    }

    const NO_BUFFERS: i32 = rustix::io::Errno::NOBUFS.raw_os_error();

    /// RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR and RTMGRP_IPV6_ROUTE.
    const GROUPS: u32 = 0x1 | 0x10 | 0x40 | 0x100 | 0x400;

    /// News that come together are one; a tenth of what a move may cost.
    const SETTLE_TIME: Duration = Duration::from_millis(50);
}
