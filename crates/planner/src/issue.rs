//! Issuing: what has been decided becomes actions in order, each start paired with whatever it waits for.

use std::collections::VecDeque;

use crate::board::Board;
use crate::model::{ContainerKey, InstanceId, Overlap, Resources, ServiceId};
use crate::plan::Action;
use crate::reasons::{RemoveReason, StartReason, StopReason};
use crate::spot::{Arrival, Ending, Fate, Going, Group};
use crate::standing::Standing;

/// What is left to give of an instance's room while its actions are issued.
struct Pool {
    instance: InstanceId,
    free_now: Resources,
    overfull: bool,
    overfull_beyond_swaps: bool,
    /// On their way out, with what of their room is not promised yet.
    leaving: Vec<Leaving>,
    /// Of these, so many at the head have nothing to give any more.
    spent: usize,
    /// Sent away by this plan, not issued yet.
    sent_away: VecDeque<Going>,
    /// The last new container that was given a number, and how many of its service, in order, stand before it.
    named: Option<(ContainerKey, usize)>,
}

struct Leaving {
    key: ContainerKey,
    room: Resources,
    /// This plan freezes it: whoever overlaps need not wait for it.
    freezes: bool,
}

impl Board<'_> {
    /// The actions: by importance of what arrives, each victim before its successor; then what goes for other
    /// reasons; then removals; standbys to be warmed come last, with what lends them its room.
    pub(crate) fn issue(&mut self) -> Vec<Action> {
        let mut actions = Vec::new();
        let written: Vec<InstanceId> = self.spots.written().map(|(instance, _)| instance).collect();
        let mut pools: Vec<Pool> = written.into_iter().map(|instance| self.pool(instance)).collect();
        let warms = |arrival: &Arrival| arrival.reason == StartReason::Standby;
        let mut arrivals: Vec<(bool, u32, ServiceId, usize, usize)> = Vec::new();
        for (pool, (_, spot)) in self.spots.written().enumerate() {
            let there = spot.arrivals.iter().enumerate();
            arrivals.extend(there.map(|(at, it)| (warms(it), it.priority, it.service, pool, at)));
        }
        arrivals.sort_unstable();
        let going: usize = pools.iter().map(|pool| pool.sent_away.len()).sum();
        actions.reserve(arrivals.len() + going);
        let mut last = Vec::new();
        for (warms, _, _, pool, at) in arrivals {
            let actions = if warms { &mut last } else { &mut actions };
            let pool = &mut pools[pool];
            let arrival = self.spots[pool.instance.index()].arrivals[at];
            self.issue_arrival(&arrival, pool.instance, pool, actions);
        }
        for ((instance, _), pool) in self.spots.written().zip(&mut pools) {
            for going in std::mem::take(&mut pool.sent_away) {
                actions.push(self.issue_going(instance, going, pool));
            }
        }
        for (instance, _) in self.spots.written() {
            self.issue_ends(instance, &mut actions);
        }
        for (instance, spot) in self.state.instance_ids().zip(self.spots.iter()) {
            if spot.has_litter {
                actions.extend(self.removals(instance));
            }
        }
        actions.append(&mut last);
        actions
    }

    fn pool(&mut self, instance: InstanceId) -> Pool {
        let mut sent_away = std::mem::take(&mut self.spots[instance.index()].going);
        let spot = &self.spots[instance.index()];
        // Running ones first: they leave more than memory.
        sent_away.sort_unstable_by_key(|going| (going.suspended, going.position));
        let mut leaving = Vec::with_capacity(spot.leaving.len() + sent_away.len());
        leaving.extend(spot.leaving.iter().map(|&(key, room)| Leaving { key, room, freezes: false }));
        Pool {
            instance,
            free_now: spot.free_now,
            overfull: spot.overfull,
            overfull_beyond_swaps: spot.overfull_beyond_swaps,
            leaving,
            spent: 0,
            sent_away: sent_away.into(),
            named: None,
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
            // Mostly it is one.
            of.reserve_exact(1);
            of.push(leaving.key);
        };
        let draw = |from: &mut Resources, lacks: &mut Resources| {
            let drawn = lacks.cut_to(*from);
            *from = from.minus(drawn);
            *lacks = lacks.minus(drawn);
            !drawn.is_zero()
        };
        draw(&mut pool.free_now, &mut lacks);
        pool.spent += pool.leaving[pool.spent..].iter().take_while(|it| it.room.is_zero()).count();
        for leaving in &mut pool.leaving[if overfull { 0 } else { pool.spent }..] {
            if lacks.is_zero() && !overfull {
                break;
            }
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
            let going = pool.sent_away.remove(at).expect("it was found there");
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
            let container = self.container(instance, position as usize).key;
            actions.push(Action::Thaw { container, after, beside, reason: arrival.reason });
        } else {
            let container = self.name(instance, arrival.service, pool);
            actions.push(Action::Start { container, after, beside, reason: arrival.reason });
        }
    }

    /// What ends without a slot of its own.
    fn issue_ends(&self, instance: InstanceId, actions: &mut Vec<Action>) {
        let mut ending = self.spots[instance.index()].ending.clone();
        ending.sort_unstable_by_key(|ending| ending.position);
        for Ending { position, reason, lender } in ending {
            let container = self.container(instance, position).key;
            let Some(lender) = lender else {
                actions.push(Action::Kill { container, reason });
                continue;
            };
            let lender = self.container(instance, lender).key;
            actions.push(Action::Freeze { container: lender, reason: StopReason::Lends { to: container } });
            actions.push(Action::Evict { container, after: vec![lender], reason });
        }
    }

    fn gives_when_gone(&self, instance: InstanceId, going: Going) -> Resources {
        let request = self.request(self.container(instance, going.position as usize).key.service);
        if going.freeze { request.minus(request.when_frozen()) } else { request }
    }

    fn issue_going(&self, instance: InstanceId, going: Going, pool: &mut Pool) -> Action {
        let (container, reason) = (self.container(instance, going.position as usize).key, going.reason);
        let room = self.gives_when_gone(instance, going);
        pool.leaving.push(Leaving { key: container, room, freezes: going.freeze });
        if going.freeze { Action::Freeze { container, reason } } else { Action::Stop { container, reason } }
    }

    /// The key of a new container: that of one that was created and never started, or the smallest free number.
    fn name(&mut self, instance: InstanceId, service: ServiceId, pool: &mut Pool) -> ContainerKey {
        let spot = &mut self.spots[instance.index()];
        let there = spot.group(service).map_or(0..0, Group::positions);
        let containers = &self.state.containers_on(instance)[there.clone()];
        if spot.has_litter {
            for (container, fate) in containers.iter().zip(&mut spot.fates[there]) {
                let usable = container.operation.is_none() && !container.outdated;
                if *fate == Fate::Stays(Standing::Orphan) && usable {
                    *fate = Fate::Used;
                    return container.key;
                }
            }
        }
        // Numbers are given in ascending order, so the search goes on behind the last one given. Whoever started under
        // the number of one that is waited for would be waited for in its place.
        let last = pool.named.filter(|(last, _)| last.service == service);
        let (ordinal, mut before) = last.map_or((0, 0), |(last, before)| (last.ordinal + 1, before));
        let mut key = ContainerKey { instance, service, ordinal };
        loop {
            if containers.get(before).is_some_and(|container| container.key.ordinal == key.ordinal) {
                before += 1;
            } else if spot.waited_for.binary_search(&key).is_err() {
                break;
            }
            key.ordinal += 1;
        }
        pool.named = Some((key, before));
        key
    }

    /// What has ended is removed, but not while a start in its room is under way: an engine does one thing at a
    /// time, and the start matters more.
    fn removals(&self, instance: InstanceId) -> impl Iterator<Item = Action> {
        let spot = &self.spots[instance.index()];
        self.state.containers_on(instance).iter().zip(&spot.fates).filter_map(|(container, fate)| {
            let reason = match fate {
                _ if container.operation.is_some()
                    || spot.waited_for.binary_search(&container.key).is_ok() =>
                {
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
