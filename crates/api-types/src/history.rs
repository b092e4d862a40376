//! History: `GET /v1/history` of status-api.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;

/// Samples of the last `window_ms`, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct History {
    /// The window that was answered, at most what is kept.
    pub window_ms: u64,
    /// The services in the order of every sample's `services`.
    pub services: Vec<String>,
    /// Oldest first.
    pub samples: Vec<Sample>,
}

/// The counts of one snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Sample {
    /// When it was sampled, by the clock of status-api.
    pub at: Timestamp,
    /// Whether the scheduler was heard; counts are null where it was not.
    pub live: bool,
    /// Whether everything that was wanted ran.
    pub success: Option<bool>,
    /// Slots of the ready instances.
    pub usable_slots: u64,
    /// By service, in the order of [`History::services`].
    pub services: Vec<Option<ServiceSample>>,
}

/// The counts of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceSample {
    /// Null if unknown, or for a service that fills.
    pub demand: Option<u32>,
    /// Starting.
    pub starting: u32,
    /// Running.
    pub running: u32,
    /// Stopping.
    pub stopping: u32,
    /// Frozen.
    pub frozen: u32,
}
