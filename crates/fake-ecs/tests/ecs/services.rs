//! Services: a desired count, kept up.

use std::time::Duration;

use fake_ecs::{Behaviour, Config, Lag};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::support::Stage;

async fn stage() -> Stage {
    Stage::new(Config { throttle: false, lag: Lag::none(), ..Config::seeded(1) }).await
}

async fn create(stage: &Stage, percents: (u64, u64)) {
    let request = json!({
        "serviceName": "scheduler",
        "taskDefinition": "web",
        "desiredCount": 1,
        "deploymentConfiguration": {"minimumHealthyPercent": percents.0, "maximumPercent": percents.1},
    });
    stage.ok("CreateService", request).await;
}

async fn describe(stage: &Stage) -> Value {
    stage.ok("DescribeServices", json!({"services": ["scheduler"]})).await["services"][0].clone()
}

/// Looks until the service is as wanted, and returns the most tasks that had containers running at once until then.
async fn until(stage: &Stage, condition: impl Fn(&Value) -> bool) -> usize {
    let mut most = 0;
    for _ in 0..10_000 {
        most = most.max(stage.ecs.tasks().iter().filter(|task| task.runs).count());
        if condition(&describe(stage).await) {
            return most;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("not within 100 s: {}", describe(stage).await);
}

fn runs(service: &Value) -> bool {
    service["runningCount"] == 1 && service["deployments"].as_array().map(Vec::len) == Some(1)
}

#[tokio::test(start_paused = true)]
async fn a_task_that_ends_is_started_again() {
    let stage = stage().await;
    create(&stage, (0, 100)).await;
    until(&stage, runs).await;
    let task = stage.ecs.tasks().into_iter().find(|task| task.runs).expect("one runs");
    stage.ecs.kill(&task.id);
    until(&stage, |service| service["runningCount"] == 0).await;
    until(&stage, runs).await;
    let over = stage.describe(&task.id).await;
    assert_eq!(over["containers"][0]["exitCode"], 137);
}

#[tokio::test(start_paused = true)]
async fn a_deployment_keeps_to_its_percentages() {
    for (percents, most_at_once) in [((0, 100), 1), ((100, 200), 2)] {
        let stage = stage().await;
        // It takes longer to end than another takes to start.
        stage.register("web", json!({"stopTimeout": 10})).await;
        stage.ecs.set_image("web", Behaviour::deaf());
        create(&stage, percents).await;
        until(&stage, runs).await;
        let new = stage.register("web", json!({"cpu": 128})).await;
        let new = new["taskDefinition"]["taskDefinitionArn"].clone();
        stage.ok("UpdateService", json!({"service": "scheduler", "taskDefinition": new})).await;
        let most = until(&stage, |service| runs(service) && service["taskDefinition"] == new).await;
        assert_eq!(most, most_at_once, "{percents:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deleted_service_stops_its_tasks() {
    let stage = stage().await;
    create(&stage, (0, 100)).await;
    until(&stage, runs).await;
    let (_, refused) = stage.ask("DeleteService", json!({"service": "scheduler"})).await;
    assert_eq!(refused["__type"], "InvalidParameterException");
    stage.ok("DeleteService", json!({"service": "scheduler", "force": true})).await;
    until(&stage, |service| service["status"] == "INACTIVE").await;
    assert!(stage.ecs.tasks().iter().all(|task| task.ended));
    create(&stage, (0, 100)).await;
    until(&stage, runs).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_without_an_instance_for_it_says_so_and_starts_when_there_is_one() {
    let stage = stage().await;
    let constraint = json!([{"type": "memberOf", "expression": "attribute:force12.role == control"}]);
    let request = json!({
        "serviceName": "scheduler", "taskDefinition": "web", "desiredCount": 1,
        "placementConstraints": constraint,
    });
    stage.ok("CreateService", request).await;
    sleep(Duration::from_secs(20)).await;
    let waiting = describe(&stage).await;
    let message = waiting["events"][0]["message"].as_str().expect("an event");
    assert!(message.contains("unable to place a task"), "{message}");
    let attribute = json!({"name": "force12.role", "value": "control", "targetId": stage.instances[2]});
    stage.ok("PutAttributes", json!({"attributes": [attribute]})).await;
    until(&stage, runs).await;
    assert_eq!(stage.ecs.tasks()[0].instance, "i-3");
}

#[tokio::test(start_paused = true)]
async fn tasks_that_fail_to_start_are_started_less_and_less_often() {
    let stage = stage().await;
    stage.ecs.set_image("web", Behaviour::missing());
    create(&stage, (0, 100)).await;
    sleep(Duration::from_mins(10)).await;
    let failed = describe(&stage).await["deployments"][0]["failedTasks"].as_u64().expect("a number");
    assert!((5..=20).contains(&failed), "{failed}");
}
