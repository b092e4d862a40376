//! Tasks, from their start to their end.

use std::time::Duration;

use fake_ecs::{Behaviour, Config, Lag};
use serde_json::json;

use crate::support::{HOSTS, Stage, reasons};

fn prompt() -> Config {
    Config { lag: Lag::none(), ..Config::seeded(1) }
}

#[tokio::test(start_paused = true)]
async fn a_task_goes_through_its_life() {
    let stage = Stage::new(prompt()).await;
    let task = stage.start("batch", 0).await;
    let mut seen = Vec::new();
    let mut versions = Vec::new();
    let mut look = async || {
        let described = stage.describe(&task).await;
        let status = described["lastStatus"].as_str().expect("a status").to_owned();
        if seen.last() != Some(&status) {
            seen.push(status.clone());
            versions.push(described["version"].as_u64().expect("a version"));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        status
    };
    while look().await != "RUNNING" {}
    let told = stage.stop(&task).await;
    assert_eq!((&told["lastStatus"], &told["desiredStatus"]), (&json!("RUNNING"), &json!("STOPPED")));
    while look().await != "STOPPED" {}
    assert_eq!(seen, ["PENDING", "ACTIVATING", "RUNNING", "STOPPING", "STOPPED"]);
    assert!(versions.is_sorted_by(|a, b| a < b), "{versions:?}");
    let over = stage.describe(&task).await;
    assert_eq!(over["stopCode"], "UserInitiated");
    assert_eq!(over["stoppedReason"], "test");
    assert_eq!(over["containers"][0]["exitCode"], 0);
    assert_eq!(over["containers"][0]["lastStatus"], "STOPPED");
}

#[tokio::test(start_paused = true)]
async fn an_end_by_itself_is_told_with_its_code() {
    let stage = Stage::new(prompt()).await;
    stage.ecs.set_image("batch", Behaviour::ends(Duration::from_mins(1), 3));
    let task = stage.running("batch", 0).await;
    tokio::time::sleep(Duration::from_secs(59)).await;
    let over = stage.until(&task, "STOPPED").await;
    assert_eq!(over["stopCode"], "EssentialContainerExited");
    assert_eq!(over["containers"][0]["exitCode"], 3);
    assert_eq!(stage.remaining(0).await, (1_024, 1_000));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_pulled_or_started_says_so_of_its_container() {
    let stage = Stage::new(prompt()).await;
    for (behaviour, error) in [
        (Behaviour::missing(), "CannotPullContainerError"),
        (Behaviour::broken(), "CannotStartContainerError"),
    ] {
        stage.ecs.set_image("batch", behaviour);
        let task = stage.start("batch", 0).await;
        let over = stage.until(&task, "STOPPED").await;
        assert_eq!(over["stopCode"], "TaskFailedToStart");
        let reason = over["containers"][0]["reason"].as_str().expect("a reason");
        assert!(reason.starts_with(error), "{reason}");
        assert!(over["containers"][0].get("exitCode").is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_deaf_container_is_killed_after_its_stop_timeout() {
    let stage = Stage::new(prompt()).await;
    stage.register("batch", json!({"stopTimeout": 5})).await;
    stage.ecs.set_image("batch", Behaviour::deaf());
    let task = stage.running("batch", 0).await;
    stage.stop(&task).await;
    tokio::time::sleep(Duration::from_millis(4_900)).await;
    assert_eq!(stage.describe(&task).await["lastStatus"], "STOPPING");
    assert_eq!(stage.until(&task, "STOPPED").await["containers"][0]["exitCode"], 137);
}

#[tokio::test(start_paused = true)]
async fn a_stopping_task_leaves_its_room_to_ecs_at_once_and_to_its_agent_when_it_has_ended() {
    let stage = Stage::new(prompt()).await;
    stage.register("batch", json!({"stopTimeout": 10, "memory": 600})).await;
    stage.ecs.set_image("batch", Behaviour::deaf());
    let old = stage.running("batch", 0).await;
    assert_eq!(reasons(&stage.try_start("batch", 0).await), ["RESOURCE:MEMORY"]);
    stage.stop(&old).await;
    assert_eq!(stage.remaining(0).await, (1_024, 1_000));
    let new = stage.start("batch", 0).await;
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(stage.describe(&new).await["lastStatus"], "PENDING");
    stage.until(&old, "STOPPED").await;
    stage.until(&new, "RUNNING").await;
}

#[tokio::test(start_paused = true)]
async fn an_old_agent_waits_for_all_that_stop_and_a_newer_one_for_room_only() {
    for (agent, waits) in [("1.72.1", true), ("1.73.0", false), ("1.74.0", true), ("1.74.1", false)] {
        let stage = Stage::with_agents(prompt(), agent).await;
        stage.register("batch", json!({"stopTimeout": 10})).await;
        stage.ecs.set_image("batch", Behaviour::deaf());
        let old = stage.running("batch", 0).await;
        stage.stop(&old).await;
        let new = stage.start("batch", 0).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let status = stage.describe(&new).await["lastStatus"].clone();
        assert_eq!(status == "PENDING", waits, "{agent}: {status}");
        // What was told to stop after it was placed holds nothing up.
        stage.until(&new, "RUNNING").await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_stopped_in_the_agents_queue_never_runs() {
    let stage = Stage::with_agents(prompt(), "1.72.0").await;
    stage.ecs.set_image("batch", Behaviour::deaf());
    let old = stage.running("batch", 0).await;
    stage.stop(&old).await;
    let new = stage.start("batch", 0).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    stage.stop(&new).await;
    let over = stage.until(&new, "STOPPED").await;
    assert!(over.get("startedAt").is_none(), "{over}");
    assert_eq!(stage.describe(&old).await["lastStatus"], "STOPPING");
}

#[tokio::test(start_paused = true)]
async fn a_stop_deletes_tags_and_hides_the_task_from_a_listing() {
    let stage = Stage::new(prompt()).await;
    let tags = json!([{"key": "force12.service", "value": "priority1"}]);
    let started = stage
        .ok(
            "StartTask",
            json!({"taskDefinition": "batch", "containerInstances": [stage.instances[0]], "tags": tags}),
        )
        .await;
    let task = started["tasks"][0]["taskArn"].as_str().expect("an ARN").to_owned();
    assert_eq!(stage.until(&task, "RUNNING").await["tags"], tags);
    let without = stage.ok("DescribeTasks", json!({"tasks": [task]})).await;
    assert_eq!(without["tasks"][0]["tags"], json!([]));
    stage.stop(&task).await;
    assert_eq!(stage.describe(&task).await["tags"], json!([]));
    assert_eq!(stage.ok("ListTasks", json!({})).await["taskArns"], json!([]));
    let stopping = stage.ok("ListTasks", json!({"desiredStatus": "STOPPED"})).await;
    assert_eq!(stopping["taskArns"], json!([task]));
}

#[tokio::test(start_paused = true)]
async fn a_stopped_task_is_described_for_an_hour() {
    let stage = Stage::new(prompt()).await;
    let task = stage.running("batch", 0).await;
    stage.stop(&task).await;
    stage.until(&task, "STOPPED").await;
    tokio::time::sleep(Duration::from_secs(3_590)).await;
    assert_eq!(stage.describe(&task).await["lastStatus"], "STOPPED");
    tokio::time::sleep(Duration::from_secs(11)).await;
    let answer = stage.ok("DescribeTasks", json!({"tasks": [task]})).await;
    assert_eq!(reasons(&answer), ["MISSING"]);
}

#[tokio::test(start_paused = true)]
async fn a_disconnected_agent_tells_nothing_and_what_it_runs_runs_on() {
    let stage = Stage::new(prompt()).await;
    stage.ecs.set_image("batch", Behaviour::ends(Duration::from_mins(1), 0));
    let task = stage.running("batch", 0).await;
    stage.ecs.disconnect(HOSTS[0], Duration::from_secs(30));
    // Not yet known: the start is accepted, and nobody hears of it.
    let unheard = stage.start("batch", 0).await;
    tokio::time::sleep(Duration::from_mins(2)).await;
    assert_eq!(reasons(&stage.try_start("batch", 0).await), ["AGENT"]);
    assert_eq!(stage.describe(&task).await["lastStatus"], "RUNNING");
    assert_eq!(stage.describe(&unheard).await["lastStatus"], "PENDING");
    assert!(stage.ecs.tasks().iter().all(|task| !task.runs));
    stage.ecs.reconnect(HOSTS[0]);
    stage.until(&task, "STOPPED").await;
    stage.until(&unheard, "RUNNING").await;
}

#[tokio::test(start_paused = true)]
async fn a_terminated_instance_takes_its_tasks_with_it() {
    let stage = Stage::new(prompt()).await;
    let task = stage.running("batch", 0).await;
    stage.ecs.terminate(HOSTS[0]);
    let over = stage.describe(&task).await;
    assert_eq!(over["lastStatus"], "STOPPED");
    assert_eq!(over["stoppedReason"], "Host EC2 (instance i-1) terminated.");
    assert_eq!(reasons(&stage.try_start("batch", 0).await), ["INACTIVE"]);
    let listed = stage.ok("ListContainerInstances", json!({})).await;
    assert_eq!(listed["containerInstanceArns"].as_array().map(Vec::len), Some(2));
}

#[tokio::test(start_paused = true)]
async fn health_is_told_of_what_has_a_health_check() {
    let stage = Stage::new(prompt()).await;
    let task = stage.running("batch", 0).await;
    assert_eq!(stage.describe(&task).await["containers"][0]["healthStatus"], "UNKNOWN");
    stage.register("web", json!({"healthCheck": {"command": ["CMD", "/web", "check"]}})).await;
    for (behaviour, instance, health) in
        [(Behaviour::default(), 0, "HEALTHY"), (Behaviour::sick(), 1, "UNHEALTHY")]
    {
        stage.ecs.set_image("web", behaviour);
        let task = stage.running("web", instance).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        let described = stage.describe(&task).await;
        assert_eq!(
            (&described["healthStatus"], &described["containers"][0]["healthStatus"]),
            (&json!(health), &json!(health))
        );
        stage.stop(&task).await;
        assert_eq!(stage.until(&task, "STOPPED").await["containers"][0]["exitCode"], 0);
    }
}
