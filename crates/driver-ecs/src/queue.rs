//! The cluster's events, from an SQS queue into which an EventBridge rule puts them.
//!
//! Both deliver at least once and in any order; an event counts by the version of what it tells of. What cannot be read is
//! said, and taken off the queue all the same: it would come back again and again.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_sqs::types::{DeleteMessageBatchRequestEntry, Message};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::api::measured;
use crate::book::{HostFacts, Source};
use crate::connection::QUEUE_WAIT_S;
use crate::core::{Core, Looks};
use crate::discovery::ToldInstance;
use crate::error::CallError;
use crate::task::{Facts, ToldTask};

/// The most messages that SQS gives, and takes off, at once
/// (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html>).
const MESSAGES: i32 = 10;
/// Who listens at once: a queue of thousands of events is read by as many in a fraction of the time.
pub(crate) const LISTENERS: usize = 3;
/// After a call that has gone wrong; doubles each time.
const AGAIN_MIN: Duration = Duration::from_millis(500);
/// At most.
const AGAIN_MAX: Duration = Duration::from_secs(20);
/// So much of what makes no sense is shown.
const SHOWN_MAX_CHARS: usize = 120;

/// What EventBridge puts around an event
/// (<https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-events-structure.html>).
#[derive(Debug, Deserialize)]
struct Envelope {
    source: String,
    #[serde(rename = "detail-type")]
    kind: String,
    detail: Value,
}

/// What an event tells.
#[derive(Debug)]
enum Told {
    Task(Box<ToldTask>),
    Instance(Box<ToldInstance>),
    /// Of something else; the rule lets more through than is needed.
    Else,
}

/// Listens for ever.
pub(crate) async fn listen(core: Arc<Core>, url: String) {
    let mut wait = AGAIN_MIN;
    loop {
        let began = Instant::now();
        let answer = receive(&core, &url).await;
        let went_well = answer.is_ok();
        let Some(messages) = core.noted(Looks::Queue, began, answer) else {
            core.book.events_stopped();
            core.list.notify_one();
            sleep(core.api.jittered(wait)).await;
            wait = (wait * 2).min(AGAIN_MAX);
            continue;
        };
        if went_well {
            wait = AGAIN_MIN;
        }
        let mut done = Vec::with_capacity(messages.len());
        for message in messages {
            let outcome = take_in(&core, message.body().unwrap_or_default());
            metrics::counter!("force12_ecs_events_total", "outcome" => outcome).increment(1);
            done.extend(message.receipt_handle);
        }
        if !done.is_empty() {
            // Those that stay come back, and are no news then.
            let _ = delete(&core, &url, done).await;
        }
    }
}

async fn receive(core: &Core, url: &str) -> Result<Vec<Message>, CallError> {
    let clients = core.api.clients().await?;
    let call = clients
        .sqs
        .receive_message()
        .queue_url(url)
        .max_number_of_messages(MESSAGES)
        .wait_time_seconds(QUEUE_WAIT_S);
    let answer =
        measured("ReceiveMessage", async { Box::pin(call.send()).await.map_err(CallError::of) }).await?;
    Ok(answer.messages.unwrap_or_default())
}

async fn delete(core: &Core, url: &str, handles: Vec<String>) -> Result<(), CallError> {
    let clients = core.api.clients().await?;
    let entries = handles.into_iter().enumerate().filter_map(|(number, handle)| {
        let entry = DeleteMessageBatchRequestEntry::builder().id(number.to_string()).receipt_handle(handle);
        entry.build().ok()
    });
    let call = clients.sqs.delete_message_batch().queue_url(url).set_entries(Some(entries.collect()));
    measured("DeleteMessageBatch", async { Box::pin(call.send()).await.map_err(CallError::of) })
        .await
        .map(drop)
}

/// Takes in one message; what became of it, for metrics.
fn take_in(core: &Core, body: &str) -> &'static str {
    let (told, cluster) = match read(body) {
        Ok(Told::Task(task)) => {
            let cluster = task.cluster_arn.clone();
            (Told::Task(task), cluster)
        }
        Ok(Told::Instance(instance)) => {
            let cluster = instance.cluster_arn.clone();
            (Told::Instance(instance), cluster)
        }
        Ok(Told::Else) => return "foreign",
        Err(reason) => {
            let shown: String = body.chars().take(SHOWN_MAX_CHARS).collect();
            tracing::warn!(reason, shown, "a message of the events' queue makes no sense; it is dropped");
            return "poison";
        }
    };
    if !is_cluster(&cluster, &core.config.ecs_cluster) {
        return "foreign";
    }
    let is_news = match told {
        Told::Task(task) => {
            let facts = Facts::of_event(*task);
            let is_ours = facts.started_by.as_deref() == Some(core.api.started_by.as_str());
            let news = core.book.heard(&facts, Source::Event);
            core.describe.notify_one();
            if !is_ours {
                return "foreign";
            }
            news
        }
        Told::Instance(instance) => {
            let known = core.book.heard_of_host(HostFacts::of_event(*instance));
            if known {
                core.publish();
            } else {
                core.look_at_instances.notify_one();
            }
            known
        }
        Told::Else => false,
    };
    if is_news { "news" } else { "known" }
}

fn read(body: &str) -> Result<Told, String> {
    let envelope: Envelope = serde_json::from_str(body).map_err(|error| error.to_string())?;
    if envelope.source != "aws.ecs" {
        return Ok(Told::Else);
    }
    let detail = envelope.detail;
    match envelope.kind.as_str() {
        "ECS Task State Change" => serde_json::from_value(detail).map(|task| Told::Task(Box::new(task))),
        "ECS Container Instance State Change" => {
            serde_json::from_value(detail).map(|instance| Told::Instance(Box::new(instance)))
        }
        _ => return Ok(Told::Else),
    }
    .map_err(|error| error.to_string())
}

/// Whether an event's cluster is the configured one, which is a name or an ARN.
fn is_cluster(arn: &str, configured: &str) -> bool {
    arn == configured || arn.rsplit('/').next() == Some(configured)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TASK: &str = r#"{"version":"0","id":"1","detail-type":"ECS Task State Change","source":"aws.ecs",
        "account":"123456789012","time":"2026-11-22T17:00:00Z","region":"eu-west-1","resources":[],
        "detail":{"clusterArn":"arn:aws:ecs:eu-west-1:123456789012:cluster/demo","taskArn":"arn:task/demo/1",
            "containerInstanceArn":"arn:container-instance/demo/9","version":3,"lastStatus":"RUNNING",
            "desiredStatus":"RUNNING","startedBy":"force12/demo","group":"force12:web:0123456789abcdef",
            "createdAt":"2026-11-22T16:59:58.123Z","startedAt":"2026-11-22T17:00:00.001Z","cpu":"256","memory":"512",
            "attachments":[],"somethingNew":{"of":"tomorrow"},
            "containers":[{"name":"web","lastStatus":"RUNNING","containerArn":"arn:container/1"}]}}"#;

    #[test]
    fn a_task_is_read_from_its_event() {
        let Ok(Told::Task(task)) = read(TASK) else { panic!("it tells of a task") };
        let facts = Facts::of_event(*task);
        assert_eq!(&*facts.arn, "arn:task/demo/1");
        assert_eq!(facts.version, 3);
        assert_eq!(facts.phase(), planner::Phase::Running);
        assert_eq!(facts.identity.expect("by its group").service, "web");
        assert_eq!(facts.created_at_ms, 1_795_366_798_123);
        assert_eq!((facts.reserved.cpu_units, facts.reserved.memory_mib), (256, 512));
    }

    #[test]
    fn an_instance_is_read_from_its_event() {
        let body = r#"{"version":"0","detail-type":"ECS Container Instance State Change","source":"aws.ecs","detail":{
            "agentConnected":false,"clusterArn":"arn:cluster/demo","containerInstanceArn":"arn:container-instance/demo/9",
            "ec2InstanceId":"i-9","status":"DRAINING","version":7,"versionInfo":{"agentVersion":"1.98.0"},
            "registeredResources":[{"name":"CPU","type":"INTEGER","integerValue":2048},
                {"name":"MEMORY","type":"INTEGER","integerValue":3884},
                {"name":"PORTS","type":"STRINGSET","stringSetValue":["22","2376"]}],
            "remainingResources":[{"name":"CPU","type":"INTEGER","integerValue":1024}]}}"#;
        let Ok(Told::Instance(instance)) = read(body) else { panic!("it tells of an instance") };
        let facts = HostFacts::of_event(*instance);
        assert!(!facts.connected);
        assert_eq!(facts.status, "DRAINING");
        assert_eq!((facts.registered.cpu_units, facts.registered.memory_mib), (2_048, 3_884));
        assert_eq!(facts.remaining.cpu_units, 1_024);
        assert_eq!(facts.agent_version.as_deref(), Some("1.98.0"));
    }

    #[test]
    fn other_events_are_passed_over_and_nonsense_is_refused() {
        let other = TASK.replace("ECS Task State Change", "ECS Service Action");
        assert!(matches!(read(&other), Ok(Told::Else)));
        let other = TASK.replace("aws.ecs", "aws.ec2");
        assert!(matches!(read(&other), Ok(Told::Else)));
        for nonsense in
            ["", "{}", "[]", "null", "\u{0}", &TASK.replace("\"version\":3", "\"version\":\"three\"")]
        {
            assert!(read(nonsense).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn a_cluster_is_named_by_name_or_arn() {
        let arn = "arn:aws:ecs:eu-west-1:1:cluster/demo";
        assert!(is_cluster(arn, "demo") && is_cluster(arn, arn));
        assert!(!is_cluster(arn, "emo") && !is_cluster(arn, "arn:aws:ecs:eu-west-1:2:cluster/demo"));
    }
}
