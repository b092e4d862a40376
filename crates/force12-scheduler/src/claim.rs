//! One scheduler of a cluster acts, the others stand by.
//!
//! All of them name one lock file. Whoever has its lock acts, and nobody else touches an engine. A scheduler that is
//! gone, killed or ended has no lock any more. One that is stopped or hangs is killed by the kernel, which is what the
//! deadline is for: it decides how long the others wait, never who acts. So there is no moment at which two act, and
//! none at which one acts again that had been passed over; taking over is what every start after a kill is.

use std::path::Path;
use std::time::Duration;

use api_types::Timestamp;
use nix::unistd::gethostname;
use tokio::time::{Interval, MissedTickBehavior, interval};

use crate::config::Settings;
use crate::deadline::{Deadline, DeadlineError};
use crate::lock::{Lock, LockError};

/// How often the lock is tried, or checked, and the deadline moved on. Each costs a few system calls; the shortest
/// deadline is five times as long.
const BEAT: Duration = Duration::from_millis(100);

/// How long the process may take to end when its work has ended: longer than telemetry's last words.
const EXIT_TIMEOUT: Duration = Duration::from_secs(10);

/// A scheduler's claim to act for its cluster. It has to live as long as the process, or something of the process could
/// act beyond it.
#[derive(Debug)]
pub struct Claim {
    lock: Lock,
    deadline: Deadline,
    stalled_after: Duration,
}

/// Why a claim cannot be made, or is lost.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// There is no lock to be had.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The kernel keeps no deadline.
    #[error(transparent)]
    Deadline(#[from] DeadlineError),
}

impl Claim {
    /// Sets the deadline, then tries the lock: never is there a lock without a deadline.
    pub fn make(lock_file: &Path, stalled_after: Duration) -> Result<Self, ClaimError> {
        let deadline = Deadline::set(stalled_after)?;
        Ok(Self { lock: Lock::open(lock_file)?, deadline, stalled_after })
    }

    /// Returns when this scheduler is the one that acts. Whoever does so until then is told to `tell`, each time that
    /// it is asked.
    pub async fn granted(&mut self, mut tell: impl FnMut(String)) -> Result<(), ClaimError> {
        let mut beats = beats();
        while !self.lock.take()? {
            tell(standing_by(&self.lock));
            self.beat(&mut beats).await?;
        }
        Ok(())
    }

    /// Who acts in place of this one, by its own words; `None` if this one does.
    pub fn other(&self) -> Option<String> {
        let other = || self.lock.holder().unwrap_or_else(|| "it has not said who it is".to_owned());
        (!self.lock.is_held()).then(other)
    }

    /// Says in the lock file who acts, for people; nothing depends on it.
    pub fn sign(&mut self, holder: &str) {
        if let Err(error) = self.lock.sign(holder) {
            let file = self.lock.path().display();
            tracing::warn!(%file, %error, "cannot write into the lock file who acts; its lock holds all the same");
        }
    }

    /// Upholds the claim, and returns when that is no longer possible: then this process has to end.
    pub async fn upheld(&mut self) -> ClaimError {
        let mut beats = beats();
        loop {
            if let Err(error) = self.beat(&mut beats).await {
                return error;
            }
            if let Err(error) = self.lock.check() {
                return error.into();
            }
        }
    }

    /// For when all that is left is to end, and the claim is upheld no more.
    pub fn exiting(&mut self) -> Result<(), ClaimError> {
        Ok(self.deadline.move_on(EXIT_TIMEOUT)?)
    }

    /// Moves the deadline on, if the runtime's threads still do what they are given.
    async fn beat(&mut self, beats: &mut Interval) -> Result<(), ClaimError> {
        beats.tick().await;
        let _ = tokio::spawn(std::future::ready(())).await;
        Ok(self.deadline.move_on(self.stalled_after)?)
    }
}

/// Who this process is, for the lock file: one line.
pub fn signature(command: &str, settings: &Settings, details: &str) -> String {
    let host = gethostname().unwrap_or_default();
    format!(
        "{command}: pid {} on {}, cluster {}{details}, since {}",
        std::process::id(),
        host.display(),
        settings.controller.cluster,
        Timestamp::now()
    )
}

/// What a scheduler says of itself while another acts.
fn standing_by(lock: &Lock) -> String {
    match lock.holder() {
        Some(holder) => format!("standing by while another acts ({holder})"),
        None => format!("standing by while another holds {}", lock.path().display()),
    }
}

fn beats() -> Interval {
    let mut beats = interval(BEAT);
    // After a delay the others come no sooner: there is nothing to catch up with.
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    beats
}
