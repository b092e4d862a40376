//! The scheduler's API: the state, the stream of it, why it is so, and the operator's commands.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use api_types::decision::{DECISIONS_LIMIT_MAX, Decisions};
use api_types::problem::{ProblemDocument, STANDING_BY};
use api_types::snapshot::{InstanceSnapshot, STREAM_CONTAINERS_MAX, ServiceSnapshot, Snapshot};
use axum::Router;
use axum::extract::{FromRequestParts, Path};
use axum::http::HeaderMap;
use axum::http::header::CACHE_CONTROL;
use axum::http::request::Parts;
use axum::response::{IntoResponse as _, Response};
use controller::{CommandError, DecisionQuery, Handle, View};
use planner::InstanceState;
use serde::Deserialize;
use service_kit::auth::Operator;
use service_kit::health::Readiness;
use service_kit::openapi::{ChangeRefused, Common};
use service_kit::problem::{Json, Problem, Query};
use service_kit::sse::{Message, StreamLimits, Streams};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::convert;

/// How long a command's answer waits for the view that shows it. Longer than a pass of the loop; what is not shown
/// by then (an instance that is lost stays so) is answered as it is.
const SHOWN_TIMEOUT: Duration = Duration::from_millis(500);
/// How many decisions are answered where no limit is asked for.
const DECISIONS_LIMIT_DEFAULT: usize = 50;

/// What this scheduler is: one that stands by, until it is the one that acts. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Role {
    readiness: Readiness,
    api: Arc<OnceLock<Api>>,
}

impl Role {
    /// Stands by. Why is what `readiness` says.
    pub fn standing_by(readiness: Readiness) -> Self {
        Self { readiness, api: Arc::default() }
    }

    /// Acts from now on, by this controller. Streams end when `shutdown` is cancelled.
    pub fn act(&self, handle: Handle, shutdown: CancellationToken) {
        self.api.get_or_init(|| {
            let (newest, readers) = watch::channel(None);
            let limits = StreamLimits::default();
            tokio::spawn(publish(handle.views(), newest, limits.interval_min));
            Api { handle, streams: Streams::new(readers, shutdown, limits) }
        });
    }
}

/// What the handlers share, for as long as this is the scheduler that acts.
#[derive(Clone)]
struct Api {
    handle: Handle,
    streams: Streams,
}

impl FromRequestParts<Role> for Api {
    type Rejection = Problem;

    async fn from_request_parts(_: &mut Parts, role: &Role) -> Result<Self, Problem> {
        role.api.get().cloned().ok_or_else(|| {
            let reason = role.readiness.reason().unwrap_or_else(|| "standing by".to_owned());
            Problem::unavailable(reason).with_code(STANDING_BY)
        })
    }
}

#[derive(OpenApi)]
#[openapi(
    info(title = "force12-scheduler", description = "The state of a cluster, why it is so, and the operator's commands."),
    modifiers(&Common),
    tags(
        (name = "state", description = "What is, and why."),
        (name = "commands", description = "They take the operator's token, and hold until the scheduler's restart; lasting ones go into its configuration.")
    )
)]
struct Document;

/// The routes, and the document that describes them.
fn routes(operator: Option<&Operator>) -> OpenApiRouter<Role> {
    let mut commands = OpenApiRouter::new()
        .routes(routes!(cordon))
        .routes(routes!(uncordon))
        .routes(routes!(drain))
        .routes(routes!(pause))
        .routes(routes!(resume));
    if let Some(operator) = operator {
        commands = commands.route_layer(operator.layer());
    }
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(snapshot))
        .routes(routes!(stream))
        .routes(routes!(decisions))
        .merge(commands)
}

/// The document that describes the API.
pub fn openapi() -> utoipa::openapi::OpenApi {
    let mut document = routes(None).into_openapi();
    document.merge(service_kit::health::openapi());
    document
}

/// The API of a scheduler: while it stands by, everything is answered 503.
pub fn router(role: Role, operator: &Operator) -> Router {
    let (router, _) = routes(Some(operator)).split_for_parts();
    router.with_state(role)
}

/// Writes each new view once for all streams, at the pace at which they send. Ends with the controller.
async fn publish(
    mut views: watch::Receiver<Arc<View>>,
    newest: watch::Sender<Option<Arc<Message>>>,
    interval: Duration,
) {
    views.mark_changed();
    while views.changed().await.is_ok() {
        let snapshot = streamed(&views.borrow_and_update().clone());
        let id = format!("{}:{}", snapshot.epoch, snapshot.sequence);
        match serde_json::to_string(&snapshot) {
            Ok(text) => newest.send_replace(Some(Arc::new(Message::new(&id, &text)))),
            Err(error) => {
                tracing::error!(%error, "a snapshot cannot be written as json");
                continue;
            }
        };
        tokio::time::sleep(interval).await;
    }
}

/// A snapshot as streams carry it: with containers while there are few, with their counts beyond.
fn streamed(view: &View) -> Snapshot {
    let mut snapshot = convert::snapshot(view);
    let containers: usize = snapshot.instances.iter().map(|instance| instance.containers.len()).sum();
    if containers > STREAM_CONTAINERS_MAX {
        for instance in &mut snapshot.instances {
            instance.containers = Vec::new();
        }
    }
    snapshot
}

/// Keeps the readiness as the controller has it: ready once it plans. Ends with it.
pub async fn follow_readiness(mut views: watch::Receiver<Arc<View>>, readiness: Readiness) {
    views.mark_changed();
    while views.changed().await.is_ok() {
        let (not_ready, lost) = {
            let view = views.borrow_and_update();
            (view.not_ready.clone(), lost_instances(&view))
        };
        if not_ready == readiness.reason() {
            continue;
        }
        match not_ready {
            None => {
                if lost.is_empty() {
                    tracing::info!("ready: every engine has been observed");
                } else {
                    tracing::warn!(lost = lost.join(", "), "ready: every other engine has been observed");
                }
                readiness.set_ready();
            }
            Some(reason) => readiness.set_not_ready(reason),
        }
    }
    readiness.set_not_ready("the control loop has ended");
}

/// The instances that are lost, by name.
fn lost_instances(view: &View) -> Vec<String> {
    let lost = view.instances.iter().filter(|instance| instance.state == planner::InstanceState::Lost);
    lost.map(|instance| instance.name.to_string()).collect()
}

/// The latest snapshot
///
/// The whole state at one moment, with every container.
#[utoipa::path(
    get, path = "/v1/snapshot", tag = "state",
    responses(
        (status = 200, description = "The state", body = Snapshot),
        (status = 503, description = "Standing by while another scheduler of the cluster acts", body = ProblemDocument, content_type = "application/problem+json")
    )
)]
async fn snapshot(api: Api) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(convert::snapshot(&api.handle.view()))).into_response()
}

/// Snapshots as server-sent events
///
/// The newest at once, then one on every change, at most 20 a second; each event's data is a snapshot, its id is
/// `epoch:sequence`. With more than 1,000 containers, `containers` is empty and `container_count` counts.
#[utoipa::path(
    get, path = "/v1/stream", tag = "state",
    params(("last-event-id" = Option<String>, Header, description = "The id of the last event that was seen; if it is the newest, the stream begins with the next")),
    responses(
        (status = 200, description = "The stream", body = String, content_type = "text/event-stream"),
        (status = 503, description = "Too many streams, or standing by", body = ProblemDocument, content_type = "application/problem+json")
    )
)]
async fn stream(api: Api, headers: HeaderMap) -> Result<Response, Problem> {
    api.streams.open(&headers)
}

/// Which decisions.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct DecisionsQuery {
    /// Those that do something for this service, or say why not.
    service: Option<String>,
    /// At most this many: 1 to 500; default 50.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
    /// Those of a lower sequence, as `next_before` of the page before says.
    before: Option<u64>,
}

/// Decisions, newest first
///
/// The inputs, the plan, the reasons and the outcome of each planning that did something or could not.
#[utoipa::path(
    get, path = "/v1/decisions", tag = "state", params(DecisionsQuery),
    responses(
        (status = 200, description = "A page of decisions", body = Decisions),
        (status = 400, description = "The query is not one", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, description = "No such service", body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, description = "Standing by while another scheduler of the cluster acts", body = ProblemDocument, content_type = "application/problem+json")
    )
)]
async fn decisions(api: Api, Query(query): Query<DecisionsQuery>) -> Result<Json<Decisions>, Problem> {
    let limit = query.limit.unwrap_or(DECISIONS_LIMIT_DEFAULT);
    if !(1..=DECISIONS_LIMIT_MAX).contains(&limit) {
        return Err(Problem::bad_request(format!(
            "query: limit {limit} is not from 1 to {DECISIONS_LIMIT_MAX}"
        )));
    }
    // One more than asked for tells whether there is another page.
    let found = api.handle.decisions(&DecisionQuery {
        service: query.service.clone(),
        before: query.before,
        limit: limit + 1,
    });
    let view = api.handle.view();
    if let (true, Some(service)) = (found.is_empty(), &query.service)
        && !view.services.iter().any(|known| *known.name == **service)
    {
        return Err(unknown_service(&view, service));
    }
    let page: Vec<_> =
        found.iter().take(limit).map(|decision| convert::decision(&view.epoch, decision)).collect();
    let next_before = if found.len() > limit { page.last().map(|decision| decision.sequence) } else { None };
    Ok(Json(Decisions { decisions: page, next_before }))
}

/// How every command is answered where it cannot be given now.
#[derive(utoipa::IntoResponses)]
#[expect(dead_code, reason = "it is only read by those who generate the document")]
enum NotNow {
    /// Another scheduler of the cluster acts, too many commands wait, or this one ends.
    #[response(status = 503, content_type = "application/problem+json")]
    Unavailable(ProblemDocument),
}

/// Start nothing more on an instance
///
/// What runs there stays.
#[utoipa::path(
    post, path = "/v1/instances/{name}/cordon", tag = "commands", security(("operator" = [])),
    params(("name" = String, Path, description = "The instance")),
    responses(
        (status = 200, description = "The instance as it is now", body = InstanceSnapshot),
        ChangeRefused,
        (status = 404, description = "No such instance", body = ProblemDocument, content_type = "application/problem+json"),
        NotNow
    )
)]
async fn cordon(api: Api, Path(name): Path<String>) -> Result<Json<InstanceSnapshot>, Problem> {
    let done = api.handle.cordon(&name).await;
    api.instance(done, &name, InstanceState::Cordoned).await
}

/// Use an instance again
///
/// Takes back a cordon or a drain.
#[utoipa::path(
    post, path = "/v1/instances/{name}/uncordon", tag = "commands", security(("operator" = [])),
    params(("name" = String, Path, description = "The instance")),
    responses(
        (status = 200, description = "The instance as it is now", body = InstanceSnapshot),
        ChangeRefused,
        (status = 404, description = "No such instance", body = ProblemDocument, content_type = "application/problem+json"),
        NotNow
    )
)]
async fn uncordon(api: Api, Path(name): Path<String>) -> Result<Json<InstanceSnapshot>, Problem> {
    let done = api.handle.uncordon(&name).await;
    api.instance(done, &name, InstanceState::Ready).await
}

/// Empty an instance
///
/// Nothing new starts there, and what runs there is stopped once its replacement runs elsewhere.
#[utoipa::path(
    post, path = "/v1/instances/{name}/drain", tag = "commands", security(("operator" = [])),
    params(("name" = String, Path, description = "The instance")),
    responses(
        (status = 200, description = "The instance as it is now", body = InstanceSnapshot),
        ChangeRefused,
        (status = 404, description = "No such instance", body = ProblemDocument, content_type = "application/problem+json"),
        NotNow
    )
)]
async fn drain(api: Api, Path(name): Path<String>) -> Result<Json<InstanceSnapshot>, Problem> {
    let done = api.handle.drain(&name).await;
    api.instance(done, &name, InstanceState::Draining).await
}

/// Start nothing more for a service
///
/// What runs is kept while it is wanted.
#[utoipa::path(
    post, path = "/v1/services/{name}/pause", tag = "commands", security(("operator" = [])),
    params(("name" = String, Path, description = "The service")),
    responses(
        (status = 200, description = "The service as it is now", body = ServiceSnapshot),
        ChangeRefused,
        (status = 404, description = "No such service", body = ProblemDocument, content_type = "application/problem+json"),
        NotNow
    )
)]
async fn pause(api: Api, Path(name): Path<String>) -> Result<Json<ServiceSnapshot>, Problem> {
    let done = api.handle.pause(&name).await;
    api.service(done, &name, true).await
}

/// Start containers of a service again
///
/// Takes back a pause.
#[utoipa::path(
    post, path = "/v1/services/{name}/resume", tag = "commands", security(("operator" = [])),
    params(("name" = String, Path, description = "The service")),
    responses(
        (status = 200, description = "The service as it is now", body = ServiceSnapshot),
        ChangeRefused,
        (status = 404, description = "No such service", body = ProblemDocument, content_type = "application/problem+json"),
        NotNow
    )
)]
async fn resume(api: Api, Path(name): Path<String>) -> Result<Json<ServiceSnapshot>, Problem> {
    let done = api.handle.resume(&name).await;
    api.service(done, &name, false).await
}

impl Api {
    /// The answer to a command for an instance: the instance, once a view shows it in its new state.
    async fn instance(
        &self,
        done: Result<(), CommandError>,
        name: &str,
        state: InstanceState,
    ) -> Result<Json<InstanceSnapshot>, Problem> {
        done.map_err(|error| self.refused(&error))?;
        let find = |view: &View| view.instances.iter().find(|instance| *instance.name == *name).cloned();
        let view = self.shown(|view| find(view).is_some_and(|instance| instance.state == state)).await;
        let instance = find(&view).ok_or_else(|| unknown_instance(&view, name))?;
        Ok(Json(convert::instance(&instance)))
    }

    /// The answer to a command for a service: the service, once a view shows it so.
    async fn service(
        &self,
        done: Result<(), CommandError>,
        name: &str,
        paused: bool,
    ) -> Result<Json<ServiceSnapshot>, Problem> {
        done.map_err(|error| self.refused(&error))?;
        let find = |view: &View| view.services.iter().find(|service| *service.name == *name).cloned();
        let view = self.shown(|view| find(view).is_some_and(|service| service.paused == paused)).await;
        let service = find(&view).ok_or_else(|| unknown_service(&view, name))?;
        Ok(Json(convert::service(&service)))
    }

    async fn shown(&self, is_shown: impl Fn(&View) -> bool) -> Arc<View> {
        let mut views = self.handle.views();
        let shown = views.wait_for(|view| is_shown(view));
        match tokio::time::timeout(SHOWN_TIMEOUT, shown).await {
            Ok(Ok(view)) => Arc::clone(&view),
            _ => self.handle.view(),
        }
    }

    fn refused(&self, error: &CommandError) -> Problem {
        let view = self.handle.view();
        match error {
            CommandError::UnknownService(name) => unknown_service(&view, name),
            CommandError::UnknownInstance(name) => unknown_instance(&view, name),
            CommandError::Busy | CommandError::Ended => Problem::unavailable(error.to_string()),
        }
    }
}

fn unknown_service(view: &View, name: &str) -> Problem {
    let known: Vec<&str> = view.services.iter().map(|service| &*service.name).collect();
    Problem::not_found(format!("no service is named {name:?}; there is {}", listed(&known)))
        .with_code("unknown-service")
}

fn unknown_instance(view: &View, name: &str) -> Problem {
    let known: Vec<&str> = view.instances.iter().map(|instance| &*instance.name).collect();
    Problem::not_found(format!("no instance is named {name:?}; there is {}", listed(&known)))
        .with_code("unknown-instance")
}

/// Names for a sentence, cut where there are many.
fn listed(names: &[&str]) -> String {
    const NAMES_MAX: usize = 20;
    match names.len() {
        0 => "none".to_owned(),
        count if count > NAMES_MAX => {
            format!("{} and {} more", names[..NAMES_MAX].join(", "), count - NAMES_MAX)
        }
        _ => names.join(", "),
    }
}
