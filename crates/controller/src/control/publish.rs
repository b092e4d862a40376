//! What is known, published, once a pass.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use planner::{InstanceId, Millis, NotDone, Plan};
use tokio::time::Instant;

use super::Controller;
use crate::measure::measure;
use crate::prepare::Preparing;
use crate::view::{self, View};

impl Controller {
    pub(super) fn publish(
        &mut self,
        plan: &Plan,
        success: &planner::Success,
        preparing: &Preparing,
        merged: &BTreeSet<InstanceId>,
        now: Millis,
    ) {
        let before = Arc::clone(&self.views.borrow());
        self.count_time(&before);
        let reasons = self.reasons(plan, preparing, now);
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
            work_ms: &self.work_ms,
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
    fn reasons(&self, plan: &Plan, preparing: &Preparing, now: Millis) -> HashMap<Arc<str>, String> {
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
        }
        for (&service, wait) in &preparing.0 {
            add(&state.service(service).name, wait.reason.clone());
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
        for not_done in &plan.not_done {
            let name = &state.service(not_done.service()).name;
            match *not_done {
                NotDone::Unhealthy { count, .. } => {
                    add(name, format!("{count} of its containers are unhealthy"));
                }
                NotDone::RolloutNoRoom { count, .. } => add(
                    name,
                    format!(
                        "{count} containers of an older generation stay, for want of room for a successor"
                    ),
                ),
                _ => {}
            }
        }
        reasons
    }
}
