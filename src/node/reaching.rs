//! We reach somebody: from a name to a link.
//!
//! `dial` decides how, `dialling` performs it, `standing` is a client's wish to be connected all the time.

pub(super) mod attempt;
pub(super) mod dial;
pub(super) mod dialling;
pub(super) mod found;
pub(super) mod standing;
