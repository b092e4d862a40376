//! Replacing: what is unhealthy or of an older generation gets a successor, one at a time.
//!
//! Where a target says how many there should be, the new one comes first, in room taken from less important work, and
//! the old one is surplus once it runs (`settle`). A fill service has no room but its own: there the old one goes
//! first. So it does where an unhealthy one leaves no other way, for it serves nobody.
//!
//! A generation is on trial until one of its containers has run for `proven_after_ms`: nothing further is replaced and
//! nothing old goes before that. Starts that are held back after failures, on whichever instance, hold replacing back.

use crate::board::Board;
use crate::model::{InstanceId, InstanceState, Millis, ServiceId};
use crate::reasons::{NotDone, StartReason, StopReason};
use crate::spot::Fate;
use crate::standing::Standing;
use crate::targets::{Held, Notes, Want};
use crate::victims::Claimant;

impl Board<'_> {
    /// Replaces one container of a service, if that can be done now, and says what waits for it.
    pub(crate) fn replace_one(&mut self, id: ServiceId, want: &Want, notes: &mut Notes) {
        let tally = self.tallies[id.index()];
        if tally.unhealthy > 0 {
            notes.not_done.push(NotDone::Unhealthy { service: id, count: tally.unhealthy });
        }
        if tally.outdated == 0 && tally.unhealthy == 0
            || want.unknown
            || matches!(want.held, Some(Held::Fill { .. }))
        {
            return;
        }
        if tally.is_proving()
            && let Some(at) = self.next_proven_at(id)
        {
            notes.wake(at);
        }
        let mut waiting = tally.outdated;
        let failing = self.held_back_anywhere(id);
        let under_way = tally.coming > 0 || tally.leaving > 0 || tally.not_ready > 0;
        let quiet = !under_way && !tally.is_on_trial() && tally.kept <= want.limit && want.held.is_none();
        if quiet && failing.is_none() {
            match self.replace_first(id, want) {
                Some(true) => waiting = waiting.saturating_sub(1),
                Some(false) if waiting > 0 => {
                    notes.not_done.push(NotDone::RolloutNoRoom { service: id, count: waiting });
                    return;
                }
                Some(false) | None => {}
            }
        } else if let Some(until) = failing.filter(|_| waiting > 0 && want.held.is_none()) {
            notes.not_done.push(NotDone::RolloutFailing { service: id, count: waiting, until });
            return;
        } else if under_way {
            waiting = waiting.saturating_sub(1);
        }
        if waiting > 0 {
            notes.not_done.push(NotDone::ReplacementWaits { service: id, count: waiting });
        }
    }

    /// Replaces the container that should be replaced first; `None` if there is none, `false` if its successor would
    /// have no room.
    fn replace_first(&mut self, id: ServiceId, want: &Want) -> Option<bool> {
        let claimant = Claimant::of(id, self.state.service(id).priority);
        let (instance, at) = self.first_to_replace(&claimant, want)?;
        let container = self.container(instance, at);
        let key = container.key;
        let (reason, stop) = if container.is_unhealthy() {
            (StartReason::Unhealthy { container: key }, StopReason::Unhealthy)
        } else {
            (StartReason::Outdated { container: key }, StopReason::Outdated)
        };
        if want.target.is_some() && self.place(&claimant, 1, |_| reason) > 0 {
            return Some(true);
        }
        if want.target.is_some() && !container.is_unhealthy() || !self.accepts(&claimant, instance) {
            return Some(false);
        }
        self.send_away(instance, at, stop, false);
        let placed = self.place_on(&claimant, 1, |other| other == instance, |_| reason);
        if placed == 0 {
            self.call_back(instance, at);
        }
        Some(placed > 0)
    }

    /// The unhealthy ones first, then the outdated; of these the one with the least work in it.
    fn first_to_replace(&self, claimant: &Claimant, want: &Want) -> Option<(InstanceId, usize)> {
        self.state
            .instance_ids()
            .filter(|&instance| want.target.is_some() || self.accepts(claimant, instance))
            .flat_map(|instance| self.positions(instance, claimant.service).map(move |at| (instance, at)))
            .filter(|&(instance, at)| {
                let container = self.container(instance, at);
                self.spots[instance.index()].fates[at] == Fate::Stays(Standing::Settled)
                    && (container.is_unhealthy() || container.outdated)
            })
            .min_by_key(|&(instance, at)| {
                let container = self.container(instance, at);
                (!container.is_unhealthy(), self.work_ms(container), container.key)
            })
    }

    /// Until when starts of a service are held back on one ready instance or another.
    fn held_back_anywhere(&self, id: ServiceId) -> Option<Millis> {
        let ready = self.state.instance_ids().zip(self.spots.iter());
        let ready = ready.filter(|(_, spot)| spot.state == InstanceState::Ready);
        ready.filter_map(|(instance, _)| self.held_back(id, instance)).max()
    }

    /// When the next of those that have yet to be trusted has run for long enough.
    fn next_proven_at(&self, id: ServiceId) -> Option<Millis> {
        let proven_after_ms = self.state.service(id).proven_after_ms;
        self.state
            .instance_ids()
            .flat_map(|instance| self.positions(instance, id).map(move |at| (instance, at)))
            .filter(|&(instance, at)| self.spots[instance.index()].fates[at].is_kept())
            .map(|(instance, at)| self.container(instance, at))
            .filter(|container| self.is_unproven(container))
            .map(|container| container.since.plus(proven_after_ms))
            .min()
    }
}
