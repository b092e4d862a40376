//! The endpoints that every service has: `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.

use std::sync::{Arc, PoisonError, RwLock};

use api_types::health::Health;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse as _;
use axum::routing::get;
use bytes::Bytes;

use crate::metrics::MetricsHandle;
use crate::problem::{Json, Problem};

/// Whether the service can do its job. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<RwLock<Option<String>>>);

impl Readiness {
    /// Not ready, for this reason: what the service still waits for, in lower case.
    pub fn not_ready(reason: impl Into<String>) -> Self {
        Self(Arc::new(RwLock::new(Some(reason.into()))))
    }

    /// From now on the service can do its job.
    pub fn set_ready(&self) {
        self.set(None);
    }

    /// From now on it cannot, for this reason.
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    /// Why not, or `None` when ready.
    pub fn reason(&self) -> Option<String> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, reason: Option<String>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

/// The routes. `service` is the service's name; `openapi` is its document, as JSON.
pub fn routes<S: Clone + Send + Sync + 'static>(
    service: &str,
    readiness: Readiness,
    metrics: MetricsHandle,
    openapi: impl Into<Bytes>,
) -> Router<S> {
    let service = format!("{service} {}", env!("CARGO_PKG_VERSION"));
    let health = move |status: &str| Health { status: status.to_owned(), service: service.clone() };
    let alive = health("alive");
    let ready = health("ready");
    let openapi = openapi.into();
    Router::new()
        .route("/healthz", get(async move || Json(alive)))
        .route(
            "/readyz",
            get(async move || match readiness.reason() {
                None => Ok(Json(ready)),
                Some(reason) => Err(Problem::unavailable(reason).with_code("not-ready")),
            }),
        )
        .route(
            "/metrics",
            get(async move || {
                ([(CONTENT_TYPE, "text/plain; version=0.0.4")], metrics.render()).into_response()
            }),
        )
        .route(
            "/openapi.json",
            get(async move || ([(CONTENT_TYPE, "application/json")], openapi).into_response()),
        )
}
