//! A queue of SQS, as far as a reader of events needs one, in its JSON form
//! (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-making-api-requests-json.html>).
//!
//! A standard queue: a message that is received is hidden for its visibility timeout, and there again after it unless
//! it was deleted meanwhile; messages may come twice, and out of order
//! (<https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_ReceiveMessage.html>).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::ecs::FakeEcs;
use crate::wire::{ApiError, Reply};

/// The most messages that are kept; the oldest go. SQS allows 120,000 in flight.
const MOST_MESSAGES: usize = 120_000;
/// The most messages of one call, and the longest wait of one (same page).
const MOST_RECEIVED: usize = 10;
const LONGEST_WAIT_S: u64 = 20;
/// The default (same page).
const VISIBILITY_S: u64 = 30;

/// The messages of the one queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// By when they can be received, and a number of their own.
    messages: BTreeMap<(Instant, u64), Message>,
    numbers: u64,
    /// Ticks with each new message.
    pub(crate) sent: watch::Sender<()>,
}

#[derive(Debug)]
struct Message {
    body: String,
    receives: u64,
}

impl Queue {
    /// A message that can be received after `delay`.
    pub(crate) fn send(&mut self, body: String, delay: Duration) {
        self.numbers += 1;
        self.messages.insert((Instant::now() + delay, self.numbers), Message { body, receives: 0 });
        if self.messages.len() > MOST_MESSAGES {
            self.messages.pop_first();
        }
        self.sent.send_replace(());
    }

    /// Hides and returns the next message.
    fn receive(&mut self, hidden: Duration) -> Option<Value> {
        let now = Instant::now();
        let (visible_at, number) = *self.messages.first_key_value()?.0;
        if visible_at > now {
            return None;
        }
        let mut message = self.messages.remove(&(visible_at, number))?;
        message.receives += 1;
        let received = json!({
            "MessageId": format!("00000000-0000-4000-8000-{number:012}"),
            // A handle of an earlier receipt deletes the message, too.
            "ReceiptHandle": format!("{number}.{}", message.receives),
            "Body": message.body,
            "Attributes": {"ApproximateReceiveCount": message.receives.to_string()},
        });
        self.messages.insert((now + hidden, number), message);
        Some(received)
    }

    fn next_visible_at(&self) -> Option<Instant> {
        self.messages.first_key_value().map(|((visible_at, _), _)| *visible_at)
    }

    fn delete(&mut self, receipt: &str) -> Result<(), ApiError> {
        let number = receipt.split('.').next().and_then(|number| number.parse::<u64>().ok());
        let number = number.ok_or_else(|| ApiError {
            status: 400,
            code: "com.amazonaws.sqs#ReceiptHandleIsInvalid",
            message: "The input receipt handle is invalid.".to_owned(),
        })?;
        self.messages.retain(|(_, other), _| *other != number);
        Ok(())
    }
}

/// What requests about the queue say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct QueueRequest {
    queue_url: String,
    queue_name: String,
    max_number_of_messages: Option<usize>,
    wait_time_seconds: Option<u64>,
    visibility_timeout: Option<u64>,
    receipt_handle: String,
    entries: Vec<Entry>,
}

/// One of a batch.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Entry {
    id: String,
    receipt_handle: String,
}

impl QueueRequest {
    /// Refuses a queue that is not there.
    fn check(&self, ecs: &FakeEcs) -> Result<(), ApiError> {
        let name = self.queue_url.rsplit('/').next().unwrap_or_default();
        let world = ecs.world();
        if world.config.events.as_ref().is_some_and(|events| events.queue == name) {
            return Ok(());
        }
        Err(ApiError {
            status: 400,
            code: "com.amazonaws.sqs#QueueDoesNotExist",
            message: "The specified queue does not exist.".to_owned(),
        })
    }
}

/// Up to ten messages; waits for the first of them as long as it is told to.
pub(crate) async fn receive(ecs: &FakeEcs, request: QueueRequest) -> Reply {
    request.check(ecs)?;
    let most = request.max_number_of_messages.unwrap_or(1);
    let wait_s = request.wait_time_seconds.unwrap_or(0);
    if !(1..=MOST_RECEIVED).contains(&most) || wait_s > LONGEST_WAIT_S {
        return Err(ApiError::invalid("MaxNumberOfMessages is 1 to 10, WaitTimeSeconds 0 to 20."));
    }
    let hidden = Duration::from_secs(request.visibility_timeout.unwrap_or(VISIBILITY_S));
    let given_up = Instant::now() + Duration::from_secs(wait_s);
    let mut sent = ecs.world().queue.sent.subscribe();
    loop {
        let (messages, next) = {
            let mut world = ecs.world();
            sent.mark_unchanged();
            let messages: Vec<Value> =
                std::iter::from_fn(|| world.queue.receive(hidden)).take(most).collect();
            (messages, world.queue.next_visible_at())
        };
        if !messages.is_empty() || Instant::now() >= given_up {
            return Ok(json!({"Messages": messages}));
        }
        // Over early when a message is sent: it may be the next.
        let _ = timeout_at(next.map_or(given_up, |next| next.min(given_up)), sent.changed()).await;
    }
}

/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_DeleteMessage.html>
pub(crate) fn delete(ecs: &FakeEcs, request: &QueueRequest) -> Reply {
    request.check(ecs)?;
    ecs.world().queue.delete(&request.receipt_handle)?;
    Ok(json!({}))
}

/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_DeleteMessageBatch.html>
pub(crate) fn delete_batch(ecs: &FakeEcs, request: &QueueRequest) -> Reply {
    request.check(ecs)?;
    if request.entries.is_empty() || request.entries.len() > MOST_RECEIVED {
        return Err(ApiError::invalid("A batch has 1 to 10 entries."));
    }
    let (mut successful, mut failed): (Vec<Value>, Vec<Value>) = Default::default();
    for entry in &request.entries {
        match ecs.world().queue.delete(&entry.receipt_handle) {
            Ok(()) => successful.push(json!({"Id": entry.id})),
            Err(error) => failed.push(json!({
                "Id": entry.id, "SenderFault": true, "Code": error.code, "Message": error.message,
            })),
        }
    }
    Ok(json!({"Successful": successful, "Failed": failed}))
}

/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueAttributes.html>
pub(crate) fn attributes(ecs: &FakeEcs, request: &QueueRequest) -> Reply {
    request.check(ecs)?;
    let world = ecs.world();
    let now = Instant::now();
    let visible = world.queue.messages.keys().filter(|(visible_at, _)| *visible_at <= now).count();
    let name = request.queue_url.rsplit('/').next().unwrap_or_default();
    let (region, account) = (&world.config.region, &world.config.account);
    Ok(json!({"Attributes": {
        "QueueArn": format!("arn:aws:sqs:{region}:{account}:{name}"),
        "ApproximateNumberOfMessages": visible.to_string(),
        "VisibilityTimeout": VISIBILITY_S.to_string(),
    }}))
}

/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_GetQueueUrl.html>
pub(crate) fn url(ecs: &FakeEcs, request: &QueueRequest) -> Reply {
    let named = QueueRequest { queue_url: request.queue_name.clone(), ..QueueRequest::default() };
    named.check(ecs)?;
    let world = ecs.world();
    let (region, account) = (&world.config.region, &world.config.account);
    Ok(json!({
        "QueueUrl": format!("https://sqs.{region}.amazonaws.com/{account}/{}", request.queue_name)
    }))
}
