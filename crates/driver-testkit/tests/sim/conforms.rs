//! The simulated engine passes the suite that every driver passes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use driver::{Capabilities, ContainerId, ContainerSpec, Driver};
use driver_testkit::conformance::{Backdoor, Fixture};
use driver_testkit::sim::{Behaviour, SimConfig, SimEngine};
use planner::{Phase, Resources};

const CAPACITY: Resources = Resources { slots: 9, cpu_millis: 4_000, memory_mib: Resources::UNLIMITED };
const AFTER_LIMIT_MS: u64 = 2_000;

struct SimFixture {
    engine: SimEngine,
    driver: Arc<dyn Driver>,
}

impl SimFixture {
    fn new(config: SimConfig) -> Self {
        let config = SimConfig { after_timeout_ms: AFTER_LIMIT_MS, ..config };
        let engine = SimEngine::new("engine-1", config)
            .with_instance("instance-1", CAPACITY)
            .with_instance("instance-2", CAPACITY)
            .with_image("runs", Behaviour::runs())
            .with_image("exits-0", Behaviour::exits(0, 20))
            .with_image("exits-7", Behaviour::exits(7, 20))
            .with_image("ignores", Behaviour::ignores_stop_signal())
            .with_image("fails", Behaviour::fails_to_start());
        let driver = Arc::new(engine.driver("conformance"));
        Self { engine, driver }
    }
}

fn spec(image: &str) -> ContainerSpec {
    ContainerSpec { image: image.to_owned(), ..ContainerSpec::default() }
}

#[async_trait]
impl Fixture for SimFixture {
    fn driver(&self) -> Arc<dyn Driver> {
        Arc::clone(&self.driver)
    }

    fn capacity(&self) -> Resources {
        CAPACITY
    }

    fn runs(&self) -> ContainerSpec {
        spec("runs")
    }

    fn exits(&self, code: u8) -> ContainerSpec {
        spec(&format!("exits-{code}"))
    }

    fn ignores_stop_signal(&self) -> ContainerSpec {
        spec("ignores")
    }

    fn fails_to_start(&self) -> ContainerSpec {
        spec("fails")
    }

    fn after_limit(&self) -> Duration {
        Duration::from_millis(AFTER_LIMIT_MS)
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(2)
    }

    fn backdoor(&self) -> Option<&dyn Backdoor> {
        Some(self)
    }

    async fn tear_down(&self) {
        let history = self.engine.history();
        assert!(history.others_touched("conformance").is_empty());
        if self.driver.capabilities().idempotent_start {
            history.assert_sound("conformance");
        }
    }
}

#[async_trait]
impl Backdoor for SimFixture {
    async fn kill(&self, id: &ContainerId) {
        self.engine.hand().exit(id, 137);
    }

    async fn pause(&self, id: &ContainerId) {
        self.engine.hand().pause(id);
    }

    async fn unpause(&self, id: &ContainerId) {
        self.engine.hand().unpause(id);
    }

    async fn remove(&self, id: &ContainerId) {
        self.engine.hand().remove(id);
    }

    async fn run_foreign(&self) -> ContainerId {
        self.engine.place_foreign("postgres")
    }

    async fn foreign_runs(&self, id: &ContainerId) -> bool {
        self.engine.container(id).is_some_and(|container| container.phase == Phase::Running)
    }
}

mod like_docker {
    use super::*;
    driver_testkit::conformance_tests!(SimFixture::new(SimConfig::default()), start_paused = true);
}

/// No idempotent start, no freezing, and transitions that are told.
mod like_ecs {
    use super::*;

    fn config() -> SimConfig {
        let capabilities = Capabilities { freeze: false, idempotent_start: false };
        SimConfig { capabilities, reports_transitions: true, ..SimConfig::default() }
    }

    driver_testkit::conformance_tests!(SimFixture::new(config()), start_paused = true);
}

/// Events that come late, in no order.
mod with_late_events {
    use super::*;

    fn config() -> SimConfig {
        SimConfig { event_delay_ms: 0..=500, ..SimConfig::seeded(7) }
    }

    driver_testkit::conformance_tests!(SimFixture::new(config()), start_paused = true);
}
