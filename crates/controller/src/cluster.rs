//! The cluster as it is known: what engines report, with what we are doing and have just done laid over it.
//!
//! An observation is a listing of some moment, and an action may end while one is on its way. Two rules keep a
//! start from being done twice and a stopped container from being counted:
//!
//! - from its issue to its end, an action is an [`InFlight`] operation on its container, shown to the planner;
//! - from its end on, its effect is a [`Fact`] about the engine's id, which holds until an observation arrives that
//!   *began* after that end.
//!
//! An outcome that is not known is no fact: its operation goes on until an observation tells.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use driver::{ContainerId, ContainerSpec, Exit, Generation, ObservedContainer, Start, StopOptions};
use planner::{
    Action, Container, ContainerKey, Delta, InstanceId, Millis, Operation, Phase, Service, ServiceId, State,
    StopReason,
};
use tokio::sync::watch;

use crate::backoff::RAN_WELL_MS;
use crate::executor::{OperationId, Work};
use crate::observer::Observed;
use crate::settings::Settings;

/// The grace of a stop for a container of a service that is not configured, and so gives none: the engines' own
/// customary ten seconds.
const UNKNOWN_GRACE_MS: u64 = 10_000;

/// The least important of all: what is surplus anyway is the first to go.
const REMOVED_PRIORITY: u32 = u32::MAX;

/// An engine, as long as the controller runs. It stays the same when a new driver speaks with the same engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct EngineId(pub(crate) u64);

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Start,
    Thaw,
    Stop,
    Freeze,
    Remove,
}

impl Kind {
    /// As in [`Action::kind`].
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Thaw => "thaw",
            Self::Stop => "stop",
            Self::Freeze => "freeze",
            Self::Remove => "remove",
        }
    }
}

/// One action under way, or ended without a clear answer.
pub(crate) struct InFlight {
    pub(crate) id: OperationId,
    pub(crate) kind: Kind,
    /// The engine's id of what it acts on; for a start, of what has appeared since and is taken for it.
    container: Option<ContainerId>,
    /// Whose room it waits for.
    after: Vec<ContainerId>,
    /// Tells the executor which of `after` have not left their room.
    left: Option<watch::Sender<Vec<ContainerId>>>,
    pub(crate) issued_at: Millis,
    /// For a start or thaw: since when nothing is in its room.
    room_since: Option<Millis>,
    /// Where its outcome is to be noted: the decision's sequence, and the action's place in it.
    pub(crate) decision: (u64, usize),
    /// Whether the engine would start it only once, however often it is asked to.
    idempotent: bool,
    unknown: Option<Unknown>,
}

/// An outcome that is not known.
#[derive(Clone, Copy)]
struct Unknown {
    /// An observation that began after this number tells.
    order: u64,
    /// Where the engine may still do what it was asked long ago: not believed before this.
    settled_at: Millis,
}

/// The effect of an action that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Started,
    Thawed,
    Ended,
    Frozen,
    Removed,
}

/// An effect that no observation shows yet.
#[derive(Clone, Copy, Debug)]
struct Fact {
    key: ContainerKey,
    effect: Effect,
    at: Millis,
    order: u64,
}

/// What is remembered of a container beyond the last observation.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and any of them may hold with any other"
)]
struct Memory {
    /// Its number in its key; not that of its name if that was taken.
    ordinal: u32,
    phase: Phase,
    phase_since: Millis,
    /// When we started it, or first saw it run.
    alive_since: Option<Millis>,
    ran: bool,
    /// From when its start is measured, until it has been seen to run.
    start_from: Option<Millis>,
    /// This process has started it. How one of a predecessor's ends says nothing of starts: the predecessor may have
    /// asked for it, or not have started it at all.
    started_here: bool,
    /// We have asked for its end.
    stop_asked: bool,
    /// Its end has been noticed.
    ended: bool,
    /// The engine would not remove it, because it is being started: it counts as that for so long, though an
    /// engine may say `created` until a container runs.
    starting_until: Option<Millis>,
    /// Why it was last told to leave its room, and how.
    leave: Option<(Kind, StopReason)>,
}

impl Memory {
    /// Of a container in its phase since `phase_since`, of which nothing more is known yet.
    const fn new(ordinal: u32, phase: Phase, phase_since: Millis) -> Self {
        Self {
            ordinal,
            phase,
            phase_since,
            alive_since: None,
            ran: false,
            start_from: None,
            started_here: false,
            stop_asked: false,
            ended: false,
            starting_until: None,
            leave: None,
        }
    }
}

/// One container as it is known.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) container: Container,
    pub(crate) id: Option<ContainerId>,
    pub(crate) exit: Option<Exit>,
}

/// What an observation showed for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Noticed {
    /// A container that we started runs; milliseconds from the moment at which nothing more was in its room.
    Runs { took_ms: u64 },
    /// One ended that nobody had asked to, sooner than a good start lives.
    DiedYoung { key: ContainerKey, words: String },
}

struct KnownService {
    name: Arc<str>,
    /// `None` for one that is not configured.
    made_of: Option<(Arc<ContainerSpec>, Generation)>,
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

    /// How many operations there are, those of unknown outcome included.
    pub(crate) fn operations_len(&self) -> usize {
        self.operations.len()
    }

    /// How many actions have been issued and have not ended.
    pub(crate) fn under_way(&self) -> usize {
        self.operations.values().filter(|operation| operation.unknown.is_none()).count()
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
                && known.container.phase == Phase::Running
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

    /// Builds the state anew for other settings, keeping all that is known of what stays.
    ///
    /// The caller applies demands, backoffs, pauses and the states of instances again. With `drain_all`, every
    /// service is surplus; those of `unknown`, which an engine reports and nobody has configured, are so always.
    pub(crate) fn configure(
        &mut self,
        settings: &Settings,
        engine_of: impl Fn(&str) -> EngineId,
        drain_all: bool,
        unknown: &BTreeSet<String>,
    ) {
        // What goes and still holds something is kept as it was.
        for (id, service) in self.state.service_ids().zip(self.state.services()) {
            if !self.removed.contains_key(&service.name) && self.holds_anything(id) {
                self.removed.insert(service.name.clone(), Service { removed: true, ..service.clone() });
                if let Some((spec, _)) = &self.services[id.index()].made_of {
                    self.removed_specs.insert(service.name.clone(), Arc::clone(spec));
                }
            }
        }
        let empty: Vec<String> = self
            .removed
            .keys()
            .filter(|name| !self.state.service_id(name).is_some_and(|id| self.holds_anything(id)))
            .cloned()
            .collect();
        for name in empty {
            self.removed.remove(&name);
        }
        for configured in &settings.services {
            self.removed.remove(&configured.service.name);
        }
        self.removed_specs.retain(|name, _| self.removed.contains_key(name));
        for name in unknown.iter().filter(|name| self.state.service_id(name).is_none()) {
            tracing::warn!(
                service = name,
                "containers of a service that is not configured: they are surplus"
            );
            let service = Service { removed: true, ..Service::fill(name.clone(), REMOVED_PRIORITY) };
            self.removed.insert(name.clone(), service);
        }
        let services = settings.services.iter().map(|configured| {
            let removed = configured.service.removed || drain_all;
            Service { removed, ..configured.service.clone() }
        });
        let services = services.chain(self.removed.values().cloned()).collect();
        self.rebuild(services, settings, engine_of);
    }

    fn rebuild(&mut self, services: Vec<Service>, settings: &Settings, engine_of: impl Fn(&str) -> EngineId) {
        let old = std::mem::replace(
            &mut self.state,
            State::new(services, settings.instances.clone(), self.fill_hold_until),
        );
        let made_of: HashMap<&str, &Arc<ContainerSpec>> = settings
            .services
            .iter()
            .map(|configured| (configured.service.name.as_str(), &configured.spec))
            .collect();
        self.services = self
            .state
            .services()
            .iter()
            .map(|service| KnownService {
                name: service.name.as_str().into(),
                made_of: made_of
                    .get(service.name.as_str())
                    .map(|&spec| (Arc::clone(spec), spec.generation())),
            })
            .collect();
        let mut before: HashMap<Arc<str>, KnownInstance> =
            self.instances.drain(..).map(|known| (Arc::clone(&known.name), known)).collect();
        self.instances = self
            .state
            .instances()
            .iter()
            .map(|instance| {
                let engine = engine_of(&instance.name);
                match before.remove(instance.name.as_str()) {
                    Some(known) if known.engine == engine => {
                        KnownInstance { containers: Vec::new(), ..known }
                    }
                    // What another engine has said of it says nothing of this one.
                    _ => KnownInstance {
                        name: instance.name.as_str().into(),
                        engine,
                        observed: None,
                        observed_here: Vec::new(),
                        strays: Vec::new(),
                        containers: Vec::new(),
                    },
                }
            })
            .collect();
        let state = &self.state;
        let moved = |key: ContainerKey| {
            Some(ContainerKey {
                instance: state.instance_id(&old.instance(key.instance).name)?,
                service: state.service_id(&old.service(key.service).name)?,
                ordinal: key.ordinal,
            })
        };
        self.operations = std::mem::take(&mut self.operations)
            .into_iter()
            .filter_map(|(key, operation)| Some((moved(key)?, operation)))
            .collect();
        self.keys = self.operations.iter().map(|(&key, operation)| (operation.id, key)).collect();
        self.facts = std::mem::take(&mut self.facts)
            .into_iter()
            .filter_map(|(id, fact)| Some((id, Fact { key: moved(fact.key)?, ..fact })))
            .collect();
        // The reasons name services by their former ids.
        self.memories.values_mut().for_each(|memory| memory.leave = None);
        self.dirty = self.state.instance_ids().collect();
    }

    fn holds_anything(&self, service: ServiceId) -> bool {
        self.state.containers().any(|container| container.key.service == service)
            || self.operations.keys().any(|key| key.service == service)
    }

    /// Services that are in the state only for containers that are gone by now.
    pub(crate) fn has_empty_removed(&self) -> bool {
        self.removed.keys().any(|name| self.state.service_id(name).is_some_and(|id| !self.holds_anything(id)))
    }

    /// Services that an engine reports and that are not in the state: the caller configures with them, and then
    /// takes the observation in.
    pub(crate) fn unknown_services(&self, observed: &Observed) -> BTreeSet<String> {
        let containers = observed.observation.containers.iter();
        containers
            .filter(|container| self.state.instance_id(&container.instance).is_some())
            .filter(|container| self.state.service_id(&container.service).is_none())
            .map(|container| container.service.clone())
            .collect()
    }

    /// Takes in what an engine says is there; every service in it is known.
    pub(crate) fn observe(
        &mut self,
        engine: EngineId,
        observed: &Arc<Observed>,
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
            self.facts.retain(|_, fact| fact.key.instance != instance || observed.began < fact.order);
            self.number(instance, observed, &places, now);
            self.notice(instance, observed, &places, now, &mut noticed);
            self.settle(instance, observed, &places, now);
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

    /// Gives each container that is seen for the first time its number: that of its name, or one from the top of
    /// the range where that is taken or there is none.
    fn number(&mut self, instance: InstanceId, observed: &Observed, places: &[usize], now: Millis) {
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
        // starts has not ended, nobody knows which is which: they stay out, and their operations stand for them.
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
                    if awaited.iter().any(|key| self.operations[key].unknown.is_none()) {
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
            let memory = Memory::new(ordinal, container.phase, phase_since);
            self.memories.insert(container.id.clone(), memory);
        }
    }

    /// Gives another number to whatever has this key and is not the container `except`.
    fn renumber(&mut self, key: ContainerKey, except: &ContainerId, ordinal: u32) {
        let Some(id) = self.container(key).and_then(|known| known.id.clone()).filter(|id| id != except)
        else {
            return;
        };
        if let Some(memory) = self.memories.get_mut(&id) {
            memory.ordinal = ordinal;
            self.dirty.insert(key.instance);
        }
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
            let before = std::mem::replace(&mut memory.phase, container.phase);
            if before != container.phase {
                memory.phase_since = now;
                memory.starting_until = None;
            }
            memory.phase_since = memory.phase_since.min(now);
            let starting = self.operations.get_mut(&key).filter(|operation| operation.kind == Kind::Start);
            if container.phase == Phase::Running {
                memory.alive_since.get_or_insert(memory.phase_since);
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
                let lived_ms = memory.alive_since.map_or(0, |alive_since| now.since(alive_since));
                memory.start_from = None;
                if lived_ms < RAN_WELL_MS {
                    let words = exit_words(container.exit.as_ref());
                    noticed
                        .push(Noticed::DiedYoung { key, words: format!("{words} within {RAN_WELL_MS} ms") });
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
            let lived_ms = memory.alive_since.map_or(0, |alive_since| now.since(alive_since));
            let alive = matches!(memory.phase, Phase::Starting | Phase::Running);
            if alive && memory.started_here && !memory.stop_asked && lived_ms < RAN_WELL_MS {
                let words = format!("it was gone within {RAN_WELL_MS} ms");
                noticed.push(Noticed::DiedYoung { key: known.container.key, words });
            }
        }
    }

    /// Gives up operations of unknown outcome about which this observation tells.
    fn settle(&mut self, instance: InstanceId, observed: &Observed, places: &[usize], now: Millis) {
        let shown: HashSet<&ContainerId> =
            places.iter().map(|&place| &observed.observation.containers[place].id).collect();
        // Of these, what is there and what is not cannot be told yet (see `number`).
        let undecided: HashSet<ServiceId> = self
            .on(instance)
            .filter(|(key, operation)| operation.unknown.is_none() && self.awaits(key))
            .map(|(key, _)| key.service)
            .collect();
        let settled: Vec<ContainerKey> = self
            .on(instance)
            .filter(|(key, operation)| {
                operation.unknown.is_some_and(|unknown| {
                    observed.began > unknown.order
                        && (operation.kind != Kind::Start
                            || operation.idempotent
                            || (now >= unknown.settled_at && !undecided.contains(&key.service))
                            || operation.container.as_ref().is_some_and(|id| shown.contains(id)))
                })
            })
            .map(|(&key, _)| key)
            .collect();
        for key in settled {
            self.forget_operation(key);
        }
    }

    /// Whether that is being started, and nothing has appeared yet that is taken for it.
    fn awaits(&self, key: &ContainerKey) -> bool {
        self.operations.get(key).is_some_and(|it| it.kind == Kind::Start && it.container.is_none())
    }

    fn on(&self, instance: InstanceId) -> impl Iterator<Item = (&ContainerKey, &InFlight)> {
        let first = ContainerKey { instance, service: ServiceId(0), ordinal: 0 };
        let last = ContainerKey { instance, service: ServiceId(u32::MAX), ordinal: u32::MAX };
        self.operations.range(first..=last)
    }

    fn forget_operation(&mut self, key: ContainerKey) {
        if let Some(operation) = self.operations.remove(&key) {
            self.keys.remove(&operation.id);
        }
    }

    /// Begins an operation, and says what is to be done. `None`: the action cannot be carried out, because what it
    /// acts on is not there, or something is being done to it.
    pub(crate) fn begin(
        &mut self,
        action: &Action,
        id: OperationId,
        decision: (u64, usize),
        idempotent: bool,
        now: Millis,
    ) -> Option<Work> {
        let key = action.container();
        if self.operations.contains_key(&key) {
            return None;
        }
        let container = self.container(key).and_then(|known| known.id.clone());
        let after: Vec<ContainerId> =
            action.after().iter().filter_map(|&victim| self.in_its_room(victim)).collect();
        let (sender, receiver) = watch::channel(after.clone());
        let (kind, work) = match action {
            Action::Start { .. } => (Kind::Start, Work::Start { start: self.start(key)?, after: receiver }),
            Action::Thaw { .. } => (Kind::Thaw, Work::Thaw { id: container.clone()?, after: receiver }),
            Action::Stop { .. } => {
                let options = StopOptions { grace_ms: self.grace_ms(key.service) };
                (Kind::Stop, Work::Stop { id: container.clone()?, options })
            }
            Action::Freeze { .. } => (Kind::Freeze, Work::Freeze { id: container.clone()? }),
            Action::Remove { .. } => (Kind::Remove, Work::Remove { id: container.clone()? }),
        };
        if let Action::Stop { reason, .. } | Action::Freeze { reason, .. } = action
            && let Some(memory) = container.as_ref().and_then(|id| self.memories.get_mut(id))
        {
            memory.stop_asked = kind == Kind::Stop;
            memory.leave = Some((kind, *reason));
        }
        let starts = matches!(kind, Kind::Start | Kind::Thaw);
        let operation = InFlight {
            id,
            kind,
            container: if kind == Kind::Start { None } else { container },
            room_since: (starts && after.is_empty()).then_some(now),
            left: (starts && !after.is_empty()).then_some(sender),
            after,
            issued_at: now,
            decision,
            idempotent,
            unknown: None,
        };
        self.operations.insert(key, operation);
        self.keys.insert(id, key);
        self.dirty.insert(key.instance);
        Some(work)
    }

    /// The longest that stops which an action does or waits for may take by their own settings, in milliseconds.
    pub(crate) fn longest_grace_ms(&self, action: &Action) -> u64 {
        let victims = action.after().iter().map(|key| key.service);
        victims.chain([action.container().service]).map(|service| self.grace_ms(service)).max().unwrap_or(0)
    }

    fn grace_ms(&self, service: ServiceId) -> u64 {
        let known = &self.services[service.index()];
        match (&known.made_of, self.removed_specs.get(&*known.name)) {
            (Some((spec, _)), _) | (None, Some(spec)) => spec.stop_grace_ms,
            (None, None) => UNKNOWN_GRACE_MS,
        }
    }

    fn start(&self, key: ContainerKey) -> Option<Start> {
        let service = self.state.service(key.service);
        let (spec, generation) = self.services[key.service.index()].made_of.as_ref()?;
        Some(Start {
            service: service.name.clone(),
            instance: self.state.instance(key.instance).name.clone(),
            ordinal: key.ordinal,
            request: service.request,
            spec: Arc::clone(spec),
            generation: generation.clone(),
        })
    }

    /// The engine's id of a container that has not left its room.
    fn in_its_room(&self, key: ContainerKey) -> Option<ContainerId> {
        self.container(key)
            .filter(|known| takes_room(known.container.phase))
            .and_then(|known| known.id.clone())
    }

    /// The operation of that id, and what it is about, while it has not ended.
    pub(crate) fn operation(&self, id: OperationId) -> Option<(ContainerKey, &InFlight)> {
        let key = *self.keys.get(&id)?;
        self.operations.get(&key).map(|operation| (key, operation))
    }

    /// An operation has ended well: its effect is a fact. `started` is the id of what a start has started.
    pub(crate) fn done(&mut self, id: OperationId, order: u64, started: Option<ContainerId>, now: Millis) {
        let Some(key) = self.keys.remove(&id) else { return };
        let Some(operation) = self.operations.remove(&key) else { return };
        self.dirty.insert(key.instance);
        let effect = match operation.kind {
            Kind::Start => Effect::Started,
            Kind::Thaw => Effect::Thawed,
            Kind::Stop => Effect::Ended,
            Kind::Freeze => Effect::Frozen,
            Kind::Remove => Effect::Removed,
        };
        let Some(container) = started.or(operation.container) else { return };
        if effect == Effect::Started {
            // Whatever else has its number gives it up: a leftover beside which the engine has made a new one, or
            // one of several that are being started and had been taken for this one.
            let other = self.memories.get(&container).map(|memory| memory.ordinal);
            let other = other.filter(|&ordinal| ordinal != key.ordinal).unwrap_or_else(|| {
                let taken = self.containers_on(key.instance).iter().map(|known| known.container.key);
                let taken = taken.map(|other| (other.service, other.ordinal)).collect();
                free_from_the_top(&taken, key.service)
            });
            self.renumber(key, &container, other);
            let memory = self.memories.entry(container.clone()).or_insert_with(|| Memory {
                alive_since: Some(now),
                ..Memory::new(key.ordinal, Phase::Starting, now)
            });
            memory.ordinal = key.ordinal;
            memory.started_here = true;
            if !memory.ran && memory.phase != Phase::Exited {
                memory.alive_since.get_or_insert(now);
                memory.start_from = operation.room_since.or(Some(operation.issued_at));
            }
        }
        if effect == Effect::Removed {
            self.memories.remove(&container);
        }
        self.facts.insert(container, Fact { key, effect, at: now, order });
    }

    /// An operation has failed: nothing was done, or what was done the next observation shows.
    pub(crate) fn failed(&mut self, id: OperationId) {
        if let Some(&key) = self.keys.get(&id) {
            if let Some(memory) = self
                .operations
                .get(&key)
                .filter(|operation| operation.kind == Kind::Stop)
                .and_then(|operation| self.memories.get_mut(operation.container.as_ref()?))
            {
                memory.stop_asked = false;
            }
            self.forget_operation(key);
            self.dirty.insert(key.instance);
        }
    }

    /// A removal was refused, because what was created is being started, by a start whose beginning we have not
    /// seen: it takes room, whatever the engine says of it for now.
    pub(crate) fn starts_after_all(&mut self, id: OperationId, until: Millis) {
        let Some(&key) = self.keys.get(&id) else { return };
        let container = self.operations.get(&key).and_then(|operation| operation.container.as_ref());
        if let Some(memory) = container.and_then(|container| self.memories.get_mut(container)) {
            memory.starting_until = Some(until);
        }
    }

    /// Once more the actions by which containers were to leave their room, and did not, while a successor that was
    /// asked for with them still waits.
    pub(crate) fn again(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for (key, operation) in &self.operations {
            for id in &operation.after {
                let victim =
                    self.containers_on(key.instance).iter().find(|known| known.id.as_ref() == Some(id));
                let Some(victim) = victim.filter(|known| known.container.phase != Phase::Stopping) else {
                    continue;
                };
                let container = victim.container.key;
                if self.operations.contains_key(&container) {
                    continue;
                }
                let leave = self.memories.get(id).and_then(|memory| memory.leave);
                actions.push(match leave {
                    Some((Kind::Freeze, reason)) => Action::Freeze { container, reason },
                    Some((_, reason)) => Action::Stop { container, reason },
                    None => Action::Stop { container, reason: StopReason::Preempted { by: key.service } },
                });
            }
        }
        actions
    }

    /// Containers that were created, and of which it is not known whether somebody is starting them.
    pub(crate) fn half_made(&self) -> Vec<ContainerKey> {
        let containers = self.state.containers();
        let containers = containers.filter(|it| it.phase == Phase::Created && it.operation.is_none());
        let reachable = containers
            .filter(|it| self.state.instance(it.key.instance).state != planner::InstanceState::Lost);
        reachable.map(|it| it.key).collect()
    }

    /// How an operation ended is not known: it holds its room until an observation tells, at least for
    /// `settle_ms` where the engine may still do it.
    pub(crate) fn unknown(&mut self, id: OperationId, order: u64, settle_ms: u64, now: Millis) {
        let Some(key) = self.keys.get(&id) else { return };
        if let Some(operation) = self.operations.get_mut(key) {
            let waits_ms = if operation.idempotent { 0 } else { settle_ms };
            operation.unknown = Some(Unknown { order, settled_at: now.plus(waits_ms) });
            self.dirty.insert(key.instance);
        }
    }

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
            .filter(|known| takes_room(known.container.phase))
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
        // The stop of a victim may have failed. While its successor waits it is on its way out all the same: it will
        // be told again, and its room is promised.
        let awaited: HashSet<&ContainerId> =
            self.on(instance).flat_map(|(_, operation)| &operation.after).collect();
        for known in &mut list {
            if known.container.operation.is_none() && known.id.as_ref().is_some_and(|id| awaited.contains(id))
            {
                known.container.operation = Some(Operation::Stop);
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
            let made_of = self.services[service.index()].made_of.as_ref();
            list.push(Known {
                container: Container {
                    key: ContainerKey { instance, service, ordinal: memory.ordinal },
                    phase,
                    operation: None,
                    since: Millis(container.created_at_ms).min(now),
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

/// The highest number that no container of the service has: out of the way of those that the planner gives.
fn free_from_the_top(taken: &HashSet<(ServiceId, u32)>, service: ServiceId) -> u32 {
    (0..=u32::MAX).rev().find(|&ordinal| !taken.contains(&(service, ordinal))).unwrap_or(u32::MAX)
}

/// Whether a container in this phase takes its request.
pub(crate) const fn takes_room(phase: Phase) -> bool {
    matches!(phase, Phase::Starting | Phase::Running | Phase::Stopping)
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
