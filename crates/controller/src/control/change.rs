//! What changes by somebody's will: commands, other settings, other engines and demand sources.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driver::Driver;
use planner::{Delta, ServiceId};
use tokio::time::Instant;

use super::Controller;
use crate::cluster::EngineId;
use crate::demands::Source;
use crate::engines::{Engine, Prepared, engine_of};
use crate::feed::follow;
use crate::guarded::Guarded;
use crate::handle::{Command, CommandError, UpdateError, lock};
use crate::limit::CallLimit;
use crate::measure::engine_places;
use crate::observer::{Post, observe};
use crate::prepare::{Preparation, prepare};
use crate::settings::{Engines, Settings};
use crate::turns::Places;

impl Controller {
    pub(super) fn obey(&mut self, command: Command) {
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
            let may_go = stays || self.standings.is_given_up(instance);
            let containers = if may_go { Vec::new() } else { self.cluster.names_on(&instance.name) };
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
            if before.is_some_and(|before| before.spec.generation() != after.spec.generation()) {
                // How another generation failed says nothing of this one.
                self.failures.forget_service(&after.service.name);
            }
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
        for engine in self.engines.values_mut() {
            let services = &self.settings.services;
            engine.limit.retain(|name| services.iter().any(|settings| settings.service.name == name));
        }
        self.configure(&BTreeSet::new());
        tracing::info!("other settings have been applied");
        Ok(())
    }

    /// Starts what is new among drivers and sources, and gives up what is missing.
    pub(super) fn use_engines(&mut self, engines: Engines) {
        let Engines { drivers, sources } = engines;
        let lost_after = Duration::from_millis(self.settings.lost_after_ms);
        self.lost_after.send_if_modified(|before| std::mem::replace(before, lost_after) != lost_after);
        let mut before = std::mem::take(&mut self.engines);
        for given in drivers {
            let known = before.iter().find(|(_, engine)| engine.driver.name() == given.name());
            let id = if let Some((&id, _)) = known {
                id
            } else {
                self.engines_started += 1;
                EngineId(self.engines_started)
            };
            let engine = match before.remove(&id) {
                Some(engine) if Arc::ptr_eq(&engine.given, &given) => engine,
                mut known => {
                    let driver: Arc<dyn Driver> = Arc::new(Guarded(Arc::clone(&given)));
                    // What is known of the engine holds until it answers the new driver.
                    let report = known.as_ref().map(|known| known.report.clone()).unwrap_or_default();
                    let mut limit = if driver.works_in_turn() {
                        CallLimit::new(driver.parallel_calls())
                    } else {
                        CallLimit::fixed(driver.parallel_calls())
                    };
                    let mut places = Places::default();
                    if let Some(known) = &mut known {
                        std::mem::swap(&mut limit, &mut known.limit);
                        limit.set_ceiling(driver.parallel_calls());
                        places = known.places;
                    }
                    drop(known);
                    let post = Arc::new(Post::holding(report.clone()));
                    let random = self.fork();
                    let task = self.tasks.spawn(observe(
                        Arc::clone(&driver),
                        Arc::clone(&post),
                        Arc::clone(&self.shared),
                        self.lost_after.subscribe(),
                        random,
                    ));
                    Engine { given, driver, post, report, task, preparations: BTreeMap::new(), limit, places }
                }
            };
            self.engines.insert(id, engine);
        }
        for gone in before.into_values() {
            engine_places(gone.driver.name(), gone.places, Places::default());
        }
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

    /// Prepares a service's spec again on one engine, which has told that it is not prepared any more.
    pub(super) fn prepare_again(&mut self, service: ServiceId, engine: EngineId) {
        let generation = self.cluster.generation(service);
        let Some((generation, engine)) = generation.zip(self.engines.get_mut(&engine)) else { return };
        // Several starts may tell the same.
        let is_ready = |prepared: &Prepared| *lock(&prepared.post) == Preparation::Ready;
        if engine.preparations.get(generation).is_some_and(is_ready) {
            engine.preparations.remove(generation);
            self.prepare_all();
        }
    }

    /// Sees to it that every spec is being prepared on every engine.
    fn prepare_all(&mut self) {
        let mut specs = BTreeMap::new();
        for configured in &self.settings.services {
            let spec =
                specs.entry(configured.spec.generation()).or_insert_with(|| Arc::clone(&configured.spec));
            // Of several services, the one that asks for more.
            if spec.pull < configured.spec.pull {
                *spec = Arc::clone(&configured.spec);
            }
        }
        let ids: Vec<EngineId> = self.engines.keys().copied().collect();
        for id in ids {
            for (generation, spec) in &specs {
                let random = self.fork();
                let engine = self.engines.get_mut(&id).expect("its id was just listed");
                let known = engine.preparations.get(generation);
                if known.is_some_and(|prepared| prepared.pull == spec.pull) {
                    continue;
                }
                let post = Arc::new(Mutex::new(Preparation::begun()));
                let task = self.tasks.spawn(prepare(
                    Arc::clone(&engine.driver),
                    Arc::clone(spec),
                    Arc::clone(&post),
                    Arc::clone(&self.shared),
                    random,
                ));
                engine.preparations.insert(generation.clone(), Prepared { pull: spec.pull, post, task });
            }
            let engine = self.engines.get_mut(&id).expect("its id was just listed");
            engine.preparations.retain(|generation, _| specs.contains_key(generation));
        }
    }

    /// Builds the planner's state anew, and tells it all that it has to know.
    pub(super) fn configure(&mut self, unknown: &BTreeSet<String>) {
        let engine_of = engine_of(&self.engines);
        let mut settings = self.settings.clone();
        for instance in &mut settings.instances {
            let engine = self.engines.get(&engine_of(&instance.name));
            if engine.is_some_and(|engine| !engine.driver.capabilities().freeze) {
                // With no place for frozen containers everything is stopped.
                instance.frozen_max = 0;
            }
        }
        self.cluster.configure(&settings, engine_of, self.draining, unknown);
        self.demands.tell_again(&self.settings, &mut self.cluster);
        for (name, &paused) in &self.paused {
            if let Some(service) = self.cluster.state().service_id(name) {
                self.cluster.apply(Delta::Paused { service, paused });
            }
        }
        self.backoffs.clear();
        self.holds.clear();
        self.waits.clear();
        self.not_done.clear();
        // The state knows no more of the instances than what is configured, and may be planned from in this pass.
        self.judge_again = true;
        self.judge_instances();
    }
}
