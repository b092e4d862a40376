//! The loop.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driver::{DriverError, Started};
use planner::{
    Action, Backoff, ContainerKey, Delta, InstanceId, Millis, NotDone, Phase, Plan, RemoveReason, ServiceId,
    StartReason, StopReason,
};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::backoff::{Holds, StartFailures};
use crate::clock::Clock;
use crate::cluster::{Cluster, EngineId, Kind, Noticed, exit_words};
use crate::decisions::{ActionOutcome, ActionView, Decision, InputView, NotDoneView, WokenBy};
use crate::demands::{Demands, Source};
use crate::engines::{Engine, Prepared, Standings, engine_of};
use crate::executor::{Done, Ended, OperationId, execute};
use crate::feed::follow;
use crate::handle::{Command, CommandError, Handle, Shared, UpdateError, lock};
use crate::latency::{Latency, Reactions};
use crate::measure::measure;
use crate::observer::{Post, observe};
use crate::prepare::{PREPARE_LIMIT, Preparation, Preparing, prepare};
use crate::settings::{Engines, Settings, SettingsError};
use crate::view::{self, View};

/// Operations at once, those of unknown outcome included. Far over what any engine does side by side (drivers
/// queue), and a bound on the tasks of a plan that changes everything; the rest is planned again when some ended.
const OPERATIONS_MAX: usize = 4_096;

/// The loop looks at least this often, so that what it counts in seconds (success, freshness) is not older than
/// this when it is read.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(5);

/// Time alone wakes the loop no sooner than this after a pass: moments are told in milliseconds.
const TIMER_SPACING: Duration = Duration::from_millis(1);

/// Everything that a controller touches.
pub struct Parts {
    /// What is wanted.
    pub settings: Settings,
    /// The ways to engines and demand sources.
    pub engines: Engines,
    /// The clock.
    pub clock: Clock,
    /// Of the jitter in backoffs.
    pub seed: u64,
    /// Differs with each start; shown in every view.
    pub epoch: String,
}

/// How far the loop is in getting to know what is there, once, before it plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Adoption {
    /// Not every engine has been observed or is lost, or all of them are.
    Observing,
    /// What was found half made has been told to go.
    Clearing,
    /// Everything that runs is known, as far as engines answer: planning goes on.
    Done,
}

/// The control loop. [`Controller::run`] is the whole of it: dropping that future ends every task of it at once,
/// as a crash would.
pub struct Controller {
    settings: Settings,
    clock: Clock,
    shared: Arc<Shared>,
    views: watch::Sender<Arc<View>>,
    random: ChaCha8Rng,
    cluster: Cluster,
    engines: BTreeMap<EngineId, Engine>,
    engines_started: u64,
    /// [`Settings::lost_after_ms`] in force, for the observers.
    lost_after: watch::Sender<Duration>,
    demands: Demands,
    standings: Standings,
    /// What an operator has said about services, over what is configured.
    paused: HashMap<String, bool>,
    failures: StartFailures,
    holds: Holds,
    /// What the planner's state has been told, to tell it only what is new.
    backoffs: HashMap<(ServiceId, InstanceId), Millis>,
    reactions: Reactions,
    starts: Latency,
    stops: Latency,
    /// The last plan's, to see whether the next has anything new to say.
    not_done: Vec<NotDone>,
    /// Services with stops that wait for what a predecessor may have asked for; see [`can_wait`].
    stops_wait: BTreeSet<Arc<str>>,
    operations_begun: u64,
    adoption: Adoption,
    draining: bool,
    shutdown_at: Option<Instant>,
    /// The settings or the standing of an instance may have changed.
    judge_again: bool,
    counted_until: Instant,
    success_ms: u64,
    no_success_ms: u64,
    /// Observers, feeds and preparations.
    tasks: JoinSet<()>,
    actions: JoinSet<()>,
    /// Given, and not in use before the loop runs.
    given: Engines,
}

impl Controller {
    /// A controller and the handle to it; nothing happens before [`Controller::run`].
    pub fn new(parts: Parts) -> Result<(Self, Handle), SettingsError> {
        let Parts { settings, engines, clock, seed, epoch } = parts;
        settings.validate(&engines)?;
        let shared = Arc::new(Shared::default());
        let first = View::nothing_known(epoch.into(), settings.cluster.as_str().into(), clock.now());
        let (views, receiver) = watch::channel(Arc::new(first));
        let handle = Handle { shared: Arc::clone(&shared), views: receiver };
        let fill_hold_until = clock.now().plus(settings.start_hold_ms);
        let bare = Settings { services: Vec::new(), instances: Vec::new(), ..settings.clone() };
        let cluster = Cluster::new(&bare, |_| EngineId(0), fill_hold_until);
        let lost_after = watch::Sender::new(Duration::from_millis(settings.lost_after_ms));
        let controller = Self {
            settings,
            clock,
            shared,
            views,
            random: ChaCha8Rng::seed_from_u64(seed),
            cluster,
            engines: BTreeMap::new(),
            engines_started: 0,
            lost_after,
            demands: Demands::default(),
            standings: Standings::default(),
            paused: HashMap::new(),
            failures: StartFailures::default(),
            holds: Holds::default(),
            backoffs: HashMap::new(),
            reactions: Reactions::default(),
            starts: Latency::default(),
            stops: Latency::default(),
            not_done: Vec::new(),
            stops_wait: BTreeSet::new(),
            operations_begun: 0,
            adoption: Adoption::Observing,
            draining: false,
            shutdown_at: None,
            judge_again: true,
            counted_until: Instant::now(),
            success_ms: 0,
            no_success_ms: 0,
            tasks: JoinSet::new(),
            actions: JoinSet::new(),
            given: engines,
        };
        Ok((controller, handle))
    }

    /// Runs until [`Handle::shutdown`].
    ///
    /// # Panics
    ///
    /// If a driver or a transport panics while it observes, prepares or fetches: the loop would be blind from then
    /// on. Started again, it goes on from what the engines say.
    pub async fn run(mut self) {
        let engines = std::mem::take(&mut self.given);
        self.use_engines(engines);
        self.configure(&BTreeSet::new());
        loop {
            let (mut woken_by, woken_at) = self.shared.take_woken();
            if let Some(woken_at) = woken_at {
                metrics::histogram!("force12_loop_lag_seconds").record(woken_at.elapsed().as_secs_f64());
            } else {
                woken_by = woken_by.with(WokenBy::TIMER);
            }
            let wake_at = self.pass(woken_by);
            if self.shutdown_at.is_some_and(|at| self.cluster.under_way() == 0 || Instant::now() >= at) {
                return;
            }
            tokio::select! {
                () = self.shared.woken() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// One pass: reads what is known, plans, issues, publishes. Says when to look again at the latest.
    fn pass(&mut self, woken_by: WokenBy) -> Instant {
        self.reap();
        for command in self.shared.take_commands() {
            self.obey(command);
        }
        for ended in self.shared.take_ended() {
            self.take_in_end(ended);
        }
        self.take_in_reports();
        let running = |cluster: &Cluster, service| view::running(cluster, service);
        self.demands.take_in(&self.settings, &self.clock, &mut self.cluster, &mut self.reactions, running);
        let now = self.clock.now();
        self.judge_instances();
        let mut merged = self.cluster.merge(now);
        if self.cluster.has_empty_removed() {
            self.configure(&BTreeSet::new());
            merged.extend(self.cluster.merge(now));
        }
        self.forgive(now);
        self.tell_backoffs();
        let preparing = self.preparing(now);
        self.follow_rises(now);

        if self.adoption != Adoption::Done && self.shutdown_at.is_none() {
            self.adopt(woken_by, now);
            merged.extend(self.cluster.merge(now));
        }
        let mut plan = Plan::default();
        let mut success = planner::Success { success: false, blocked_by: vec!["observing"] };
        if self.adoption == Adoption::Done {
            let planned_at = Instant::now();
            plan = planner::plan(self.cluster.state(), now);
            let plan_micros = u64::try_from(planned_at.elapsed().as_micros()).unwrap_or(u64::MAX);
            metrics::histogram!("force12_plan_seconds").record(planned_at.elapsed().as_secs_f64());
            success = planner::success(self.cluster.state(), &plan, now);
            if self.shutdown_at.is_none() {
                self.decide(&plan, &preparing, woken_by, plan_micros, now);
                merged.extend(self.cluster.merge(now));
            }
            self.limit_rises(&plan);
        }
        self.publish(&plan, &success, &preparing, &merged, now);

        let settled = self.cluster.state().fill_hold_until();
        let waits = [plan.next_wake_at, self.holds.next(now), (now < settled).then_some(settled)];
        let looked_at = Instant::now();
        let mut wake_at = looked_at + LOOK_AT_LEAST_EVERY;
        for moment in waits.into_iter().flatten() {
            wake_at = wake_at.min(self.clock.instant(moment).max(looked_at + TIMER_SPACING));
        }
        self.shutdown_at.map_or(wake_at, |at| wake_at.min(at))
    }

    fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        while let Some(ended) = self.actions.try_join_next() {
            if let Err(error) = ended {
                // Its outcome has been reported as unknown already.
                tracing::error!(%error, "an action's task has died");
            }
        }
    }

    fn obey(&mut self, command: Command) {
        // A reply that nobody waits for any more is no fault.
        match command {
            Command::Pause { service, paused, reply } => {
                let known = self.settings.services.iter().any(|settings| settings.service.name == service);
                let result = match self.cluster.state().service_id(&service) {
                    Some(id) if known => {
                        self.cluster.apply(Delta::Paused { service: id, paused });
                        tracing::info!(service, paused, "an operator has changed a service");
                        self.paused.insert(service, paused);
                        Ok(())
                    }
                    _ => Err(CommandError::UnknownService(service)),
                };
                let _ = reply.send(result);
            }
            Command::Instance { instance, state, reply } => {
                let result = if self.cluster.state().instance_id(&instance).is_some() {
                    tracing::info!(instance, ?state, "an operator has changed an instance");
                    self.standings.operator.insert(instance, state);
                    self.judge_again = true;
                    Ok(())
                } else {
                    Err(CommandError::UnknownInstance(instance))
                };
                let _ = reply.send(result);
            }
            Command::Update { settings, engines, reply } => {
                let _ = reply.send(self.update(*settings, engines));
            }
            Command::DrainAll { reply } => {
                tracing::info!("everything is being stopped");
                self.draining = true;
                self.configure(&BTreeSet::new());
                let _ = reply.send(Ok(()));
            }
            Command::Shutdown { limit } => {
                self.shutdown_at = Some(Instant::now() + limit);
            }
        }
    }

    fn update(&mut self, settings: Settings, engines: Engines) -> Result<(), UpdateError> {
        if settings.cluster != self.settings.cluster {
            return Err(UpdateError::ClusterChanged {
                from: self.settings.cluster.clone(),
                to: settings.cluster,
            });
        }
        for instance in &self.settings.instances {
            let stays = settings.instances.iter().any(|other| other.name == instance.name);
            let containers = if stays { Vec::new() } else { self.cluster.names_on(&instance.name) };
            if !containers.is_empty() {
                let instance = instance.name.clone();
                return Err(UpdateError::InstanceHoldsContainers { instance, containers });
            }
        }
        let serves = |instance: &str| {
            let driver = engines.drivers.iter().find(|it| it.instances().iter().any(|name| name == instance));
            driver.map(|driver| driver.name().to_owned())
        };
        for id in self.cluster.state().instance_ids() {
            let instance = self.cluster.instance_name(id).to_string();
            let before = self.engines.get(&self.cluster.engine_of(id)).map(|engine| engine.driver.name());
            let (Some(from), Some(to)) = (before, serves(&instance)) else { continue };
            let containers = if from == to { Vec::new() } else { self.cluster.names_on(&instance) };
            if !containers.is_empty() {
                let from = from.to_owned();
                return Err(UpdateError::InstanceMoves { instance, from, to, containers });
            }
        }
        // What an operator said holds until the configuration itself says something else.
        for after in &settings.services {
            let before =
                self.settings.services.iter().find(|before| before.service.name == after.service.name);
            if before.is_some_and(|before| before.service.paused != after.service.paused) {
                self.paused.remove(&after.service.name);
            }
        }
        for after in &settings.instances {
            let before = self.settings.instances.iter().find(|before| before.name == after.name);
            if before.is_some_and(|before| before.state != after.state) {
                self.standings.operator.remove(&after.name);
            }
        }
        self.settings = settings;
        self.paused
            .retain(|name, _| self.settings.services.iter().any(|settings| settings.service.name == *name));
        self.standings.retain(|name| self.settings.instances.iter().any(|instance| instance.name == name));
        self.use_engines(engines);
        self.configure(&BTreeSet::new());
        tracing::info!("other settings have been applied");
        Ok(())
    }

    /// Starts what is new among drivers and sources, and gives up what is missing.
    fn use_engines(&mut self, engines: Engines) {
        let Engines { drivers, sources } = engines;
        let lost_after = Duration::from_millis(self.settings.lost_after_ms);
        self.lost_after.send_if_modified(|before| std::mem::replace(before, lost_after) != lost_after);
        let mut before = std::mem::take(&mut self.engines);
        for driver in drivers {
            let known = before.iter().find(|(_, engine)| engine.driver.name() == driver.name());
            let id = if let Some((&id, _)) = known {
                id
            } else {
                self.engines_started += 1;
                EngineId(self.engines_started)
            };
            let engine = match before.remove(&id) {
                Some(engine) if Arc::ptr_eq(&engine.driver, &driver) => engine,
                known => {
                    // What is known of the engine holds until it answers the new driver.
                    let report = known.map(|known| known.report.clone()).unwrap_or_default();
                    let post = Arc::new(Post::holding(report.clone()));
                    let random = self.fork();
                    let task = self.tasks.spawn(observe(
                        Arc::clone(&driver),
                        Arc::clone(&post),
                        Arc::clone(&self.shared),
                        self.lost_after.subscribe(),
                        random,
                    ));
                    Engine { driver, post, report, task, preparations: BTreeMap::new() }
                }
            };
            self.engines.insert(id, engine);
        }
        drop(before);
        let mut before = std::mem::take(&mut self.demands.sources);
        for source in sources {
            let name = source.settings.name.clone();
            let known = before.remove(&name);
            let followed = match known {
                Some(known) if known.is(&source) => known,
                known => {
                    // What the source said last holds until it answers in its new way, or is stale.
                    let report = known.map(|known| {
                        known.task.abort();
                        lock(&known.post).clone()
                    });
                    let post = Arc::new(Mutex::new(report.unwrap_or_default()));
                    let random = self.fork();
                    let task = self.tasks.spawn(follow(
                        source.clone(),
                        Arc::clone(&post),
                        Arc::clone(&self.shared),
                        random,
                    ));
                    Source { asked: source, post, task }
                }
            };
            self.demands.sources.insert(name, followed);
        }
        for gone in before.into_values() {
            gone.task.abort();
        }
        self.prepare_all();
    }

    /// Sees to it that every spec is being prepared on every engine.
    fn prepare_all(&mut self) {
        let mut specs = BTreeMap::new();
        for configured in &self.settings.services {
            specs.insert(configured.spec.generation(), Arc::clone(&configured.spec));
        }
        let ids: Vec<EngineId> = self.engines.keys().copied().collect();
        for id in ids {
            for (generation, spec) in &specs {
                let random = self.fork();
                let engine = self.engines.get_mut(&id).expect("its id was just listed");
                if engine.preparations.contains_key(generation) {
                    continue;
                }
                let until = Instant::now() + PREPARE_LIMIT;
                let post = Arc::new(Mutex::new(Preparation::UnderWay { until }));
                let task = self.tasks.spawn(prepare(
                    Arc::clone(&engine.driver),
                    Arc::clone(spec),
                    Arc::clone(&post),
                    Arc::clone(&self.shared),
                    random,
                ));
                engine.preparations.insert(generation.clone(), Prepared { post, task });
            }
            let engine = self.engines.get_mut(&id).expect("its id was just listed");
            engine.preparations.retain(|generation, prepared| {
                let wanted = specs.contains_key(generation);
                if !wanted {
                    prepared.task.abort();
                }
                wanted
            });
        }
    }

    /// Dice for a task of its own, so that tasks don't share one sequence.
    fn fork(&mut self) -> ChaCha8Rng {
        ChaCha8Rng::from_rng(&mut self.random)
    }

    /// Builds the planner's state anew, and tells it all that it has to know.
    fn configure(&mut self, unknown: &BTreeSet<String>) {
        self.cluster.configure(&self.settings, engine_of(&self.engines), self.draining, unknown);
        self.demands.tell_again(&self.settings, &mut self.cluster);
        for (name, &paused) in &self.paused {
            if let Some(service) = self.cluster.state().service_id(name) {
                self.cluster.apply(Delta::Paused { service, paused });
            }
        }
        self.backoffs.clear();
        self.holds.clear();
        self.not_done.clear();
        self.judge_again = true;
    }

    fn take_in_end(&mut self, ended: Ended) {
        let Ended { operation, order, result } = ended;
        let now = self.clock.now();
        let Some((key, in_flight)) = self.cluster.operation(operation) else { return };
        let (kind, decision, issued_at) = (in_flight.kind, in_flight.decision, in_flight.issued_at);
        if let Some(engine) = self.engines.get(&self.cluster.engine_of(key.instance)) {
            engine.post.poke();
        }
        let (outcome, detail) = match result {
            Ok(done) => {
                self.holds.succeeded(key, kind.name());
                let (already, started) = match done {
                    Done::Started(Started { id, already }) => (already, Some(id)),
                    Done::Other(outcome) => (outcome == driver::Outcome::Already, None),
                };
                self.cluster.done(operation, order, started, now);
                if kind == Kind::Stop && !already {
                    self.stops.record(now.since(issued_at));
                }
                (if already { ActionOutcome::Already } else { ActionOutcome::Done }, None)
            }
            Err(error) => {
                let words = error.to_string();
                let name = self.cluster.state().describe(key);
                let unknown = matches!(error, DriverError::OutcomeUnknown { .. });
                let refused = matches!(error, DriverError::Rejected { .. } | DriverError::Unsupported { .. });
                let runs = kind == Kind::Remove
                    && matches!(error, DriverError::Rejected { code: "conflict", .. })
                    && self
                        .cluster
                        .container(key)
                        .is_some_and(|known| known.container.phase == Phase::Created);
                if runs {
                    // What was asked here is whether it is being started; this is an answer, not a failure.
                    tracing::debug!(container = name, "a predecessor is starting it");
                    self.cluster.starts_after_all(operation, now.plus(self.settings.settle_ms));
                } else {
                    tracing::warn!(
                        container = name,
                        action = kind.name(),
                        error = words,
                        "an action has failed"
                    );
                }
                if unknown {
                    self.cluster.unknown(operation, order, self.settings.settle_ms, now);
                } else {
                    self.cluster.failed(operation);
                }
                if refused && matches!(kind, Kind::Start | Kind::Thaw) {
                    self.start_failed(key, words.clone(), now);
                } else if !runs {
                    self.holds.failed(key, kind.name(), words.clone(), now, &mut self.random);
                }
                (if unknown { ActionOutcome::Unknown } else { ActionOutcome::Failed }, Some(words))
            }
        };
        lock(&self.shared.decisions).outcome(decision, outcome, now, detail);
    }

    fn start_failed(&mut self, key: ContainerKey, reason: String, now: Millis) {
        let service = self.cluster.service_name(key.service);
        let instance = self.cluster.instance_name(key.instance);
        self.failures.failed(service, instance, reason, now, &mut self.random);
    }

    fn take_in_reports(&mut self) {
        let now = self.clock.now();
        let ids: Vec<EngineId> = self.engines.keys().copied().collect();
        for id in ids {
            let engine = self.engines.get_mut(&id).expect("its id was just listed");
            let report = engine.post.report();
            let before = std::mem::replace(&mut engine.report, report.clone());
            if before.lost.is_some() != report.lost.is_some() {
                let name = engine.driver.name();
                if let Some(lost) = &report.lost {
                    tracing::warn!(engine = name, reason = lost.reason, "an engine is lost");
                } else {
                    tracing::info!(engine = name, "an engine is back");
                }
            }
            self.judge_again |= before.lost != report.lost;
            let Some(observed) = report.observed else { continue };
            if before.observed.is_some_and(|before| before.began == observed.began) {
                continue;
            }
            self.judge_again = true;
            let unknown = self.cluster.unknown_services(&observed);
            if !unknown.is_empty() {
                self.configure(&unknown);
            }
            for noticed in self.cluster.observe(id, &observed, now) {
                match noticed {
                    Noticed::Runs { took_ms } => self.starts.record(took_ms),
                    Noticed::DiedYoung { key, words } => {
                        let name = self.cluster.state().describe(key);
                        tracing::warn!(container = name, how = words, "a container ended by itself");
                        self.start_failed(key, words, now);
                    }
                }
            }
        }
    }

    /// Gets to know what is there before anything is planned, once: every engine has been observed or is lost, one at
    /// least has been observed, and what a predecessor has left half made is told from what it has begun to start.
    ///
    /// An engine may say of a container that it starts that it is created, and that takes no room. A predecessor's
    /// start may be on its way like that; its successor would fill the room that it is about to take. Removing it
    /// is the one question with a clear answer: what is not being started goes, and what is being started stays.
    fn adopt(&mut self, woken_by: WokenBy, now: Millis) {
        if self.not_observed().is_some() {
            return;
        }
        let half_made = match self.adoption {
            Adoption::Observing => self.cluster.half_made(),
            Adoption::Clearing | Adoption::Done => Vec::new(),
        };
        if !half_made.is_empty() {
            let sequence = lock(&self.shared.decisions).next_sequence();
            let mut actions = Vec::new();
            for container in half_made {
                let action = Action::Remove { container, reason: RemoveReason::NeverStarted };
                actions.extend(self.issue(&action, (sequence, actions.len()), now));
            }
            self.record(woken_by, 0, actions, &Plan::default(), &Preparing::default(), now);
        }
        // As long as fill waits in any case, and no longer: an engine may have hung meanwhile.
        let over = self.cluster.under_way() == 0 || now >= self.cluster.state().fill_hold_until();
        self.adoption = if over { Adoption::Done } else { Adoption::Clearing };
    }

    /// Why nothing can be planned yet.
    fn not_ready(&self) -> Option<String> {
        if self.adoption == Adoption::Done {
            return None;
        }
        Some(self.not_observed().unwrap_or_else(|| "waiting for what was found half made to go".to_owned()))
    }

    fn not_observed(&self) -> Option<String> {
        let silent: Vec<&str> = self
            .engines
            .values()
            .filter(|engine| engine.report.observed.is_none() && engine.report.lost.is_none())
            .map(|engine| engine.driver.name())
            .collect();
        if !silent.is_empty() {
            return Some(format!("waiting for a first answer from {}", silent.join(", ")));
        }
        if self.engines.values().any(|engine| engine.report.observed.is_some()) {
            return None;
        }
        let lost: Vec<&str> = self
            .engines
            .values()
            .filter_map(|engine| engine.report.lost.as_ref())
            .map(|lost| lost.reason.as_str())
            .collect();
        (!lost.is_empty()).then(|| format!("no engine has been observed yet: {}", lost.join("; ")))
    }

    /// Tells the planner's state what may be done with each instance.
    fn judge_instances(&mut self) {
        if !std::mem::take(&mut self.judge_again) {
            return;
        }
        for configured in &self.settings.instances {
            let Some(id) = self.cluster.state().instance_id(&configured.name) else { continue };
            let Some(engine) = self.engines.get(&self.cluster.engine_of(id)) else { continue };
            let (state, capacity) = self.standings.judge(&self.cluster, configured, id, engine, &self.clock);
            let known = self.cluster.state().instance(id);
            let (state_changed, capacity_changed) = (known.state != state, known.capacity != capacity);
            if state_changed {
                self.cluster.apply(Delta::InstanceState { instance: id, state });
            }
            if capacity_changed {
                self.cluster.apply(Delta::Capacity { instance: id, capacity });
            }
        }
    }

    /// Ends rows of failures: after a start that went well, or long after the last.
    fn forgive(&mut self, now: Millis) {
        let state = self.cluster.state();
        let forgiven: Vec<(Arc<str>, Arc<str>)> = self
            .failures
            .rows()
            .filter(|(service, instance, row)| {
                let ids = state.service_id(service).zip(state.instance_id(instance));
                ids.is_none_or(|(service, instance)| {
                    self.cluster.ran_well(service, instance, row.last_at, now)
                })
            })
            .map(|(service, instance, _)| (Arc::clone(service), Arc::clone(instance)))
            .collect();
        for (service, instance) in forgiven {
            self.failures.succeeded(&service, &instance);
        }
        self.failures.forget(now);
        self.holds.forget(now);
    }

    /// Tells the planner's state until when starts are held back: for failures, and for what is not prepared.
    fn tell_backoffs(&mut self) {
        let mut held: HashMap<(ServiceId, InstanceId), Millis> = HashMap::new();
        let state = self.cluster.state();
        for (service, instance, row) in self.failures.rows() {
            if let Some(ids) = state.service_id(service).zip(state.instance_id(instance)) {
                held.insert(ids, row.until);
            }
        }
        for configured in &self.settings.services {
            let Some(service) = state.service_id(&configured.service.name) else { continue };
            let Some(generation) = self.cluster.generation(service) else { continue };
            for instance in state.instance_ids() {
                let engine = self.engines.get(&self.cluster.engine_of(instance));
                let Some(prepared) = engine.and_then(|engine| engine.preparations.get(generation)) else {
                    continue;
                };
                let until = match &*lock(&prepared.post) {
                    Preparation::Ready => continue,
                    Preparation::UnderWay { until } => *until,
                    Preparation::Failed { retry_at, .. } => *retry_at,
                };
                let until = self.clock.at(until);
                let entry = held.entry((service, instance)).or_insert(until);
                *entry = until.max(*entry);
            }
        }
        let over = self.backoffs.keys().filter(|ids| !held.contains_key(ids)).copied().collect::<Vec<_>>();
        for (service, instance) in over {
            self.backoffs.remove(&(service, instance));
            self.cluster.apply(Delta::Backoff(Backoff {
                service,
                instance: Some(instance),
                until: Millis(0),
            }));
        }
        for ((service, instance), until) in held {
            if self.backoffs.insert((service, instance), until) != Some(until) {
                self.cluster.apply(Delta::Backoff(Backoff { service, instance: Some(instance), until }));
            }
        }
    }

    /// The services that wait for nothing but their first preparation.
    fn preparing(&self, now: Millis) -> Preparing {
        let state = self.cluster.state();
        let failed: HashSet<&str> = self
            .failures
            .rows()
            .filter(|(_, _, row)| now < row.until)
            .map(|(service, _, _)| &**service)
            .collect();
        let mut preparing = Preparing::default();
        for configured in &self.settings.services {
            let name = configured.service.name.as_str();
            let Some(service) = state.service_id(name).filter(|_| !failed.contains(name)) else { continue };
            let Some(generation) = self.cluster.generation(service) else { continue };
            let mut engines = Vec::new();
            let mut has_failed = false;
            for engine in self.engines.values() {
                let Some(prepared) = engine.preparations.get(generation) else { continue };
                match &*lock(&prepared.post) {
                    Preparation::Ready => {}
                    Preparation::UnderWay { .. } => engines.push(engine.driver.name().to_owned()),
                    Preparation::Failed { .. } => has_failed = true,
                }
            }
            if !has_failed && !engines.is_empty() {
                preparing.0.insert(service, engines);
            }
        }
        preparing
    }

    fn follow_rises(&mut self, now: Millis) {
        for name in self.reactions.followed() {
            if let Some(service) = self.cluster.state().service_id(&name) {
                self.reactions.running(&name, view::running(&self.cluster, service), now);
            }
        }
    }

    /// A rise beyond what can run at all is not followed.
    fn limit_rises(&mut self, plan: &Plan) {
        for (service, planned) in self.cluster.state().service_ids().zip(&plan.services) {
            if let (Some(target), 1..) = (planned.target, planned.unmet) {
                self.reactions
                    .limited(self.cluster.service_name(service), target.saturating_sub(planned.unmet));
            }
        }
    }

    /// Issues what is planned, and records the decision if it does or refuses anything new.
    fn decide(
        &mut self,
        plan: &Plan,
        preparing: &Preparing,
        woken_by: WokenBy,
        plan_micros: u64,
        now: Millis,
    ) {
        let sequence = lock(&self.shared.decisions).next_sequence();
        let mut actions = Vec::new();
        let mut held: HashSet<ContainerKey> = HashSet::new();
        for action in self.cluster.again().iter().chain(&plan.actions) {
            let container = action.container();
            let waits = now < self.cluster.state().fill_hold_until() && can_wait(action);
            if waits {
                self.stops_wait.insert(Arc::clone(self.cluster.service_name(container.service)));
            }
            let held_back = waits
                || self.cluster.operations_len() >= OPERATIONS_MAX
                || self.holds.holds(container, action.kind(), now)
                || action.after().iter().any(|victim| held.contains(victim));
            if held_back {
                held.insert(container);
                continue;
            }
            if let Some(issued) = self.issue(action, (sequence, actions.len()), now) {
                actions.push(issued);
            } else {
                held.insert(container);
            }
        }
        let news = plan.not_done != self.not_done;
        self.not_done.clone_from(&plan.not_done);
        if !actions.is_empty() || news {
            self.record(woken_by, plan_micros, actions, plan, preparing, now);
        }
    }

    fn record(
        &self,
        woken_by: WokenBy,
        plan_micros: u64,
        actions: Vec<ActionView>,
        plan: &Plan,
        preparing: &Preparing,
        now: Millis,
    ) {
        let sequence = lock(&self.shared.decisions).next_sequence();
        let state = self.cluster.state();
        let not_done: Vec<NotDoneView> = plan
            .not_done
            .iter()
            .map(|not_done| NotDoneView {
                service: Arc::clone(self.cluster.service_name(not_done.service())),
                reason: preparing.code(not_done),
                words: preparing.words(not_done, state, now),
            })
            .collect();
        let decision = Decision {
            sequence,
            decided_at: now,
            woken_by,
            plan_micros,
            summary: Decision::summarize(&actions, &not_done),
            inputs: self.inputs(plan, now),
            actions,
            not_done,
        };
        tracing::debug!(sequence, summary = decision.summary, "decided");
        lock(&self.shared.decisions).push(decision);
    }

    fn issue(&mut self, action: &Action, decision: (u64, usize), now: Millis) -> Option<ActionView> {
        let key = action.container();
        let engine = self.engines.get(&self.cluster.engine_of(key.instance))?;
        let driver = Arc::clone(&engine.driver);
        let detail = match action {
            Action::Remove { .. } => self
                .cluster
                .container(key)
                .and_then(|known| known.exit.as_ref())
                .map(|exit| exit_words(Some(exit))),
            _ => None,
        };
        let grace = Duration::from_millis(self.cluster.longest_grace_ms(action));
        let operation = OperationId(self.operations_begun);
        let idempotent = driver.capabilities().idempotent_start;
        let work = self.cluster.begin(action, operation, decision, idempotent, now)?;
        self.operations_begun += 1;
        let service = Arc::clone(self.cluster.service_name(key.service));
        if !action.after().is_empty()
            && matches!(
                action,
                Action::Start { reason: StartReason::Demand { .. }, .. }
                    | Action::Thaw { reason: StartReason::Demand { .. }, .. }
            )
        {
            self.reactions.preempts(&service);
        }
        self.actions.spawn(execute(driver, operation, work, grace, Arc::clone(&self.shared)));
        let state = self.cluster.state();
        Some(ActionView {
            kind: action.kind(),
            service,
            instance: Arc::clone(self.cluster.instance_name(key.instance)),
            container: state.describe(key),
            after: action.after().iter().map(|&victim| state.describe(victim)).collect(),
            reason: action.reason_code(),
            words: action.words(state),
            outcome: ActionOutcome::Pending,
            took_ms: None,
            detail,
        })
    }

    fn inputs(&self, plan: &Plan, now: Millis) -> Vec<InputView> {
        let state = self.cluster.state();
        let mut ids: Vec<ServiceId> = state.service_ids().collect();
        ids.sort_by_key(|&id| (state.service(id).priority, id));
        ids.into_iter()
            .map(|id| {
                let demand = view::demand(state, id, now);
                InputView {
                    service: Arc::clone(self.cluster.service_name(id)),
                    demand: demand.and_then(|demand| demand.containers),
                    freshness: demand.map(|demand| demand.freshness),
                    target: plan.services.get(id.index()).and_then(|planned| planned.target),
                    have: view::have(&self.cluster, id),
                }
            })
            .collect()
    }

    fn publish(
        &mut self,
        plan: &Plan,
        success: &planner::Success,
        preparing: &Preparing,
        merged: &BTreeSet<InstanceId>,
        now: Millis,
    ) {
        let before = Arc::clone(&self.views.borrow());
        self.count_time(&before);
        let reasons = self.reasons(preparing, now);
        let material = view::Material {
            cluster: &self.cluster,
            standings: &self.standings,
            plan,
            success,
            reasons: &reasons,
            preparing,
            merged,
            not_ready: self.not_ready(),
            draining: self.draining,
            reaction: self.reactions.all(),
            reaction_preempting: self.reactions.preempting(),
            start: self.starts.view(),
            stop: self.stops.view(),
        };
        let view = view::build(&material, &before, now);
        if let Some(view) = view {
            measure(&view, &before);
            self.views.send_replace(Arc::new(view));
        }
    }

    /// Counts the time since the last pass as one with or without success.
    fn count_time(&mut self, before: &View) {
        let now = Instant::now();
        let passed_ms = u64::try_from((now - self.counted_until).as_millis()).unwrap_or(u64::MAX);
        self.counted_until += Duration::from_millis(passed_ms);
        let (counted_ms, success) =
            if before.success { (&mut self.success_ms, "true") } else { (&mut self.no_success_ms, "false") };
        *counted_ms += passed_ms;
        // A counter counts whole seconds; the rest is not lost.
        metrics::counter!("force12_success_seconds_total", "success" => success)
            .absolute(*counted_ms / 1_000);
    }

    /// By service: a sentence on anything unusual.
    fn reasons(&self, preparing: &Preparing, now: Millis) -> HashMap<Arc<str>, String> {
        let mut reasons: HashMap<Arc<str>, String> = HashMap::new();
        let state = self.cluster.state();
        let mut add = |service: &str, words: String| {
            reasons.entry(service.into()).or_insert(words);
        };
        for configured in &self.settings.services {
            let name = &configured.service.name;
            if let Some(fault) = self.demands.fault(name) {
                add(name, fault.to_owned());
            }
            let generation = state.service_id(name).and_then(|id| self.cluster.generation(id));
            for engine in self.engines.values() {
                if let Some(prepared) = generation.and_then(|generation| engine.preparations.get(generation))
                    && let Preparation::Failed { reason, .. } = &*lock(&prepared.post)
                {
                    add(name, format!("its starts are held back: {reason}"));
                }
            }
        }
        for (&service, engines) in &preparing.0 {
            add(&state.service(service).name, Preparing::reason(engines));
        }
        for (service, instance, row) in self.failures.rows().filter(|(_, _, row)| now < row.until) {
            add(service, format!("its starts on {instance} are held back, after failures: {}", row.reason));
        }
        for name in &self.stops_wait {
            add(name, "its surplus stays until a predecessor's own stops must have shown".to_owned());
        }
        for (key, kind, row) in self.holds.reasons(now) {
            add(
                &state.service(key.service).name,
                format!("{kind} {} is held back, after failures: {}", state.describe(key), row.reason),
            );
        }
        reasons
    }
}

/// Whether it is a stop that nothing waits for.
///
/// A predecessor may have asked for a stop that goes on after its own end, and an engine may say `running` until that
/// is done: its successor sees one too many, and would stop a second one, which is wanted. So for as long as fill
/// waits after a start, stops wait that free no room for anything.
const fn can_wait(action: &Action) -> bool {
    matches!(
        action,
        Action::Stop {
            reason: StopReason::Surplus { .. }
                | StopReason::Share { .. }
                | StopReason::Draining
                | StopReason::Outdated,
            ..
        }
    )
}
