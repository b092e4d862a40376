//! What engines report, what has just ended and what is under way, laid over each other: the planner's state.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use driver::ContainerId;
use planner::{Container, ContainerKey, Delta, InstanceId, Millis, Operation, Phase, ServiceId};

use super::operations::Kind;
use super::remembered::{Effect, Fact};
use super::{Cluster, Known};

impl Cluster {
    /// Brings the planner's state up to date with all of the above, and says which instances were looked at.
    pub(crate) fn merge(&mut self, now: Millis) -> BTreeSet<InstanceId> {
        let dirty = std::mem::take(&mut self.dirty);
        for &instance in &dirty {
            self.merge_instance(instance, now);
        }
        dirty
    }

    fn merge_instance(&mut self, instance: InstanceId, now: Millis) {
        let mut list = self.laid_over(instance, now);
        // Whoever holds room that somebody waits for.
        let in_room: HashMap<ContainerId, ContainerKey> = list
            .iter()
            .filter(|known| self.has_not_left(known))
            .filter_map(|known| Some((known.id.clone()?, known.container.key)))
            .collect();
        let first = ContainerKey { instance, service: ServiceId(0), ordinal: 0 };
        let last = ContainerKey { instance, service: ServiceId(u32::MAX), ordinal: u32::MAX };
        let mut coming = Vec::new();
        for (&key, operation) in self.operations.range_mut(first..=last) {
            operation.after.retain(|id| in_room.contains_key(id));
            if let Some(left) = &operation.left {
                left.send_if_modified(|left| {
                    let changed = *left != operation.after;
                    left.clone_from(&operation.after);
                    changed
                });
                if operation.after.is_empty() {
                    operation.left = None;
                    operation.room_since = Some(now);
                }
            }
            let after = operation.after.iter().map(|id| in_room[id]).collect();
            let shown = match operation.kind {
                Kind::Start => Operation::Start { after },
                Kind::Thaw => Operation::Thaw { after },
                Kind::Stop => Operation::Stop,
                Kind::Evict => Operation::Evict { after },
                Kind::Kill => Operation::Kill,
                Kind::Freeze => Operation::Freeze,
                Kind::Remove => Operation::Remove,
            };
            match list.binary_search_by_key(&key, |known| known.container.key) {
                Ok(at) => {
                    let container = &mut list[at].container;
                    if operation.kind == Kind::Start && container.phase == Phase::Exited {
                        // An earlier one of its name, in whose place the engine will put the new one.
                        container.phase = Phase::Created;
                    }
                    container.operation = Some(shown);
                }
                Err(_) if operation.kind == Kind::Start => coming.push(Known {
                    container: Container {
                        key,
                        phase: Phase::Created,
                        fault: None,
                        operation: Some(shown),
                        since: operation.issued_at,
                        outdated: false,
                    },
                    id: None,
                    exit: None,
                }),
                // It was taken away by somebody else meanwhile.
                Err(_) => {}
            }
        }
        // What a victim was told may have failed. While its successor waits it is on its way out all the same: it will be
        // told again, and its room is promised, but for the memory of one that is to be frozen.
        let awaited: HashSet<&ContainerId> =
            self.on(instance).flat_map(|(_, operation)| &operation.after).collect();
        for known in &mut list {
            if known.container.operation.is_none() && known.id.as_ref().is_some_and(|id| awaited.contains(id))
            {
                known.container.operation = Some(match self.leaves_by(known) {
                    Kind::Freeze => Operation::Freeze,
                    Kind::Kill => Operation::Kill,
                    _ => Operation::Stop,
                });
            }
        }
        list.extend(coming);
        list.sort_by_key(|known| known.container.key);
        let before = self.state.containers_on(instance);
        if !before.iter().eq(list.iter().map(|known| &known.container)) {
            let gone: Vec<ContainerKey> = before
                .iter()
                .map(|container| container.key)
                .filter(|key| list.binary_search_by_key(key, |known| known.container.key).is_err())
                .collect();
            for key in gone {
                self.state.apply(Delta::ContainerGone(key));
            }
            for known in &list {
                if self.state.container(known.container.key) != Some(&known.container) {
                    self.state.apply(Delta::Container(known.container.clone()));
                }
            }
        }
        self.instances[instance.index()].containers = list;
    }

    /// What the engine reports on an instance, with the facts that it does not show yet laid over it.
    fn laid_over(&self, instance: InstanceId, now: Millis) -> Vec<Known> {
        let known = &self.instances[instance.index()];
        let mut list = Vec::with_capacity(known.observed_here.len());
        let mut started: BTreeMap<&ContainerId, &Fact> = self
            .facts
            .iter()
            .filter(|(_, fact)| fact.key.instance == instance && fact.effect == Effect::Started)
            .collect();
        let containers = known.observed.as_ref().map_or(&[][..], |observed| &observed.observation.containers);
        for container in known.observed_here.iter().map(|&place| &containers[place]) {
            let Some(service) = self.state.service_id(&container.service) else { continue };
            let Some(memory) = self.memories.get(&container.id) else { continue };
            started.remove(&container.id);
            let phase = match self.facts.get(&container.id).map(|fact| fact.effect) {
                Some(Effect::Removed) => continue,
                Some(Effect::Ended) => Phase::Exited,
                Some(Effect::Started) if container.phase == Phase::Created => Phase::Starting,
                None if container.phase == Phase::Created
                    && memory.starting_until.is_some_and(|until| now < until) =>
                {
                    Phase::Starting
                }
                Some(Effect::Frozen) if matches!(container.phase, Phase::Starting | Phase::Running) => {
                    Phase::Frozen
                }
                Some(Effect::Thawed) if container.phase == Phase::Frozen => Phase::Running,
                _ => container.phase,
            };
            let (phase, fault) = match phase {
                Phase::Running => memory.readiness.counts_as(self.services[service.index()].ready),
                _ => (phase, None),
            };
            let made_of = self.services[service.index()].made_of.as_ref();
            list.push(Known {
                container: Container {
                    key: ContainerKey { instance, service, ordinal: memory.ordinal },
                    phase,
                    fault,
                    operation: None,
                    since: memory.alive_since.unwrap_or(Millis(container.created_at_ms)).min(now),
                    outdated: made_of.is_some_and(|(_, generation)| *generation != container.generation),
                },
                id: Some(container.id.clone()),
                exit: container.exit.clone(),
            });
        }
        for (id, fact) in started {
            list.push(Known {
                container: Container {
                    key: fact.key,
                    phase: Phase::Starting,
                    fault: None,
                    operation: None,
                    since: fact.at,
                    outdated: false,
                },
                id: Some(id.clone()),
                exit: None,
            });
        }
        list.sort_by_key(|known| known.container.key);
        list
    }
}
