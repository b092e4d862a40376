//! One trace across the services, by the `traceparent` header of W3C Trace Context.
//!
//! Spans are those of `tracing`, so that nothing else needs to know how they are exported. While none are, they are
//! disabled, and everything here does next to nothing.

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_http::{HeaderExtractor, HeaderInjector};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Which span a message belongs to.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What others have added to it.
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// What every service has, and is asked for every few seconds by machines: no span each time.
const WITHOUT_SPAN: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/openapi.json"];

/// The headers that make whoever is asked a part of the current span's trace; none while there is no trace.
pub fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let span = Span::current();
    if !span.is_disabled() {
        TraceContextPropagator::new().inject_context(&span.context(), &mut HeaderInjector(&mut headers));
        if headers.get(TRACESTATE).is_some_and(HeaderValue::is_empty) {
            headers.remove(TRACESTATE);
        }
    }
    headers
}

/// The `traceparent` of the current span, for an answer that tells what caused it; none while there is no trace.
pub fn traceparent() -> Option<HeaderValue> {
    headers().remove(TRACEPARENT)
}

/// Makes `span`, in which nothing has happened yet, a child of the span that the headers name, if they name one.
pub fn set_parent(span: &Span, headers: &HeaderMap) {
    if span.is_disabled() {
        return;
    }
    let parent =
        TraceContextPropagator::new().extract_with_context(&Context::new(), &HeaderExtractor(headers));
    if parent.span().span_context().is_valid() {
        // It fails only for a span that has been entered.
        let _ = span.set_parent(parent);
    }
}

/// The id of the trace that a span belongs to, in hex, if that is exported.
pub fn trace_id(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let ids = span.span_context();
    ids.is_sampled().then(|| ids.trace_id().to_string())
}

/// Answers each request within a span, as a part of the caller's trace.
pub(crate) async fn serve_in_span(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let route = path.as_ref().map_or("none", MatchedPath::as_str);
    if WITHOUT_SPAN.contains(&route) {
        return next.run(request).await;
    }
    let span = info_span!(
        "request",
        otel.name = format!("{} {route}", request.method()),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = request.method().as_str(),
        http.route = route,
        http.response.status_code = Empty,
    );
    if span.is_disabled() {
        return next.run(request).await;
    }
    set_parent(&span, request.headers());
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", response.status().as_u16());
    if response.status().is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    response
}
