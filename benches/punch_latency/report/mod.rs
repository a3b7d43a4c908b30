//! What the bench reports, drawn from its figures alone: tables, and a heat map.
//!
//! The bench and the tests of the documents share this part. It does not know how anything is measured.

pub(crate) mod documents;
pub(crate) mod figures;
mod heat_map;
mod neighbours;
pub(crate) mod side;
mod tables;
mod targets;
