//! The whole product on the real engine: three services as processes, one cluster of its own, and strangers'
//! containers beside it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api_types::decision::Decisions;
use api_types::snapshot::{Phase, Snapshot};
use reqwest::Method;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::{Mutex, MutexGuard};

use crate::binaries::Binaries;
use crate::configs;
use crate::demand::DemandRecorder;
use crate::engine::{CLUSTER_LABEL, Cleanup, Engine, STRANGER_LABEL, stranger};
use crate::failure;
use crate::observer::{Observer, now_ns};
use crate::service::Service;
use crate::timeline::{Nanos, Timeline};

/// Slots of each instance.
pub const SLOTS_PER_INSTANCE: i64 = 3;

/// The instances, all on the one engine.
pub const INSTANCES: [&str; 3] = ["instance-1", "instance-2", "instance-3"];

/// Slots in all.
pub const SLOTS: i64 = 9;

/// The service whose demand is followed.
pub const IMPORTANT: &str = "priority1";

/// The service that takes what is left.
pub const FILL: &str = "priority2";

/// The operator's token of every service here.
pub(crate) const TOKEN: &str = "acceptance-operator-token-0123456789";

/// Between two looks whether a changed configuration has been read.
const CONFIGURE_POLL: Duration = Duration::from_millis(20);

/// One engine, one run at a time.
static TURN: Mutex<()> = Mutex::const_new(());

static RUNS: AtomicU32 = AtomicU32::new(0);

/// How a stack is set up.
pub struct Options {
    /// The network of the workloads: `host`, `bridge` or `none`.
    pub network: &'static str,
    /// Milliseconds from one step of the generated demand to the next.
    pub interval_ms: u64,
    /// The seed of the generated demand.
    pub seed: u64,
    /// Milliseconds of history that status-api keeps.
    pub history_window_ms: u64,
    /// Variables of every service.
    pub environment: Vec<(&'static str, String)>,
    /// Further lines of the important service's configuration.
    pub important_lines: &'static str,
    /// Further lines of the fill service's.
    pub fill_lines: &'static str,
}

impl Default for Options {
    /// As in the demo: a step every three seconds, workloads on the host's network.
    fn default() -> Self {
        Self {
            network: "host",
            interval_ms: 3_000,
            seed: 1,
            history_window_ms: 900_000,
            environment: Vec::new(),
            important_lines: "",
            fill_lines: "",
        }
    }
}

/// The product, running. What it made on the engine is removed when it goes out of scope; a check that has
/// failed is reported then.
pub struct Stack {
    /// The demand source.
    pub demand_rng: Service,
    /// The scheduler.
    pub scheduler: Service,
    /// What people see.
    pub status_api: Service,
    /// The engine's own record.
    pub observer: Observer,
    /// The engine.
    pub engine: Engine,
    /// The cluster's name, this run's own.
    pub cluster: String,
    /// The image of the workloads.
    pub image: String,
    strangers: Vec<Stranger>,
    // Dropped in this order: what was made goes once the services have ended, then the next run has its turn.
    _cleanup: Cleanup,
    _directory: TempDir,
    _turn: MutexGuard<'static, ()>,
}

/// A container of somebody else's, as it was before Force12 began.
struct Stranger {
    what: &'static str,
    id: String,
    state: String,
}

impl Stack {
    /// Builds the services where that is needed, makes the image and the strangers, and starts all services.
    pub async fn start(options: Options) -> Result<Self> {
        failure::remember_messages();
        let turn = TURN.lock().await;
        let engine = Engine::connect().await?;
        let binaries = Binaries::locate().await?;
        let directory = tempfile::tempdir()?;
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let cluster = format!("acc-{:x}-{}-{run}", now_ns() / 1_000_000_000, std::process::id());
        let mut cleanup = Cleanup::new(&cluster);
        let observer = Observer::follow(&engine, &cluster);

        let image = engine.import_image(binaries.path("workload"), &cluster, &[]).await?;
        cleanup.image(&image);
        let labels = force12_labels(&cluster);
        let labelled_tag = format!("{cluster}-labelled");
        let labelled = engine.import_image(binaries.path("workload"), &labelled_tag, &labels).await?;
        cleanup.image(&labelled);
        let strangers = Box::pin(start_strangers(&engine, &observer, &cluster, &image, &labelled)).await?;

        let service = |name, toml: &dyn Fn(SocketAddr) -> String| {
            let service = Service::new(name, binaries.path(name), directory.path(), TOKEN, toml)?;
            anyhow::Ok(service.with_environment(&options.environment))
        };
        let demand_rng =
            service("demand-rng", &|listen| configs::demand_rng(listen, options.interval_ms, options.seed))?;
        let instances = INSTANCES.map(|name| (name, format!("engine = \"{}\"", engine.address())));
        let scheduler = service("force12-scheduler", &|listen| {
            let config = configs::Scheduler {
                listen,
                cluster: &cluster,
                instances: &instances,
                image: &image,
                network: options.network,
                demand_url: &demand_rng.url("/v1/demand"),
                important_lines: options.important_lines,
                fill_lines: options.fill_lines,
            };
            config.to_toml()
        })?;
        let status_api = service("status-api", &|listen| {
            let (scheduler, demand_rng) = (scheduler.url(""), demand_rng.url(""));
            configs::status_api(listen, &scheduler, &demand_rng, options.history_window_ms)
        })?;

        let mut stack = Self {
            demand_rng,
            scheduler,
            status_api,
            observer,
            engine,
            cluster,
            image,
            strangers,
            _cleanup: cleanup,
            _directory: directory,
            _turn: turn,
        };
        stack.demand_rng.start().await?;
        stack.scheduler.start().await?;
        stack.status_api.start().await?;
        Ok(stack)
    }

    /// Writes the scheduler's configuration, and returns when it has been applied or refused.
    pub async fn configure(&self, text: &str, bound: Duration) -> Result<()> {
        let told = || self.scheduler.log().matches("changed configuration ").count();
        let before = told();
        std::fs::write(self.scheduler.config(), text)?;
        let read = async {
            while told() == before {
                tokio::time::sleep(CONFIGURE_POLL).await;
            }
        };
        tokio::time::timeout(bound, read)
            .await
            .context("the scheduler does not read its changed configuration")
    }

    /// Records demand from now on.
    pub async fn record_demand(&self) -> Result<DemandRecorder> {
        DemandRecorder::follow(self.demand_rng.url("/v1/demand")).await
    }

    /// Holds the demand of the important service at `containers`.
    pub async fn hold(&self, containers: u32) -> Result<()> {
        hold(&self.demand_rng, containers).await
    }

    /// Gives demand back to the generator.
    pub async fn let_go(&self) -> Result<()> {
        let answer = self.demand_rng.request(Method::DELETE, "/v1/demand").send().await?;
        expect_success(answer, "let go of demand").await
    }

    /// Waits until exactly `important` containers of the important service run and the rest is filled.
    pub async fn runs(&self, important: i64, bound: Duration) -> Result<()> {
        let what = format!("{important} of {IMPORTANT} and {} of {FILL} running", SLOTS - important);
        self.observer
            .wait_for(&what, bound, |timeline| {
                let of = |service| timeline.running_of(service).at(Nanos::MAX);
                (of(IMPORTANT) == important && of(FILL) == SLOTS - important).then_some(())
            })
            .await
    }

    /// The scheduler's snapshot, once it is as wanted.
    pub async fn snapshot_until(
        &self,
        what: &str,
        bound: Duration,
        as_wanted: impl Fn(&Snapshot) -> bool,
    ) -> Result<Snapshot> {
        self.scheduler.get_until("/v1/snapshot", what, bound, as_wanted).await
    }

    /// Waits until the scheduler has nothing left to do for a demand of `important`: all that is wanted runs, with
    /// at least `standby` of the important service frozen, and nothing is on its way anywhere.
    pub async fn settled(&self, important: u32, standby: u32, bound: Duration) -> Result<()> {
        let what = format!("{important} of {IMPORTANT} running, {standby} kept ready, and nothing under way");
        self.snapshot_until(&what, bound, |snapshot| {
            let of = |name: &str| snapshot.services.iter().find(|service| service.name == name);
            at_rest(snapshot)
                && of(IMPORTANT).is_some_and(|own| own.demand == Some(important) && own.standby >= standby)
        })
        .await?;
        Ok(())
    }

    /// The latest decisions about a service, newest first.
    pub async fn decisions(&self, service: &str, limit: u32) -> Result<Decisions> {
        self.scheduler.get(&format!("/v1/decisions?service={service}&limit={limit}")).await
    }

    /// What has happened up to this moment, checked for what must hold in every run: no stranger touched,
    /// nothing started twice, no instance and no cluster over its slots.
    pub async fn checked_timeline(&self) -> Result<Timeline> {
        self.checked_timeline_beside(0).await
    }

    /// The same where each instance may run so many beyond its slots, for swaps side by side.
    pub async fn checked_timeline_beside(&self, beside: i64) -> Result<Timeline> {
        self.observer.barrier(&self.engine, &self.image).await?;
        let timeline = self.observer.timeline()?;
        let mut wrong = timeline.started_twice();
        let all = timeline.running_total();
        let now = now_ns();
        let slots = SLOTS_PER_INSTANCE + beside;
        let over = Timeline::more_than(&all, SLOTS / SLOTS_PER_INSTANCE * slots, 0, now);
        wrong.extend(over.iter().map(|breach| format!("{}: {breach}", self.cluster)));
        for instance in INSTANCES {
            let here = timeline.running(|event| event.instance == instance);
            let over = Timeline::more_than(&here, slots, 0, now);
            wrong.extend(over.iter().map(|breach| format!("{instance}: {breach}")));
        }
        wrong.extend(self.touched_strangers().await?);
        if !wrong.is_empty() {
            bail!("what must always hold did not:\n  {}", wrong.join("\n  "));
        }
        Ok(timeline)
    }

    /// What was done to strangers since they were made, in words.
    async fn touched_strangers(&self) -> Result<Vec<String>> {
        let events = self.observer.strangers()?;
        let mut touched = Vec::new();
        for stranger in &self.strangers {
            let own = events.events().iter().filter(|event| event.id == stranger.id);
            let actions: Vec<&str> = own.map(|event| event.action.as_str()).collect();
            let ended_by_itself = stranger.state == "exited";
            let expected: &[&str] =
                if ended_by_itself { &["create", "start", "die"] } else { &["create", "start"] };
            if actions != expected {
                touched.push(format!("{} saw {actions:?}, and should have seen {expected:?}", stranger.what));
            }
            match self.engine.inspect(&stranger.id).await {
                Ok(now) => {
                    let state = state_of(&now);
                    if state != stranger.state {
                        touched.push(format!("{} was {} and is {state}", stranger.what, stranger.state));
                    }
                }
                Err(error) => touched.push(format!("{} is gone: {error:#}", stranger.what)),
            }
        }
        Ok(touched)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        failure::report(|| {
            let services = [&self.demand_rng, &self.status_api, &self.scheduler];
            let mut sections: Vec<_> = services.into_iter().map(Service::named_log).collect();
            let events = self.observer.timeline().map(|timeline| timeline.to_string()).unwrap_or_default();
            sections.push((format!("the engine's events of {}", self.cluster), events));
            sections
        });
    }
}

/// The labels that Force12 puts on its containers, as somebody might bake them into an image.
fn force12_labels(cluster: &str) -> Vec<(String, String)> {
    [
        (CLUSTER_LABEL, cluster),
        ("force12.service", FILL),
        ("force12.instance", INSTANCES[0]),
        ("force12.generation", "0123456789abcdef"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .to_vec()
}

/// Containers that Force12 has to leave alone: one that has nothing to do with it, one from an image that
/// carries its labels, one from that image that has ended, one of another cluster.
async fn start_strangers(
    engine: &Engine,
    observer: &Observer,
    cluster: &str,
    image: &str,
    labelled: &str,
) -> Result<Vec<Stranger>> {
    let mut ended = stranger(cluster, labelled, "none");
    ended.cmd = Some(vec!["--exit-after-ms".to_owned(), "1".to_owned()]);
    let mut elsewhere = stranger(cluster, image, "none");
    let other_cluster = force12_labels(&format!("{cluster}-other"));
    elsewhere.labels.get_or_insert_default().extend(other_cluster);
    let bodies = [
        ("a plain container", "plain", stranger(cluster, image, "none")),
        ("a container from an image with our labels", "labelled", stranger(cluster, labelled, "none")),
        ("an ended container from an image with our labels", "ended", ended),
        ("a container of another cluster", "elsewhere", elsewhere),
    ];
    let mut ids = Vec::new();
    for (what, name, body) in bodies {
        let id = engine.create(&format!("{STRANGER_LABEL}-{cluster}-{name}"), body).await?;
        engine.start(&id).await?;
        ids.push((what, id));
    }
    // The third has ended once its end has been seen.
    let ended = ids[2].1.clone();
    let bound = Duration::from_secs(10);
    observer.wait_for_stranger("the end of a stranger", bound, "die", &ended).await?;
    let mut strangers = Vec::new();
    for (what, id) in ids {
        let state = state_of(&engine.inspect(&id).await?);
        strangers.push(Stranger { what, id, state });
    }
    Ok(strangers)
}

fn state_of(container: &bollard::models::ContainerInspectResponse) -> String {
    let state = container.state.as_ref().and_then(|state| state.status);
    state.map(|status| status.to_string()).unwrap_or_default()
}

/// Whether all that is wanted runs, and nothing is left to be done beside it: what has ended is removed last.
pub fn at_rest(snapshot: &Snapshot) -> bool {
    let mut containers = snapshot.instances.iter().flat_map(|instance| &instance.containers);
    snapshot.success == Some(true)
        && snapshot.services.iter().all(|service| service.starting + service.stopping == 0)
        && containers.all(|one| matches!(one.phase, Phase::Running | Phase::Frozen))
}

/// Has a demand source hold the demand of the important service at `containers`.
pub(crate) async fn hold(demand_rng: &Service, containers: u32) -> Result<()> {
    let body = json!({ "demand": { IMPORTANT: containers } });
    let answer = demand_rng.request(Method::PUT, "/v1/demand").json(&body).send().await?;
    expect_success(answer, "hold demand").await
}

async fn expect_success(answer: reqwest::Response, what: &str) -> Result<()> {
    let status = answer.status();
    if status.is_success() {
        return Ok(());
    }
    let body = answer.text().await.unwrap_or_default();
    bail!("{what}: {status}: {body}")
}
