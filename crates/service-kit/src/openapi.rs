//! What the OpenAPI documents of all services share: how a request is refused, and the operator's token.
//!
//! A document lists, for each operation, the statuses that its own work may be answered with. What any request to any
//! service may be answered with, whatever it asks for, is said once: see [`ANYWHERE`].

use api_types::problem::{PROBLEM_JSON, ProblemDocument};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{IntoResponses, Modify};

/// The name of the operator's token among a document's security schemes.
pub const OPERATOR: &str = "operator";

/// What any request may be answered with, as a paragraph for a document's description.
pub const ANYWHERE: &str = "Errors are RFC 9457 problem documents. Beside what an operation lists, any request may be answered 408 (not read and answered in time), 413 (a body, where none or a smaller one is taken), or 503 with `Retry-After` (too many connections); a request that is not HTTP, or whose head is too large, is answered 400, 414 or 431 without a document.";

/// How a change is refused, whatever it changes.
#[derive(IntoResponses)]
pub enum ChangeRefused {
    /// It is not understood: its `Host`, its path, its query or its body. Nothing is changed.
    #[response(status = 400, content_type = PROBLEM_JSON)]
    NotUnderstood(ProblemDocument),
    /// No token, or not the operator's.
    #[response(status = 401, content_type = PROBLEM_JSON)]
    Unauthorized(ProblemDocument),
    /// A foreign `Host` or `Origin`; or no token is configured, and the service listens beyond loopback.
    #[response(status = 403, content_type = PROBLEM_JSON)]
    Forbidden(ProblemDocument),
}

/// How a body is refused before it is read, where one is taken.
#[derive(IntoResponses)]
pub enum BodyRefused {
    /// It is larger than this service takes.
    #[response(status = 413, content_type = PROBLEM_JSON)]
    TooLarge(ProblemDocument),
    /// It is not sent as JSON.
    #[response(status = 415, content_type = PROBLEM_JSON)]
    NotJson(ProblemDocument),
}

/// Adds to a document what is the same in all: the operator's token, and [`ANYWHERE`].
#[derive(Clone, Copy, Debug)]
pub struct Common;

impl Modify for Common {
    fn modify(&self, document: &mut utoipa::openapi::OpenApi) {
        let token = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("The operator's token. Not asked for where none is configured and the service listens on loopback."));
        let components = document.components.get_or_insert_default();
        components.add_security_scheme(OPERATOR, SecurityScheme::Http(token.build()));
        let description = document.info.description.get_or_insert_default();
        if !description.is_empty() {
            description.push_str("\n\n");
        }
        description.push_str(ANYWHERE);
    }
}
