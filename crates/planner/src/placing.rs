//! Placing: on which instances the containers that a service lacks are started.
//!
//! Among the instances on which one more can run, the order is: least importance lost, fewest stops, room that
//! is free now (or was lent there, and comes back), a frozen container to thaw, the service's placement rule, least
//! work lost, name. A placement rule is changed here, in [`Cost`], and nowhere else.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use crate::board::Board;
use crate::model::{InstanceId, InstanceState, Placement, Resources, ServiceId};
use crate::reasons::StartReason;
use crate::spot::{Arrival, Fate};
use crate::standing::Standing;
use crate::victims::{Claimant, Clearing, Loss};

/// What it costs to start one more container on an instance; smaller is better. The order of the fields is the order
/// in which they are compared ([`Self::rank`]).
struct Cost {
    /// Importance lost and the number of stops; the work is compared further down.
    loss: Loss,
    /// It has to wait for something to leave.
    waits: bool,
    /// Nothing is frozen there that could be thawed.
    cold: bool,
    /// By the placement rule: the number of containers there, or of free slots.
    placement: u32,
    work_ms: u64,
    instance: InstanceId,
}

/// The same order in two numbers: a plan of many starts is for a good part the comparing of costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u128, u128);

impl Cost {
    fn rank(&self) -> Rank {
        let first = self.loss.rank() << 2 | u128::from(self.waits) << 1 | u128::from(self.cold);
        let second = u128::from(self.placement) << 96 | u128::from(self.work_ms) << 32;
        Rank(first, second | u128::from(self.instance.0))
    }
}

impl Rank {
    /// The last of what is compared.
    #[expect(clippy::cast_possible_truncation, reason = "it is the last 32 bits")]
    const fn instance(self) -> InstanceId {
        InstanceId(self.1 as u32)
    }
}

/// One place for one container, apart from what it costs.
struct Place {
    clearing: Clearing,
    thaw: Option<u32>,
    /// Those by which the cost was told ([`Board::prices`]).
    prices: u32,
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
        let mut places: Vec<Option<Place>> = Vec::with_capacity(self.state.instances().len());
        let mut queue: Vec<Reverse<Rank>> = Vec::with_capacity(places.capacity());
        for instance in self.state.instance_ids() {
            let may = eligible(instance) && self.accepts(claimant, instance);
            let place = if may { self.place_at(claimant, instance) } else { None };
            places.push(place.map(|(cost, place)| {
                queue.push(Reverse(cost));
                place
            }));
        }
        let mut queue = BinaryHeap::from(queue);
        let mut placed = 0;
        while placed < count {
            let Some(mut cheapest) = queue.peek_mut() else { break };
            let instance = cheapest.0.instance();
            let place = places[instance.index()].take().filter(|place| place.prices == self.prices);
            let place = if let Some(place) = place {
                debug_assert!(
                    self.place_at(claimant, instance).is_some_and(|(cost, _)| cost == cheapest.0),
                    "a cost holds until prices change"
                );
                place
            } else {
                // What was placed meanwhile may have made it dearer.
                let Some((cost, place)) = self.place_at(claimant, instance) else {
                    PeekMut::pop(cheapest);
                    continue;
                };
                if cost > cheapest.0 {
                    cheapest.0 = cost;
                    places[instance.index()] = Some(place);
                    continue;
                }
                place
            };
            self.clear(instance, &place.clearing, claimant);
            let arrival = Arrival {
                service: claimant.service,
                thaw: place.thaw,
                reason: reason(placed),
                priority: claimant.priority,
                deferred: place.clearing.deferred,
            };
            self.bring(instance, arrival);
            placed += 1;
            match self.place_at(claimant, instance) {
                Some((cost, again)) => {
                    cheapest.0 = cost;
                    places[instance.index()] = Some(again);
                }
                None => _ = PeekMut::pop(cheapest),
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
        let Some((_, place)) = self.place_at(claimant, instance) else { return false };
        let frozen = self.frozen_after(instance, &place.clearing).with(self.request(claimant.service));
        // Room that is made in two steps would be taken back by fill in between.
        let fits = !place.clearing.deferred && self.may_hold(instance, frozen, claimant.priority);
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

    fn place_at(&self, claimant: &Claimant, instance: InstanceId) -> Option<(Rank, Place)> {
        let spot = &self.spots[instance.index()];
        let service = self.state.service(claimant.service);
        let thaw = self.thawable(instance, claimant);
        let mut needs = service.request;
        if thaw.is_some() {
            needs = needs.minus(needs.when_frozen());
        }
        let clearing = self.clearing(instance, needs, claimant)?;
        let promised = spot.arriving.plus(needs);
        let placement = match service.placement {
            Placement::Spread => self.count_on(instance, claimant.service),
            Placement::BinPack => spot.capacity.minus(spot.committed).slots,
        };
        let has_room =
            promised.fits(spot.free_now) || thaw.is_some() && self.has_lent(instance, claimant.service);
        let cost = Cost {
            loss: clearing.loss,
            waits: !has_room,
            cold: thaw.is_none(),
            placement: u32::try_from(placement).unwrap_or(u32::MAX),
            work_ms: clearing.loss.work_ms,
            instance,
        };
        Some((cost.rank(), Place { clearing, thaw, prices: self.prices }))
    }

    /// Whether one more of a service is about to have the room back that it has lent on the instance.
    fn has_lent(&self, instance: InstanceId, service: ServiceId) -> bool {
        let spot = &self.spots[instance.index()];
        let resumed = |arrival: &&Arrival| arrival.service == service && arrival.thaw.is_some();
        spot.group(service).is_some_and(|group| {
            group.borrowing > 0 && spot.arrivals.iter().filter(resumed).count() < group.borrowing as usize
        })
    }

    /// The frozen container of the claimant's service on the instance that has the most work in it.
    fn thawable(&self, instance: InstanceId, claimant: &Claimant) -> Option<u32> {
        let spot = &self.spots[instance.index()];
        let group = spot.group(claimant.service).filter(|group| group.frozen > 0)?;
        spot.at_rest(group).find(|&at| spot.fates[at as usize].is_frozen())
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
            for group in &spot.groups {
                if self.state.service(group.service).priority <= claimant.priority {
                    held = held.plus(self.request(group.service).times(u64::from(group.count)));
                }
            }
            if spot.frozen.count > 0 && spot.capacity.memory_mib != Resources::UNLIMITED {
                held = held.plus(self.stays_frozen(instance, claimant, request));
            }
            sum = sum.saturating_add(request.count_in(spot.capacity.minus(held)));
        }
        sum
    }

    /// What is and stays frozen on an instance though one more container of the claimant, with this `request`, might
    /// want its room.
    fn stays_frozen(&self, instance: InstanceId, claimant: &Claimant, request: Resources) -> Resources {
        let spot = &self.spots[instance.index()];
        let mut held = Resources::ZERO;
        for (position, fate) in spot.fates.iter().enumerate() {
            let service = self.container(instance, position).key.service;
            let stays = match fate {
                Fate::Stays(Standing::Frozen) if self.state.service(service).priority > claimant.priority => {
                    // It can end neither in what is free nor in the claimant's room.
                    !self.may_go_now(instance, position) && !self.to_end(service).fits(request)
                }
                Fate::Stays(Standing::Frozen) | Fate::Goes { freeze: true, .. } => {
                    self.state.service(service).priority <= claimant.priority
                }
                _ => false,
            };
            if stays {
                held = held.plus(self.request(service).when_frozen());
            }
        }
        held
    }
}
