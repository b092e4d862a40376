//! Issuing: what has been decided becomes actions in order, each start paired with whatever it waits for.

use std::collections::BTreeSet;

use crate::board::{Arrival, Board, Fate};
use crate::model::{ContainerKey, InstanceId, Operation, Overlap, Resources, ServiceId};
use crate::plan::Action;
use crate::reasons::{RemoveReason, StartReason, StopReason};
use crate::standing::Standing;

/// What is left to give of an instance's room while its actions are issued.
struct Pool {
    free_now: Resources,
    overfull: bool,
    overfull_beyond_swaps: bool,
    /// On their way out, with what of their room is not promised yet.
    leaving: Vec<Leaving>,
    /// Sent away by this plan, not issued yet.
    sent_away: Vec<SentAway>,
    /// The last new container that was given a number.
    named: Option<ContainerKey>,
    /// Whoever started under one of these would be waited for in place of the one that had it before.
    waited_for: BTreeSet<ContainerKey>,
}

struct Leaving {
    key: ContainerKey,
    room: Resources,
    /// This plan freezes it: whoever overlaps need not wait for it.
    freezes: bool,
}

#[derive(Clone, Copy)]
struct SentAway {
    position: usize,
    reason: StopReason,
    freeze: bool,
}

impl SentAway {
    fn by(self) -> Option<ServiceId> {
        match self.reason {
            StopReason::Preempted { by } | StopReason::Share { by } => Some(by),
            _ => None,
        }
    }
}

impl Board<'_> {
    /// The actions: by importance of what arrives, each victim before its successor; then what goes for other
    /// reasons; then removals; standbys to be warmed come last, with what lends them its room.
    pub(crate) fn issue(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let mut pools: Vec<Pool> = self.state.instance_ids().map(|instance| self.pool(instance)).collect();
        let mut arrivals: Vec<(Arrival, InstanceId)> = Vec::new();
        for (instance, spot) in self.state.instance_ids().zip(&self.spots) {
            arrivals.extend(spot.arrivals.iter().map(|&arrival| (arrival, instance)));
        }
        let warms = |arrival: &Arrival| arrival.reason == StartReason::Standby;
        arrivals.sort_by_key(|(arrival, instance)| {
            (warms(arrival), arrival.priority, arrival.service, *instance)
        });
        let mut last = Vec::new();
        for (arrival, instance) in arrivals {
            let actions = if warms(&arrival) { &mut last } else { &mut actions };
            self.issue_arrival(&arrival, instance, &mut pools[instance.index()], actions);
        }
        for (instance, pool) in self.state.instance_ids().zip(&mut pools) {
            while let Some(next) = pool.sent_away.first().copied() {
                pool.sent_away.remove(0);
                actions.push(self.issue_going(instance, next, pool));
            }
        }
        for instance in self.state.instance_ids() {
            self.issue_ends(instance, &mut actions);
        }
        for (instance, pool) in self.state.instance_ids().zip(&pools) {
            actions.extend(self.removals(instance, pool));
        }
        actions.append(&mut last);
        actions
    }

    fn pool(&self, instance: InstanceId) -> Pool {
        let spot = &self.spots[instance.index()];
        let mut sent_away: Vec<SentAway> = spot
            .fates
            .iter()
            .enumerate()
            .filter_map(|(position, fate)| match *fate {
                Fate::Goes { reason, freeze } => Some(SentAway { position, reason, freeze }),
                _ => None,
            })
            .collect();
        // Running ones first: they leave more than memory.
        sent_away.sort_by_key(|going| {
            (self.container(instance, going.position).phase == crate::Phase::Frozen, going.position)
        });
        Pool {
            free_now: spot.free_now,
            overfull: spot.overfull,
            overfull_beyond_swaps: spot.overfull_beyond_swaps,
            leaving: spot.leaving.iter().map(|&(key, room)| Leaving { key, room, freezes: false }).collect(),
            sent_away,
            named: None,
            waited_for: self
                .state
                .containers_on(instance)
                .iter()
                .filter_map(|container| match &container.operation {
                    Some(
                        Operation::Start { after } | Operation::Thaw { after } | Operation::Evict { after },
                    ) => Some(after),
                    _ => None,
                })
                .flatten()
                .copied()
                .collect(),
        }
    }

    fn issue_arrival(
        &mut self,
        arrival: &Arrival,
        instance: InstanceId,
        pool: &mut Pool,
        actions: &mut Vec<Action>,
    ) {
        let mut lacks = self.to_arrive(arrival);
        let overlaps = self.state.service(arrival.service).overlap == Overlap::Swap;
        let overfull = if overlaps { pool.overfull_beyond_swaps } else { pool.overfull };
        let (mut after, mut beside) = (Vec::new(), Vec::new());
        let mut waits_for = |leaving: &Leaving| {
            let of = if overlaps && leaving.freezes && !overfull { &mut beside } else { &mut after };
            of.push(leaving.key);
        };
        let draw = |from: &mut Resources, lacks: &mut Resources| {
            let drawn = lacks.cut_to(*from);
            *from = from.minus(drawn);
            *lacks = lacks.minus(drawn);
            !drawn.is_zero()
        };
        draw(&mut pool.free_now, &mut lacks);
        for leaving in &mut pool.leaving {
            if draw(&mut leaving.room, &mut lacks) || overfull {
                waits_for(leaving);
            }
        }
        while !lacks.is_zero() || (overfull && !pool.sent_away.is_empty()) {
            // Its own victims first, then whatever else goes and helps.
            let own = pool.sent_away.iter().position(|going| going.by() == Some(arrival.service));
            let any = || {
                pool.sent_away.iter().position(|going| {
                    overfull || !lacks.cut_to(self.gives_when_gone(instance, *going)).is_zero()
                })
            };
            let Some(at) = own.or_else(any) else { break };
            let going = pool.sent_away.remove(at);
            actions.push(self.issue_going(instance, going, pool));
            if let Some(leaving) = pool.leaving.last_mut()
                && (draw(&mut leaving.room, &mut lacks) || overfull)
            {
                waits_for(leaving);
            }
        }
        if !lacks.is_zero() || arrival.deferred {
            // Its room is made in two steps; a later plan starts it.
            return;
        }
        if !after.is_empty() {
            // Whoever waits for one waits for all: what it waits for is all that the next plan knows of its claim.
            after.append(&mut beside);
        }
        if let Some(position) = arrival.thaw {
            let container = self.container(instance, position).key;
            actions.push(Action::Thaw { container, after, beside, reason: arrival.reason });
        } else {
            let container = self.name(instance, arrival.service, pool);
            actions.push(Action::Start { container, after, beside, reason: arrival.reason });
        }
    }

    /// What ends without a slot of its own.
    fn issue_ends(&self, instance: InstanceId, actions: &mut Vec<Action>) {
        for (at, fate) in self.spots[instance.index()].fates.iter().enumerate() {
            let Fate::Ends { reason, lender } = *fate else { continue };
            let container = self.container(instance, at).key;
            let Some(lender) = lender else {
                actions.push(Action::Kill { container, reason });
                continue;
            };
            let lender = self.container(instance, lender).key;
            actions.push(Action::Freeze { container: lender, reason: StopReason::Lends { to: container } });
            actions.push(Action::Evict { container, after: vec![lender], reason });
        }
    }

    fn gives_when_gone(&self, instance: InstanceId, going: SentAway) -> Resources {
        let request = self.request(self.container(instance, going.position).key.service);
        if going.freeze { request.minus(request.when_frozen()) } else { request }
    }

    fn issue_going(&self, instance: InstanceId, going: SentAway, pool: &mut Pool) -> Action {
        let (container, reason) = (self.container(instance, going.position).key, going.reason);
        let room = self.gives_when_gone(instance, going);
        pool.leaving.push(Leaving { key: container, room, freezes: going.freeze });
        if going.freeze { Action::Freeze { container, reason } } else { Action::Stop { container, reason } }
    }

    /// The key of a new container: that of one that was created and never started, or the smallest free number.
    fn name(&mut self, instance: InstanceId, service: ServiceId, pool: &mut Pool) -> ContainerKey {
        for at in self.positions(instance, service) {
            let container = self.container(instance, at);
            let fate = &mut self.spots[instance.index()].fates[at];
            if *fate == Fate::Stays(Standing::Orphan) && container.operation.is_none() && !container.outdated
            {
                *fate = Fate::Used;
                return container.key;
            }
        }
        // Numbers are given in ascending order, so the search goes on behind the last one given.
        let first = pool.named.filter(|last| last.service == service).map_or(0, |last| last.ordinal + 1);
        let key = (first..=u32::MAX)
            .map(|ordinal| ContainerKey { instance, service, ordinal })
            .find(|key| self.state.container(*key).is_none() && !pool.waited_for.contains(key))
            .expect("an instance holds fewer containers than there are numbers");
        pool.named = Some(key);
        key
    }

    /// What has ended is removed, but not while a start in its room is under way: an engine does one thing at a
    /// time, and the start matters more.
    fn removals(&self, instance: InstanceId, pool: &Pool) -> impl Iterator<Item = Action> {
        let spot = &self.spots[instance.index()];
        self.state.containers_on(instance).iter().zip(&spot.fates).filter_map(|(container, fate)| {
            let reason = match fate {
                _ if container.operation.is_some() || pool.waited_for.contains(&container.key) => {
                    return None;
                }
                Fate::Stays(Standing::Ended) => RemoveReason::Exited,
                Fate::Stays(Standing::Orphan) => RemoveReason::NeverStarted,
                _ => return None,
            };
            Some(Action::Remove { container: container.key, reason })
        })
    }
}
