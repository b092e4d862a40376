//! Images that the engine does not have, and a registry has.

use std::time::Duration;

use driver::PullProgress;
use tokio::time::Instant;

use super::image::Behaviour;

/// What every pull brings, in bytes: a hundred even parts.
const TOTAL_BYTES: u64 = 100 << 20;

/// How a pull ends.
#[derive(Clone, Debug)]
pub(super) enum End {
    /// The engine has an image whose containers do this.
    Comes(Behaviour),
    /// Nothing comes, and it fails with this code.
    Fails(&'static str),
}

/// An image that a registry is asked for.
#[derive(Clone, Debug)]
pub(super) struct Pull {
    pub(super) takes: Duration,
    pub(super) end: End,
    pub(super) begun: Option<Instant>,
}

impl Pull {
    /// How far it is, if it has begun.
    pub(super) fn progress(&self) -> Option<PullProgress> {
        let elapsed = self.begun?.elapsed();
        if let End::Fails(_) = self.end {
            return Some(PullProgress { idle: elapsed, ..PullProgress::default() });
        }
        let percent = elapsed.as_millis().saturating_mul(100) / self.takes.as_millis().max(1);
        let done_bytes = TOTAL_BYTES / 100 * u64::try_from(percent).unwrap_or(u64::MAX).min(100);
        Some(PullProgress { done_bytes, total_bytes: TOTAL_BYTES, ..PullProgress::default() })
    }
}
