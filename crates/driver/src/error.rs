//! The errors of a driver, by what the caller can do about them.

/// Why a driver could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The engine cannot be reached; nothing was done.
    #[error("{engine} cannot be reached: {message}")]
    Unreachable {
        /// The driver's name.
        engine: String,
        /// What happened, with what to do where that is known.
        message: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The engine did not answer in time, or the connection broke after the request was sent: it may have been
    /// done or not. The next observation tells.
    #[error("{engine} gave no clear answer to {call}: {message}")]
    OutcomeUnknown {
        /// The driver's name.
        engine: String,
        /// The call, as in the trait.
        call: &'static str,
        /// What happened.
        message: String,
    },
    /// What a start or thaw waited for did not leave its room in time; it was not started.
    #[error("{engine}: {container} did not end within {waited_ms} ms")]
    Timeout {
        /// The driver's name.
        engine: String,
        /// What was waited for.
        container: String,
        /// For how long.
        waited_ms: u64,
    },
    /// The engine refused, and will refuse again until something changes: no such image, a bad command, a port
    /// in use.
    #[error("{engine} refused {call}: {message}")]
    Rejected {
        /// The driver's name.
        engine: String,
        /// The call, as in the trait.
        call: &'static str,
        /// A code for metrics and decisions: `image_missing`, `conflict`, `bad_spec`, `not_found`, `engine`; and of a
        /// pull `registry_denied`, `registry_unreachable`, `no_space`, `pull_stalled`, `pull_failed`. Of an engine that
        /// places by its own account, what it finds wanting: `no_cpu`, `no_memory`, `no_ports`, `no_eni`, `no_gpu`,
        /// `no_room`, `attribute`, `location`, `agent_disconnected`, `instance_missing`, `instance_inactive`; and of one
        /// with rights and quotas `denied`, `throttled`, `cluster_missing`.
        code: &'static str,
        /// The engine's words.
        message: String,
    },
    /// This driver cannot do this at all; its capabilities say so.
    #[error("{engine} cannot {call}")]
    Unsupported {
        /// The driver's name.
        engine: String,
        /// The call, as in the trait.
        call: &'static str,
    },
}

impl DriverError {
    /// A code for metrics and decisions.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "unreachable",
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::Timeout { .. } => "timeout",
            Self::Rejected { code, .. } => code,
            Self::Unsupported { .. } => "unsupported",
        }
    }
}
