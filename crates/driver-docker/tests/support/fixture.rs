//! What the driver brings to the suite that every driver passes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bollard::query_parameters::{KillContainerOptions, RemoveContainerOptionsBuilder};
use driver::{ContainerId, ContainerSpec, Driver};
use driver_docker::{DockerDriver, Limits};
use driver_testkit::conformance::{Backdoor, Fixture};
use planner::Resources;

use super::{Cluster, PATIENCE, engine, runs, workload};

const AFTER_LIMIT: Duration = Duration::from_secs(3);

pub(crate) struct DockerFixture {
    cluster: Cluster,
    driver: Arc<DockerDriver>,
}

impl DockerFixture {
    pub(crate) fn new() -> Self {
        let cluster = Cluster::new();
        let mut config = cluster.config();
        config.limits = Limits { after_ms: 3_000, ..Limits::default() };
        Self { driver: Arc::new(DockerDriver::new(config)), cluster }
    }
}

#[async_trait]
impl Fixture for DockerFixture {
    fn driver(&self) -> Arc<dyn Driver> {
        Arc::clone(&self.driver) as Arc<dyn Driver>
    }

    fn capacity(&self) -> Resources {
        Resources::slots_only(9)
    }

    fn runs(&self) -> ContainerSpec {
        workload(&[])
    }

    fn exits(&self, code: u8) -> ContainerSpec {
        workload(&[("WORKLOAD_EXIT_AFTER_MS", "100"), ("WORKLOAD_EXIT_CODE", &code.to_string())])
    }

    fn ignores_stop_signal(&self) -> ContainerSpec {
        workload(&[("WORKLOAD_IGNORE_SIGTERM", "1")])
    }

    fn fails_to_start(&self) -> ContainerSpec {
        ContainerSpec { command: Some(vec!["/not-there".to_owned()]), ..workload(&[]) }
    }

    fn after_limit(&self) -> Duration {
        AFTER_LIMIT
    }

    fn patience(&self) -> Duration {
        PATIENCE
    }

    fn backdoor(&self) -> Option<&dyn Backdoor> {
        Some(self)
    }

    /// The cluster clears up after itself, however the case ends.
    async fn tear_down(&self) {}
}

#[async_trait]
impl Backdoor for DockerFixture {
    async fn kill(&self, id: &ContainerId) {
        engine().kill_container(id.as_str(), None::<KillContainerOptions>).await.expect("it is killed");
    }

    async fn pause(&self, id: &ContainerId) {
        engine().pause_container(id.as_str()).await.expect("it is suspended");
    }

    async fn unpause(&self, id: &ContainerId) {
        engine().unpause_container(id.as_str()).await.expect("it is resumed");
    }

    async fn remove(&self, id: &ContainerId) {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        engine().remove_container(id.as_str(), Some(options)).await.expect("it is removed");
    }

    async fn run_foreign(&self) -> ContainerId {
        let image = self.cluster.labelled_image().await;
        self.cluster.run_foreign(&format!("foreign-{}", self.cluster.name), &image).await
    }

    async fn foreign_runs(&self, id: &ContainerId) -> bool {
        runs(id).await
    }
}
