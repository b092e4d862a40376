//! What these tests share: a fake of ECS in the process, on virtual time, and drivers for it.
#![expect(unreachable_pub, reason = "a module of test binaries")]

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_smithy_runtime_api::client::http::SharedHttpClient;
use driver::ContainerSpec;
use driver_ecs::{EcsConfig, EcsDriver, Limits, Reserve, Wanted};
use fake_ecs::{Behaviour, Config, FakeEcs, InProcess, InstanceSpec, Outcome};
use serde_json::{Value, json};

/// Force12's own name of the cluster.
pub const CLUSTER: &str = "demo";
/// What a task of any family takes: CPU units and MiB.
pub const TASK: (u64, u64) = (1_024, 512);

/// A fake with some instances.
#[derive(Clone)]
pub struct Stage {
    pub ecs: FakeEcs,
    pub queue: Option<String>,
}

impl Stage {
    pub fn new(config: Config) -> Self {
        let queue = config.events.as_ref().map(|events| {
            format!("https://sqs.{}.amazonaws.com/{}/{}", config.region, config.account, events.queue)
        });
        Self { ecs: FakeEcs::new(config), queue }
    }

    /// Adds an instance that has room for so many tasks.
    pub fn instance(&self, name: &str, tasks: u64, agent_version: &str) -> String {
        let spec = InstanceSpec {
            ec2_instance_id: name.to_owned(),
            cpu: TASK.0 * tasks,
            memory: TASK.1 * tasks,
            agent_version: agent_version.to_owned(),
            ..InstanceSpec::default()
        };
        self.ecs.add_instance("default", spec)
    }

    pub async fn ask(&self, operation: &str, body: Value) -> Value {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        match self.ecs.call(&target, body.to_string()).await {
            Outcome::Answered(answer) if answer.status == 200 => answer.json(),
            Outcome::Answered(answer) => panic!("{operation}: {} {}", answer.status, answer.json()),
            Outcome::Broken => panic!("{operation}: the connection broke"),
        }
    }

    /// Registers a family whose image is named as it, and gives back the ARN of its revision.
    pub async fn register(&self, family: &str, behaviour: Behaviour) -> String {
        self.ecs.set_image(family, behaviour);
        let container =
            json!({"name": "main", "image": family, "cpu": TASK.0, "memory": TASK.1, "stopTimeout": 2});
        let answer = self
            .ask("RegisterTaskDefinition", json!({"family": family, "containerDefinitions": [container]}))
            .await;
        answer["taskDefinition"]["taskDefinitionArn"].as_str().expect("it has a name").to_owned()
    }

    /// A driver of its own, as a process that starts has it.
    pub fn driver(&self, slots: u64, seed: u64, limits: Limits, families: &[&str]) -> Arc<EcsDriver> {
        let config = EcsConfig {
            cluster: CLUSTER.to_owned(),
            ecs_cluster: "default".to_owned(),
            region: Some("eu-west-1".to_owned()),
            endpoint_url: None,
            slots_per_instance: slots,
            reserve: Reserve::default(),
            instance_filter: None,
            events_queue_url: self.queue.clone(),
            stop_before_start: false,
            limits,
        };
        let transport = SharedHttpClient::new(InProcess::new(self.ecs.clone()));
        let driver = EcsDriver::with_http_client(config, transport, seed);
        let task_definitions = families.iter().map(|&family| family.to_owned()).collect();
        driver.want(Wanted { task_definitions, first: BTreeSet::from(["priority1".to_owned()]) });
        driver
    }
}

/// What a service's containers are made of.
pub fn spec(revision: &str) -> ContainerSpec {
    ContainerSpec {
        image: revision.to_owned(),
        task_definition: Some(revision.to_owned()),
        stop_grace_ms: 2_000,
        ..ContainerSpec::default()
    }
}
