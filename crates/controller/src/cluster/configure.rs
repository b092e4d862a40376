//! The state built anew for other settings.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use driver::ContainerSpec;
use planner::{ContainerKey, Delta, Millis, Service, ServiceId, State};

use super::remembered::Fact;
use super::{Cluster, EngineId, KnownInstance, KnownService};
use crate::backoff::RAN_WELL_MS;
use crate::observer::Observed;
use crate::settings::{Ready, Settings};

/// The least important of all: what is surplus anyway is the first to go.
const REMOVED_PRIORITY: u32 = u32::MAX;

impl Cluster {
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
            // That it is healthy proves as much.
            let proven_after_ms = if configured.ready == Ready::Running { RAN_WELL_MS } else { 0 };
            Service { removed, proven_after_ms, ..configured.service.clone() }
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
        let ready: HashMap<&str, Ready> = settings
            .services
            .iter()
            .map(|configured| (configured.service.name.as_str(), configured.ready))
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
                ready: ready.get(service.name.as_str()).copied().unwrap_or_default(),
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
        for leave in self.memories.values_mut().filter_map(|memory| memory.leave.as_mut()) {
            leave.reason = None;
        }
        // They have waited since then, whatever else is configured.
        let mut waiting: Vec<(Millis, ContainerKey)> = old
            .waiting_to_end()
            .filter_map(|key| Some((old.waits_to_end_since(key)?, moved(key)?)))
            .collect();
        waiting.sort_unstable();
        let mut containers = Vec::new();
        for (at, key) in waiting {
            containers.push(key);
            containers.sort_unstable();
            self.state.apply(Delta::WaitsToEnd { containers: containers.clone(), at });
        }
        self.dirty = self.state.instance_ids().collect();
    }

    fn holds_anything(&self, service: ServiceId) -> bool {
        self.state.containers().any(|container| container.key.service == service)
            || self.operations.keys().any(|key| key.service == service)
            // Forgotten with its service, what has ended would come back with an observation that is under way.
            || self.facts.values().any(|fact| fact.key.service == service)
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
}
