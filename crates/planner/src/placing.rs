//! Placing: on which instances the containers that a service lacks are started.
//!
//! Among the instances on which one more can run, the order is: least importance lost, fewest stops, room that
//! is free now, a frozen container to thaw, the service's placement rule, least work lost, name. A placement
//! rule is changed here, in [`Cost`], and nowhere else.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::board::{Arrival, Board, Fate};
use crate::model::{InstanceId, InstanceState, Phase, Placement, Resources};
use crate::reasons::StartReason;
use crate::standing::Standing;
use crate::victims::{Claimant, Clearing, Loss};

/// What it costs to start one more container on an instance; smaller is better, compared field by field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Cost {
    /// Importance lost and the number of stops; the work is compared further down.
    loss: Loss,
    /// It has to wait for something to leave.
    waits: bool,
    /// Nothing is frozen there that could be thawed.
    cold: bool,
    placement: u64,
    work_ms: u64,
    instance: InstanceId,
}

/// One place for one container.
struct Place {
    cost: Cost,
    clearing: Clearing,
    thaw: Option<usize>,
}

impl Board<'_> {
    /// Places up to `count` containers for the claimant, one by one, each where it costs least; returns how many.
    pub(crate) fn place(
        &mut self,
        claimant: &Claimant,
        count: u64,
        reason: impl Fn(u64) -> StartReason,
    ) -> u64 {
        self.place_on(claimant, count, |_| true, reason)
    }

    /// As [`Self::place`], on some instances only.
    pub(crate) fn place_on(
        &mut self,
        claimant: &Claimant,
        count: u64,
        eligible: impl Fn(InstanceId) -> bool,
        reason: impl Fn(u64) -> StartReason,
    ) -> u64 {
        if count == 0 {
            return 0;
        }
        let mut queue: BinaryHeap<Reverse<Cost>> = self
            .state
            .instance_ids()
            .filter(|&instance| eligible(instance) && self.accepts(claimant, instance))
            .filter_map(|instance| self.place_at(claimant, instance))
            .map(|place| Reverse(place.cost))
            .collect();
        let mut placed = 0;
        while placed < count {
            let Some(Reverse(cost)) = queue.pop() else { break };
            // What was placed meanwhile may have made it dearer.
            let Some(place) = self.place_at(claimant, cost.instance) else { continue };
            if place.cost > cost && queue.peek().is_some_and(|Reverse(next)| *next < place.cost) {
                queue.push(Reverse(place.cost));
                continue;
            }
            self.clear(cost.instance, &place.clearing, claimant);
            let arrival = Arrival {
                service: claimant.service,
                thaw: place.thaw,
                reason: reason(placed),
                priority: claimant.priority,
                deferred: place.clearing.deferred,
            };
            self.bring(cost.instance, arrival);
            placed += 1;
            if let Some(again) = self.place_at(claimant, cost.instance) {
                queue.push(Reverse(again.cost));
            }
        }
        placed
    }

    /// Places one container of the claimant on an instance where it can be frozen afterwards, beside whatever is
    /// frozen to make room for it; tells whether there was room for that.
    pub(crate) fn place_to_freeze(
        &mut self,
        claimant: &Claimant,
        instance: InstanceId,
        reason: StartReason,
    ) -> bool {
        if !self.accepts(claimant, instance) {
            return false;
        }
        let Some(place) = self.place_at(claimant, instance) else { return false };
        let frozen = self.frozen_after(instance, &place.clearing).with(self.request(claimant.service));
        // Room that is made in two steps would be taken back by fill in between.
        let fits = !place.clearing.deferred && frozen.within(self.state.instance(instance));
        if fits {
            self.clear(instance, &place.clearing, claimant);
            let service = claimant.service;
            let priority = claimant.priority;
            self.bring(instance, Arrival { service, thaw: None, reason, priority, deferred: false });
        }
        fits
    }

    /// Whether a container of the claimant may be started on the instance at all.
    pub(crate) fn accepts(&self, claimant: &Claimant, instance: InstanceId) -> bool {
        self.spots[instance.index()].state == InstanceState::Ready
            && self.held_back(claimant.service, instance).is_none()
    }

    fn place_at(&self, claimant: &Claimant, instance: InstanceId) -> Option<Place> {
        let spot = &self.spots[instance.index()];
        let service = self.state.service(claimant.service);
        let thaw = self.thawable(instance, claimant);
        let mut needs = service.request;
        if thaw.is_some() {
            needs = needs.minus(needs.when_frozen());
        }
        let clearing = self.clearing(instance, needs, claimant)?;
        let promised =
            spot.arrivals.iter().fold(needs, |sum, arrival| sum.plus(self.request(arrival.service)));
        let placement = match service.placement {
            Placement::Spread => self.count_on(instance, claimant.service),
            Placement::BinPack => spot.capacity.minus(spot.committed).slots,
        };
        let cost = Cost {
            loss: clearing.loss.without_work(),
            waits: !promised.fits(spot.free_now),
            cold: thaw.is_none(),
            placement,
            work_ms: clearing.loss.work_ms,
            instance,
        };
        Some(Place { cost, clearing, thaw })
    }

    /// The frozen container of the claimant's service on the instance that has the most work in it.
    fn thawable(&self, instance: InstanceId, claimant: &Claimant) -> Option<usize> {
        let spot = &self.spots[instance.index()];
        self.positions(instance, claimant.service)
            .filter(|&at| spot.fates[at] == Fate::Stays(Standing::Frozen))
            .filter(|&at| {
                let container = self.container(instance, at);
                container.phase == Phase::Frozen && container.operation.is_none() && !container.outdated
            })
            .min_by_key(|&at| (self.container(instance, at).since, at))
    }

    /// How many more of the claimant would fit on the instances that `counts` picks, with everything less
    /// important out of the way, also what can't be told to go at this moment.
    pub(crate) fn would_fit(&self, claimant: &Claimant, counts: impl Fn(InstanceId) -> bool) -> u64 {
        let request = self.request(claimant.service);
        let mut sum = 0_u64;
        for instance in self.state.instance_ids() {
            let spot = &self.spots[instance.index()];
            if spot.state != InstanceState::Ready || !counts(instance) {
                continue;
            }
            let mut held = Resources::ZERO;
            for (position, fate) in spot.fates.iter().enumerate() {
                let container = self.container(instance, position);
                if self.state.service(container.key.service).priority > claimant.priority {
                    continue;
                }
                let takes = self.request(container.key.service);
                held = held.plus(match fate {
                    _ if fate.is_kept() => takes,
                    Fate::Stays(Standing::Frozen) | Fate::Goes { freeze: true, .. } => takes.when_frozen(),
                    _ => Resources::ZERO,
                });
            }
            for arrival in spot.arrivals.iter().filter(|arrival| arrival.priority <= claimant.priority) {
                held = held.plus(self.request(arrival.service));
            }
            // What is frozen stays where it can end neither in what is free nor in the claimant's room.
            for (position, fate) in spot.fates.iter().enumerate() {
                let container = self.container(instance, position);
                if *fate == Fate::Stays(Standing::Frozen)
                    && self.state.service(container.key.service).priority > claimant.priority
                    && !self.may_go_now(instance, position)
                    && !self.to_end(container.key.service).fits(request)
                {
                    held = held.plus(self.request(container.key.service).when_frozen());
                }
            }
            sum = sum.saturating_add(request.count_in(spot.capacity.minus(held)));
        }
        sum
    }
}
