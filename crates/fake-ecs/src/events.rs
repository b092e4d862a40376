//! State change events of tasks and container instances, as EventBridge sends them
//! (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_cwe_events.html>).
//!
//! "The `version` field in the `detail` object of the event describes the version of the associated resource. Each
//! time a resource changes state, this version is incremented. Because events can be sent multiple times, this field
//! allows you to identify duplicate events." Times within `detail` are ISO strings, and there are no tags in it
//! (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html>).

use std::time::Duration;

use serde_json::{Value, json};

use crate::dice;
use crate::instances;
use crate::tasks;
use crate::world::{Stamp, World};

/// Members of a task or instance that are times.
const TIMES: [&str; 9] = [
    "createdAt",
    "connectivityAt",
    "pullStartedAt",
    "pullStoppedAt",
    "startedAt",
    "stoppingAt",
    "executionStoppedAt",
    "stoppedAt",
    "registeredAt",
];

pub(crate) fn task_changed(world: &mut World, id: &str) {
    if world.config.events.is_none() {
        return;
    }
    let Some(task) = world.tasks.get(id) else { return };
    let mut detail = tasks::document(task.view.now(), false);
    if let Some(detail) = detail.as_object_mut() {
        detail.remove("tags");
    }
    let arn = detail["taskArn"].clone();
    send(world, "ECS Task State Change", &arn, detail);
}

pub(crate) fn instance_changed(world: &mut World, id: &str) {
    if world.config.events.is_none() {
        return;
    }
    let Some(instance) = world.instances.get(id) else { return };
    let mut detail = instances::document(world, instance, instance.view.now(), false);
    detail["clusterArn"] = json!(world.arn(&format!("cluster/{}", instance.cluster)));
    if let Some(detail) = detail.as_object_mut() {
        detail.remove("tags");
    }
    let arn = detail["containerInstanceArn"].clone();
    send(world, "ECS Container Instance State Change", &arn, detail);
}

/// Puts an event into the queue, or loses it, or puts it in twice.
fn send(world: &mut World, kind: &str, arn: &Value, mut detail: Value) {
    let now = world.stamp();
    detail["updatedAt"] = json!(iso(now));
    for time in TIMES {
        if let Some(seconds) = detail[time].as_f64() {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the seconds of a stamp"
            )]
            let stamp = Stamp((seconds * 1_000.0).round() as u64);
            detail[time] = json!(iso(stamp));
        }
    }
    let mut ids = world.id_dice();
    let event = json!({
        "version": "0",
        "id": dice::uuid(&mut ids),
        "detail-type": kind,
        "source": "aws.ecs",
        "account": world.config.account,
        "time": iso(now),
        "region": world.config.region,
        "resources": [arn],
        "detail": detail,
    });
    let Some(delivery) = &world.config.events else { return };
    if dice::per_mille(&mut ids) < delivery.lost_per_mille {
        return;
    }
    let copies = if dice::per_mille(&mut ids) < delivery.doubled_per_mille { 2 } else { 1 };
    let delays: Vec<Duration> = (0..copies).map(|_| dice::millis(&mut ids, &delivery.delay_ms)).collect();
    for delay in delays {
        world.queue.send(event.to_string(), delay);
    }
}

fn iso(stamp: Stamp) -> String {
    let milliseconds = i64::try_from(stamp.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(milliseconds).map(|time| time.to_string()).unwrap_or_default()
}
