//! The public API: a node, and everything it runs.
