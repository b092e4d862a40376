//! The endpoints.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};

use api_types::decision::{DECISIONS_LIMIT_MAX, Decisions};
use api_types::demand::{DemandDocument, HoldDemand};
use api_types::generator::{Generator, GeneratorChange};
use api_types::history::History;
use api_types::problem::{PROBLEM_JSON, ProblemDocument};
use api_types::snapshot::{InstanceSnapshot, ServiceSnapshot, Snapshot};
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, Method};
use axum::response::{IntoResponse as _, Response};
use serde::{Deserialize, Serialize};
use service_kit::auth::Operator;
use service_kit::health::Readiness;
use service_kit::metrics::MetricsHandle;
use service_kit::openapi::{BodyRefused, ChangeRefused, Common};
use service_kit::problem::{Json, Problem, Query};
use service_kit::sse::Streams;
use tokio::sync::Semaphore;
use tower_http::compression::CompressionLayer;
use utoipa::{IntoParams, IntoResponses, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::clock::Clock;
use crate::history::Ring;
use crate::hub::Hub;
use crate::page;
use crate::upstream::Upstream;

/// The most answers of history under way at a time. Each keeps the samples of its window alive (some 6 MiB) for as long
/// as its reader takes, at worst none of them shared; a page asks once, when it is opened.
pub const HISTORIES_MAX: usize = 8;

/// What the handlers work with.
#[derive(Clone, Debug)]
pub struct App {
    /// The newest document.
    pub hub: Arc<Hub>,
    /// The same as a stream.
    pub streams: Streams,
    /// The last minutes.
    pub history: Arc<Mutex<Ring>>,
    /// Places for answers of history: [`HISTORIES_MAX`].
    pub histories: Arc<Semaphore>,
    /// The clock of the history.
    pub clock: Clock,
    /// The schedulers of the cluster, numbered as the hub hears them; at least one.
    pub schedulers: Arc<[Upstream]>,
    /// The demand source, if it is one to play with.
    pub demand: Option<Upstream>,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "status-api",
        description = "What people and browsers use of Force12: snapshots, history, decisions, and controls that are passed on.",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    modifiers(&Common)
)]
struct Document;

/// All endpoints.
pub fn router(app: App, operator: &Operator, readiness: Readiness, metrics: MetricsHandle) -> Router {
    Router::new()
        .merge(reads().split_for_parts().0)
        .merge(page::routes())
        .layer(CompressionLayer::new())
        .merge(streams().split_for_parts().0)
        .merge(changes().split_for_parts().0.layer(operator.layer()))
        .with_state(app)
        .merge(service_kit::health::routes("status-api", readiness, metrics, openapi()))
}

/// The OpenAPI document, as it is served and kept in the repository.
pub fn openapi() -> String {
    let router = OpenApiRouter::with_openapi(Document::openapi());
    let mut document = router.merge(reads()).merge(streams()).merge(changes()).into_openapi();
    document.merge(service_kit::health::openapi());
    service_kit::generated::pretty(&document)
}

fn reads() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(snapshot))
        .routes(routes!(history))
        .routes(routes!(decisions))
        .routes(routes!(demand))
        .routes(routes!(generator))
}

/// Apart from the other reads, since compression would hold events back.
fn streams() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(stream))
}

fn changes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(cordon))
        .routes(routes!(uncordon))
        .routes(routes!(drain))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(hold_demand, release_demand))
        .routes(routes!(change_generator))
}

/// The newest snapshot, as the stream carries it.
///
/// Where there are more than 1,000 containers, the instances' lists of them are empty: ask the scheduler's own
/// `/v1/snapshot` for those.
#[utoipa::path(get, path = "/v1/snapshot", responses(
    (status = 200, description = "the newest snapshot", body = Snapshot),
    (status = 503, description = "none was heard yet", body = ProblemDocument, content_type = PROBLEM_JSON),
))]
async fn snapshot(State(app): State<App>) -> Result<Response, Problem> {
    let newest = app.hub.newest().borrow().clone();
    let published = newest.ok_or_else(|| {
        Problem::unavailable(
            "the scheduler has not been heard yet; is it running, and is scheduler_url right?",
        )
        .with_code("not-ready")
    })?;
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    Ok((headers, published.json.clone()).into_response())
}

/// Snapshots as server-sent events: the newest at once, then each new one, at most 20 a second.
///
/// Resumed with `Last-Event-ID`, nothing is sent until there is something newer than that.
#[utoipa::path(get, path = "/v1/stream", responses(
    (status = 200, description = "events, each with a snapshot as its data", body = Snapshot, content_type = "text/event-stream"),
    (status = 503, description = "too many streams are open", body = ProblemDocument, content_type = PROBLEM_JSON),
))]
async fn stream(State(app): State<App>, headers: HeaderMap) -> Result<Response, Problem> {
    app.streams.open(&headers)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Window {
    /// How far back, in milliseconds. Left out, or more than is kept: all that is kept.
    window_ms: Option<u64>,
}

/// The counts of the last minutes, with gaps where the scheduler was not heard.
#[utoipa::path(get, path = "/v1/history", params(Window), responses(
    (status = 200, description = "samples, oldest first", body = History),
    (status = 400, description = "the query is not understood", body = ProblemDocument, content_type = PROBLEM_JSON),
    (status = 503, description = "too many are being answered", body = ProblemDocument, content_type = PROBLEM_JSON),
))]
async fn history(State(app): State<App>, Query(window): Query<Window>) -> Result<Response, Problem> {
    let place = app.histories.try_acquire_owned().map_err(|_| {
        Problem::unavailable(format!("{HISTORIES_MAX} answers of history are under way already; try again"))
    })?;
    let window =
        app.history.lock().unwrap_or_else(PoisonError::into_inner).window(window.window_ms, app.clock.now());
    let chunks = window.into_chunks().map(move |chunk| {
        // Free again when the answer has been taken, or its reader has gone.
        let _held = &place;
        Ok::<_, Infallible>(chunk)
    });
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    Ok((headers, Body::from_stream(futures_util::stream::iter(chunks))).into_response())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct Page {
    /// Only those that are about this service.
    service: Option<String>,
    /// How many at most; 1 to 500.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// Only older ones than this sequence: `next_before` of the answer before.
    before: Option<u64>,
}

/// The latest decisions, newest first, passed on from the scheduler.
#[utoipa::path(get, path = "/v1/decisions", params(Page), responses(
    (status = 200, description = "decisions, newest first", body = Decisions),
    (status = 400, description = "the query is not understood", body = ProblemDocument, content_type = PROBLEM_JSON),
    (status = 404, description = "no such service", body = ProblemDocument, content_type = PROBLEM_JSON),
    (status = 502, description = "the scheduler's answer cannot be passed on", body = ProblemDocument, content_type = PROBLEM_JSON),
    (status = 503, description = "the scheduler does not answer", body = ProblemDocument, content_type = PROBLEM_JSON),
))]
async fn decisions(State(app): State<App>, Query(page): Query<Page>) -> Result<Response, Problem> {
    if page.limit.is_some_and(|limit| !(1..=DECISIONS_LIMIT_MAX).contains(&limit)) {
        return Err(Problem::bad_request(format!("limit must be from 1 to {DECISIONS_LIMIT_MAX}")));
    }
    let query: Vec<(&str, String)> = [
        ("service", page.service),
        ("limit", page.limit.map(|limit| limit.to_string())),
        ("before", page.before.map(|before| before.to_string())),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key, value?)))
    .collect();
    app.scheduler().pass(Method::GET, &["v1", "decisions"], &query, None, None).await
}

/// The demand now, passed on from the demand source that can be played with.
#[utoipa::path(get, path = "/v1/demand", responses(
    (status = 200, description = "the demand document", body = DemandDocument),
    (status = 404, description = "there is no demand source to play with", body = ProblemDocument, content_type = PROBLEM_JSON),
    (status = 502, description = "its answer cannot be passed on", body = ProblemDocument, content_type = PROBLEM_JSON),
    (status = 503, description = "it does not answer", body = ProblemDocument, content_type = PROBLEM_JSON),
))]
async fn demand(State(app): State<App>) -> Result<Response, Problem> {
    app.demand_source()?.pass(Method::GET, &["v1", "demand"], &[], None, None).await
}

/// Which key is meant, passed on as it is.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WhichKey {
    /// A key of the demand document.
    key: Option<String>,
}

impl WhichKey {
    fn pairs(self) -> Vec<(&'static str, String)> {
        self.key.map(|key| ("key", key)).into_iter().collect()
    }
}

/// How a key's demand is generated, passed on from the demand source that can be played with. The key may be left out
/// when there is one.
#[utoipa::path(get, path = "/v1/generator", params(WhichKey), responses(
    (status = 200, description = "the settings", body = Generator),
    (status = 400, description = "a key that is not there, or none of several", body = ProblemDocument, content_type = PROBLEM_JSON),
    (status = 404, description = "there is no demand source to play with", body = ProblemDocument, content_type = PROBLEM_JSON),
    (status = 502, description = "its answer cannot be passed on", body = ProblemDocument, content_type = PROBLEM_JSON),
    (status = 503, description = "it does not answer", body = ProblemDocument, content_type = PROBLEM_JSON),
))]
async fn generator(State(app): State<App>, Query(which): Query<WhichKey>) -> Result<Response, Problem> {
    app.demand_source()?.pass(Method::GET, &["v1", "generator"], &which.pairs(), None, None).await
}

/// Starts nothing new on an instance.
#[utoipa::path(post, path = "/v1/instances/{name}/cordon", security(("operator" = [])),
    params(("name" = String, Path, description = "the instance")),
    responses((status = 200, description = "the instance as it is now", body = InstanceSnapshot), ChangeRefused, NotPassedOn)
)]
async fn cordon(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.command(&headers, &["v1", "instances", &name, "cordon"]).await
}

/// Makes an instance ready again.
#[utoipa::path(post, path = "/v1/instances/{name}/uncordon", security(("operator" = [])),
    params(("name" = String, Path, description = "the instance")),
    responses((status = 200, description = "the instance as it is now", body = InstanceSnapshot), ChangeRefused, NotPassedOn)
)]
async fn uncordon(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.command(&headers, &["v1", "instances", &name, "uncordon"]).await
}

/// Starts nothing new on an instance, and moves what runs there.
#[utoipa::path(post, path = "/v1/instances/{name}/drain", security(("operator" = [])),
    params(("name" = String, Path, description = "the instance")),
    responses((status = 200, description = "the instance as it is now", body = InstanceSnapshot), ChangeRefused, NotPassedOn)
)]
async fn drain(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.command(&headers, &["v1", "instances", &name, "drain"]).await
}

/// Starts nothing new of a service.
#[utoipa::path(post, path = "/v1/services/{name}/pause", security(("operator" = [])),
    params(("name" = String, Path, description = "the service")),
    responses((status = 200, description = "the service as it is now", body = ServiceSnapshot), ChangeRefused, NotPassedOn)
)]
async fn pause(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.command(&headers, &["v1", "services", &name, "pause"]).await
}

/// Undoes a pause.
#[utoipa::path(post, path = "/v1/services/{name}/resume", security(("operator" = [])),
    params(("name" = String, Path, description = "the service")),
    responses((status = 200, description = "the service as it is now", body = ServiceSnapshot), ChangeRefused, NotPassedOn)
)]
async fn resume(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.command(&headers, &["v1", "services", &name, "resume"]).await
}

/// Holds demands at values.
#[utoipa::path(put, path = "/v1/demand", security(("operator" = [])),
    request_body = HoldDemand,
    responses((status = 200, description = "the demand document as it is now", body = DemandDocument), ChangeRefused, BodyRefused, NotPassedOn)
)]
async fn hold_demand(
    State(app): State<App>,
    headers: HeaderMap,
    Json(hold): Json<HoldDemand>,
) -> Result<Response, Problem> {
    app.change(Method::PUT, "demand", &[], &headers, Some(&hold)).await
}

/// Lets demands follow the generator again: the named key's, or all.
#[utoipa::path(delete, path = "/v1/demand", security(("operator" = [])),
    params(WhichKey),
    responses((status = 200, description = "the demand document as it is now", body = DemandDocument), ChangeRefused, NotPassedOn)
)]
async fn release_demand(
    State(app): State<App>,
    Query(which): Query<WhichKey>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    app.change::<HoldDemand>(Method::DELETE, "demand", &which.pairs(), &headers, None).await
}

/// Changes how a key's demand is generated. The key may be left out when there is one.
#[utoipa::path(put, path = "/v1/generator", security(("operator" = [])),
    params(WhichKey), request_body = GeneratorChange,
    responses((status = 200, description = "all settings as they are now", body = Generator), ChangeRefused, BodyRefused, NotPassedOn)
)]
async fn change_generator(
    State(app): State<App>,
    Query(which): Query<WhichKey>,
    headers: HeaderMap,
    Json(change): Json<GeneratorChange>,
) -> Result<Response, Problem> {
    app.change(Method::PUT, "generator", &which.pairs(), &headers, Some(&change)).await
}

/// What every change may be answered with by the service behind, beside what it does.
#[derive(IntoResponses)]
#[expect(dead_code, reason = "it only describes: the answers themselves are passed on as they are")]
enum NotPassedOn {
    /// There is no such thing.
    #[response(status = 404, content_type = PROBLEM_JSON)]
    NotFound(ProblemDocument),
    /// The answer of the service behind cannot be passed on.
    #[response(status = 502, content_type = PROBLEM_JSON)]
    BadGateway(ProblemDocument),
    /// The service behind does not answer, or is asked too much already.
    #[response(status = 503, content_type = PROBLEM_JSON)]
    Unavailable(ProblemDocument),
}

impl App {
    /// The one that acts, as far as is known.
    fn scheduler(&self) -> &Upstream {
        &self.schedulers[self.hub.heard()]
    }

    fn demand_source(&self) -> Result<&Upstream, Problem> {
        self.demand.as_ref().ok_or_else(|| {
            Problem::not_found(
                "there is no demand source to play with: set demand_url in the config of status-api",
            )
            .with_code("no-demand-source")
        })
    }

    async fn command(&self, headers: &HeaderMap, path: &[&str]) -> Result<Response, Problem> {
        self.scheduler().pass(Method::POST, path, &[], headers.get(AUTHORIZATION), None).await
    }

    async fn change<T: Serialize>(
        &self,
        method: Method,
        what: &str,
        query: &[(&str, String)],
        headers: &HeaderMap,
        body: Option<&T>,
    ) -> Result<Response, Problem> {
        let source = self.demand_source()?;
        let body = body.map(serde_json::to_vec).transpose().map_err(|error| {
            tracing::error!(%error, "a body that was read cannot be written");
            Problem::internal("the body could not be passed on")
        })?;
        source.pass(method, &["v1", what], query, headers.get(AUTHORIZATION), body.map(Into::into)).await
    }
}
