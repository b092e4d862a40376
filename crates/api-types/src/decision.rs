//! Decisions: the answer to "why?".

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::snapshot::Freshness;

/// The most decisions that one answer holds.
pub const DECISIONS_LIMIT_MAX: usize = 500;

/// Some decisions, newest first: `GET /v1/decisions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Decisions {
    /// Newest first.
    pub decisions: Vec<Decision>,
    /// Pass it as `before` for the next, older ones; null when there are none.
    pub next_before: Option<u64>,
}

/// Inputs, plan, reasons and outcome of one planning.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Decision {
    /// Changes with each start of the scheduler.
    pub epoch: String,
    /// Rises by one with each decision of an epoch.
    pub sequence: u64,
    /// When it was taken.
    pub decided_at: Timestamp,
    /// What woke the scheduler: `demand`, `engine`, `action`, `config`, `operator`, `timer`.
    pub woken_by: Vec<String>,
    /// Milliseconds that planning took.
    pub plan_ms: f64,
    /// The whole in a sentence.
    pub summary: String,
    /// What was wanted, by service.
    pub inputs: Vec<DecisionInput>,
    /// What was done about it.
    pub actions: Vec<DecisionAction>,
    /// What was not done, and why.
    pub not_done: Vec<DecisionNotDone>,
    /// The trace that shows how its actions went, in hex; only if it did something, and traces are exported.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<String>,
}

/// What was wanted of one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DecisionInput {
    /// The service.
    pub service: String,
    /// Its demand; null if unknown, or for a service that fills.
    pub demand: Option<u32>,
    /// Of the demand; null for a service that fills.
    pub freshness: Option<Freshness>,
    /// Its target; null for a service that fills.
    pub target: Option<u32>,
    /// How many were starting or running.
    pub have: u32,
}

/// One action of a decision, with what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DecisionAction {
    /// `start`, `thaw`, `stop`, `kill` (of a frozen one), `freeze` or `remove`.
    pub action: String,
    /// The service of the container.
    pub service: String,
    /// The instance of the container.
    pub instance: String,
    /// Which container: `priority1/0 on instance-1` is the one of that service with that number there.
    pub container: String,
    /// The containers whose room it takes.
    pub after: Vec<String>,
    /// The code of the reason.
    pub reason: String,
    /// The reason in words.
    pub words: String,
    /// What became of it.
    pub outcome: ActionOutcome,
    /// Milliseconds from the decision to its end; null while it is under way.
    pub took_ms: Option<u64>,
    /// The error, or how the container had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// What became of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DecisionNotDone {
    /// The service that it is about.
    pub service: String,
    /// The code of the reason.
    pub reason: String,
    /// In words.
    pub words: String,
}
