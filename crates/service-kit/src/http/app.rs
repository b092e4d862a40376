//! What every request passes on its way to a router and back.

use std::any::Any;

use api_types::problem::PROBLEM_JSON;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tokio::time::timeout;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;

use super::{Limits, prefer_wait};
use crate::problem::Problem;
use crate::trace::serve_in_span;

/// The most bytes of a plain error's text that are carried over into its problem document.
const PLAIN_TEXT_MAX_BYTES: usize = 4096;

/// `router` with what every request passes: bounds on its body and its time, panics caught, every error a problem
/// document, `http_requests_total` counted by route, method and status, and a span of the caller's trace.
pub fn app(router: Router, limits: Limits) -> Router {
    router
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.body_max_bytes))
        .layer(middleware::from_fn_with_state(limits, bound_time))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(finish))
        .layer(middleware::from_fn(serve_in_span))
}

async fn bound_time(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let allowed = limits.request_timeout + prefer_wait(request.headers()).unwrap_or_default();
    timeout(allowed, next.run(request)).await.unwrap_or_else(|_| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("not read and answered within {} ms; try again", allowed.as_millis()),
        )
        .into_response()
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that the layer asks for")]
fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let cause = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    tracing::error!(cause, "a handler panicked");
    Problem::internal("this should not have happened; the service's log says more").into_response()
}

/// Makes a problem document of every plain error, and counts.
async fn finish(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let method = match request.method().as_str() {
        method @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS") => method.to_owned(),
        _ => "other".to_owned(),
    };
    let mut response = next.run(request).await;
    let status = response.status();
    if (status.is_client_error() || status.is_server_error()) && !is_problem(response.headers()) {
        response = problem_of(response).await;
    }
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    let route = path.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    metrics::counter!("http_requests_total", "route" => route, "method" => method, "status" => status.as_u16().to_string())
        .increment(1);
    response
}

fn is_problem(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(PROBLEM_JSON.as_bytes()))
}

async fn problem_of(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let plain =
        parts.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/plain"));
    let text = if plain { axum::body::to_bytes(body, PLAIN_TEXT_MAX_BYTES).await.ok() } else { None };
    let text = text.and_then(|text| String::from_utf8(text.to_vec()).ok());
    let (problem, document): (_, Body) = Problem::of_plain(parts.status, text).into_response().into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.extend(problem.headers);
    Response::from_parts(parts, document)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::header::ALLOW;
    use serde_json::{Value, json};
    use tokio::time::Instant;
    use tower::ServiceExt as _;

    use super::super::testing::router;
    use super::*;

    async fn ask(request: Request) -> (u16, HeaderMap, Value) {
        let response = app(router(), Limits::default()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (parts.status.as_u16(), parts.headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request {
        let request = Request::builder().method(method).uri(path);
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value))
            .body(body.into())
            .unwrap()
    }

    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

    #[tokio::test(start_paused = true)]
    async fn every_error_is_a_problem_document() {
        let large = format!("{{\"count\": {}1}}", " ".repeat(64 * 1024));
        let said = [("content-type", "application/json"), ("content-length", "65537")];
        for (request, wanted, detail) in [
            (request("GET", "/none", &[], ""), 404, "no such path; GET /openapi.json lists them"),
            (
                request("POST", "/quick", &[], ""),
                405,
                "this path does not take that method; the `allow` header lists those that it takes",
            ),
            (request("GET", "/slow", &[], ""), 408, "not read and answered within 10000 ms; try again"),
            (
                request("GET", "/panic", &[], ""),
                500,
                "this should not have happened; the service's log says more",
            ),
            (
                request("PUT", "/count", &said, large.clone()),
                413,
                "the body is larger than this service takes",
            ),
            (request("PUT", "/count", JSON, large), 413, "the body is larger than this service takes"),
            (
                request("PUT", "/count", &[], "{}"),
                415,
                "the body must be JSON: send it with `content-type: application/json`",
            ),
            (
                request("PUT", "/count", JSON, "{\"cuont\": 1}"),
                400,
                "body: unknown field `cuont`, expected `count` at line 1 column 8; did you mean `count`?",
            ),
            (
                request("PUT", "/count", JSON, "{"),
                400,
                "body: EOF while parsing an object at line 1 column 1",
            ),
            (
                request("GET", "/query?cuont=1", &[], ""),
                400,
                "query: cuont: unknown field `cuont`, expected `count`; did you mean `count`?",
            ),
            (request("GET", "/query?count=x", &[], ""), 400, "query: count: invalid digit found in string"),
        ] {
            let what = request.uri().clone();
            let (status, headers, document) = ask(request).await;
            assert_eq!(status, wanted, "{what} {document}");
            assert_eq!(headers[CONTENT_TYPE], PROBLEM_JSON, "{what}");
            assert_eq!(document["status"], wanted, "{what}");
            assert_eq!(document["type"], "about:blank");
            assert_eq!(document["detail"], detail, "{what}");
            if wanted == 405 {
                assert_eq!(headers[ALLOW], "GET,HEAD");
            }
            if let Some(length) = headers.get(CONTENT_LENGTH) {
                let length: usize = length.to_str().unwrap().parse().unwrap();
                assert_eq!(length, serde_json::to_vec(&document).unwrap().len(), "{what}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_right_passes() {
        let (status, headers, body) = ask(request(
            "PUT",
            "/count",
            &[("content-type", "application/json; charset=utf-8")],
            "{\"count\": 7}",
        ))
        .await;
        assert_eq!((status, body), (200, json!(7)));
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_request_has_its_wait_on_top() {
        for (prefer, seconds) in [("wait=5", 15), ("wait=3600", 70), ("respond-async", 10)] {
            let began = Instant::now();
            assert_eq!(ask(request("GET", "/slow", &[("prefer", prefer)], "")).await.0, 408);
            assert_eq!(began.elapsed().as_secs(), seconds, "{prefer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn json_without_a_bottom_is_refused() {
        for body in ["[".repeat(60_000), "{\"count\":".repeat(6_000)] {
            let (status, _, document) = ask(request("PUT", "/count", JSON, body)).await;
            assert_eq!(status, 400, "{document}");
        }
    }
}
