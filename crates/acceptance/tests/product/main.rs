//! What the product must show, on a real engine; see the crate's documentation for what that needs.

mod abuse;
mod bounds;
mod broken_events;
mod contained;
mod default_demand;
mod demand_sources;
mod edges;
mod ends;
mod extremes;
mod failing;
mod freezing;
mod kills;
mod observing;
mod pulls;
mod rollout;
mod telemetry;
mod two_schedulers;

use std::time::Duration;

/// The time for any change of the whole cluster: a debug build on a busy machine takes a few seconds.
const BOUND: Duration = Duration::from_secs(30);

/// The time after a fall in demand for which what it leaves over may go on running.
const FALL_GRACE_NS: acceptance::timeline::Nanos = 2_000_000_000;

/// By how much our own receipt of a demand may come after the scheduler's.
const RECEIPT_LAG_NS: acceptance::timeline::Nanos = 100_000_000;

/// The seed of whatever is random, printed for the next time.
fn seed() -> u64 {
    let seed = acceptance::from_environment("FORCE12_ACCEPTANCE_SEED", 1);
    println!("FORCE12_ACCEPTANCE_SEED={seed}");
    seed
}

/// Each on a line of its own.
fn lines(breaches: &[acceptance::timeline::Breach]) -> String {
    breaches.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
