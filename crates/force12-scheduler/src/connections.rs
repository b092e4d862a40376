//! The ways to engines and demand sources that a configuration asks for; those that stay the same are kept.

use std::sync::Arc;

use controller::{DemandSource, Engines};
use driver::Driver;
use driver_docker::{DockerConfig, DockerDriver, DockerInstance, Limits};
use reqwest::Url;
use service_kit::client::Clients;

use crate::config::Settings;
use crate::demand::HttpTransport;

/// How much longer a start waits for its victim than the victim may take: the engine has to kill it after its grace.
const KILL_MS: u64 = 30_000;

/// Ways to engines and demand sources.
#[derive(Clone, Default)]
pub struct Connections {
    drivers: Vec<(DockerConfig, Arc<dyn Driver>)>,
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
        Self { drivers, sources }
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
        self.drivers.iter().map(|(_, driver)| Arc::clone(driver))
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
