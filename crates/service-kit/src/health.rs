//! The endpoints that every service has: `/healthz`, `/readyz`, `/metrics`, `/openapi.json`.

use std::sync::{Arc, PoisonError, RwLock};

use api_types::health::Health;
use api_types::problem::{PROBLEM_JSON, ProblemDocument};
use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use bytes::Bytes;
use utoipa::OpenApi;

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

/// What the endpoints answer with.
#[derive(Clone)]
struct Answers {
    service: Arc<str>,
    readiness: Readiness,
    metrics: MetricsHandle,
    openapi: Bytes,
}

/// The routes. `service` is the service's name; `openapi` is its document, as JSON.
pub fn routes<S: Clone + Send + Sync + 'static>(
    service: &str,
    readiness: Readiness,
    metrics: MetricsHandle,
    openapi: impl Into<Bytes>,
) -> Router<S> {
    let service = format!("{service} {}", env!("CARGO_PKG_VERSION")).into();
    Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_text))
        .route("/openapi.json", get(openapi_json))
        .with_state(Answers { service, readiness, metrics, openapi: openapi.into() })
}

/// The part of a service's OpenAPI document that describes these routes, for it to be merged in.
pub fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(OpenApi)]
    #[openapi(paths(healthz, readyz, metrics_text, openapi_json))]
    struct Routes;
    Routes::openapi()
}

/// Whether the service is alive.
#[utoipa::path(get, path = "/healthz", tag = "health", responses((status = 200, body = Health)))]
async fn healthz(State(answers): State<Answers>) -> Json<Health> {
    Json(Health { status: "alive".to_owned(), service: answers.service.to_string() })
}

/// Whether it can do its job.
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, body = Health),
    (status = 503, description = "Not yet; `detail` says why.", body = ProblemDocument, content_type = PROBLEM_JSON),
))]
async fn readyz(State(answers): State<Answers>) -> Result<Json<Health>, Problem> {
    match answers.readiness.reason() {
        None => Ok(Json(Health { status: "ready".to_owned(), service: answers.service.to_string() })),
        Some(reason) => Err(Problem::unavailable(reason).with_code("not-ready")),
    }
}

/// What it has measured, in the Prometheus text format.
#[utoipa::path(get, path = "/metrics", tag = "health", responses((status = 200, body = String, content_type = "text/plain")))]
async fn metrics_text(State(answers): State<Answers>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], answers.metrics.render())
}

/// This document.
#[utoipa::path(get, path = "/openapi.json", tag = "health", responses((status = 200, description = "OpenAPI 3.1.", content_type = "application/json")))]
async fn openapi_json(State(answers): State<Answers>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "application/json")], answers.openapi)
}
