//! Decisions: inputs, plan, reasons and outcome of each planning that did or refused something, in a ring.

use std::collections::VecDeque;
use std::sync::Arc;

use planner::{Freshness, Millis};

/// What woke the loop. A set, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WokenBy(u8);

impl WokenBy {
    /// A demand source said something new.
    pub const DEMAND: Self = Self(1);
    /// An engine was observed, lost or found.
    pub const ENGINE: Self = Self(2);
    /// An action ended.
    pub const ACTION: Self = Self(4);
    /// The settings changed.
    pub const CONFIG: Self = Self(8);
    /// An operator gave a command.
    pub const OPERATOR: Self = Self(16);
    /// A moment came that the planner or a backoff had named.
    pub const TIMER: Self = Self(32);

    const NAMES: [(Self, &'static str); 6] = [
        (Self::DEMAND, "demand"),
        (Self::ENGINE, "engine"),
        (Self::ACTION, "action"),
        (Self::CONFIG, "config"),
        (Self::OPERATOR, "operator"),
        (Self::TIMER, "timer"),
    ];

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether everything in `other` is in this.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The names: `demand`, `engine`, `action`, `config`, `operator`, `timer`.
    pub fn names(self) -> Vec<&'static str> {
        Self::NAMES.iter().filter(|(flag, _)| self.contains(*flag)).map(|&(_, name)| name).collect()
    }
}

/// Inputs, plan, reasons and outcome of one planning.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Rises by one with each decision of an epoch, from 1.
    pub sequence: u64,
    /// When it was taken.
    pub decided_at: Millis,
    /// What woke the loop.
    pub woken_by: WokenBy,
    /// Microseconds that planning took.
    pub plan_micros: u64,
    /// The whole in a sentence.
    pub summary: String,
    /// What was wanted, by service, in order of priority, then name.
    pub inputs: Vec<InputView>,
    /// What was done about it, in the order of issue.
    pub actions: Vec<ActionView>,
    /// What was not done, and why.
    pub not_done: Vec<NotDoneView>,
    /// The trace that shows how its actions went, if traces are exported.
    pub trace_id: Option<String>,
}

/// What was wanted of one service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputView {
    /// The service.
    pub service: Arc<str>,
    /// Its demand; `None` if unknown, or for a service that fills.
    pub demand: Option<u32>,
    /// Of the demand; `None` for a service that fills.
    pub freshness: Option<Freshness>,
    /// Its target; `None` for a service that fills.
    pub target: Option<u32>,
    /// How many were starting or running.
    pub have: u32,
}

/// One action of a decision, with what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionView {
    /// `start`, `thaw`, `stop`, `kill` (of a frozen one), `freeze` or `remove`.
    pub kind: &'static str,
    /// The service of the container.
    pub service: Arc<str>,
    /// The instance of the container.
    pub instance: Arc<str>,
    /// The container's name for people: `priority1/0 on instance-1`.
    pub container: String,
    /// The containers whose room it takes, by name.
    pub after: Vec<String>,
    /// The code of the reason.
    pub reason: &'static str,
    /// The action and its reason in words.
    pub words: String,
    /// What became of it.
    pub outcome: ActionOutcome,
    /// Milliseconds from the decision to its end; `None` while it is under way.
    pub took_ms: Option<u64>,
    /// The error, or how the container had ended.
    pub detail: Option<String>,
}

/// What became of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionOutcome {
    /// Under way.
    Pending,
    /// Done.
    Done,
    /// It was so already.
    Already,
    /// Failed; `detail` says why.
    Failed,
    /// The engine gave no clear answer; the next observation tells.
    Unknown,
}

/// Something that was not done, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotDoneView {
    /// The service that it is about.
    pub service: Arc<str>,
    /// The code of the reason.
    pub reason: &'static str,
    /// In words.
    pub words: String,
}

/// Which decisions are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DecisionQuery {
    /// Those that do, or do not do, something for this service.
    pub service: Option<String>,
    /// Those of a lower sequence.
    pub before: Option<u64>,
    /// At most this many.
    pub limit: usize,
}

impl Decision {
    fn entries(&self) -> usize {
        self.inputs.len() + self.actions.len() + self.not_done.len()
    }

    /// The whole in a sentence: how many of which actions for which services, and what was not done.
    pub(crate) fn summarize(actions: &[ActionView], not_done: &[NotDoneView]) -> String {
        let mut counts: Vec<((&str, &str), u32)> = Vec::new();
        for action in actions {
            let what = (action.kind, &*action.service);
            match counts.iter_mut().find(|(other, _)| *other == what) {
                Some((_, count)) => *count += 1,
                None => counts.push((what, 1)),
            }
        }
        let done = counts.iter().map(|((kind, service), count)| format!("{kind} {count} of {service}"));
        let sentences: Vec<String> =
            done.chain(not_done.iter().map(|not_done| not_done.words.clone())).collect();
        if sentences.is_empty() { "nothing is in the way any more".to_owned() } else { sentences.join("; ") }
    }
}

/// How many decisions are kept. A decision is a few hundred bytes to some tens of kilobytes (one of a cluster's
/// start); at a decision a second this is a quarter of an hour of "why?".
pub const DECISIONS_KEPT: usize = 1_000;

/// How many inputs, actions and reasons all the decisions that are kept may have together: at a few hundred bytes each,
/// some tens of megabytes. A decision that changes everything has thousands of them.
pub const DECISION_ENTRIES_KEPT: usize = 100_000;

/// The last decisions: at most [`DECISIONS_KEPT`], with at most [`DECISION_ENTRIES_KEPT`] entries, and the newest in any
/// case.
#[derive(Default)]
pub(crate) struct Ring {
    /// Sequences rise by one from front to back.
    decisions: VecDeque<Arc<Decision>>,
    /// Of all of them.
    entries: usize,
}

impl Ring {
    /// The sequence of the next decision.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.decisions.back().map_or(1, |last| last.sequence + 1)
    }

    /// Keeps a decision; the oldest make room for it.
    pub(crate) fn push(&mut self, decision: Decision) {
        self.entries += decision.entries();
        while self.decisions.len() >= DECISIONS_KEPT || self.entries > DECISION_ENTRIES_KEPT {
            let Some(oldest) = self.decisions.pop_front() else { break };
            self.entries -= oldest.entries();
        }
        self.decisions.push_back(Arc::new(decision));
    }

    /// Notes what became of an action: that of a decision's sequence, at its place in it. One of a decision that is
    /// no longer kept is forgotten.
    pub(crate) fn outcome(
        &mut self,
        (sequence, place): (u64, usize),
        outcome: ActionOutcome,
        now: Millis,
        detail: Option<String>,
    ) {
        let Ok(at) = self.decisions.binary_search_by_key(&sequence, |decision| decision.sequence) else {
            return;
        };
        let decision = Arc::make_mut(&mut self.decisions[at]);
        let took_ms = now.since(decision.decided_at);
        if let Some(action) = decision.actions.get_mut(place) {
            action.outcome = outcome;
            action.took_ms = Some(took_ms);
            if detail.is_some() {
                action.detail = detail;
            }
        }
    }

    /// The decisions asked for, newest first.
    pub(crate) fn query(&self, query: &DecisionQuery) -> Vec<Arc<Decision>> {
        let concerns = |decision: &Decision, service: &str| {
            decision.actions.iter().any(|action| &*action.service == service)
                || decision.not_done.iter().any(|not_done| &*not_done.service == service)
        };
        self.decisions
            .iter()
            .rev()
            .filter(|decision| query.before.is_none_or(|before| decision.sequence < before))
            .filter(|decision| query.service.as_ref().is_none_or(|service| concerns(decision, service)))
            .take(query.limit)
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(sequence: u64, service: &str) -> Decision {
        Decision {
            sequence,
            decided_at: Millis(1_000),
            woken_by: WokenBy::DEMAND.with(WokenBy::TIMER),
            plan_micros: 1,
            summary: String::new(),
            inputs: Vec::new(),
            actions: vec![ActionView {
                kind: "start",
                service: service.into(),
                instance: "one".into(),
                container: format!("{service}/0 on one"),
                after: Vec::new(),
                reason: "demand",
                words: String::new(),
                outcome: ActionOutcome::Pending,
                took_ms: None,
                detail: None,
            }],
            not_done: Vec::new(),
            trace_id: None,
        }
    }

    #[test]
    fn the_ring_keeps_the_newest_and_fills_in_outcomes() {
        let mut ring = Ring::default();
        for _ in 0..DECISIONS_KEPT + 5 {
            let sequence = ring.next_sequence();
            ring.push(decision(sequence, if sequence % 2 == 0 { "even" } else { "odd" }));
        }
        let limit = DECISIONS_KEPT * 2;
        let all = ring.query(&DecisionQuery { limit, ..DecisionQuery::default() });
        assert_eq!(all.len(), DECISIONS_KEPT);
        assert_eq!(all[0].sequence, 1_005);
        let query = DecisionQuery { service: Some("even".to_owned()), before: Some(1_000), limit: 2 };
        let some: Vec<u64> = ring.query(&query).iter().map(|decision| decision.sequence).collect();
        assert_eq!(some, [998, 996]);

        ring.outcome((998, 0), ActionOutcome::Failed, Millis(1_250), Some("no room".to_owned()));
        // Neither a decision that is gone nor a place that never was is an error.
        ring.outcome((1, 0), ActionOutcome::Done, Millis(1_250), None);
        ring.outcome((998, 7), ActionOutcome::Done, Millis(1_250), None);
        let action = ring.query(&query)[0].actions[0].clone();
        assert_eq!((action.outcome, action.took_ms), (ActionOutcome::Failed, Some(250)));
        assert_eq!(action.detail.as_deref(), Some("no room"));
        assert_eq!(all[7].actions[0].outcome, ActionOutcome::Pending, "who has read it keeps what was read");
    }

    #[test]
    fn large_decisions_push_more_out_than_small_ones() {
        let mut ring = Ring::default();
        let mut push = |actions: usize| {
            let action = decision(1, "web").actions.remove(0);
            let sequence = ring.next_sequence();
            ring.push(Decision { actions: vec![action; actions], ..decision(sequence, "web") });
            let kept = ring.query(&DecisionQuery { limit: usize::MAX, ..DecisionQuery::default() });
            kept.iter().map(|decision| decision.actions.len()).collect::<Vec<_>>()
        };
        let half = DECISION_ENTRIES_KEPT / 2;
        assert_eq!(push(half), [half]);
        assert_eq!(push(half), [half, half]);
        assert_eq!(push(1), [1, half]);
        assert_eq!(
            push(2 * DECISION_ENTRIES_KEPT),
            [2 * DECISION_ENTRIES_KEPT],
            "the newest is kept in any case"
        );
        assert_eq!(push(1), [1]);
    }

    #[test]
    fn a_summary_counts() {
        let actions: Vec<ActionView> =
            ["web", "web", "batch"].iter().flat_map(|service| decision(1, service).actions).collect();
        assert_eq!(Decision::summarize(&actions, &[]), "start 2 of web; start 1 of batch");
        assert_eq!(WokenBy::DEMAND.with(WokenBy::TIMER).names(), ["demand", "timer"]);
    }
}
