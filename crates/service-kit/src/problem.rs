//! Errors over HTTP: every one is an RFC 9457 problem document.
//!
//! A handler returns `Result<_, Problem>`; [`Json`] and [`Query`] refuse with problem documents. What still leaves
//! a router as a plain error (an unknown path, a wrong method) is turned into one by [`crate::http::app`].

use api_types::problem::{PROBLEM_JSON, PROBLEM_URN, ProblemDocument};
use axum::RequestExt as _;
use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::suggest;

const TOO_LARGE: &str = "the body is larger than this service takes";

/// An error answer: a status and a sentence that says what was wrong and what to do.
#[derive(Clone, Debug)]
pub struct Problem {
    status: StatusCode,
    code: Option<&'static str>,
    detail: Option<String>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    /// An answer with any status; `detail` in lower case, saying what to do.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, code: None, detail: Some(detail.into()), headers: Vec::new() }
    }

    /// 400: the request cannot be understood, or asks for something that is not allowed.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 401: a bearer token is needed, or the one given is not the right one.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail)
            .with_header(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"force12\""))
    }

    /// 403: nobody may do this from there.
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail)
    }

    /// 404: no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 409: not in the present state.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 413: the body is too large.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    }

    /// 500: our fault. What went wrong belongs in the log, not in `detail`.
    pub fn internal(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    }

    /// 502: the service behind this one answered something that cannot be passed on, or did not answer.
    pub fn bad_gateway(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, detail)
    }

    /// 503: not now; ask again.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail)
            .with_header(RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Gives the problem a type of its own, `urn:force12:problem:` and `code`, for programs to tell it by.
    #[must_use]
    pub fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status that it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The sentence.
    pub fn detail(&self) -> Option<&str> {
        self.detail.as_deref()
    }

    /// The document that it is answered with.
    pub fn document(&self) -> ProblemDocument {
        ProblemDocument {
            kind: self.code.map_or_else(|| "about:blank".to_owned(), |code| format!("{PROBLEM_URN}{code}")),
            title: self.status.canonical_reason().unwrap_or("error").to_lowercase(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
        }
    }

    /// The problem that stands for a plain error answer with `status`, whose text, if it had any, was `text`: the
    /// routers' and layers' own refusals. A handler that has more to say returns a [`Problem`] itself.
    pub(crate) fn of_plain(status: StatusCode, text: Option<String>) -> Self {
        let ours = match status {
            StatusCode::NOT_FOUND => Some("no such path; GET /openapi.json lists them"),
            // Which ones these are is added after this answer has been made.
            StatusCode::METHOD_NOT_ALLOWED => {
                Some("this path does not take that method; the `allow` header lists those that it takes")
            }
            StatusCode::PAYLOAD_TOO_LARGE => Some(TOO_LARGE),
            _ => None,
        };
        let detail = ours.map(str::to_owned).or_else(|| text.filter(|text| !text.trim().is_empty()));
        Self { status, code: None, detail, headers: Vec::new() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = self.document();
        let mut response = (self.status, axum::Json(document)).into_response();
        response.headers_mut().extend(self.headers);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        response
    }
}

/// A JSON body, in and out. In: an object, refused with a problem document that says what is wrong, where, and which
/// name was probably meant.
#[derive(Clone, Copy, Debug, Default)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "the body must be JSON: send it with `content-type: application/json`",
            ));
        }
        let body: Bytes =
            request.extract().await.map_err(|rejection: axum::extract::rejection::BytesRejection| {
                let status = rejection.status();
                if status == StatusCode::PAYLOAD_TOO_LARGE {
                    Problem::too_large(TOO_LARGE)
                } else {
                    Problem::new(status, format!("the body cannot be read: {}", rejection.body_text()))
                }
            })?;
        // Serde would take an array for an object's members, in their order.
        if body.trim_ascii_start().starts_with(b"[") {
            return Err(Problem::bad_request("body: it must be a JSON object, and this is an array"));
        }
        serde_json::from_slice(&body).map(Self).map_err(|error| {
            let message = error.to_string();
            Problem::bad_request(format!("body: {message}{}", suggest::hint(&message)))
        })
    }
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

/// The query of a URL, refused with a problem document that says what is wrong.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let axum::extract::Query(query) =
            axum::extract::Query::try_from_uri(&parts.uri).map_err(|rejection| {
                let text = rejection.body_text();
                let message = text.strip_prefix("Failed to deserialize query string: ").unwrap_or(&text);
                // The parameter comes first where it is known.
                let cause = message.split_once(": ").map_or(message, |(_, cause)| cause);
                Problem::bad_request(format!("query: {message}{}", suggest::hint(cause)))
            })?;
        Ok(Self(query))
    }
}

/// Whether the content type is `application/json` or ends in `+json`.
fn is_json(headers: &HeaderMap) -> bool {
    let Some(value) = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()) else { return false };
    let essence = value.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence == "application/json" || (essence.starts_with("application/") && essence.ends_with("+json"))
}
