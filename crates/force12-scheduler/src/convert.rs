//! From the controller's words to the wire's.

use api_types::Timestamp;
use api_types::decision as wire;
use api_types::snapshot::{
    ContainerSnapshot, Fault, Freshness, InstanceSnapshot, InstanceState, Latency, Phase, Resources,
    ServiceKind, ServiceSnapshot, Snapshot,
};
use controller::{
    ActionOutcome, ActionView, ContainerView, Decision, InputView, InstanceView, LatencyView, NotDoneView,
    ServiceView, View,
};
use planner::Millis;

use crate::summary::summary;

/// The whole state.
pub fn snapshot(view: &View) -> Snapshot {
    Snapshot {
        epoch: view.epoch.to_string(),
        sequence: view.sequence,
        taken_at: timestamp(view.taken_at),
        cluster: view.cluster.to_string(),
        success: Some(view.success),
        success_since: timestamp(view.success_since),
        blocked_by: codes(&view.blocked_by),
        summary: summary(view),
        capacity: resources(view.capacity),
        usable_capacity: part(view.usable_capacity, view.capacity),
        used: part(view.used, view.capacity),
        services: view.services.iter().map(service).collect(),
        instances: view.instances.iter().map(|view| instance(view)).collect(),
        reaction: latency(view.reaction),
        start: latency(view.start),
        stop: latency(view.stop),
        source: None,
    }
}

/// One service.
pub fn service(view: &ServiceView) -> ServiceSnapshot {
    let reason = match (view.removed, &view.reason) {
        (true, None) => Some("no longer configured: what it runs is being stopped".to_owned()),
        (_, reason) => reason.clone(),
    };
    ServiceSnapshot {
        name: view.name.to_string(),
        kind: match view.kind {
            planner::ServiceKind::Demand => ServiceKind::Demand,
            planner::ServiceKind::Fill => ServiceKind::Fill,
        },
        priority: view.priority,
        request: request(view.request),
        demand: view.demand,
        freshness: view.freshness.map(freshness),
        target: view.target,
        starting: view.starting,
        running: view.running,
        stopping: view.stopping,
        frozen: view.frozen,
        standby: view.standby,
        unhealthy: view.unhealthy,
        outdated: view.outdated,
        work_lost_ms: view.work_lost_ms,
        work_kept_ms: view.work_kept_ms,
        unmet: view.unmet,
        limited_by: codes(&view.limited_by),
        paused: view.paused,
        reason,
    }
}

/// One instance, with its containers.
pub fn instance(view: &InstanceView) -> InstanceSnapshot {
    InstanceSnapshot {
        name: view.name.to_string(),
        state: match view.state {
            planner::InstanceState::Ready => InstanceState::Ready,
            planner::InstanceState::Cordoned => InstanceState::Cordoned,
            planner::InstanceState::Draining => InstanceState::Draining,
            planner::InstanceState::Lost => InstanceState::Lost,
        },
        reason: instance_reason(view),
        since: timestamp(view.since),
        capacity: resources(view.capacity),
        used: part(view.used, view.capacity),
        container_count: count(view.containers.len()),
        containers: view.containers.iter().map(container).collect(),
    }
}

/// Why it is in its state, and what else is unusual there.
fn instance_reason(view: &InstanceView) -> Option<String> {
    let strays = match view.strays.as_slice() {
        [] => return view.reason.clone(),
        [one] => format!("container {one} is on its engine and says that it is on an instance"),
        many => format!("{} containers are on its engine and say that they are on an instance", many.len()),
    };
    let strays =
        format!("{strays} which is not configured there; configure it, or remove what is left of it");
    Some(view.reason.iter().cloned().chain([strays]).collect::<Vec<_>>().join("; "))
}

/// One decision.
pub fn decision(epoch: &str, decision: &Decision) -> wire::Decision {
    wire::Decision {
        epoch: epoch.to_owned(),
        sequence: decision.sequence,
        decided_at: timestamp(decision.decided_at),
        woken_by: codes(&decision.woken_by.names()),
        // A plan of 2^52 microseconds would be one of 142 years.
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^52 microseconds")]
        plan_ms: decision.plan_micros as f64 / 1_000.0,
        summary: decision.summary.clone(),
        inputs: decision.inputs.iter().map(input).collect(),
        actions: decision.actions.iter().map(action).collect(),
        not_done: decision.not_done.iter().map(not_done).collect(),
        trace_id: decision.trace_id.clone(),
    }
}

fn container(view: &ContainerView) -> ContainerSnapshot {
    ContainerSnapshot {
        id: view.id.as_ref().map(|id| id.as_str().to_owned()).unwrap_or_default(),
        name: view.name.clone(),
        service: view.service.to_string(),
        phase: match view.phase {
            planner::Phase::Created => Phase::Created,
            planner::Phase::Starting => Phase::Starting,
            planner::Phase::Running => Phase::Running,
            planner::Phase::Frozen => Phase::Frozen,
            planner::Phase::Stopping => Phase::Stopping,
            planner::Phase::Exited => Phase::Exited,
        },
        since: timestamp(view.since),
        outdated: view.outdated,
        fault: view.fault.map(|fault| match fault {
            planner::Fault::NotReady => Fault::NotReady,
            planner::Fault::Unhealthy => Fault::Unhealthy,
        }),
    }
}

fn input(view: &InputView) -> wire::DecisionInput {
    wire::DecisionInput {
        service: view.service.to_string(),
        demand: view.demand,
        freshness: view.freshness.map(freshness),
        target: view.target,
        have: view.have,
    }
}

fn action(view: &ActionView) -> wire::DecisionAction {
    wire::DecisionAction {
        action: view.kind.to_owned(),
        service: view.service.to_string(),
        instance: view.instance.to_string(),
        container: view.container.clone(),
        after: view.after.clone(),
        reason: view.reason.to_owned(),
        words: view.words.clone(),
        outcome: match view.outcome {
            ActionOutcome::Pending => wire::ActionOutcome::Pending,
            ActionOutcome::Done => wire::ActionOutcome::Done,
            ActionOutcome::Already => wire::ActionOutcome::Already,
            ActionOutcome::Failed => wire::ActionOutcome::Failed,
            ActionOutcome::Unknown => wire::ActionOutcome::Unknown,
        },
        took_ms: view.took_ms,
        detail: view.detail.clone(),
    }
}

fn not_done(view: &NotDoneView) -> wire::DecisionNotDone {
    wire::DecisionNotDone {
        service: view.service.to_string(),
        reason: view.reason.to_owned(),
        words: view.words.clone(),
    }
}

/// A part of a capacity: a dimension in which that has no limit is left out.
fn part(part: planner::Resources, capacity: planner::Resources) -> Resources {
    let counted = |part, capacity| (capacity != planner::Resources::UNLIMITED).then_some(part);
    Resources {
        slots: part.slots,
        cpu_millis: counted(part.cpu_millis, capacity.cpu_millis),
        memory_mib: counted(part.memory_mib, capacity.memory_mib),
    }
}

/// A capacity: a dimension without a limit is left out.
fn resources(resources: planner::Resources) -> Resources {
    let limited = |value| (value != planner::Resources::UNLIMITED).then_some(value);
    Resources {
        slots: resources.slots,
        cpu_millis: limited(resources.cpu_millis),
        memory_mib: limited(resources.memory_mib),
    }
}

/// A request: what is not asked for is left out.
fn request(request: planner::Resources) -> Resources {
    let asked = |value: u64| (value > 0).then_some(value);
    Resources {
        slots: request.slots,
        cpu_millis: asked(request.cpu_millis),
        memory_mib: asked(request.memory_mib),
    }
}

fn latency(view: LatencyView) -> Latency {
    Latency { count: view.count, p50_ms: view.p50_ms, p99_ms: view.p99_ms, last_ms: view.last_ms }
}

fn freshness(freshness: planner::Freshness) -> Freshness {
    match freshness {
        planner::Freshness::Fresh => Freshness::Fresh,
        planner::Freshness::Stale => Freshness::Stale,
        planner::Freshness::Unknown => Freshness::Unknown,
    }
}

fn timestamp(moment: Millis) -> Timestamp {
    Timestamp::from_epoch_ms(moment.0)
}

fn codes(codes: &[&'static str]) -> Vec<String> {
    codes.iter().map(|&code| code.to_owned()).collect()
}

fn count(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}
