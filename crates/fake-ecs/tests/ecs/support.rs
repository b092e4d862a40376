//! What the tests share: a fake with instances, and requests in a line.

use fake_ecs::{Config, FakeEcs, InstanceSpec, Outcome};
use serde_json::{Value, json};

/// The EC2 instance ids of the fake's instances.
pub(crate) const HOSTS: [&str; 3] = ["i-1", "i-2", "i-3"];

/// A fake, its instances' ids, and shorthands.
pub(crate) struct Stage {
    pub(crate) ecs: FakeEcs,
    pub(crate) instances: Vec<String>,
}

impl Stage {
    /// Three instances of 1,024 CPU units and 1,000 MiB, and the families `batch` (256 units, 200 MiB) and `web` (the
    /// same, on port 80 of the host).
    pub(crate) async fn new(config: Config) -> Self {
        Self::with_agents(config, "1.98.0").await
    }

    pub(crate) async fn with_agents(config: Config, agent_version: &str) -> Self {
        let ecs = FakeEcs::new(config);
        let instances = HOSTS
            .iter()
            .map(|host| {
                let spec = InstanceSpec {
                    ec2_instance_id: (*host).to_owned(),
                    cpu: 1_024,
                    memory: 1_000,
                    agent_version: agent_version.to_owned(),
                    ..InstanceSpec::default()
                };
                ecs.add_instance("default", spec)
            })
            .collect();
        let stage = Self { ecs, instances };
        stage.register("batch", json!({})).await;
        stage.register("web", json!({"portMappings": [{"containerPort": 8080, "hostPort": 80}]})).await;
        stage
    }

    /// Registers a definition of one container named `main`, of an image named as the family.
    pub(crate) async fn register(&self, family: &str, more: Value) -> Value {
        let mut container = json!({"name": "main", "image": family, "cpu": 256, "memory": 200});
        for (key, value) in more.as_object().expect("members") {
            container[key] = value.clone();
        }
        self.ok("RegisterTaskDefinition", json!({"family": family, "containerDefinitions": [container]}))
            .await
    }

    /// The status and the document that a request is answered with.
    pub(crate) async fn ask(&self, operation: &str, body: Value) -> (u16, Value) {
        let target = format!("AmazonEC2ContainerServiceV20141113.{operation}");
        match self.ecs.call(&target, body.to_string()).await {
            Outcome::Answered(answer) => (answer.status, answer.json()),
            Outcome::Broken => panic!("{operation}: the connection broke"),
        }
    }

    /// The document of a request that must succeed.
    #[track_caller]
    pub(crate) fn ok(&self, operation: &str, body: Value) -> impl Future<Output = Value> {
        let place = std::panic::Location::caller();
        async move {
            let (status, document) = self.ask(operation, body).await;
            assert_eq!(status, 200, "{place}: {operation}: {document}");
            document
        }
    }

    /// Starts a task on an instance; its ARN.
    pub(crate) async fn start(&self, family: &str, instance: usize) -> String {
        let answer = self.try_start(family, instance).await;
        let arn = answer["tasks"][0]["taskArn"].as_str();
        arn.unwrap_or_else(|| panic!("not started: {answer}")).to_owned()
    }

    pub(crate) async fn try_start(&self, family: &str, instance: usize) -> Value {
        let request = json!({
            "taskDefinition": family, "containerInstances": [self.instances[instance]], "startedBy": "test",
        });
        self.ok("StartTask", request).await
    }

    /// Starts a task and waits until ECS says that it runs.
    pub(crate) async fn running(&self, family: &str, instance: usize) -> String {
        let task = self.start(family, instance).await;
        self.until(&task, "RUNNING").await;
        task
    }

    pub(crate) async fn stop(&self, task: &str) -> Value {
        self.ok("StopTask", json!({"task": task, "reason": "test"})).await["task"].clone()
    }

    pub(crate) async fn describe(&self, task: &str) -> Value {
        self.ok("DescribeTasks", json!({"tasks": [task], "include": ["TAGS"]})).await["tasks"][0].clone()
    }

    /// Looks until ECS says that a task is so.
    pub(crate) async fn until(&self, task: &str, status: &str) -> Value {
        for _ in 0..2_000 {
            let described = self.describe(task).await;
            if described["lastStatus"] == status {
                return described;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("not {status} within 20 s: {}", self.describe(task).await);
    }

    /// What remains of an instance: CPU units, and MiB.
    pub(crate) async fn remaining(&self, instance: usize) -> (u64, u64) {
        let request = json!({"containerInstances": [self.instances[instance]]});
        let answer = self.ok("DescribeContainerInstances", request).await;
        let resources = &answer["containerInstances"][0]["remainingResources"];
        let of = |name: &str| {
            let all = resources.as_array().expect("resources");
            let resource = all.iter().find(|resource| resource["name"] == name);
            resource.and_then(|resource| resource["integerValue"].as_u64()).expect("a number")
        };
        (of("CPU"), of("MEMORY"))
    }
}

/// The reasons of an answer's failures.
pub(crate) fn reasons(answer: &Value) -> Vec<&str> {
    let failures = answer["failures"].as_array().expect("failures");
    failures.iter().filter_map(|failure| failure["reason"].as_str()).collect()
}
