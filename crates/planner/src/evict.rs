//! Evicting: frozen containers that are to end, and that have no room to end in.
//!
//! An engine resumes a frozen container to end it, which takes a slot for that moment. Where none is free and none is
//! about to be, the youngest running container of its service lends its own: it is frozen until the other has ended,
//! and loses no more than that time. Where there is no such one, the frozen one waits for `evict_after_ms`, and is then
//! killed in its freezer: it never runs again, so it takes no slot, and what it had done is lost.
//!
//! This comes after everything that is wanted has been placed: what ends is in nobody's way but in memory, and an
//! instance that holds too much of that waits for nothing.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use crate::board::Board;
use crate::model::{
    Container, ContainerKey, InstanceId, InstanceState, OnPreempt, Operation, Resources, ServiceId,
};
use crate::reasons::StopReason;
use crate::spot::{Ending, Fate};
use crate::standing::Standing;
use crate::targets::{Notes, Want};
use crate::victims::Claimant;

impl Board<'_> {
    /// Ends what is frozen beyond the bounds of its instance, and what was to end before and had no room for it; hands
    /// back, sorted, what still has none.
    pub(crate) fn evict(&mut self, wants: &[Want], notes: &mut Notes) -> Vec<ContainerKey> {
        let mut waiting = Vec::new();
        for instance in self.state.instance_ids() {
            let spot = &self.spots[instance.index()];
            if spot.state != InstanceState::Lost && spot.frozen.count > 0 {
                self.evict_on(instance, wants, notes, &mut waiting);
            }
        }
        waiting.sort_unstable();
        waiting
    }

    /// Whether it is frozen, and nothing is done to it.
    pub(crate) fn is_frozen(&self, instance: InstanceId, position: usize) -> bool {
        self.spots[instance.index()].fates[position] == Fate::Stays(Standing::Frozen)
            && self.container(instance, position).operation.is_none()
    }

    fn evict_on(
        &mut self,
        instance: InstanceId,
        wants: &[Want],
        notes: &mut Notes,
        waiting: &mut Vec<ContainerKey>,
    ) {
        let mut to_end = self.spots[instance.index()].to_end.clone();
        to_end.retain(|&(at, _)| self.is_frozen(instance, at));
        // What takes too much goes first; it may be in the list for another reason as well.
        to_end.sort_by_key(|&(at, reason)| (reason != StopReason::OverCapacity, at));
        let mut seen = BTreeSet::new();
        to_end.retain(|&(at, _)| seen.insert(at));
        to_end.extend(self.beyond_bounds(instance, &seen));
        let arrivals = self.spots[instance.index()].arrivals.iter();
        let claimed = arrivals.fold(Resources::ZERO, |sum, arrival| sum.plus(self.to_arrive(arrival)));
        // One at a time.
        let mut is_evicting = self.is_evicting(instance);
        for (at, reason) in to_end {
            let key = self.container(instance, at).key;
            let takes = self.to_end(key.service);
            let spot = &self.spots[instance.index()];
            if takes.fits(spot.free_now.minus(claimed)) {
                self.send_away(instance, at, reason, false);
            } else if is_evicting || spot.committed.plus(takes).fits(spot.capacity) {
                waiting.push(key);
            } else if let Some(lender) = self.lender(instance, at, wants) {
                if self.is_giving_up_an_old_one(key.service) {
                    // Its successor counts on all that run; the next plan knows that the old one has been told.
                    waiting.push(key);
                    continue;
                }
                is_evicting = true;
                self.end(instance, at, reason, Some(lender));
            } else {
                let since = self.state.waits_to_end_since(key).unwrap_or(self.now);
                let due = since.plus(self.state.instance(instance).evict_after_ms);
                if reason == StopReason::OverCapacity || due <= self.now {
                    self.end(instance, at, reason, None);
                } else {
                    notes.wake(due);
                    waiting.push(key);
                }
            }
        }
    }

    /// What is to end so that an instance keeps to its bounds, besides what ends already: the least important first, and
    /// of these the one with the least work in it.
    fn beyond_bounds(&self, instance: InstanceId, ending: &BTreeSet<usize>) -> Vec<(usize, StopReason)> {
        let spot = &self.spots[instance.index()];
        let bounds = self.state.instance(instance);
        if spot.frozen.within(bounds) {
            return Vec::new();
        }
        let mut frozen = spot.frozen;
        let request = |at: usize| self.request(self.container(instance, at).key.service);
        let is_ending = |at: &usize| spot.fates[*at] == Fate::Stays(Standing::Ending);
        let ends_already = (0..spot.fates.len()).filter(is_ending);
        ends_already.chain(ending.iter().copied()).for_each(|at| frozen.take(request(at)));
        if frozen.within(bounds) {
            return Vec::new();
        }
        let mut rest: Vec<usize> = (0..spot.fates.len())
            .filter(|&at| self.is_frozen(instance, at) && !ending.contains(&at))
            .collect();
        rest.sort_by_key(|&at| {
            let container = self.container(instance, at);
            let priority = self.state.service(container.key.service).priority;
            (Reverse(priority), self.work_ms(container), Reverse(at))
        });
        let mut beyond = Vec::new();
        for at in rest {
            if frozen.within(bounds) {
                break;
            }
            frozen.take(request(at));
            beyond.push((at, StopReason::FrozenBound));
        }
        beyond
    }

    /// Whether one is being ended in lent room there already.
    fn is_evicting(&self, instance: InstanceId) -> bool {
        let mut there = self.state.containers_on(instance).iter();
        there.any(|container| matches!(container.operation, Some(Operation::Evict { .. })))
    }

    /// The youngest running container of the same service, if those may be frozen, and resumed afterwards.
    fn lender(&self, instance: InstanceId, position: usize, wants: &[Want]) -> Option<usize> {
        let id = self.container(instance, position).key.service;
        let service = self.state.service(id);
        if service.on_preempt != OnPreempt::Freeze
            || service.removed
            || self.state.instance(instance).frozen_max == 0
            || wants[id.index()].unknown
            || wants[id.index()].held.is_some()
            || !self.accepts(&Claimant::of(id, service.priority), instance)
        {
            return None;
        }
        self.positions(instance, id)
            .filter(|&at| {
                let container = self.container(instance, at);
                self.spots[instance.index()].fates[at] == Fate::Stays(Standing::Settled)
                    && container.runs()
                    && container.operation.is_none()
                    && !container.outdated
            })
            .max_by_key(|&at| (self.container(instance, at).since, at))
    }

    /// Whether an outdated container of the service that runs goes by this plan, because others run in its place.
    fn is_giving_up_an_old_one(&self, id: ServiceId) -> bool {
        let old =
            |container: &Container| container.key.service == id && container.outdated && container.runs();
        self.tallies[id.index()].replaces
            && self.spots.written().any(|(instance, spot)| {
                spot.going.iter().any(|going| old(self.container(instance, going.position as usize)))
            })
    }

    fn end(&mut self, instance: InstanceId, position: usize, reason: StopReason, lender: Option<usize>) {
        let container = self.container(instance, position);
        let lends = lender.map(|position| (position, self.container(instance, position)));
        let spot = &mut self.spots[instance.index()];
        spot.decide(position, Fate::Ends, container);
        spot.ending.push(Ending { position, reason, lender });
        if let Some((position, container)) = lends {
            spot.decide(position, Fate::Lends, container);
        }
    }
}
