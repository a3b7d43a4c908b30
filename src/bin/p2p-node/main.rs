//! The `p2p-node` program.

fn main() {}
