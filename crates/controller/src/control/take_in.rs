//! What has happened, taken in: ends of actions, observations, and what they hold back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use driver::{DriverError, Started};
use planner::{Backoff, ContainerKey, Delta, InstanceId, Millis, Phase, ServiceId};
use tokio::time::Instant;

use super::Controller;
use crate::backoff::Failure;
use crate::cluster::{EngineId, Kind, Noticed};
use crate::decisions::ActionOutcome;
use crate::engines::Times;
use crate::executor::{Done, Ended};
use crate::handle::lock;
use crate::measure;
use crate::prepare::{Preparation, Preparing, Wait};
use crate::view;

impl Controller {
    pub(super) fn take_in_end(&mut self, ended: Ended) {
        let Ended { operation, order, result, span: _ } = ended;
        let now = self.clock.now();
        let Some((key, in_flight)) = self.cluster.operation(operation) else { return };
        let (kind, decision, issued_at) = (in_flight.kind, in_flight.decision, in_flight.issued_at);
        if let Some(engine) = self.engines.get_mut(&self.cluster.engine_of(key.instance)) {
            engine.post.poke();
            if let Ok(Done::Started(Started { already: false, took, .. })) = &result {
                engine.limit.started(self.cluster.service_name(key.service), *took, Instant::now());
            }
        }
        let (outcome, detail) = match result {
            Ok(done) => {
                self.holds.succeeded(key, kind.name());
                let (already, started) = match done {
                    Done::Started(Started { id, already, .. }) => (already, Some(id)),
                    Done::Other(outcome) => (outcome == driver::Outcome::Already, None),
                };
                if let Some((work, ms)) = self.cluster.work(key, kind, now).filter(|_| !already) {
                    let service = Arc::clone(self.cluster.service_name(key.service));
                    let total_ms = self.work_ms.entry((service, work)).or_default();
                    *total_ms += ms;
                    measure::work(self.cluster.service_name(key.service), work, *total_ms);
                }
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
                let asked = |phase: Phase| matches!(phase, Phase::Created | Phase::Starting);
                let runs = kind == Kind::Remove
                    && matches!(error, DriverError::Rejected { code: "conflict", .. })
                    && self.cluster.container(key).is_some_and(|known| asked(known.container.phase));
                if runs {
                    // What was asked here is whether it is being started; this is an answer, not a failure.
                    tracing::debug!(container = name, "a predecessor is starting it");
                    self.cluster.may_be_starting(key, now.plus(self.settings.settle_ms));
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
                if kind == Kind::Start && error.code() == "image_missing" {
                    self.prepare_again(key.service, self.cluster.engine_of(key.instance));
                }
                if refused && matches!(kind, Kind::Start | Kind::Thaw) {
                    let failure = Failure { took_ms: 0, reason: words.clone() };
                    self.start_failed(key, failure, now);
                } else if !runs {
                    self.holds.failed(key, kind.name(), words.clone(), now, &mut self.random);
                }
                (if unknown { ActionOutcome::Unknown } else { ActionOutcome::Failed }, Some(words))
            }
        };
        lock(&self.shared.decisions).outcome(decision, outcome, now, detail);
    }

    fn start_failed(&mut self, key: ContainerKey, failure: Failure, now: Millis) {
        let service = self.cluster.service_name(key.service);
        let instance = self.cluster.instance_name(key.instance);
        self.failures.failed(service, instance, failure, now, &mut self.random);
    }

    pub(super) fn take_in_reports(&mut self) {
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
            let engine = self.engines.get(&id).expect("its id was just listed");
            let shows_late = !engine.driver.capabilities().idempotent_start;
            let late_ms = if shows_late { self.settings.settle_ms } else { 0 };
            let began_at = self.clock.at(observed.began_at);
            let noticed = self.cluster.observe(id, &observed, began_at, late_ms, now);
            self.take_in_noticed(noticed, now);
        }
        let noticed = self.cluster.give_up_waiting(now);
        self.take_in_noticed(noticed, now);
    }

    fn take_in_noticed(&mut self, noticed: Vec<Noticed>, now: Millis) {
        for noticed in noticed {
            match noticed {
                Noticed::Runs { took_ms } => self.starts.record(took_ms),
                Noticed::Failed { key, failure } => {
                    let name = self.cluster.state().describe(key);
                    tracing::warn!(container = name, how = failure.reason, "a container has failed");
                    self.start_failed(key, failure, now);
                }
            }
        }
    }

    /// Tells the planner's state what may be done with each instance.
    pub(super) fn judge_instances(&mut self) {
        let now = self.clock.now();
        if !std::mem::take(&mut self.judge_again) && self.judge_at.is_none_or(|at| now < at) {
            return;
        }
        let times = Times { now, lost_after_ms: self.settings.lost_after_ms, settled_at: self.settled_at };
        for configured in &self.settings.instances {
            let Some(id) = self.cluster.state().instance_id(&configured.name) else { continue };
            let Some(engine) = self.engines.get(&self.cluster.engine_of(id)) else { continue };
            let (state, capacity) =
                self.standings.judge(&self.cluster, configured, id, engine, &self.clock, &times);
            let known = self.cluster.state().instance(id);
            let (state_changed, capacity_changed) = (known.state != state, known.capacity != capacity);
            if state_changed {
                self.cluster.apply(Delta::InstanceState { instance: id, state });
            }
            if capacity_changed {
                self.cluster.apply(Delta::Capacity { instance: id, capacity });
            }
        }
        self.judge_at = self.standings.next(&times);
    }

    /// Ends rows of failures: after a start that went well, or long after the last.
    pub(super) fn forgive(&mut self, now: Millis) {
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
    pub(super) fn tell_backoffs(&mut self) {
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
                    Preparation::UnderWay { until, .. } | Preparation::Failed { until, .. } => *until,
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

    /// The services that wait for nothing but their preparation.
    pub(super) fn preparing(&self, now: Millis) -> Preparing {
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
            let mut first = Vec::new();
            let mut failed = None;
            for engine in self.engines.values() {
                let Some(prepared) = engine.preparations.get(generation) else { continue };
                match &*lock(&prepared.post) {
                    Preparation::Ready => {}
                    Preparation::UnderWay { stage, .. } => first.push((engine.driver.name(), stage.clone())),
                    Preparation::Failed { code, reason, .. } => failed = Some(Wait::failed(code, reason)),
                }
            }
            let first = (!first.is_empty()).then(|| Wait::first(&first));
            if let Some(wait) = failed.or(first) {
                preparing.0.insert(service, wait);
            }
        }
        preparing
    }

    pub(super) fn follow_rises(&mut self, now: Millis) {
        for name in self.reactions.followed() {
            if let Some(service) = self.cluster.state().service_id(&name) {
                self.reactions.running(&name, view::running(&self.cluster, service), now);
            }
        }
    }
}
