//! Preparing: one task per engine and spec does ahead of need what a start would wait for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driver::{ContainerSpec, Driver, DriverError, PullPolicy, PullProgress};
use planner::{NotDone, Plan, ServiceId, ServiceKind, State, Success};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use crate::backoff::Schedule;
use crate::decisions::WokenBy;
use crate::handle::{Shared, lock};
use crate::measure::engine_call;

/// One attempt may take this long: an image of some tens of gigabytes over a slow line, and the pulls before it. One
/// that makes no progress is given up long before, by its driver; to end one that does would be to begin it again.
pub(crate) const PREPARE_LIMIT: Duration = Duration::from_hours(2);

/// Starts wait for a preparation for as long as it takes. The planner asks until when: until a moment that is put off
/// before it comes, and seldom, because each time is news to it.
const HELD: Duration = Duration::from_hours(24);

/// How often a pull is asked how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// A pull that has brought nothing for so long is not waited for where the engine has an older image, which starts are
/// made of from then on. A registry that is well answers within a second; the demand of now is worth more than an image
/// of now.
const MAKE_DO_AFTER: Duration = Duration::from_secs(10);

/// How far the preparation of a spec on an engine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Preparation {
    /// Asked for, and not answered. Starts are held back until the moment given at most.
    UnderWay { until: Instant, stage: Stage },
    /// Done, or not needed: the engine has an older image, and goes on being asked for the newer one.
    Ready,
    /// Failed, and tried again and again. Starts are held back until the moment given at most.
    Failed {
        until: Instant,
        /// [`DriverError::code`], or `timeout`.
        code: &'static str,
        reason: String,
    },
}

/// What is being waited for before a spec is prepared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The engine is asked whether its image is there and fit.
    Check,
    /// Others are pulled before its image; for how long, in words.
    Queue(String),
    /// Its image is being pulled; how far that is, in words.
    Pull(String),
}

/// Services whose starts are held back by their preparation alone, and why.
///
/// The planner knows of one kind of wait before a start, and says of it that something has failed, but not what.
#[derive(Debug, Default)]
pub(crate) struct Preparing(pub(crate) BTreeMap<ServiceId, Wait>);

/// Why a service's starts are held back on some engines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wait {
    /// For decisions: `in_progress`, or the code of what has failed.
    pub(crate) code: &'static str,
    /// A sentence without its subject.
    pub(crate) reason: String,
}

impl Wait {
    /// For engines that have not answered a first preparation.
    pub(crate) fn first(engines: &[(&str, Stage)]) -> Self {
        let mut reasons = Vec::new();
        let mut checking = Vec::new();
        for (engine, stage) in engines {
            match stage {
                Stage::Check => checking.push(*engine),
                Stage::Queue(since) => {
                    reasons
                        .push(format!("its image waits on {engine} until others have been pulled: {since}"));
                }
                Stage::Pull(progress) => {
                    reasons.push(format!("its image is being pulled on {engine}: {progress}"));
                }
            }
        }
        if !checking.is_empty() {
            reasons.push(format!("its image is being checked on {}", checking.join(", ")));
        }
        Self { code: "in_progress", reason: reasons.join("; ") }
    }

    /// For what has failed on one engine.
    pub(crate) fn failed(code: &'static str, reason: &str) -> Self {
        Self { code, reason: format!("its starts are held back: {reason}") }
    }
}

impl Preparing {
    /// Whether the service waits for nothing but its first preparation.
    fn is_first(&self, service: ServiceId) -> bool {
        self.0.get(&service).is_some_and(|wait| wait.code == "in_progress")
    }

    /// As [`NotDone::code`].
    pub(crate) fn code(&self, not_done: &NotDone) -> &'static str {
        match not_done {
            NotDone::BackingOff { service, .. } | NotDone::RolloutFailing { service, .. } => {
                self.0.get(service).map_or_else(|| not_done.code(), |wait| wait.code)
            }
            _ => not_done.code(),
        }
    }

    /// As [`NotDone::words`].
    pub(crate) fn words(&self, not_done: &NotDone, state: &State, now: planner::Millis) -> String {
        if let NotDone::BackingOff { service, count, .. } = not_done
            && let Some(wait) = self.0.get(service)
        {
            return format!("{}: {count} more wanted; {}", state.service(*service).name, wait.reason);
        }
        if let NotDone::RolloutFailing { service, count, .. } = not_done
            && let Some(wait) = self.0.get(service)
        {
            return format!(
                "{}: {count} of an older generation wait to be replaced; {}",
                state.service(*service).name,
                wait.reason
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
        if codes.contains(&"backing_off") && held_back.all(|service| self.is_first(service)) {
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
    let (engine, image) = (driver.name(), spec.image.as_str());
    let mut failures = 0;
    // Told once for each code: the words may differ each time, by a port or a moment.
    let mut told = None;
    loop {
        let asked_at = Instant::now();
        let answer = attempt(&*driver, &spec, &post, &shared).await;
        let outcome = match &answer {
            Ok(()) => "done",
            Err((code, _)) => code,
        };
        engine_call(engine, "prepare", outcome, asked_at.elapsed());
        let Err(not_pulled) = answer else {
            if told.is_some() {
                tracing::info!(engine, image, "a service can be prepared after all");
            }
            *lock(&post) = Preparation::Ready;
            shared.wake(WokenBy::ENGINE);
            return;
        };
        let now = match older_image(&*driver, &spec).await {
            Some(Ok(())) => {
                let (code, reason) = not_pulled;
                if told.replace(code) != Some(code) {
                    tracing::warn!(
                        engine,
                        image,
                        code,
                        %reason,
                        "an image cannot be pulled; the one that is there is used, and pulling tried again"
                    );
                }
                Preparation::Ready
            }
            // An engine that is away says nothing of what it has.
            Some(Err(error))
                if !matches!(error, DriverError::Rejected { .. }) && *lock(&post) == Preparation::Ready =>
            {
                Preparation::Ready
            }
            unfit => {
                let unfit = unfit.and_then(Result::err).filter(|error| error.code() != "image_missing");
                let (code, reason) = unfit.map_or(not_pulled, |error| (error.code(), error.to_string()));
                if told.replace(code) != Some(code) {
                    tracing::warn!(engine, image, code, %reason, "a service cannot be prepared; trying again");
                }
                let until = lock(&post).held_until();
                Preparation::Failed { until, code, reason }
            }
        };
        failures += 1;
        *lock(&post) = now;
        shared.wake(WokenBy::ENGINE);
        tokio::time::sleep(Schedule::PREPARE.delay(failures, &mut random)).await;
    }
}

/// One attempt. If it fails, a code and a sentence.
async fn attempt(
    driver: &dyn Driver,
    spec: &ContainerSpec,
    post: &Mutex<Preparation>,
    shared: &Shared,
) -> Result<(), (&'static str, String)> {
    let answer = async {
        let Ok(answer) = tokio::time::timeout(PREPARE_LIMIT, driver.prepare(spec)).await else {
            let limit_s = PREPARE_LIMIT.as_secs();
            return Err((
                "timeout",
                format!("{} has not prepared {} within {limit_s} s", driver.name(), spec.image),
            ));
        };
        answer.map_err(|error| (error.code(), error.to_string()))
    };
    tokio::select! {
        answer = answer => answer,
        never = accompany(driver, spec, post, shared) => match never {},
    }
}

/// Shows how far a pull is, and lets starts go on without it where it takes its time and there is an older image.
async fn accompany(
    driver: &dyn Driver,
    spec: &ContainerSpec,
    post: &Mutex<Preparation>,
    shared: &Shared,
) -> Infallible {
    let asked_at = Instant::now();
    let mut make_do_at = asked_at + MAKE_DO_AFTER;
    loop {
        tokio::time::sleep(PROGRESS_EVERY).await;
        if *lock(post) == Preparation::Ready {
            continue;
        }
        let progress = driver.pull_progress(&spec.image);
        let idle = progress.map_or_else(|| asked_at.elapsed(), |progress| progress.idle);
        if idle >= MAKE_DO_AFTER && Instant::now() >= make_do_at {
            make_do_at = Instant::now() + MAKE_DO_AFTER;
            if let Some(Ok(())) = older_image(driver, spec).await {
                let (engine, image, idle_s) = (driver.name(), spec.image.as_str(), idle.as_secs());
                tracing::warn!(
                    engine,
                    image,
                    idle_s,
                    "the pull of an image makes no progress; the one that is there is used meanwhile"
                );
                *lock(post) = Preparation::Ready;
                shared.wake(WokenBy::ENGINE);
                continue;
            }
        }
        let Some(progress) = progress else { continue };
        let mut post = lock(post);
        // What has failed before goes on to be said until something comes.
        if matches!(*post, Preparation::Failed { .. }) && progress.done_bytes == 0 {
            continue;
        }
        let until = post.held_until();
        *post = Preparation::UnderWay { until, stage: stage(progress, asked_at.elapsed()) };
        drop(post);
        shared.wake(WokenBy::ENGINE);
    }
}

/// Whether the engine has an image that will do where a newer one is only preferred; `None` where it is not that.
async fn older_image(driver: &dyn Driver, spec: &ContainerSpec) -> Option<Result<(), DriverError>> {
    if spec.pull != PullPolicy::Always {
        return None;
    }
    Some(driver.prepare(&ContainerSpec { pull: PullPolicy::Never, ..spec.clone() }).await)
}

/// In words such as `40 of 120 MiB, 12 s`.
fn stage(progress: PullProgress, elapsed: Duration) -> Stage {
    const MIB: u64 = 1024 * 1024;
    let seconds = elapsed.as_secs();
    match progress {
        PullProgress { queued: true, .. } => Stage::Queue(format!("{seconds} s")),
        PullProgress { total_bytes: 0, .. } => Stage::Pull(format!("{seconds} s")),
        PullProgress { done_bytes, total_bytes, .. } => {
            let (done, total) = (done_bytes / MIB, total_bytes.div_ceil(MIB));
            Stage::Pull(format!("{done} of {total} MiB, {seconds} s"))
        }
    }
}

impl Preparation {
    /// Not asked for before.
    pub(crate) fn begun() -> Self {
        Self::UnderWay { until: Instant::now() + HELD, stage: Stage::Check }
    }

    /// Until when starts are held back, as it is to be told from now on.
    fn held_until(&self) -> Instant {
        let now = Instant::now();
        match self {
            Self::UnderWay { until, .. } | Self::Failed { until, .. } if *until > now + HELD / 2 => *until,
            _ => now + HELD,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pull_is_told_in_whole_mebibytes() {
        let words = |done_bytes, total_bytes| {
            let progress = PullProgress { done_bytes, total_bytes, ..PullProgress::default() };
            match stage(progress, Duration::from_millis(12_900)) {
                Stage::Pull(words) => words,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(words(0, 0), "12 s");
        assert_eq!(words(40 << 20, (120 << 20) - 5), "40 of 120 MiB, 12 s");
        assert_eq!(words((1 << 20) - 1, 1 << 20), "0 of 1 MiB, 12 s");
    }

    #[test]
    fn what_is_waited_for_is_told_apart() {
        let queued = PullProgress { queued: true, ..PullProgress::default() };
        let wait = Wait::first(&[
            ("one", Stage::Check),
            ("two", stage(PullProgress::default(), Duration::from_secs(3))),
            ("three", Stage::Check),
            ("four", stage(queued, Duration::from_secs(5))),
        ]);
        assert_eq!(
            wait.reason,
            "its image is being pulled on two: 3 s; its image waits on four until others have been pulled: 5 s; its image \
             is being checked on one, three"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_hold_is_put_off_seldom_and_in_time() {
        let mut held = Preparation::begun();
        let mut told = 0;
        for _ in 0..10_000 {
            let before = held.held_until();
            tokio::time::advance(Duration::from_secs(30)).await;
            let until = held.held_until();
            assert!(until > Instant::now(), "it is never over");
            told += u32::from(until != before);
            held = Preparation::Failed { until, code: "image_missing", reason: String::new() };
        }
        assert!((1..=8).contains(&told), "{told} times in 83 hours");
    }
}
