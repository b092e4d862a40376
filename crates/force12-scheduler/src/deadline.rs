//! A deadline that the kernel keeps: a process that does not move it on in time is killed.
//!
//! SIGKILL takes effect on a process that is stopped (SIGSTOP) too: it ends without running again.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use nix::time::ClockId;

/// A timer that kills this process, unless it is moved on or dropped before.
#[derive(Debug)]
pub struct Deadline(Timer);

/// The kernel refuses the timer.
#[derive(Debug, thiserror::Error)]
#[error("cannot set the timer that ends this process if it hangs: {0}")]
pub struct DeadlineError(#[from] Errno);

impl Deadline {
    /// This process is killed `after` this call, a time above zero. While the whole machine sleeps, time stands still.
    pub fn set(after: Duration) -> Result<Self, DeadlineError> {
        let kill = SigevNotify::SigevSignal { signal: Signal::SIGKILL, si_value: 0 };
        let timer = Timer::new(ClockId::CLOCK_MONOTONIC, SigEvent::new(kill))?;
        let mut deadline = Self(timer);
        deadline.move_on(after)?;
        Ok(deadline)
    }

    /// It is killed `after` this call instead.
    pub fn move_on(&mut self, after: Duration) -> Result<(), DeadlineError> {
        Ok(self.0.set(Expiration::OneShot(after.into()), TimerSetTimeFlags::empty())?)
    }
}
