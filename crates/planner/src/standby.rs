//! Standbys and other frozen containers: warmed where they lack, ended where nobody wants them.

use crate::board::Board;
use crate::model::{InstanceId, InstanceState, OnPreempt, Service, ServiceId, ServiceKind};
use crate::reasons::{NotDone, StartReason, StopReason};
use crate::spot::{Arrival, Frozen};
use crate::targets::{Notes, Want};
use crate::victims::Claimant;

impl Board<'_> {
    /// How many standbys of a service an instance lacks.
    pub(crate) fn standby_lacking(&self, instance: InstanceId, id: ServiceId) -> u32 {
        let service = self.state.service(id);
        let spot = &self.spots[instance.index()];
        if service.standby_per_instance == 0 || service.removed || spot.state != InstanceState::Ready {
            return 0;
        }
        let there = spot.group(id).map_or(0, |group| group.standbys);
        debug_assert_eq!(
            there as usize,
            self.positions(instance, id)
                .filter(|&at| spot.fates[at].is_standby(self.container(instance, at)))
                .count(),
            "standbys are counted as they are decided"
        );
        service.standby_per_instance.saturating_sub(there)
    }

    /// Whether `frozen` may be frozen on an instance, the last of it of this `priority`.
    ///
    /// The places of standbys that lack there are not for what is less important: a standby that has been warmed and
    /// finds its place taken would have to go, and be warmed again.
    pub(crate) fn may_hold(&self, instance: InstanceId, frozen: Frozen, priority: u32) -> bool {
        let more_important =
            self.with_standbys.iter().filter(|id| self.state.service(**id).priority < priority);
        let with_places = more_important
            .fold(frozen, |sum, &id| sum.with_all(self.request(id), self.standby_lacking(instance, id)));
        with_places.within(self.state.instance(instance))
    }

    /// Ends frozen containers that nobody wants: of removed services and older generations, on instances that
    /// are being drained, beyond the standbys of a service that does not freeze.
    pub(crate) fn end_frozen(&mut self) {
        for instance in self.state.instance_ids() {
            if self.spots[instance.index()].frozen.count == 0 {
                continue;
            }
            let state = self.spots[instance.index()].state;
            let mut standbys: Vec<(ServiceId, u32)> = Vec::new();
            for at in 0..self.spots[instance.index()].fates.len() {
                let container = self.container(instance, at);
                if !self.is_frozen(instance, at) {
                    continue;
                }
                let id = container.key.service;
                let service = self.state.service(id);
                if standbys.last().is_none_or(|&(other, _)| other != id) {
                    standbys.push((id, 0));
                }
                let standby = standbys.last_mut().map_or(0, |(_, count)| {
                    *count += 1;
                    *count
                });
                let reason = if service.removed {
                    StopReason::ServiceRemoved
                } else if container.outdated {
                    StopReason::Outdated
                } else if state == InstanceState::Draining {
                    StopReason::Draining
                } else if service.on_preempt == OnPreempt::Stop && service.standby_per_instance == 0 {
                    StopReason::NotFreezable
                } else if service.on_preempt == OnPreempt::Stop && standby > service.standby_per_instance {
                    StopReason::FrozenBound
                } else {
                    continue;
                };
                if self.may_go_now(instance, at) {
                    self.send_away(instance, at, reason, false);
                } else {
                    self.spots[instance.index()].to_end.push((at, reason));
                }
            }
        }
    }

    /// Warms one standby on each instance that lacks one, in room that is free or borrowed from what is less
    /// important than anything demanded; tells whether any is warmed.
    ///
    /// Only while every demand is known and met, and nothing that is demanded is on its way; one at a time on an
    /// instance.
    pub(crate) fn warm_standbys(&mut self, wants: &[Want], notes: &Notes) -> bool {
        let met = notes.not_done.iter().all(|item| {
            !matches!(item, NotDone::NoRoom { .. } | NotDone::UnknownDemand { .. } | NotDone::UnderWay { .. })
        });
        let coming = |id: ServiceId| {
            self.state.service(id).kind == ServiceKind::Demand && self.tallies[id.index()].coming > 0
        };
        if !met || self.state.service_ids().any(coming) {
            return false;
        }
        // A fill that lends its room would take it back from demanded work that is less important, if there is any.
        let demanded = |service: &&Service| service.kind == ServiceKind::Demand && !service.removed;
        let above = self.state.services().iter().filter(demanded).map(|service| service.priority).max();
        let above = above.unwrap_or(0);
        let mut warmed = false;
        for id in self.state.service_ids() {
            let service = self.state.service(id);
            let want = &wants[id.index()];
            let tally = self.tallies[id.index()];
            let settled = Some(tally.running) == want.target && tally.outdated == 0;
            let wanted = service.kind == ServiceKind::Demand && service.standby_per_instance > 0;
            if !wanted || want.held.is_some() || !settled {
                continue;
            }
            let claimant = Claimant { above, ..Claimant::of(id, service.priority) };
            for instance in self.state.instance_ids() {
                let warming = |arrival: &Arrival| arrival.reason == StartReason::Standby;
                if self.standby_lacking(instance, id) > 0
                    && !self.spots[instance.index()].arrivals.iter().any(warming)
                {
                    warmed |= self.place_to_freeze(&claimant, instance, StartReason::Standby);
                }
            }
        }
        warmed
    }
}
