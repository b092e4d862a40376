//! The cluster as it is known: what engines report, with what we are doing and have just done laid over it.
//!
//! An observation is a listing of some moment, and an action may end while one is on its way. Two rules keep a
//! start from being done twice and a stopped container from being counted:
//!
//! - from its issue to its end, an action is an [`InFlight`] operation on its container, shown to the planner;
//! - from its end on, its effect is a [`Fact`] about the engine's id, which holds until an observation arrives that
//!   *began* after that end; on an engine whose starts are not idempotent `settle_ms` after it, for such an engine may
//!   list late what was done.
//!
//! An outcome that is not known is no fact: its operation goes on until an observation tells.

mod configure;
mod merge;
mod numbers;
mod observe;
mod operations;
mod ready;
mod remembered;
mod work;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use driver::{ContainerId, ContainerSpec, Exit, Generation};
use planner::{Container, ContainerKey, Delta, InstanceId, Millis, Phase, Service, ServiceId, State};

use crate::backoff::RAN_WELL_MS;
use crate::executor::OperationId;
use crate::observer::Observed;
use crate::settings::{Ready, Settings};

pub(crate) use observe::{Noticed, exit_words};
use operations::InFlight;
pub(crate) use operations::{Calls, Kind};
use remembered::{Fact, Memory};
pub(crate) use work::Work;

/// An engine, as long as the controller runs. It stays the same when a new driver speaks with the same engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EngineId(pub(crate) u64);

/// One container as it is known.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) container: Container,
    pub(crate) id: Option<ContainerId>,
    pub(crate) exit: Option<Exit>,
}

struct KnownService {
    name: Arc<str>,
    /// `None` for one that is not configured.
    made_of: Option<(Arc<ContainerSpec>, Generation)>,
    ready: Ready,
}

struct KnownInstance {
    name: Arc<str>,
    engine: EngineId,
    observed: Option<Arc<Observed>>,
    /// Those of `observed` that are here, by their place in it.
    observed_here: Vec<usize>,
    strays: Vec<ContainerId>,
    /// Sorted by key.
    containers: Vec<Known>,
}

/// The planner's state, and all that it is made from.
pub(crate) struct Cluster {
    state: State,
    fill_hold_until: Millis,
    services: Vec<KnownService>,
    instances: Vec<KnownInstance>,
    /// Services that are not configured and still hold containers: as they were configured, or a bare minimum.
    removed: BTreeMap<String, Service>,
    removed_specs: BTreeMap<String, Arc<ContainerSpec>>,
    operations: BTreeMap<ContainerKey, InFlight>,
    keys: HashMap<OperationId, ContainerKey>,
    facts: HashMap<ContainerId, Fact>,
    memories: HashMap<ContainerId, Memory>,
    dirty: BTreeSet<InstanceId>,
}

impl Cluster {
    /// A cluster of which nothing is known yet.
    pub(crate) fn new(
        settings: &Settings,
        engine_of: impl Fn(&str) -> EngineId,
        fill_hold_until: Millis,
    ) -> Self {
        let mut cluster = Self {
            state: State::new(Vec::new(), Vec::new(), fill_hold_until),
            fill_hold_until,
            services: Vec::new(),
            instances: Vec::new(),
            removed: BTreeMap::new(),
            removed_specs: BTreeMap::new(),
            operations: BTreeMap::new(),
            keys: HashMap::new(),
            facts: HashMap::new(),
            memories: HashMap::new(),
            dirty: BTreeSet::new(),
        };
        cluster.configure(settings, engine_of, false, &BTreeSet::new());
        cluster
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Applies a change that is about no container.
    pub(crate) fn apply(&mut self, delta: Delta) {
        self.state.apply(delta);
    }

    pub(crate) fn service_name(&self, id: ServiceId) -> &Arc<str> {
        &self.services[id.index()].name
    }

    pub(crate) fn instance_name(&self, id: InstanceId) -> &Arc<str> {
        &self.instances[id.index()].name
    }

    /// The generation of a configured service's containers.
    pub(crate) fn generation(&self, id: ServiceId) -> Option<&Generation> {
        self.services[id.index()].made_of.as_ref().map(|(_, generation)| generation)
    }

    pub(crate) fn engine_of(&self, id: InstanceId) -> EngineId {
        self.instances[id.index()].engine
    }

    pub(crate) fn observed(&self, id: InstanceId) -> Option<&Observed> {
        self.instances[id.index()].observed.as_deref()
    }

    /// Containers that say they are on an instance that is not configured, reported at this one.
    pub(crate) fn strays(&self, id: InstanceId) -> &[ContainerId] {
        &self.instances[id.index()].strays
    }

    /// The containers on an instance, sorted by key.
    pub(crate) fn containers_on(&self, id: InstanceId) -> &[Known] {
        &self.instances[id.index()].containers
    }

    pub(crate) fn container(&self, key: ContainerKey) -> Option<&Known> {
        let list = self.containers_on(key.instance);
        list.binary_search_by_key(&key, |known| known.container.key).ok().map(|at| &list[at])
    }

    /// Since when a container has been in its phase, as far as we know.
    pub(crate) fn phase_since(&self, known: &Known) -> Millis {
        let memory = known.id.as_ref().and_then(|id| self.memories.get(id));
        match (memory, known.id.as_ref().and_then(|id| self.facts.get(id))) {
            (_, Some(fact)) => fact.at,
            (Some(memory), None) => memory.phase_since,
            (None, None) => known.container.since,
        }
    }

    /// Whether a container of the service ran well on the instance, started no earlier than `after`.
    pub(crate) fn ran_well(
        &self,
        service: ServiceId,
        instance: InstanceId,
        after: Millis,
        now: Millis,
    ) -> bool {
        self.containers_on(instance).iter().any(|known| {
            known.container.key.service == service
                && known.container.runs()
                && known
                    .id
                    .as_ref()
                    .and_then(|id| self.memories.get(id)?.alive_since)
                    .is_some_and(|alive_since| alive_since >= after && now.since(alive_since) >= RAN_WELL_MS)
        })
    }

    /// The containers of an instance, by name.
    pub(crate) fn names_on(&self, instance: &str) -> Vec<String> {
        let Some(id) = self.state.instance_id(instance) else { return Vec::new() };
        self.containers_on(id).iter().map(|known| self.state.describe(known.container.key)).collect()
    }

    /// Containers that were created, and of which it is not known whether somebody is starting them.
    pub(crate) fn half_made(&self) -> Vec<ContainerKey> {
        let containers = self.state.containers();
        let containers = containers.filter(|it| it.phase == Phase::Created && it.operation.is_none());
        let reachable = containers
            .filter(|it| self.state.instance(it.key.instance).state != planner::InstanceState::Lost);
        reachable.map(|it| it.key).collect()
    }
}

/// Whether a container in this phase takes its request.
pub(crate) const fn takes_room(phase: Phase) -> bool {
    matches!(phase, Phase::Starting | Phase::Running | Phase::Stopping)
}
