//! A datagram of QUIC that shared a buffer with those of another connection, and gets one of its own.
//!
//! The kernel puts whatever arrives in a row from one address into one buffer (GRO), but quinn takes all of
//! a buffer for one virtual address's. A dial's second attempt follows on the heels of the first one's
//! repeated packets; were its first packet lost here, the link would be up 300 ms later.

use std::{io::IoSliceMut, net::SocketAddr};

use quinn::udp::{EcnCodepoint, RecvMeta};

/// The datagram, and whom it is from.
pub(super) struct Apart {
    pub(super) source: SocketAddr,
    pub(super) bytes: Vec<u8>,
    pub(super) ecn: Option<EcnCodepoint>,
}

impl Apart {
    /// Puts the datagram into the first of `buffers`, which are as long as the one that it came in.
    pub(super) fn fill(
        &self,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Option<()> {
        let room = buffers.first_mut()?.get_mut(..self.bytes.len())?;
        room.copy_from_slice(&self.bytes);
        *metas.first_mut()? = RecvMeta {
            addr: self.source,
            len: self.bytes.len(),
            stride: self.bytes.len(),
            ecn: self.ecn,
            dst_ip: None,
        };
        Some(())
    }
}

/// Datagrams that wait for a buffer of their own: what the kernel puts into one buffer at most.
pub(super) const APART_MAX: usize = 64;
