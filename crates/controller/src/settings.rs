//! What the controller is told: services, instances, engines and demand sources.

use std::sync::Arc;

use driver::{ContainerSpec, Driver};
use planner::{Instance, Service};

use crate::feed::DemandTransport;

/// What is wanted of the cluster. Plain data; [`Settings::validate`] says what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The cluster's name.
    pub cluster: String,
    /// The services, in any order.
    pub services: Vec<ServiceSettings>,
    /// The instances, in any order. `state` is the configured one: ready, cordoned or draining. A capacity that an
    /// engine reports counts as well; the smaller holds in each dimension.
    pub instances: Vec<Instance>,
    /// No fill service starts anything for this many milliseconds after the controller's start, unless every
    /// demand has been answered before. Default 2,000.
    pub start_hold_ms: u64,
    /// An engine that has not answered for this many milliseconds is lost, with its instances; so is an instance that an
    /// engine has lost, or not reported, for as long. Default 3,000.
    pub lost_after_ms: u64,
    /// On an engine whose starts are not idempotent: the unknown outcome of a start holds its room for this many
    /// milliseconds, what was done counts as done for as long, whatever is listed, and nothing is started for as long
    /// after the controller's start. Default 10,000.
    pub settle_ms: u64,
}

/// One service: what the planner is to know of it, what its containers are made of, where its demand comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceSettings {
    /// Name, kind, priority and so on; `paused` is the configured value; `stale_after_ms` is that of its source.
    pub service: Service,
    /// What its containers are made of. Its hash is their generation, and its `stop_grace_ms` is given to each
    /// stop.
    pub spec: Arc<ContainerSpec>,
    /// Where an engine cannot freeze, its containers are stopped instead and it has no standbys there. Without this,
    /// settings that ask for freezing on such an engine are refused.
    pub freeze_or_stop: bool,
    /// When one of its containers counts as running. Sets `proven_after_ms` of the planner's service.
    pub ready: Ready,
    /// Where its demand comes from; `None` for a fill service.
    pub demand: Option<DemandKey>,
}

/// When a container counts as running: for the demand, for the one that it replaces, for the reaction measure.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ready {
    /// As soon as it runs.
    #[default]
    Running,
    /// When its healthcheck says so.
    Healthy {
        /// Milliseconds that it may run without being healthy. One that is not healthy by then is a failed start.
        within_ms: u64,
    },
}

/// One key of one demand source.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DemandKey {
    /// The source, by name.
    pub source: String,
    /// The key in its document.
    pub key: String,
}

/// How one demand source is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSettings {
    /// Unique among sources.
    pub name: String,
    /// Milliseconds between two polls of a source that does not hold its answers. At least 10 in effect.
    pub poll_ms: u64,
    /// Milliseconds for which it is asked to hold an answer. 5,000 is customary; 0 asks for none.
    pub wait_ms: u64,
}

/// One demand source: its settings and the way to it.
#[derive(Clone)]
pub struct DemandSource {
    /// How it is asked.
    pub settings: SourceSettings,
    /// The way to it.
    pub transport: Arc<dyn DemandTransport>,
}

/// The ways to engines and demand sources.
///
/// In an update, a driver or source that is the same `Arc` (and, for a source, has the same settings) as before
/// goes on undisturbed; others are started anew, and those that are missing are given up. A new driver whose name is
/// that of one before speaks with the same engine.
#[derive(Clone, Default)]
pub struct Engines {
    /// The drivers. Each instance of the settings is served by exactly one.
    pub drivers: Vec<Arc<dyn Driver>>,
    /// The demand sources.
    pub sources: Vec<DemandSource>,
}

/// What is wrong with settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// Two services or two instances of one name.
    #[error("{what} {name:?} is configured twice; give each a name of its own")]
    Duplicate {
        /// `service`, `instance`, `demand source`, `driver of instance` or `engine`.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// An instance that no driver serves.
    #[error("instance {0:?} is served by no driver")]
    NoDriver(String),
    /// A demand from a source that is not configured.
    #[error("service {service:?} takes its demand from source {demand_source:?}, which is not configured")]
    NoSource {
        /// The service.
        service: String,
        /// The source.
        demand_source: String,
    },
    /// A service that follows a demand and names none.
    #[error("service {0:?} follows a demand and names no source; give it `demand` or make it fill")]
    NoDemand(String),
    /// A service that freezes, or has standbys, and an engine that cannot freeze.
    #[error(
        "service {service:?} freezes (on_preempt = \"freeze\", or a standby), and engine {engine} cannot; stop it, or let \
         it be stopped there: on_preempt = \"freeze-or-stop\""
    )]
    CannotFreeze {
        /// The service.
        service: String,
        /// The engine.
        engine: String,
    },
    /// A request of nothing.
    #[error("service {0:?} requests nothing; its request must be above zero in one dimension at least")]
    EmptyRequest(String),
}

impl Settings {
    /// Settings of a cluster with nothing in it, and every number at its default.
    pub fn new(cluster: impl Into<String>) -> Self {
        Self {
            cluster: cluster.into(),
            services: Vec::new(),
            instances: Vec::new(),
            start_hold_ms: 2_000,
            lost_after_ms: 3_000,
            settle_ms: 10_000,
        }
    }

    /// Whether these settings can be run with these engines and sources.
    pub fn validate(&self, engines: &Engines) -> Result<(), SettingsError> {
        unique("service", self.services.iter().map(|settings| settings.service.name.clone()))?;
        unique("instance", self.instances.iter().map(|instance| instance.name.clone()))?;
        unique("demand source", engines.sources.iter().map(|source| source.settings.name.clone()))?;
        let served: Vec<String> = engines.drivers.iter().flat_map(|driver| driver.instances()).collect();
        unique("driver of instance", served.iter().cloned())?;
        unique("engine", engines.drivers.iter().map(|driver| driver.name().to_owned()))?;
        if let Some(instance) = self.instances.iter().find(|instance| !served.contains(&instance.name)) {
            return Err(SettingsError::NoDriver(instance.name.clone()));
        }
        let serves = |driver: &dyn Driver| {
            let instances = driver.instances();
            self.instances.iter().any(|instance| instances.contains(&instance.name))
        };
        let cannot_freeze =
            engines.drivers.iter().find(|driver| !driver.capabilities().freeze && serves(&***driver));
        for ServiceSettings { service, demand, freeze_or_stop, .. } in &self.services {
            let freezes =
                service.on_preempt == planner::OnPreempt::Freeze || service.standby_per_instance > 0;
            if let Some(driver) = cannot_freeze
                && freezes
                && !freeze_or_stop
            {
                return Err(SettingsError::CannotFreeze {
                    service: service.name.clone(),
                    engine: driver.name().to_owned(),
                });
            }
            if service.request.is_zero() {
                return Err(SettingsError::EmptyRequest(service.name.clone()));
            }
            match demand {
                Some(key) if !engines.sources.iter().any(|source| source.settings.name == key.source) => {
                    return Err(SettingsError::NoSource {
                        service: service.name.clone(),
                        demand_source: key.source.clone(),
                    });
                }
                None if service.kind == planner::ServiceKind::Demand => {
                    return Err(SettingsError::NoDemand(service.name.clone()));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn unique(what: &'static str, names: impl Iterator<Item = String>) -> Result<(), SettingsError> {
    let mut names: Vec<String> = names.collect();
    names.sort();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(SettingsError::Duplicate { what, name: pair[0].clone() }),
        None => Ok(()),
    }
}
