//! The numbers of containers: the ordinals in their keys, where an engine gives none or two claim the same.

use std::collections::{HashMap, HashSet};

use driver::{ContainerId, ObservedContainer};
use planner::{ContainerKey, InstanceId, Millis, ServiceId};

use super::ready::Readiness;
use super::remembered::{Effect, Memory};
use super::{Cluster, takes_room};
use crate::observer::Observed;

impl Cluster {
    /// Gives each container that is seen for the first time its number: that of its name, or one from the top of
    /// the range where that is taken or there is none.
    pub(super) fn number(
        &mut self,
        instance: InstanceId,
        observed: &Observed,
        places: &[usize],
        now: Millis,
    ) {
        let mut taken: HashSet<(ServiceId, u32)> = HashSet::new();
        let mut numbered: Vec<(&ObservedContainer, ServiceId)> = Vec::new();
        let mut fresh: Vec<(&ObservedContainer, ServiceId)> = Vec::new();
        let listed: HashSet<&ContainerId> =
            places.iter().map(|&place| &observed.observation.containers[place].id).collect();
        for (id, fact) in &self.facts {
            if fact.key.instance == instance
                && fact.effect != Effect::Removed
                && self.memories.contains_key(id)
                && !listed.contains(id)
            {
                taken.insert((fact.key.service, fact.key.ordinal));
            }
        }
        for &place in places {
            let container = &observed.observation.containers[place];
            if self.facts.get(&container.id).is_some_and(|fact| fact.effect == Effect::Removed) {
                continue;
            }
            let Some(service) = self.state.service_id(&container.service) else { continue };
            if self.memories.contains_key(&container.id) {
                numbered.push((container, service));
            } else {
                fresh.push((container, service));
            }
        }
        // Two may have got one number while the engine was not observed: what lives keeps it.
        numbered.sort_by_key(|(container, _)| {
            (!takes_room(container.phase), container.created_at_ms, container.id.clone())
        });
        for &(container, service) in &numbered {
            let Some(memory) = self.memories.get_mut(&container.id) else { continue };
            if !taken.insert((service, memory.ordinal)) {
                memory.ordinal = free_from_the_top(&taken, service);
                taken.insert((service, memory.ordinal));
            }
        }
        // The oldest keeps its name's number. Among those without one, what was left created by a start that has
        // failed counts as older than what lives.
        fresh.sort_by_key(|(container, _)| {
            let lives = container.ordinal.is_none() && takes_room(container.phase);
            (lives, container.created_at_ms, container.id.clone())
        });
        // On an engine that knows no numbers, the youngest are those that are being started. While one of these
        // starts has not ended, or had not when the engine was asked, nobody knows which is which: they stay out, and
        // their operations stand for them.
        let mut young: HashMap<ServiceId, (usize, Vec<ContainerKey>)> = HashMap::new();
        for (container, service) in &fresh {
            if container.ordinal.is_none() {
                young.entry(*service).or_default().0 += 1;
            }
        }
        for (service, (nameless, awaited)) in &mut young {
            awaited.extend(
                self.on(instance)
                    .map(|(key, _)| *key)
                    .filter(|key| key.service == *service && self.awaits(key)),
            );
            // The oldest of them, if there are more than are being started, are somebody else's doing.
            *nameless = nameless.saturating_sub(awaited.len());
        }
        for (container, service) in fresh {
            let ours = match (container.ordinal, young.get_mut(&service)) {
                (Some(ordinal), _) => {
                    let key = ContainerKey { instance, service, ordinal };
                    Some(key).filter(|key| self.awaits(key))
                }
                (None, Some((older, _))) if *older > 0 => {
                    *older -= 1;
                    None
                }
                (None, Some((_, awaited))) => {
                    if awaited.iter().any(|key| !self.operations[key].is_told_by(observed)) {
                        continue;
                    }
                    awaited.pop()
                }
                (None, None) => None,
            };
            // What is being started has its number; a leftover of the same name has to give it up.
            if let Some(key) = ours
                && taken.contains(&(service, key.ordinal))
            {
                let other = free_from_the_top(&taken, service);
                taken.insert((service, other));
                self.renumber(key, &container.id, other);
                // It may never have been observed before, and so not be among the containers that are known.
                for (leftover, _) in numbered.iter().filter(|(_, its)| *its == service) {
                    if let Some(memory) =
                        self.memories.get_mut(&leftover.id).filter(|memory| memory.ordinal == key.ordinal)
                    {
                        memory.ordinal = other;
                    }
                }
                taken.remove(&(service, key.ordinal));
            }
            if let Some(operation) = ours.and_then(|key| self.operations.get_mut(&key)) {
                operation.container = Some(container.id.clone());
            }
            let own = ours.map(|key| key.ordinal).or(container.ordinal);
            let own = own.filter(|&ordinal| !taken.contains(&(service, ordinal)));
            let ordinal = own.unwrap_or_else(|| free_from_the_top(&taken, service));
            taken.insert((service, ordinal));
            let phase_since = if ours.is_some() { now } else { Millis(container.created_at_ms) };
            let mut memory = Memory::new(ordinal, container.phase, phase_since);
            if ours.is_some() {
                memory.readiness = Readiness::Ahead;
            }
            self.memories.insert(container.id.clone(), memory);
        }
    }

    /// Gives another number to whatever has this key and is not the container `except`.
    pub(super) fn renumber(&mut self, key: ContainerKey, except: &ContainerId, ordinal: u32) {
        let Some(id) = self.container(key).and_then(|known| known.id.clone()).filter(|id| id != except)
        else {
            return;
        };
        if let Some(memory) = self.memories.get_mut(&id) {
            memory.ordinal = ordinal;
            self.dirty.insert(key.instance);
        }
    }
}

/// The highest number that no container of the service has: out of the way of those that the planner gives.
pub(super) fn free_from_the_top(taken: &HashSet<(ServiceId, u32)>, service: ServiceId) -> u32 {
    (0..=u32::MAX).rev().find(|&ordinal| !taken.contains(&(service, ordinal))).unwrap_or(u32::MAX)
}
