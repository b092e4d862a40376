//! Plays a script, and judges what comes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{
    Clock, Controller, DemandAnswer, DemandKey, DemandSource, DemandTransport, Engines, FeedError,
    FetchRequest, Handle, Parts, Ready, ServiceSettings, Settings, SourceSettings,
};
use driver::Driver;
use driver_ecs::{Discovered, EcsDriver, Limits};
use fake_ecs::{Behaviour, TaskTruth};
use planner::{Instance, Resources, Service};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::Span;

use crate::script::{Script, Step};
use crate::support::{Stage, spec};

/// An event that was lost is made up for by the next listing (300 s); and a start may be held back (30 s), twice.
const SETTLES_WITHIN: Duration = Duration::from_secs(400);
/// For so long nothing more is done then.
const QUIET: Duration = Duration::from_secs(40);
/// What has been done to tasks takes its effect within this time.
const LINGERS: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(100);
const LOST_AFTER_MS: u64 = 20_000;
/// Of our tasks.
const STARTED_BY: &str = "force12/demo";
const FAMILIES: [&str; 2] = ["priority1", "priority2"];

/// What was seen of histories.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    pub starts: u64,
    pub stops: u64,
    pub asked: u64,
    pub throttled: u64,
    /// From the moment at which all was well again, at most.
    pub settled_after_ms: u128,
}

impl Figures {
    pub fn add(&mut self, other: Self) {
        self.starts += other.starts;
        self.stops += other.stops;
        self.asked += other.asked;
        self.throttled += other.throttled;
        self.settled_after_ms = self.settled_after_ms.max(other.settled_after_ms);
    }
}

/// A demand source in the process.
#[derive(Clone)]
struct Board(Arc<watch::Sender<(u64, u32)>>);

#[async_trait]
impl DemandTransport for Board {
    async fn fetch(&self, request: FetchRequest) -> Result<DemandAnswer, FeedError> {
        let mut board = self.0.subscribe();
        let tag = |(number, _): &(u64, u32)| Some(number.to_string());
        let held = board.wait_for(|document| tag(document) != request.etag);
        let _ = timeout(request.wait.unwrap_or_default(), held).await;
        let wait_applied = request.wait.is_some();
        let document = *self.0.borrow();
        if tag(&document) == request.etag {
            return Ok(DemandAnswer::NotModified { wait_applied });
        }
        Ok(DemandAnswer::Changed {
            etag: tag(&document),
            wait_applied,
            values: BTreeMap::from([("priority1".to_owned(), Ok(Some(document.1)))]),
            details: BTreeMap::new(),
            cause: Span::none(),
        })
    }
}

struct Play<'s> {
    script: &'s Script,
    stage: Stage,
    board: Board,
    running: Option<(Handle, JoinHandle<()>)>,
    starts: u64,
}

fn name(instance: usize) -> String {
    format!("i-{instance}")
}

pub async fn play(script: &Script) -> Result<Figures, String> {
    let stage = Stage::new(script.config.clone());
    for (at, (version, beside)) in script.instances.iter().enumerate() {
        stage.instance(&name(at), script.slots + beside, version);
    }
    stage.register(FAMILIES[0], Behaviour::default()).await;
    // What ends slowly is still there when what is started in its room could run already.
    let slow_to_end = script.seed % 2 == 1;
    stage.register(FAMILIES[1], if slow_to_end { Behaviour::deaf() } else { Behaviour::default() }).await;
    let board = Board(Arc::new(watch::Sender::new((1, script.demand))));
    let mut play = Play { script, stage, board, running: None, starts: 0 };
    play.start().await?;
    play.run().await
}

impl Play<'_> {
    /// A new process: a new driver, and nothing remembered.
    async fn start(&mut self) -> Result<(), String> {
        if self.running.is_some() {
            return Ok(());
        }
        self.starts += 1;
        let seed = self.script.seed.wrapping_mul(31).wrapping_add(self.starts);
        let driver = self.stage.driver(self.script.slots, seed, Limits::default(), &FAMILIES);
        let mut discovered = driver.discovered();
        let seen = timeout(Duration::from_mins(2), discovered.wait_for(Option::is_some)).await;
        let seen = match seen {
            Ok(Ok(seen)) => seen.clone().expect("as awaited"),
            _ => return Err(format!("nothing is discovered: {:?}", driver.problem())),
        };
        let parts = Parts {
            settings: self.settings(&seen)?,
            engines: self.engines(driver),
            clock: Clock::starting_at(self.script.config.epoch_ms),
            seed,
            epoch: self.starts.to_string(),
        };
        let (controller, handle) = Controller::new(parts).map_err(|error| error.to_string())?;
        self.running = Some((handle, tokio::spawn(controller.run())));
        Ok(())
    }

    fn engines(&self, driver: Arc<EcsDriver>) -> Engines {
        let settings = SourceSettings { name: "board".to_owned(), poll_ms: 250, wait_ms: 5_000 };
        let source = DemandSource { settings, transport: Arc::new(self.board.clone()) };
        Engines { drivers: vec![driver as Arc<dyn Driver>], sources: vec![source] }
    }

    fn settings(&self, seen: &Discovered) -> Result<Settings, String> {
        let service = |service: Service, demand| -> Result<ServiceSettings, String> {
            let revision = seen.task_definitions[&service.name].as_ref().map_err(Clone::clone)?;
            let spec = Arc::new(spec(&revision.arn));
            Ok(ServiceSettings { service, spec, freeze_or_stop: true, ready: Ready::Running, demand })
        };
        let key = DemandKey { source: "board".to_owned(), key: "priority1".to_owned() };
        Ok(Settings {
            services: vec![
                service(Service::demand("priority1", 1), Some(key))?,
                service(Service::fill("priority2", 2), None)?,
            ],
            instances: (0..self.script.instances.len())
                .map(|at| Instance::ready(name(at), Resources::slots_only(self.script.slots)))
                .collect(),
            lost_after_ms: LOST_AFTER_MS,
            ..Settings::new(crate::support::CLUSTER)
        })
    }

    async fn run(&mut self) -> Result<Figures, String> {
        let began = Instant::now();
        for (at_ms, step) in &self.script.steps {
            self.watch_until(began + Duration::from_millis(*at_ms)).await?;
            self.step(step).await?;
        }
        self.heal().await?;
        let healed = Instant::now();
        self.watch_until(healed + LINGERS).await?;
        loop {
            self.is_sound()?;
            let Err(fault) = self.is_settled() else { break };
            if healed.elapsed() > SETTLES_WITHIN {
                return Err(format!("not settled: {fault}\n{}", self.view()));
            }
            sleep(LOOK_EVERY).await;
        }
        let settled_after_ms = healed.elapsed().as_millis();
        let changes = self.changes();
        self.watch_until(Instant::now() + QUIET).await?;
        self.is_settled().map_err(|fault| format!("settled, and then: {fault}\n{}", self.view()))?;
        if self.changes() != changes {
            return Err(format!("{:?} were asked for, and {changes:?} would have done", self.changes()));
        }
        let asked = self.stage.ecs.calls();
        let count = |operation: &str| asked.get(operation).copied().unwrap_or_default();
        Ok(Figures {
            starts: count("StartTask"),
            stops: count("StopTask"),
            asked: asked.values().sum(),
            throttled: self.stage.ecs.throttled(),
            settled_after_ms,
        })
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        let ecs = self.stage.ecs.clone();
        match step {
            Step::Demand(demand) => self.board.0.send_modify(|(number, value)| {
                *number += 1;
                *value = *demand;
            }),
            Step::Rates(rates) => ecs.set_fault_rates(*rates),
            Step::RatesEnd => ecs.set_fault_rates(fake_ecs::FaultRates::default()),
            Step::Disconnect { instance } => ecs.disconnect(&name(*instance), Duration::from_secs(3)),
            Step::Reconnect { instance } => ecs.reconnect(&name(*instance)),
            Step::Refuse { instance, reason } => ecs.refuse_start(&name(*instance), *reason),
            Step::Kill { nth } => {
                if let Some(task) = self.ours().filter(|task| task.runs).nth(*nth) {
                    ecs.kill(&task.id);
                }
            }
            Step::EventsLost { per_mille } => ecs.configure(|config| {
                if let Some(events) = &mut config.events {
                    events.lost_per_mille = *per_mille;
                }
            }),
            Step::Crash => {
                if let Some((_, task)) = self.running.take() {
                    task.abort();
                    let _ = task.await;
                }
            }
            Step::Start => self.start().await?,
        }
        Ok(())
    }

    async fn heal(&mut self) -> Result<(), String> {
        let ecs = &self.stage.ecs;
        ecs.clear_faults();
        ecs.configure(|config| {
            if let Some(events) = &mut config.events {
                events.lost_per_mille = 0;
            }
        });
        for at in 0..self.script.instances.len() {
            ecs.reconnect(&name(at));
        }
        self.start().await
    }

    fn ours(&self) -> impl Iterator<Item = TaskTruth> + use<> {
        self.stage.ecs.tasks().into_iter().filter(|task| task.started_by.as_deref() == Some(STARTED_BY))
    }

    async fn watch_until(&self, end: Instant) -> Result<(), String> {
        while Instant::now() + LOOK_EVERY < end {
            sleep(LOOK_EVERY).await;
            self.is_sound()?;
        }
        sleep_until(end).await;
        self.is_sound()
    }

    /// No instance runs more than it has slots for.
    fn is_sound(&self) -> Result<(), String> {
        if self.running.as_ref().is_some_and(|(_, task)| task.is_finished()) {
            return Err("the controller has ended by itself".to_owned());
        }
        let mut running: BTreeMap<String, Vec<TaskTruth>> = BTreeMap::new();
        for task in self.ours().filter(|task| task.runs) {
            running.entry(task.instance.clone()).or_default().push(task);
        }
        match running.into_iter().find(|(_, tasks)| tasks.len() as u64 > self.script.slots) {
            Some((instance, tasks)) => {
                Err(format!("over capacity: {} run on {instance}: {tasks:#?}\n{}", tasks.len(), self.view()))
            }
            None => Ok(()),
        }
    }

    /// Whether exactly what is wanted runs, and nothing is on its way.
    fn is_settled(&self) -> Result<(), String> {
        let total = self.script.slots * self.script.instances.len() as u64;
        let wanted = u64::from(self.board.0.borrow().1).min(total);
        let mut counts = BTreeMap::from([("priority1".to_owned(), 0), ("priority2".to_owned(), 0)]);
        for task in self.ours().filter(|task| !task.ended) {
            if !task.runs || task.told_to_stop {
                return Err(format!("{} is on its way", task.id));
            }
            *counts.entry(task.family).or_default() += 1;
        }
        if counts["priority1"] == wanted && counts["priority2"] == total - wanted {
            return Ok(());
        }
        Err(format!("{counts:?}, and {wanted} of {total} are wanted of priority 1"))
    }

    fn changes(&self) -> (u64, u64) {
        let calls = self.stage.ecs.calls();
        let count = |operation: &str| calls.get(operation).copied().unwrap_or_default();
        (count("StartTask"), count("StopTask"))
    }

    fn view(&self) -> String {
        let tasks: Vec<TaskTruth> = self.ours().filter(|task| !task.ended).collect();
        let view = self.running.as_ref().map(|(handle, _)| handle.view());
        format!("{tasks:#?}\n{view:#?}")
    }
}
