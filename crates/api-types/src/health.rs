//! `GET /healthz` and `GET /readyz`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The answer of a service that is alive, or ready.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `alive` or `ready`; what is not ready answers 503 with a problem document.
    pub status: String,
    /// The service's name and version.
    pub service: String,
}
