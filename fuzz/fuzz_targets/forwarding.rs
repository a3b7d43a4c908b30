//! Whatever a datagram for or from a helper says. `tests/datagrams` does a bounded part of this in every test
//! run.

#![no_main]

#[path = "../../tests/datagrams/taken.rs"]
#[allow(dead_code)]
mod taken;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use taken::{Believed, Victim};

static VICTIM: LazyLock<Victim> = LazyLock::new(Victim::new);

fuzz_target!(|datagram: &[u8]| {
    let mut believed = Believed::default();
    VICTIM.take_forwarding(datagram, &mut believed);
    assert_eq!(believed.sealed, 0);
});
