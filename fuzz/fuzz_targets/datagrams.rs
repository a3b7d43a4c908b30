//! Whatever arrives at the UDP socket, several datagrams at a time. The first two bytes of the input say how long
//! each is. `tests/datagrams` does a bounded part of this in every test run.

#![no_main]

#[path = "../../tests/datagrams/taken.rs"]
mod taken;

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use taken::Victim;

static VICTIM: LazyLock<Victim> = LazyLock::new(Victim::new);

fuzz_target!(|input: &[u8]| {
    if let Some((stride, bytes)) = input.split_first_chunk() {
        let stride = usize::from(u16::from_be_bytes(*stride));
        assert_eq!(VICTIM.take_buffer(bytes, stride).sealed, 0);
    }
});
