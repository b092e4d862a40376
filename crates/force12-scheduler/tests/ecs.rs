//! The scheduler as a process of its own, on a fake of ECS with simulated containers: over HTTP, in real time.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use fake_ecs::{Config, Delays, EventDelivery, FakeEcs, FaultRates, InstanceSpec, TaskTruth, http};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

const ECS_CLUSTER: &str = "force12-demo";
/// For whatever is waited for: a debug build on a busy machine.
const LIMIT: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);

/// A cluster of three instances with three slots each, what is demanded of it, and a scheduler's configuration.
struct Scene {
    ecs: FakeEcs,
    address: SocketAddr,
    client: reqwest::Client,
    config: PathBuf,
    directory: TempDir,
}

/// Serves it on a loopback address of its own for as long as the test runs.
async fn serve(router: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

fn instance(number: u32) -> InstanceSpec {
    InstanceSpec { ec2_instance_id: format!("i-{number}"), ..InstanceSpec::default() }
}

impl Scene {
    async fn new() -> Self {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap();
        let config = Config {
            epoch_ms: u64::try_from(now.as_millis()).unwrap(),
            latency_ms: 1..=5,
            delays: Delays::all(10..=40),
            events: Some(EventDelivery { delay_ms: 5..=50, ..EventDelivery::default() }),
            ..Config::seeded(12)
        };
        let ecs = FakeEcs::new(config).with_cluster(ECS_CLUSTER);
        for number in 1..=3 {
            ecs.add_instance(ECS_CLUSTER, instance(number));
        }
        let fake = serve(http::router(ecs.clone())).await;
        let document = json!({"sequence": 1, "changed_at": "2026-11-22T17:00:00.123Z", "demand": {"web": 4}});
        let demand = serve(Router::new().route("/", get(move || async { axum::Json(document) }))).await;
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("scheduler.toml");
        let text = format!(
            r#"cluster = "ecs-test"
listen = "{address}"
settle_ms = 1000
lost_after_ms = 1000

[ecs]
cluster = "{ECS_CLUSTER}"
region = "eu-west-1"
endpoint_url = "http://{fake}"
events_queue_url = "http://{fake}/123456789012/force12-events"
slots_per_instance = 3
refresh_ms = 5000

[[demand_source]]
name = "traffic"
url = "http://{demand}/"

[[service]]
name = "web"
priority = 1
task_definition = "web"
demand = {{ source = "traffic", key = "web" }}

[[service]]
name = "batch"
priority = 2
task_definition = "batch"
fill = true
"#
        );
        std::fs::write(&file, text).unwrap();
        let clients = Arc::new(force12_scheduler::demand::clients(None).unwrap());
        let scene = Self { ecs, address, client: clients.current().await, config: file, directory };
        scene.register("web", "web:1").await;
        scene.register("batch", "batch:1").await;
        scene
    }

    async fn register(&self, family: &str, image: &str) {
        let definition = json!({
            "family": family,
            "networkMode": "host",
            "containerDefinitions": [{"name": "it", "image": image, "cpu": 128, "memory": 64, "stopTimeout": 2}],
        });
        let target = "AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition";
        let outcome = self.ecs.call(target, definition.to_string()).await;
        let fake_ecs::Outcome::Answered(answer) = outcome else { panic!("no answer") };
        assert_eq!(answer.status, 200);
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let log = self.directory.path().join("log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_force12-scheduler"));
        command
            .args(arguments)
            .arg(&self.config)
            .env_clear()
            .env("AWS_ACCESS_KEY_ID", "test")
            .env("AWS_SECRET_ACCESS_KEY", "test")
            .env("AWS_EC2_METADATA_DISABLED", "true")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true);
        command
    }

    fn start(&self) -> Child {
        self.command(&["run", "--config"]).spawn().unwrap()
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let answer = self.client.get(format!("http://{}{path}", self.address)).send().await.ok()?;
        serde_json::from_slice(&answer.bytes().await.ok()?).ok()
    }

    /// Waits until what is answered at `path` is as wanted.
    async fn until(&self, path: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        let mut last = None;
        while began.elapsed() < LIMIT {
            last = self.get(path).await;
            if let Some(document) = last.take_if(|document| wanted(document)) {
                println!("{what}: after {} ms", began.elapsed().as_millis());
                return document;
            }
            sleep(POLL).await;
        }
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        let log: Vec<&str> = log.lines().rev().take(30).collect();
        panic!("not within {LIMIT:?}: {what}; last {last:?}; tasks {:#?}; log {log:#?}", self.ecs.tasks());
    }

    /// Waits for success with so many tasks of each service, by what the scheduler says and by what is so.
    async fn until_success(&self, what: &str, web: usize, batch: usize) {
        self.until("/v1/snapshot", what, |snapshot| {
            snapshot["success"] == true
                && self.running("web").len() == web
                && self.running("batch").len() == batch
        })
        .await;
    }

    /// The tasks of a service that run, by id.
    fn running(&self, family: &str) -> BTreeSet<String> {
        self.running_where(|task| task.family == family)
    }

    fn running_where(&self, wanted: impl Fn(&TaskTruth) -> bool) -> BTreeSet<String> {
        let tasks = self.ecs.tasks().into_iter();
        tasks.filter(|task| task.runs && !task.told_to_stop && wanted(task)).map(|task| task.id).collect()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_product_on_ecs() {
    let scene = Scene::new().await;
    // Nobody there: it says so, and touches nothing.
    scene.ecs.set_fault_rates(FaultRates { server_error_per_mille: 1_000, ..FaultRates::default() });
    let log = || std::fs::read_to_string(scene.directory.path().join("log")).unwrap();
    let mut scheduler = scene.start();
    let waits = scene.until("/readyz", "why it is not ready", |problem| {
        problem["detail"]
            .as_str()
            .is_some_and(|detail| detail.contains("a first look at the pool: ecs force12-demo"))
    });
    waits.await;
    scene.ecs.clear_faults();
    scene.until_success("the demo's line", 4, 5).await;
    let snapshot = scene.get("/v1/snapshot").await.unwrap();
    let names: Vec<&str> =
        snapshot["instances"].as_array().unwrap().iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names, ["i-1", "i-2", "i-3"]);

    // Killed and started again, it adopts what runs.
    let before = scene.running_where(|_| true);
    let ever = scene.ecs.tasks().len();
    scheduler.kill().await.unwrap();
    let mut scheduler = scene.start();
    scene.until_success("the same after a restart", 4, 5).await;
    assert_eq!((scene.running_where(|_| true), scene.ecs.tasks().len()), (before, ever));

    let said_by_then = log().len();

    // What ends by itself is replaced.
    let victim = scene.running("web").pop_first().unwrap();
    scene.ecs.kill(&victim);
    scene.ecs.until(|_| !scene.running("web").contains(&victim)).await;
    scene.until_success("a successor of the one that was killed", 4, 5).await;

    // A new revision is rolled out, and the other service is left alone.
    let (web, old) = (scene.running("web"), scene.running("batch"));
    scene.register("batch", "batch:2").await;
    scene
        .until("/v1/snapshot", "the new revision everywhere", |snapshot| {
            snapshot["success"] == true
                && scene.running("batch").len() == 5
                && scene.running("batch").is_disjoint(&old)
        })
        .await;
    assert_eq!(scene.running("web"), web);

    // An instance whose agent is gone: important work is whole elsewhere, and what is back is adopted.
    let on_2 = |task: &TaskTruth| task.instance == "i-2";
    scene.ecs.disconnect("i-2", Duration::from_millis(100));
    scene
        .until("/v1/snapshot", "web whole without i-2", |snapshot| {
            snapshot["instances"][1]["state"] == "lost"
                && scene.running_where(|task| task.family == "web" && !on_2(task)).len() == 4
        })
        .await;
    scene.ecs.reconnect("i-2");
    scene.until_success("all of it with i-2 back", 4, 5).await;

    // One that is terminated leaves the pool.
    scene.ecs.terminate("i-3");
    scene
        .until("/v1/snapshot", "the pool without i-3", |snapshot| {
            snapshot["instances"].as_array().is_some_and(|list| list.len() == 2)
                && snapshot["success"] == true
        })
        .await;
    assert_eq!((scene.running("web").len(), scene.running("batch").len()), (4, 2));

    // Its queue holds its answers while nothing happens, which is no failure.
    assert!(!log()[said_by_then..].contains("gave no clear answer"), "{}", log());

    // What may change live changes; what may not is refused.
    let text = std::fs::read_to_string(&scene.config).unwrap();
    std::fs::write(&scene.config, text.replace("slots_per_instance = 3", "slots_per_instance = 2")).unwrap();
    scene.until_success("two slots on each", 4, 0).await;
    std::fs::write(&scene.config, text.replace("refresh_ms = 5000", "refresh_ms = 6000")).unwrap();
    let began = Instant::now();
    while !log().contains("ecs, but for its slots_per_instance and reserve, cannot change") {
        assert!(began.elapsed() < LIMIT, "{}", log());
        sleep(POLL).await;
    }

    // It ends and leaves everything running; drained, nothing is left.
    let pid = Pid::from_raw(i32::try_from(scheduler.id().unwrap()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(timeout(LIMIT, scheduler.wait()).await.unwrap().unwrap().success());
    assert_eq!(scene.running_where(|_| true).len(), 4);
    let drained = timeout(LIMIT, scene.command(&["drain"]).status()).await.unwrap().unwrap();
    assert!(drained.success(), "{}", log());
    assert_eq!(scene.running_where(|_| true), BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_ends_one_that_waits_for_its_pool() {
    let scene = Scene::new().await;
    scene.ecs.set_fault_rates(FaultRates { server_error_per_mille: 1_000, ..FaultRates::default() });
    let mut scheduler = scene.start();
    let waits = |problem: &Value| {
        problem["detail"].as_str().is_some_and(|detail| detail.contains("a first look at the pool"))
    };
    scene.until("/readyz", "that it waits", waits).await;
    let pid = Pid::from_raw(i32::try_from(scheduler.id().unwrap()).unwrap());
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(timeout(LIMIT, scheduler.wait()).await.unwrap().unwrap().success());
    assert_eq!(scene.ecs.tasks(), []);
}
