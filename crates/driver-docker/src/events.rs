//! The engine's events, followed through its restarts.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::EventMessage;
use bollard::query_parameters::EventsOptionsBuilder;
use driver::{ContainerId, Event};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, info, warn};

use crate::connection::Connection;
use crate::error::{Errors, chain};
use crate::labels::CLUSTER;
use crate::lagging::Lagging;

/// What can change an observation. The rest (exec, attach, resize, every health check) would only wake us.
const ACTIONS: [&str; 7] = ["create", "start", "pause", "unpause", "die", "destroy", "rename"];
/// Those that the engine tells of before its list shows them ([`Lagging`]). It is the other way round with the rest,
/// and looking at a container that is just being started would take as long as the start.
const TOLD_EARLY: [&str; 3] = ["pause", "unpause", "die"];
/// Milliseconds before the first attempt to connect again; doubles with each failure.
const BACKOFF_MIN_MS: u64 = 50;
/// At most; an engine that is back should be seen to be soon, and an attempt costs little.
const BACKOFF_MAX_MS: u64 = 2_000;
/// An engine that is hung, or cut off, keeps its connections: what tells is that it does not answer.
const PING_EVERY_MS: u64 = 5_000;
/// For one answer, to a ping or to the request for events.
const ANSWER_MS: u64 = 2_000;
/// The engine's clock is read to the second, and its list of past events goes by it: this far back covers what
/// happened between that reading and the subscription.
const LOOK_BACK: Duration = Duration::from_secs(2);

/// Says when an observation of `cluster` is due, for ever.
pub(crate) fn follow(
    connection: Connection,
    errors: Errors,
    lagging: Lagging,
    cluster: &str,
) -> BoxStream<'static, Event> {
    let follower = Follower {
        connection,
        errors,
        lagging,
        label: format!("{CLUSTER}={cluster}"),
        failures: 0,
        live: None,
    };
    stream::unfold(follower, |mut follower| async move { Some((follower.next().await, follower)) }).boxed()
}

struct Follower {
    connection: Connection,
    errors: Errors,
    lagging: Lagging,
    label: String,
    /// In a row.
    failures: u32,
    live: Option<Live>,
}

/// An established stream.
struct Live {
    since: Instant,
    events: BoxStream<'static, Result<EventMessage, bollard::errors::Error>>,
    /// Ends when the engine no longer answers, and says how.
    probe: BoxFuture<'static, String>,
}

impl Follower {
    async fn next(&mut self) -> Event {
        loop {
            let Some(live) = &mut self.live else {
                if self.failures > 0 {
                    sleep(backoff(self.failures)).await;
                }
                match connect(&self.connection, &self.label).await {
                    Ok(live) => {
                        if self.failures > 0 {
                            info!(engine = self.errors.engine, "events are followed again");
                        }
                        self.live = Some(live);
                        return Event::Gap;
                    }
                    Err(reason) => self.failed(&reason),
                }
                continue;
            };
            let lost = tokio::select! {
                event = live.events.next() => match event {
                    Some(Ok(event)) => {
                        self.heard(event);
                        return Event::Changed;
                    }
                    Some(Err(error)) => chain(&error),
                    None => "the engine ended it".to_owned(),
                },
                reason = &mut live.probe => reason,
            };
            // An engine that accepts the request and breaks off at once is not to be asked without a pause.
            if live.since.elapsed() >= Duration::from_millis(PING_EVERY_MS) {
                self.failures = 0;
            }
            self.live = None;
            self.failed(&lost);
        }
    }

    fn heard(&self, event: EventMessage) {
        let early = event.action.is_some_and(|action| TOLD_EARLY.contains(&action.as_str()));
        if let Some(id) = event.actor.and_then(|actor| actor.id).filter(|_| early) {
            self.lagging.note(ContainerId::new(id));
        }
    }

    /// Told once an outage.
    fn failed(&mut self, reason: &str) {
        if self.failures == 0 {
            warn!(
                engine = self.errors.engine,
                reason, "the engine's events cannot be followed; trying again"
            );
        } else {
            debug!(engine = self.errors.engine, reason, failures = self.failures, "no events yet");
        }
        self.failures = self.failures.saturating_add(1);
    }
}

async fn connect(connection: &Connection, label: &str) -> Result<Live, String> {
    let engine_now = ping(connection).await?;
    let filters =
        HashMap::from([("type", vec!["container"]), ("label", vec![label]), ("event", ACTIONS.to_vec())]);
    let mut options = EventsOptionsBuilder::new().filters(&filters);
    if let Some(since) =
        engine_now.and_then(|now| now.checked_sub(LOOK_BACK)?.duration_since(UNIX_EPOCH).ok())
    {
        options = options.since(&since.as_secs().to_string());
    }
    let (docker, accepted) = connection.docker_for_stream();
    let mut events = docker.events(Some(options.build())).boxed();
    let established = async {
        tokio::select! {
            // Whatever has happened by now, the observation that follows the gap shows it.
            Ok(()) = accepted => Ok(()),
            event = events.next() => match event {
                Some(Ok(_)) => Ok(()),
                Some(Err(error)) => Err(chain(&error)),
                None => Err("the engine ended the stream".to_owned()),
            },
        }
    };
    match timeout(Duration::from_millis(ANSWER_MS), established).await {
        Ok(established) => established?,
        Err(_) => return Err(format!("no answer within {ANSWER_MS} ms")),
    }
    let probed = connection.clone();
    let probe = async move {
        loop {
            sleep(Duration::from_millis(PING_EVERY_MS)).await;
            if let Err(reason) = ping(&probed).await {
                return reason;
            }
        }
    };
    Ok(Live { since: Instant::now(), events, probe: probe.boxed() })
}

async fn ping(connection: &Connection) -> Result<Option<SystemTime>, String> {
    match timeout(Duration::from_millis(ANSWER_MS), connection.ping()).await {
        Ok(answer) => answer.map_err(|error| chain(&error)),
        Err(_) => Err(format!("the engine does not answer a ping within {ANSWER_MS} ms")),
    }
}

/// Half of the wait is left to chance, so that many who lost one engine at once do not return at once.
fn backoff(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(BACKOFF_MAX_MS.ilog2());
    let longest_ms = (BACKOFF_MIN_MS << doublings).min(BACKOFF_MAX_MS);
    Duration::from_millis(rand::random_range(longest_ms / 2..=longest_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_backoff_doubles_within_its_bounds() {
        for (failures, longest_ms) in [(1, 50), (2, 100), (3, 200), (6, 1_600), (7, 2_000), (u32::MAX, 2_000)]
        {
            for _ in 0..100 {
                let wait = backoff(failures);
                assert!(wait <= Duration::from_millis(longest_ms), "{failures}: {wait:?}");
                assert!(wait >= Duration::from_millis(longest_ms / 2), "{failures}: {wait:?}");
            }
        }
    }
}
