//! The API in front of a real controller, on a simulated engine and virtual time.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api_types::decision::Decisions;
use api_types::problem::{PROBLEM_JSON, ProblemDocument};
use api_types::snapshot::{InstanceSnapshot, InstanceState, Phase, ServiceSnapshot, Snapshot};
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use controller::{
    Clock, Controller, DemandAnswer, DemandKey, DemandSource, DemandTransport, Engines, FeedError,
    FetchRequest, Handle, Parts, Ready, ServiceSettings, Settings, SourceSettings,
};
use driver::ContainerSpec;
use driver_testkit::sim::{Behaviour, SimConfig, SimEngine};
use force12_scheduler::http::{self, Role};
use futures_util::StreamExt as _;
use planner::{Instance, Resources, Service};
use serde::de::DeserializeOwned;
use service_kit::auth::Operator;
use service_kit::health::Readiness;
use service_kit::token::Secret;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Demands the same for ever.
struct Demands(u32);

#[async_trait]
impl DemandTransport for Demands {
    async fn fetch(&self, _: FetchRequest) -> Result<DemandAnswer, FeedError> {
        let values = BTreeMap::from([("priority1".to_owned(), Ok(Some(self.0)))]);
        Ok(DemandAnswer::Changed {
            etag: None,
            wait_applied: false,
            values,
            details: BTreeMap::new(),
            cause: tracing::Span::none(),
        })
    }
}

struct Api {
    router: Router,
    handle: Handle,
    shutdown: CancellationToken,
}

impl Api {
    /// The demo with a demand of four, once it has settled.
    async fn settled(token: Option<&str>, listen: &str) -> Self {
        Self::with_slots(3, token, listen).await
    }

    async fn with_slots(slots: u64, token: Option<&str>, listen: &str) -> Self {
        let capacity = Resources::slots_only(slots);
        let mut engine =
            SimEngine::new("sim", SimConfig::seeded(12)).with_image("workload", Behaviour::default());
        let mut settings = Settings::new("demo");
        for number in 1..=3 {
            let name = format!("instance-{number}");
            engine = engine.with_instance(&name, capacity);
            settings.instances.push(Instance::ready(name, capacity));
        }
        let spec = Arc::new(ContainerSpec { image: "workload".to_owned(), ..ContainerSpec::default() });
        settings.services = vec![
            ServiceSettings {
                service: Service::demand("priority1", 1),
                spec: Arc::clone(&spec),
                freeze_or_stop: false,
                ready: Ready::Running,
                demand: Some(DemandKey { source: "board".to_owned(), key: "priority1".to_owned() }),
            },
            ServiceSettings {
                service: Service::fill("priority2", 2),
                spec,
                freeze_or_stop: false,
                ready: Ready::Running,
                demand: None,
            },
        ];
        let source = SourceSettings { name: "board".to_owned(), poll_ms: 250, wait_ms: 0 };
        let engines = Engines {
            drivers: vec![Arc::new(engine.driver("demo"))],
            sources: vec![DemandSource { settings: source, transport: Arc::new(Demands(4)) }],
        };
        let clock = Clock::starting_at(1_795_366_800_000);
        let (controller, handle) =
            Controller::new(Parts { settings, engines, clock, seed: 12, epoch: "9c2e".to_owned() }).unwrap();
        tokio::spawn(controller.run());
        let shutdown = CancellationToken::new();
        let secret = token.map(|token| Secret::token(token, "test").unwrap());
        let operator =
            Operator::new(secret.as_ref(), listen.parse().unwrap(), &["scheduler".to_owned()]).unwrap();
        let role = Role::standing_by(Readiness::not_ready("standing by"));
        let router = http::router(role.clone(), &operator);
        role.act(handle.clone(), shutdown.clone());
        let mut views = handle.views();
        let settled = views.wait_for(|view| view.success);
        tokio::time::timeout(Duration::from_mins(10), settled).await.expect("it settles").unwrap();
        Self { router, handle, shutdown }
    }

    async fn ask(&self, request: Request<Body>) -> (StatusCode, String, Vec<u8>) {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let kind = response.headers().get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap().to_owned());
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
        (status, kind.unwrap_or_default(), body.to_vec())
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, _, body) = self.ask(Request::get(path).body(Body::empty()).unwrap()).await;
        assert_eq!(status, StatusCode::OK, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    async fn problem(&self, request: Request<Body>) -> ProblemDocument {
        let (status, kind, body) = self.ask(request).await;
        assert_eq!(kind, PROBLEM_JSON, "{}", String::from_utf8_lossy(&body));
        let problem: ProblemDocument = serde_json::from_slice(&body).unwrap();
        assert_eq!(status.as_u16(), problem.status);
        problem
    }

    async fn command<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, _, body) = self.ask(post(path)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }
}

fn get(path: &str) -> Request<Body> {
    Request::get(path).body(Body::empty()).unwrap()
}

fn post(path: &str) -> Request<Body> {
    Request::post(path)
        .header(header::HOST, "scheduler:8082")
        .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
        .body(Body::empty())
        .unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_snapshot_says_all_there_is() {
    let api = Api::settled(None, "127.0.0.1:8082").await;
    let snapshot: Snapshot = api.get("/v1/snapshot").await;
    assert_eq!((snapshot.epoch.as_str(), snapshot.cluster.as_str()), ("9c2e", "demo"));
    assert_eq!((snapshot.success, snapshot.blocked_by.len()), (Some(true), 0));
    assert_eq!((snapshot.capacity.slots, snapshot.usable_capacity.slots, snapshot.used.slots), (9, 9, 9));
    assert_eq!(snapshot.capacity.cpu_millis, None, "what is not limited is left out");
    let counts: Vec<_> = snapshot
        .services
        .iter()
        .map(|service| (service.name.as_str(), service.demand, service.running))
        .collect();
    assert_eq!(counts, [("priority1", Some(4), 4), ("priority2", None, 5)]);
    assert_eq!(
        snapshot.summary,
        "priority1 has the 4 containers it wants, priority2 fills the other 5 slots"
    );
    assert_eq!(snapshot.instances.len(), 3);
    for instance in &snapshot.instances {
        assert_eq!(
            (instance.state, instance.container_count, instance.used.slots),
            (InstanceState::Ready, 3, 3)
        );
        assert!(instance.containers.iter().all(|container| container.phase == Phase::Running));
    }
    assert!(snapshot.taken_at.to_string().starts_with("2026-11-22T17:00:"), "{}", snapshot.taken_at);
}

#[tokio::test(start_paused = true)]
async fn decisions_are_paged_newest_first_and_say_why() {
    let api = Api::settled(None, "127.0.0.1:8082").await;
    let _: InstanceSnapshot = api.command("/v1/instances/instance-2/drain").await;
    tokio::time::sleep(Duration::from_mins(1)).await;
    let all: Decisions = api.get("/v1/decisions?limit=500").await;
    assert!(all.decisions.len() > 1 && all.next_before.is_none());
    assert!(all.decisions.is_sorted_by(|a, b| a.sequence > b.sequence));
    let starts =
        all.decisions.iter().flat_map(|decision| &decision.actions).filter(|action| action.action == "start");
    assert!(starts.clone().count() >= 9, "those of the start, and those in place of the drained");
    assert!(
        starts
            .clone()
            .all(|start| start.words.contains(" because ") || start.words.contains(" in place of ")),
        "each says why"
    );

    let mut paged = Vec::new();
    let mut next = None;
    loop {
        let before = next.map(|before| format!("&before={before}")).unwrap_or_default();
        let page: Decisions = api.get(&format!("/v1/decisions?limit=1{before}")).await;
        paged.extend(page.decisions);
        next = page.next_before;
        if next.is_none() {
            break;
        }
    }
    assert_eq!(paged, all.decisions, "page by page it is the same");

    let of_one: Decisions = api.get("/v1/decisions?service=priority2").await;
    assert!(!of_one.decisions.is_empty() && of_one.decisions.len() <= all.decisions.len());
}

#[tokio::test(start_paused = true)]
async fn a_bad_query_is_refused_with_what_is_wrong() {
    let api = Api::settled(None, "127.0.0.1:8082").await;
    for (query, status, part) in [
        ("limit=0", 400, "limit 0 is not from 1 to 500"),
        ("limit=501", 400, "limit 501"),
        ("limit=-1", 400, "limit"),
        ("limit=many", 400, "limit"),
        ("before=x", 400, "before"),
        ("limt=1", 400, "did you mean `limit`"),
        ("service=web", 404, "no service is named \"web\"; there is priority1, priority2"),
    ] {
        let problem = api.problem(get(&format!("/v1/decisions?{query}"))).await;
        assert_eq!(problem.status, status, "{query}");
        let detail = problem.detail.unwrap();
        assert!(detail.contains(part), "{query}: {detail}");
    }
}

#[tokio::test(start_paused = true)]
async fn commands_answer_with_what_they_changed_and_can_be_repeated() {
    let api = Api::settled(Some(TOKEN), "0.0.0.0:8082").await;
    for (command, state) in [
        ("cordon", InstanceState::Cordoned),
        ("cordon", InstanceState::Cordoned),
        ("drain", InstanceState::Draining),
        ("uncordon", InstanceState::Ready),
        ("uncordon", InstanceState::Ready),
    ] {
        let instance: InstanceSnapshot = api.command(&format!("/v1/instances/instance-2/{command}")).await;
        assert_eq!((instance.name.as_str(), instance.state), ("instance-2", state), "{command}");
    }
    for (command, paused) in [("pause", true), ("pause", true), ("resume", false), ("resume", false)] {
        let service: ServiceSnapshot = api.command(&format!("/v1/services/priority2/{command}")).await;
        assert_eq!((service.name.as_str(), service.paused), ("priority2", paused), "{command}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_command_for_what_is_not_there_names_what_is() {
    let api = Api::settled(Some(TOKEN), "0.0.0.0:8082").await;
    let problem = api.problem(post("/v1/instances/instance-9/drain")).await;
    assert_eq!(problem.status, 404);
    assert_eq!(
        problem.detail.as_deref(),
        Some("no instance is named \"instance-9\"; there is instance-1, instance-2, instance-3")
    );
    let problem = api.problem(post("/v1/services/web/pause")).await;
    assert_eq!(problem.detail.as_deref(), Some("no service is named \"web\"; there is priority1, priority2"));
}

#[tokio::test(start_paused = true)]
async fn every_command_takes_the_operator() {
    let api = Api::settled(Some(TOKEN), "0.0.0.0:8082").await;
    let unguarded = Api::settled(None, "0.0.0.0:8082").await;
    for path in [
        "/v1/instances/instance-1/cordon",
        "/v1/instances/instance-1/uncordon",
        "/v1/instances/instance-1/drain",
        "/v1/services/priority1/pause",
        "/v1/services/priority1/resume",
    ] {
        let mut request = post(path);
        request.headers_mut().remove(header::AUTHORIZATION);
        assert_eq!(api.problem(request).await.status, 401, "{path} without a token");
        let mut request = post(path);
        request.headers_mut().insert(header::AUTHORIZATION, "Bearer not-the-right-token".parse().unwrap());
        assert_eq!(api.problem(request).await.status, 401, "{path} with a wrong token");
        let mut request = post(path);
        request.headers_mut().insert(header::HOST, "evil.example".parse().unwrap());
        assert_eq!(api.problem(request).await.status, 403, "{path} under a foreign name");
        let mut request = post(path);
        request.headers_mut().insert(header::ORIGIN, "http://evil.example".parse().unwrap());
        assert_eq!(api.problem(request).await.status, 403, "{path} from a foreign page");
        assert_eq!(unguarded.problem(post(path)).await.status, 403, "{path} with no token configured");
    }
    let (status, ..) = api.ask(get("/v1/snapshot")).await;
    assert_eq!(status, StatusCode::OK, "looking takes no token");
}

#[tokio::test(start_paused = true)]
async fn the_stream_begins_with_the_newest_follows_changes_and_ends_with_the_service() {
    let api = Api::settled(None, "127.0.0.1:8082").await;
    // What was published while it settled is paced.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let response = api.router.clone().oneshot(get("/v1/stream")).await.unwrap();
    assert_eq!(response.headers()[header::CONTENT_TYPE], "text/event-stream");
    let mut events =
        response.into_body().into_data_stream().map(|chunk| String::from_utf8(chunk.unwrap().to_vec()));
    assert_eq!(events.next().await.unwrap().unwrap(), "retry: 1000\n\n");
    let read = |event: String| {
        let (id, data) = event.strip_prefix("id: ").unwrap().split_once("\ndata: ").unwrap();
        let snapshot: Snapshot = serde_json::from_str(data).unwrap();
        assert_eq!(id, format!("9c2e:{}", snapshot.sequence));
        snapshot
    };
    let first = read(events.next().await.unwrap().unwrap());
    assert_eq!(first.sequence, api.handle.view().sequence);
    assert_eq!(first.success, Some(true));
    api.handle.cordon("instance-3").await.unwrap();
    let next = read(events.next().await.unwrap().unwrap());
    assert!(next.sequence > first.sequence);
    assert_eq!(next.instances[2].state, InstanceState::Cordoned);
    api.shutdown.cancel();
    assert!(events.next().await.is_none(), "it ends at once");
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_many_containers_carries_their_counts() {
    let api = Api::with_slots(400, None, "127.0.0.1:8082").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let whole: Snapshot = api.get("/v1/snapshot").await;
    assert!(whole.instances.iter().all(|instance| instance.containers.len() == 400));
    let response = api.router.clone().oneshot(get("/v1/stream")).await.unwrap();
    let mut events = response.into_body().into_data_stream();
    events.next().await.unwrap().unwrap();
    let event = String::from_utf8(events.next().await.unwrap().unwrap().to_vec()).unwrap();
    let streamed: Snapshot = serde_json::from_str(event.split_once("\ndata: ").unwrap().1).unwrap();
    for instance in &streamed.instances {
        assert_eq!((instance.container_count, instance.containers.len()), (400, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn readiness_follows_the_controller() {
    let api = Api::settled(None, "127.0.0.1:8082").await;
    let readiness = Readiness::not_ready("no engine has been observed yet");
    let following = tokio::spawn(http::follow_readiness(api.handle.views(), readiness.clone()));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(readiness.reason(), None);
    api.handle.shutdown(Duration::from_secs(1)).await;
    following.await.unwrap();
    assert_eq!(readiness.reason().as_deref(), Some("the control loop has ended"));
    let problem = api.problem(post("/v1/services/priority1/pause")).await;
    assert_eq!(problem.status, 503, "{problem:?}");
}

#[test]
fn the_kept_openapi_document_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi.json");
    service_kit::generated::check(&path, &service_kit::generated::pretty(&http::openapi())).unwrap();
}

#[test]
fn the_openapi_document_names_every_path() {
    let document = serde_json::to_value(http::openapi()).unwrap();
    let paths: Vec<&String> = document["paths"].as_object().unwrap().keys().collect();
    assert_eq!(
        paths,
        [
            "/healthz",
            "/metrics",
            "/openapi.json",
            "/readyz",
            "/v1/decisions",
            "/v1/instances/{name}/cordon",
            "/v1/instances/{name}/drain",
            "/v1/instances/{name}/uncordon",
            "/v1/services/{name}/pause",
            "/v1/services/{name}/resume",
            "/v1/snapshot",
            "/v1/stream",
        ]
    );
}
