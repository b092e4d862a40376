//! The planner's scratch copy of the cluster: what of each instance is taken, promised, and on its way out.
//!
//! Built once a plan from the [`State`]; the phases of the plan write what they decide into it. Two sums are
//! kept for each instance. `committed` is what will be taken once everything under way and everything decided
//! has happened: no start is decided that would bring it above capacity. `free_now` is what nobody takes or has
//! been promised at this moment: a start that needs more waits for containers that are leaving.

use crate::model::{
    Container, ContainerKey, Fault, Instance, InstanceId, InstanceState, Millis, OnPreempt, Operation, Phase,
    Resources, ServiceId,
};
use crate::reasons::{StartReason, StopReason};
use crate::standing::Standing;
use crate::state::State;

/// What the plan has in mind for one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As it stands: nothing is decided about it.
    Stays(Standing),
    /// It gives up its room.
    Goes { reason: StopReason, freeze: bool },
    /// A frozen one is resumed.
    Thaws,
    /// A created one is used for a start.
    Used,
    /// Its instance does not answer: it is not counted, and nothing is asked of it.
    Lost,
}

/// A start or thaw that has been decided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) service: ServiceId,
    pub(crate) thaw: Option<usize>,
    pub(crate) reason: StartReason,
    /// The priority of its service: victims chosen for it are less important, or equal by share.
    pub(crate) priority: u32,
    /// Room is being made in two steps: the stops of what runs are issued now, the rest by a later plan.
    pub(crate) deferred: bool,
}

/// One instance.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    pub(crate) state: InstanceState,
    pub(crate) capacity: Resources,
    pub(crate) committed: Resources,
    pub(crate) free_now: Resources,
    /// More is taken than there is: whoever starts waits for everything that leaves.
    pub(crate) overfull: bool,
    /// Containers on their way out already, with what of their room is not promised to anyone.
    pub(crate) leaving: Vec<(ContainerKey, Resources)>,
    /// By position in [`State::containers_on`].
    pub(crate) fates: Vec<Fate>,
    pub(crate) arrivals: Vec<Arrival>,
    pub(crate) frozen: Frozen,
}

/// What is frozen on an instance, or will be: the bounds for it are of the instance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frozen {
    pub(crate) count: u32,
    memory_mib: u64,
}

/// One service's counts, over all instances that are not lost.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Containers that stay and run, or will: what the target is held against.
    pub(crate) kept: u32,
    /// Of these, those that run now and are of use.
    pub(crate) running: u32,
    /// Of the running, those of the service's generation that have run for long enough to be trusted.
    pub(crate) proven: u32,
    /// Of the running, those of the service's generation that have not.
    pub(crate) unproven: u32,
    /// Of the kept, those that have run and are of no use any more.
    pub(crate) unhealthy: u32,
    /// Of the kept, those that have not become ready in time.
    pub(crate) not_ready: u32,
    /// Of the kept, those on draining instances.
    pub(crate) on_draining: u32,
    /// Of the kept, those of an older generation.
    pub(crate) outdated: u32,
    /// Of the kept, those that are on their way to running.
    pub(crate) coming: u32,
    /// Containers on their way out.
    pub(crate) leaving: u32,
    /// The most that it may have: its target, or a fill service's max.
    pub(crate) limit: u32,
    /// How many it may have of what its priority has.
    pub(crate) share: u32,
    /// On lost instances, still thought to run.
    pub(crate) on_lost: u32,
}

/// The whole.
pub(crate) struct Board<'a> {
    pub(crate) state: &'a State,
    pub(crate) now: Millis,
    /// By instance.
    pub(crate) spots: Vec<Spot>,
    /// By service.
    pub(crate) tallies: Vec<Tally>,
}

impl<'a> Board<'a> {
    pub(crate) fn new(state: &'a State, now: Millis) -> Self {
        let mut tallies = vec![Tally::default(); state.services().len()];
        let spots = state.instance_ids().map(|id| Spot::new(state, id, now, &mut tallies)).collect();
        Self { state, now, spots, tallies }
    }

    pub(crate) fn container(&self, instance: InstanceId, position: usize) -> &'a Container {
        &self.state.containers_on(instance)[position]
    }

    pub(crate) fn request(&self, service: ServiceId) -> Resources {
        self.state.service(service).request
    }

    /// Positions of a service's containers on an instance.
    pub(crate) fn positions(&self, instance: InstanceId, service: ServiceId) -> std::ops::Range<usize> {
        let list = self.state.containers_on(instance);
        let from = list.partition_point(|container| container.key.service < service);
        let to = list.partition_point(|container| container.key.service <= service);
        from..to
    }

    /// How many containers of a service run on an instance, or will.
    pub(crate) fn count_on(&self, instance: InstanceId, service: ServiceId) -> u64 {
        let spot = &self.spots[instance.index()];
        let there = self.positions(instance, service).filter(|&at| spot.fates[at].is_kept()).count();
        let arriving = spot.arrivals.iter().filter(|arrival| arrival.service == service).count();
        (there + arriving) as u64
    }

    /// What a frozen container of a service takes besides its memory while it ends: the engine resumes it to end it.
    pub(crate) fn to_end(&self, service: ServiceId) -> Resources {
        let request = self.request(service);
        request.minus(request.when_frozen())
    }

    /// Whether a container may be told to go at this moment: a frozen one needs room to end in.
    pub(crate) fn may_go_now(&self, instance: InstanceId, position: usize) -> bool {
        let container = self.container(instance, position);
        container.phase != Phase::Frozen
            || self.to_end(container.key.service).fits(self.spots[instance.index()].free_now)
    }

    /// Decides that a container gives up its room; `freeze` if it is suspended for that, not stopped.
    ///
    /// The engine resumes a frozen one to end it, so for that moment it takes a slot: what is free now must have it.
    pub(crate) fn send_away(
        &mut self,
        instance: InstanceId,
        position: usize,
        reason: StopReason,
        freeze: bool,
    ) {
        let container = self.container(instance, position);
        let service = container.key.service;
        let request = self.request(service);
        let spot = &mut self.spots[instance.index()];
        let Fate::Stays(standing) = spot.fates[position] else { return };
        spot.fates[position] = Fate::Goes { reason, freeze };
        let gives =
            if freeze { request.minus(request.when_frozen()) } else { container.takes(standing, request) };
        spot.committed = spot.committed.minus(gives);
        if freeze {
            spot.frozen.add(request);
        } else if standing == Standing::Frozen {
            spot.frozen.take(request);
            spot.free_now = spot.free_now.minus(request.minus(request.when_frozen()));
        }
        if standing == Standing::Settled {
            self.tallies[service.index()].count_out(Counted::of(self.state, container, self.now));
        }
    }

    /// Takes back what [`Self::send_away`] decided.
    pub(crate) fn call_back(&mut self, instance: InstanceId, position: usize) {
        let container = self.container(instance, position);
        let service = container.key.service;
        let request = self.request(service);
        let standing = if container.phase == Phase::Frozen { Standing::Frozen } else { Standing::Settled };
        let spot = &mut self.spots[instance.index()];
        let Fate::Goes { freeze, .. } = spot.fates[position] else { return };
        spot.fates[position] = Fate::Stays(standing);
        let gives =
            if freeze { request.minus(request.when_frozen()) } else { container.takes(standing, request) };
        spot.committed = spot.committed.plus(gives);
        if freeze {
            spot.frozen.take(request);
        } else if standing == Standing::Frozen {
            spot.frozen.add(request);
            spot.free_now = spot.free_now.plus(request.minus(request.when_frozen()));
        }
        if standing == Standing::Settled {
            self.tallies[service.index()].count_in(Counted::of(self.state, container, self.now));
        }
    }

    /// Decides that a container of `service` arrives: a new one, or a frozen one that is resumed.
    pub(crate) fn bring(&mut self, instance: InstanceId, arrival: Arrival) {
        let request = self.request(arrival.service);
        let spot = &mut self.spots[instance.index()];
        let mut needs = request;
        if let Some(position) = arrival.thaw {
            spot.fates[position] = Fate::Thaws;
            spot.frozen.take(request);
            needs = request.minus(request.when_frozen());
        }
        spot.committed = spot.committed.plus(needs);
        spot.arrivals.push(arrival);
        let tally = &mut self.tallies[arrival.service.index()];
        tally.kept += 1;
        tally.coming += 1;
    }

    /// Takes back a start that [`Self::bring`] decided.
    pub(crate) fn turn_back(&mut self, instance: InstanceId, position: usize) {
        let spot = &mut self.spots[instance.index()];
        let arrival = spot.arrivals.remove(position);
        let request = self.state.service(arrival.service).request;
        let mut needed = request;
        if let Some(position) = arrival.thaw {
            spot.fates[position] = Fate::Stays(Standing::Frozen);
            spot.frozen.add(request);
            needed = request.minus(request.when_frozen());
        }
        spot.committed = spot.committed.minus(needed);
        let tally = &mut self.tallies[arrival.service.index()];
        tally.kept -= 1;
        tally.coming -= 1;
    }

    /// Whether one more container of `service` may be frozen on the instance.
    pub(crate) fn may_freeze(&self, instance: InstanceId, service: ServiceId) -> bool {
        let bounds = self.state.instance(instance);
        self.spots[instance.index()].frozen.with(self.request(service)).within(bounds)
    }

    /// Whether a preempted container of the service is suspended where there is room for that.
    pub(crate) fn freezes(&self, service: ServiceId) -> bool {
        let service = self.state.service(service);
        service.on_preempt == OnPreempt::Freeze && !service.removed
    }

    /// Until when starts of a service on an instance are held back, if they are.
    pub(crate) fn held_back(&self, service: ServiceId, instance: InstanceId) -> Option<Millis> {
        let everywhere = self.state.backoff(service, None);
        let here = self.state.backoff(service, Some(instance));
        everywhere.max(here).filter(|&until| until > self.now)
    }

    /// How long a container has run, in milliseconds: the work that would be lost with it. One that is of no use
    /// does none.
    pub(crate) fn work_ms(&self, container: &Container) -> u64 {
        if container.fault.is_some() { 0 } else { self.now.since(container.since) }
    }

    /// Whether it has not run its service's `min_runtime_ms` yet.
    pub(crate) fn is_young(&self, container: &Container) -> bool {
        let min_runtime_ms = self.state.service(container.key.service).min_runtime_ms;
        container.fault.is_none() && self.now.since(container.since) < min_runtime_ms
    }

    /// Whether it is of its service's generation, and has yet to show that it keeps running.
    pub(crate) fn is_unproven(&self, container: &Container) -> bool {
        Counted::of(self.state, container, self.now).unproven
    }
}

impl Fate {
    /// Whether the container runs or will, as far as is decided.
    pub(crate) const fn is_kept(self) -> bool {
        matches!(self, Self::Stays(Standing::Settled | Standing::Busy | Standing::Waiting))
    }
}

/// What of a container its service's tally counts.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is counted by itself")]
struct Counted {
    running: bool,
    unproven: bool,
    outdated: bool,
    draining: bool,
    fault: Option<Fault>,
}

impl Counted {
    fn of(state: &State, container: &Container, now: Millis) -> Self {
        let running = container.runs();
        let proven_after_ms = state.service(container.key.service).proven_after_ms;
        Self {
            running,
            unproven: running && !container.outdated && now.since(container.since) < proven_after_ms,
            outdated: container.outdated,
            draining: state.instance(container.key.instance).state == InstanceState::Draining,
            fault: container.fault,
        }
    }
}

impl Tally {
    /// How many may be taken by others before fewer than the target serve: a successor that is still on its way, or on
    /// trial, does not count yet.
    pub(crate) const fn surplus(&self) -> u32 {
        self.surplus_over(self.limit)
    }

    /// As [`Self::surplus`], were this the target.
    pub(crate) const fn surplus_over(&self, limit: u32) -> u32 {
        self.serving().saturating_sub(limit)
    }

    /// How many stand for the target until others run in their place: what runs, and what did and is unhealthy now.
    pub(crate) const fn serving(&self) -> u32 {
        let on_trial = if self.is_on_trial() { self.unproven } else { 0 };
        self.running + self.unhealthy - on_trial
    }

    /// Whether there are outdated containers, and successors of which none has run for long enough to be trusted.
    pub(crate) const fn is_on_trial(&self) -> bool {
        self.outdated > 0 && self.proven == 0 && self.unproven > 0
    }

    /// How many more may be taken by others before the service falls below its share.
    pub(crate) const fn over_share(&self) -> u32 {
        self.kept.saturating_sub(self.share)
    }

    fn count_in(&mut self, container: Counted) {
        self.kept += 1;
        *self.of_its_kind(container) += 1;
        self.proven += u32::from(container.running && !container.unproven && !container.outdated);
        self.unproven += u32::from(container.unproven);
        self.on_draining += u32::from(container.draining);
        self.outdated += u32::from(container.outdated);
    }

    fn count_out(&mut self, container: Counted) {
        self.kept -= 1;
        *self.of_its_kind(container) -= 1;
        self.proven -= u32::from(container.running && !container.unproven && !container.outdated);
        self.unproven -= u32::from(container.unproven);
        self.on_draining -= u32::from(container.draining);
        self.outdated -= u32::from(container.outdated);
    }

    const fn of_its_kind(&mut self, container: Counted) -> &mut u32 {
        match (container.fault, container.running) {
            (Some(Fault::NotReady), _) => &mut self.not_ready,
            (Some(Fault::Unhealthy), _) => &mut self.unhealthy,
            (None, true) => &mut self.running,
            (None, false) => &mut self.coming,
        }
    }
}

impl Spot {
    fn new(state: &State, id: InstanceId, now: Millis, tallies: &mut [Tally]) -> Self {
        let instance = state.instance(id);
        let containers = state.containers_on(id);
        let left = |key: ContainerKey| {
            key.instance != id
                || containers.binary_search_by_key(&key, |other| other.key).is_err()
                || state.container(key).is_some_and(Container::has_left)
        };
        let mut spot = Self {
            state: instance.state,
            capacity: instance.capacity,
            committed: Resources::ZERO,
            free_now: Resources::ZERO,
            overfull: false,
            leaving: Vec::new(),
            fates: Vec::with_capacity(containers.len()),
            arrivals: Vec::new(),
            frozen: Frozen::default(),
        };
        let mut taken = Resources::ZERO;
        let mut waiting = Vec::new();
        for container in containers {
            let service = container.key.service;
            let request = state.service(service).request;
            let standing = container.standing(left);
            let fate = Fate::Stays(standing);
            let tally = &mut tallies[service.index()];
            if instance.state == InstanceState::Lost {
                spot.fates.push(Fate::Lost);
                tally.on_lost += u32::from(fate.is_kept());
                continue;
            }
            spot.fates.push(fate);
            taken = taken.plus(container.takes(standing, request));
            match standing {
                Standing::Settled | Standing::Busy => {
                    spot.committed = spot.committed.plus(request);
                    tally.count_in(Counted::of(state, container, now));
                }
                Standing::Waiting => {
                    spot.committed = spot.committed.plus(request);
                    tally.count_in(Counted::of(state, container, now));
                    waiting.push(container);
                }
                Standing::Leaving => {
                    let gives = container.gives_back(request);
                    spot.leaving.push((container.key, gives));
                    spot.committed = spot.committed.plus(request.minus(gives));
                    tally.leaving += 1;
                    if container.operation == Some(Operation::Freeze) {
                        spot.frozen.add(request);
                    }
                }
                Standing::Frozen => {
                    spot.committed = spot.committed.plus(request.when_frozen());
                    spot.frozen.add(request);
                }
                Standing::Orphan | Standing::Ended => {}
            }
        }
        spot.free_now = instance.capacity.minus(taken);
        spot.overfull = !taken.fits(instance.capacity);
        // Whoever waits already has a claim: first on the room that it waits for, then on what is free, then, to
        // be safe, on whatever else is being cleared. Those with the least to choose from come first.
        let waits_for = |container: &Container, key: ContainerKey| match &container.operation {
            Some(Operation::Start { after } | Operation::Thaw { after }) => after.contains(&key),
            _ => false,
        };
        waiting.sort_by_key(|container| {
            (spot.leaving.iter().filter(|(key, _)| waits_for(container, *key)).count(), container.key)
        });
        for container in waiting {
            let mut lacks = container.lacks(state.service(container.key.service).request);
            let mut draw = |from: &mut Resources| {
                let drawn = lacks.cut_to(*from);
                *from = from.minus(drawn);
                lacks = lacks.minus(drawn);
            };
            spot.leaving
                .iter_mut()
                .filter(|(key, _)| waits_for(container, *key))
                .for_each(|(_, room)| draw(room));
            draw(&mut spot.free_now);
            spot.leaving.iter_mut().for_each(|(_, room)| draw(room));
        }
        spot
    }
}

impl Frozen {
    pub(crate) fn add(&mut self, request: Resources) {
        *self = self.with(request);
    }

    pub(crate) fn take(&mut self, request: Resources) {
        self.count -= 1;
        self.memory_mib = self.memory_mib.saturating_sub(request.memory_mib);
    }

    pub(crate) const fn with(self, request: Resources) -> Self {
        self.with_all(request, 1)
    }

    pub(crate) const fn with_all(self, request: Resources, count: u32) -> Self {
        let memory_mib = request.memory_mib.saturating_mul(count as u64);
        Self {
            count: self.count.saturating_add(count),
            memory_mib: self.memory_mib.saturating_add(memory_mib),
        }
    }

    pub(crate) const fn within(self, instance: &Instance) -> bool {
        self.count <= instance.frozen_max && self.memory_mib <= instance.frozen_memory_mib
    }
}
