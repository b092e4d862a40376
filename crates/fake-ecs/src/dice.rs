//! Seeded draws that depend on what is asked, not on the order in which tasks happen to run.

use std::ops::RangeInclusive;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A generator of its own for the `nth` time that `what` is asked of `subject`.
pub(crate) fn dice(seed: u64, what: &str, subject: &str, nth: u64) -> ChaCha8Rng {
    // FNV-1a: stable across platforms and toolchains, which the standard library's hashers don't promise.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let parts = [&seed.to_le_bytes(), what.as_bytes(), b"\0", subject.as_bytes(), b"\0", &nth.to_le_bytes()];
    for &byte in parts.into_iter().flatten() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    ChaCha8Rng::seed_from_u64(hash)
}

/// So many milliseconds from the range, ends included.
pub(crate) fn millis(dice: &mut ChaCha8Rng, range: &RangeInclusive<u64>) -> Duration {
    Duration::from_millis(dice.random_range(range.clone()))
}

/// 0 to 999.
pub(crate) fn per_mille(dice: &mut ChaCha8Rng) -> u32 {
    dice.random_range(0..1_000)
}

/// 32 hexadecimal digits: an id as ECS gives to tasks and container instances.
pub(crate) fn hex_id(dice: &mut ChaCha8Rng) -> String {
    format!("{:032x}", dice.random::<u128>())
}

/// The same as a UUID, as ECS gives to containers and events.
pub(crate) fn uuid(dice: &mut ChaCha8Rng) -> String {
    let hex = hex_id(dice);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}
