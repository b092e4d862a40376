//! Preparing: one task per engine and spec does ahead of need what a start would wait for.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use driver::{ContainerSpec, Driver};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use crate::backoff::Schedule;
use crate::decisions::WokenBy;
use crate::handle::{Shared, lock};

/// One attempt may take this long: an image of some gigabytes over a slow line.
pub(crate) const PREPARE_LIMIT: Duration = Duration::from_mins(10);

/// How far the preparation of a spec on an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Preparation {
    /// Asked for, and not answered; until the moment given at most.
    UnderWay { until: Instant },
    /// Done.
    Ready,
    /// Failed, to be tried again.
    Failed { reason: String, retry_at: Instant },
}

/// Prepares one spec on one engine, until that has gone well.
pub(crate) async fn prepare(
    driver: Arc<dyn Driver>,
    spec: Arc<ContainerSpec>,
    post: Arc<Mutex<Preparation>>,
    shared: Arc<Shared>,
    mut random: ChaCha8Rng,
) {
    let mut failures = 0;
    loop {
        let reason = match tokio::time::timeout(PREPARE_LIMIT, driver.prepare(&spec)).await {
            Ok(Ok(())) => {
                *lock(&post) = Preparation::Ready;
                shared.wake(WokenBy::ENGINE);
                return;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => {
                format!(
                    "{} has not prepared {} within {} s",
                    driver.name(),
                    spec.image,
                    PREPARE_LIMIT.as_secs()
                )
            }
        };
        if failures == 0 {
            tracing::warn!(engine = driver.name(), image = spec.image, %reason, "a service cannot be prepared");
        }
        failures += 1;
        let retry_at = Instant::now() + Schedule::PREPARE.delay(failures, &mut random);
        *lock(&post) = Preparation::Failed { reason, retry_at };
        shared.wake(WokenBy::ENGINE);
        tokio::time::sleep_until(retry_at).await;
    }
}
