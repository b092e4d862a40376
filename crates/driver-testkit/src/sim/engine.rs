//! The handle by which tests build a simulated engine, disturb it and look at it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use driver::{ContainerId, Event, Exit, InstanceAvailability};
use planner::{Phase, Resources};
use tokio::sync::{Semaphore, watch};

use super::checks::History;
use super::driver::SimDriver;
use super::fault::{Fault, FaultRates, Outage};
use super::hand::Hand;
use super::history::{Actor, Happening, Labels, Subject};
use super::image::Behaviour;
use super::pull::{End, Pull};
use super::world::{SimContainer, World};
use super::{SimConfig, container_name};

/// A simulated engine: the world that one or several [`SimDriver`]s act on. Clones share it.
///
/// It lives on tokio's clock, so that paused time makes hours pass in milliseconds. What a driver has asked
/// for is done by tasks of the engine's own: it is done also when the driver is gone by then.
#[derive(Clone)]
pub struct SimEngine {
    shared: Arc<Shared>,
}

struct Shared {
    name: String,
    world: Mutex<World>,
    /// Ticks with every change, for whoever waits for one.
    version: watch::Sender<u64>,
    /// [`SimConfig::works_on`].
    workers: Semaphore,
}

/// A container as the engine has it, labels or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SimContainerView {
    /// Its id.
    pub id: ContainerId,
    /// Who it is.
    pub subject: Arc<Subject>,
    /// Where it truly is in its life, also where an observation says less.
    pub phase: Phase,
    /// How it ended, for one that has.
    pub exit: Option<Exit>,
}

impl SimEngine {
    /// An engine without instances, images or containers. Its clock starts now, on the time of the tokio runtime
    /// in which this is called.
    pub fn new(name: impl Into<String>, config: SimConfig) -> Self {
        let name = name.into();
        let workers = Semaphore::new(config.works_on.clamp(1, Semaphore::MAX_PERMITS));
        let world = Mutex::new(World::new(&name, config));
        Self { shared: Arc::new(Shared { name, world, version: watch::Sender::new(0), workers }) }
    }

    /// With one more instance.
    #[must_use]
    pub fn with_instance(self, name: impl AsRef<str>, capacity: Resources) -> Self {
        self.set_capacity(name.as_ref(), capacity);
        self
    }

    /// With one more image.
    #[must_use]
    pub fn with_image(self, name: impl Into<String>, behaviour: Behaviour) -> Self {
        self.set_image(name, Some(behaviour));
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// A driver for the containers of `cluster`, on all instances. Any number of them act on the one world.
    pub fn driver(&self, cluster: impl Into<String>) -> SimDriver {
        SimDriver::new(self.clone(), cluster.into())
    }

    /// Milliseconds since the engine was made.
    pub fn now_ms(&self) -> u64 {
        self.world().now_ms()
    }

    /// What the engine's clock says: milliseconds since the Unix epoch.
    pub fn clock_ms(&self) -> u64 {
        self.world().clock_ms()
    }

    // Disturbing it.

    /// Sets what an instance has; makes the instance if there is none of that name.
    pub fn set_capacity(&self, instance: &str, capacity: Resources) {
        self.act(|world| world.set_capacity(instance, capacity));
    }

    /// Sets what the engine says of an instance.
    ///
    /// # Panics
    ///
    /// If there is no such instance.
    pub fn set_availability(&self, instance: &str, availability: InstanceAvailability) {
        let known = self.act(|world| world.set_availability(instance, availability));
        assert!(known, "no instance {instance} on {}", self.name());
    }

    /// Adds or replaces an image; removes it if `behaviour` is `None`. Containers that are there keep theirs.
    pub fn set_image(&self, name: impl Into<String>, behaviour: Option<Behaviour>) {
        let mut world = self.world();
        match behaviour {
            Some(behaviour) => world.images.insert(name.into(), behaviour),
            None => world.images.remove(&name.into()),
        };
    }

    /// A registry has an image that the engine does not have, or has another one of: whoever pulls it has it here, `takes`
    /// after that.
    pub fn set_pull(&self, image: impl Into<String>, takes: Duration, behaviour: Behaviour) {
        self.world().pulls.insert(image.into(), Pull { takes, end: End::Comes(behaviour), begun: None });
    }

    /// A registry has nothing to give: each pull of the image makes no progress, and fails with this code after `takes`.
    pub fn set_failing_pull(&self, image: impl Into<String>, takes: Duration, code: &'static str) {
        self.world().pulls.insert(image.into(), Pull { takes, end: End::Fails(code), begun: None });
    }

    /// Something goes wrong with the next calls that match.
    pub fn fault(&self, fault: Fault) {
        self.world().faults.push(fault);
    }

    /// Takes back every scripted fault that has not struck yet, and returns how many calls they were for.
    pub fn clear_faults(&self) -> u32 {
        std::mem::take(&mut self.world().faults).iter().map(|fault| fault.times_left).sum()
    }

    /// From now on calls go wrong by themselves at these rates.
    pub fn set_fault_rates(&self, rates: FaultRates) {
        self.world().config.fault_rates = rates;
    }

    /// The engine can no longer be reached, or (with `None`) can again; readers of events are then told of a
    /// gap. Containers run on, and what had reached the engine before is still done.
    pub fn set_outage(&self, outage: Option<Outage>) {
        self.act(|world| {
            world.outage = outage;
            world.tell_gap();
        });
    }

    /// As [`Self::set_outage`], over after `duration_ms`.
    pub fn outage_for(&self, outage: Outage, duration_ms: u64) {
        self.set_outage(Some(outage));
        let engine = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(duration_ms)).await;
            engine.set_outage(None);
        });
    }

    /// Events are lost from now on, or (with `false`) flow again after a gap.
    pub fn set_events_cut(&self, cut: bool) {
        self.act(|world| {
            world.events_cut = cut;
            world.tell_gap();
        });
    }

    /// From now on the stream of events breaks off and is established anew again and again, so many milliseconds apart,
    /// and nothing but the gap is ever told; or (with `None`) it lasts.
    pub fn set_events_break_every_ms(&self, every_ms: Option<u64>) {
        self.world().events_break_every_ms = every_ms;
        self.set_events_cut(every_ms.is_some());
        let engine = self.clone();
        tokio::spawn(async move {
            let every_ms = || engine.world().events_break_every_ms;
            while let Some(every_ms_now) = every_ms() {
                tokio::time::sleep(Duration::from_millis(every_ms_now.max(1))).await;
                if every_ms().is_some() {
                    engine.set_events_cut(false);
                    engine.set_events_cut(true);
                }
            }
        });
    }

    /// So many of a thousand events are lost from now on, and nobody is told of a gap.
    pub fn set_event_loss_per_mille(&self, rate: u32) {
        self.world().event_loss_per_mille = rate;
    }

    /// Readers of events are told this once more than there was anything to tell: a stream that repeats itself.
    pub fn repeat_event(&self, event: Event) {
        self.world().repeat(event);
    }

    /// The time of day of the engine jumps by so many milliseconds, forwards or back.
    pub fn jump_clock_ms(&self, by_ms: i64) {
        let mut world = self.world();
        world.config.epoch_ms = world.config.epoch_ms.saturating_add_signed(by_ms);
    }

    /// Events are told so many milliseconds after the change, from now on. With a range wide enough they come out of
    /// order.
    pub fn set_event_delay_ms(&self, range: std::ops::RangeInclusive<u64>) {
        self.world().config.event_delay_ms = range;
    }

    /// Acts on containers behind the drivers' backs, at once.
    pub fn hand(&self) -> Hand<'_> {
        Hand::new(self)
    }

    /// Puts a container there that a Force12 has left behind, in any phase but `starting` and `stopping`.
    ///
    /// Its name is the one that a start of the same service, instance and ordinal would give.
    ///
    /// # Panics
    ///
    /// If the name is taken, or for a phase that needs something under way.
    pub fn place(&self, labels: Labels, ordinal: u32, request: Resources, phase: Phase) -> ContainerId {
        let name = container_name(&labels.cluster, &labels.service, &labels.instance, ordinal);
        self.put(Subject { name, labels: Some(labels), ordinal: Some(ordinal), request }, phase)
    }

    /// Puts a container of someone else's there, running.
    ///
    /// # Panics
    ///
    /// If the name is taken.
    pub fn place_foreign(&self, name: impl Into<String>) -> ContainerId {
        let subject =
            Subject { name: name.into(), labels: None, ordinal: None, request: Resources::ONE_SLOT };
        self.put(subject, Phase::Running)
    }

    fn put(&self, subject: Subject, phase: Phase) -> ContainerId {
        let happenings: &[Happening] = match phase {
            Phase::Created => &[],
            Phase::Running => &[Happening::Starting, Happening::Running],
            Phase::Frozen => &[Happening::Starting, Happening::Running, Happening::Frozen],
            Phase::Exited => &[Happening::Starting, Happening::Running, Happening::Exited { code: 0 }],
            Phase::Starting | Phase::Stopping => {
                panic!("a container is {phase:?} only while a call is under way")
            }
        };
        self.act(|world| {
            assert!(world.by_name(&subject.name).is_none(), "the name {} is taken", subject.name);
            let id = world.create(subject, Behaviour::runs(), Actor::Hand);
            for &what in happenings {
                world.happen(&id, what, Actor::Hand);
            }
            id
        })
    }

    // Looking at it.

    /// Every container that is there, labels or not, in the order of their making.
    pub fn containers(&self) -> Vec<SimContainerView> {
        let world = self.world();
        let mut all: Vec<_> = world.containers.iter().collect();
        all.sort_by_key(|(_, container)| container.number);
        all.into_iter().map(|(id, container)| view(id, container)).collect()
    }

    /// One container, if it is there.
    pub fn container(&self, id: &ContainerId) -> Option<SimContainerView> {
        self.world().containers.get(id).map(|container| view(id, container))
    }

    /// How many containers of the service are in this phase now, whatever their cluster.
    pub fn count(&self, service: &str, phase: Phase) -> usize {
        let is_of = |container: &&SimContainer| {
            container.phase == phase
                && container.subject.labels.as_ref().is_some_and(|labels| labels.service == service)
        };
        self.world().containers.values().filter(is_of).count()
    }

    /// How many lines its history has: whether anything has happened since, without a copy of the whole.
    pub fn happenings(&self) -> usize {
        self.world().history.len()
    }

    /// All that has happened until now, for checks.
    pub fn history(&self) -> History {
        let world = self.world();
        History::new(world.history.clone(), world.occupancy.clone(), world.mishaps.clone())
    }

    /// Waits until `condition` holds of the engine; looks after every change.
    ///
    /// There is no limit of its own: bound it with `tokio::time::timeout`.
    pub async fn until(&self, mut condition: impl FnMut(&Self) -> bool) {
        let mut version = self.shared.version.subscribe();
        while !condition(self) {
            version.changed().await.expect("the sender lives as long as the engine");
        }
    }

    /// Returns when the engine's process is not stopped.
    pub(super) async fn goes_on(&self) {
        if self.world().outage == Some(Outage::Stopped) {
            self.until(|engine| engine.world().outage != Some(Outage::Stopped)).await;
        }
    }

    /// Works on a request for so long, when a worker is free.
    pub(super) async fn works_for(&self, latency: Duration) {
        let _worker = self.shared.workers.acquire().await.expect("the semaphore is never closed");
        tokio::time::sleep(latency).await;
    }

    pub(super) fn world(&self) -> MutexGuard<'_, World> {
        // A test that panics while it looks must not hide its own message behind a poisoned lock.
        self.shared.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something to the world in one step, and then tells whoever waits for changes.
    pub(super) fn act<T>(&self, step: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.world();
        let result = step(&mut world);
        let deliveries = world.take_untold();
        drop(world);
        for (reader, delay_ms) in deliveries {
            if delay_ms == 0 {
                reader.tell(Event::Changed);
                continue;
            }
            let engine = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                if engine.world().events_flow() {
                    reader.tell(Event::Changed);
                }
            });
        }
        self.shared.version.send_modify(|version| *version += 1);
        result
    }
}

fn view(id: &ContainerId, container: &SimContainer) -> SimContainerView {
    SimContainerView {
        id: id.clone(),
        subject: Arc::clone(&container.subject),
        phase: container.phase,
        exit: container.exit.clone(),
    }
}
