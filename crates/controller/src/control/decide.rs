//! A plan issued and recorded.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use planner::{Action, ContainerKey, Millis, Plan, ServiceId, StartReason, StopReason};

use super::Controller;
use crate::cluster::exit_words;
use crate::decisions::{ActionOutcome, ActionView, Decision, InputView, NotDoneView, WokenBy};
use crate::executor::{OperationId, execute};
use crate::handle::lock;
use crate::prepare::Preparing;
use crate::view;

/// Operations at once, those of unknown outcome included. Far over what any engine does side by side (drivers
/// queue), and a bound on the tasks of a plan that changes everything; the rest is planned again when some ended.
const OPERATIONS_MAX: usize = 4_096;

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

    pub(super) fn record(
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

    pub(super) fn issue(
        &mut self,
        action: &Action,
        decision: (u64, usize),
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
