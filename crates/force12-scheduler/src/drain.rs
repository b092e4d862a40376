//! `force12-scheduler drain`: stops and removes every container of a cluster, and does nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api_types::snapshot::Snapshot;
use driver::{Driver, DriverError, ObservedContainer, StopOptions};
use futures_util::{StreamExt as _, future, stream};
use planner::Phase;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use crate::config::Settings;
use crate::demand;

/// Of containers whose service is no longer configured: the default grace.
const GRACE_MS_DEFAULT: u64 = 10_000;
/// How many containers of one engine are stopped side by side; the driver bounds it further.
const PARALLEL_MAX: usize = 64;
/// From one try to the next, while an engine cannot be reached.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// How long a running scheduler may take to say that it is one.
const ASK_TIMEOUT: Duration = Duration::from_secs(2);
/// The largest snapshot that is read: one with a hundred thousand containers. Whoever says more is no scheduler.
const SNAPSHOT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Whether a scheduler of this cluster answers where this configuration listens.
pub async fn is_running(settings: &Settings, client: &reqwest::Client) -> bool {
    let mut address = settings.listen;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    let ask = async {
        let answer = client.get(format!("http://{address}/v1/snapshot")).send().await.ok()?;
        let answer = answer.error_for_status().ok()?;
        let body = demand::body(answer, SNAPSHOT_BYTES_MAX, ASK_TIMEOUT).await.ok()?;
        serde_json::from_slice::<Snapshot>(&body).ok()
    };
    matches!(timeout(ASK_TIMEOUT, ask).await, Ok(Some(snapshot)) if snapshot.cluster == settings.controller.cluster)
}

/// Empties every engine, each by itself, so that one that hangs delays no other. `tell` is given a line for each
/// container that goes. Returns how many went, and of each engine that is not empty after `limit`, why.
pub async fn drain(
    settings: &Settings,
    drivers: Vec<Arc<dyn Driver>>,
    limit: Duration,
    tell: impl Fn(String) + Copy,
) -> (usize, Vec<String>) {
    let graces: BTreeMap<&str, u64> = settings
        .controller
        .services
        .iter()
        .map(|service| (service.service.name.as_str(), service.spec.stop_grace_ms))
        .collect();
    let deadline = Instant::now() + limit;
    let engines = drivers.iter().map(|driver| empty(&**driver, &graces, deadline, tell));
    let mut removed = 0;
    let mut left = Vec::new();
    for (count, outcome) in future::join_all(engines).await {
        removed += count;
        left.extend(outcome.err());
    }
    (removed, left)
}

/// Empties one engine: how many containers went, and why not all did.
async fn empty(
    driver: &dyn Driver,
    graces: &BTreeMap<&str, u64>,
    deadline: Instant,
    tell: impl Fn(String) + Copy,
) -> (usize, Result<(), String>) {
    let mut removed = 0;
    let mut last_error = None;
    let work = async {
        loop {
            let containers = match driver.observe().await {
                Ok(observation) => observation.containers,
                Err(error) => {
                    let words = error.to_string();
                    if last_error.as_ref() != Some(&words) {
                        tell(format!("waiting for {}: {words}", driver.name()));
                    }
                    last_error = Some(words);
                    sleep(RETRY_INTERVAL).await;
                    continue;
                }
            };
            if containers.is_empty() {
                return;
            }
            let mut failed = false;
            let mut ends = stream::iter(&containers)
                .map(|container| async move { (container, end(driver, container, graces).await) })
                .buffer_unordered(PARALLEL_MAX);
            while let Some((container, outcome)) = ends.next().await {
                match outcome {
                    Ok(()) => {
                        removed += 1;
                        tell(format!("stopped and removed {}", in_words(container)));
                    }
                    Err(error) => {
                        failed = true;
                        tell(format!("{} is not gone yet: {error}", in_words(container)));
                        last_error = Some(error.to_string());
                    }
                }
            }
            if failed {
                sleep(RETRY_INTERVAL).await;
            }
        }
    };
    let ended = timeout_at(deadline, work).await;
    let outcome = ended.map_err(|_| last_error.unwrap_or_else(|| format!("{} is slow", driver.name())));
    (removed, outcome)
}

async fn end(
    driver: &dyn Driver,
    container: &ObservedContainer,
    graces: &BTreeMap<&str, u64>,
) -> Result<(), DriverError> {
    if !matches!(container.phase, Phase::Created | Phase::Exited) {
        let grace_ms = graces.get(container.service.as_str()).copied().unwrap_or(GRACE_MS_DEFAULT);
        driver.stop(&container.id, StopOptions { grace_ms }).await?;
    }
    driver.remove(&container.id).await?;
    Ok(())
}

/// `priority1/0 on instance-1 (3f2a9c0d1e2b)`.
fn in_words(container: &ObservedContainer) -> String {
    let ordinal = container.ordinal.map_or_else(|| "?".to_owned(), |ordinal| ordinal.to_string());
    let id: String = container.id.as_str().chars().take(12).collect();
    format!("{}/{ordinal} on {} ({id})", container.service, container.instance)
}
