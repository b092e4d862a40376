//! The outside observer: what the engine itself says happened, by its own event stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::engine::{CLUSTER_LABEL, Engine, STRANGER_LABEL};
use crate::timeline::{Event, Nanos, Timeline};

/// The time for an event of our own to come back.
const BARRIER_TIMEOUT: Duration = Duration::from_secs(10);

/// Follows the engine's events for one cluster from the moment it is made.
pub struct Observer {
    record: Arc<Mutex<Record>>,
    changed: watch::Receiver<u64>,
    follower: JoinHandle<()>,
}

#[derive(Default)]
struct Record {
    ours: Timeline,
    strangers: Timeline,
    tags: HashMap<String, u64>,
    lost: Option<String>,
}

impl Observer {
    /// Begins to follow `cluster`. No event from now on is missed: the engine replays those between this call
    /// and the moment the stream stands.
    pub fn follow(engine: &Engine, cluster: &str) -> Self {
        Self::follow_since(engine, cluster, now_ns())
    }

    /// The same from a moment in the past on. An engine remembers its last 256 events, and none from before its
    /// own start.
    pub fn follow_since(engine: &Engine, cluster: &str, since: Nanos) -> Self {
        let since = format!("{}.{:09}", since / 1_000_000_000, since % 1_000_000_000);
        let kinds = HashMap::from([("type", vec!["container", "image"])]);
        let options = EventsOptionsBuilder::default().since(&since).filters(&kinds).build();
        let docker = engine.docker().clone();
        let cluster = cluster.to_owned();
        let record = Arc::new(Mutex::new(Record::default()));
        let (changes, changed) = watch::channel(0);
        let kept = Arc::clone(&record);
        let follower = tokio::spawn(async move {
            let mut stream = std::pin::pin!(docker.events(Some(options)));
            loop {
                let next = stream.next().await;
                let end = !matches!(next, Some(Ok(_)));
                {
                    let mut record = kept.lock().unwrap_or_else(PoisonError::into_inner);
                    match next {
                        Some(Ok(message)) => record.add(message, &cluster),
                        Some(Err(error)) => record.lost = Some(error.to_string()),
                        None => record.lost = Some("the engine closed it".to_owned()),
                    }
                }
                changes.send_modify(|count| *count += 1);
                if end {
                    return;
                }
            }
        });
        Self { record, changed, follower }
    }

    /// What has been seen of the cluster's containers so far.
    pub fn timeline(&self) -> Result<Timeline> {
        self.read(|record| record.ours.clone())
    }

    /// What has been seen of the cluster's containers until now, or until the stream ended: for an engine that is
    /// killed on purpose.
    pub fn seen_to_the_end(&self) -> Vec<Event> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner).ours.events().to_vec()
    }

    /// Changes with whatever is seen.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.clone()
    }

    /// What has been seen of the run's strangers so far: whatever stands here beside their own creation and
    /// start, somebody did to them.
    pub fn strangers(&self) -> Result<Timeline> {
        self.read(|record| record.strangers.clone())
    }

    /// Returns when everything that happened before this call has been seen: `image` is tagged once more with
    /// its own name, and that event comes behind all others.
    pub async fn barrier(&self, engine: &Engine, image: &str) -> Result<()> {
        let seen = |record: &Record| record.tags.get(image).copied().unwrap_or(0);
        let before = self.read(seen)?;
        engine.retag(image).await?;
        self.until("its own tag event", BARRIER_TIMEOUT, |record| (seen(record) > before).then_some(())).await
    }

    /// Waits until `found` finds something in the cluster's record, at most `bound`; `what` names it.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        bound: Duration,
        found: impl Fn(&Timeline) -> Option<T>,
    ) -> Result<T> {
        self.until(what, bound, |record| found(&record.ours)).await
    }

    /// Waits until `found` finds something in the record of the run's strangers, at most `bound`; `what` names it.
    pub async fn wait_for_strangers<T>(
        &self,
        what: &str,
        bound: Duration,
        found: impl Fn(&Timeline) -> Option<T>,
    ) -> Result<T> {
        self.until(what, bound, |record| found(&record.strangers)).await
    }

    /// Waits until a stranger has seen `action`, at most `bound`; `what` names it.
    pub async fn wait_for_stranger(
        &self,
        what: &str,
        bound: Duration,
        action: &str,
        id: &str,
    ) -> Result<Event> {
        self.wait_for_strangers(what, bound, |strangers| {
            strangers.events().iter().find(|event| event.id == id && event.action == action).cloned()
        })
        .await
    }

    async fn until<T>(&self, what: &str, bound: Duration, found: impl Fn(&Record) -> Option<T>) -> Result<T> {
        let mut changed = self.changed.clone();
        let wait = async {
            loop {
                changed.borrow_and_update();
                if let Some(found) = self.read(&found)? {
                    return Ok(found);
                }
                changed.changed().await.context("the observer has ended")?;
            }
        };
        match tokio::time::timeout(bound, wait).await {
            Ok(found) => found,
            Err(_) => bail!("{what}: not seen in the engine's events within {} ms", bound.as_millis()),
        }
    }

    fn read<T>(&self, reader: impl FnOnce(&Record) -> T) -> Result<T> {
        let record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(reason) = &record.lost {
            bail!("the engine's event stream ended, so the record is not complete: {reason}");
        }
        Ok(reader(&record))
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Record {
    fn add(&mut self, message: EventMessage, cluster: &str) {
        let actor = message.actor.unwrap_or_default();
        let attributes = actor.attributes.unwrap_or_default();
        let attribute = |key: &str| attributes.get(key).map(String::as_str).unwrap_or_default();
        let action = message.action.unwrap_or_default();
        if message.typ == Some(EventMessageTypeEnum::IMAGE) {
            if action == "tag" {
                *self.tags.entry(attribute("name").to_owned()).or_default() += 1;
            }
            return;
        }
        let stranger = attribute(STRANGER_LABEL) == cluster;
        // By name too, so that one of ours that lacks its labels is not overlooked.
        let ours = attribute(CLUSTER_LABEL) == cluster
            || attribute("name").starts_with(&format!("force12.{cluster}."));
        let event = Event {
            at: message.time_nano.unwrap_or_default(),
            action,
            id: actor.id.unwrap_or_default(),
            name: attribute("name").to_owned(),
            service: attribute("force12.service").to_owned(),
            instance: attribute("force12.instance").to_owned(),
            code: ["signal", "exitCode"].iter().find_map(|key| attribute(key).parse().ok()),
        };
        if stranger {
            self.strangers.push(event);
        } else if ours {
            self.ours.push(event);
        }
    }
}

/// The machine's clock, as in the engine's events.
pub fn now_ns() -> Nanos {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Nanos::try_from(since.as_nanos()).unwrap_or(Nanos::MAX)
}
