//! The engine's state, and the one place where it changes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};

use driver::{ContainerId, Event, Exit, Health, InstanceAvailability};
use planner::{Phase, Resources};
use tokio::time::Instant;

use super::events::Subscriber;
use super::fault::{Call, Fault, FaultKind, Outage};
use super::history::{Actor, Entry, Happening, Mishap, Occupancy, Subject};
use super::image::Behaviour;
use super::pull::Pull;
use super::{SimConfig, dice};

/// Everything that an engine knows. Changed only under its lock, and never across an await.
pub(super) struct World {
    pub(super) config: SimConfig,
    origin: Instant,
    pub(super) containers: BTreeMap<ContainerId, SimContainer>,
    /// Removed, each at a moment, and listed still.
    gone: Vec<(u64, ContainerId, SimContainer)>,
    pub(super) instances: BTreeMap<String, SimInstance>,
    pub(super) images: BTreeMap<String, Behaviour>,
    /// What a registry has, by image.
    pub(super) pulls: BTreeMap<String, Pull>,
    pub(super) faults: Vec<Fault>,
    pub(super) outage: Option<Outage>,
    pub(super) events_cut: bool,
    pub(super) events_break_every_ms: Option<u64>,
    pub(super) event_loss_per_mille: u32,
    pub(super) history: Vec<Entry>,
    pub(super) occupancy: Vec<Occupancy>,
    pub(super) mishaps: Vec<Mishap>,
    /// Whose changes have not been told yet: the cluster (`None`: all of them) and the subject's name.
    untold: Vec<(Option<String>, String)>,
    subscribers: Vec<Weak<Subscriber>>,
    /// How often each thing was rolled for, so that every roll is another one.
    rolls: BTreeMap<(&'static str, String), u64>,
    made: u64,
    name: String,
}

/// An instance, as the engine has it.
pub(super) struct SimInstance {
    pub(super) capacity: Resources,
    pub(super) availability: InstanceAvailability,
}

/// A container, as the engine has it.
pub(super) struct SimContainer {
    /// The how many-eth container of the engine it is.
    pub(super) number: u64,
    pub(super) subject: Arc<Subject>,
    pub(super) behaviour: Behaviour,
    pub(super) phase: Phase,
    pub(super) created_at_ms: u64,
    pub(super) exit: Option<Exit>,
    /// What its healthcheck says.
    pub(super) health: Option<Health>,
    /// What the last check said, whatever has happened since.
    pub(super) last_check: Option<Health>,
    /// Counts its starts, so that what was set going in one life does not strike in the next.
    pub(super) life: u64,
    /// Held by the one call that starts, suspends or resumes it: the engine does these in turn.
    pub(super) turn: Arc<tokio::sync::Mutex<()>>,
    /// Where the engine lists late: all that it has been, each since a moment.
    trail: Vec<(u64, Phase, Option<Exit>)>,
    /// It is listed as it was at this moment.
    listed_at_ms: u64,
}

/// A container as an observation shows it.
pub(super) struct Listed<'a> {
    pub(super) id: &'a ContainerId,
    pub(super) container: &'a SimContainer,
    pub(super) phase: Phase,
    pub(super) exit: Option<Exit>,
}

impl SimContainer {
    /// Whether it takes room: it is on its way to running, runs, or is on its way out.
    pub(super) const fn takes_room(&self) -> bool {
        matches!(self.phase, Phase::Starting | Phase::Running | Phase::Stopping)
    }

    /// Whether there is a process.
    pub(super) const fn is_alive(&self) -> bool {
        self.takes_room() || matches!(self.phase, Phase::Frozen)
    }
}

impl World {
    pub(super) fn new(name: &str, config: SimConfig) -> Self {
        Self {
            config,
            origin: Instant::now(),
            containers: BTreeMap::new(),
            gone: Vec::new(),
            instances: BTreeMap::new(),
            images: BTreeMap::new(),
            pulls: BTreeMap::new(),
            faults: Vec::new(),
            outage: None,
            events_cut: false,
            events_break_every_ms: None,
            event_loss_per_mille: 0,
            history: Vec::new(),
            occupancy: Vec::new(),
            mishaps: Vec::new(),
            untold: Vec::new(),
            subscribers: Vec::new(),
            rolls: BTreeMap::new(),
            made: 0,
            name: name.to_owned(),
        }
    }

    /// Milliseconds since the engine was made.
    pub(super) fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What the engine's clock says: milliseconds since the Unix epoch.
    pub(super) fn clock_ms(&self) -> u64 {
        self.config.epoch_ms + self.now_ms()
    }

    /// Milliseconds that the engine takes for this call on this subject, and what goes wrong with it.
    pub(super) fn roll(
        &mut self,
        call: Call,
        subject: &str,
        labels: Labelled<'_>,
    ) -> (u64, Option<FaultKind>) {
        let mut dice = self.dice(call.name(), subject);
        let latency_ms = dice::draw(&mut dice, self.config.latencies.of(call));
        let seeded = self.config.fault_rates.pick(dice::per_mille(&mut dice));
        let scripted =
            self.faults.iter_mut().find(|fault| fault.matches(call, labels.service, labels.instance));
        let fault = match scripted {
            Some(fault) => {
                fault.times_left -= 1;
                Some(fault.kind().clone())
            }
            None => seeded,
        };
        self.faults.retain(|fault| fault.times_left > 0);
        (latency_ms, fault)
    }

    fn dice(&mut self, what: &'static str, subject: &str) -> rand_chacha::ChaCha8Rng {
        let nth = self.rolls.entry((what, subject.to_owned())).or_default();
        *nth += 1;
        dice::dice(self.config.seed, what, subject, *nth)
    }

    /// A new container, created and not started.
    pub(super) fn create(&mut self, subject: Subject, behaviour: Behaviour, by: Actor) -> ContainerId {
        self.made += 1;
        let id = ContainerId::new(format!("{}-{}", self.name, self.made));
        let container = SimContainer {
            number: self.made,
            subject: Arc::new(subject),
            behaviour,
            phase: Phase::Created,
            created_at_ms: self.clock_ms(),
            exit: None,
            health: None,
            last_check: None,
            life: 0,
            turn: Arc::default(),
            trail: Vec::new(),
            listed_at_ms: 0,
        };
        self.containers.insert(id.clone(), container);
        self.note(&id, Happening::Created, by);
        id
    }

    /// Something happens to a container that is there: its phase changes, and it is written into the history.
    pub(super) fn happen(&mut self, id: &ContainerId, what: Happening, by: Actor) {
        let container = self.containers.get_mut(id).expect("only to a container that is there");
        match what {
            Happening::Created | Happening::StartFailed => container.phase = Phase::Created,
            Happening::Starting => {
                container.phase = Phase::Starting;
                container.exit = None;
                container.life += 1;
            }
            Happening::Running => {
                container.phase = Phase::Running;
                container.health = container.behaviour.healthcheck.map(|_| Health::Starting);
                container.last_check = container.health;
            }
            Happening::Thawed => container.phase = Phase::Running,
            Happening::Stopping => container.phase = Phase::Stopping,
            Happening::Frozen => {
                container.phase = Phase::Frozen;
                // As Docker has it: what can't be checked is not healthy, until the first check after it was resumed.
                container.health = container.health.map(|_| Health::Unhealthy);
            }
            Happening::Exited { code } => {
                container.phase = Phase::Exited;
                container.health = None;
                let out_of_memory = container.behaviour.out_of_memory && by == Actor::Container;
                container.exit = Some(Exit { code, out_of_memory, message: None });
            }
            Happening::Removed => {}
        }
        self.note(id, what, by);
        if what == Happening::Removed
            && let Some(container) = self.containers.remove(id)
            && self.lists_late()
        {
            self.gone.push((self.now_ms(), id.clone(), container));
        }
    }

    fn lists_late(&self) -> bool {
        *self.config.lists_late_ms.end() > 0
    }

    /// Every container as it is listed now: where the engine lists late, as it was a while ago.
    pub(super) fn list(&mut self) -> Vec<Listed<'_>> {
        if !self.lists_late() {
            let all = self.containers.iter();
            return all
                .map(|(id, container)| Listed {
                    id,
                    container,
                    phase: container.phase,
                    exit: container.exit.clone(),
                })
                .collect();
        }
        let now_ms = self.now_ms();
        let names: Vec<(ContainerId, String)> = self
            .containers
            .iter()
            .chain(self.gone.iter().map(|(_, id, container)| (id, container)))
            .map(|(id, container)| (id.clone(), container.subject.name.clone()))
            .collect();
        let mut moments = BTreeMap::new();
        for (id, name) in names {
            let late_ms = dice::draw(&mut self.dice("list", &name), self.config.lists_late_ms.clone());
            moments.insert(id, now_ms.saturating_sub(late_ms));
        }
        let gone = self.gone.iter_mut().map(|(_, id, container)| (&*id, container));
        for (id, container) in self.containers.iter_mut().chain(gone) {
            container.listed_at_ms = container.listed_at_ms.max(moments[id]);
        }
        self.gone.retain(|(gone_at_ms, _, container)| container.listed_at_ms < *gone_at_ms);
        let all = self.containers.iter().chain(self.gone.iter().map(|(_, id, container)| (id, container)));
        all.filter_map(|(id, container)| {
            let mut trail = container.trail.iter().rev();
            let (_, phase, exit) = trail.find(|(since_ms, ..)| *since_ms <= container.listed_at_ms)?;
            Some(Listed { id, container, phase: *phase, exit: exit.clone() })
        })
        .collect()
    }

    /// A container's healthcheck says something else.
    pub(super) fn set_health(&mut self, id: &ContainerId, health: Health) {
        let Some(container) = self.containers.get_mut(id) else { return };
        container.health = Some(health);
        container.last_check = Some(health);
        if let Some(labels) = &container.subject.labels {
            self.untold.push((Some(labels.cluster.clone()), container.subject.name.clone()));
        }
    }

    /// Sets an instance's capacity, and writes down how full that makes it.
    pub(super) fn set_capacity(&mut self, instance: &str, capacity: Resources) {
        let availability = InstanceAvailability::Ready;
        let entry =
            self.instances.entry(instance.to_owned()).or_insert(SimInstance { capacity, availability });
        entry.capacity = capacity;
        let labels = self.containers.values().filter_map(|container| container.subject.labels.as_ref());
        let clusters: BTreeSet<String> = labels.map(|labels| labels.cluster.clone()).collect();
        for cluster in clusters {
            self.note_occupancy(&cluster, instance, None, false);
        }
        self.untold.push((None, instance.to_owned()));
    }

    /// Sets what the engine says of an instance; `false` if there is none of that name.
    pub(super) fn set_availability(&mut self, instance: &str, availability: InstanceAvailability) -> bool {
        let Some(known) = self.instances.get_mut(instance) else {
            return false;
        };
        known.availability = availability;
        self.untold.push((None, instance.to_owned()));
        true
    }

    /// Whose changes are to be told, each with its readers and its delay in milliseconds.
    pub(super) fn take_untold(&mut self) -> Vec<(Arc<Subscriber>, u64)> {
        let untold = std::mem::take(&mut self.untold);
        if !self.events_flow() {
            return Vec::new();
        }
        let mut deliveries = Vec::new();
        for (cluster, subject) in untold {
            let mut dice = self.dice("event", &subject);
            let delay_ms = dice::draw(&mut dice, self.config.event_delay_ms.clone());
            if dice::per_mille(&mut dice) < self.event_loss_per_mille {
                continue;
            }
            let readers = self.subscribers.iter().filter_map(Weak::upgrade);
            let readers =
                readers.filter(|reader| cluster.as_ref().is_none_or(|cluster| reader.cluster == *cluster));
            deliveries.extend(readers.map(|reader| (reader, delay_ms)));
        }
        deliveries
    }

    /// What a cluster takes of an instance. What others run there is no business of its capacity.
    fn used(&self, cluster: &str, instance: &str) -> Resources {
        let of_both = |container: &&SimContainer| {
            let labels = container.subject.labels.as_ref();
            labels.is_some_and(|labels| labels.cluster == cluster && labels.instance == instance)
        };
        self.containers.values().filter(of_both).fold(Resources::ZERO, |used, container| {
            let request = container.subject.request;
            match container.phase {
                Phase::Starting | Phase::Running | Phase::Stopping => used.plus(request),
                Phase::Frozen => used.plus(request.when_frozen()),
                Phase::Created | Phase::Exited => used,
            }
        })
    }

    /// The container of that name.
    pub(super) fn by_name(&self, name: &str) -> Option<(&ContainerId, &SimContainer)> {
        self.containers.iter().find(|(_, container)| container.subject.name == name)
    }

    pub(super) fn subscribe(&mut self, subscriber: &Arc<Subscriber>) {
        self.subscribers.retain(|other| other.strong_count() > 0);
        self.subscribers.push(Arc::downgrade(subscriber));
        if self.events_flow() {
            subscriber.tell(Event::Gap);
        }
    }

    /// Whether events reach their readers.
    pub(super) const fn events_flow(&self) -> bool {
        !self.events_cut && self.outage.is_none()
    }

    /// Tells every reader of a gap, if events flow (again).
    pub(super) fn tell_gap(&self) {
        self.repeat(Event::Gap);
    }

    /// Tells every reader this, if events flow.
    pub(super) fn repeat(&self, event: Event) {
        if self.events_flow() {
            self.subscribers.iter().filter_map(Weak::upgrade).for_each(|reader| reader.tell(event));
        }
    }

    fn note(&mut self, id: &ContainerId, what: Happening, by: Actor) {
        let subject = Arc::clone(&self.containers[id].subject);
        let at_ms = self.now_ms();
        if self.lists_late()
            && let Some(container) = self.containers.get_mut(id)
        {
            container.trail.push((at_ms, container.phase, container.exit.clone()));
        }
        if let Some(labels) = &subject.labels {
            let takes = matches!(what, Happening::Starting | Happening::Thawed);
            self.note_occupancy(
                &labels.cluster,
                &labels.instance,
                Some(id.clone()),
                takes && by == Actor::Driver,
            );
            self.untold.push((Some(labels.cluster.clone()), subject.name.clone()));
        }
        self.history.push(Entry { at_ms, container: id.clone(), subject, what, by });
    }

    fn note_occupancy(
        &mut self,
        cluster: &str,
        instance: &str,
        container: Option<ContainerId>,
        taken_by_driver: bool,
    ) {
        // A container may carry the label of an instance that is no longer there; nothing bounds that.
        let Some(SimInstance { capacity, .. }) = self.instances.get(instance) else {
            return;
        };
        let (used, capacity, at_ms) = (self.used(cluster, instance), *capacity, self.now_ms());
        self.occupancy.push(Occupancy {
            at_ms,
            cluster: cluster.to_owned(),
            instance: instance.to_owned(),
            used,
            capacity,
            container,
            taken_by_driver,
        });
    }
}

/// Which service and instance a call is about, for faults that are meant for one.
#[derive(Clone, Copy, Default)]
pub(super) struct Labelled<'a> {
    pub(super) service: Option<&'a str>,
    pub(super) instance: Option<&'a str>,
}
