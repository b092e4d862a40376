//! What containers of an image do once they are started.

/// What containers of an image do. The default runs for ever and ends at the stop signal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Ends by itself so many milliseconds after its start, with this exit code.
    pub exits: Option<(u64, i64)>,
    /// Where it ends by itself, the kernel does it for want of memory.
    pub out_of_memory: bool,
    /// Only SIGKILL ends it.
    pub ignores_stop_signal: bool,
    /// The engine refuses to start it (a command that is not there).
    pub fails_to_start: bool,
    /// What its healthcheck says; `None` where it has none.
    pub healthcheck: Option<Checked>,
}

/// What the healthcheck of a container says in the course of its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Healthy so many milliseconds after it has begun to run or was resumed; never if `None`.
    pub healthy_after_ms: Option<u64>,
    /// Unhealthy so many milliseconds after it has begun to run or was resumed; never if `None`.
    pub unhealthy_after_ms: Option<u64>,
}

impl Behaviour {
    /// Runs for ever.
    pub fn runs() -> Self {
        Self::default()
    }

    /// Ends by itself with this exit code, so many milliseconds after its start.
    pub fn exits(code: i64, after_ms: u64) -> Self {
        Self { exits: Some((after_ms, code)), ..Self::default() }
    }

    /// The kernel ends it for want of memory, so many milliseconds after its start.
    pub fn runs_out_of_memory(after_ms: u64) -> Self {
        Self { out_of_memory: true, ..Self::exits(137, after_ms) }
    }

    /// Runs for ever, and only SIGKILL ends it.
    pub fn ignores_stop_signal() -> Self {
        Self { ignores_stop_signal: true, ..Self::default() }
    }

    /// Cannot be started.
    pub fn fails_to_start() -> Self {
        Self { fails_to_start: true, ..Self::default() }
    }

    /// Runs for ever, and is healthy so many milliseconds after its start.
    pub fn healthy_after(ms: u64) -> Self {
        Self::checked(Checked { healthy_after_ms: Some(ms), unhealthy_after_ms: None })
    }

    /// Runs for ever, and its healthcheck says this.
    pub fn checked(healthcheck: Checked) -> Self {
        Self { healthcheck: Some(healthcheck), ..Self::default() }
    }
}
