//! The ways to engines and demand sources that a configuration asks for; those that stay the same are kept.

use std::sync::Arc;

use controller::{DemandSource, Engines};
use driver::Driver;
use driver_docker::{DockerConfig, DockerDriver, DockerInstance, Limits};
use driver_ecs::{EcsConfig, EcsDriver, Reserve};
use planner::Resources;
use reqwest::Url;
use service_kit::client::Clients;

use crate::config::{Ecs, Settings};
use crate::demand::HttpTransport;
use crate::pool;

/// How much longer a start waits for its victim than the victim may take: the engine has to kill it after its grace.
const KILL_MS: u64 = 30_000;

/// Ways to engines and demand sources.
#[derive(Clone, Default)]
pub struct Connections {
    drivers: Vec<(DockerConfig, Arc<dyn Driver>)>,
    ecs: Option<(EcsConfig, Arc<EcsDriver>)>,
    sources: Vec<(Url, DemandSource)>,
}

impl Connections {
    /// Those that `settings` ask for. What is the same in `self` is taken over, so that it goes on undisturbed.
    ///
    /// Nothing is connected yet: an engine that does not answer is for the controller to ride out.
    #[must_use]
    pub fn changed_to(&self, settings: &Settings, clients: &Arc<Clients>) -> Self {
        let drivers = docker_configs(settings)
            .into_iter()
            .map(|config| {
                let kept = self.drivers.iter().find(|(known, _)| *known == config);
                let driver = match kept {
                    Some((_, driver)) => Arc::clone(driver),
                    None => Arc::new(DockerDriver::new(config.clone())) as Arc<dyn Driver>,
                };
                (config, driver)
            })
            .collect();
        let sources = settings
            .sources
            .iter()
            .map(|source| {
                let kept = self
                    .sources
                    .iter()
                    .find(|(url, known)| *url == source.url && known.settings == source.settings);
                kept.cloned().unwrap_or_else(|| {
                    let transport = Arc::new(HttpTransport::new(Arc::clone(clients), source.url.clone()));
                    (source.url.clone(), DemandSource { settings: source.settings.clone(), transport })
                })
            })
            .collect();
        let ecs = settings.ecs.as_ref().map(|ecs| {
            let config = ecs_config(settings, ecs);
            let kept = self.ecs.clone().filter(|(known, _)| *known == config);
            kept.unwrap_or_else(|| (config.clone(), EcsDriver::new(config)))
        });
        if let Some((_, driver)) = &ecs {
            driver.want(pool::wanted(settings));
        }
        Self { drivers, ecs, sources }
    }

    /// The way to the ECS cluster, if the pool is one.
    pub fn ecs(&self) -> Option<&Arc<EcsDriver>> {
        self.ecs.as_ref().map(|(_, driver)| driver)
    }

    /// As the controller takes them.
    pub fn engines(&self) -> Engines {
        Engines {
            drivers: self.drivers().collect(),
            sources: self.sources.iter().map(|(_, source)| source.clone()).collect(),
        }
    }

    /// The drivers, one for each engine.
    pub fn drivers(&self) -> impl Iterator<Item = Arc<dyn Driver>> {
        let ecs = self.ecs.iter().map(|(_, driver)| Arc::clone(driver) as Arc<dyn Driver>);
        self.drivers.iter().map(|(_, driver)| Arc::clone(driver)).chain(ecs)
    }
}

/// One driver for each engine, with all the instances on it.
fn docker_configs(settings: &Settings) -> Vec<DockerConfig> {
    let controller = &settings.controller;
    let longest_grace_ms =
        controller.services.iter().map(|service| service.spec.stop_grace_ms).max().unwrap_or_default();
    let defaults = Limits::default();
    let limits = Limits {
        // An observation that is still awaited when its engine is already lost would be of no use.
        observe_ms: defaults.observe_ms.min(controller.lost_after_ms * 5 / 6),
        after_ms: defaults.after_ms.max(longest_grace_ms + KILL_MS),
        ..defaults
    };
    settings
        .engines
        .iter()
        .map(|(address, engine)| DockerConfig {
            engine: address.clone(),
            tls: engine.tls.clone(),
            cluster: controller.cluster.clone(),
            instances: controller
                .instances
                .iter()
                .filter(|instance| engine.instances.contains(&instance.name))
                .map(|instance| DockerInstance { name: instance.name.clone(), capacity: instance.capacity })
                .collect(),
            registries: settings.registries.clone(),
            limits: Limits { parallel_calls: engine.calls_max, ..limits },
        })
        .collect()
}

/// The one driver of an ECS cluster. How much of its instances is used is not the driver's to know ([`pool::settings`]).
fn ecs_config(settings: &Settings, ecs: &Ecs) -> EcsConfig {
    let controller = &settings.controller;
    EcsConfig {
        cluster: controller.cluster.clone(),
        ecs_cluster: ecs.cluster.clone(),
        region: ecs.region.clone(),
        endpoint_url: ecs.endpoint_url.as_ref().map(ToString::to_string),
        slots_per_instance: Resources::SLOTS_MAX,
        reserve: Reserve::default(),
        instance_filter: ecs.instance_filter.clone(),
        events_queue_url: ecs.events_queue_url.as_ref().map(ToString::to_string),
        stop_before_start: ecs.stop_before_start,
        limits: driver_ecs::Limits {
            refresh_ms: u64::try_from(ecs.refresh.as_millis()).unwrap_or(u64::MAX),
            settle_ms: controller.settle_ms,
            ..driver_ecs::Limits::default()
        },
    }
}
