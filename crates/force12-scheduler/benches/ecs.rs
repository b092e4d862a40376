//! How much the scheduler asks of ECS: its own loop and driver on the fake of ECS, on virtual time.
//!
//! `scripts/bench ecs`. Calls are counted by the fake. Nothing here is timed by a real clock, so that the figures are the
//! same on every machine.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use controller::{
    Clock, Controller, DemandAnswer, DemandSource, DemandTransport, Engines, FeedError, FetchRequest, Handle,
    Parts, SourceSettings, View,
};
use driver::Driver;
use driver_ecs::{EcsConfig, EcsDriver, Limits, Reserve};
use fake_ecs::{Config, EventDelivery, FakeEcs, InProcess, InstanceSpec, Outcome};
use force12_scheduler::{config, pool};
use planner::Resources;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tracing::Span;

const ECS_CLUSTER: &str = "bench";
const SEED: u64 = 12;
/// For a cluster to be as it is wanted, in virtual time.
const LIMIT: Duration = Duration::from_hours(1);

/// Calls per swap, in the steady case.
const SWAP_GOAL: f64 = 2.0;
/// Calls per idle minute.
const IDLE_GOAL: f64 = 6.0;
/// Which of the periodic looks fall into a measurement is chance.
const TOLERANCE: f64 = 0.05;

/// A scheduler at work on a fake.
struct Running {
    ecs: FakeEcs,
    handle: Handle,
    demand: watch::Sender<u32>,
}

struct Demand(watch::Receiver<u32>);

#[async_trait]
impl DemandTransport for Demand {
    async fn fetch(&self, request: FetchRequest) -> Result<DemandAnswer, FeedError> {
        let mut demand = self.0.clone();
        let tag = |demand: &u32| Some(demand.to_string());
        let changed = demand.wait_for(|now| tag(now) != request.etag);
        let _ = timeout(request.wait.unwrap_or_default(), changed).await;
        let now = *self.0.borrow();
        if tag(&now) == request.etag {
            return Ok(DemandAnswer::NotModified { wait_applied: true });
        }
        let values = [("web".to_owned(), Ok(Some(now)))].into();
        let details = BTreeMap::new();
        Ok(DemandAnswer::Changed {
            etag: tag(&now),
            wait_applied: true,
            values,
            details,
            cause: Span::none(),
        })
    }
}

fn settings(slots: u64) -> config::Settings {
    let text = format!(
        r#"cluster = "bench"
[ecs]
cluster = "{ECS_CLUSTER}"
region = "eu-west-1"
slots_per_instance = {slots}
events_queue_url = "https://sqs.eu-west-1.amazonaws.com/123456789012/force12-events"
[[demand_source]]
name = "source"
url = "http://localhost/"
[[service]]
name = "web"
priority = 1
task_definition = "web"
demand = {{ source = "source", key = "web" }}
[[service]]
name = "batch"
priority = 2
task_definition = "batch"
fill = true
"#
    );
    config::parse("bench.toml", &text, &|_| None).expect("it is sound").settings
}

async fn start(instances: u32, slots: u64, demand: u32) -> Running {
    let events = Some(EventDelivery::default());
    let ecs = FakeEcs::new(Config { events, ..Config::seeded(SEED) }).with_cluster(ECS_CLUSTER);
    for number in 0..instances {
        let ec2_instance_id = format!("i-{number:04}");
        let (cpu, memory) = (128 * slots, 64 * slots);
        ecs.add_instance(
            ECS_CLUSTER,
            InstanceSpec { ec2_instance_id, cpu, memory, ..InstanceSpec::default() },
        );
    }
    for family in ["web", "batch"] {
        let container = json!({"name": "it", "image": family, "cpu": 128, "memory": 64, "stopTimeout": 2});
        let definition =
            json!({"family": family, "networkMode": "host", "containerDefinitions": [container]});
        let target = "AmazonEC2ContainerServiceV20141113.RegisterTaskDefinition";
        let outcome = ecs.call(target, definition.to_string()).await;
        assert!(matches!(outcome, Outcome::Answered(answer) if answer.status == 200));
    }
    let settings = settings(slots);
    let wanted = settings.ecs.as_ref().expect("it has a table of that name");
    let config = EcsConfig {
        cluster: settings.controller.cluster.clone(),
        ecs_cluster: wanted.cluster.clone(),
        region: wanted.region.clone(),
        endpoint_url: None,
        slots_per_instance: Resources::SLOTS_MAX,
        reserve: Reserve::default(),
        instance_filter: None,
        events_queue_url: wanted.events_queue_url.as_ref().map(ToString::to_string),
        stop_before_start: false,
        limits: Limits { refresh_ms: 60_000, ..Limits::default() },
    };
    let transport = SharedHttpClient::new(InProcess::new(ecs.clone()));
    let driver = EcsDriver::with_http_client(config, transport, SEED);
    driver.want(pool::wanted(&settings));
    let mut discovered = driver.discovered();
    let found = discovered.wait_for(Option::is_some).await.expect("its driver lives").clone();
    let found = found.expect("it was waited for");
    let demand = watch::Sender::new(demand);
    let source = DemandSource {
        settings: SourceSettings { name: "source".to_owned(), poll_ms: 250, wait_ms: 5_000 },
        transport: Arc::new(Demand(demand.subscribe())),
    };
    let (controller, handle) = Controller::new(Parts {
        settings: pool::settings(&settings, wanted, &found, Vec::new()),
        engines: Engines { drivers: vec![driver as Arc<dyn Driver>], sources: vec![source] },
        clock: Clock::system(),
        seed: SEED,
        epoch: "bench".to_owned(),
    })
    .expect("the settings are sound");
    tokio::spawn(controller.run());
    let running = Running { ecs, handle, demand };
    running.until_success(instances, slots).await;
    running
}

impl Running {
    /// Waits until all that is demanded runs, and the rest is filled; says how long that took.
    async fn until_success(&self, instances: u32, slots: u64) -> Duration {
        let began = Instant::now();
        let (web, all) = (u64::from(*self.demand.borrow()), u64::from(instances) * slots);
        let runs = |view: &View, name: &str| {
            view.services.iter().find(|it| &*it.name == name).map_or(0, |it| u64::from(it.running))
        };
        let mut views = self.handle.views();
        let done = views.wait_for(|view| {
            view.success && runs(view, "web") == web && runs(view, "web") + runs(view, "batch") == all
        });
        timeout(LIMIT, done).await.expect("it comes to that in time").expect("the controller runs");
        began.elapsed()
    }

    /// The calls so far, by operation; those to the queue are not ECS's.
    fn calls(&self) -> BTreeMap<String, u64> {
        let queue = ["ReceiveMessage", "DeleteMessage", "DeleteMessageBatch", "GetQueueAttributes"];
        let mut calls = self.ecs.calls();
        calls.retain(|operation, _| !queue.contains(&operation.as_str()));
        calls
    }
}

fn since(before: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> (f64, String) {
    let more = now.iter().map(|(name, count)| (name, count - before.get(name).copied().unwrap_or(0)));
    let more: Vec<(&String, u64)> = more.filter(|&(_, count)| count > 0).collect();
    let words: Vec<String> = more.iter().map(|(name, count)| format!("{name} {count}")).collect();
    let sum: u64 = more.iter().map(|(_, count)| count).sum();
    (f64::from(u32::try_from(sum).unwrap_or(u32::MAX)), words.join(", "))
}

fn judged(value: f64, goal: f64) -> &'static str {
    if value <= goal + TOLERANCE { "within it" } else { "MISSED" }
}

/// Slots that change hands, one at a time, on the demo's three instances.
async fn swaps() -> bool {
    const CHANGES: u32 = 120;
    const IDLE: Duration = Duration::from_hours(1);
    let running = start(3, 3, 4).await;
    sleep(Duration::from_mins(10)).await;
    let idle_from = running.calls();
    sleep(IDLE).await;
    let (idle, _) = since(&idle_from, &running.calls());
    let (before, began) = (running.calls(), Instant::now());
    let mut took = Vec::new();
    for change in 0..CHANGES {
        running.demand.send_replace(if change % 2 == 0 { 5 } else { 4 });
        took.push(running.until_success(3, 3).await);
        sleep(Duration::from_secs(5)).await;
    }
    took.sort();
    let (calls, words) = since(&before, &running.calls());
    let share = began.elapsed().as_secs_f64() / IDLE.as_secs_f64();
    let each = (calls - idle * share) / f64::from(CHANGES);
    println!("swaps: {CHANGES} on 3 instances of 3 slots, one at a time");
    println!(
        "  {each:.2} calls each (goal {SWAP_GOAL}: {}), beside what is asked when nothing happens",
        judged(each, SWAP_GOAL)
    );
    println!("  in all: {words}");
    println!("  {} ms each in the median, with the fake's delays", took[took.len() / 2].as_millis());
    each <= SWAP_GOAL + TOLERANCE
}

/// Nothing happens, on a hundred instances.
async fn idle() -> bool {
    const MINUTES: u32 = 120;
    let running = start(100, 3, 100).await;
    sleep(Duration::from_mins(10)).await;
    let before = running.calls();
    sleep(Duration::from_mins(1) * MINUTES).await;
    let (calls, words) = since(&before, &running.calls());
    let each = calls / f64::from(MINUTES);
    println!("idle: 100 instances of 3 slots, 300 tasks, {MINUTES} minutes");
    println!("  {each:.2} calls a minute (goal {IDLE_GOAL}: {}): {words}", judged(each, IDLE_GOAL));
    each <= IDLE_GOAL + TOLERANCE
}

fn main() {
    let asked: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let wants = |name: &str| asked.is_empty() || asked.iter().any(|argument| argument == name);
    let mut all_well = true;
    for name in ["swaps", "idle"].into_iter().filter(|name| wants(name)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.expect("a runtime without any io can be built");
        all_well &= runtime.block_on(async { if name == "swaps" { swaps().await } else { idle().await } });
    }
    if !all_well {
        eprintln!("error: a goal was missed");
        std::process::exit(1);
    }
}
