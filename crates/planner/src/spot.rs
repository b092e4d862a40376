//! One instance as a plan sees it: what of it is taken, promised and about to be left, and what is decided about each
//! of its containers.
//!
//! How an instance stands before anything is decided depends on nothing but itself and the services, least of all on
//! the time. So the [`State`] keeps that, for each instance by itself, from the first plan that asks for it until
//! something changes there ([`State::spot`]); a plan copies the spots that it writes to, and no others ([`Spots`]).

use std::collections::BTreeSet;
use std::ops::{Index, IndexMut, Range};
use std::sync::Arc;

use crate::model::{
    Container, ContainerKey, Instance, InstanceId, InstanceState, Millis, Operation, Overlap, Resources,
    ServiceId,
};
use crate::reasons::{StartReason, StopReason};
use crate::standing::Standing;
use crate::state::State;
use crate::tally::{Counted, Tally};

/// Room for so many decisions of a kind is made with the first on an instance: where there is one there often are more.
pub(crate) const SEVERAL: usize = 16;

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
    pub(crate) position: u32,
    pub(crate) reason: StopReason,
    pub(crate) freeze: bool,
    /// It is frozen now, and leaves no more than its memory.
    pub(crate) suspended: bool,
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
    /// The frozen one that is resumed, by position.
    pub(crate) thaw: Option<u32>,
    pub(crate) reason: StartReason,
    /// The priority of its service: victims chosen for it are less important, or equal by share.
    pub(crate) priority: u32,
    /// Room is being made in two steps: the stops of what runs are issued now, the rest by a later plan.
    pub(crate) deferred: bool,
}

/// One instance.
#[derive(Clone, Debug)]
pub(crate) struct Spot {
    id: InstanceId,
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
    /// What each of these services had when the plan began.
    pub(crate) tallies: Arc<[(ServiceId, Tally)]>,
    /// For each group, from its first position on, two lines of positions: those whom nobody has told anything and who
    /// have no fault, the youngest first, as many as are [`Group::at_hand`]; and those who are frozen and may be resumed,
    /// those with the most work first, as many as are [`Group::at_rest`].
    lines: Arc<[u32]>,
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
    from: u32,
    to: u32,
    /// How many run or will, as far as is decided.
    pub(crate) count: u32,
    /// How many are frozen and stay so, as far as is decided.
    pub(crate) frozen: u32,
    /// How many count as standbys, as far as is decided ([`Fate::is_standby`]).
    pub(crate) standbys: u32,
    /// How many are ending in room that others have lent them, and that these have back then.
    pub(crate) borrowing: u32,
    /// How many had been told nothing when the plan began and have no fault.
    at_hand: u32,
    /// Of these, in the order in which they would be given up, so many at the head are on their way out by now.
    pub(crate) passed: u32,
    /// When the youngest of these began.
    pub(crate) youngest_since: Millis,
    /// How many were frozen when the plan began, are of their service's generation, and had been told nothing.
    at_rest: u32,
    /// Of these, in their line, so many at the head do not stay frozen by now.
    resumed: u32,
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

/// Containers of a service on an instance, by position, in the order in which they would be given up: the youngest
/// first, but those who have not run their `min_runtime_ms` last.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    grown: &'a [u32],
    young: &'a [u32],
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
        let kept = self.kept[at];
        self.written[at].get_or_insert_with(|| Box::new(kept.clone()))
    }
}

impl<'a> Line<'a> {
    /// From a place in the line on: places, each with the position of who stands there.
    pub(crate) fn from(self, place: usize) -> impl Iterator<Item = (usize, usize)> + use<'a> {
        let grown = self.grown.get(place..).unwrap_or_default();
        let young = self.young.get(place.saturating_sub(self.grown.len())..).unwrap_or_default();
        (place..).zip(grown.iter().chain(young)).map(|(place, &at)| (place, at as usize))
    }
}

impl Fate {
    /// Whether the container runs or will, as far as is decided.
    pub(crate) const fn is_kept(self) -> bool {
        matches!(self, Self::Stays(Standing::Settled | Standing::Busy | Standing::Waiting) | Self::Lends)
    }

    /// Whether it is frozen and stays so, as far as is decided.
    pub(crate) const fn is_frozen(self) -> bool {
        matches!(self, Self::Stays(Standing::Frozen))
    }

    /// Whether the container, of which this is the fate, is a standby or becomes one.
    pub(crate) fn is_standby(self, container: &Container) -> bool {
        match self {
            Self::Stays(Standing::Frozen) => !container.outdated,
            Self::Goes { freeze, .. } => freeze,
            Self::Stays(Standing::Leaving) => container.operation == Some(Operation::Freeze),
            _ => false,
        }
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
            id,
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
            tallies: Arc::default(),
            lines: Arc::default(),
            going: Vec::new(),
            ending: Vec::new(),
            preempted: Whose::Nobodys,
            waited_for: Vec::new(),
            has_litter: false,
        };
        let mut lenders: Vec<ContainerKey> = Vec::new();
        for container in containers {
            if let Some(Operation::Start { after } | Operation::Thaw { after } | Operation::Evict { after }) =
                &container.operation
            {
                spot.waited_for.extend(after);
                if matches!(container.operation, Some(Operation::Evict { .. })) {
                    lenders.extend(after.iter().filter(|key| key.service == container.key.service));
                }
            }
        }
        spot.waited_for.sort_unstable();
        lenders.sort_unstable();
        // Only to its like: anything else may take more than it has.
        let lends = |key: &ContainerKey| {
            lenders.binary_search(key).is_ok()
                && key.instance == id
                && state.container(*key).is_some_and(|lender| lender.operation == Some(Operation::Freeze))
        };
        let mut borrowed = BTreeSet::new();
        let stays = |key: &ContainerKey| {
            !left(*key)
                && state.container(*key).is_some_and(|other| other.standing(left) != Standing::Leaving)
        };
        let mut lines = vec![0; containers.len()];
        let mut tallies = Vec::new();
        let mut taken = Resources::ZERO;
        let mut waiting = Vec::new();
        for of_service in containers.chunk_by(|a, b| a.key.service == b.key.service) {
            let service = of_service[0].key.service;
            let request = state.service(service).request;
            let mut group = Group::new(service, spot.fates.len(), of_service.len());
            let mut tally = Tally::default();
            for container in of_service {
                let standing = container.standing(left);
                if instance.state == InstanceState::Lost {
                    spot.fates.push(Fate::Lost);
                    tally.on_lost += u32::from(Fate::Stays(standing).is_kept());
                    continue;
                }
                spot.fates.push(Fate::Stays(standing));
                taken = taken.plus(container.takes(standing, request));
                group.count_in(container, standing);
                if Fate::Stays(standing).is_kept() {
                    tally.count_in(Counted::at_any_time(container, instance.state));
                }
                match standing {
                    Standing::Settled | Standing::Busy => spot.committed = spot.committed.plus(request),
                    Standing::Waiting => {
                        spot.committed = spot.committed.plus(request);
                        waiting.push(container);
                    }
                    // What lends its room has it again soon; until then it is on its way.
                    Standing::Leaving if lends(&container.key) => {
                        spot.committed = spot.committed.plus(request);
                        group.count += 1;
                        tally.count_in(Counted::on_its_way(container, instance.state));
                    }
                    Standing::Ending => {
                        spot.frozen.add(request);
                        let after: &[ContainerKey] = match &container.operation {
                            Some(Operation::Evict { after }) => after,
                            _ => &[],
                        };
                        let mut is_lent = |key: &ContainerKey| {
                            key.service == service && lends(key) && borrowed.insert(*key)
                        };
                        if after.iter().any(stays) {
                            // What was to lend its room keeps it: until the end is given up, nobody is to wait for it.
                            spot.committed = spot.committed.plus(request.when_frozen());
                            waiting.push(container);
                        } else if after.is_empty() || after.iter().any(&mut is_lent) {
                            spot.leaving.push((container.key, request.when_frozen()));
                        } else {
                            // What was to lend its room leaves it for good, or is lending it: one after the other.
                            spot.leaving.push((container.key, request));
                            waiting.push(container);
                        }
                    }
                    Standing::Leaving => {
                        tally.leaving += 1;
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
            group.line_up(containers, &spot.fates, &mut lines);
            spot.groups.push(group);
            tallies.push((service, tally));
        }
        spot.tallies = tallies.into();
        spot.lines = lines.into();
        spot.free_now = instance.capacity.minus(taken);
        spot.overfull = !taken.fits(instance.capacity);
        spot.overfull_beyond_swaps = spot.overfull && !spot.covers_swaps(state, id, taken);
        spot.promise(state, waiting);
        spot
    }

    /// Whoever waits already has a claim: first on the room that it waits for, then on what is free, then, to
    /// be safe, on whatever else is being cleared. Those with the least to choose from come first.
    fn promise(&mut self, state: &State, mut waiting: Vec<&Container>) {
        // Of those who leave, in their order, whom a container waits for.
        let waits_for = |container: &Container, leaving: &[(ContainerKey, Resources)]| match &container
            .operation
        {
            Some(Operation::Start { after } | Operation::Thaw { after } | Operation::Evict { after }) => {
                let place = |key: &ContainerKey| leaving.binary_search_by_key(key, |&(other, _)| other).ok();
                let mut places: Vec<usize> = after.iter().filter_map(place).collect();
                places.sort_unstable();
                places.dedup();
                places
            }
            _ => Vec::new(),
        };
        waiting.sort_by_cached_key(|container| (waits_for(container, &self.leaving).len(), container.key));
        // Of those who leave, so many at the head have nothing to give any more.
        let mut spent = 0;
        for container in waiting {
            let mut lacks = container.lacks(state.service(container.key.service).request);
            let mut draw = |from: &mut Resources| {
                let drawn = lacks.cut_to(*from);
                *from = from.minus(drawn);
                lacks = lacks.minus(drawn);
                lacks.is_zero()
            };
            for place in waits_for(container, &self.leaving) {
                draw(&mut self.leaving[place].1);
            }
            if !draw(&mut self.free_now) {
                spent += self.leaving[spent..].iter().take_while(|(_, room)| room.is_zero()).count();
                for (_, room) in &mut self.leaving[spent..] {
                    if draw(room) {
                        break;
                    }
                }
            }
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
            let from = self.groups.get(at).map_or(self.fates.len(), |next| next.from as usize);
            self.groups.insert(at, Group::new(service, from, 0));
            at
        });
        &mut self.groups[at]
    }

    /// Writes down what becomes of the container at a position.
    pub(crate) fn decide(&mut self, position: usize, fate: Fate, container: &Container) {
        let before = std::mem::replace(&mut self.fates[position], fate);
        let group = self.group_mut(container.key.service);
        group.count = group.count + u32::from(fate.is_kept()) - u32::from(before.is_kept());
        group.frozen = group.frozen + u32::from(fate.is_frozen()) - u32::from(before.is_frozen());
        group.standbys =
            group.standbys + u32::from(fate.is_standby(container)) - u32::from(before.is_standby(container));
        if fate == Fate::Stays(Standing::Settled) {
            group.passed = 0;
        } else if fate.is_frozen() {
            group.resumed = 0;
        }
    }

    /// Counts those at the heads of a service's lines about whom something is decided by now.
    pub(crate) fn pass(&mut self, service: ServiceId, state: &State, now: Millis) {
        let Some(group) = self.group(service) else { return };
        let goes = |&(_, at): &(usize, usize)| self.fates[at] != Fate::Stays(Standing::Settled);
        let line = self.in_line(group, state, now);
        let passed = line.map_or(0, |line| line.from(group.passed as usize).take_while(goes).count());
        let resumed = self.at_rest(group).take_while(|&at| !self.fates[at as usize].is_frozen()).count();
        let group = self.group_mut(service);
        group.passed += counted(passed);
        group.resumed += counted(resumed);
    }

    /// Decides that a container goes.
    pub(crate) fn send(&mut self, going: Going, container: &Container) {
        let preempted = matches!(going.reason, StopReason::Preempted { .. });
        self.decide(going.position as usize, Fate::Goes { freeze: going.freeze, preempted }, container);
        if self.going.is_empty() {
            self.going.reserve(SEVERAL);
        }
        self.going.push(going);
        if preempted {
            let one = Whose::One(container.key.service, going.freeze);
            let its = if going.suspended { Whose::Several } else { one };
            let alike = self.preempted == Whose::Nobodys || self.preempted == its;
            self.preempted = if alike { its } else { Whose::Several };
        }
    }

    /// Takes back that the container at a position goes.
    pub(crate) fn keep(&mut self, position: usize, standing: Standing, container: &Container) {
        self.decide(position, Fate::Stays(standing), container);
        self.going.retain(|going| going.position as usize != position);
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
            Fate::Goes { .. } => self.going.iter().find(|going| going.position as usize == position).copied(),
            _ => None,
        }
    }

    /// Of a group those whom nobody had told anything when the plan began and who have no fault, in the order in which
    /// they would be given up; `None` if one is said to begin later than now: then that is not known.
    pub(crate) fn in_line(&self, group: &Group, state: &State, now: Millis) -> Option<Line<'_>> {
        if group.youngest_since > now {
            return None;
        }
        let youngest_first = &self.lines[group.from as usize..(group.from + group.at_hand) as usize];
        let min_runtime_ms = state.service(group.service).min_runtime_ms;
        let young = if min_runtime_ms == 0 {
            0
        } else {
            let containers = state.containers_on(self.id);
            let age_ms = |at: u32| now.since(containers[at as usize].since);
            youngest_first.partition_point(|&at| age_ms(at) < min_runtime_ms)
        };
        let (young, grown) = youngest_first.split_at(young);
        Some(Line { grown, young })
    }

    /// Of a group those whom nobody has told anything when the plan began and who are frozen and may be resumed, as
    /// positions, the one with the most work first; from the first on that stays frozen, as far as is decided.
    pub(crate) fn at_rest(&self, group: &Group) -> impl Iterator<Item = u32> {
        let from = group.from + group.at_hand;
        self.lines[(from + group.resumed) as usize..(from + group.at_rest) as usize].iter().copied()
    }
}

impl Group {
    fn new(service: ServiceId, from: usize, count: usize) -> Self {
        Self {
            service,
            from: counted(from),
            to: counted(from + count),
            count: 0,
            frozen: 0,
            standbys: 0,
            borrowing: 0,
            at_hand: 0,
            passed: 0,
            youngest_since: Millis(0),
            at_rest: 0,
            resumed: 0,
            has_faults: false,
            is_uniform: true,
            in_transit: false,
        }
    }

    /// Positions in [`State::containers_on`].
    pub(crate) const fn positions(&self) -> Range<usize> {
        self.from as usize..self.to as usize
    }

    fn count_in(&mut self, container: &Container, standing: Standing) {
        let fate = Fate::Stays(standing);
        self.count += u32::from(fate.is_kept());
        self.frozen += u32::from(fate.is_frozen());
        self.standbys += u32::from(fate.is_standby(container));
        let evicted = matches!(container.operation, Some(Operation::Evict { .. }));
        self.borrowing += u32::from(evicted && standing == Standing::Leaving);
        let settled = standing == Standing::Settled;
        if settled && container.fault.is_none() {
            self.at_hand += 1;
            self.youngest_since = self.youngest_since.max(container.since);
        }
        self.at_rest += u32::from(may_be_resumed(container, fate));
        self.has_faults |= settled && container.fault.is_some();
        self.in_transit |= settled && !container.runs() && !container.is_unhealthy()
            || matches!(standing, Standing::Busy | Standing::Waiting | Standing::Leaving);
        self.is_uniform &= settled && container.runs() && !container.outdated || !fate.is_kept();
    }

    /// Writes down who stands in which line, and in which order.
    fn line_up(&self, containers: &[Container], fates: &[Fate], lines: &mut [u32]) {
        let (at_hand, behind) = lines[self.positions()].split_at_mut(self.at_hand as usize);
        let at_rest = &mut behind[..self.at_rest as usize];
        let is_at_hand =
            |at: &usize| fates[*at] == Fate::Stays(Standing::Settled) && containers[*at].fault.is_none();
        for (place, at) in at_hand.iter_mut().zip(self.positions().filter(is_at_hand)) {
            *place = counted(at);
        }
        at_hand.sort_unstable_by_key(|&at| (std::cmp::Reverse(containers[at as usize].since), at));
        let is_at_rest = |at: &usize| may_be_resumed(&containers[*at], fates[*at]);
        for (place, at) in at_rest.iter_mut().zip(self.positions().filter(is_at_rest)) {
            *place = counted(at);
        }
        at_rest.sort_unstable_by_key(|&at| (containers[at as usize].since, at));
    }
}

/// Whether a container that is told nothing else could be resumed.
fn may_be_resumed(container: &Container, fate: Fate) -> bool {
    fate.is_frozen() && container.operation.is_none() && !container.outdated
}

/// Positions, and numbers of containers of an instance.
pub(crate) fn counted(count: usize) -> u32 {
    u32::try_from(count).expect("containers of an instance are counted in u32")
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
