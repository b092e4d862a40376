//! The suite that every driver passes, on a fake of ECS and virtual time: with events, and without.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use driver::{ContainerId, ContainerSpec, Driver};
use driver_ecs::{EcsDriver, Limits};
use driver_testkit::conformance::{Backdoor, Fixture};
use fake_ecs::{Behaviour, Config, EventDelivery};
use planner::Resources;
use serde_json::json;
use support::{Stage, TASK, spec};
use tokio::time::sleep;

const SLOTS: u64 = 8;
const AFTER: Duration = Duration::from_secs(4);

struct EcsFixture {
    stage: Stage,
    driver: Arc<EcsDriver>,
    instance: String,
    revisions: BTreeMap<&'static str, String>,
}

impl EcsFixture {
    async fn new(config: Config) -> Self {
        let stage = Stage::new(config);
        let instance = stage.instance("i-1", SLOTS, "1.98.0");
        let mut revisions = BTreeMap::new();
        for (family, behaviour) in [
            ("runs", Behaviour::default()),
            ("exits-0", Behaviour::ends(Duration::from_millis(100), 0)),
            ("exits-7", Behaviour::ends(Duration::from_millis(100), 7)),
            ("deaf", Behaviour::deaf()),
            ("broken", Behaviour::broken()),
        ] {
            revisions.insert(family, stage.register(family, behaviour).await);
        }
        let limits = Limits { settle_ms: 0, after_ms: 4_000, ..Limits::default() };
        let driver = stage.driver(SLOTS, 1, limits, &["runs"]);
        driver.observe().await.expect("the fake can be observed");
        Self { stage, driver, instance, revisions }
    }

    fn spec(&self, family: &str) -> ContainerSpec {
        spec(&self.revisions[family])
    }

    fn truth(&self, id: &ContainerId) -> Option<fake_ecs::TaskTruth> {
        let name = id.as_str().rsplit('/').next().expect("an ARN");
        self.stage.ecs.tasks().into_iter().find(|task| task.id == name)
    }
}

#[async_trait]
impl Fixture for EcsFixture {
    fn driver(&self) -> Arc<dyn Driver> {
        Arc::clone(&self.driver) as Arc<dyn Driver>
    }

    fn capacity(&self) -> Resources {
        Resources { slots: SLOTS, cpu_millis: 1_000 * SLOTS, memory_mib: TASK.1 * SLOTS }
    }

    fn runs(&self) -> ContainerSpec {
        self.spec("runs")
    }

    fn exits(&self, code: u8) -> ContainerSpec {
        self.spec(if code == 0 { "exits-0" } else { "exits-7" })
    }

    fn ignores_stop_signal(&self) -> ContainerSpec {
        self.spec("deaf")
    }

    fn fails_to_start(&self) -> ContainerSpec {
        self.spec("broken")
    }

    fn image_missing(&self) -> ContainerSpec {
        spec("nowhere:1")
    }

    fn after_limit(&self) -> Duration {
        AFTER
    }

    fn patience(&self) -> Duration {
        Duration::from_mins(1)
    }

    fn backdoor(&self) -> Option<&dyn Backdoor> {
        Some(self)
    }

    async fn tear_down(&self) {}
}

#[async_trait]
impl Backdoor for EcsFixture {
    async fn kill(&self, id: &ContainerId) {
        self.stage.ecs.kill(id.as_str().rsplit('/').next().expect("an ARN"));
    }

    async fn pause(&self, _id: &ContainerId) {
        unreachable!("ECS suspends nothing");
    }

    async fn unpause(&self, _id: &ContainerId) {
        unreachable!("ECS suspends nothing");
    }

    /// ECS takes nothing away itself for an hour: what has ended is not told of any more once it is removed.
    async fn remove(&self, id: &ContainerId) {
        Backdoor::kill(self, id).await;
        while self.driver.remove(id).await.is_err() {
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// It has all our tags, and is somebody else's all the same.
    async fn run_foreign(&self) -> ContainerId {
        let answer = self
            .stage
            .ask(
                "StartTask",
                json!({
                    "taskDefinition": self.revisions["runs"], "containerInstances": [self.instance],
                    "startedBy": "ecs-svc/1", "tags": [
                        {"key": "force12.cluster", "value": support::CLUSTER},
                        {"key": "force12.service", "value": "observe-others"},
                        {"key": "force12.generation", "value": "0123456789abcdef"},
                    ],
                }),
            )
            .await;
        let id = ContainerId::new(answer["tasks"][0]["taskArn"].as_str().expect("it was started"));
        while !self.truth(&id).is_some_and(|task| task.runs) {
            sleep(Duration::from_millis(100)).await;
        }
        id
    }

    async fn foreign_runs(&self, id: &ContainerId) -> bool {
        self.truth(id).is_some_and(|task| task.runs)
    }
}

mod by_looking {
    use super::{Config, EcsFixture};

    driver_testkit::conformance_tests!(EcsFixture::new(Config::seeded(1)).await, start_paused = true);
}

mod with_events {
    use super::{Config, EcsFixture, EventDelivery};

    driver_testkit::conformance_tests!(
        EcsFixture::new(Config { events: Some(EventDelivery::default()), ..Config::seeded(2) }).await,
        start_paused = true
    );
}
