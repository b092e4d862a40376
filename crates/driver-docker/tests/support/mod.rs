//! What the tests on a real engine share: the engine, images, a cluster of their own, and the clearing up.

#![allow(dead_code, unused_imports, reason = "each test binary uses its own part of this")]

mod certificates;
mod fixture;
mod image;
mod proxy;
mod registry;
mod tls_engine;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, ListContainersOptionsBuilder,
    ListImagesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptionsBuilder,
    StartContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, Docker};
use driver::{ContainerId, ContainerSpec, Driver, Event, Observation, Start};
use driver_docker::{DockerConfig, DockerDriver, DockerInstance, EngineAddress, Limits, Registries};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use planner::Resources;
use tokio::time::timeout;

pub(crate) use certificates::{Authority, Pair, Validity};
pub(crate) use fixture::DockerFixture;
pub(crate) use image::{build_image, build_image_of, workload_image};
pub(crate) use proxy::{Mode, Proxy, Telling};
pub(crate) use registry::{PASSWORD, Registry, USERNAME, forget};
pub(crate) use tls_engine::TlsEngine;

/// Where the engine of the tests answers.
pub(crate) const SOCKET: &str = "/var/run/docker.sock";
/// The one instance of the tests.
pub(crate) const INSTANCE: &str = "instance-1";
/// By which the images of one cluster are found again; not one of the product's labels.
const IMAGE_LABEL: &str = "force12-test.cluster";
/// How long anything may take that is not waited for on purpose; the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The engine, without the driver; in a test binary that has started an engine of its own, that one.
pub(crate) fn engine() -> Docker {
    let socket = TlsEngine::started().map_or(SOCKET, |engine| engine.socket());
    Docker::connect_with_unix(socket, PATIENCE.as_secs(), API_DEFAULT_VERSION).unwrap_or_else(|error| {
        panic!("this test needs a Docker engine at unix://{socket} (`scripts/test` starts one): {error}")
    })
}

/// A cluster that no other test uses. All its containers and images are removed with it, also when the test fails.
pub(crate) struct Cluster {
    pub(crate) name: String,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { name: format!("test{}x{}x{number}", since_epoch.as_millis(), std::process::id()) }
    }

    pub(crate) fn config(&self) -> DockerConfig {
        let (engine, tls) = match TlsEngine::started() {
            Some(engine) => (engine.address(), Some(engine.client_files())),
            None => (EngineAddress::Unix(SOCKET.into()), None),
        };
        DockerConfig {
            engine,
            tls,
            cluster: self.name.clone(),
            instances: vec![DockerInstance { name: INSTANCE.to_owned(), capacity: Resources::slots_only(9) }],
            registries: Registries::default(),
            limits: Limits::default(),
        }
    }

    pub(crate) fn driver(&self) -> Arc<DockerDriver> {
        Arc::new(DockerDriver::new(self.config()))
    }

    /// The labels of a container of ours, of the service `web`.
    pub(crate) fn labels(&self) -> Vec<(String, String)> {
        [
            ("force12.cluster", self.name.as_str()),
            ("force12.service", "web"),
            ("force12.instance", INSTANCE),
            ("force12.generation", "0123456789abcdef"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    /// An image whose containers all carry this cluster's labels.
    pub(crate) async fn labelled_image(&self) -> String {
        let name = format!("force12-test/{}", self.name);
        self.build(&name, &self.labels(), true).await;
        name
    }

    /// An image that is removed with the cluster.
    pub(crate) async fn build(&self, name: &str, labels: &[(String, String)], has_command: bool) {
        let mark = (IMAGE_LABEL.to_owned(), self.name.clone());
        build_image(name, &[labels, &[mark]].concat(), has_command).await;
    }

    /// An image of this content, which is removed with the cluster.
    pub(crate) async fn build_of(&self, name: &str, content: &[u8]) {
        build_image_of(name, &[(IMAGE_LABEL.to_owned(), self.name.clone())], content).await;
    }

    /// A container that is not ours, running, by that name.
    pub(crate) async fn run_foreign(&self, name: &str, image: &str) -> ContainerId {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            host_config: Some(HostConfig { network_mode: Some("host".to_owned()), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        let created = engine().create_container(Some(options), body).await.expect("it is created");
        engine().start_container(&created.id, None::<StartContainerOptions>).await.expect("it starts");
        ContainerId::new(created.id)
    }

    async fn clear(name: String) {
        let engine = engine();
        let filters = |label| std::collections::HashMap::from([("label", vec![format!("{label}={name}")])]);
        let options =
            ListContainersOptionsBuilder::new().all(true).filters(&filters("force12.cluster")).build();
        for container in engine.list_containers(Some(options)).await.expect("the engine answers") {
            let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
            // Somebody may have been quicker.
            let _ = engine.remove_container(&container.id.unwrap_or_default(), Some(options)).await;
        }
        let options = ListImagesOptionsBuilder::new().filters(&filters(IMAGE_LABEL)).build();
        for image in engine.list_images(Some(options)).await.expect("the engine answers") {
            let options = RemoveImageOptionsBuilder::new().force(true).build();
            let _ = engine.remove_image(&image.id, Some(options), None).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let name = self.name.clone();
        // The test's own runtime cannot be waited on from here.
        let clearing = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(Self::clear(name));
        });
        let cleared = clearing.join();
        assert!(cleared.is_ok() || std::thread::panicking(), "the cluster was not cleared up");
    }
}

/// A container of the workload's with these options, on the host's network, which is the quickest to start.
pub(crate) fn workload(options: &[(&str, &str)]) -> ContainerSpec {
    ContainerSpec {
        image: workload_image().to_owned(),
        environment: options.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
        network: Some("host".to_owned()),
        read_only_root: true,
        stop_grace_ms: 1_000,
        ..ContainerSpec::default()
    }
}

/// The start of one container of the service `web`.
pub(crate) fn start_of(ordinal: u32, spec: ContainerSpec) -> Start {
    Start {
        service: "web".to_owned(),
        instance: INSTANCE.to_owned(),
        ordinal,
        request: Resources::ONE_SLOT,
        generation: spec.generation(),
        spec: Arc::new(spec),
    }
}

pub(crate) async fn running(driver: &DockerDriver, ordinal: u32) -> ContainerId {
    driver.start(&start_of(ordinal, workload(&[])), None).await.expect("it starts").id
}

/// A driver that reaches the engine through the proxy, and soon gives up.
pub(crate) fn driver_through(proxy: &Proxy, cluster: &Cluster) -> DockerDriver {
    let mut config = cluster.config();
    config.engine = proxy.address();
    config.limits = Limits { observe_ms: 500, change_ms: 10_000, ..Limits::default() };
    DockerDriver::new(config)
}

/// The next event.
pub(crate) async fn next(events: &mut BoxStream<'static, Event>) -> Event {
    timeout(PATIENCE, events.next()).await.expect("an event comes").expect("the stream goes on")
}

pub(crate) async fn observe(driver: &DockerDriver) -> Observation {
    driver.observe().await.expect("the engine can be observed")
}

pub(crate) async fn inspect(id: &ContainerId) -> bollard::models::ContainerInspectResponse {
    engine().inspect_container(id.as_str(), None::<InspectContainerOptions>).await.expect("it is there")
}

pub(crate) async fn runs(id: &ContainerId) -> bool {
    inspect(id).await.state.and_then(|state| state.running).unwrap_or_default()
}
