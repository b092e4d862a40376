//! What containers of an image do once they are started.

/// What containers of an image do. The default runs for ever and ends at the stop signal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Behaviour {
    /// Ends by itself so many milliseconds after its start, with this exit code.
    pub exits: Option<(u64, i64)>,
    /// Only SIGKILL ends it.
    pub ignores_stop_signal: bool,
    /// The engine refuses to start it (a command that is not there).
    pub fails_to_start: bool,
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

    /// Runs for ever, and only SIGKILL ends it.
    pub fn ignores_stop_signal() -> Self {
        Self { ignores_stop_signal: true, ..Self::default() }
    }

    /// Cannot be started.
    pub fn fails_to_start() -> Self {
        Self { fails_to_start: true, ..Self::default() }
    }
}
