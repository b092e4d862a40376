//! Victims: which containers of an instance give up their room for more important work there.
//!
//! The order in which containers are offered is the order of what is lost with them: first those that are
//! to go anyway, then the least important; among equals those above their share, those that have run their
//! `min_runtime_ms`, those that do no work because they are unhealthy, the youngest. A victim rule is changed here, in
//! [`Offer`]; `Board::in_line` has to keep the same order within a service.

use std::cmp::Reverse;

use crate::board::Board;
use crate::model::{InstanceId, Millis, Phase, Resources, ServiceId};
use crate::reasons::StopReason;
use crate::spot::{Fate, Frozen, Going, Group, Whose};
use crate::standing::Standing;

/// For whom room is made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claimant {
    pub(crate) service: ServiceId,
    pub(crate) priority: u32,
    /// It has less than its share: equals above theirs are offered too.
    pub(crate) below_share: bool,
    /// Whatever is less important than this gives way.
    pub(crate) above: u32,
    /// The instance itself, which holds too much: what can't be told to go at this moment is offered too.
    pub(crate) relief: bool,
}

impl Loss {
    /// The same order in one number, the work aside: quick to compare.
    pub(crate) fn rank(self) -> u128 {
        let of = |part: u32, shift: u32| u128::from(part) << shift;
        of(self.importance, 65) | of(self.within_share.into(), 64) | of(self.stops, 32) | of(self.young, 0)
    }

    fn add(&mut self, offer: &Offer, work_ms: u64) {
        let importance = u32::MAX - offer.priority.0;
        if importance >= self.importance {
            self.within_share = offer.within_share || (importance == self.importance && self.within_share);
            self.importance = importance;
        }
        self.stops += 1;
        self.young += u32::from(offer.young);
        self.work_ms = self.work_ms.saturating_add(work_ms);
    }
}

impl Claimant {
    /// A service that makes room among what is less important than itself.
    pub(crate) const fn of(service: ServiceId, priority: u32) -> Self {
        Self { service, priority, above: priority, below_share: false, relief: false }
    }

    /// The instance itself: everything there is less important than that it keeps to its capacity.
    const RELIEF: Self = Self { relief: true, ..Self::of(ServiceId(u32::MAX), 0) };
}

/// What is lost when some containers give up their room; smaller is better.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Loss {
    /// The importance of the most important victim: 0 for none, larger for smaller priority numbers.
    importance: u32,
    /// Whether it was within its service's share.
    within_share: bool,
    /// How many are lost.
    stops: u32,
    /// How many of them are younger than their service's `min_runtime_ms`.
    young: u32,
    /// Milliseconds that the stopped ones have run; those that are frozen lose none.
    pub(crate) work_ms: u64,
}

/// What gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    /// A start that this plan had decided for an equal beyond its share, by its position in the arrivals.
    Arrival(usize),
    /// A container, by its position on the instance.
    Container(usize),
}

/// A container that gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Victim {
    who: Who,
    /// It is frozen for it, not stopped.
    freeze: bool,
    /// Its service has too many: it goes in any case.
    surplus: bool,
}

/// A way to make room on an instance.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clearing {
    victims: Vec<Victim>,
    /// The only one, where one is enough: most often, so it is kept without a list.
    only: Option<Victim>,
    /// They go beside what was sent away before for the same instance, all of which is needed still.
    beside: bool,
    pub(crate) loss: Loss,
    /// A frozen container among them can't be ended before a running one has left its slot.
    pub(crate) deferred: bool,
}

/// Who is the next to give way on an instance, as far as that can be told at once.
enum Next {
    /// This one.
    Victim(Clearing),
    /// There is nobody, and so no way to make room.
    Nobody,
    /// It takes a choice among all that could give way.
    Unclear,
}

/// One container that could give way. The order of the fields is the order in which they are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one step of an order, compared and never branched on"
)]
struct Offer {
    /// It was not sent away before, for an earlier claimant: to choose it costs something.
    fresh: bool,
    /// Its service has more than its target: it would be stopped in any case.
    needed: bool,
    /// The least important first.
    priority: Reverse<u32>,
    /// Its service is not above its share.
    within_share: bool,
    /// It is younger than its service's `min_runtime_ms`.
    young: bool,
    /// A suspended one loses no running work.
    running: bool,
    /// The work that would be lost.
    work_ms: u64,
    service: ServiceId,
    who: Who,
}

impl Clearing {
    fn all(&self) -> impl Iterator<Item = &Victim> {
        self.victims.iter().chain(&self.only)
    }
}

impl Board<'_> {
    /// The least costly way to make room for `needs` more on an instance; `None` if there is none.
    ///
    /// What an earlier choice for the same instance sent away is chosen anew along with it, so that no stop of
    /// the whole is superfluous.
    pub(crate) fn clearing(
        &self,
        instance: InstanceId,
        needs: Resources,
        claimant: &Claimant,
    ) -> Option<Clearing> {
        let spot = &self.spots[instance.index()];
        if spot.committed.plus(needs).fits(spot.capacity) {
            return Some(Clearing { beside: true, ..Clearing::default() });
        }
        let at_once = match self.next_in_line(instance, needs, claimant) {
            Next::Victim(clearing) => Some(clearing),
            Next::Nobody => None,
            Next::Unclear => return self.choose_anew(instance, needs, claimant),
        };
        debug_assert!(
            self.is_as_chosen(instance, needs, claimant, at_once.as_ref()),
            "the short way is the long one's"
        );
        at_once
    }

    /// The answer of [`Self::choose_anew`], where looking at the first offer of each service is enough to tell it.
    ///
    /// That is so where the first offer leaves room enough, and those that went before gave as much as it does: then all
    /// of them are needed still. Where something is frozen it must not be memory that is wanted, for then what is frozen
    /// has nothing to give.
    fn next_in_line(&self, instance: InstanceId, needs: Resources, claimant: &Claimant) -> Next {
        let spot = &self.spots[instance.index()];
        let wanted = spot.committed.plus(needs);
        let before = match spot.whose_are_preempted() {
            Whose::Nobodys => None,
            Whose::One(service, freeze) => Some((service, freeze)),
            Whose::Several => return Next::Unclear,
        };
        let one_by_one = !claimant.below_share && !claimant.relief && claimant.above == claimant.priority;
        let is_above = |service: ServiceId| self.state.service(service).priority <= claimant.priority;
        let wants_frozen = spot.frozen.count > 0 && wanted.memory_mib > spot.capacity.memory_mib;
        if !one_by_one || wants_frozen || before.is_some_and(|(service, _)| is_above(service)) {
            return Next::Unclear;
        }
        let mut first: Option<Offer> = None;
        for group in spot.groups.iter().filter(|group| !is_above(group.service)) {
            let undecided = |at: &usize| spot.fates[*at] == Fate::Stays(Standing::Settled);
            let has_fault = |at: &usize| self.container(instance, *at).fault.is_some();
            let Some(line) = self.in_line(instance, group) else { return Next::Unclear };
            let in_line = line.from(group.passed as usize).map(|(_, at)| at).find(undecided);
            // Those who have a fault stand beside the line.
            let beside = || group.positions().filter(has_fault).find(undecided);
            let beside = if group.has_faults { beside() } else { None };
            for position in in_line.into_iter().chain(beside) {
                let container = self.container(instance, position);
                let tally = &self.tallies[group.service.index()];
                let offer = Offer {
                    fresh: true,
                    needed: tally.surplus() == 0,
                    priority: Reverse(self.state.service(group.service).priority),
                    within_share: tally.over_share() == 0,
                    young: self.is_young(container),
                    running: true,
                    work_ms: self.work_ms(container),
                    service: group.service,
                    who: Who::Container(position),
                };
                first = Some(first.map_or(offer, |other| other.min(offer)));
            }
        }
        let Some(offer) = first else { return Next::Nobody };
        let freeze = self.freezes(offer.service);
        if freeze && !(self.runs(instance, offer.who) && self.may_freeze(instance, offer.service)) {
            return Next::Unclear;
        }
        let gives = self.gives(instance, offer.who, freeze);
        // One that was stopped for want of a place among the frozen may have one by now.
        let is_alike = |(service, frozen)| {
            (frozen, self.freezes(service)) == (freeze, freeze)
                && self.request(service) == self.request(offer.service)
        };
        // What was frozen before may be stopped by now: a place that others' standbys lack is kept from it.
        let is_held = |(service, frozen): (ServiceId, bool)| {
            !frozen || self.may_hold(instance, spot.frozen, self.state.service(service).priority)
        };
        let as_before = before.is_none_or(|one| is_alike(one) && is_held(one));
        if !as_before || !wanted.minus(gives).fits(spot.capacity) {
            return Next::Unclear;
        }
        let only = Some(Victim { who: offer.who, freeze, surplus: !offer.needed });
        let mut loss = Loss::default();
        if offer.needed {
            loss.add(&offer, if freeze { 0 } else { offer.work_ms });
        }
        Next::Victim(Clearing { only, beside: true, loss, ..Clearing::default() })
    }

    /// Whether the short way comes to the same as the long one.
    fn is_as_chosen(
        &self,
        instance: InstanceId,
        needs: Resources,
        claimant: &Claimant,
        at_once: Option<&Clearing>,
    ) -> bool {
        let all = |clearing: &Clearing| {
            let mut victims: Vec<Victim> = clearing.all().copied().collect();
            if clearing.beside {
                victims.extend(self.revocable(instance, claimant));
            }
            victims.sort_unstable_by_key(|victim| victim.who);
            let told: Vec<(Who, bool)> = victims.iter().map(|victim| (victim.who, victim.freeze)).collect();
            (told, clearing.loss, clearing.deferred)
        };
        self.choose_anew(instance, needs, claimant).as_ref().map(all) == at_once.map(all)
    }

    /// Chooses among all that could give way, those included that went before.
    fn choose_anew(&self, instance: InstanceId, needs: Resources, claimant: &Claimant) -> Option<Clearing> {
        let spot = &self.spots[instance.index()];
        let offers = self.offers(instance, claimant);
        // What is gone by an earlier choice and may be chosen anew is counted as still there.
        let mut committed = spot.committed.plus(needs);
        for victim in self.revocable(instance, claimant) {
            committed = committed.plus(self.gives(instance, victim.who, victim.freeze));
        }
        let (clearing, enough) = self.choose(instance, committed, needs, &offers);
        enough.then_some(clearing)
    }

    /// Carries a clearing out: `reason` tells why each victim goes.
    pub(crate) fn clear(&mut self, instance: InstanceId, clearing: &Clearing, claimant: &Claimant) {
        let before = if clearing.beside { Vec::new() } else { self.revocable(instance, claimant) };
        for before in before {
            if let Who::Container(position) = before.who
                && clearing.all().all(|victim| victim.who != before.who)
            {
                self.call_back(instance, position);
            }
        }
        let mut cancelled: Vec<usize> = Vec::new();
        for victim in clearing.all() {
            let position = match victim.who {
                Who::Container(position) => position,
                Who::Arrival(arrival) => {
                    cancelled.push(arrival);
                    continue;
                }
            };
            if clearing.deferred && !self.may_go_now(instance, position) {
                continue;
            }
            let id = self.container(instance, position).key.service;
            let tally = &self.tallies[id.index()];
            let by = claimant.service;
            let reason = if victim.surplus {
                StopReason::Surplus { have: tally.kept, target: tally.limit }
            } else if self.state.service(id).priority == claimant.priority {
                StopReason::Share { by }
            } else {
                StopReason::Preempted { by }
            };
            self.send_away(instance, position, reason, victim.freeze);
        }
        cancelled.sort_unstable();
        for arrival in cancelled.into_iter().rev() {
            self.turn_back(instance, arrival);
        }
    }

    /// What is frozen on an instance once a clearing is carried out.
    pub(crate) fn frozen_after(&self, instance: InstanceId, clearing: &Clearing) -> Frozen {
        let request = |victim: &Victim| self.request(self.service_of(instance, victim.who));
        let frozen = self.spots[instance.index()].frozen;
        let more = |victim: &&Victim| victim.freeze && !self.is_going(instance, victim.who);
        clearing.all().filter(more).fold(frozen, |sum, victim| sum.with(request(victim)))
    }

    /// Brings an instance that holds more than its capacity back under it, the least important first; as near to it
    /// as it can.
    ///
    /// What can't be told to go at this moment counts as going when its turn comes, so that nothing more
    /// important goes in its place.
    pub(crate) fn relieve(&mut self, instance: InstanceId) {
        let spot = &self.spots[instance.index()];
        if spot.committed.fits(spot.capacity) {
            return;
        }
        let offers = self.offers(instance, &Claimant::RELIEF);
        let (clearing, _) = self.choose(instance, spot.committed, Resources::UNBOUNDED, &offers);
        // Too much memory in frozen containers, and no slot that one could end in: if none is on its way, they are
        // evicted.
        let slot_comes =
            !spot.leaving.is_empty() || clearing.all().any(|victim| !self.is_suspended(instance, victim.who));
        for &Victim { who, freeze, .. } in clearing.all() {
            let Who::Container(position) = who else { continue };
            if self.container(instance, position).operation.is_some() {
                continue;
            }
            if self.may_go_now(instance, position) {
                self.send_away(instance, position, StopReason::OverCapacity, freeze);
            } else if !slot_comes {
                self.spots[instance.index()].to_end.push((position, StopReason::OverCapacity));
            }
        }
    }

    /// When the next equal above its share will have run its time, if `claimant` waits for one.
    pub(crate) fn share_wait(&self, claimant: &Claimant) -> Option<Millis> {
        let mut earliest = None;
        for instance in self.state.instance_ids() {
            if self.spots[instance.index()].state != crate::InstanceState::Ready {
                continue;
            }
            let spot = &self.spots[instance.index()];
            for group in &spot.groups {
                let service = self.state.service(group.service);
                if service.priority != claimant.priority
                    || service.min_runtime_ms == 0
                    || group.service == claimant.service
                    || self.tallies[group.service.index()].over_share() == 0
                {
                    continue;
                }
                let settled = |&at: &usize| spot.fates[at] == Fate::Stays(Standing::Settled);
                let since = |at: usize| self.container(instance, at).since;
                let dues = group.positions().filter(settled).map(|at| since(at).plus(service.min_runtime_ms));
                earliest = dues.filter(|&due| due > self.now).chain(earliest).min();
            }
        }
        earliest
    }

    /// Containers that an earlier choice sent away from this instance, and that are less important than the
    /// claimant: with its own room to make, they may turn out not to be needed.
    fn revocable(&self, instance: InstanceId, claimant: &Claimant) -> Vec<Victim> {
        let spot = &self.spots[instance.index()];
        spot.preempted()
            .map(|&Going { position, freeze, .. }| Victim {
                who: Who::Container(position as usize),
                freeze,
                surplus: false,
            })
            .filter(|victim| {
                self.state.service(self.service_of(instance, victim.who)).priority > claimant.priority
            })
            .collect()
    }

    fn service_of(&self, instance: InstanceId, who: Who) -> ServiceId {
        match who {
            Who::Arrival(at) => self.spots[instance.index()].arrivals[at].service,
            Who::Container(position) => self.container(instance, position).key.service,
        }
    }

    fn is_going(&self, instance: InstanceId, who: Who) -> bool {
        matches!(who, Who::Container(position)
            if matches!(self.spots[instance.index()].fates[position], Fate::Goes { .. }))
    }

    fn runs(&self, instance: InstanceId, who: Who) -> bool {
        matches!(who, Who::Container(position) if self.container(instance, position).runs())
    }

    /// Whether it is frozen, and not on its way to running again: then it gives back no more than its memory.
    fn is_suspended(&self, instance: InstanceId, who: Who) -> bool {
        let Who::Container(position) = who else { return false };
        let thaws = Fate::is_kept(self.spots[instance.index()].fates[position]);
        self.container(instance, position).phase == Phase::Frozen && !thaws
    }

    fn gives(&self, instance: InstanceId, who: Who, freeze: bool) -> Resources {
        let request = self.request(self.service_of(instance, who));
        if self.is_suspended(instance, who) {
            request.when_frozen()
        } else if freeze {
            request.minus(request.when_frozen())
        } else {
            request
        }
    }

    /// What the instance can offer, in the order in which it is taken.
    fn offers(&self, instance: InstanceId, claimant: &Claimant) -> Vec<Offer> {
        let spot = &self.spots[instance.index()];
        let mut offers: Vec<Offer> = Vec::new();
        let can_give = |group: &&Group| {
            let priority = self.state.service(group.service).priority;
            priority > claimant.above || claimant.below_share && priority == claimant.priority
        };
        for position in spot.groups.iter().filter(can_give).flat_map(Group::positions) {
            let fate = &spot.fates[position];
            let container = self.container(instance, position);
            let id = container.key.service;
            let service = self.state.service(id);
            let (there, fresh) = match *fate {
                Fate::Stays(Standing::Settled | Standing::Frozen) if container.operation.is_none() => {
                    (true, true)
                }
                Fate::Stays(Standing::Busy | Standing::Waiting | Standing::Frozen) => (claimant.relief, true),
                Fate::Goes { preempted: true, .. } => (service.priority > claimant.priority, false),
                _ => (false, false),
            };
            let work_ms = self.work_ms(container);
            let young = self.is_young(container);
            let equal_gives = claimant.below_share
                && service.priority == claimant.priority
                && id != claimant.service
                && !young
                && container.phase != Phase::Frozen
                && self.tallies[id.index()].over_share() > 0;
            let less_important = service.priority > claimant.above;
            if there && (less_important || equal_gives) {
                offers.push(Offer {
                    fresh,
                    needed: true,
                    priority: Reverse(service.priority),
                    within_share: true,
                    young,
                    running: !self.is_suspended(instance, Who::Container(position)),
                    work_ms,
                    service: id,
                    who: Who::Container(position),
                });
            }
        }
        if claimant.below_share {
            self.offer_arrivals(instance, claimant, &mut offers);
        }
        offers.sort_unstable();
        // A service gives only so many as it has too many, the cheapest first.
        let mut taken: Vec<(ServiceId, u32)> = Vec::new();
        for offer in &mut offers {
            if !offer.running || !offer.fresh {
                continue;
            }
            let tally = &self.tallies[offer.service.index()];
            let at = taken.iter().position(|&(service, _)| service == offer.service).unwrap_or_else(|| {
                taken.push((offer.service, 0));
                taken.len() - 1
            });
            offer.needed = taken[at].1 >= tally.surplus();
            offer.within_share = taken[at].1 >= tally.over_share();
            taken[at].1 += 1;
        }
        // An equal gives only what is above its share.
        offers.retain(|offer| offer.priority.0 > claimant.priority || !offer.within_share);
        offers.sort_unstable();
        offers
    }

    /// What this plan was about to start for equals beyond their share: once it ran, it would be offered too.
    fn offer_arrivals(&self, instance: InstanceId, claimant: &Claimant, offers: &mut Vec<Offer>) {
        for (at, arrival) in self.spots[instance.index()].arrivals.iter().enumerate() {
            let service = self.state.service(arrival.service);
            if arrival.priority == claimant.priority
                && arrival.service != claimant.service
                && arrival.thaw.is_none()
                && service.min_runtime_ms == 0
                && self.tallies[arrival.service.index()].over_share() > 0
            {
                offers.push(Offer {
                    fresh: true,
                    needed: true,
                    priority: Reverse(arrival.priority),
                    within_share: true,
                    young: false,
                    running: true,
                    work_ms: 0,
                    service: arrival.service,
                    who: Who::Arrival(at),
                });
            }
        }
    }

    /// The victims that make `committed` fit, and whether they are enough; if not, they are all that help.
    ///
    /// Freezing keeps memory; where that costs more than stopping would, or does not help, they are stopped.
    fn choose(
        &self,
        instance: InstanceId,
        committed: Resources,
        claimed: Resources,
        offers: &[Offer],
    ) -> (Clearing, bool) {
        let (stopped, stopped_enough) = self.choose_by(instance, committed, claimed, offers, false);
        if !offers.iter().any(|offer| self.freezes(offer.service)) {
            return (stopped, stopped_enough);
        }
        let (frozen, enough) = self.choose_by(instance, committed, claimed, offers, true);
        if enough && (!stopped_enough || frozen.loss <= stopped.loss) {
            (frozen, true)
        } else {
            (stopped, stopped_enough)
        }
    }

    /// Takes offers in their order until `committed` fits, then gives back what turns out not to be needed; tells
    /// also whether they were enough. A frozen one is only taken if it can end in what is left in the end, with
    /// the `claimed` part of it.
    fn choose_by(
        &self,
        instance: InstanceId,
        mut committed: Resources,
        claimed: Resources,
        offers: &[Offer],
        freezing: bool,
    ) -> (Clearing, bool) {
        let spot = &self.spots[instance.index()];
        // Those that an earlier choice froze and that are offered again do not count against the bound.
        let mut frozen = spot.frozen;
        for offer in offers {
            if let Who::Container(position) = offer.who
                && matches!(spot.fates[position], Fate::Goes { freeze: true, .. })
            {
                frozen.take(self.request(offer.service));
            }
        }
        let all = committed;
        let mut chosen: Vec<(Offer, bool)> = Vec::new();
        for offer in offers {
            if committed.fits(spot.capacity) {
                break;
            }
            let request = self.request(offer.service);
            let freeze = freezing
                && offer.running
                && self.freezes(offer.service)
                && self.runs(instance, offer.who)
                && self.may_hold(instance, frozen.with(request), offer.priority.0);
            let gives = self.gives(instance, offer.who, freeze);
            if !relieves(committed, spot.capacity, gives) {
                continue;
            }
            if freeze {
                frozen.add(request);
            }
            committed = committed.minus(gives);
            chosen.push((*offer, freeze));
        }
        let enough = committed.fits(spot.capacity);
        // What would be lost goes before what is to go anyway, and the most important first.
        chosen.sort_unstable_by_key(|&(offer, _)| Reverse(Offer { fresh: true, ..offer }));
        chosen.retain(|&(offer, freeze)| {
            let with = committed.plus(self.gives(instance, offer.who, freeze));
            let spared = with.fits(spot.capacity);
            if spared {
                committed = with;
            }
            !spared
        });
        chosen.reverse();
        let ends_in = spot.capacity.minus(committed).plus(claimed);
        let unfit = |offer: &Offer| !offer.running && !self.to_end(offer.service).fits(ends_in);
        if let Some(&(unfit, _)) = chosen.iter().find(|(offer, _)| unfit(offer)) {
            let others: Vec<Offer> = offers.iter().filter(|offer| offer.who != unfit.who).copied().collect();
            return self.choose_by(instance, all, claimed, &others, freezing);
        }
        let mut clearing = Clearing::default();
        let mut transient = spot.free_now;
        for &(offer, freeze) in &chosen {
            let surplus = !offer.needed;
            clearing.victims.push(Victim { who: offer.who, freeze, surplus });
            if offer.fresh && offer.needed {
                clearing.loss.add(&offer, if freeze || !offer.running { 0 } else { offer.work_ms });
            }
            if !offer.running && offer.fresh {
                let takes = self.to_end(offer.service);
                clearing.deferred |= !takes.fits(transient);
                transient = transient.minus(takes);
            }
        }
        (clearing, enough)
    }
}

/// Whether giving `gives` back helps where `committed` is above `capacity`.
fn relieves(committed: Resources, capacity: Resources, gives: Resources) -> bool {
    (committed.slots > capacity.slots && gives.slots > 0)
        || (committed.cpu_millis > capacity.cpu_millis && gives.cpu_millis > 0)
        || (committed.memory_mib > capacity.memory_mib && gives.memory_mib > 0)
}
