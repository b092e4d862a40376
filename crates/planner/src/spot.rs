//! One instance as a plan sees it: what of it is taken, promised and about to be left, and what is decided about each
//! of its containers.
//!
//! How an instance stands before anything is decided depends on nothing but itself and the services, least of all on
//! the time. So the [`State`] keeps that, for each instance by itself, from the first plan that asks for it until
//! something changes there ([`State::spot`]); a plan copies the spots that it writes to, and no others ([`Spots`]).

use std::ops::{Index, IndexMut, Range};
use std::sync::Arc;

use crate::model::{
    Container, ContainerKey, Instance, InstanceId, InstanceState, Operation, Overlap, Phase, Resources,
    ServiceId,
};
use crate::reasons::{StartReason, StopReason};
use crate::standing::Standing;
use crate::state::State;
use crate::tally::{Counted, Tally};

/// What the plan has in mind for one container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// As it stands: nothing is decided about it.
    Stays(Standing),
    /// It gives up its room ([`Going`] tells why), for more important work if it is `preempted`: then what comes after
    /// may do without.
    Goes { freeze: bool, preempted: bool },
    /// A frozen one ends without a slot of its own ([`Ending`]).
    Ends,
    /// It is frozen for a moment, and a frozen one ends in its room.
    Lends,
    /// A frozen one is resumed.
    Thaws,
    /// A created one is used for a start.
    Used,
    /// Its instance does not answer: it is not counted, and nothing is asked of it.
    Lost,
}

/// A container that gives up its room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Going {
    /// In [`State::containers_on`].
    pub(crate) position: usize,
    pub(crate) reason: StopReason,
    pub(crate) freeze: bool,
}

/// A frozen container that ends without a slot of its own.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    /// In [`State::containers_on`].
    pub(crate) position: usize,
    pub(crate) reason: StopReason,
    /// In whose slot, by position; by SIGKILL if in nobody's.
    pub(crate) lender: Option<usize>,
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
    /// As `overfull`, apart from what is being frozen beside containers that overlap with it.
    pub(crate) overfull_beyond_swaps: bool,
    /// Containers on their way out already, with what of their room is not promised to anyone.
    pub(crate) leaving: Vec<(ContainerKey, Resources)>,
    /// By position in [`State::containers_on`].
    pub(crate) fates: Vec<Fate>,
    pub(crate) arrivals: Vec<Arrival>,
    /// What all arrivals request.
    pub(crate) arriving: Resources,
    pub(crate) frozen: Frozen,
    /// Frozen ones that are to end, by position, and had no room for it when that was decided.
    pub(crate) to_end: Vec<(usize, StopReason)>,
    /// By service, in the order of ids: those that have containers here.
    pub(crate) groups: Vec<Group>,
    /// Those whom nobody has told anything and who have no fault, by position: for each group, from its first
    /// position on, as many as are [`Group::at_hand`]; of each group the youngest first.
    youngest_first: Arc<[u32]>,
    /// In the order in which it was decided.
    pub(crate) going: Vec<Going>,
    pub(crate) ending: Vec<Ending>,
    /// Whose those are who go for more important work.
    preempted: Whose,
    /// Whom those wait for who are to start or to be thawed, in order.
    pub(crate) waited_for: Vec<ContainerKey>,
    /// Something has ended, or was never started.
    pub(crate) has_litter: bool,
}

/// What one service has on an instance.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    pub(crate) service: ServiceId,
    /// Positions in [`State::containers_on`].
    from: usize,
    to: usize,
    /// How many run or will, as far as is decided.
    pub(crate) count: u32,
    /// As they stood when the plan began.
    pub(crate) tally: Tally,
    /// How many are frozen, whatever is decided about them.
    pub(crate) frozen: u32,
    /// How many are told nothing yet and have no fault.
    at_hand: usize,
    /// Some of those who are told nothing have a fault.
    pub(crate) has_faults: bool,
    /// All that run or will are at hand, run already, and are of their service's generation.
    pub(crate) is_uniform: bool,
    /// Some are on their way: to running, or out.
    pub(crate) in_transit: bool,
}

/// Whose containers some are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Whose {
    #[default]
    Nobodys,
    /// All of one service, running, and all of them frozen for it or none.
    One(ServiceId, bool),
    Several,
}

/// What is frozen on an instance, or will be: the bounds for it are of the instance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Frozen {
    pub(crate) count: u32,
    memory_mib: u64,
}

/// Every instance's spot: as the state keeps it, or as this plan has written it.
pub(crate) struct Spots<'a> {
    kept: Vec<&'a Spot>,
    written: Vec<Option<Box<Spot>>>,
}

impl<'a> Spots<'a> {
    pub(crate) fn new(state: &'a State) -> Self {
        let kept: Vec<&Spot> = state.instance_ids().map(|id| state.spot(id)).collect();
        let written = vec![None; kept.len()];
        Self { kept, written }
    }

    /// By instance.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Spot> {
        self.kept.iter().zip(&self.written).map(|(kept, written)| written.as_deref().unwrap_or(kept))
    }

    /// Those that this plan has written to, in the order of instances.
    pub(crate) fn written(&self) -> impl Iterator<Item = (InstanceId, &Spot)> {
        let all = (0..).map(InstanceId).zip(&self.written);
        all.filter_map(|(instance, spot)| Some((instance, spot.as_deref()?)))
    }
}

impl Index<usize> for Spots<'_> {
    type Output = Spot;

    fn index(&self, at: usize) -> &Spot {
        self.written[at].as_deref().unwrap_or(self.kept[at])
    }
}

impl IndexMut<usize> for Spots<'_> {
    fn index_mut(&mut self, at: usize) -> &mut Spot {
        self.written[at].get_or_insert_with(|| Box::new(self.kept[at].clone()))
    }
}

impl Fate {
    /// Whether the container runs or will, as far as is decided.
    pub(crate) const fn is_kept(self) -> bool {
        matches!(self, Self::Stays(Standing::Settled | Standing::Busy | Standing::Waiting) | Self::Lends)
    }
}

impl Spot {
    /// As it stands, with nothing decided.
    pub(crate) fn new(state: &State, id: InstanceId) -> Self {
        let instance = state.instance(id);
        let containers = state.containers_on(id);
        let left =
            |key: ContainerKey| key.instance != id || state.container(key).is_none_or(Container::has_left);
        let mut spot = Self {
            state: instance.state,
            capacity: instance.capacity,
            committed: Resources::ZERO,
            free_now: Resources::ZERO,
            overfull: false,
            overfull_beyond_swaps: false,
            leaving: Vec::new(),
            fates: Vec::with_capacity(containers.len()),
            arrivals: Vec::new(),
            arriving: Resources::ZERO,
            frozen: Frozen::default(),
            to_end: Vec::new(),
            groups: Vec::new(),
            youngest_first: Arc::default(),
            going: Vec::new(),
            ending: Vec::new(),
            preempted: Whose::Nobodys,
            waited_for: Vec::new(),
            has_litter: false,
        };
        for container in containers {
            if let Some(Operation::Start { after } | Operation::Thaw { after } | Operation::Evict { after }) =
                &container.operation
            {
                spot.waited_for.extend(after);
            }
        }
        spot.waited_for.sort_unstable();
        let is_lent = |key: &ContainerKey| {
            key.instance == id
                && state.container(*key).is_some_and(|lender| lender.operation == Some(Operation::Freeze))
        };
        let stays = |key: &ContainerKey| {
            !left(*key)
                && state.container(*key).is_some_and(|other| other.standing(left) != Standing::Leaving)
        };
        let lends = |key: &ContainerKey| {
            let evicted = |other: &Container| matches!(&other.operation, Some(Operation::Evict { after }) if after.contains(key));
            is_lent(key) && containers.iter().any(evicted)
        };
        let mut youngest_first = vec![0; containers.len()];
        let mut taken = Resources::ZERO;
        let mut waiting = Vec::new();
        for of_service in containers.chunk_by(|a, b| a.key.service == b.key.service) {
            let service = of_service[0].key.service;
            let request = state.service(service).request;
            let mut group = Group::new(service, spot.fates.len(), of_service.len());
            for container in of_service {
                let standing = container.standing(left);
                if instance.state == InstanceState::Lost {
                    spot.fates.push(Fate::Lost);
                    group.tally.on_lost += u32::from(Fate::Stays(standing).is_kept());
                    continue;
                }
                spot.fates.push(Fate::Stays(standing));
                taken = taken.plus(container.takes(standing, request));
                group.count_in(state, container, standing);
                match standing {
                    Standing::Settled | Standing::Busy => spot.committed = spot.committed.plus(request),
                    Standing::Waiting => {
                        spot.committed = spot.committed.plus(request);
                        waiting.push(container);
                    }
                    // What lends its room has it again soon; until then it is on its way.
                    Standing::Leaving if lends(&container.key) => {
                        spot.committed = spot.committed.plus(request);
                        group.tally.count_in(Counted::on_its_way(state, container));
                    }
                    Standing::Ending => {
                        spot.frozen.add(request);
                        match &container.operation {
                            // What was to lend its room keeps it: until the end is given up, nobody is to wait for it.
                            Some(Operation::Evict { after }) if after.iter().any(stays) => {
                                spot.committed = spot.committed.plus(request.when_frozen());
                                waiting.push(container);
                            }
                            // What was to lend its room leaves it for good: one after the other.
                            Some(Operation::Evict { after }) if !after.iter().any(is_lent) => {
                                spot.leaving.push((container.key, request));
                                waiting.push(container);
                            }
                            _ => spot.leaving.push((container.key, request.when_frozen())),
                        }
                    }
                    Standing::Leaving => {
                        group.tally.leaving += 1;
                        let gives = container.gives_back(request);
                        spot.leaving.push((container.key, gives));
                        spot.committed = spot.committed.plus(request.minus(gives));
                        if container.operation == Some(Operation::Freeze) {
                            spot.frozen.add(request);
                        }
                    }
                    Standing::Frozen => {
                        spot.committed = spot.committed.plus(request.when_frozen());
                        spot.frozen.add(request);
                    }
                    Standing::Orphan | Standing::Ended => spot.has_litter = true,
                }
            }
            group.line_up(containers, &spot.fates, &mut youngest_first);
            spot.groups.push(group);
        }
        spot.youngest_first = youngest_first.into();
        spot.free_now = instance.capacity.minus(taken);
        spot.overfull = !taken.fits(instance.capacity);
        spot.overfull_beyond_swaps = spot.overfull && !spot.covers_swaps(state, id, taken);
        spot.promise(state, waiting);
        spot
    }

    /// Whoever waits already has a claim: first on the room that it waits for, then on what is free, then, to
    /// be safe, on whatever else is being cleared. Those with the least to choose from come first.
    fn promise(&mut self, state: &State, mut waiting: Vec<&Container>) {
        let waits_for = |container: &Container, key: ContainerKey| match &container.operation {
            Some(Operation::Start { after } | Operation::Thaw { after } | Operation::Evict { after }) => {
                after.contains(&key)
            }
            _ => false,
        };
        waiting.sort_by_key(|container| {
            (self.leaving.iter().filter(|(key, _)| waits_for(container, *key)).count(), container.key)
        });
        for container in waiting {
            let mut lacks = container.lacks(state.service(container.key.service).request);
            let mut draw = |from: &mut Resources| {
                let drawn = lacks.cut_to(*from);
                *from = from.minus(drawn);
                lacks = lacks.minus(drawn);
            };
            self.leaving
                .iter_mut()
                .filter(|(key, _)| waits_for(container, *key))
                .for_each(|(_, room)| draw(room));
            draw(&mut self.free_now);
            self.leaving.iter_mut().for_each(|(_, room)| draw(room));
        }
    }

    /// Whether all that is taken beyond the capacity is room of what is being frozen, taken by containers that overlap
    /// with it; and leaves it to them.
    fn covers_swaps(&mut self, state: &State, id: InstanceId, taken: Resources) -> bool {
        let containers = state.containers_on(id);
        let overlaps = |container: &Container| state.service(container.key.service).overlap == Overlap::Swap;
        let freezes = |key: &ContainerKey| {
            state.container(*key).is_some_and(|container| container.operation == Some(Operation::Freeze))
        };
        let mut beyond = taken.minus(self.capacity.cut_to(taken));
        if beyond.memory_mib > 0 || !containers.iter().any(overlaps) {
            return false;
        }
        for (_, room) in self.leaving.iter_mut().filter(|(key, _)| freezes(key)) {
            let drawn = beyond.cut_to(*room);
            *room = room.minus(drawn);
            beyond = beyond.minus(drawn);
        }
        beyond.is_zero()
    }

    /// What a service has here, if anything.
    pub(crate) fn group(&self, service: ServiceId) -> Option<&Group> {
        let at = self.groups.binary_search_by_key(&service, |group| group.service).ok()?;
        Some(&self.groups[at])
    }

    /// As [`Self::group`], to be written to; an empty one if it has nothing here yet.
    pub(crate) fn group_mut(&mut self, service: ServiceId) -> &mut Group {
        let at = self.groups.binary_search_by_key(&service, |group| group.service).unwrap_or_else(|at| {
            let from = self.groups.get(at).map_or(self.fates.len(), |next| next.from);
            self.groups.insert(at, Group::new(service, from, 0));
            at
        });
        &mut self.groups[at]
    }

    /// Decides that a container goes.
    pub(crate) fn send(&mut self, going: Going, container: &Container) {
        let preempted = matches!(going.reason, StopReason::Preempted { .. });
        self.fates[going.position] = Fate::Goes { freeze: going.freeze, preempted };
        self.going.push(going);
        if preempted {
            let frozen = container.phase == Phase::Frozen;
            let its = if frozen { Whose::Several } else { Whose::One(container.key.service, going.freeze) };
            let alike = self.preempted == Whose::Nobodys || self.preempted == its;
            self.preempted = if alike { its } else { Whose::Several };
        }
    }

    /// Takes back that the container at a position goes.
    pub(crate) fn keep(&mut self, position: usize, standing: Standing) {
        self.fates[position] = Fate::Stays(standing);
        self.going.retain(|going| going.position != position);
        if self.preempted().next().is_none() {
            self.preempted = Whose::Nobodys;
        }
    }

    /// Those who go for more important work.
    pub(crate) fn preempted(&self) -> impl Iterator<Item = &Going> {
        self.going.iter().filter(|going| matches!(going.reason, StopReason::Preempted { .. }))
    }

    /// Whose those are who go for more important work.
    pub(crate) const fn whose_are_preempted(&self) -> Whose {
        self.preempted
    }

    /// The decision that the container at a position goes, if it does.
    pub(crate) fn going_at(&self, position: usize) -> Option<Going> {
        match self.fates[position] {
            Fate::Goes { .. } => self.going.iter().find(|going| going.position == position).copied(),
            _ => None,
        }
    }

    /// Of a group those whom nobody has told anything when the plan began and who have no fault, as positions, the
    /// youngest first.
    pub(crate) fn youngest_first(&self, group: &Group) -> &[u32] {
        &self.youngest_first[group.from..group.from + group.at_hand]
    }
}

impl Group {
    fn new(service: ServiceId, from: usize, count: usize) -> Self {
        Self {
            service,
            from,
            to: from + count,
            count: 0,
            tally: Tally::default(),
            frozen: 0,
            at_hand: 0,
            has_faults: false,
            is_uniform: true,
            in_transit: false,
        }
    }

    /// Positions in [`State::containers_on`].
    pub(crate) const fn positions(&self) -> Range<usize> {
        self.from..self.to
    }

    fn count_in(&mut self, state: &State, container: &Container, standing: Standing) {
        match standing {
            Standing::Settled | Standing::Busy | Standing::Waiting => {
                self.count += 1;
                self.tally.count_in(Counted::at_any_time(state, container));
            }
            Standing::Frozen => self.frozen += 1,
            Standing::Leaving | Standing::Ending | Standing::Orphan | Standing::Ended => {}
        }
        let settled = standing == Standing::Settled;
        self.at_hand += usize::from(settled && container.fault.is_none());
        self.has_faults |= settled && container.fault.is_some();
        self.in_transit |= settled && !container.runs() && !container.is_unhealthy()
            || matches!(standing, Standing::Busy | Standing::Waiting | Standing::Leaving);
        self.is_uniform &=
            settled && container.runs() && !container.outdated || !Fate::Stays(standing).is_kept();
    }

    /// Writes down who is at hand, the youngest first.
    fn line_up(&self, containers: &[Container], fates: &[Fate], youngest_first: &mut [u32]) {
        let line = &mut youngest_first[self.from..self.from + self.at_hand];
        let at_hand = self
            .positions()
            .filter(|&at| fates[at] == Fate::Stays(Standing::Settled) && containers[at].fault.is_none());
        for (place, at) in line.iter_mut().zip(at_hand) {
            *place = u32::try_from(at).expect("containers of an instance are counted in u32");
        }
        line.sort_unstable_by_key(|&at| (std::cmp::Reverse(containers[at as usize].since), at));
    }
}

impl Going {
    /// For which service, if for one.
    pub(crate) const fn by(self) -> Option<ServiceId> {
        match self.reason {
            StopReason::Preempted { by } | StopReason::Share { by } => Some(by),
            _ => None,
        }
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
