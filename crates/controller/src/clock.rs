//! The clock: the time of day read once, carried on by the monotonic clock.

use planner::Millis;
use tokio::time::Instant;

/// Tells [`Millis`] since the Unix epoch that never go backwards, whatever happens to the time of day.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
    origin_unix_ms: u64,
}

impl Clock {
    /// A clock that reads `unix_ms` (milliseconds since the Unix epoch) at this moment.
    pub fn starting_at(unix_ms: u64) -> Self {
        Self { origin: Instant::now(), origin_unix_ms: unix_ms }
    }

    /// A clock that starts at the system's time of day.
    pub fn system() -> Self {
        let since_epoch =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }

    /// The moment.
    pub fn now(&self) -> Millis {
        self.at(Instant::now())
    }

    /// A moment of the monotonic clock, on this one; the origin for anything earlier.
    pub fn at(&self, instant: Instant) -> Millis {
        let elapsed_ms = instant.saturating_duration_since(self.origin).as_millis();
        Millis(self.origin_unix_ms).plus(u64::try_from(elapsed_ms).unwrap_or(u64::MAX))
    }

    /// The first moment of the monotonic clock at which [`Clock::now`] is `moment` or later.
    pub fn instant(&self, moment: Millis) -> Instant {
        // Bounded, because an instant too far ahead cannot be represented.
        const FAR_MS: u64 = 30 * 24 * 3_600_000;
        let ahead_ms = moment.since(Millis(self.origin_unix_ms));
        let far_ms =
            u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(FAR_MS);
        self.origin + std::time::Duration::from_millis(ahead_ms.min(far_ms))
    }
}
