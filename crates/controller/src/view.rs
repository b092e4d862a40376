//! The view: the whole state at one moment, published once per pass of the loop.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use driver::ContainerId;
use planner::{
    Container, DemandNow, Fault, Freshness, InstanceId, InstanceState, Millis, Operation, Phase, Plan,
    Resources, ServiceId, ServiceKind, State, Success,
};

use crate::cluster::{Cluster, Known, Work};
use crate::engines::Standings;
use crate::prepare::Preparing;

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
    /// Why nothing can be planned yet: engines that have not been observed once. `None`: planning goes on.
    pub not_ready: Option<String>,
    /// Whether everything that is wanted runs.
    pub success: bool,
    /// Since when `success` has had its value.
    pub success_since: Millis,
    /// Codes of what is in the way of success, sorted; those of [`planner::NotDone::code`], `in_progress`, and
    /// `observing` until every engine has been observed or is lost, and one at least has been observed.
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
    /// Containers that have run, and do not count as running, because they are unhealthy.
    pub unhealthy: u32,
    /// Containers of an older generation, whatever their phase.
    pub outdated: u32,
    /// Milliseconds that its containers had worked, those in the freezer aside, when they were stopped or killed; since the
    /// controller's start. `None` for a service that follows a demand: it serves, and is measured by that.
    pub work_lost_ms: Option<u64>,
    /// The same when they were frozen to make room: what a stop would have lost.
    pub work_kept_ms: Option<u64>,
    /// Containers of the target that can't be run.
    pub unmet: u32,
    /// Codes of why, sorted; those of [`planner::NotDone::code`], and `in_progress` while its image is being checked.
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
    /// Why it is of no use, if so.
    pub fault: Option<Fault>,
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

/// What a view is made from, beside the one before.
pub(crate) struct Material<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) standings: &'a Standings,
    pub(crate) plan: &'a Plan,
    pub(crate) success: &'a Success,
    /// By service: a sentence on anything unusual.
    pub(crate) reasons: &'a HashMap<Arc<str>, String>,
    pub(crate) preparing: &'a Preparing,
    /// The instances whose containers may have changed.
    pub(crate) merged: &'a BTreeSet<InstanceId>,
    pub(crate) not_ready: Option<String>,
    pub(crate) draining: bool,
    pub(crate) work_ms: &'a HashMap<(Arc<str>, Work), u64>,
    pub(crate) reaction: LatencyView,
    pub(crate) reaction_preempting: LatencyView,
    pub(crate) start: LatencyView,
    pub(crate) stop: LatencyView,
}

impl View {
    /// Before anything is known.
    pub(crate) fn nothing_known(epoch: Arc<str>, cluster: Arc<str>, now: Millis) -> Self {
        Self {
            epoch,
            sequence: 0,
            taken_at: now,
            cluster,
            not_ready: Some("the controller is starting".to_owned()),
            success: false,
            success_since: now,
            blocked_by: vec!["observing"],
            capacity: Resources::ZERO,
            usable_capacity: Resources::ZERO,
            used: Resources::ZERO,
            services: Vec::new(),
            instances: Vec::new(),
            reaction: LatencyView::default(),
            reaction_preempting: LatencyView::default(),
            start: LatencyView::default(),
            stop: LatencyView::default(),
            draining: false,
        }
    }
}

/// How a container counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    Starting,
    Running,
    Unhealthy,
    Stopping,
    Frozen,
    Not,
}

fn counted(container: &Container) -> Counted {
    match (&container.operation, container.phase) {
        (Some(Operation::Remove), Phase::Created) | (_, Phase::Exited) => Counted::Not,
        (
            Some(Operation::Stop | Operation::Evict { .. } | Operation::Kill | Operation::Freeze),
            Phase::Starting | Phase::Running | Phase::Frozen,
        )
        | (_, Phase::Stopping) => Counted::Stopping,
        (_, Phase::Running) if container.is_unhealthy() => Counted::Unhealthy,
        (_, Phase::Running) => Counted::Running,
        (Some(Operation::Start { .. } | Operation::Thaw { .. }), _) | (_, Phase::Starting) => {
            Counted::Starting
        }
        (_, Phase::Frozen) => Counted::Frozen,
        (_, Phase::Created) => Counted::Not,
    }
}

/// The phase as shown: what the engine says, with what we are doing to it.
fn shown(container: &Container) -> Phase {
    match (&container.operation, counted(container)) {
        (_, Counted::Stopping) => Phase::Stopping,
        (Some(Operation::Start { after } | Operation::Thaw { after }), Counted::Starting)
            if after.is_empty() =>
        {
            Phase::Starting
        }
        _ => container.phase,
    }
}

fn takes(container: &Container, request: Resources) -> Resources {
    match shown(container) {
        // It is not resumed before it is lent room, or not at all.
        Phase::Stopping
            if container.phase == Phase::Frozen && container.operation != Some(Operation::Stop) =>
        {
            request.when_frozen()
        }
        Phase::Starting | Phase::Running | Phase::Stopping => request,
        Phase::Frozen => request.when_frozen(),
        Phase::Created | Phase::Exited => Resources::ZERO,
    }
}

fn count(cluster: &Cluster, service: ServiceId, which: &[Counted]) -> u32 {
    let state = cluster.state();
    let containers = state
        .containers()
        .filter(|container| container.key.service == service && which.contains(&counted(container)))
        .filter(|container| state.instance(container.key.instance).state != InstanceState::Lost);
    u32::try_from(containers.count()).unwrap_or(u32::MAX)
}

/// How many of a service's containers run and are to stay, lost instances aside.
pub(crate) fn running(cluster: &Cluster, service: ServiceId) -> u32 {
    count(cluster, service, &[Counted::Running])
}

/// How many of a service's containers are starting or running, lost instances aside.
pub(crate) fn have(cluster: &Cluster, service: ServiceId) -> u32 {
    count(cluster, service, &[Counted::Starting, Counted::Running])
}

/// A service's demand; `None` for one that fills.
pub(crate) fn demand(state: &State, service: ServiceId, now: Millis) -> Option<DemandNow> {
    (state.service(service).kind == ServiceKind::Demand).then(|| state.demand(service, now))
}

/// The view of this moment; `None` if it is no other than the one before.
pub(crate) fn build(material: &Material<'_>, before: &View, now: Millis) -> Option<View> {
    let Material { cluster, plan, success, .. } = *material;
    let state = cluster.state();
    let mut capacity = Resources::ZERO;
    let mut usable_capacity = Resources::ZERO;
    let mut used = Resources::ZERO;
    let mut instances = Vec::with_capacity(state.instances().len());
    for id in state.instance_ids() {
        let instance = instance_view(material, before, id);
        capacity = capacity.plus(instance.capacity);
        if instance.state == InstanceState::Ready {
            usable_capacity = usable_capacity.plus(instance.capacity);
        }
        if instance.state != InstanceState::Lost {
            used = used.plus(instance.used);
        }
        instances.push(instance);
    }
    let view = View {
        epoch: Arc::clone(&before.epoch),
        sequence: before.sequence,
        taken_at: before.taken_at,
        cluster: Arc::clone(&before.cluster),
        not_ready: material.not_ready.clone(),
        success: success.success,
        success_since: if success.success == before.success { before.success_since } else { now },
        blocked_by: material.preparing.blocked_by(state, plan, success),
        capacity,
        usable_capacity,
        used,
        services: service_views(material, plan, now),
        instances,
        reaction: material.reaction,
        reaction_preempting: material.reaction_preempting,
        start: material.start,
        stop: material.stop,
        draining: material.draining,
    };
    (view != *before).then(|| View { sequence: before.sequence + 1, taken_at: now, ..view })
}

fn instance_view(material: &Material<'_>, before: &View, id: InstanceId) -> Arc<InstanceView> {
    let cluster = material.cluster;
    let instance = cluster.state().instance(id);
    let standing = material.standings.get(&instance.name);
    let known = before.instances.binary_search_by(|other| (*other.name).cmp(&instance.name)).ok();
    let known = known.map(|at| &before.instances[at]);
    if let Some(known) = known
        && !material.merged.contains(&id)
        && known.capacity == instance.capacity
        && standing.is_some_and(|standing| {
            (standing.state, &standing.reason, standing.since) == (known.state, &known.reason, known.since)
        })
    {
        return Arc::clone(known);
    }
    let containers = cluster.containers_on(id);
    let used = containers.iter().fold(Resources::ZERO, |used, known| {
        let request = cluster.state().service(known.container.key.service).request;
        used.plus(takes(&known.container, request))
    });
    let view = InstanceView {
        name: Arc::clone(cluster.instance_name(id)),
        state: instance.state,
        reason: standing.and_then(|standing| standing.reason.clone()),
        since: standing.map_or(before.taken_at, |standing| standing.since),
        capacity: instance.capacity,
        used,
        containers: containers.iter().map(|known| container_view(cluster, known)).collect(),
        strays: cluster.strays(id).to_vec(),
    };
    match known {
        Some(known) if **known == view => Arc::clone(known),
        _ => Arc::new(view),
    }
}

fn container_view(cluster: &Cluster, known: &Known) -> ContainerView {
    let key = known.container.key;
    ContainerView {
        id: known.id.clone(),
        name: cluster.state().describe(key),
        service: Arc::clone(cluster.service_name(key.service)),
        ordinal: key.ordinal,
        phase: shown(&known.container),
        since: cluster.phase_since(known),
        outdated: known.container.outdated,
        fault: known.container.fault,
    }
}

fn service_views(material: &Material<'_>, plan: &Plan, now: Millis) -> Vec<ServiceView> {
    let cluster = material.cluster;
    let state = cluster.state();
    let mut views: Vec<ServiceView> = state
        .service_ids()
        .map(|id| {
            let service = state.service(id);
            let demand = demand(state, id, now);
            let planned = plan.services.get(id.index()).copied().unwrap_or_default();
            let name = cluster.service_name(id);
            let not_done = plan.not_done.iter().filter(|not_done| not_done.service() == id);
            let limited_by: BTreeSet<&'static str> =
                not_done.map(|not_done| material.preparing.code(not_done)).collect();
            let work_ms = |work| {
                let total_ms = material.work_ms.get(&(Arc::clone(name), work)).copied().unwrap_or_default();
                (service.kind == ServiceKind::Fill).then_some(total_ms)
            };
            ServiceView {
                name: Arc::clone(name),
                kind: service.kind,
                priority: service.priority,
                request: service.request,
                demand: demand.and_then(|demand| demand.containers),
                freshness: demand.map(|demand| demand.freshness),
                target: planned.target,
                starting: 0,
                running: 0,
                stopping: 0,
                frozen: 0,
                standby: 0,
                unhealthy: 0,
                outdated: 0,
                work_lost_ms: work_ms(Work::Lost),
                work_kept_ms: work_ms(Work::Kept),
                unmet: planned.unmet,
                limited_by: limited_by.into_iter().collect(),
                paused: service.paused,
                removed: service.removed,
                reason: material.reasons.get(name).cloned(),
            }
        })
        .collect();
    for instance in state.instance_ids().filter(|&id| state.instance(id).state != InstanceState::Lost) {
        let mut frozen_here: HashMap<ServiceId, u32> = HashMap::new();
        for container in state.containers_on(instance) {
            let view = &mut views[container.key.service.index()];
            view.outdated += u32::from(container.outdated && counted(container) != Counted::Not);
            match counted(container) {
                Counted::Starting => view.starting += 1,
                Counted::Running => view.running += 1,
                Counted::Unhealthy => view.unhealthy += 1,
                Counted::Stopping => view.stopping += 1,
                Counted::Frozen => *frozen_here.entry(container.key.service).or_default() += 1,
                Counted::Not => {}
            }
        }
        for (service, frozen) in frozen_here {
            let view = &mut views[service.index()];
            view.frozen += frozen;
            view.standby += frozen.min(state.service(service).standby_per_instance);
        }
    }
    views.sort_by(|a, b| (a.priority, &a.name).cmp(&(b.priority, &b.name)));
    views
}
