//! The frames of a link's control stream, and the numbers that both sides know.

use crate::{
    proto::wire::{
        Ack, Addresses, Bye, Control, Hello, Ping, Pong, Resume, Welcome, control::Kind,
    },
    transport::frame::Frame,
};

/// The version of the protocol in every hello.
pub(super) const VERSION: u32 = 1;

/// First byte of a control stream.
pub(super) const CONTROL_STREAM: u8 = 1;

/// First byte of a message stream.
pub(super) const MESSAGE_STREAM: u8 = 2;

impl Frame for Control {
    const SIZE_MAX: usize = 64 << 10;
}

/// A control frame.
pub(super) fn control(kind: impl Into<Kind>) -> Control {
    Control { kind: Some(kind.into()) }
}

macro_rules! kind_from {
    ($($kind:ident),*) => {
        $(impl From<$kind> for Kind {
            fn from(kind: $kind) -> Self {
                Self::$kind(kind)
            }
        })*
    };
}
kind_from!(Hello, Welcome, Ack, Bye, Ping, Pong, Resume, Addresses);
