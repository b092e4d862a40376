//! What a driver is told: which cluster, what is set aside, which limits.

use std::collections::BTreeSet;

/// What an [`crate::EcsDriver`] is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EcsConfig {
    /// Force12's own name of the cluster; part of the tasks' tags and of their `startedBy`.
    pub cluster: String,
    /// The ECS cluster, by name or ARN.
    pub ecs_cluster: String,
    /// The region; as the SDK finds it (environment, profile, instance metadata) if `None`.
    pub region: Option<String>,
    /// Where ECS answers, if not at AWS.
    pub endpoint_url: Option<String>,
    /// Places for containers on each instance.
    pub slots_per_instance: u64,
    /// What is set aside on each instance.
    pub reserve: Reserve,
    /// Which container instances are used, in ECS's cluster query language; all if `None`.
    pub instance_filter: Option<String>,
    /// The SQS queue into which EventBridge puts the cluster's events; none are heard if `None`.
    pub events_queue_url: Option<String>,
    /// Whether a start in a swap is always sent only when its victim has stopped. Otherwise it is sent while the victim
    /// stops, wherever the instance's agent holds it back by itself for as long as there is no room.
    pub stop_before_start: bool,
    /// The bounds of what is asked and waited for.
    pub limits: Limits,
}

/// What is set aside on each instance for tasks that are not ours to place. What others take is never ours, whether or not
/// it is set aside; this is for what is not always there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserve {
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Mebibytes of memory.
    pub memory_mib: u64,
}

/// The bounds of what is asked and waited for. All in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Between two looks at the container instances, and at each task definition. Default 30,000.
    pub refresh_ms: u64,
    /// Between two listings of the tasks, while no events tell of them. Default 5,000.
    pub poll_ms: u64,
    /// For how long a call without an answer may still take effect: the controller's `settle_ms`. Default 10,000.
    pub settle_ms: u64,
    /// For how long a start waits for its `after`. Default 60,000; it should exceed the longest stop.
    pub after_ms: u64,
    /// For how long a start waits for its task to run, once ECS has placed it. Default 45,000: the image may have to be
    /// pulled. What runs later is found all the same.
    pub start_ms: u64,
    /// For how long a stop waits for its task's end beyond the grace. Default 45,000.
    pub stop_ms: u64,
    /// For one call's answer. Default 5,000.
    pub call_ms: u64,
    /// For how long an observation may rest on what was last heard, while nothing can be heard. Default 10,000.
    pub silent_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            refresh_ms: 30_000,
            poll_ms: 5_000,
            settle_ms: 10_000,
            after_ms: 60_000,
            start_ms: 45_000,
            stop_ms: 45_000,
            call_ms: 5_000,
            silent_ms: 10_000,
        }
    }
}

/// What the configuration wants of the cluster: set again whenever its services change.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Task definitions, as configured: a family (its newest ACTIVE revision is meant), `family:revision`, or an ARN.
    pub task_definitions: BTreeSet<String>,
    /// The services of the most important priority, by name: a part of the quotas is kept for them.
    pub first: BTreeSet<String>,
}
