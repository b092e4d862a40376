//! Getting to know what is there, once, before anything is planned.

use std::time::Duration;

use planner::{Action, Millis, Plan, RemoveReason};

use super::Controller;
use super::decide::Issued;
use crate::decisions::WokenBy;
use crate::handle::lock;
use crate::prepare::Preparing;

/// How far the loop is in getting to know what is there, once, before it plans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Adoption {
    /// Not every engine has been observed or is lost, or all of them are.
    Observing,
    /// What was found half made has been told to go.
    Clearing {
        /// No longer than until then: an engine may have hung meanwhile.
        until: Millis,
    },
    /// Everything that runs is known, as far as engines answer: planning goes on.
    Done,
}

impl Controller {
    /// Gets to know what is there before anything is planned, once: every engine has been observed or is lost, one at
    /// least has been observed, and what a predecessor has left half made is told from what it has begun to start.
    ///
    /// An engine may say of a container that it starts that it is created, and that takes no room. A predecessor's
    /// start may be on its way like that; its successor would fill the room that it is about to take. Removing it
    /// is the one question with a clear answer: what is not being started goes, and what is being started stays.
    pub(super) fn adopt(&mut self, woken_by: WokenBy, now: Millis) {
        if self.not_observed().is_some() {
            return;
        }
        let half_made = match self.adoption {
            Adoption::Observing => self.cluster.half_made(),
            Adoption::Clearing { .. } | Adoption::Done => Vec::new(),
        };
        let until = match self.adoption {
            Adoption::Clearing { until } => until,
            // As long as fill waits after a start.
            Adoption::Observing | Adoption::Done => now.plus(self.settings.start_hold_ms),
        };
        if !half_made.is_empty() {
            let sequence = lock(&self.shared.decisions).next_sequence();
            let span = self.decision_span(sequence, woken_by, 0);
            let mut issued = Issued { actions: Vec::new(), span };
            let settled_at = now.plus(self.settings.settle_ms);
            for container in half_made {
                // Until the engine has answered, the worst is assumed.
                self.cluster.may_be_starting(container, settled_at);
                let action = Action::Remove { container, reason: RemoveReason::NeverStarted };
                let place = (sequence, issued.actions.len());
                issued.actions.extend(self.issue(&action, place, &issued.span, Duration::ZERO, now));
            }
            self.record(woken_by, 0, issued, &Plan::default(), &Preparing::default(), now);
        }
        let over = self.cluster.under_way() == 0 || now >= until;
        self.adoption = if over { Adoption::Done } else { Adoption::Clearing { until } };
    }

    /// Why nothing can be planned yet.
    pub(super) fn not_ready(&self) -> Option<String> {
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
}
