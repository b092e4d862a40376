//! An observation taken in, and what it shows for the first time.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use driver::{ContainerId, Exit};
use planner::{ContainerKey, InstanceId, Millis, Phase};

use super::operations::Kind;
use super::ready::Readiness;
use super::{Cluster, EngineId};
use crate::backoff::{Failure, RAN_WELL_MS};
use crate::observer::Observed;

/// Why one that is to be healthy, and has no healthcheck, is not waited for.
const NO_HEALTHCHECK: &str = "it has no healthcheck, and ready = \"healthy\" waits for one: configure `healthcheck`, \
                              or use an image that has one";

/// What an observation showed for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Noticed {
    /// A container that we started runs; milliseconds from the moment at which nothing more was in its room.
    Runs { took_ms: u64 },
    /// A start has failed: one ended that nobody had asked to, or became unhealthy, sooner than a good start lives, or
    /// was not ready in time, or never.
    Failed { key: ContainerKey, failure: Failure },
}

impl Cluster {
    /// Takes in what an engine says is there since `began_at`; every service in it is known. What was done shows at most
    /// `late_ms` after it.
    pub(crate) fn observe(
        &mut self,
        engine: EngineId,
        observed: &Arc<Observed>,
        began_at: Millis,
        late_ms: u64,
        now: Millis,
    ) -> Vec<Noticed> {
        let served: Vec<InstanceId> =
            self.state.instance_ids().filter(|&id| self.engine_of(id) == engine).collect();
        let Some(&first) = served.first() else { return Vec::new() };
        let mut here: HashMap<InstanceId, Vec<usize>> = HashMap::new();
        let mut strays = Vec::new();
        for (place, container) in observed.observation.containers.iter().enumerate() {
            match self.state.instance_id(&container.instance) {
                Some(id) if self.engine_of(id) == engine => here.entry(id).or_default().push(place),
                _ => strays.push(container.id.clone()),
            }
        }
        strays.sort();
        let mut noticed = Vec::new();
        for &instance in &served {
            let places = here.remove(&instance).unwrap_or_default();
            let mut shown = Vec::new();
            self.facts.retain(|id, fact| {
                let holds = fact.key.instance != instance
                    || observed.began < fact.order
                    || began_at < fact.at.plus(late_ms);
                if !holds {
                    shown.push(id.clone());
                }
                holds
            });
            self.number(instance, observed, &places, now);
            self.notice(instance, observed, &places, now, &mut noticed);
            for id in shown {
                if !places.iter().any(|&place| observed.observation.containers[place].id == id) {
                    // It has gone while its fact held.
                    self.memories.remove(&id);
                }
            }
            self.settle(instance, observed, &places, began_at);
            let known = &mut self.instances[instance.index()];
            known.observed = Some(Arc::clone(observed));
            known.observed_here = places;
            let before = std::mem::take(&mut known.strays);
            if instance == first {
                known.strays = std::mem::take(&mut strays);
                for stray in known.strays.iter().filter(|stray| !before.contains(stray)) {
                    tracing::warn!(
                        container = %stray,
                        "a container of this cluster says that it is on an instance which is not configured there: \
                         it is left alone; configure the instance, or remove the container by hand"
                    );
                }
            }
            self.dirty.insert(instance);
        }
        noticed
    }

    fn notice(
        &mut self,
        instance: InstanceId,
        observed: &Observed,
        places: &[usize],
        now: Millis,
        noticed: &mut Vec<Noticed>,
    ) {
        let mut present: HashSet<&ContainerId> = HashSet::with_capacity(places.len());
        for &place in places {
            let container = &observed.observation.containers[place];
            present.insert(&container.id);
            let Some(service) = self.state.service_id(&container.service) else { continue };
            let Some(memory) = self.memories.get_mut(&container.id) else { continue };
            let key = ContainerKey { instance, service, ordinal: memory.ordinal };
            let known = &self.services[service.index()];
            let before = std::mem::replace(&mut memory.phase, container.phase);
            if before != container.phase {
                if before == Phase::Frozen {
                    memory.frozen_ms += now.since(memory.phase_since);
                }
                memory.phase_since = now;
                memory.starting_until = None;
            }
            memory.phase_since = memory.phase_since.min(now);
            if container.phase == Phase::Running {
                memory.alive_since.get_or_insert(memory.phase_since);
            }
            let readiness = memory.readiness.after(container.phase, container.health, known.ready, now);
            let was = std::mem::replace(&mut memory.readiness, readiness);
            let counts = container.phase == Phase::Running
                && readiness.counts_as(known.ready) == (Phase::Running, None);
            if was.counts_as(known.ready) != readiness.counts_as(known.ready) {
                memory.phase_since = now;
            }
            // An older generation's failures say nothing of the one that is started now.
            let is_ours = memory.started_here
                && known.made_of.as_ref().is_none_or(|(_, generation)| *generation == container.generation);
            let failure = match (was, readiness) {
                (Readiness::Ahead, Readiness::Failed) => {
                    Some(Failure { took_ms: 0, reason: NO_HEALTHCHECK.to_owned() })
                }
                (Readiness::Ready { since }, Readiness::Unhealthy)
                    if is_ours && now.since(since) < RAN_WELL_MS =>
                {
                    let took_ms = memory.alive_since.map_or(0, |alive_since| now.since(alive_since));
                    let reason = format!("it was unhealthy within {RAN_WELL_MS} ms of being ready");
                    Some(Failure { took_ms, reason })
                }
                (was, Readiness::Unhealthy) if was != readiness => {
                    tracing::warn!(container = self.state.describe(key), "a container is unhealthy");
                    None
                }
                _ => None,
            };
            noticed.extend(failure.map(|failure| Noticed::Failed { key, failure }));
            let starting = self.operations.get_mut(&key).filter(|operation| operation.kind == Kind::Start);
            if counts {
                memory.ran = true;
                let from =
                    memory.start_from.take().or(starting.and_then(|operation| operation.room_since.take()));
                if let Some(from) = from {
                    noticed.push(Noticed::Runs { took_ms: now.since(from) });
                }
            } else if container.phase == Phase::Exited
                && !memory.stop_asked
                && !memory.ended
                && (memory.started_here || starting.is_some())
                && (before != Phase::Exited || memory.start_from.is_some() || starting.is_some())
            {
                memory.ended = true;
                let took_ms = memory.alive_since.map_or(0, |alive_since| now.since(alive_since));
                memory.start_from = None;
                let too_soon = (took_ms < RAN_WELL_MS)
                    .then(|| format!("within {RAN_WELL_MS} ms"))
                    .or((!memory.ran).then(|| "before it was ready".to_owned()));
                if let Some(too_soon) = too_soon.filter(|_| is_ours || starting.is_some()) {
                    let reason = format!("{} {too_soon}", exit_words(container.exit.as_ref()));
                    noticed.push(Noticed::Failed { key, failure: Failure { took_ms, reason } });
                }
            }
        }
        // Those that were there and are not any more.
        for known in &self.instances[instance.index()].containers {
            let Some(id) =
                known.id.as_ref().filter(|id| !present.contains(id) && !self.facts.contains_key(id))
            else {
                continue;
            };
            let Some(memory) = self.memories.remove(id) else { continue };
            let took_ms = memory.alive_since.map_or(0, |alive_since| now.since(alive_since));
            let alive = matches!(memory.phase, Phase::Starting | Phase::Running) && !known.container.outdated;
            if alive && memory.started_here && !memory.stop_asked && took_ms < RAN_WELL_MS {
                let reason = format!("it was gone within {RAN_WELL_MS} ms");
                let failure = Failure { took_ms, reason };
                noticed.push(Noticed::Failed { key: known.container.key, failure });
            }
        }
    }
}

/// How a container ended, as the rest of a sentence.
pub(crate) fn exit_words(exit: Option<&Exit>) -> String {
    let Some(exit) = exit else { return "it ended, and how is not known".to_owned() };
    let mut words = format!("it exited with code {}", exit.code);
    if exit.out_of_memory {
        words.push_str(", out of memory");
    }
    if let Some(message) = exit.message.as_deref().filter(|message| !message.is_empty()) {
        words.push_str(": ");
        words.push_str(message);
    }
    words
}
