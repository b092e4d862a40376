//! Images that the engine does not have, and a registry has.

use std::time::Duration;

use driver::PullProgress;
use tokio::time::Instant;

use super::image::Behaviour;

/// What every pull brings, in bytes: a hundred even parts.
const TOTAL_BYTES: u64 = 100 << 20;

/// An image that a registry has.
#[derive(Clone, Debug)]
pub(super) struct Pull {
    pub(super) takes: Duration,
    pub(super) behaviour: Behaviour,
    pub(super) begun: Option<Instant>,
}

impl Pull {
    /// How far it is, if it has begun.
    pub(super) fn progress(&self) -> Option<PullProgress> {
        let percent = self.begun?.elapsed().as_millis().saturating_mul(100) / self.takes.as_millis().max(1);
        let percent = u64::try_from(percent).unwrap_or(u64::MAX).min(100);
        Some(PullProgress { done_bytes: TOTAL_BYTES / 100 * percent, total_bytes: TOTAL_BYTES })
    }
}
