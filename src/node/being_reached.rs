//! Somebody reaches us: how we are found (`publishing`), what we do with an offer (`answering`), and who may
//! come in (`arriving`).

pub(super) mod answering;
pub(super) mod arriving;
pub(super) mod publishing;
