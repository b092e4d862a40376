//! RFC 9457 problem documents, the body of every error.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The media type of a problem document.
pub const PROBLEM_JSON: &str = "application/problem+json";

/// How the type of a problem with a code begins.
pub const PROBLEM_URN: &str = "urn:force12:problem:";

/// The code of a scheduler's answers while another one of its cluster acts.
pub const STANDING_BY: &str = "standing-by";

/// What went wrong with a request, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProblemDocument {
    /// `about:blank` where the status says it all, otherwise `urn:force12:problem:` and a code.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong with this request, and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl ProblemDocument {
    /// Whether its type is that of `code`.
    pub fn has_code(&self, code: &str) -> bool {
        self.kind.strip_prefix(PROBLEM_URN) == Some(code)
    }
}
