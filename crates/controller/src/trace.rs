//! The spans of a decision: what caused it, the decision, each of its actions. Whoever runs the controller may export
//! them; while nobody does they are disabled, and cost next to nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use planner::Action;
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::decisions::WokenBy;

/// Causes kept until the next decision, the newest. A pass follows each, so that more than one is rare; this is for a pass
/// that is held up.
const CAUSES_MAX: usize = 16;

/// What the loop has been told since its last pass that may make it decide.
#[derive(Default)]
pub(crate) struct Causes(VecDeque<Span>);

impl Causes {
    /// Something has been told within this span.
    pub(crate) fn add(&mut self, cause: Span) {
        if cause.is_disabled() {
            return;
        }
        if self.0.len() == CAUSES_MAX {
            self.0.pop_front();
        }
        self.0.push_back(cause);
    }

    /// What came of them, or nothing, is known.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The span of a decision: a part of the trace of its newest cause, with links to the others'; a trace of its own
    /// without any.
    ///
    /// It is never entered: it lasts until the last of its actions has ended.
    pub(crate) fn decision(
        &self,
        cluster: &str,
        epoch: &str,
        sequence: u64,
        woken_by: WokenBy,
        plan_micros: u64,
    ) -> Span {
        let span = info_span!(
            parent: self.0.back().and_then(Span::id),
            "decision",
            force12.cluster = cluster,
            force12.epoch = epoch,
            force12.sequence = sequence,
            force12.woken_by = woken_by.names().join(","),
            force12.plan_us = plan_micros,
            force12.actions = Empty,
            force12.not_done = Empty,
            force12.summary = Empty,
        );
        for cause in self.0.iter().rev().skip(1) {
            span.follows_from(cause);
        }
        span
    }
}

/// The span of one action of a decision, which has waited so long for its turn at the engine.
pub(crate) fn action(
    decision: &Span,
    action: &Action,
    service: &Arc<str>,
    instance: &Arc<str>,
    container: &str,
    waited: Duration,
) -> Span {
    info_span!(
        parent: decision,
        "action",
        otel.name = format!("{} {service}", action.kind()),
        otel.status_code = Empty,
        force12.action = action.kind(),
        force12.service = &**service,
        force12.instance = &**instance,
        force12.container = container,
        force12.reason = action.reason_code(),
        force12.waited_ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX),
        force12.outcome = Empty,
        force12.error = Empty,
    )
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::Subscriber;
    use tracing::span::{Attributes, Id};
    use tracing_subscriber::Layer;
    use tracing_subscriber::layer::{Context, SubscriberExt as _};
    use tracing_subscriber::registry::LookupSpan;

    use super::*;

    /// Notes which spans are made, within which, and what they follow from.
    #[derive(Clone, Default)]
    struct Notes(Arc<Mutex<Vec<String>>>);

    impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Notes {
        fn on_new_span(&self, _: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
            let span = context.span(id).unwrap();
            let parent = span.parent().map_or("nothing", |parent| parent.name());
            self.0.lock().unwrap().push(format!("{} within {parent}", span.name()));
        }

        fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
            let name = |id| context.span(id).unwrap().name();
            self.0.lock().unwrap().push(format!("{} follows from {}", name(id), name(follows)));
        }
    }

    #[test]
    fn a_decision_is_within_its_newest_cause_and_follows_from_the_others() {
        let notes = Notes::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(notes.clone()), || {
            let mut causes = Causes::default();
            let decide = |causes: &Causes| causes.decision("demo", "9c2e", 1, WokenBy::DEMAND, 20);
            drop(decide(&causes));
            causes.add(info_span!("first"));
            causes.add(Span::none());
            causes.add(info_span!("second"));
            drop(decide(&causes));
            causes.clear();
            drop(decide(&causes));
        });
        let notes = notes.0.lock().unwrap();
        assert_eq!(
            notes[..],
            [
                "decision within nothing",
                "first within nothing",
                "second within nothing",
                "decision within second",
                "decision follows from first",
                "decision within nothing",
            ]
        );
    }

    #[test]
    fn of_too_many_causes_the_oldest_is_forgotten() {
        let notes = Notes::default();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(notes.clone()), || {
            let mut causes = Causes::default();
            causes.add(info_span!("oldest"));
            (1..CAUSES_MAX).for_each(|_| causes.add(info_span!("old")));
            causes.add(info_span!("newest"));
            drop(causes.decision("demo", "9c2e", 1, WokenBy::DEMAND, 20));
        });
        let notes = notes.0.lock().unwrap();
        assert!(notes.contains(&"decision within newest".to_owned()), "{notes:?}");
        assert!(!notes.contains(&"decision follows from oldest".to_owned()), "{notes:?}");
    }
}
