//! Seeded draws that depend on what is asked, not on the order in which tasks happen to run.

use std::ops::RangeInclusive;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A generator of its own for the `nth` time that `what` is asked of `subject`.
pub(super) fn dice(seed: u64, what: &str, subject: &str, nth: u64) -> ChaCha8Rng {
    // FNV-1a: stable across platforms and toolchains, which the standard library's hashers don't promise.
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let parts = [&seed.to_le_bytes(), what.as_bytes(), b"\0", subject.as_bytes(), b"\0", &nth.to_le_bytes()];
    for &byte in parts.into_iter().flatten() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    ChaCha8Rng::seed_from_u64(hash)
}

/// A number from the range, ends included.
pub(super) fn draw(dice: &mut ChaCha8Rng, range: RangeInclusive<u64>) -> u64 {
    dice.random_range(range)
}

/// 0 to 999.
pub(super) fn per_mille(dice: &mut ChaCha8Rng) -> u32 {
    dice.random_range(0..1_000)
}
