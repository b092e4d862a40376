//! The service's clock.

use api_types::Timestamp;
use tokio::time::Instant;

/// The wall clock, read once and carried on by the monotonic one: it never goes back, so that neither does history.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin_ms: u64,
    started_at: Instant,
}

impl Clock {
    /// A clock that shows `origin` now.
    pub fn starting_at(origin: Timestamp) -> Self {
        Self { origin_ms: origin.epoch_ms(), started_at: Instant::now() }
    }

    /// The moment.
    pub fn now(&self) -> Timestamp {
        let passed_ms = u64::try_from(self.started_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_epoch_ms(self.origin_ms.saturating_add(passed_ms))
    }
}
