//! Real NAT in real kernels: hosts, routers and a small internet made of network namespaces.
//!
//! ```text
//!                    core: routes, nothing else; delays or loses packets if told so
//!         198.51.100.10 │ 198.51.100.11      203.0.113.1 │        203.0.113.2 │
//!            ┌──────────┴─────────┐              ┌───────┴──────┐     ┌───────┴──────┐
//!            │ a public host      │              │ home router  │     │ carrier NAT  │
//!            └────────────────────┘              │ 192.168.1.1  │     │ 100.64.0.1   │
//!                                                └───────┬──────┘     └───────┬──────┘
//!                                                192.168.1.20         100.64.0.20
//!                                                ┌───────┴──────┐     ┌───────┴──────┐
//!                                                │ a host       │     │ home router …│
//!                                                └──────────────┘     └──────────────┘
//! ```
//!
//! Every home uses the same private network, as homes do: what is somebody's address in one is somebody
//! else's in the next. `lab.rs` builds the picture, `nat.rs` says how each kind of NAT is made of
//! nftables rules, `user_nat.rs` which are made in user space, `proof.rs` shows that each kind does what its name says.
//!
//! This needs root and the programs `ip`, `nft` and `python3`. Where they are missing, a test says so and
//! passes, except under `CI=true`, where it fails. Every lab removes what it made when it is dropped, and
//! first of all what labs of dead processes left behind.

#![allow(
    unreachable_pub,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    clippy::print_stderr,
    reason = "a test program: it runs others in real time, says why it skips, and may panic"
)]

mod cells;
mod command;
mod flood;
mod lab;
mod namespace;
mod nat;
mod netcheck;
mod outages;
mod process;
mod proof;
mod roaming;
mod scenario;
mod user_nat;
