//! What these tests share: a demand source in the process, and the demo's cluster on a simulated engine.
#![expect(dead_code, reason = "each test binary uses a part of it")]
#![expect(unreachable_pub, reason = "a module of test binaries")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{
    Clock, Controller, DemandAnswer, DemandDetail, DemandKey, DemandSource, DemandTransport, Engines,
    FeedError, FetchRequest, Handle, Parts, Ready, ServiceSettings, Settings, SourceSettings, View,
};
use driver::{ContainerSpec, Driver};
use driver_testkit::sim::{Behaviour, SimConfig, SimEngine};
use planner::{Instance, Phase, Resources, Service};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::Span;

pub const CLUSTER: &str = "demo";
pub const IMAGE: &str = "force12/workload";
pub const SOURCE: &str = "board";

type Values = BTreeMap<String, Result<Option<u32>, String>>;

/// Beyond the wait that it asks for, a transport waits no longer than this for a source that hangs.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a source says, and the tag of that: which life of the source it is from, and which document of that life.
type Document = (u64, u64, Values);

/// A demand source whose document tests write on; it holds its answers as long as it is asked to.
#[derive(Clone)]
pub struct Board {
    document: Arc<watch::Sender<Document>>,
    down: Arc<watch::Sender<Option<String>>>,
    hangs: Arc<watch::Sender<bool>>,
}

impl Board {
    pub fn new(values: &[(&str, u32)]) -> Self {
        let values = values.iter().map(|&(key, value)| (key.to_owned(), Ok(Some(value)))).collect();
        Self {
            document: Arc::new(watch::Sender::new((1, 1, values))),
            down: Arc::new(watch::Sender::new(None)),
            hangs: Arc::new(watch::Sender::new(false)),
        }
    }

    pub fn set(&self, key: &str, value: u32) {
        self.write(key, Ok(Some(value)));
    }

    pub fn write(&self, key: &str, value: Result<Option<u32>, String>) {
        self.document.send_modify(|(_, sequence, values)| {
            *sequence += 1;
            values.insert(key.to_owned(), value);
        });
    }

    /// It begins a new life with the same values, and repeats its sequence numbers.
    pub fn restart(&self) {
        self.document.send_modify(|(life, sequence, _)| (*life, *sequence) = (*life + 1, 1));
    }

    /// From now on it takes questions and gives no answer, or (with `false`) answers again.
    pub fn set_hangs(&self, hangs: bool) {
        self.hangs.send_replace(hangs);
    }

    /// From now on it cannot be reached, or (with `None`) can again.
    pub fn set_down(&self, reason: Option<&str>) {
        self.down.send_replace(reason.map(ToOwned::to_owned));
    }

    pub fn source(&self) -> DemandSource {
        self.source_named(SOURCE)
    }

    pub fn source_named(&self, name: &str) -> DemandSource {
        let settings = SourceSettings { name: name.to_owned(), poll_ms: 250, wait_ms: 5_000 };
        DemandSource { settings, transport: Arc::new(self.clone()) }
    }
}

#[async_trait]
impl DemandTransport for Board {
    async fn fetch(&self, request: FetchRequest) -> Result<DemandAnswer, FeedError> {
        let mut down = self.down.subscribe();
        let mut document = self.document.subscribe();
        let known = request.etag;
        let tag = |(life, sequence, _): &Document| format!("{life}-{sequence}");
        let held = tokio::time::timeout(request.wait.unwrap_or_default(), async {
            tokio::select! {
                _ = document.wait_for(|document| Some(tag(document)) != known) => {}
                _ = down.wait_for(Option::is_some) => {}
            }
        });
        let _ = held.await;
        let mut hangs = self.hangs.subscribe();
        if tokio::time::timeout(PATIENCE, hangs.wait_for(|hangs| !hangs)).await.is_err() {
            return Err(FeedError("no answer".to_owned()));
        }
        if let Some(reason) = self.down.borrow().clone() {
            return Err(FeedError(reason));
        }
        let current = self.document.borrow().clone();
        let wait_applied = request.wait.is_some();
        let etag = Some(tag(&current));
        if etag == known {
            return Ok(DemandAnswer::NotModified { wait_applied });
        }
        let (_, _, values) = current;
        let details: BTreeMap<String, DemandDetail> = BTreeMap::new();
        Ok(DemandAnswer::Changed { etag, wait_applied, values, details, cause: Span::none() })
    }
}

/// What a service's containers are made of.
pub fn spec(image: &str) -> Arc<ContainerSpec> {
    Arc::new(ContainerSpec { image: image.to_owned(), stop_grace_ms: 1_000, ..ContainerSpec::default() })
}

/// A service whose demand is on the board, under its own name.
pub fn demanded(service: Service) -> ServiceSettings {
    let demand = Some(DemandKey { source: SOURCE.to_owned(), key: service.name.clone() });
    ServiceSettings { service, spec: spec(IMAGE), freeze_or_stop: false, ready: Ready::Running, demand }
}

/// A service that fills.
pub fn filling(service: Service) -> ServiceSettings {
    ServiceSettings { service, spec: spec(IMAGE), freeze_or_stop: false, ready: Ready::Running, demand: None }
}

/// The demo: priority 1 follows the board, priority 2 fills.
pub fn demo_services() -> Vec<ServiceSettings> {
    vec![demanded(Service::demand("priority1", 1)), filling(Service::fill("priority2", 2))]
}

/// A cluster on simulated engines, with one controller at a time.
pub struct Scene {
    pub engines: Vec<SimEngine>,
    pub board: Board,
    pub settings: Settings,
    pub seed: u64,
    starts: u64,
}

/// A controller at work.
pub struct Running {
    pub handle: Handle,
    task: JoinHandle<()>,
}

impl Scene {
    /// The demo on one engine: three instances of three slots.
    pub fn demo(seed: u64) -> Self {
        Self::on_engines(seed, 1, |index| vec![index * 3 + 1, index * 3 + 2, index * 3 + 3])
    }

    /// The demo on three engines with one instance each.
    pub fn spread(seed: u64) -> Self {
        Self::on_engines(seed, 3, |index| vec![index + 1])
    }

    /// The demo on an engine that may not know a second start of the same thing, and lists within `observe_ms`.
    pub fn rough(seed: u64, idempotent: bool, observe_ms: u64) -> Self {
        let mut scene = Self::demo(seed);
        let mut config = SimConfig::seeded(seed);
        config.capabilities.idempotent_start = idempotent;
        config.reports_transitions = !idempotent;
        config.latencies.observe = 0..=observe_ms;
        config.event_delay_ms = 0..=observe_ms;
        let mut engine = SimEngine::new("rough", config).with_image(IMAGE, Behaviour::runs());
        for instance in &scene.settings.instances {
            engine = engine.with_instance(&instance.name, instance.capacity);
        }
        scene.engines = vec![engine];
        scene
    }

    fn on_engines(seed: u64, count: u64, instances: impl Fn(u64) -> Vec<u64>) -> Self {
        println!("seed {seed}");
        let mut settings = Settings { services: demo_services(), ..Settings::new(CLUSTER) };
        let mut engines = Vec::new();
        for index in 0..count {
            let config = SimConfig::seeded(seed.wrapping_mul(31).wrapping_add(index));
            let mut engine =
                SimEngine::new(format!("engine-{}", index + 1), config).with_image(IMAGE, Behaviour::runs());
            for number in instances(index) {
                let name = format!("instance-{number}");
                engine = engine.with_instance(&name, Resources::slots_only(3));
                settings.instances.push(Instance::ready(name, Resources::slots_only(3)));
            }
            engines.push(engine);
        }
        Self { engines, board: Board::new(&[("priority1", 4)]), settings, seed, starts: 0 }
    }

    pub fn engine(&self) -> &SimEngine {
        &self.engines[0]
    }

    /// Fresh drivers, as a process that starts would have them.
    pub fn wiring(&self) -> Engines {
        let drivers =
            self.engines.iter().map(|engine| Arc::new(engine.driver(CLUSTER)) as Arc<dyn Driver>).collect();
        Engines { drivers, sources: vec![self.board.source()] }
    }

    pub fn start(&mut self) -> Running {
        let wiring = self.wiring();
        self.start_with(wiring)
    }

    pub fn start_with(&mut self, engines: Engines) -> Running {
        self.starts += 1;
        let parts = Parts {
            settings: self.settings.clone(),
            engines,
            clock: Clock::starting_at(self.engine().clock_ms()),
            seed: self.seed.wrapping_add(self.starts),
            epoch: format!("epoch-{}", self.starts),
        };
        let (controller, handle) = Controller::new(parts).expect("the settings are sound");
        Running { handle, task: tokio::spawn(controller.run()) }
    }

    /// How many containers of a service run, on all engines.
    pub fn run(&self, service: &str) -> usize {
        self.engines.iter().map(|engine| engine.count(service, Phase::Running)).sum()
    }

    pub fn assert_sound(&self) {
        for engine in &self.engines {
            engine.history().assert_sound(CLUSTER);
        }
    }
}

impl Running {
    /// Waits until the view is as wanted, and gives it back.
    ///
    /// # Panics
    ///
    /// If it does not come to that within `limit_ms` of virtual time.
    pub async fn until(&self, limit_ms: u64, what: &str, wanted: impl Fn(&View) -> bool) -> Arc<View> {
        let mut views = self.handle.views();
        let found = tokio::time::timeout(Duration::from_millis(limit_ms), async {
            loop {
                let view = Arc::clone(&views.borrow_and_update());
                if wanted(&view) {
                    return view;
                }
                views.changed().await.expect("the controller runs");
            }
        });
        let found = found.await;
        found.unwrap_or_else(|_| {
            panic!("not within {limit_ms} ms: {what}; the view is {:#?}", self.handle.view())
        })
    }

    /// Waits for the success line, with so many of priority 1 and 2.
    pub async fn until_success(&self, limit_ms: u64, priority1: u32, priority2: u32) -> Arc<View> {
        let what = format!("success with {priority1} and {priority2}");
        self.until(limit_ms, &what, |view| {
            view.success && runs(view, "priority1") == priority1 && runs(view, "priority2") == priority2
        })
        .await
    }

    /// Ends it as SIGKILL does: no task of it goes on, what reached the engines does.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }

    pub async fn ended(self) {
        self.task.await.expect("the controller ends well");
    }
}

/// How many of a service run, by the view.
pub fn runs(view: &View, service: &str) -> u32 {
    view.services.iter().find(|other| &*other.name == service).map_or(0, |service| service.running)
}

/// Lets virtual time pass.
pub async fn pass_ms(ms: u64) {
    tokio::time::sleep(Duration::from_millis(ms)).await;
}
