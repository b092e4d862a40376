//! How a simulated engine behaves: seed, latencies, fault rates, capabilities.

use std::ops::RangeInclusive;

use driver::Capabilities;
use tokio::sync::Semaphore;

use super::fault::{Call, FaultRates};

/// How a [`SimEngine`](super::SimEngine) behaves. The default is a quiet Docker engine with seed 0.
#[derive(Clone, Debug)]
pub struct SimConfig {
    /// Every latency and every seeded fault follows from this. Print it where a test draws it.
    pub seed: u64,
    /// How long the engine takes for each call.
    pub latencies: Latencies,
    /// Milliseconds from a change to its event.
    pub event_delay_ms: RangeInclusive<u64>,
    /// How often calls fail by themselves.
    pub fault_rates: FaultRates,
    /// What the engine can do. Without `idempotent_start` every start makes one more container, and the
    /// ordinal of what is observed is not known (as on ECS).
    pub capabilities: Capabilities,
    /// How many requests that change something the engine works on at once; the others wait within it, first come, first
    /// served. The default is no bound.
    pub works_on: usize,
    /// The driver's own bound on such requests, as it tells it. It does not hold any back.
    pub parallel_calls: usize,
    /// Whether an observation tells `starting` and `stopping` apart (ECS does). Docker says `created` until a
    /// container runs, and `running` until it has ended.
    pub reports_transitions: bool,
    /// Milliseconds after which a change of a container shows in what is observed, drawn anew for each container and
    /// observation (but nothing that was shown is taken back). More than 0 is an engine that is consistent eventually: one
    /// that was just started is not listed yet, one that has just ended is listed as running (as on ECS).
    pub lists_late_ms: RangeInclusive<u64>,
    /// The driver's own limit for one call, in milliseconds; a stop gets its grace on top.
    pub call_timeout_ms: u64,
    /// The driver's own limit for what a start or thaw waits for, in milliseconds.
    pub after_timeout_ms: u64,
    /// What the engine's clock says when the engine is made: milliseconds since the Unix epoch.
    pub epoch_ms: u64,
}

impl Default for SimConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            latencies: Latencies::default(),
            event_delay_ms: 0..=1,
            fault_rates: FaultRates::default(),
            capabilities: Capabilities { freeze: true, idempotent_start: true },
            works_on: Semaphore::MAX_PERMITS,
            parallel_calls: 16,
            reports_transitions: false,
            lists_late_ms: 0..=0,
            call_timeout_ms: 10_000,
            after_timeout_ms: 30_000,
            epoch_ms: 1_795_000_000_000,
        }
    }
}

impl SimConfig {
    /// The default with this seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }
}

/// How long the engine takes for each call, in milliseconds, drawn evenly from the range.
///
/// The defaults surround the medians of a Docker 20.10 engine with containers on the host network: create 7,
/// start 90, stop 40 to 90, remove 6, pause 10, unpause 9.
#[derive(Clone, Debug)]
pub struct Latencies {
    /// Listing what is there.
    pub observe: RangeInclusive<u64>,
    /// Looking an image up.
    pub prepare: RangeInclusive<u64>,
    /// Creating a container.
    pub create: RangeInclusive<u64>,
    /// From the start request until the container runs.
    pub start: RangeInclusive<u64>,
    /// From the stop signal until a container that heeds it has ended.
    pub stop: RangeInclusive<u64>,
    /// Suspending.
    pub freeze: RangeInclusive<u64>,
    /// Resuming.
    pub thaw: RangeInclusive<u64>,
    /// Removing.
    pub remove: RangeInclusive<u64>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self {
            observe: 2..=6,
            prepare: 1..=3,
            create: 5..=10,
            start: 75..=120,
            stop: 40..=90,
            freeze: 8..=13,
            thaw: 7..=12,
            remove: 4..=9,
        }
    }
}

impl Latencies {
    /// The same range for every call; `0..=0` makes the engine instantaneous.
    pub fn all(range: RangeInclusive<u64>) -> Self {
        Self {
            observe: range.clone(),
            prepare: range.clone(),
            create: range.clone(),
            start: range.clone(),
            stop: range.clone(),
            freeze: range.clone(),
            thaw: range.clone(),
            remove: range,
        }
    }

    pub(super) fn of(&self, call: Call) -> RangeInclusive<u64> {
        match call {
            Call::Observe => &self.observe,
            Call::Prepare => &self.prepare,
            Call::Create => &self.create,
            Call::Start => &self.start,
            Call::Stop => &self.stop,
            Call::Freeze => &self.freeze,
            Call::Thaw => &self.thaw,
            Call::Remove => &self.remove,
        }
        .clone()
    }
}
