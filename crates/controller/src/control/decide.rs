//! A plan issued and recorded.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use planner::{Action, ContainerKey, Millis, NotDone, Plan, ServiceId, StartReason, StopReason};
use tokio::time::Instant;
use tracing::{Instrument as _, Span};

use super::Controller;
use crate::cluster::{Calls, EngineId, exit_words};
use crate::decisions::{ActionOutcome, ActionView, Decision, InputView, NotDoneView, WokenBy};
use crate::executor::{OperationId, execute};
use crate::handle::lock;
use crate::measure::engine_places;
use crate::prepare::Preparing;
use crate::turns::{Places, Turns};
use crate::{trace, view};

/// Operations at once, those of unknown outcome included: a bound on the tasks of a plan that changes everything on many
/// engines; the rest is planned again when some ended.
const OPERATIONS_MAX: usize = 4_096;

/// What is under way of a decision.
pub(super) struct Issued {
    pub(super) actions: Vec<ActionView>,
    pub(super) span: Span,
}

impl Controller {
    /// Issues what is planned, and records the decision if it does or refuses anything new.
    pub(super) fn decide(
        &mut self,
        plan: &Plan,
        preparing: &Preparing,
        woken_by: WokenBy,
        plan_micros: u64,
        now: Millis,
    ) {
        self.stops_wait.clear();
        let sequence = lock(&self.shared.decisions).next_sequence();
        let mut actions = Vec::new();
        let mut held: HashSet<ContainerKey> = HashSet::new();
        // A pass that does nothing makes no span.
        let mut span: Option<Span> = None;
        let again = self.cluster.again();
        let calls = self.cluster.calls(now);
        let mut turns = Turns::new(again.iter().chain(&plan.actions));
        let waited_before = std::mem::take(&mut self.waits);
        let looked_at = Instant::now();
        for action in again.iter().chain(&plan.actions) {
            let container = action.container();
            let waits = now < self.cluster.state().fill_hold_until() && can_wait(action, plan);
            if waits {
                self.stops_wait.insert(Arc::clone(self.cluster.service_name(container.service)));
            }
            let held_back = waits
                || self.cluster.operations_len() >= OPERATIONS_MAX
                || self.holds.holds(container, action.kind(), now)
                || action.lends_to().is_some_and(|to| self.holds.holds(to, "stop", now))
                || action.after().iter().chain(action.beside()).any(|victim| held.contains(victim));
            if held_back {
                held.insert(container);
                continue;
            }
            let engine = self.cluster.engine_of(container.instance);
            let places = || self.places(engine, &calls);
            let waited = waited_before.waited(action, looked_at);
            if !turns.take(action, engine, self.cluster.state(), waited, places) {
                self.waits.note(action, &waited_before, looked_at);
                held.insert(container);
                continue;
            }
            let span =
                span.get_or_insert_with(|| self.decision_span(sequence, woken_by, plan_micros)).clone();
            if let Some(issued) = self.issue(action, (sequence, actions.len()), &span, waited, now) {
                actions.push(issued);
            } else {
                held.insert(container);
            }
        }
        self.measure_engines(&turns, now);
        // What is in the way of a preparation is not in the plan, only in its code.
        let not_done: Vec<(NotDone, &'static str)> =
            plan.not_done.iter().map(|not_done| (*not_done, preparing.code(not_done))).collect();
        let news = not_done != self.not_done;
        self.not_done = not_done;
        if !actions.is_empty() || news {
            let issued = Issued { actions, span: span.unwrap_or_else(Span::none) };
            self.record(woken_by, plan_micros, issued, plan, preparing, now);
        }
    }

    /// The places at an engine while nothing has been issued.
    fn places(&self, engine: EngineId, calls: &HashMap<EngineId, Calls>) -> Places {
        let limit = self.engines.get(&engine).map_or(1, |engine| engine.limit.get());
        let Calls { all, removals } = calls.get(&engine).copied().unwrap_or_default();
        Places { limit, taken: all, removals, waiting: 0 }
    }

    /// Notes how busy the engines are from now on.
    fn measure_engines(&mut self, turns: &Turns, now: Millis) {
        let calls = self.cluster.calls(now);
        let looked_at = Instant::now();
        for (&id, engine) in &mut self.engines {
            let Calls { all, removals } = calls.get(&id).copied().unwrap_or_default();
            engine.limit.under_way(all, looked_at);
            let places =
                Places { limit: engine.limit.get(), taken: all, removals, waiting: turns.waiting(id) };
            engine_places(engine.driver.name(), std::mem::replace(&mut engine.places, places), places);
        }
    }

    /// The span of a decision that is about to be carried out.
    pub(super) fn decision_span(&self, sequence: u64, woken_by: WokenBy, plan_micros: u64) -> Span {
        let epoch = Arc::clone(&self.views.borrow().epoch);
        self.causes.decision(&self.settings.cluster, &epoch, sequence, woken_by, plan_micros)
    }

    pub(super) fn record(
        &self,
        woken_by: WokenBy,
        plan_micros: u64,
        issued: Issued,
        plan: &Plan,
        preparing: &Preparing,
        now: Millis,
    ) {
        let Issued { actions, span } = issued;
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
            trace_id: (self.trace_id)(&span),
        };
        span.record("force12.actions", decision.actions.len());
        span.record("force12.not_done", decision.not_done.len());
        span.record("force12.summary", &*decision.summary);
        tracing::debug!(sequence, summary = decision.summary, "decided");
        lock(&self.shared.decisions).push(decision);
    }

    pub(super) fn issue(
        &mut self,
        action: &Action,
        decision: (u64, usize),
        span: &Span,
        waited: Duration,
        now: Millis,
    ) -> Option<ActionView> {
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
        if !(action.after().is_empty() && action.beside().is_empty())
            && matches!(
                action,
                Action::Start { reason: StartReason::Demand { .. }, .. }
                    | Action::Thaw { reason: StartReason::Demand { .. }, .. }
            )
        {
            self.reactions.preempts(&service);
        }
        let state = self.cluster.state();
        let instance = Arc::clone(self.cluster.instance_name(key.instance));
        let container = state.describe(key);
        let span = trace::action(span, action, &service, &instance, &container, waited);
        let execution = execute(driver, operation, work, grace, Arc::clone(&self.shared));
        self.actions.spawn(execution.instrument(span));
        Some(ActionView {
            kind: action.kind(),
            service,
            instance,
            container,
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

    /// A rise beyond what can run at all is not followed.
    pub(super) fn limit_rises(&mut self, plan: &Plan) {
        for (service, planned) in self.cluster.state().service_ids().zip(&plan.services) {
            if let (Some(target), 1..) = (planned.target, planned.unmet) {
                self.reactions
                    .limited(self.cluster.service_name(service), target.saturating_sub(planned.unmet));
            }
        }
    }
}

/// Whether it is an end that nothing waits for.
///
/// A predecessor may have asked for a stop that goes on after its own end, and an engine may say `running` until that
/// is done: its successor sees one too many, and would stop a second one, which is wanted. So for as long as fill
/// waits after a start, stops wait that free no room for anything. An instance that holds more than it can waits for
/// nothing.
fn can_wait(action: &Action, plan: &Plan) -> bool {
    match action {
        // It is half of an eviction.
        Action::Freeze { reason: StopReason::Lends { to }, .. } => {
            let mut actions = plan.actions.iter();
            actions
                .any(|it| matches!(it, Action::Evict { .. }) && it.container() == *to && can_wait(it, plan))
        }
        Action::Evict { reason: StopReason::OverCapacity, .. }
        | Action::Kill { reason: StopReason::OverCapacity, .. } => false,
        Action::Stop {
            reason:
                StopReason::Surplus { .. }
                | StopReason::Share { .. }
                | StopReason::Draining
                | StopReason::Outdated
                | StopReason::Unhealthy,
            ..
        }
        | Action::Evict { .. }
        | Action::Kill { .. } => true,
        _ => false,
    }
}
