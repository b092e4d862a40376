//! The whole service, in process: its router, in front of a scheduler and a demand source on loopback.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use api_types::Timestamp;
use api_types::problem::STANDING_BY;
use axum::Router;
use axum::body::{Body, BodyDataStream};
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Redirect, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use service_kit::auth::Operator;
use service_kit::health::Readiness;
use service_kit::metrics::MetricsHandle;
use service_kit::problem::Problem;
use service_kit::sse::{Message, StreamLimits, Streams};
use service_kit::token::Secret;
use status_api::address::Addresses;
use status_api::clock::Clock;
use status_api::follow::{self, Http};
use status_api::history::{self, Ring};
use status_api::http::{App, HISTORIES_MAX};
use status_api::hub::Hub;
use status_api::upstream::{self, Upstream};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt as _;

const TOKEN: &str = "0123456789abcdef";
/// Far beyond what anything here takes: a test that waits for longer has failed.
const PATIENCE: Duration = Duration::from_secs(20);

fn snapshot(epoch: &str, sequence: u64) -> String {
    json!({
        "epoch": epoch, "sequence": sequence, "taken_at": "2026-11-22T17:00:00.000Z", "cluster": "demo",
        "success": true, "success_since": "2026-11-22T17:00:00.000Z", "blocked_by": [], "summary": "all is well",
        "capacity": {"slots": 9}, "usable_capacity": {"slots": 9}, "used": {"slots": 9},
        "services": [], "instances": [], "a_field_of_a_newer_scheduler": true,
        "reaction": {"count": 0}, "start": {"count": 0}, "stop": {"count": 0}
    })
    .to_string()
}

/// One for the process, as its recorder is.
static METRICS: LazyLock<MetricsHandle> = LazyLock::new(|| {
    let metrics = service_kit::metrics::install().unwrap();
    status_api::metrics::describe();
    metrics
});

/// Method and URI, body, and authorization of each request.
type Asked = Arc<Mutex<Vec<(String, String, Option<String>)>>>;

/// A service behind status-api, which keeps what it was asked.
struct Behind {
    /// What its stream carries.
    newest: watch::Sender<Option<Arc<Message>>>,
    /// What it was asked, besides its stream.
    asked: Asked,
    /// Where it listens.
    address: SocketAddr,
    /// Whether it stands by, and has no stream.
    stands_by: Arc<AtomicBool>,
    /// Accepts connections.
    server: AbortHandle,
    _streams: DropGuard,
}

impl Behind {
    fn start(listener: TcpListener) -> Self {
        let address = listener.local_addr().unwrap();
        let newest = watch::Sender::new(None);
        let shutdown = CancellationToken::new();
        let streams = Streams::new(newest.subscribe(), shutdown.clone(), StreamLimits::default());
        let asked = Arc::default();
        let stands_by = Arc::new(AtomicBool::new(false));
        let standing_by = Arc::clone(&stands_by);
        let stream = async move |headers: HeaderMap| {
            if standing_by.load(Ordering::Relaxed) {
                return Err(Problem::unavailable("standing by while another acts (run: pid 7)")
                    .with_code(STANDING_BY));
            }
            streams.open(&headers)
        };
        let router = Router::new()
            .route("/v1/stream", get(stream))
            .fallback(any(answer))
            .with_state(Arc::clone(&asked));
        let server = tokio::spawn(axum::serve(listener, router).into_future()).abort_handle();
        Self { newest, asked, address, stands_by, server, _streams: shutdown.drop_guard() }
    }

    fn publishes(&self, epoch: &str, sequence: u64) {
        let message = Message::new(&format!("{epoch}:{sequence}"), &snapshot(epoch, sequence));
        self.newest.send_replace(Some(Arc::new(message)));
    }

    fn asked(&self) -> Vec<(String, String, Option<String>)> {
        self.asked.lock().unwrap().clone()
    }
}

async fn answer(State(asked): State<Asked>, request: Request) -> Response {
    let line = format!("{} {}", request.method(), request.uri());
    let authorization = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    asked.lock().unwrap().push((line.clone(), String::from_utf8(body.to_vec()).unwrap(), authorization));
    let json = [(CONTENT_TYPE, "application/json")];
    match line.as_str() {
        "GET /v1/decisions?service=page" => "<script>alert(1)</script>".into_response(),
        "GET /v1/decisions?service=elsewhere" => Redirect::temporary("/v1/demand").into_response(),
        "GET /v1/decisions?service=endless" => {
            let chunk = Bytes::from(vec![b' '; 1024 * 1024]);
            let endless = futures_util::stream::repeat_with(move || Ok::<_, std::io::Error>(chunk.clone()));
            (json, Body::from_stream(endless)).into_response()
        }
        "GET /v1/decisions?service=large" | "POST /v1/services/large/pause" => {
            (json, format!("\"{}\"", "x".repeat(3 * 1024 * 1024))).into_response()
        }
        "GET /v1/decisions?service=hung" => std::future::pending().await,
        "POST /v1/instances/nowhere/drain" => (
            StatusCode::NOT_FOUND,
            [(CONTENT_TYPE, "application/problem+json")],
            r#"{"type":"about:blank","title":"not found","status":404,"detail":"no instance \"nowhere\""}"#,
        )
            .into_response(),
        "DELETE /v1/demand" => StatusCode::NO_CONTENT.into_response(),
        _ => (json, r#"{"passed": "on"}"#).into_response(),
    }
}

/// status-api, following whichever of `schedulers` acts.
struct Service {
    router: Router,
    hub: Arc<Hub>,
    _shutdown: DropGuard,
}

impl Service {
    fn start(schedulers: &[&TcpListener], demand: Option<&TcpListener>) -> Self {
        let url =
            |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let client = upstream::client(None).unwrap();
        let clock = Clock::starting_at(Timestamp::now());
        let readiness = Readiness::not_ready("the scheduler has not been heard yet");
        let hub = Arc::new(Hub::new(clock, readiness.clone()));
        let shutdown = CancellationToken::new();
        let addresses = Addresses::default();
        let following = upstream::client_of(&addresses, None).unwrap();
        let schedulers: Arc<[Upstream]> = schedulers
            .iter()
            .map(|scheduler| Upstream::new("the scheduler", url(scheduler), following.clone()))
            .collect();
        let limits = follow::Limits { first_event: PATIENCE, silence: PATIENCE };
        for (from, scheduler) in schedulers.iter().enumerate() {
            let stream = scheduler.url(&["v1", "stream"]).unwrap();
            let stream = Http::new(following.clone(), stream, addresses.clone());
            let (followed, until) = (Arc::clone(&hub), shutdown.clone());
            tokio::spawn(async move {
                follow::follow(stream, followed.line(from), watch::channel(limits).1, || 0.5, until).await;
            });
        }
        let ring = Ring::new(history::Limits { window_ms: 60_000, samples_max: 100 });
        let app = App {
            hub: Arc::clone(&hub),
            streams: Streams::new(hub.messages(), shutdown.clone(), StreamLimits::default()),
            history: Arc::new(Mutex::new(ring)),
            histories: Arc::new(Semaphore::new(HISTORIES_MAX)),
            clock,
            schedulers,
            demand: demand.map(|demand| Upstream::new("the demand source", url(demand), client)),
        };
        // As in the compose project: published on the host's loopback, listening on every address.
        let token = Secret::token(TOKEN, "test").unwrap();
        let operator = Operator::new(Some(&token), "0.0.0.0:8080".parse().unwrap(), &[]).unwrap();
        let router = status_api::http::router(app, &operator, readiness, METRICS.clone());
        Self { router, hub, _shutdown: shutdown.drop_guard() }
    }

    async fn send(&self, request: Request) -> Response {
        let app = service_kit::http::app(self.router.clone(), service_kit::http::Limits::default());
        app.oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        document(self.send(Request::get(path).body(Body::empty()).unwrap()).await).await
    }

    /// A request of the operator, made on the host that the page is published on.
    async fn change(&self, line: &str, body: Option<Value>, token: Option<&str>) -> (StatusCode, Value) {
        let (method, path) = line.split_once(' ').unwrap();
        let mut request = Request::builder().method(method).uri(path).header(HOST, "127.0.0.1:18080");
        if let Some(token) = token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = match body {
            Some(body) => request.header(CONTENT_TYPE, "application/json").body(Body::from(body.to_string())),
            None => request.body(Body::empty()),
        };
        document(self.send(request.unwrap()).await).await
    }

    /// Waits for a document that fits.
    async fn shows(&self, fits: impl Fn(&Value) -> bool) -> Value {
        let mut newest = self.hub.newest();
        let waiting = async {
            loop {
                if let Some(published) = newest.borrow_and_update().clone() {
                    let shown: Value = serde_json::from_slice(&published.json).unwrap();
                    if fits(&shown) {
                        return shown;
                    }
                }
                newest.changed().await.unwrap();
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("such a document is shown in time")
    }
}

async fn document(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, if body.is_empty() { Value::Null } else { serde_json::from_slice(&body).unwrap() })
}

async fn next_frame(frames: &mut BodyDataStream) -> String {
    String::from_utf8(frames.next().await.unwrap().unwrap().to_vec()).unwrap()
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// A scheduler that has published, a demand source, and the service in front of both.
async fn all() -> (Behind, Behind, Service) {
    let (scheduler, demand) = (listener().await, listener().await);
    let service = Service::start(&[&scheduler], Some(&demand));
    let (scheduler, demand) = (Behind::start(scheduler), Behind::start(demand));
    scheduler.publishes("a", 1);
    service.shows(|_| true).await;
    (scheduler, demand, service)
}

#[tokio::test]
async fn it_is_ready_with_the_first_snapshot() {
    let at = listener().await;
    let service = Service::start(&[&at], None);
    for path in ["/readyz", "/v1/snapshot"] {
        let (status, problem) = service.get(path).await;
        assert_eq!((status, &problem["status"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(503)), "{path}");
    }
    assert_eq!(service.get("/healthz").await.0, StatusCode::OK);
    assert_eq!(service.get("/v1/history").await.0, StatusCode::OK);

    let scheduler = Behind::start(at);
    scheduler.publishes("a", 1);
    service.shows(|_| true).await;
    assert_eq!(service.get("/readyz").await.0, StatusCode::OK);
    let (status, shown) = service.get("/v1/snapshot").await;
    assert_eq!(
        (status, &shown["source"]["live"], &shown["success"]),
        (StatusCode::OK, &json!(true), &json!(true))
    );
}

#[tokio::test]
async fn a_scheduler_that_is_killed_and_comes_back_is_followed_again() {
    let (scheduler, _demand, service) = all().await;
    let at = scheduler.address;
    scheduler.publishes("a", 2);
    service.shows(|shown| shown["sequence"] == 2).await;
    scheduler.server.abort();
    drop(scheduler);
    let lost = service.shows(|shown| shown["source"]["live"] == false).await;
    assert_eq!((&lost["success"], &lost["sequence"]), (&Value::Null, &json!(2)));
    assert_eq!(service.get("/readyz").await.0, StatusCode::OK, "what is shown says itself that it is old");

    let scheduler = Behind::start(TcpListener::bind(at).await.unwrap());
    scheduler.publishes("b", 1);
    let back = service.shows(|shown| shown["epoch"] == "b").await;
    assert_eq!((&back["success"], &back["source"]["live"]), (&json!(true), &json!(true)));
}

#[tokio::test]
async fn of_several_schedulers_the_one_that_acts_is_followed_and_gets_the_commands() {
    let (first, second) = (listener().await, listener().await);
    let service = Service::start(&[&first, &second], None);
    let (first, second) = (Behind::start(first), Behind::start(second));
    second.stands_by.store(true, Ordering::Relaxed);
    first.publishes("a", 1);
    service.shows(|shown| shown["source"]["live"] == true).await;
    let cordon = "POST /v1/instances/instance-1/cordon";
    assert_eq!(service.change(cordon, None, Some(TOKEN)).await.0, StatusCode::OK);
    assert_eq!((first.asked().len(), second.asked().len()), (1, 0));

    let at = first.address;
    first.server.abort();
    drop(first);
    service.shows(|shown| shown["source"]["live"] == false).await;
    second.stands_by.store(false, Ordering::Relaxed);
    second.publishes("b", 1);
    let shown = service.shows(|shown| shown["source"]["live"] == true).await;
    assert_eq!(shown["epoch"], "b");
    assert_eq!(service.change(cordon, None, Some(TOKEN)).await.0, StatusCode::OK);
    assert_eq!(service.get("/v1/decisions").await.0, StatusCode::OK);
    assert_eq!(second.asked().len(), 2);

    // Back, the first stands by, and changes nothing.
    let first = Behind::start(TcpListener::bind(at).await.unwrap());
    first.stands_by.store(true, Ordering::Relaxed);
    second.publishes("b", 2);
    let shown = service.shows(|shown| shown["sequence"] == 2).await;
    assert_eq!((&shown["epoch"], &shown["source"]["live"]), (&json!("b"), &json!(true)));
    assert_eq!(first.asked(), []);
}

#[tokio::test]
async fn a_stream_begins_with_the_newest_unless_the_reader_has_it() {
    let (scheduler, _demand, service) = all().await;
    let open = async |last: Option<&str>| {
        let mut request = Request::get("/v1/stream");
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = service.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
        let mut frames = response.into_body().into_data_stream();
        assert!(next_frame(&mut frames).await.starts_with("retry: "));
        frames
    };
    let first = next_frame(&mut open(None).await).await;
    let id = first.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    assert!(id.starts_with("a:1:"), "{id}");
    assert!(first.contains("\"live\":true"), "{first}");

    let mut resumed = open(Some(&id)).await;
    let mut next = Box::pin(next_frame(&mut resumed));
    assert_eq!(next.as_mut().now_or_never(), None, "the reader has the newest");
    scheduler.publishes("a", 2);
    let frame = tokio::time::timeout(PATIENCE, next).await.unwrap();
    assert!(frame.starts_with("id: a:2:"), "{frame}");
    let skipped = next_frame(&mut open(Some("a:1:0")).await).await;
    assert!(skipped.starts_with("id: a:2:"), "{skipped}");
}

#[tokio::test]
async fn changes_need_the_token_and_carry_it_on() {
    let (scheduler, demand, service) = all().await;
    let hold = || Some(json!({"demand": {"priority1": 7}}));
    for token in [None, Some("0123456789abcdeX")] {
        for (line, body) in [("POST /v1/instances/i/cordon", None), ("PUT /v1/demand", hold())] {
            assert_eq!(service.change(line, body, token).await.0, StatusCode::UNAUTHORIZED, "{line}");
        }
    }
    assert_eq!((scheduler.asked(), demand.asked()), (vec![], vec![]), "nothing was passed on");

    let done = (StatusCode::OK, json!({"passed": "on"}));
    let paths = [
        "POST /v1/instances/i%2F1/cordon",
        "POST /v1/instances/i/uncordon",
        "POST /v1/instances/i/drain",
        "POST /v1/services/s/pause",
        "POST /v1/services/s/resume",
    ];
    for line in paths {
        assert_eq!(service.change(line, None, Some(TOKEN)).await, done, "{line}");
    }
    let bearer = Some(format!("Bearer {TOKEN}"));
    let expected: Vec<_> =
        paths.iter().map(|line| ((*line).to_owned(), String::new(), bearer.clone())).collect();
    assert_eq!(scheduler.asked(), expected);

    assert_eq!(service.change("PUT /v1/demand", hold(), Some(TOKEN)).await, done);
    let sine = Some(json!({"pattern": "sine"}));
    assert_eq!(service.change("PUT /v1/generator", sine, Some(TOKEN)).await, done);
    let released = service.change("DELETE /v1/demand", None, Some(TOKEN)).await;
    assert_eq!(released, (StatusCode::NO_CONTENT, Value::Null));
    let asked: Vec<_> = demand.asked().into_iter().map(|(line, body, _)| format!("{line} {body}")).collect();
    assert_eq!(
        asked,
        [
            r#"PUT /v1/demand {"demand":{"priority1":7}}"#,
            r#"PUT /v1/generator {"pattern":"sine"}"#,
            "DELETE /v1/demand "
        ]
    );
}

#[tokio::test]
async fn of_several_keys_the_named_one_is_meant() {
    let (_scheduler, demand, service) = all().await;
    let walk = || Some(json!({"pattern": "walk"}));
    for (line, body) in [
        ("GET /v1/generator?key=a", None),
        ("PUT /v1/generator?key=b%26c", walk()),
        ("DELETE /v1/demand?key=a", None),
    ] {
        let (status, answer) = service.change(line, body, Some(TOKEN)).await;
        assert!(status.is_success(), "{line}: {answer}");
    }
    let asked: Vec<_> = demand.asked().into_iter().map(|(line, ..)| line).collect();
    assert_eq!(asked, ["GET /v1/generator?key=a", "PUT /v1/generator?key=b%26c", "DELETE /v1/demand?key=a"]);
    for (line, body) in [
        ("GET /v1/generator?kee=a", None),
        ("PUT /v1/generator?kee=a", walk()),
        ("DELETE /v1/demand?kee=a", None),
    ] {
        let (status, problem) = service.change(line, body, Some(TOKEN)).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{line}");
        assert!(problem["detail"].as_str().unwrap().contains("did you mean `key`?"), "{problem}");
    }
    assert_eq!(demand.asked().len(), 3, "a misspelt key releases nothing");
}

#[tokio::test]
async fn what_the_service_behind_refuses_is_passed_back() {
    let (_scheduler, _demand, service) = all().await;
    let (status, problem) = service.change("POST /v1/instances/nowhere/drain", None, Some(TOKEN)).await;
    assert_eq!((status, &problem["detail"]), (StatusCode::NOT_FOUND, &json!("no instance \"nowhere\"")));
    let bad = service.change("PUT /v1/demand", Some(json!({"demnd": {}})), Some(TOKEN)).await;
    assert_eq!(bad.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_page_of_someone_else_changes_nothing() {
    let (scheduler, _demand, service) = all().await;
    for (name, value) in [(HOST.as_str(), "evil.example"), ("origin", "https://evil.example")] {
        let mut request =
            Request::post("/v1/services/s/pause").header(AUTHORIZATION, format!("Bearer {TOKEN}"));
        request = request.header(name, value);
        if name != HOST.as_str() {
            request = request.header(HOST, "localhost:8080");
        }
        let response = service.send(request.body(Body::empty()).unwrap()).await;
        assert_eq!(response.status(), StatusCode::FORBIDDEN, "{name}");
    }
    assert_eq!(scheduler.asked(), []);
}

#[tokio::test]
async fn without_a_demand_source_its_controls_say_so() {
    let at = listener().await;
    let service = Service::start(&[&at], None);
    for line in ["GET /v1/demand", "GET /v1/generator", "DELETE /v1/demand"] {
        let (status, problem) = service.change(line, None, Some(TOKEN)).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{line}");
        assert_eq!(problem["type"], "urn:force12:problem:no-demand-source", "{line}");
    }
}

#[tokio::test]
async fn answers_of_history_are_bounded_while_they_are_taken() {
    let at = listener().await;
    let service = Service::start(&[&at], None);
    let ask = async || service.send(Request::get("/v1/history").body(Body::empty()).unwrap()).await;
    let mut untaken = Vec::new();
    for _ in 0..HISTORIES_MAX {
        let response = ask().await;
        assert_eq!(
            (response.status(), &response.headers()["cache-control"]),
            (StatusCode::OK, &"no-store".parse().unwrap())
        );
        untaken.push(response);
    }
    let (status, problem) = document(ask().await).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{problem}");
    drop(untaken.pop());
    let (status, history) = document(ask().await).await;
    assert_eq!(
        (status, history),
        (StatusCode::OK, json!({"window_ms": 60_000, "services": [], "samples": []}))
    );
    assert_eq!(document(ask().await).await.0, StatusCode::OK, "a taken answer has freed its place");
}

#[tokio::test]
async fn decisions_are_passed_on_within_bounds() {
    let (scheduler, _demand, service) = all().await;
    let (status, _) = service.get("/v1/decisions?limit=20&before=7&service=a%20b%26limit%3D9").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(scheduler.asked()[0].0, "GET /v1/decisions?service=a+b%26limit%3D9&limit=20&before=7");
    for bad in ["limit=0", "limit=501", "limit=x", "lmit=5"] {
        assert_eq!(service.get(&format!("/v1/decisions?{bad}")).await.0, StatusCode::BAD_REQUEST, "{bad}");
    }
    for (service_name, words) in
        [("page", "not in JSON"), ("elsewhere", "not in JSON"), ("endless", "more than 4194304 bytes")]
    {
        let (status, problem) = service.get(&format!("/v1/decisions?service={service_name}")).await;
        assert_eq!(status, StatusCode::BAD_GATEWAY, "{service_name}");
        assert!(problem["detail"].as_str().unwrap().contains(words), "{problem}");
    }
}

#[tokio::test]
async fn answers_that_wait_to_be_taken_are_bounded() {
    let (_scheduler, _demand, service) = all().await;
    let ask = async || {
        let request = Request::get("/v1/decisions?service=large").body(Body::empty()).unwrap();
        service.send(request).await
    };
    let (first, second) = (ask().await, ask().await);
    assert_eq!((first.status(), second.status()), (StatusCode::OK, StatusCode::OK));
    let (status, problem) = document(ask().await).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(problem["detail"].as_str().unwrap().contains("wait to be taken already"), "{problem}");
    let line = "POST /v1/services/large/pause";
    assert_eq!(service.change(line, None, Some(TOKEN)).await.0, StatusCode::OK, "what was done is told");
    drop(first);
    let (status, large) = document(ask().await).await;
    assert_eq!((status, large.as_str().unwrap().len()), (StatusCode::OK, 3 * 1024 * 1024));
}

#[tokio::test]
async fn a_service_behind_that_hangs_or_is_gone_is_waited_for_within_bounds() {
    let (scheduler, _demand, service) = all().await;
    tokio::time::pause();
    let (status, problem) = service.get("/v1/decisions?service=hung").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(problem["type"], "urn:force12:problem:upstream");
    tokio::time::resume();
    scheduler.server.abort();
    drop(scheduler);
    service.shows(|shown| shown["source"]["live"] == false).await;
    assert_eq!(service.get("/v1/decisions").await.0, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn every_metric_says_what_it_is() {
    let (scheduler, _demand, service) = all().await;
    scheduler.server.abort();
    drop(scheduler);
    service.shows(|shown| shown["source"]["live"] == false).await;
    service.get("/healthz").await;
    let response = service.send(Request::get("/metrics").body(Body::empty()).unwrap()).await;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = std::str::from_utf8(&body).unwrap();
    let names: Vec<_> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    for name in &names {
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is not described");
    }
    for recorded in [
        "http_requests_total",
        "status_snapshots_published_total",
        "status_source_live",
        "status_stream_errors_total",
    ] {
        assert!(names.contains(&recorded), "{recorded} is not among {names:?}");
    }
}

#[tokio::test]
async fn the_page_is_this_origins_alone() {
    let at = listener().await;
    let service = Service::start(&[&at], None);
    let get = async |path: &str, headers: &[(&str, &str)]| {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        service.send(request.body(Body::empty()).unwrap()).await
    };
    let page = get("/", &[]).await;
    assert_eq!(page.status(), StatusCode::OK);
    let headers = page.headers().clone();
    assert_eq!(headers["cache-control"], "no-cache");
    assert_eq!(headers["x-content-type-options"], "nosniff");
    assert_eq!(headers["referrer-policy"], "no-referrer");
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(policy.starts_with("default-src 'none'; ") && !policy.contains("unsafe"), "{policy}");

    let html = String::from_utf8(page.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(!html.contains("<style") && !html.contains(" style=") && !html.contains("://"), "{html}");
    assert_eq!(
        html.matches("<script").count(),
        html.matches("<script type=\"module\" crossorigin src=").count()
    );
    let assets: Vec<&str> =
        html.split('"').filter(|text| text.starts_with("/assets/") || *text == "/icon.svg").collect();
    assert_eq!(assets.len(), 3, "{html}");
    for path in assets {
        let asset = get(path, &[("accept-encoding", "gzip")]).await;
        assert_eq!(asset.status(), StatusCode::OK, "{path}");
        let caching = asset.headers()["cache-control"].to_str().unwrap();
        assert_eq!(caching.contains("immutable"), path.starts_with("/assets/"), "{path}");
        assert_eq!(asset.headers()["content-encoding"], "gzip", "{path}");
    }
    let again = get("/", &[("if-none-match", headers["etag"].to_str().unwrap())]).await;
    assert_eq!(again.status(), StatusCode::NOT_MODIFIED);
    for missing in ["/assets/no.js", "/assets/..%2Findex.html", "/index.php"] {
        assert_eq!(get(missing, &[]).await.status(), StatusCode::NOT_FOUND, "{missing}");
    }
}
