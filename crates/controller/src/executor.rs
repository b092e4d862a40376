//! The executor: carries out one action. It has no choices; what to do was decided.

use std::sync::Arc;
use std::time::Duration;

use driver::{ContainerId, Driver, DriverError, Outcome, Start, Started, StopOptions};
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::Span;

use crate::decisions::WokenBy;
use crate::handle::Shared;
use crate::measure::engine_call;

/// A call may take this long beyond the grace of the stops that it does or waits for, its wait for a turn in the driver
/// included. Drivers bound their calls more tightly from that turn on; this is for one that does not, and for a queue
/// before an engine that answers nothing. What is given up in a queue was never asked: its outcome counts as unknown all
/// the same, and the next observation settles it.
const CALL_LIMIT: Duration = Duration::from_mins(1);

/// An operation: one action from its issue until it has ended and an observation has shown it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct OperationId(pub(crate) u64);

/// What is to be done to one container.
pub(crate) enum Work {
    /// Starts it when all of `after` have left their room.
    Start {
        start: Start,
        after: After,
    },
    Thaw {
        id: ContainerId,
        after: After,
    },
    Stop {
        id: ContainerId,
        options: StopOptions,
    },
    /// Stops it when all of `after` have left their room.
    Evict {
        id: ContainerId,
        options: StopOptions,
        after: After,
    },
    Freeze {
        id: ContainerId,
    },
    Remove {
        id: ContainerId,
    },
}

/// What a start or thaw waits for.
pub(crate) struct After {
    /// Those that have not left their room.
    pub(crate) left: watch::Receiver<Vec<ContainerId>>,
    /// Whether the engine can wait for the last of them. It takes one that is suspended for one that has left; and
    /// one that is suspended takes room once more for the moment in which it ends.
    pub(crate) last_by_engine: bool,
}

impl Work {
    /// The call of the driver, for metrics.
    pub(crate) const fn call(&self) -> &'static str {
        match self {
            Self::Start { .. } => "start",
            Self::Thaw { .. } => "thaw",
            Self::Stop { .. } | Self::Evict { .. } => "stop",
            Self::Freeze { .. } => "freeze",
            Self::Remove { .. } => "remove",
        }
    }
}

/// How an action ended well.
#[derive(Debug)]
pub(crate) enum Done {
    Started(Started),
    Other(Outcome),
}

/// An action that has ended, one way or another.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) operation: OperationId,
    /// Drawn when it had ended: an observation that began with a higher number shows its effect.
    pub(crate) order: u64,
    pub(crate) result: Result<Done, DriverError>,
    /// Of the action.
    pub(crate) span: Span,
}

/// Reports an action's end exactly once: also when its task dies, as an outcome that is not known.
struct Reporter {
    shared: Arc<Shared>,
    operation: OperationId,
    engine: String,
    call: &'static str,
    result: Option<Result<Done, DriverError>>,
    span: Span,
}

impl Drop for Reporter {
    fn drop(&mut self) {
        let result = self.result.take().unwrap_or_else(|| {
            let message = "the task that carried it out has died".to_owned();
            Err(DriverError::OutcomeUnknown { engine: self.engine.clone(), call: self.call, message })
        });
        let order = self.shared.next_order();
        self.shared.ended(Ended { operation: self.operation, order, result, span: self.span.clone() });
        self.shared.wake(WokenBy::ACTION);
    }
}

/// Carries out one action and reports its end. `grace` is the longest that a stop which it does or waits for may
/// take by its own settings.
pub(crate) async fn execute(
    driver: Arc<dyn Driver>,
    operation: OperationId,
    work: Work,
    grace: Duration,
    shared: Arc<Shared>,
) {
    let call = work.call();
    let engine = driver.name().to_owned();
    let span = Span::current();
    let mut reporter =
        Reporter { shared, operation, engine: engine.clone(), call, result: None, span: span.clone() };
    let issued_at = Instant::now();
    let limit = CALL_LIMIT + grace;
    let result = match tokio::time::timeout(limit, perform(&*driver, work, limit)).await {
        Ok(result) => result,
        Err(_) => Err(DriverError::OutcomeUnknown {
            engine: engine.clone(),
            call,
            message: format!("no answer within {} ms", limit.as_millis()),
        }),
    };
    let outcome = match &result {
        Ok(Done::Started(Started { already: true, .. }) | Done::Other(Outcome::Already)) => "already",
        Ok(_) => "done",
        Err(error) => error.code(),
    };
    engine_call(&engine, call, outcome, issued_at.elapsed());
    span.record("force12.outcome", outcome);
    if let Err(error) = &result {
        span.record("otel.status_code", "ERROR");
        span.record("force12.error", tracing::field::display(error));
    }
    reporter.result = Some(result);
}

async fn perform(driver: &dyn Driver, work: Work, limit: Duration) -> Result<Done, DriverError> {
    match work {
        Work::Start { start, after } => {
            let last = left_to_engine(driver, after, limit).await?;
            driver.start(&start, last.as_ref()).await.map(Done::Started)
        }
        Work::Thaw { id, after } => {
            let last = left_to_engine(driver, after, limit).await?;
            driver.thaw(&id, last.as_ref()).await.map(Done::Other)
        }
        Work::Stop { id, options } => driver.stop(&id, options).await.map(Done::Other),
        Work::Evict { id, options, after } => {
            left_to_engine(driver, after, limit).await?;
            driver.stop(&id, options).await.map(Done::Other)
        }
        Work::Freeze { id } => driver.freeze(&id).await.map(Done::Other),
        Work::Remove { id } => driver.remove(&id).await.map(Done::Other),
    }
}

/// Waits until no victim has not left its room but one that the engine can wait for, and hands that one back: the engine
/// does so on its own exit event, while it prepares the successor.
async fn left_to_engine(
    driver: &dyn Driver,
    After { left: mut after, last_by_engine }: After,
    limit: Duration,
) -> Result<Option<ContainerId>, DriverError> {
    // Under the limit of the whole, so that it ends as what it is: nothing was asked of the engine yet.
    let patience = limit / 2;
    // Where nobody tells any more who has left, none is taken to have.
    let waited = matches!(
        tokio::time::timeout(patience, after.wait_for(|left| left.len() <= usize::from(last_by_engine)))
            .await,
        Ok(Ok(_))
    );
    let left = after.borrow();
    if waited {
        return Ok(left.first().cloned());
    }
    Err(DriverError::Timeout {
        engine: driver.name().to_owned(),
        container: left.first().map(ToString::to_string).unwrap_or_default(),
        waited_ms: u64::try_from(patience.as_millis()).unwrap_or(u64::MAX),
    })
}
