//! The planner's scratch copy of the cluster: what of each instance is taken, promised, and on its way out.
//!
//! Begun once a plan from what the [`State`] keeps of each instance; the phases of the plan write what they decide
//! into it. Two sums are kept for each instance. `committed` is what will be taken once everything under way and everything decided
//! has happened: no start is decided that would bring it above capacity. `free_now` is what nobody takes or has
//! been promised at this moment: a start that needs more waits for containers that are leaving.

use crate::model::{Container, InstanceId, Millis, OnPreempt, Phase, Resources, ServiceId};
use crate::reasons::StopReason;
use crate::spot::{Arrival, Fate, Going, Group, Line, SEVERAL, Spots, counted};
use crate::standing::Standing;
use crate::state::State;
use crate::tally::{Counted, Tally, is_unproven};

/// The whole.
pub(crate) struct Board<'a> {
    pub(crate) state: &'a State,
    pub(crate) now: Millis,
    /// By instance.
    pub(crate) spots: Spots<'a>,
    /// By service.
    pub(crate) tallies: Vec<Tally>,
    /// Those services that have standbys.
    pub(crate) with_standbys: Vec<ServiceId>,
    /// Changes whenever what a container costs as a victim may have changed on every instance.
    pub(crate) prices: u32,
    /// There are, or will be, no more containers than this on any instance.
    most: u32,
}

impl<'a> Board<'a> {
    pub(crate) fn new(state: &'a State, now: Millis) -> Self {
        let spots = Spots::new(state);
        let mut tallies = vec![Tally::default(); state.services().len()];
        for (service, there) in spots.iter().flat_map(|spot| spot.tallies.iter()) {
            tallies[service.index()].add(there);
        }
        // Whatever arrives takes a slot at least.
        let most = spots.iter().map(|spot| spot.fates.len() as u64 + spot.capacity.slots).max();
        let most = u32::try_from(most.unwrap_or(0)).unwrap_or(u32::MAX);
        let has_standbys = |id: &ServiceId| {
            let service = state.service(*id);
            service.standby_per_instance > 0 && !service.removed
        };
        let with_standbys = state.service_ids().filter(has_standbys).collect();
        let mut board = Self { state, now, spots, tallies, with_standbys, prices: 0, most };
        for id in state.service_ids() {
            if board.tallies[id.index()].outdated > 0 {
                board.count_unproven(id);
            }
        }
        board
    }

    /// Tells which of a service's containers have yet to show that they keep running: of all counts the only one that
    /// depends on the time.
    fn count_unproven(&mut self, id: ServiceId) {
        let kept = |&(instance, at): &(InstanceId, usize)| self.spots[instance.index()].fates[at].is_kept();
        let all = self
            .state
            .instance_ids()
            .flat_map(|instance| self.positions(instance, id).map(move |at| (instance, at)));
        let unproven =
            all.filter(kept).filter(|&(instance, at)| self.is_unproven(self.container(instance, at)));
        let unproven = u32::try_from(unproven.count()).unwrap_or(u32::MAX);
        let tally = &mut self.tallies[id.index()];
        tally.replaces = true;
        tally.proven -= unproven;
        tally.unproven = unproven;
    }

    pub(crate) fn container(&self, instance: InstanceId, position: usize) -> &'a Container {
        &self.state.containers_on(instance)[position]
    }

    pub(crate) fn request(&self, service: ServiceId) -> Resources {
        self.state.service(service).request
    }

    /// Positions of a service's containers on an instance.
    pub(crate) fn positions(&self, instance: InstanceId, service: ServiceId) -> std::ops::Range<usize> {
        self.spots[instance.index()].group(service).map_or(0..0, Group::positions)
    }

    /// How many containers of a service run on an instance, or will.
    pub(crate) fn count_on(&self, instance: InstanceId, service: ServiceId) -> u64 {
        self.spots[instance.index()].group(service).map_or(0, |group| u64::from(group.count))
    }

    /// Those of a group who had been told nothing when the plan began and have no fault, in the order in which they
    /// would be given up; `None` if one is said to begin later than now: then that is not known.
    pub(crate) fn in_line(&self, instance: InstanceId, group: &Group) -> Option<Line<'_>> {
        self.spots[instance.index()].in_line(group, self.state, self.now)
    }

    /// What a frozen container of a service takes besides its memory while it ends: the engine resumes it to end it.
    pub(crate) fn to_end(&self, service: ServiceId) -> Resources {
        let request = self.request(service);
        request.minus(request.when_frozen())
    }

    /// What an arrival takes besides what it has already.
    pub(crate) fn to_arrive(&self, arrival: &Arrival) -> Resources {
        if arrival.thaw.is_some() { self.to_end(arrival.service) } else { self.request(arrival.service) }
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
        let Fate::Stays(standing) = self.spots[instance.index()].fates[position] else { return };
        let (state, now) = (self.state, self.now);
        let spot = &mut self.spots[instance.index()];
        let suspended = container.phase == Phase::Frozen;
        spot.send(Going { position: counted(position), reason, freeze, suspended }, container);
        spot.pass(service, state, now);
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
            let counted = Counted::at_any_time(container, spot.state);
            let counted = self.on_trial(counted, container);
            self.recount(service, |tally| tally.count_out(counted));
        }
    }

    /// What its service's tally counts of a container, now that the time is known.
    fn on_trial(&self, counted: Counted, container: &Container) -> Counted {
        let replaces = self.tallies[container.key.service.index()].replaces;
        if replaces && self.is_unproven(container) { counted.unproven() } else { counted }
    }

    /// Takes back what [`Self::send_away`] decided.
    pub(crate) fn call_back(&mut self, instance: InstanceId, position: usize) {
        let container = self.container(instance, position);
        let service = container.key.service;
        let request = self.request(service);
        let standing = if container.phase == Phase::Frozen { Standing::Frozen } else { Standing::Settled };
        let Fate::Goes { freeze, .. } = self.spots[instance.index()].fates[position] else { return };
        let spot = &mut self.spots[instance.index()];
        spot.keep(position, standing, container);
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
            let counted = Counted::at_any_time(container, spot.state);
            let counted = self.on_trial(counted, container);
            self.recount(service, |tally| tally.count_in(counted));
        }
    }

    /// Another reason for a container to give up its room.
    pub(crate) fn retell(&mut self, instance: InstanceId, position: usize, because: StopReason) {
        let container = self.container(instance, position);
        let Some(going) = self.spots[instance.index()].going_at(position) else { return };
        let spot = &mut self.spots[instance.index()];
        spot.keep(position, Standing::Settled, container);
        spot.send(Going { reason: because, ..going }, container);
    }

    /// Decides that a container of `service` arrives: a new one, or a frozen one that is resumed.
    pub(crate) fn bring(&mut self, instance: InstanceId, arrival: Arrival) {
        let request = self.request(arrival.service);
        let resumed = arrival.thaw.map(|at| at as usize).map(|at| (at, self.container(instance, at)));
        let (state, now) = (self.state, self.now);
        let spot = &mut self.spots[instance.index()];
        let mut needs = request;
        if let Some((position, container)) = resumed {
            spot.decide(position, Fate::Thaws, container);
            spot.pass(arrival.service, state, now);
            spot.frozen.take(request);
            needs = request.minus(request.when_frozen());
        }
        spot.committed = spot.committed.plus(needs);
        if spot.arrivals.is_empty() {
            spot.arrivals.reserve(SEVERAL);
        }
        spot.arrivals.push(arrival);
        spot.arriving = spot.arriving.plus(request);
        spot.group_mut(arrival.service).count += 1;
        self.recount(arrival.service, |tally| {
            tally.kept += 1;
            tally.coming += 1;
        });
    }

    /// Takes back a start that [`Self::bring`] decided.
    pub(crate) fn turn_back(&mut self, instance: InstanceId, position: usize) {
        let spot = &mut self.spots[instance.index()];
        let arrival = spot.arrivals.remove(position);
        let requests = spot.arrivals.iter().map(|arrival| self.state.service(arrival.service).request);
        spot.arriving = requests.fold(Resources::ZERO, Resources::plus);
        spot.group_mut(arrival.service).count -= 1;
        let request = self.state.service(arrival.service).request;
        let mut needed = request;
        if let Some(position) = arrival.thaw {
            let container = &self.state.containers_on(instance)[position as usize];
            spot.decide(position as usize, Fate::Stays(Standing::Frozen), container);
            spot.frozen.add(request);
            needed = request.minus(request.when_frozen());
        }
        spot.committed = spot.committed.minus(needed);
        self.recount(arrival.service, |tally| {
            tally.kept -= 1;
            tally.coming -= 1;
        });
    }

    /// Changes a service's counts.
    fn recount(&mut self, service: ServiceId, change: impl FnOnce(&mut Tally)) {
        let tally = &mut self.tallies[service.index()];
        let before = tally.spare(self.most);
        change(tally);
        self.prices += u32::from(before != tally.spare(self.most));
    }

    /// Whether one more container of `service` may be frozen on the instance.
    pub(crate) fn may_freeze(&self, instance: InstanceId, service: ServiceId) -> bool {
        let frozen = self.spots[instance.index()].frozen.with(self.request(service));
        self.may_hold(instance, frozen, self.state.service(service).priority)
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
        is_unproven(self.state, container, self.now)
    }
}
