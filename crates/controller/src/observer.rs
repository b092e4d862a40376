//! Observing: one task per engine keeps the latest of what that engine says is there.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use driver::{Driver, Observation};
use futures_util::StreamExt as _;
use rand_chacha::ChaCha8Rng;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::backoff::Schedule;
use crate::decisions::WokenBy;
use crate::handle::{Shared, lock};
use crate::measure::engine_call;

/// Between the beginnings of two observations of one engine. Events come in bursts (a start is several of them),
/// and a listing costs the engine more than an event; this keeps it to a fraction of the engine's time.
const SPACING: Duration = Duration::from_millis(4);

/// An engine is observed at least this often, whatever its events say: an event may be lost without a gap.
const PERIOD_MOST: Duration = Duration::from_secs(10);

/// An engine is observed this often within `lost_after_ms`, so that one that hangs without a word is lost at most a sixth
/// of that later, and still has all of `lost_after_ms` to answer.
const OBSERVATIONS_IN_LOST_AFTER: u32 = 6;

/// One observation may take this many times `lost_after_ms`: an engine that answers late is found again by the late
/// answer, and one that hung, not long after it is back.
const OBSERVE_LIMIT_IN_LOST_AFTER: u32 = 2;

/// What an engine said, and when it was asked.
#[derive(Debug)]
pub(crate) struct Observed {
    /// Drawn as the question was asked: whatever drew a lower number was over by then, and shows in the answer.
    pub(crate) began: u64,
    pub(crate) began_at: Instant,
    pub(crate) observation: Observation,
}

/// An engine that does not answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Silence {
    pub(crate) reason: String,
    pub(crate) since: Instant,
}

/// The latest of one engine.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) observed: Option<Arc<Observed>>,
    /// Set once it has not answered for `lost_after_ms`.
    pub(crate) lost: Option<Silence>,
}

/// Where the task leaves the latest, and how it is asked for more.
pub(crate) struct Post {
    report: Mutex<Report>,
    poke: Notify,
}

impl Post {
    /// With what is known already.
    pub(crate) fn holding(report: Report) -> Self {
        Self { report: Mutex::new(report), poke: Notify::new() }
    }

    /// The latest.
    pub(crate) fn report(&self) -> Report {
        lock(&self.report).clone()
    }

    /// Asks for an observation that begins after this call.
    pub(crate) fn poke(&self) {
        self.poke.notify_one();
    }
}

/// Observes one engine for as long as it is polled. It is lost when it has not answered for `lost_after`, whose
/// changes count at once.
pub(crate) async fn observe(
    driver: Arc<dyn Driver>,
    post: Arc<Post>,
    shared: Arc<Shared>,
    mut lost_after: watch::Receiver<Duration>,
    mut random: ChaCha8Rng,
) {
    let events = async {
        let mut events = driver.events();
        while events.next().await.is_some() {
            post.poke();
        }
        // The stream ends only with its driver; the period goes on.
        std::future::pending::<()>().await;
    };
    let observing = async {
        let mut unanswered_since: Option<Instant> = None;
        loop {
            let limit = *lost_after.borrow_and_update();
            tokio::select! {
                biased;
                never = look(&*driver, &post, &shared, limit, &mut unanswered_since, &mut random) => match never {},
                changed = lost_after.changed() => if changed.is_err() {
                    // The controller is gone, and with it this task's reason.
                    return;
                },
            }
        }
    };
    tokio::join!(events, observing);
}

/// Observes again and again. `unanswered_since` is since when it has not been answered, if so.
async fn look(
    driver: &dyn Driver,
    post: &Post,
    shared: &Shared,
    lost_after: Duration,
    unanswered_since: &mut Option<Instant>,
    random: &mut ChaCha8Rng,
) -> Infallible {
    let limit = lost_after * OBSERVE_LIMIT_IN_LOST_AFTER;
    let period = PERIOD_MOST.min(lost_after / OBSERVATIONS_IN_LOST_AFTER).max(SPACING);
    let mut failures = 0;
    loop {
        let began_at = Instant::now();
        let silent_since = *unanswered_since.get_or_insert(began_at);
        let began = shared.next_order();
        let name = driver.name();
        let mut attempt = std::pin::pin!(tokio::time::timeout(limit, driver.observe()));
        let lost_at = silent_since + lost_after;
        let answer = tokio::select! {
            biased;
            answer = &mut attempt => answer,
            () = tokio::time::sleep_until(lost_at) => {
                let reason = format!("{name} has not answered for {} ms", lost_after.as_millis());
                lose(post, shared, reason, silent_since);
                attempt.await
            }
        };
        let outcome = match &answer {
            Ok(Ok(_)) => "done",
            Ok(Err(error)) => error.code(),
            Err(_) => "timeout",
        };
        engine_call(name, "observe", outcome, began_at.elapsed());
        let reason = match answer {
            Ok(Ok(observation)) => {
                *unanswered_since = None;
                failures = 0;
                let observed = Observed { began, began_at, observation };
                *lock(&post.report) = Report { observed: Some(Arc::new(observed)), lost: None };
                shared.wake(WokenBy::ENGINE);
                tokio::time::sleep_until(began_at + SPACING).await;
                // Nothing is missed: a poke while nobody waits is kept.
                let _ = tokio::time::timeout(period, post.poke.notified()).await;
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("{name} has not answered observe for {} ms", limit.as_millis()),
        };
        if failures == 0 {
            tracing::warn!(engine = name, %reason, "the engine could not be observed");
        }
        failures += 1;
        let retry_at = Instant::now() + Schedule::OBSERVE.delay(failures, random);
        if Instant::now() < lost_at && lost_at < retry_at {
            tokio::time::sleep_until(lost_at).await;
        }
        if Instant::now() >= lost_at {
            lose(post, shared, reason, silent_since);
        }
        tokio::time::sleep_until(retry_at).await;
    }
}

fn lose(post: &Post, shared: &Shared, reason: String, since: Instant) {
    let mut report = lock(&post.report);
    let lost = Some(Silence { reason, since });
    if report.lost != lost {
        report.lost = lost;
        drop(report);
        shared.wake(WokenBy::ENGINE);
    }
}
