//! The state that is planned from: services, instances, containers; built whole or kept up by deltas.

use std::collections::VecDeque;
use std::sync::OnceLock;

use crate::model::{
    Container, ContainerKey, Freshness, Instance, InstanceId, InstanceState, Millis, OnStale, Reading,
    Resources, Service, ServiceId,
};
use crate::spot::Spot;

/// Everything that a plan depends on, except the time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    services: Vec<Service>,
    instances: Vec<Instance>,
    /// By instance.
    hosted: Vec<Hosted>,
    /// By service.
    demands: Vec<DemandHistory>,
    backoffs: Vec<Backoff>,
    /// Frozen containers that have no room to end in, sorted, each with the moment since when.
    wait_to_end: Vec<(ContainerKey, Millis)>,
    fill_hold_until: Millis,
}

/// What an instance runs.
#[derive(Clone, Debug, Default)]
struct Hosted {
    /// Sorted by key.
    containers: Vec<Container>,
    /// How the instance stands, from the first plan that asks until something changes there. Made from the rest of
    /// the state and nothing else, so whether it is there can show in no plan, only in how long one takes.
    spot: OnceLock<Spot>,
}

/// Starts of a service are held back, on one instance or on all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Backoff {
    /// The service that failed to start.
    pub service: ServiceId,
    /// Where; everywhere if `None`.
    pub instance: Option<InstanceId>,
    /// When the next start may be tried.
    pub until: Millis,
}

/// One change to a [`State`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Delta {
    /// A demand source answered (or the answer is unknown).
    Demand {
        /// For this service.
        service: ServiceId,
        /// What it said.
        reading: Reading,
        /// When the answer arrived.
        at: Millis,
    },
    /// An operator paused or resumed a service.
    Paused {
        /// The service.
        service: ServiceId,
        /// Whether it is paused now.
        paused: bool,
    },
    /// An instance changed its state.
    InstanceState {
        /// The instance.
        instance: InstanceId,
        /// Its state now.
        state: InstanceState,
    },
    /// An instance changed its capacity.
    Capacity {
        /// The instance.
        instance: InstanceId,
        /// Its capacity now.
        capacity: Resources,
    },
    /// A container is as given: new, or changed.
    Container(Container),
    /// A container is gone.
    ContainerGone(ContainerKey),
    /// Starts are held back until a moment, or no longer (`until` in the past).
    Backoff(Backoff),
    /// These frozen containers have no room to end in, and no others ([`Plan::waits_to_end`](crate::Plan::waits_to_end)).
    WaitsToEnd {
        /// All of them, sorted.
        containers: Vec<ContainerKey>,
        /// From when on those wait that did not before.
        at: Millis,
    },
}

/// The demand of one service, as far back as `scale_down_after_ms` needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct DemandHistory {
    last: Reading,
    /// Values that were left for a lower one, highest first, each with the moment at which it was left.
    falls: VecDeque<(u32, Millis)>,
    /// Whether an answer, of whatever kind, has ever arrived.
    answered: bool,
}

/// Bound on the values kept per service for `scale_down_after_ms`: beyond it the oldest fall is forgotten
/// early, which scales down sooner, never later than configured.
const FALLS_MAX: usize = 64;

/// A service's demand at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DemandNow {
    /// The demand in force: the last value, or what stands in for it. `None`: unknown.
    pub containers: Option<u32>,
    /// How far it can be trusted.
    pub freshness: Freshness,
    /// The highest demand of the last `scale_down_after_ms`, at least `containers`.
    pub held: Option<u32>,
    /// When `held` falls next, where it is above `containers`.
    pub held_until: Option<Millis>,
    /// When, with nothing heard meanwhile, any of this changes.
    pub changes_at: Option<Millis>,
}

impl State {
    /// A state with these services and instances, no containers and no demand known.
    ///
    /// Services and instances are sorted by name, whatever the order they come in; ids are indexes into the
    /// sorted order. No fill is started before every demand was answered once, or `fill_hold_until`. A removed
    /// service becomes the least important of all; slots are brought into their range.
    ///
    /// # Panics
    ///
    /// If two services or two instances have the same name.
    pub fn new(mut services: Vec<Service>, mut instances: Vec<Instance>, fill_hold_until: Millis) -> Self {
        services.sort_by(|a, b| a.name.cmp(&b.name));
        instances.sort_by(|a, b| a.name.cmp(&b.name));
        assert!(services.windows(2).all(|pair| pair[0].name != pair[1].name), "service names are unique");
        assert!(instances.windows(2).all(|pair| pair[0].name != pair[1].name), "instance names are unique");
        for service in &mut services {
            // One more than there can be fits nowhere, like anything larger.
            service.request.slots = service.request.slots.clamp(1, Resources::SLOTS_MAX + 1);
            if service.removed {
                service.priority = u32::MAX;
            }
        }
        for instance in &mut instances {
            instance.capacity = within_range(instance.capacity);
        }
        let demands = vec![DemandHistory::default(); services.len()];
        let hosted = vec![Hosted::default(); instances.len()];
        Self {
            services,
            instances,
            hosted,
            demands,
            backoffs: Vec::new(),
            wait_to_end: Vec::new(),
            fill_hold_until,
        }
    }

    /// Applies one change. A container of an unknown service or instance is a programming error.
    pub fn apply(&mut self, delta: Delta) {
        match delta {
            Delta::Demand { service, reading, at } => self.demands[service.index()].apply(reading, at),
            Delta::Paused { service, paused } => self.services[service.index()].paused = paused,
            Delta::InstanceState { instance, state } => {
                self.instances[instance.index()].state = state;
                self.hosted[instance.index()].change();
            }
            Delta::Capacity { instance, capacity } => {
                self.instances[instance.index()].capacity = within_range(capacity);
                self.hosted[instance.index()].change();
            }
            Delta::Container(container) => {
                let list = self.hosted[container.key.instance.index()].change();
                match list.binary_search_by_key(&container.key, |other| other.key) {
                    Ok(at) => list[at] = container,
                    Err(at) => list.insert(at, container),
                }
            }
            Delta::ContainerGone(key) => {
                let list = self.hosted[key.instance.index()].change();
                if let Ok(at) = list.binary_search_by_key(&key, |other| other.key) {
                    list.remove(at);
                }
            }
            Delta::Backoff(backoff) => {
                self.backoffs
                    .retain(|other| (other.service, other.instance) != (backoff.service, backoff.instance));
                let at = self.backoffs.partition_point(|other| *other < backoff);
                self.backoffs.insert(at, backoff);
            }
            Delta::WaitsToEnd { containers, at } => {
                let since = |key| self.waits_to_end_since(key).unwrap_or(at);
                self.wait_to_end = containers.into_iter().map(|key| (key, since(key))).collect();
            }
        }
    }

    /// The services, by id.
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The instances, by id.
    pub fn instances(&self) -> &[Instance] {
        &self.instances
    }

    /// One service.
    pub fn service(&self, id: ServiceId) -> &Service {
        &self.services[id.index()]
    }

    /// One instance.
    pub fn instance(&self, id: InstanceId) -> &Instance {
        &self.instances[id.index()]
    }

    /// The id of the service of that name.
    pub fn service_id(&self, name: &str) -> Option<ServiceId> {
        let at = self.services.binary_search_by(|service| service.name.as_str().cmp(name)).ok()?;
        u32::try_from(at).ok().map(ServiceId)
    }

    /// The id of the instance of that name.
    pub fn instance_id(&self, name: &str) -> Option<InstanceId> {
        let at = self.instances.binary_search_by(|instance| instance.name.as_str().cmp(name)).ok()?;
        u32::try_from(at).ok().map(InstanceId)
    }

    /// Every service's id, in the order of names.
    pub fn service_ids(&self) -> impl DoubleEndedIterator<Item = ServiceId> + use<> {
        (0..u32::try_from(self.services.len()).expect("services are counted in u32")).map(ServiceId)
    }

    /// Every instance's id, in the order of names.
    pub fn instance_ids(&self) -> impl DoubleEndedIterator<Item = InstanceId> + use<> {
        (0..u32::try_from(self.instances.len()).expect("instances are counted in u32")).map(InstanceId)
    }

    /// The containers on an instance, sorted by key.
    pub fn containers_on(&self, instance: InstanceId) -> &[Container] {
        &self.hosted[instance.index()].containers
    }

    /// How an instance stands before anything is decided.
    pub(crate) fn spot(&self, instance: InstanceId) -> &Spot {
        self.hosted[instance.index()].spot.get_or_init(|| Spot::new(self, instance))
    }

    /// Every container, sorted by key.
    pub fn containers(&self) -> impl Iterator<Item = &Container> {
        self.hosted.iter().flat_map(|hosted| &hosted.containers)
    }

    /// One container.
    pub fn container(&self, key: ContainerKey) -> Option<&Container> {
        let list = &self.hosted.get(key.instance.index())?.containers;
        list.binary_search_by_key(&key, |other| other.key).ok().map(|at| &list[at])
    }

    /// Since when a frozen container has had no room to end in, if it is to end.
    pub fn waits_to_end_since(&self, key: ContainerKey) -> Option<Millis> {
        let at = self.wait_to_end.binary_search_by_key(&key, |&(other, _)| other).ok()?;
        Some(self.wait_to_end[at].1)
    }

    /// The frozen containers that have no room to end in, sorted.
    pub fn waiting_to_end(&self) -> impl Iterator<Item = ContainerKey> {
        self.wait_to_end.iter().map(|&(key, _)| key)
    }

    /// The backoffs, also those that are over, sorted.
    pub fn backoffs(&self) -> &[Backoff] {
        &self.backoffs
    }

    /// Until when starts of a service are held back on one instance, or on all (`None`); may be in the past.
    pub(crate) fn backoff(&self, service: ServiceId, instance: Option<InstanceId>) -> Option<Millis> {
        let place = (service, instance);
        let at = self.backoffs.binary_search_by_key(&place, |other| (other.service, other.instance)).ok()?;
        Some(self.backoffs[at].until)
    }

    /// Until when no fill is started, unless every demand has been answered before.
    pub fn fill_hold_until(&self) -> Millis {
        self.fill_hold_until
    }

    /// Whether the demand source of this service has ever answered.
    pub fn answered(&self, service: ServiceId) -> bool {
        self.demands[service.index()].answered
    }

    /// The demand of a service at `now`.
    pub fn demand(&self, service: ServiceId, now: Millis) -> DemandNow {
        self.demands[service.index()].at(self.service(service), now)
    }

    /// A container's name for people: `priority1/0 on instance-1`.
    pub fn describe(&self, key: ContainerKey) -> String {
        format!("{}/{} on {}", self.service(key.service).name, key.ordinal, self.instance(key.instance).name)
    }
}

impl Hosted {
    /// The containers, to be changed; what is known of how the instance stands is forgotten.
    fn change(&mut self) -> &mut Vec<Container> {
        self.spot.take();
        &mut self.containers
    }
}

impl PartialEq for Hosted {
    fn eq(&self, other: &Self) -> bool {
        self.containers == other.containers
    }
}

impl Eq for Hosted {}

fn within_range(capacity: Resources) -> Resources {
    Resources { slots: capacity.slots.min(Resources::SLOTS_MAX), ..capacity }
}

impl DemandHistory {
    fn apply(&mut self, reading: Reading, at: Millis) {
        // A demand that becomes unknown is left like one that falls: a source that loses its memory for a moment
        // does not cut the wait short.
        let known = |reading| match reading {
            Reading::Known { containers, .. } => containers,
            Reading::Unknown => 0,
        };
        let (before, after) = (known(self.last), known(reading));
        // What is not above the new value can no longer be the maximum of any window.
        while self.falls.back().is_some_and(|&(value, _)| value <= after.max(before)) {
            self.falls.pop_back();
        }
        if after < before {
            self.falls.push_back((before, at));
            if self.falls.len() > FALLS_MAX {
                self.falls.pop_front();
            }
        }
        self.answered = true;
        self.last = reading;
    }

    fn at(&self, service: &Service, now: Millis) -> DemandNow {
        let Reading::Known { containers: last, confirmed_at } = self.last else {
            return DemandNow {
                containers: None,
                freshness: Freshness::Unknown,
                held: None,
                held_until: None,
                changes_at: None,
            };
        };
        let stale_at = confirmed_at.plus(service.stale_after_ms);
        let (containers, freshness, mut changes_at) = if now < stale_at {
            (last, Freshness::Fresh, Some(stale_at))
        } else {
            match service.on_stale {
                OnStale::Hold => (last, Freshness::Stale, None),
                OnStale::Fallback { containers, after_ms } => {
                    let fallback_at = stale_at.plus(after_ms);
                    if now < fallback_at {
                        (last, Freshness::Stale, Some(fallback_at))
                    } else {
                        (containers, Freshness::Stale, None)
                    }
                }
            }
        };
        let mut held = containers;
        let mut held_until = None;
        if let Some(&(value, left_at)) =
            self.falls.iter().find(|(_, left_at)| now < left_at.plus(service.scale_down_after_ms))
            && value > containers
        {
            held = value;
            let forgotten_at = left_at.plus(service.scale_down_after_ms);
            held_until = Some(forgotten_at);
            changes_at = Some(changes_at.map_or(forgotten_at, |other| other.min(forgotten_at)));
        }
        DemandNow { containers: Some(containers), freshness, held: Some(held), held_until, changes_at }
    }
}
