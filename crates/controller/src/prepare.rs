//! Preparing: one task per engine and spec does ahead of need what a start would wait for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driver::{ContainerSpec, Driver};
use planner::{NotDone, Plan, ServiceId, ServiceKind, State, Success};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use crate::backoff::Schedule;
use crate::decisions::WokenBy;
use crate::handle::{Shared, lock};
use crate::measure::engine_call;

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

/// Services whose starts are held back by their first preparation alone, with the engines that have not answered it.
///
/// The planner knows of one kind of wait before a start, and says of it that something has failed. Here nothing has.
#[derive(Debug, Default)]
pub(crate) struct Preparing(pub(crate) BTreeMap<ServiceId, Vec<String>>);

impl Preparing {
    /// Why nothing is started yet, as a sentence without its subject.
    pub(crate) fn reason(engines: &[String]) -> String {
        format!("its image is being checked on {}", engines.join(", "))
    }

    /// As [`NotDone::code`].
    pub(crate) fn code(&self, not_done: &NotDone) -> &'static str {
        match not_done {
            NotDone::BackingOff { service, .. } if self.0.contains_key(service) => "in_progress",
            _ => not_done.code(),
        }
    }

    /// As [`NotDone::words`].
    pub(crate) fn words(&self, not_done: &NotDone, state: &State, now: planner::Millis) -> String {
        if let NotDone::BackingOff { service, count, .. } = not_done
            && let Some(engines) = self.0.get(service)
        {
            return format!(
                "{}: {count} more wanted; {}",
                state.service(*service).name,
                Self::reason(engines)
            );
        }
        not_done.words(state, now)
    }

    /// As [`Success::blocked_by`].
    pub(crate) fn blocked_by(&self, state: &State, plan: &Plan, success: &Success) -> Vec<&'static str> {
        let mut codes = success.blocked_by.clone();
        let wanted = |service: ServiceId| state.service(service).kind == ServiceKind::Demand;
        let mut held_back = plan.not_done.iter().filter_map(|not_done| match *not_done {
            NotDone::BackingOff { service, .. } if wanted(service) => Some(service),
            _ => None,
        });
        if codes.contains(&"backing_off") && held_back.all(|service| self.0.contains_key(&service)) {
            codes.retain(|&code| code != "backing_off" && code != "in_progress");
            codes.push("in_progress");
            codes.sort_unstable();
        }
        codes
    }
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
        let asked_at = Instant::now();
        let answer = tokio::time::timeout(PREPARE_LIMIT, driver.prepare(&spec)).await;
        let outcome = match &answer {
            Ok(Ok(())) => "done",
            Ok(Err(error)) => error.code(),
            Err(_) => "timeout",
        };
        engine_call(driver.name(), "prepare", outcome, asked_at.elapsed());
        let reason = match answer {
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
