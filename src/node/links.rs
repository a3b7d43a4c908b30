//! Links that are up, and their paths: who is connected (`linking`), over which path (`routing`), whose probes
//! are whose (`conversing`), and what becomes of a link whose path is gone (`rescue`).

pub(super) mod conversing;
pub(super) mod linking;
pub(super) mod rescue;
pub(super) mod routing;
