//! Targets: how many containers each service should have, before it is known what fits.

use crate::board::Board;
use crate::model::{InstanceState, Millis, ServiceId, ServiceKind};
use crate::reasons::NotDone;
use crate::share::{Claim, shares};
use crate::spot::Group;
use crate::victims::Claimant;

/// What one service wants.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Want {
    /// clamp(demand, min, max); `None` for a fill service.
    pub(crate) target: Option<u32>,
    /// The most that it may have: its target, or a fill service's max.
    pub(crate) limit: u32,
    /// Its demand is not known: nothing is moved or replaced.
    pub(crate) unknown: bool,
    /// Nothing new may be started for it, and why.
    pub(crate) held: Option<Held>,
}

impl Want {
    /// A service of unknown demand wants what it has, and at least its min.
    pub(crate) fn settle_unknown(&mut self, kept: u32, min: u32) {
        if self.unknown {
            self.limit = kept.max(min);
            self.target = Some(self.limit);
        }
    }
}

/// Why nothing new may be started for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// An operator paused it.
    Paused,
    /// It fills, and the demands are not known yet.
    Fill { until: Millis },
}

/// What is found out on the way, for the plan.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    pub(crate) not_done: Vec<NotDone>,
    pub(crate) next_wake_at: Option<Millis>,
}

impl Notes {
    /// Time changes something at `at`.
    pub(crate) fn wake(&mut self, at: Millis) {
        self.next_wake_at = Some(self.next_wake_at.map_or(at, |other| other.min(at)));
    }
}

impl Board<'_> {
    /// What every service wants.
    pub(crate) fn wants(&self, notes: &mut Notes) -> Vec<Want> {
        let fill_held = self.fill_held();
        self.state
            .service_ids()
            .map(|id| {
                let mut want = self.want(id, notes);
                let service = self.state.service(id);
                let held_back = self.state.backoffs().iter().filter(|backoff| backoff.service == id);
                for until in held_back.map(|backoff| backoff.until).filter(|&until| until > self.now) {
                    notes.wake(until);
                }
                if service.paused {
                    want.held = Some(Held::Paused);
                } else if service.kind == ServiceKind::Fill
                    && !service.removed
                    && let Some(until) = fill_held
                {
                    want.held = Some(Held::Fill { until });
                    notes.wake(until);
                    notes.not_done.push(NotDone::FillHeld { service: id, until });
                }
                want
            })
            .collect()
    }

    /// Until when fills wait: while a demand has never been answered, but no longer than configured.
    fn fill_held(&self) -> Option<Millis> {
        let until = self.state.fill_hold_until();
        let unanswered = || {
            self.state.service_ids().any(|id| {
                let service = self.state.service(id);
                service.kind == ServiceKind::Demand && !service.removed && !self.state.answered(id)
            })
        };
        (self.now < until && unanswered()).then_some(until)
    }

    fn want(&self, id: ServiceId, notes: &mut Notes) -> Want {
        let service = self.state.service(id);
        let kept = self.tallies[id.index()].kept;
        if service.removed {
            return Want { target: Some(0), ..Want::default() };
        }
        if service.kind == ServiceKind::Fill {
            return Want { limit: service.max, ..Want::default() };
        }
        let demand = self.state.demand(id, self.now);
        if let Some(at) = demand.changes_at {
            notes.wake(at);
        }
        let (Some(now), Some(held)) = (demand.containers, demand.held) else {
            notes.not_done.push(NotDone::UnknownDemand { service: id });
            let mut want = Want { unknown: true, ..Want::default() };
            want.settle_unknown(kept, service.min);
            return want;
        };
        let clamp = |containers: u32| containers.max(service.min).min(service.max);
        let target = clamp(held);
        if let Some(until) = demand.held_until
            && clamp(now) < target.min(kept)
        {
            let count = target.min(kept) - clamp(now);
            notes.not_done.push(NotDone::ScaleDownDelayed { service: id, count, until });
        }
        Want { target: Some(target), limit: target, unknown: false, held: None }
    }

    /// Tells each service's limit and an estimate of its share, so that victims for
    /// more important work are found among what is to go anyway.
    ///
    /// The estimate counts slots over the whole pool, as if everything fitted everywhere; [`Self::entitle`]
    /// sets it right for each priority when its turn comes.
    pub(crate) fn estimate(&mut self, wants: &[Want], classes: &[Vec<ServiceId>]) {
        let mut available = 0_u64;
        for spot in self.spots.iter() {
            match spot.state {
                InstanceState::Ready => available = available.saturating_add(spot.capacity.slots),
                InstanceState::Cordoned | InstanceState::Draining => {
                    for group in &spot.groups {
                        available = available.saturating_add(self.slots(group));
                    }
                }
                InstanceState::Lost => {}
            }
        }
        for class in classes {
            available = available.saturating_sub(self.entitle_with(wants, class, available));
        }
    }

    /// Slots of those that run or will.
    fn slots(&self, group: &Group) -> u64 {
        self.request(group.service).slots.saturating_mul(u64::from(group.count))
    }

    /// Divides what a priority can have among its services.
    pub(crate) fn entitle(&mut self, wants: &[Want], class: &[ServiceId]) {
        if let &[only] = class {
            let tally = &mut self.tallies[only.index()];
            let want = &wants[only.index()];
            tally.limit = want.limit;
            tally.share = want.limit;
            return;
        }
        let priority = self.state.service(class[0]).priority;
        let mut available = 0_u64;
        for spot in self.spots.iter() {
            let mut own = 0_u64;
            let mut others = 0_u64;
            for group in &spot.groups {
                // What arrives is more important: its turn has been.
                let of = self.state.service(group.service).priority;
                if of == priority {
                    own += self.slots(group);
                } else if of < priority {
                    others += self.slots(group);
                }
            }
            available = available.saturating_add(match spot.state {
                InstanceState::Ready => spot.capacity.slots.saturating_sub(others),
                InstanceState::Cordoned | InstanceState::Draining => own,
                InstanceState::Lost => 0,
            });
        }
        // What is lent comes back: nobody's share changes for that moment.
        available = available.saturating_add(self.lent_to_warm(priority));
        self.entitle_with(wants, class, available);
    }

    /// The slots that containers of services more important than `priority` take while they are warmed to be frozen.
    fn lent_to_warm(&self, priority: u32) -> u64 {
        let services = self.state.services().iter().zip(&self.tallies);
        let warmed = services.filter(|(service, _)| {
            service.priority < priority
                && service.kind == ServiceKind::Demand
                && service.standby_per_instance > 0
        });
        warmed
            .map(|(service, tally)| {
                let count = tally.kept.saturating_sub(tally.limit).min(tally.coming);
                u64::from(count) * service.request.slots
            })
            .sum()
    }

    /// Sets the limit and the share of each service of a class; returns the slots given away.
    fn entitle_with(&mut self, wants: &[Want], class: &[ServiceId], available: u64) -> u64 {
        let mut given_away = 0;
        // Where the demand is not known nothing changes: the service keeps what it has, whatever its share.
        for &id in class.iter().filter(|id| wants[id.index()].unknown) {
            let tally = &mut self.tallies[id.index()];
            tally.limit = wants[id.index()].limit;
            tally.share = tally.limit;
            given_away += u64::from(tally.limit) * self.state.service(id).request.slots;
        }
        let available = available.saturating_sub(given_away);
        let known: Vec<ServiceId> = class.iter().copied().filter(|id| !wants[id.index()].unknown).collect();
        let claims: Vec<Claim> =
            known.iter().map(|&id| self.claim(id, &wants[id.index()], available)).collect();
        for ((&id, claim), share) in known.iter().zip(&claims).zip(shares(&claims, available)) {
            given_away += share * claim.size;
            let tally = &mut self.tallies[id.index()];
            tally.share = u32::try_from(share).unwrap_or(u32::MAX);
            tally.limit = wants[id.index()].limit;
        }
        given_away
    }

    fn claim(&self, id: ServiceId, want: &Want, available: u64) -> Claim {
        let service = self.state.service(id);
        let size = service.request.slots.max(1);
        let claimant = Claimant::of(id, service.priority);
        let may_start = want.held.is_none()
            && self.state.instance_ids().any(|instance| self.accepts(&claimant, instance));
        let wanted = if may_start { want.limit } else { want.limit.min(self.tallies[id.index()].kept) };
        Claim {
            weight: u64::from(service.weight.max(1)),
            wanted: u64::from(wanted).min(available / size),
            size,
        }
    }
}
