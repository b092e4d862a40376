//! The snapshot: the whole state at one moment, as served to people.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;

/// The most containers that a snapshot on a stream lists; beyond it `containers` is empty and
/// `container_counts` still says how many there are.
pub const STREAM_CONTAINERS_MAX: usize = 1_000;

/// The whole state at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Snapshot {
    /// Changes with each start of the scheduler.
    pub epoch: String,
    /// Rises by one with each snapshot of an epoch.
    pub sequence: u64,
    /// When it was taken.
    pub taken_at: Timestamp,
    /// The cluster's name.
    pub cluster: String,
    /// Whether everything that is wanted runs; null where it is not known (status-api, while not live).
    pub success: Option<bool>,
    /// Since when `success` has had its value.
    pub success_since: Timestamp,
    /// Codes of what is in the way of success; empty on success.
    pub blocked_by: Vec<String>,
    /// The state in a sentence.
    pub summary: String,
    /// Of all instances.
    pub capacity: Resources,
    /// Of the ready instances.
    pub usable_capacity: Resources,
    /// What starting, running and stopping containers take of it.
    pub used: Resources,
    /// In order of priority, then name.
    pub services: Vec<ServiceSnapshot>,
    /// In order of name.
    pub instances: Vec<InstanceSnapshot>,
    /// From learning of a rise in demand to the engine's report that the last container for it runs.
    pub reaction: Latency,
    /// From asking for a start to the engine's report that it runs, victims' ends not counted.
    pub start: Latency,
    /// From asking for a stop to the engine's report that it has ended.
    pub stop: Latency,
    /// Added by status-api: whether the snapshot is live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
}

/// Whether status-api hears from the scheduler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Source {
    /// It does.
    pub live: bool,
    /// Since when `live` has had its value.
    pub since: Timestamp,
    /// Why it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A resource vector; a dimension that is not limited, or not asked for, is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resources {
    /// Places for containers.
    #[serde(default)]
    pub slots: u64,
    /// Thousandths of a CPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_millis: Option<u64>,
    /// Mebibytes of memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u64>,
}

/// Whether a service follows a demand or fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ServiceKind {
    /// Follows a demand.
    Demand,
    /// Takes all that is left.
    Fill,
}

/// How far a demand can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Freshness {
    /// Confirmed lately.
    Fresh,
    /// Not confirmed for too long; the last value, or a fallback, stands in.
    Stale,
    /// Not known.
    Unknown,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceSnapshot {
    /// Its name.
    pub name: String,
    /// Follows a demand, or fills.
    pub kind: ServiceKind,
    /// 1 is the most important.
    pub priority: u32,
    /// What one container takes.
    pub request: Resources,
    /// The containers wanted now; null if unknown, or for a service that fills.
    pub demand: Option<u32>,
    /// Of the demand; null for a service that fills.
    pub freshness: Option<Freshness>,
    /// clamp(demand, min, max); null for a service that fills.
    pub target: Option<u32>,
    /// Containers on their way to running.
    pub starting: u32,
    /// Containers that run.
    pub running: u32,
    /// Containers on their way out.
    pub stopping: u32,
    /// Frozen containers, standbys included.
    pub frozen: u32,
    /// Frozen containers that are kept ready for a rise in demand.
    pub standby: u32,
    /// Containers that have run and do not count as running any more, because they are unhealthy.
    #[serde(default)]
    pub unhealthy: u32,
    /// Containers of an older generation, which wait to be replaced; part of the counts above.
    #[serde(default)]
    pub outdated: u32,
    /// Milliseconds that its containers had worked, those in the freezer aside, when they were stopped or killed; since the
    /// scheduler's start. Null for a service that follows a demand.
    #[serde(default)]
    pub work_lost_ms: Option<u64>,
    /// The same when they were frozen to make room: what a stop would have lost.
    #[serde(default)]
    pub work_kept_ms: Option<u64>,
    /// Containers of the target that can't be run.
    pub unmet: u32,
    /// Codes of why; see `blocked_by`.
    pub limited_by: Vec<String>,
    /// Whether an operator has paused it.
    pub paused: bool,
    /// A sentence on anything unusual: why its demand is unknown, why its starts fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What may be done with an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    /// Starts and stops as planned.
    Ready,
    /// Nothing new starts there.
    Cordoned,
    /// Nothing new starts there, and what runs there is moved.
    Draining,
    /// Does not answer.
    Lost,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct InstanceSnapshot {
    /// Its name.
    pub name: String,
    /// What may be done with it.
    pub state: InstanceState,
    /// Why, unless it is ready, and anything unusual there.
    pub reason: Option<String>,
    /// Since when it has been in its state.
    pub since: Timestamp,
    /// What it has.
    pub capacity: Resources,
    /// What starting, running and stopping containers take of it.
    pub used: Resources,
    /// How many containers there are, also where `containers` is left empty.
    pub container_count: u32,
    /// In order of service and number. Empty on a stream when there are more than 1,000 in all.
    pub containers: Vec<ContainerSnapshot>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Created, not yet started.
    Created,
    /// On its way to running.
    Starting,
    /// Runs.
    Running,
    /// Suspended in place.
    Frozen,
    /// On its way out.
    Stopping,
    /// Ended.
    Exited,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ContainerSnapshot {
    /// The engine's id; empty while the engine has not given one.
    pub id: String,
    /// Its name, made of service, instance and number.
    pub name: String,
    /// The service that it is one of.
    pub service: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// Since when it has been in its phase.
    pub since: Timestamp,
    /// Whether it is of an older generation than its service.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub outdated: bool,
    /// Why it is of no use, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// Why a container that takes its room is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It has not become ready in time, and is being stopped.
    NotReady,
    /// It was ready and is no longer: it does not count as running, and is to be replaced.
    Unhealthy,
}

/// A distribution of latencies since the scheduler's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// The median.
    pub p50_ms: Option<u64>,
    /// The 99th percentile.
    pub p99_ms: Option<u64>,
    /// The last.
    pub last_ms: Option<u64>,
}
