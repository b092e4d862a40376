//! Latencies: of reactions to rises in demand, of starts and of stops.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use hdrhistogram::Histogram;
use planner::Millis;

use crate::view::LatencyView;

/// The longest latency that is told from longer ones: an hour.
const LATENCY_MAX_MS: u64 = 3_600_000;

/// Rises of one service's demand that are followed at once; with more, the oldest is given up. A demand that rises
/// more often than this before the first rise is met is not being followed at all.
const RISES_MAX: usize = 64;

/// A distribution since the start.
pub(crate) struct Latency {
    histogram: Histogram<u64>,
    last_ms: Option<u64>,
}

impl Default for Latency {
    fn default() -> Self {
        let histogram = Histogram::new_with_bounds(1, LATENCY_MAX_MS, 2).expect("the bounds are constants");
        Self { histogram, last_ms: None }
    }
}

impl Latency {
    pub(crate) fn record(&mut self, ms: u64) {
        self.histogram.saturating_record(ms);
        self.last_ms = Some(ms);
    }

    pub(crate) fn view(&self) -> LatencyView {
        let quantile =
            |quantile| (!self.histogram.is_empty()).then(|| self.histogram.value_at_quantile(quantile));
        LatencyView {
            count: self.histogram.len(),
            p50_ms: quantile(0.5),
            p99_ms: quantile(0.99),
            last_ms: self.last_ms,
        }
    }
}

/// A rise in demand that is not met yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Rise {
    learnt_at: Millis,
    /// How many must run for it to be met.
    level: u32,
    /// Whether other work had to make room.
    preempting: bool,
}

/// Follows each rise in demand until the last container for it runs.
#[derive(Default)]
pub(crate) struct Reactions {
    rises: BTreeMap<Arc<str>, VecDeque<Rise>>,
    all: Latency,
    preempting: Latency,
}

impl Reactions {
    /// The target of a service went from `before` to `after`, as learnt at `learnt_at`, while `running` ran.
    pub(crate) fn changed(
        &mut self,
        service: &Arc<str>,
        before: u32,
        after: u32,
        running: u32,
        learnt_at: Millis,
    ) {
        let rises = self.rises.entry(Arc::clone(service)).or_default();
        // A demand that fell again before it was met was never reacted to.
        rises.retain(|rise| rise.level <= after);
        if after > before && running < after {
            if rises.len() == RISES_MAX {
                rises.pop_front();
            }
            rises.push_back(Rise { learnt_at, level: after, preempting: false });
        }
        if rises.is_empty() {
            self.rises.remove(service);
        }
    }

    /// The services with rises that are not met yet.
    pub(crate) fn followed(&self) -> Vec<Arc<str>> {
        self.rises.keys().cloned().collect()
    }

    /// Other work makes room for the service.
    pub(crate) fn preempts(&mut self, service: &Arc<str>) {
        for rise in self.rises.get_mut(service).into_iter().flatten() {
            rise.preempting = true;
        }
    }

    /// No more than `possible` of the service can run: what rose beyond that is not a matter of time.
    pub(crate) fn limited(&mut self, service: &Arc<str>, possible: u32) {
        if let Some(rises) = self.rises.get_mut(service) {
            rises.retain(|rise| rise.level <= possible);
        }
    }

    /// `running` of the service were reported to run at `at`.
    pub(crate) fn running(&mut self, service: &Arc<str>, running: u32, at: Millis) {
        let Some(rises) = self.rises.get_mut(service) else { return };
        rises.retain(|rise| {
            if rise.level > running {
                return true;
            }
            let took_ms = at.since(rise.learnt_at);
            self.all.record(took_ms);
            if rise.preempting {
                self.preempting.record(took_ms);
            }
            let preempting = if rise.preempting { "true" } else { "false" };
            #[expect(clippy::cast_precision_loss, reason = "latencies are far below 2^52 ms")]
            metrics::histogram!("force12_reaction_seconds", "preempting" => preempting)
                .record(took_ms as f64 / 1_000.0);
            false
        });
        if rises.is_empty() {
            self.rises.remove(service);
        }
    }

    pub(crate) fn all(&self) -> LatencyView {
        self.all.view()
    }

    pub(crate) fn preempting(&self) -> LatencyView {
        self.preempting.view()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rise_ends_when_its_last_container_runs() {
        let web: Arc<str> = "web".into();
        let mut reactions = Reactions::default();
        reactions.changed(&web, 4, 6, 4, Millis(1_000));
        reactions.changed(&web, 6, 7, 4, Millis(1_100));
        reactions.preempts(&web);
        reactions.running(&web, 5, Millis(1_150));
        assert_eq!(reactions.all().count, 0);
        reactions.running(&web, 6, Millis(1_200));
        assert_eq!(reactions.all().last_ms, Some(200));
        reactions.running(&web, 7, Millis(1_400));
        assert_eq!(reactions.all().last_ms, Some(300));
        assert_eq!(reactions.preempting().count, 2);
    }

    #[test]
    fn a_rise_that_cannot_be_met_or_is_taken_back_is_not_counted() {
        let web: Arc<str> = "web".into();
        let mut reactions = Reactions::default();
        reactions.changed(&web, 4, 12, 4, Millis(0));
        reactions.limited(&web, 9);
        reactions.changed(&web, 4, 9, 4, Millis(0));
        reactions.changed(&web, 9, 5, 4, Millis(10));
        reactions.running(&web, 9, Millis(100));
        assert_eq!(reactions.all().count, 0);
        // What ran already, for whatever reason, was not a reaction.
        reactions.changed(&web, 5, 9, 9, Millis(200));
        reactions.running(&web, 9, Millis(300));
        assert_eq!(reactions.all().count, 0);
    }
}
