//! The HTTP side: the demand contract with long polls, and the controls.

use std::sync::Arc;

use api_types::demand::{DemandDocument, HoldDemand};
use api_types::generator::{Generator, GeneratorChange};
use api_types::problem::{PROBLEM_JSON, ProblemDocument};
use axum::Router;
use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use service_kit::auth::Operator;
use service_kit::http::{PREFERENCE_APPLIED, prefer_wait};
use service_kit::openapi::{BodyRefused, ChangeRefused, Common};
use service_kit::problem::{Json, Problem, Query};
use service_kit::trace::TRACEPARENT;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use utoipa::{IntoParams, OpenApi as _};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::source::{ChangeError, Served, Source};

/// The most requests that are held at a time; one more is answered at once, without `Preference-Applied`. A source
/// has a scheduler or a few, each with one poll.
const WAITERS_MAX: usize = 256;

#[derive(Clone)]
struct App {
    source: Source,
    waiters: Arc<Semaphore>,
    shutdown: CancellationToken,
}

/// The routes of the demand contract and the controls; the latter only for the operator.
pub(crate) fn router(source: Source, operator: &Operator, shutdown: CancellationToken) -> Router {
    let app = App { source, waiters: Arc::new(Semaphore::new(WAITERS_MAX)), shutdown };
    let changing: Router<App> = changing().into();
    let reading: Router<App> = reading().into();
    reading.merge(changing.route_layer(operator.layer())).with_state(app)
}

/// The OpenAPI document.
pub(crate) fn openapi() -> utoipa::openapi::OpenApi {
    #[derive(utoipa::OpenApi)]
    #[openapi(
        info(
            title = "demand-rng",
            description = "A demand source that rolls dice, and the controls to play with it."
        ),
        modifiers(&Common)
    )]
    struct Document;

    let mut document = Document::openapi();
    for part in [reading().into_openapi(), changing().into_openapi(), service_kit::health::openapi()] {
        document.merge(part);
    }
    document
}

fn reading() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_demand)).routes(routes!(get_generator))
}

fn changing() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(hold_demand, release_demand)).routes(routes!(set_generator))
}

/// Which key is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct WhichKey {
    /// A key of the demand document.
    key: Option<String>,
}

/// How many containers are wanted now, by key.
#[utoipa::path(get, path = "/v1/demand", tag = "demand",
    params(
        ("if-none-match" = Option<String>, Header, description = "The ETag of the document that is known already."),
        ("prefer" = Option<String>, Header, description = "`wait=N`, with If-None-Match: hold the answer until the document changes, at most N seconds and at most 60."),
    ),
    responses(
        (status = 200, body = DemandDocument, headers(
            ("etag" = String, description = "Differs whenever the document differs, also after a restart."),
            ("preference-applied" = String, description = "`wait`: the next request will be held if it asks for it. Absent: ask again later."),
            ("traceparent" = String, description = "What changed the document, as W3C Trace Context names it, while traces are exported: what follows from it may become a part of that trace."),
        )),
        (status = 304, description = "Not changed, in the wait either."),
    ))]
async fn get_demand(State(app): State<App>, headers: HeaderMap) -> Response {
    let mut newest = app.source.subscribe();
    let mut served = Arc::clone(&newest.borrow_and_update());
    let mut waits = prefer_wait(&headers).filter(|wait| !wait.is_zero() && !app.shutdown.is_cancelled());
    if is_known(&headers, &served.etag)
        && let Some(wait) = waits
    {
        match app.waiters.try_acquire() {
            Ok(_place) => tokio::select! {
                biased;
                () = app.shutdown.cancelled() => waits = None,
                Ok(()) = newest.changed() => served = Arc::clone(&newest.borrow_and_update()),
                () = tokio::time::sleep(wait) => {}
            },
            Err(_) => waits = None,
        }
    }
    let mut response = answer(&headers, &served);
    if waits.is_some() {
        response.headers_mut().insert(PREFERENCE_APPLIED, axum::http::HeaderValue::from_static("wait"));
    }
    response
}

/// Hold these values; `null` holds unknown. Keys that are left out stay as they are.
#[utoipa::path(put, path = "/v1/demand", tag = "controls", security(("operator" = [])),
    request_body = HoldDemand,
    responses(
        (status = 200, description = "The document as it is now.", body = DemandDocument),
        ChangeRefused,
        BodyRefused,
    ))]
async fn hold_demand(State(app): State<App>, Json(hold): Json<HoldDemand>) -> Result<Response, Problem> {
    app.source.hold(&hold.demand)?;
    tracing::info!(demand = ?hold.demand, "holding demand");
    Ok(current(&app.source))
}

/// Back to the generator: the named key, or all.
#[utoipa::path(delete, path = "/v1/demand", tag = "controls", security(("operator" = [])),
    params(WhichKey),
    responses(
        (status = 200, description = "The document as it is now.", body = DemandDocument),
        ChangeRefused,
    ))]
async fn release_demand(State(app): State<App>, Query(which): Query<WhichKey>) -> Result<Response, Problem> {
    app.source.release(which.key.as_deref())?;
    tracing::info!(key = which.key, "demand is generated again");
    Ok(current(&app.source))
}

/// How a key's demand is generated. The key may be left out when there is one.
#[utoipa::path(get, path = "/v1/generator", tag = "controls",
    params(WhichKey),
    responses(
        (status = 200, body = Generator),
        (status = 400, description = "A key that is not here, or none of several.", body = ProblemDocument, content_type = PROBLEM_JSON),
    ))]
async fn get_generator(
    State(app): State<App>,
    Query(which): Query<WhichKey>,
) -> Result<Json<Generator>, Problem> {
    Ok(Json(app.source.settings(which.key.as_deref())?))
}

/// Change some of the settings. The generator begins anew with them, at once; a held value stays held.
#[utoipa::path(put, path = "/v1/generator", tag = "controls", security(("operator" = [])),
    params(WhichKey),
    request_body = GeneratorChange,
    responses(
        (status = 200, description = "All settings as they are now.", body = Generator),
        ChangeRefused,
        BodyRefused,
    ))]
async fn set_generator(
    State(app): State<App>,
    Query(which): Query<WhichKey>,
    Json(change): Json<GeneratorChange>,
) -> Result<Json<Generator>, Problem> {
    let settings = app.source.set(which.key.as_deref(), change)?;
    tracing::info!(key = which.key, pattern = ?settings.pattern, seed = settings.seed, "generating anew");
    Ok(Json(settings))
}

impl From<ChangeError> for Problem {
    fn from(error: ChangeError) -> Self {
        Self::bad_request(error.to_string())
    }
}

fn current(source: &Source) -> Response {
    let served = Arc::clone(&source.subscribe().borrow());
    answer(&HeaderMap::new(), &served)
}

/// 304 if the client knows the document, 200 with it otherwise.
fn answer(headers: &HeaderMap, served: &Served) -> Response {
    let common = [(ETAG, served.etag.as_str()), (VARY, "Prefer"), (CACHE_CONTROL, "no-store")];
    if is_known(headers, &served.etag) {
        return (StatusCode::NOT_MODIFIED, common).into_response();
    }
    let mut response = (common, [(CONTENT_TYPE, "application/json")], served.body.clone()).into_response();
    if let Some(traceparent) = &served.traceparent {
        response.headers_mut().insert(TRACEPARENT, traceparent.clone());
    }
    response
}

fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    headers
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::time::Duration;

    use api_types::Timestamp;
    use api_types::generator::Pattern;
    use axum::body::{Body, to_bytes};
    use axum::http::{Method, Request};
    use serde_json::{Value, json};
    use service_kit::generated;
    use service_kit::http::Limits;
    use service_kit::token::Secret;
    use tokio::time::Instant;
    use tower::ServiceExt as _;

    use super::*;
    use crate::pattern;

    const TOKEN: &str = "0123456789abcdef";

    struct Answer {
        status: u16,
        headers: HeaderMap,
        body: Value,
    }

    impl Answer {
        fn header(&self, name: &str) -> Option<&str> {
            self.headers.get(name).map(|value| value.to_str().unwrap())
        }

        fn detail(&self) -> &str {
            assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.body);
            self.body["detail"].as_str().unwrap()
        }
    }

    struct Service {
        source: Source,
        router: Router,
        shutdown: CancellationToken,
    }

    impl Service {
        /// The given keys, each with the trace 4, 5 at a step a minute.
        fn new(keys: &[&str]) -> Self {
            let settings = Generator {
                pattern: Pattern::Trace,
                interval_ms: 60_000,
                trace: vec![4, 5],
                ..pattern::defaults()
            };
            let generators = keys.iter().map(|key| ((*key).to_owned(), settings.clone())).collect();
            let source = Source::new(generators, 0xb3f1, || Timestamp::from_epoch_ms(0));
            let token = Secret::token(TOKEN, "test").unwrap();
            let listen = "0.0.0.0:8081".parse().unwrap();
            let operator = Operator::new(Some(&token), listen, &[]).unwrap();
            let shutdown = CancellationToken::new();
            let router = router(source.clone(), &operator, shutdown.clone());
            Self { source, router: service_kit::http::app(router, Limits::default()), shutdown }
        }

        async fn send(&self, request: Request<Body>) -> Answer {
            let response = self.router.clone().oneshot(request).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            let body = if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() };
            Answer { status: parts.status.as_u16(), headers: parts.headers, body }
        }

        async fn get(&self, path: &str) -> Answer {
            self.send(Request::get(path).body(Body::empty()).unwrap()).await
        }

        async fn poll(&self, known: &str, wait: &str) -> Answer {
            let request = Request::get("/v1/demand").header("if-none-match", known).header("prefer", wait);
            self.send(request.body(Body::empty()).unwrap()).await
        }

        async fn change(&self, method: Method, path: &str, body: &Value) -> Answer {
            let request = Request::builder()
                .method(method)
                .uri(path)
                .header("host", "127.0.0.1:8081")
                .header("authorization", format!("Bearer {TOKEN}"))
                .header("content-type", "application/json");
            self.send(request.body(Body::from(body.to_string())).unwrap()).await
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_document_and_its_headers() {
        let service = Service::new(&["web"]);
        let answer = service.get("/v1/demand").await;
        assert_eq!(answer.status, 200);
        assert_eq!(
            answer.body,
            json!({"sequence": 1, "changed_at": "1970-01-01T00:00:00.000Z", "demand": {"web": 4}})
        );
        assert_eq!(answer.header("etag"), Some("\"0000b3f1-1\""));
        assert_eq!(answer.header("vary"), Some("Prefer"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("preference-applied"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_known_document_is_304_and_without_a_wait_at_once() {
        let service = Service::new(&["web"]);
        let began = Instant::now();
        for known in ["\"0000b3f1-1\"", "W/\"0000b3f1-1\"", "\"x\", \"0000b3f1-1\"", "*"] {
            for wait in ["respond-async", "wait=0", "wait=soon"] {
                let answer = service.poll(known, wait).await;
                assert_eq!(
                    (answer.status, answer.header("preference-applied")),
                    (304, None),
                    "{known} {wait}"
                );
                assert_eq!(answer.header("etag"), Some("\"0000b3f1-1\""));
            }
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_poll_is_held_until_its_wait_is_over() {
        let service = Service::new(&["web"]);
        for (wait, seconds) in [("wait=5", 5), ("respond-async, wait=7", 7), ("wait=3600", 60)] {
            let began = Instant::now();
            let answer = service.poll("\"0000b3f1-1\"", wait).await;
            assert_eq!((answer.status, answer.header("preference-applied")), (304, Some("wait")), "{wait}");
            assert_eq!(began.elapsed().as_secs(), seconds, "{wait}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_poll_is_answered_by_the_change() {
        let service = Service::new(&["web"]);
        let held = service.poll("\"0000b3f1-1\"", "wait=30");
        let change = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            service.source.hold(&[("web".to_owned(), Some(7))].into()).unwrap();
        };
        let began = Instant::now();
        let (answer, ()) = tokio::join!(held, change);
        assert_eq!(began.elapsed().as_secs(), 1);
        assert_eq!((answer.status, answer.header("preference-applied")), (200, Some("wait")));
        assert_eq!(answer.body["demand"], json!({"web": 7}));
        assert_eq!(answer.header("etag"), Some("\"0000b3f1-2\""));
    }

    #[tokio::test(start_paused = true)]
    async fn another_document_is_answered_at_once() {
        let service = Service::new(&["web"]);
        let began = Instant::now();
        // The last is what a run before this one had served.
        for known in ["\"0000b3f1-0\"", "nonsense", "\"0000b3f0-1\""] {
            let answer = service.poll(known, "wait=30").await;
            assert_eq!((answer.status, answer.header("preference-applied")), (200, Some("wait")), "{known}");
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn long_polls_end_with_the_service() {
        let service = Service::new(&["web"]);
        let stop = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            service.shutdown.cancel();
        };
        let began = Instant::now();
        let (answer, ()) = tokio::join!(service.poll("\"0000b3f1-1\"", "wait=30"), stop);
        assert_eq!((answer.status, answer.header("preference-applied")), (304, None));
        assert_eq!(began.elapsed().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn one_waiter_too_many_is_answered_at_once() {
        let service = Service::new(&["web"]);
        let mut held = Vec::new();
        for _ in 0..WAITERS_MAX {
            let router = service.router.clone();
            let request = Request::get("/v1/demand").header("if-none-match", "*").header("prefer", "wait=30");
            held.push(tokio::spawn(router.oneshot(request.body(Body::empty()).unwrap())));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let began = Instant::now();
        let answer = service.poll("*", "wait=30").await;
        assert_eq!((answer.status, answer.header("preference-applied")), (304, None));
        assert_eq!(began.elapsed(), Duration::ZERO);
        for one in held {
            let response = one.await.unwrap().unwrap();
            assert_eq!(response.headers()["preference-applied"], "wait");
        }
        // Their places are free again.
        assert_eq!(service.poll("*", "wait=1").await.header("preference-applied"), Some("wait"));
    }

    #[tokio::test(start_paused = true)]
    async fn values_are_held_and_given_back() {
        let service = Service::new(&["batch", "web"]);
        let held = json!({"demand": {"web": 7, "batch": null}});
        let answer = service.change(Method::PUT, "/v1/demand", &held).await;
        assert_eq!((answer.status, &answer.body["demand"]), (200, &json!({"web": 7, "batch": null})));
        assert_eq!(answer.body["details"]["batch"]["freshness"], "unknown");
        let answer = service.change(Method::DELETE, "/v1/demand?key=batch", &Value::Null).await;
        assert_eq!((answer.status, &answer.body["demand"]), (200, &json!({"web": 7, "batch": 4})));
        let answer = service.change(Method::DELETE, "/v1/demand", &Value::Null).await;
        assert_eq!((answer.status, &answer.body["demand"]), (200, &json!({"web": 4, "batch": 4})));
    }

    #[tokio::test(start_paused = true)]
    async fn settings_are_read_and_changed() {
        let service = Service::new(&["web"]);
        let change = json!({"pattern": "walk", "max": 3, "seed": 12});
        let answer = service.change(Method::PUT, "/v1/generator", &change).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        assert_eq!((&answer.body["pattern"], &answer.body["trace"]), (&json!("walk"), &json!([])));
        assert_eq!(service.get("/v1/generator?key=web").await.body, answer.body);
        assert_eq!(service.get("/v1/demand").await.body["demand"], json!({"web": 1}));
    }

    #[tokio::test(start_paused = true)]
    async fn bad_input_is_answered_with_what_to_do() {
        let service = Service::new(&["batch", "web"]);
        let put = Method::PUT;
        for (path, body, wanted) in [
            ("/v1/demand", json!({"demand": {"wbe": 1}}), "no key \"wbe\" here; the keys are: batch, web"),
            (
                "/v1/demand",
                json!({"demand": {"web": 1_000_001}}),
                "demand \"web\" is 1000001; it must be 0 to 1000000",
            ),
            ("/v1/demand", json!({"demand": {"web": -1}}), "body: invalid value: integer `-1`, expected u32"),
            ("/v1/demand", json!({"demand": {"web": "7"}}), "body: invalid type: string"),
            ("/v1/demand", json!({"demnad": {"web": 7}}), "did you mean `demand`?"),
            ("/v1/demand", json!([]), "body: it must be a JSON object"),
            ("/v1/demand", json!([{"web": 7}]), "body: it must be a JSON object"),
            ("/v1/generator", json!({"max": 1}), "say which one with ?key="),
            ("/v1/generator?key=x", json!({"max": 1}), "no key \"x\" here"),
            ("/v1/generator?kee=web", json!({"max": 1}), "did you mean `key`?"),
            ("/v1/generator?key=web", json!({"pattern": "wlak"}), "did you mean `walk`?"),
            ("/v1/generator?key=web", json!({"intervall_ms": 1}), "did you mean `interval_ms`?"),
            (
                "/v1/generator?key=web",
                json!({"interval_ms": 1}),
                "interval_ms: 1 is out of range; give 10 to 86400000",
            ),
            ("/v1/generator?key=web", json!({"min": 10}), "min: 10 is above max (9)"),
        ] {
            let answer = service.change(put.clone(), path, &body).await;
            assert_eq!(answer.status, 400, "{path} {body}: {}", answer.body);
            assert!(answer.detail().contains(wanted), "{path} {body}: {}", answer.body);
        }
        let answer = service.get("/v1/generator").await;
        assert_eq!((answer.status, answer.detail().contains("?key=")), (400, true));
        assert_eq!(service.get("/v1/demand").await.body["sequence"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn only_the_operator_changes_and_everyone_reads() {
        let service = Service::new(&["web"]);
        for (method, path) in
            [(Method::PUT, "/v1/demand"), (Method::DELETE, "/v1/demand"), (Method::PUT, "/v1/generator")]
        {
            let request = Request::builder().method(method.clone()).uri(path).header("host", "127.0.0.1");
            let answer = service.send(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status, 401, "{method} {path}");
        }
        assert_eq!(service.get("/v1/demand").await.status, 200);
        assert_eq!(service.get("/v1/generator").await.status, 200);
        let answer = service.change(Method::POST, "/v1/demand", &Value::Null).await;
        assert_eq!(answer.status, 405);
        for method in ["GET", "PUT", "DELETE"] {
            assert!(answer.header("allow").unwrap().contains(method), "{:?}", answer.header("allow"));
        }
        assert!(answer.detail().contains("the `allow` header"));
    }

    #[test]
    fn the_openapi_document_in_the_repository_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
        generated::check(&path, &generated::pretty(&openapi())).unwrap();
    }
}
