//! Settling: one priority after the other gets what it wants of what the more important ones have left.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

use crate::board::Board;
use crate::model::{Fault, InstanceId, InstanceState, Millis, Phase, Placement, ServiceId, ServiceKind};
use crate::reasons::{NotDone, StartReason, StopReason};
use crate::spot::{Arrival, Fate, Going, counted};
use crate::standing::Standing;
use crate::targets::{Held, Notes, Want};
use crate::victims::Claimant;

/// Rounds in which equals settle their shares. Each brings one nearer to its share, so a few are enough; the
/// bound keeps a plan from taking long where requests of many sizes keep making room for one another, and the
/// next plan goes on from there.
const SHARE_ROUNDS_MAX: u32 = 32;

/// Which container of a service goes first when it has too many; the order of the fields is the order in which
/// they are compared ([`Self::rank`]), and the smallest goes.
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one step of an order, compared and never branched on"
)]
struct Spare {
    /// It is of use.
    healthy: bool,
    /// Its instance is not being drained.
    settled: bool,
    /// It is of the service's generation.
    current: bool,
    /// It can't be told to go at this moment.
    busy: bool,
    /// It runs already.
    running: bool,
    /// It would end, and not be kept as a standby.
    ends: bool,
    /// Nothing less important is frozen on its instance that could be thawed in its room.
    needless: bool,
    /// It is younger than `min_runtime_ms`.
    young: bool,
    /// By the placement rule: from the instance with the most of the service, or from the emptiest; the most first.
    placement: u32,
    work_ms: u64,
    instance: InstanceId,
    position: u32,
}

/// The same order in two numbers: quick to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Rank(u128, u64);

/// What a service could spare, the sparest first: of each instance the next in its order, with the place there.
type Candidates = BinaryHeap<Reverse<(Rank, usize)>>;

/// Of a service's containers whose turn to go has come and that can't be told to at this moment, how many are what.
#[derive(Clone, Copy, Debug, Default)]
struct Due {
    /// They serve.
    serving: u32,
    /// They are trusted, of the service's generation.
    trusted: u32,
    /// Their instance is not being drained.
    settled: u32,
}

impl Spare {
    fn rank(&self) -> Rank {
        let steps = [
            self.healthy,
            self.settled,
            self.current,
            self.busy,
            self.running,
            self.ends,
            self.needless,
            self.young,
        ];
        let steps = steps.iter().fold(0, |sum, &step| sum << 1 | u128::from(step));
        let placement = u128::from(u32::MAX - self.placement);
        Rank(
            steps << 96 | placement << 64 | u128::from(self.work_ms),
            u64::from(self.instance.0) << 32 | u64::from(self.position),
        )
    }
}

impl Rank {
    /// The last of what is compared: where it is, by instance and position.
    #[expect(clippy::cast_possible_truncation, reason = "they are 32 bits each")]
    const fn container(self) -> (InstanceId, usize) {
        (InstanceId((self.1 >> 32) as u32), self.1 as u32 as usize)
    }
}

impl Board<'_> {
    /// Settles the services of one priority, given in the order of names.
    pub(crate) fn settle(&mut self, wants: &mut [Want], class: &[ServiceId], notes: &mut Notes) {
        for &id in class {
            // What more important work has taken does not come back before the demand is known again.
            let kept = self.tallies[id.index()].kept;
            wants[id.index()].settle_unknown(kept, self.state.service(id).min);
        }
        self.entitle(wants, class);
        for &id in class {
            self.drop_surplus(id, &wants[id.index()]);
        }
        // What one gives up the next may take, so shares are met in rounds.
        for _ in 0..if class.len() == 1 { 1 } else { SHARE_ROUNDS_MAX } {
            let mut placed = 0;
            for &id in class {
                placed += self.place_up_to(id, &wants[id.index()], class.len() > 1, notes);
            }
            for &id in class {
                placed += self.place_rest(id, &wants[id.index()]);
            }
            // What one spares may leave another's own in its place; each time one start less is left.
            while class.iter().any(|&id| self.spare_own(id)) {}
            if class.len() > 1 {
                while class.iter().any(|&id| self.leave_in_place(id)) {}
            }
            if placed == 0 {
                break;
            }
        }
        for &id in class {
            self.replace_one(id, &wants[id.index()], notes);
            self.explain(id, &wants[id.index()], notes);
        }
    }

    /// Sends away what no target can keep: containers of removed services, fill on draining instances, and what has
    /// not become ready in time.
    pub(crate) fn send_away_unwanted(&mut self, id: ServiceId) {
        let service = self.state.service(id);
        if !service.removed && service.kind == ServiceKind::Demand && self.tallies[id.index()].not_ready == 0
        {
            return;
        }
        for instance in self.state.instance_ids() {
            let draining = self.spots[instance.index()].state == InstanceState::Draining;
            let (reason, all) = if service.removed {
                (StopReason::ServiceRemoved, true)
            } else if draining && service.kind == ServiceKind::Fill {
                (StopReason::Draining, true)
            } else if self.tallies[id.index()].not_ready > 0 {
                (StopReason::NotReady, false)
            } else {
                continue;
            };
            for at in self.positions(instance, id) {
                if self.spots[instance.index()].fates[at] == Fate::Stays(Standing::Settled)
                    && (all || self.container(instance, at).fault == Some(Fault::NotReady))
                {
                    self.send_away(instance, at, reason, false);
                }
            }
        }
    }

    /// Sends away what a service has above its target.
    ///
    /// One that runs goes only while as many as the target run without it: a successor that is still on its way
    /// (for a drained instance, an older generation, an unhealthy one, a standby) or on trial does not count yet. What
    /// can't be told to go at this moment counts as going when its turn comes, so that no successor goes in its place.
    fn drop_surplus(&mut self, id: ServiceId, want: &Want) {
        let have = self.tallies[id.index()].kept;
        // What one stays for may go itself: this ends where the next plan, with all of that under way, begins.
        while self.drop_what_is_spare(id, want, have) {}
    }

    /// Goes once through a service's containers, those that it can spare most easily first, of `have` in all; tells
    /// whether any was sent away while another had to stay.
    fn drop_what_is_spare(&mut self, id: ServiceId, want: &Want, have: u32) -> bool {
        let mut excess = self.tallies[id.index()].kept.saturating_sub(want.limit);
        if excess == 0 {
            return false;
        }
        let mut due = Due::default();
        let (mut sent, mut stays) = (false, false);
        let mut orders: Vec<Option<Vec<usize>>> = Vec::with_capacity(self.state.instances().len());
        let mut candidates = Candidates::default();
        for instance in self.state.instance_ids() {
            let order = self.order_to_spare(instance, id);
            candidates.extend(self.next_spare(instance, id, order.as_deref(), 0).map(Reverse));
            orders.push(order);
        }
        while excess > 0
            && let Some(mut sparest) = candidates.peek_mut()
        {
            let Reverse((candidate, place)) = *sparest;
            let (instance, at) = candidate.container();
            let goes = self.may_be_spared(instance, at, want, excess, &mut due);
            excess -= u32::from(goes);
            stays |= !goes;
            if goes && self.container(instance, at).operation.is_none() {
                let (reason, freeze) = self.why_spared(instance, at, want, have);
                self.send_away(instance, at, reason, freeze);
                sent = true;
            }
            match self.next_spare(instance, id, orders[instance.index()].as_deref(), place + 1) {
                Some(next) => sparest.0 = next,
                None => _ = PeekMut::pop(sparest),
            }
        }
        sent && stays
    }

    /// Whether a candidate goes, now that its turn has come and there are `excess` too many still. One that can't be
    /// told to at this moment is noted as `due`.
    fn may_be_spared(
        &self,
        instance: InstanceId,
        at: usize,
        want: &Want,
        excess: u32,
        due: &mut Due,
    ) -> bool {
        let container = self.container(instance, at);
        let id = container.key.service;
        let settled = self.spots[instance.index()].state != InstanceState::Draining;
        let tally = &self.tallies[id.index()];
        let on_trial = tally.is_on_trial() && self.is_unproven(container);
        let serves = !on_trial && (container.runs() || container.is_unhealthy());
        // The last that is trusted stays beside what it is to replace, or a new trial would begin.
        let trusted = container.runs() && !container.outdated && !self.is_unproven(container);
        let vouches = trusted && tally.is_proving() && tally.proven == due.trusted + 1;
        // Another one would be started for it.
        let missed = settled && self.kept_to_stay(id, want) <= want.limit + due.settled;
        let waits = if serves {
            vouches || tally.surplus_over(want.limit) <= due.serving
        } else {
            self.awaits_its_turn(instance, at, excess, want)
        };
        let goes = !missed && !waits;
        if goes && container.operation.is_some() {
            due.serving += u32::from(serves);
            due.trusted += u32::from(trusted);
            due.settled += u32::from(settled);
        }
        goes
    }

    /// Why a container goes that its service can spare, of `have` in all, and whether it is frozen.
    fn why_spared(&self, instance: InstanceId, at: usize, want: &Want, have: u32) -> (StopReason, bool) {
        let container = self.container(instance, at);
        let id = container.key.service;
        let freeze = container.runs()
            && !container.outdated
            && self.keeps_surplus(instance, id)
            && self.may_freeze(instance, id);
        let is_replaced = want.target.is_some_and(|target| have == target.saturating_add(1));
        let reason = if freeze {
            StopReason::Standby
        } else if self.spots[instance.index()].state == InstanceState::Draining {
            StopReason::Draining
        } else if container.is_unhealthy() && is_replaced {
            StopReason::Unhealthy
        } else if container.outdated && is_replaced {
            StopReason::Outdated
        } else {
            StopReason::Surplus { have, target: want.limit }
        };
        (reason, freeze)
    }

    /// The order in which an instance gives up what it has of a service; `None` where that is the order in which its
    /// containers stand in line.
    fn order_to_spare(&self, instance: InstanceId, id: ServiceId) -> Option<Vec<usize>> {
        let spot = &self.spots[instance.index()];
        let group = spot.group(id)?;
        if group.is_uniform && self.in_line(instance, group).is_some() {
            return None;
        }
        // What is on its way may be one that is warmed to be frozen.
        let standbys = self.state.service(id).standby_per_instance > 0;
        let serves = |at: usize| {
            let container = self.container(instance, at);
            container.runs() || container.is_unhealthy()
        };
        let there = group.positions().filter(|&at| spot.fates[at].is_kept() && (serves(at) || !standbys));
        let mut order: Vec<usize> = there.collect();
        order.sort_by_cached_key(|&at| self.spare(instance, at));
        Some(order)
    }

    /// What an instance gives up next of a service, from a place in its order on.
    fn next_spare(
        &self,
        instance: InstanceId,
        id: ServiceId,
        order: Option<&[usize]>,
        from: usize,
    ) -> Option<(Rank, usize)> {
        let spot = &self.spots[instance.index()];
        let group = spot.group(id)?;
        let kept = |&(_, at): &(usize, usize)| spot.fates[at].is_kept();
        let (place, at) = match order {
            Some(order) => order.iter().copied().enumerate().skip(from).find(kept)?,
            None => self.in_line(instance, group)?.from(from).find(kept)?,
        };
        let spare = self.spare(instance, at);
        debug_assert!(
            order.is_some()
                || self
                    .in_line(instance, group)?
                    .from(place + 1)
                    .filter(kept)
                    .all(|(_, other)| self.spare(instance, other) > spare),
            "the sparest is the first in line"
        );
        Some((spare, place))
    }

    /// Whether a container that does not serve yet, on its way or on trial, is to stay beside what is being replaced:
    /// as many as what is drained needs, and otherwise one.
    fn awaits_its_turn(&self, instance: InstanceId, at: usize, excess: u32, want: &Want) -> bool {
        let container = self.container(instance, at);
        let id = container.key.service;
        let tally = &self.tallies[id.index()];
        let replacing = tally.on_draining > 0 || tally.outdated > 0 || tally.unhealthy > 0;
        // What has not become ready in time succeeds nobody, and goes in any case.
        if !replacing || container.fault == Some(Fault::NotReady) {
            return false;
        }
        let draining = self.spots[instance.index()].state == InstanceState::Draining;
        let there = tally.running + tally.unhealthy;
        let last = if container.runs() { there.saturating_sub(want.limit) } else { excess };
        last <= 1 || draining && !container.runs()
    }

    /// How easily a service can spare one of its containers.
    fn spare(&self, instance: InstanceId, position: usize) -> Rank {
        let container = self.container(instance, position);
        let id = container.key.service;
        let service = self.state.service(id);
        let spot = &self.spots[instance.index()];
        let work_ms = self.work_ms(container);
        let placement = match service.placement {
            Placement::Spread => self.count_on(instance, id),
            Placement::BinPack => spot.capacity.minus(spot.committed).slots,
        };
        let spare = Spare {
            healthy: container.fault.is_none(),
            settled: spot.state != InstanceState::Draining,
            current: !container.outdated,
            busy: container.operation.is_some(),
            running: container.runs(),
            ends: !self.keeps_surplus(instance, id),
            needless: !self.holds_frozen_below(instance, service.priority),
            young: self.is_young(container),
            placement: u32::try_from(placement).unwrap_or(u32::MAX),
            work_ms,
            instance,
            position: counted(position),
        };
        spare.rank()
    }

    /// Whether what a service has above its target on an instance is frozen, and does not end: where a standby lacks, and,
    /// of a service with standbys that is frozen rather than stopped, everywhere. The next rise thaws it, and needs no
    /// standby for whose successor others would have to lend their room.
    fn keeps_surplus(&self, instance: InstanceId, id: ServiceId) -> bool {
        let has_standbys = self.state.service(id).standby_per_instance > 0;
        has_standbys && self.freezes(id) || self.standby_lacking(instance, id) > 0
    }

    fn holds_frozen_below(&self, instance: InstanceId, priority: u32) -> bool {
        let mut frozen = self.spots[instance.index()].groups.iter().filter(|group| group.frozen > 0);
        frozen.any(|group| self.state.service(group.service).priority > priority)
    }

    /// How many containers a service should have besides those on draining instances: what it has now, or will.
    fn kept_to_stay(&self, id: ServiceId, want: &Want) -> u32 {
        let tally = &self.tallies[id.index()];
        // Where the demand is not known, nothing is moved.
        if want.unknown { tally.kept } else { tally.kept - tally.on_draining }
    }

    /// Starts what a service lacks of its share, taking room from less important work and, where services
    /// share a priority, from equals above theirs.
    fn place_up_to(&mut self, id: ServiceId, want: &Want, sharing: bool, notes: &mut Notes) -> u64 {
        if want.held.is_some() {
            return 0;
        }
        let share = if sharing { self.tallies[id.index()].share.min(want.limit) } else { want.limit };
        let lacking = share.saturating_sub(self.kept_to_stay(id, want));
        let claimant = Claimant { below_share: sharing, ..Claimant::of(id, self.state.service(id).priority) };
        let placed = self.start(&claimant, want, lacking);
        if sharing
            && placed < u64::from(lacking)
            && let Some(until) = self.share_wait(&claimant)
        {
            let told = notes
                .not_done
                .iter()
                .any(|other| matches!(other, NotDone::ShareDelayed { service, .. } if *service == id));
            notes.wake(until);
            if !told {
                notes.not_done.push(NotDone::ShareDelayed { service: id, until });
            }
        }
        placed
    }

    /// Starts what a service wants beyond its share, where no equal needs the room.
    pub(crate) fn place_rest(&mut self, id: ServiceId, want: &Want) -> u64 {
        if want.held.is_some() {
            return 0;
        }
        let lacking = want.limit.saturating_sub(self.kept_to_stay(id, want));
        self.start(&Claimant::of(id, self.state.service(id).priority), want, lacking)
    }

    fn start(&mut self, claimant: &Claimant, want: &Want, count: u32) -> u64 {
        let tally = self.tallies[claimant.service.index()];
        let given_up = self.given_up(claimant.service);
        let replaced = tally.kept;
        self.place(claimant, u64::from(count), |placed| match (want.target, given_up) {
            (None, _) => StartReason::Fill,
            (Some(_), Some((instance, lost))) if placed < u64::from(lost) => {
                StartReason::Replace { instance }
            }
            (Some(target), _) => StartReason::Demand {
                have: replaced.saturating_add(u32::try_from(placed).unwrap_or(0)),
                target,
            },
        })
    }

    /// Where a service lost a container to other work and takes an equal's room on the same instance for another one,
    /// the equal goes for that work, and the service keeps what it has; so it does where it would resume one that is
    /// frozen there, which ends for that work. Whether there was such a one.
    fn spare_own(&mut self, id: ServiceId) -> bool {
        let mut spared = false;
        for instance in self.instances_with_arrivals(id) {
            for at in self.positions(instance, id) {
                let spot = &self.spots[instance.index()];
                let Some(going) = spot.going_at(at).filter(|going| going.by().is_some()) else { continue };
                if self.container(instance, at).phase == Phase::Frozen {
                    continue;
                }
                // One that is thawed has its memory already: what it would leave may be less than what goes. Then it ends.
                let gives = if going.freeze { self.to_end(id) } else { self.request(id) };
                let spares = |arrival: &Arrival| {
                    spot.committed.minus(self.to_arrive(arrival)).plus(gives).fits(spot.capacity)
                };
                let ends = |arrival: &Arrival| arrival.thaw.filter(|_| !going.freeze && !spares(arrival));
                let arrives = |arrival: &Arrival| {
                    arrival.service == id
                        && !arrival.deferred
                        && match ends(arrival) {
                            Some(frozen) => self.may_go_now(instance, frozen as usize),
                            None => spares(arrival),
                        }
                };
                let Some(arrival) = spot.arrivals.iter().position(arrives) else { continue };
                let ends = ends(&spot.arrivals[arrival]);
                let own_victim = StopReason::Share { by: id };
                let own_victims = spot.going.iter().filter(|going| going.reason == own_victim);
                let victim = own_victims.map(|going| going.position).min();
                spared = true;
                self.turn_back(instance, arrival);
                self.call_back(instance, at);
                if let Some(frozen) = ends {
                    self.send_away(instance, frozen as usize, going.reason, false);
                }
                if let Some(victim) = victim {
                    self.retell(instance, victim as usize, going.reason);
                }
            }
        }
        spared
    }

    /// After such an exchange there may be more room than is needed, for what goes instead is larger. Then whoever goes
    /// from there stays, and one less is started elsewhere: where somebody would go for it, if there is such a place.
    /// Whether there was such a one.
    fn leave_in_place(&mut self, id: ServiceId) -> bool {
        let starts = |it: &Arrival| it.service == id && it.thaw.is_none() && !it.deferred;
        let needless = self.spots.written().find_map(|(instance, _)| {
            let at = self.goes_for_nothing(instance, |service, by| service == id && by != id)?;
            Some((instance, at))
        });
        let Some((instance, at)) = needless else { return false };
        let elsewhere = self.spots.written().filter(|&(other, _)| other != instance);
        let elsewhere = elsewhere.filter_map(|(other, spot)| {
            let takes = spot.going.iter().any(|going| going.by() == Some(id));
            Some((!takes, other, spot.arrivals.iter().rposition(starts)?))
        });
        let Some((_, elsewhere, arrival)) = elsewhere.min() else { return false };
        self.turn_back(elsewhere, arrival);
        self.call_back(instance, at);
        while let Some(at) = self.goes_for_nothing(elsewhere, |_, by| by == id) {
            self.call_back(elsewhere, at);
        }
        true
    }

    /// Of those who run on an instance and are about to give up their room to others, one that could keep it, by
    /// position: the most important. `which` tells from its service and the one that takes its room whether to look at
    /// it.
    fn goes_for_nothing(
        &self,
        instance: InstanceId,
        which: impl Fn(ServiceId, ServiceId) -> bool,
    ) -> Option<usize> {
        let spot = &self.spots[instance.index()];
        let service = |going: &Going| self.container(instance, going.position as usize).key.service;
        let asked = |going: &&Going| going.by().is_some_and(|by| which(service(going), by));
        let keeps = |going: &&Going| {
            let id = service(going);
            let gives = if going.freeze { self.to_end(id) } else { self.request(id) };
            !going.suspended && spot.committed.plus(gives).fits(spot.capacity)
        };
        let importance = |going: &&Going| (self.state.service(service(going)).priority, going.position);
        let stays = spot.going.iter().filter(asked).filter(keeps).min_by_key(importance)?;
        Some(stays.position as usize)
    }

    fn instances_with_arrivals(&self, id: ServiceId) -> Vec<InstanceId> {
        let written = self.spots.written();
        let with = written.filter(|(_, spot)| spot.arrivals.iter().any(|arrival| arrival.service == id));
        with.map(|(instance, _)| instance).collect()
    }

    /// The first lost or draining instance with containers of a service, and how many there are on all of them.
    fn given_up(&self, id: ServiceId) -> Option<(InstanceId, u32)> {
        let tally = &self.tallies[id.index()];
        let count = tally.on_lost + tally.on_draining;
        if count == 0 {
            return None;
        }
        let instance = self.state.instance_ids().find(|&instance| {
            let state = self.spots[instance.index()].state;
            matches!(state, InstanceState::Lost | InstanceState::Draining)
                && !self.positions(instance, id).is_empty()
        })?;
        Some((instance, count))
    }

    /// Says what a service wants and does not get, and why.
    fn explain(&mut self, id: ServiceId, want: &Want, notes: &mut Notes) {
        let service = self.state.service(id);
        let claimant = Claimant::of(id, service.priority);
        let tally = self.tallies[id.index()];
        let stays = self.kept_to_stay(id, want);
        if !want.unknown && want.target.is_some() && tally.on_draining > 0 {
            self.explain_draining(id, want.limit.saturating_sub(stays), notes);
        } else if want.unknown && tally.on_draining > 0 {
            self.explain_draining(id, tally.on_draining, notes);
        }
        let mut lacking = u64::from(want.limit.saturating_sub(tally.kept));
        if lacking == 0 || matches!(want.held, Some(Held::Fill { .. })) {
            return;
        }
        let count = |lacking: u64| u32::try_from(lacking).unwrap_or(u32::MAX);
        if want.held == Some(Held::Paused) {
            let count = if want.target.is_some() {
                lacking
            } else {
                lacking.min(self.would_fit(&claimant, |_| true))
            };
            if let Ok(count @ 1..) = u32::try_from(count) {
                notes.not_done.push(NotDone::Paused { service: id, count });
            }
            return;
        }
        let none = self.state.backoffs().is_empty();
        let held: Vec<(InstanceId, Millis)> = self
            .state
            .instance_ids()
            .take_while(|_| !none)
            .filter_map(|instance| Some((instance, self.held_back(id, instance)?)))
            .collect();
        let behind = match held.len() {
            0 => 0,
            _ => self.would_fit(&claimant, |instance| held.iter().any(|&(other, _)| other == instance)),
        };
        let behind = behind.min(lacking);
        if behind > 0
            && let Some(until) = held.iter().map(|&(_, until)| until).min()
        {
            notes.not_done.push(NotDone::BackingOff { service: id, count: count(behind), until });
            lacking -= behind;
        }
        let under_way =
            self.would_fit(&claimant, |instance| held.iter().all(|&(other, _)| other != instance));
        let under_way = under_way.min(lacking);
        if under_way > 0 {
            notes.not_done.push(NotDone::UnderWay { service: id, count: count(under_way) });
            lacking -= under_way;
        }
        if lacking > 0 && want.target.is_some() {
            notes.not_done.push(NotDone::NoRoom { service: id, count: count(lacking) });
        }
    }

    fn explain_draining(&self, id: ServiceId, mut lacking: u32, notes: &mut Notes) {
        for instance in self.state.instance_ids() {
            if self.spots[instance.index()].state != InstanceState::Draining {
                continue;
            }
            let there = u32::try_from(self.count_on(instance, id)).unwrap_or(u32::MAX);
            let count = there.min(lacking);
            if count > 0 {
                notes.not_done.push(NotDone::DrainWaits { service: id, instance, count });
                lacking -= count;
            }
        }
    }
}
