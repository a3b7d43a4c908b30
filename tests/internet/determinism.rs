//! The same seed gives the same run: every datagram at the same time with the same length, in one process
//! and in another. Without this, a seed that a failure prints would be worth nothing.

use std::process::Command;

use p2p_node::{lab::Nat, node::Target};
use tokio::time::sleep;

use crate::world::{Home, World, ms, run_exactly, secs, to_service};

#[test]
fn the_same_seed_gives_the_same_run_in_this_and_in_another_process() {
    if std::env::var_os(CHILD).is_some() {
        println!("{MARK}{}", digest(7));
        return;
    }
    let first = digest(7);
    assert_eq!(digest(7), first, "in the same process");
    assert_ne!(digest(8), first, "another seed");
    for _ in 0..2 {
        assert_eq!(digest_of_another_process(), first, "in another process");
    }
}

/// A run with everything that draws from chance: loss, jitter, keys, ports, retries, roaming.
fn digest(seed: u64) -> u64 {
    run_exactly(seed, async |mut world: World| {
        let poor = |home: Home| {
            home.change_uplink(|link| (link.jitter_ms, link.loss) = (20, 0.05));
            home
        };
        let server_home = poor(world.behind(Nat::home()));
        let client_home = poor(world.behind_all(&[Nat::home(), Nat::cgnat()]));
        let server = world.server(&server_home);
        let client = world.standing_client(&client_home);
        for index in 0..20 {
            // What becomes of each message is another test's business.
            let _ = client.say(to_service(), &format!("to {index}")).await;
            let answer = format!("from {index}");
            let _ = server.say(Target::Peer(client.id()), &answer).await;
            if index == 10 {
                client_home.outermost().forget_mappings();
            }
            sleep(ms(100)).await;
        }
        sleep(secs(60)).await;
        world.internet.digest()
    })
}

fn digest_of_another_process() -> u64 {
    let name = "determinism::the_same_seed_gives_the_same_run_in_this_and_in_another_process";
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let digest = text.lines().find_map(|line| {
        let (_, digest) = line.split_once(MARK)?;
        Some(digest.parse().unwrap())
    });
    digest.unwrap_or_else(|| panic!("no digest in {text}"))
}

/// Set for the other process, which only prints its digest.
const CHILD: &str = "P2P_NODE_DIGEST_ONLY";

const MARK: &str = "digest of the run: ";
