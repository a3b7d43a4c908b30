//! The protobuf messages of `proto/`, as Rust types. Each module here is one file there.
#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code")]
#![allow(clippy::as_conversions, clippy::use_self, clippy::or_fun_call, reason = "generated code")]

pub use package::{Message, outbox, rendezvous, stdio, wire};

mod package {
    include!(concat!(env!("OUT_DIR"), "/p2p_node.rs"));

    /// `proto/wire.proto`.
    pub mod wire {
        include!(concat!(env!("OUT_DIR"), "/p2p_node.wire.rs"));
    }

    /// `proto/outbox.proto`.
    pub mod outbox {
        include!(concat!(env!("OUT_DIR"), "/p2p_node.outbox.rs"));
    }

    /// `proto/stdio.proto`.
    pub mod stdio {
        include!(concat!(env!("OUT_DIR"), "/p2p_node.stdio.rs"));
    }

    /// `proto/rendezvous.proto`.
    pub mod rendezvous {
        include!(concat!(env!("OUT_DIR"), "/p2p_node.rendezvous.rs"));
    }
}

/// Bytes as a list of numbers.
#[cfg(test)]
pub(crate) fn as_numbers<S: serde::Serializer>(
    bytes: &bytes::Bytes,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(&bytes[..])
}
