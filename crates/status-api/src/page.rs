//! The live page, embedded in the binary.

use std::fmt::Write as _;

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use rust_embed::{EmbeddedFile, RustEmbed};
use service_kit::problem::Problem;

#[derive(RustEmbed)]
#[folder = "web/dist"]
struct Files;

/// Everything from this origin, nothing inline, nowhere else: the page can neither load nor leak anything.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
     base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
/// The names of these files hold a hash of what is in them.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// Asked again each time, and answered with 304 as long as nothing has changed.
const ASK_AGAIN: &str = "no-cache";

/// The page and its files.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async |headers: HeaderMap| file("index.html", ASK_AGAIN, &headers)))
        .route("/icon.svg", get(async |headers: HeaderMap| file("icon.svg", ASK_AGAIN, &headers)))
        .route(
            "/assets/{name}",
            get(async |Path(name): Path<String>, headers: HeaderMap| {
                file(&format!("assets/{name}"), FOR_EVER, &headers)
            }),
        )
}

fn file(path: &str, caching: &'static str, request: &HeaderMap) -> Result<Response, Problem> {
    let file = Files::get(path).ok_or_else(|| {
        Problem::not_found("the page has no such file; it may have been updated: load it again")
    })?;
    let tag = tag(&file);
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(caching));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(
        HeaderName::from_static("cross-origin-opener-policy"),
        HeaderValue::from_static("same-origin"),
    );
    headers.insert(ETAG, tag.clone());
    if request.get_all(IF_NONE_MATCH).iter().any(|known| known == tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    headers.insert(CONTENT_TYPE, content_type(path));
    Ok((headers, file.data.into_owned()).into_response())
}

/// Weak, since the same file is served compressed and not.
fn tag(file: &EmbeddedFile) -> HeaderValue {
    let mut tag = String::from("W/\"");
    for byte in &file.metadata.sha256_hash()[..16] {
        // Writing to a string does not fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    HeaderValue::from_str(&tag).expect("hexadecimal digits make a header")
}

/// What the page's build makes; anything else is not to be run as anything.
fn content_type(path: &str) -> HeaderValue {
    HeaderValue::from_static(match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    })
}
