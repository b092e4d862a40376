//! The spans of a decision: what caused it, the decision, each of its actions. Whoever runs the controller may export
//! them; while nobody does they are disabled, and cost next to nothing.

use std::sync::Arc;

use planner::Action;
use tracing::field::Empty;
use tracing::{Span, info_span};

use crate::decisions::WokenBy;

/// Causes kept until the next decision. A pass follows each, so that more than one is rare; this is for a pass that is
/// held up.
const CAUSES_MAX: usize = 16;

/// What the loop has been told since its last pass that may make it decide.
#[derive(Default)]
pub(crate) struct Causes(Vec<Span>);

impl Causes {
    /// Something has been told within this span.
    pub(crate) fn add(&mut self, cause: Span) {
        if !cause.is_disabled() && self.0.len() < CAUSES_MAX {
            self.0.push(cause);
        }
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
            parent: self.0.last().and_then(Span::id),
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

/// The span of one action of a decision.
pub(crate) fn action(
    decision: &Span,
    action: &Action,
    service: &Arc<str>,
    instance: &Arc<str>,
    container: &str,
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
        force12.outcome = Empty,
        force12.error = Empty,
    )
}
