//! What always holds, as checks: of a state, of a plan, and of the state that a plan leads to.
//!
//! The numbers are those of the properties in ARCHITECTURE.md. Each check says what it found in words; tests
//! and simulations call them after every step.

use std::collections::BTreeSet;

use crate::model::{
    Container, ContainerKey, InstanceId, InstanceState, Millis, Operation, Overlap, Phase, Resources,
    Service, ServiceId, ServiceKind,
};
use crate::plan::{Action, Plan};
use crate::reasons::StopReason;
use crate::standing::Standing;
use crate::state::State;

/// What the containers of an instance take of it right now.
pub fn taken(state: &State, instance: InstanceId) -> Resources {
    state.containers_on(instance).iter().fold(Resources::ZERO, |sum, container| {
        sum.plus(container.takes(standing(state, container), state.service(container.key.service).request))
    })
}

/// How a container stands in its state.
pub fn standing(state: &State, container: &Container) -> Standing {
    container.standing(|key| state.container(key).is_none_or(Container::has_left))
}

/// Property 1: no instance that answers holds more than its capacity.
pub fn capacity(state: &State) -> Result<(), String> {
    for id in state.instance_ids() {
        let instance = state.instance(id);
        if instance.state != InstanceState::Lost && !is_within_capacity(state, id) {
            let taken = taken(state, id);
            return Err(format!("{} holds {taken:?} of {:?}", instance.name, instance.capacity));
        }
    }
    Ok(())
}

/// Whether an instance holds no more than its capacity. What is being frozen may stand beside containers that overlap:
/// so far, and never in memory, slots and CPU may be taken twice.
pub fn is_within_capacity(state: &State, id: InstanceId) -> bool {
    let (mut freezing, mut overlapping) = (Resources::ZERO, Resources::ZERO);
    for container in state.containers_on(id) {
        let service = state.service(container.key.service);
        let room = service.request.minus(service.request.when_frozen());
        let standing = standing(state, container);
        if standing == Standing::Leaving && container.operation == Some(Operation::Freeze) {
            freezing = freezing.plus(room);
        }
        if service.overlap == Overlap::Swap
            && matches!(standing, Standing::Settled | Standing::Busy | Standing::Leaving)
        {
            overlapping = overlapping.plus(room);
        }
    }
    let twice = freezing.cut_to(overlapping);
    taken(state, id).fits(state.instance(id).capacity.plus(twice))
}

/// What must hold of any plan, made from any state: it acts once on a container and never on one that is
/// acted upon already; it touches nothing that is lost; it preempts only for more important work and only
/// takes from an equal by share; a start waits only for what leaves.
pub fn plan(state: &State, plan: &Plan) -> Result<(), String> {
    let mut seen: BTreeSet<ContainerKey> = BTreeSet::new();
    let mut leaving: BTreeSet<ContainerKey> = state
        .containers()
        .filter(|container| matches!(standing(state, container), Standing::Leaving | Standing::Ending))
        .map(|container| container.key)
        .collect();
    let mut frozen: BTreeSet<ContainerKey> = BTreeSet::new();
    let is_frozen = |it: Option<&Container>| it.is_some_and(|container| container.phase == Phase::Frozen);
    for action in &plan.actions {
        let key = action.container();
        let words = action.words(state);
        if !seen.insert(key) {
            return Err(format!("two actions on one container: {words}"));
        }
        if state.instance(key.instance).state == InstanceState::Lost {
            return Err(format!("acts on a lost instance: {words}"));
        }
        let existing = state.container(key);
        if existing.is_some_and(|container| container.operation.is_some()) {
            return Err(format!("acts on what is acted upon: {words}"));
        }
        match action {
            Action::Stop { reason, .. } | Action::Freeze { reason, .. } => {
                let victim = state.service(key.service);
                let allowed = match *reason {
                    StopReason::Preempted { by } => state.service(by).priority < victim.priority,
                    StopReason::Share { by } => {
                        state.service(by).priority == victim.priority && by != key.service
                    }
                    _ => true,
                };
                if existing.is_none() || !allowed {
                    return Err(format!("stops what it must not: {words}"));
                }
                leaving.insert(key);
                if matches!(action, Action::Freeze { .. }) {
                    frozen.insert(key);
                }
            }
            Action::Start { after, beside, .. } | Action::Thaw { after, beside, .. } => {
                let overlaps = state.service(key.service).overlap == Overlap::Swap;
                if beside
                    .iter()
                    .any(|other| !overlaps || !frozen.contains(other) || other.instance != key.instance)
                {
                    return Err(format!("does not wait for what it should: {words}"));
                }
                if state.instance(key.instance).state != InstanceState::Ready {
                    return Err(format!("starts where it must not: {words}"));
                }
                if after.iter().any(|other| !leaving.contains(other) || other.instance != key.instance) {
                    return Err(format!("waits for what does not leave: {words}"));
                }
            }
            Action::Evict { after, .. } => {
                let lent = after.iter().all(|lender| {
                    frozen.contains(lender)
                        && (lender.instance, lender.service) == (key.instance, key.service)
                });
                if after.is_empty() || !lent || !is_frozen(existing) {
                    return Err(format!("evicts what it must not: {words}"));
                }
            }
            Action::Kill { .. } => {
                if !is_frozen(existing) {
                    return Err(format!("kills what it must not: {words}"));
                }
            }
            Action::Remove { .. } => {}
        }
    }
    Ok(())
}

/// Property 3, of a state in which nothing is under way: no service has more than its target, and one that has
/// less could not run one more on any ready instance, were everything less important out of the way.
///
/// Says nothing of services that are paused, backing off, of unknown demand, or that share their priority.
pub fn demand_met(state: &State, plan: &Plan, now: Millis) -> Result<(), String> {
    for id in state.service_ids() {
        let service = state.service(id);
        let Some(target) = plan.service(id).target else { continue };
        let alone = state.services().iter().filter(|other| other.priority == service.priority).count() == 1;
        let held = service.paused || state.backoffs().iter().any(|b| b.service == id && b.until > now);
        let unknown = state.demand(id, now).containers.is_none();
        let have = running(state, id);
        if !alone || held || unknown || service.removed {
            continue;
        }
        if have > target.saturating_add(on_trial(state, id, now)) {
            return Err(format!("{} runs {have} of {target}", service.name));
        }
        for instance in state.instance_ids() {
            let room = room_for(state, instance, service);
            if have < target
                && state.instance(instance).state == InstanceState::Ready
                && service.request.fits(room)
            {
                let name = &state.instance(instance).name;
                return Err(format!("{} runs {have} of {target}, and {name} has room for it", service.name));
            }
        }
    }
    Ok(())
}

/// How many a service may have beside its target while a new generation of it is on trial: one, or the successors of
/// what is on draining instances.
fn on_trial(state: &State, id: ServiceId, now: Millis) -> u32 {
    let proven_after_ms = state.service(id).proven_after_ms;
    let all = || state.containers().filter(|container| container.key.service == id);
    let trial = |it: &Container| !it.outdated && it.runs() && now.since(it.since) < proven_after_ms;
    if !all().any(|it| it.outdated) || !all().any(trial) {
        return 0;
    }
    let draining = all().filter(|it| state.instance(it.key.instance).state == InstanceState::Draining);
    u32::try_from(draining.count()).unwrap_or(u32::MAX).max(1)
}

/// Of a rollout: an outdated container of a service that has a priority to itself goes only while as many as its
/// target run without it. (Frozen ones aside.)
pub fn rollout(state: &State, plan: &Plan, now: Millis) -> Result<(), String> {
    for id in state.service_ids() {
        let Some(target) = plan.service(id).target else { continue };
        let priority = state.service(id).priority;
        let alone = state.services().iter().filter(|other| other.priority == priority).count() == 1;
        let leaves = |key: ContainerKey| {
            plan.actions.iter().any(|action| {
                action.container() == key && matches!(action, Action::Stop { .. } | Action::Freeze { .. })
            })
        };
        let goes = plan.actions.iter().any(|action| {
            matches!(action, Action::Stop { container, reason: StopReason::Outdated }
                if container.service == id && state.container(*container).is_some_and(Container::runs))
        });
        if !goes || !alone || state.demand(id, now).containers.is_none() {
            continue;
        }
        let left = state.containers().filter(|container| {
            container.key.service == id
                && container.runs()
                && state.instance(container.key.instance).state != InstanceState::Lost
                && matches!(standing(state, container), Standing::Settled | Standing::Busy)
                && !leaves(container.key)
        });
        if u32::try_from(left.count()).unwrap_or(u32::MAX) < target {
            let name = &state.service(id).name;
            return Err(format!("an outdated container of {name} goes, and fewer than {target} are left"));
        }
    }
    Ok(())
}

/// Property 4, of a state in which nothing is under way: no ready instance has room for one more container of
/// a fill service that may start there and has less than its max.
pub fn no_idle_room(state: &State, now: Millis) -> Result<(), String> {
    for id in state.service_ids() {
        let service = state.service(id);
        if service.kind != ServiceKind::Fill
            || service.paused
            || service.removed
            || running(state, id) >= service.max
        {
            continue;
        }
        for instance in state.instance_ids() {
            let host = state.instance(instance);
            let held = state.backoffs().iter().any(|backoff| {
                backoff.service == id
                    && backoff.instance.is_none_or(|other| other == instance)
                    && backoff.until > now
            });
            let room = host.capacity.minus(taken(state, instance));
            if host.state == InstanceState::Ready && !held && service.request.fits(room) {
                return Err(format!("{} has room for one more of {}", host.name, service.name));
            }
        }
    }
    Ok(())
}

/// Of a state in which nothing is under way: no instance has more frozen than its bounds allow, but for what waits for
/// room to end in and has not waited for too long.
pub fn frozen_within_bounds(state: &State, now: Millis) -> Result<(), String> {
    for id in state.instance_ids() {
        let instance = state.instance(id);
        let frozen = || state.containers_on(id).iter().filter(|it| it.phase == Phase::Frozen);
        let waits = |it: &Container| {
            let since = state.waits_to_end_since(it.key).unwrap_or(now);
            now < since.plus(instance.evict_after_ms)
        };
        let count = u32::try_from(frozen().count()).unwrap_or(u32::MAX);
        let memory = frozen().map(|it| state.service(it.key.service).request.memory_mib);
        let memory_mib = memory.fold(0, u64::saturating_add);
        let beyond = count > instance.frozen_max || memory_mib > instance.frozen_memory_mib;
        if instance.state != InstanceState::Lost && beyond && !frozen().any(waits) {
            return Err(format!("{count} with {memory_mib} MiB are frozen on {}", instance.name));
        }
    }
    Ok(())
}

/// Property 6, of a plan made from a state in which nothing is under way: leave any one preemption out, and
/// what arrives on its instance for more important work does not fit.
pub fn no_superfluous_stop(state: &State, plan: &Plan) -> Result<(), String> {
    let request = |key: ContainerKey| state.service(key.service).request;
    for action in &plan.actions {
        let victim = action.container();
        let (Action::Stop { reason, .. } | Action::Freeze { reason, .. }) = action else { continue };
        if !matches!(reason, StopReason::Preempted { .. } | StopReason::Share { .. }) {
            continue;
        }
        let importance = state.service(victim.service).priority;
        let gone: Vec<ContainerKey> = plan
            .actions
            .iter()
            // What lends its room has it again soon.
            .filter(|other| !matches!(other, Action::Start { .. } | Action::Remove { .. }))
            .filter(|other| other.lends_to().is_none())
            .map(Action::container)
            .collect();
        let mut sum = request(victim);
        for container in state.containers_on(victim.instance) {
            if !gone.contains(&container.key) {
                sum = sum.plus(container.takes(standing(state, container), request(container.key)));
            }
        }
        for other in &plan.actions {
            let key = other.container();
            let priority = state.service(key.service).priority;
            let arrives = matches!(other, Action::Start { .. } | Action::Thaw { .. });
            let for_others = priority < importance || priority == importance && key.service != victim.service;
            if arrives && key.instance == victim.instance && for_others {
                sum = sum.plus(request(key));
            }
        }
        if sum.fits(state.instance(victim.instance).capacity) {
            return Err(format!("superfluous: {}", action.words(state)));
        }
    }
    Ok(())
}

/// Starting or running containers of a service on instances that are not lost.
pub fn running(state: &State, service: ServiceId) -> u32 {
    let count = state
        .containers()
        .filter(|container| container.key.service == service)
        .filter(|container| state.instance(container.key.instance).state != InstanceState::Lost)
        .filter(|container| {
            matches!(standing(state, container), Standing::Settled | Standing::Busy | Standing::Waiting)
        })
        .count();
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The room for a service on an instance beside what is at least as important, frozen containers with their memory.
/// A less important frozen one keeps its memory where it can end neither in what is free nor in the service's room.
fn room_for(state: &State, instance: InstanceId, service: &Service) -> Resources {
    let capacity = state.instance(instance).capacity;
    let free = capacity.minus(taken(state, instance));
    let stays = state.containers_on(instance).iter().filter(|container| {
        let other = state.service(container.key.service);
        let to_end = other.request.minus(other.request.when_frozen());
        other.priority <= service.priority
            || container.phase == Phase::Frozen && !to_end.fits(free) && !to_end.fits(service.request)
    });
    stays.fold(capacity, |room, container| {
        let request = state.service(container.key.service).request;
        room.minus(container.takes(standing(state, container), request))
    })
}
