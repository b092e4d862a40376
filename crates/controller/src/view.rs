//! The view: the whole state at one moment, published once per pass of the loop.

use std::sync::Arc;

use driver::ContainerId;
use planner::{Freshness, InstanceState, Millis, Phase, Resources, ServiceKind};

/// The whole state at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    /// Changes with each start of the controller; given to it.
    pub epoch: Arc<str>,
    /// Rises by one with each view that differs from the one before.
    pub sequence: u64,
    /// When it was taken.
    pub taken_at: Millis,
    /// The cluster's name.
    pub cluster: Arc<str>,
    /// Why nothing can be planned yet: an engine that has not been observed once. `None`: planning goes on.
    pub not_ready: Option<String>,
    /// Whether everything that is wanted runs.
    pub success: bool,
    /// Since when `success` has had its value.
    pub success_since: Millis,
    /// Codes of what is in the way of success, sorted; those of [`planner::NotDone::code`], `in_progress`, and
    /// `observing` until every engine has been observed once.
    pub blocked_by: Vec<&'static str>,
    /// Of all instances.
    pub capacity: Resources,
    /// Of the ready instances.
    pub usable_capacity: Resources,
    /// What starting, running and stopping containers take of it, lost instances aside.
    pub used: Resources,
    /// In order of priority, then name.
    pub services: Vec<ServiceView>,
    /// In order of name. An instance that did not change is the same `Arc` as in the view before.
    pub instances: Vec<Arc<InstanceView>>,
    /// From learning of a rise in demand to the report that the last container for it runs.
    pub reaction: LatencyView,
    /// The same, of those rises alone for which other work had to make room.
    pub reaction_preempting: LatencyView,
    /// From asking for a start to the report that it runs, victims' ends not counted.
    pub start: LatencyView,
    /// From asking for a stop to the report that it has ended.
    pub stop: LatencyView,
    /// Whether everything is being stopped ([`crate::Handle::drain_all`]).
    pub draining: bool,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Its name.
    pub name: Arc<str>,
    /// Follows a demand, or fills.
    pub kind: ServiceKind,
    /// 1 is the most important.
    pub priority: u32,
    /// What one container takes.
    pub request: Resources,
    /// The demand in force; `None` if unknown, or for a service that fills.
    pub demand: Option<u32>,
    /// Of the demand; `None` for a service that fills.
    pub freshness: Option<Freshness>,
    /// clamp(demand, min, max); `None` for a service that fills.
    pub target: Option<u32>,
    /// Containers on their way to running; those that wait for room count.
    pub starting: u32,
    /// Containers that run and are not on their way out. Lost instances aside, as in all these counts.
    pub running: u32,
    /// Containers on their way out.
    pub stopping: u32,
    /// Frozen containers, standbys included.
    pub frozen: u32,
    /// Frozen containers that are kept ready for a rise in demand.
    pub standby: u32,
    /// Containers of the target that can't be run.
    pub unmet: u32,
    /// Codes of why, sorted; those of [`planner::NotDone::code`].
    pub limited_by: Vec<&'static str>,
    /// Whether an operator or the configuration has paused it.
    pub paused: bool,
    /// Whether it is no longer configured, and what it still runs is surplus.
    pub removed: bool,
    /// A sentence on anything unusual: why its demand is unknown or stale, why its starts fail.
    pub reason: Option<String>,
}

/// One instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceView {
    /// Its name.
    pub name: Arc<str>,
    /// What may be done with it.
    pub state: InstanceState,
    /// Why, unless it is ready.
    pub reason: Option<String>,
    /// Since when it has been in its state.
    pub since: Millis,
    /// What it has.
    pub capacity: Resources,
    /// What starting, running and stopping containers take of it.
    pub used: Resources,
    /// In order of service and number.
    pub containers: Vec<ContainerView>,
    /// Containers of our cluster, by engine id, that say they are on an instance which is not configured; reported
    /// at the first instance of their engine, and never touched.
    pub strays: Vec<ContainerId>,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerView {
    /// The engine's id; `None` while the engine has not given one.
    pub id: Option<ContainerId>,
    /// Its name for people: `priority1/0 on instance-1`.
    pub name: String,
    /// Its service.
    pub service: Arc<str>,
    /// Its number among the service's containers on the instance.
    pub ordinal: u32,
    /// Where it is in its life; one that is being stopped is `Stopping`, one that is being started is `Starting`,
    /// or `Created` while it waits for room.
    pub phase: Phase,
    /// Since when it has been in its phase, as far as the controller knows.
    pub since: Millis,
    /// Whether it is of an older generation than its service.
    pub outdated: bool,
}

/// A distribution of latencies since the controller's start. Percentiles are within 1 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LatencyView {
    /// How many were measured.
    pub count: u64,
    /// The median.
    pub p50_ms: Option<u64>,
    /// The 99th percentile.
    pub p99_ms: Option<u64>,
    /// The last.
    pub last_ms: Option<u64>,
}
