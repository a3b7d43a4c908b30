//! Where the nonsense of a run comes from.

/// The seed of this run; `P2P_NODE_SEED` takes its place.
#[allow(clippy::print_stdout, reason = "it is shown when the test fails")]
pub(crate) fn seed() -> u64 {
    let seed = std::env::var("P2P_NODE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    println!("to replay: P2P_NODE_SEED={seed}");
    seed
}
