//! The demand feed: one task per source keeps asking it, and keeps what it last said.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;
use tracing::Span;

use crate::backoff::Schedule;
use crate::decisions::WokenBy;
use crate::guarded::caught;
use crate::handle::{Shared, lock};
use crate::settings::{DemandSource, SourceSettings};

/// One question to a demand source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchRequest {
    /// The tag of the document that is known already; sent as `If-None-Match`.
    pub etag: Option<String>,
    /// For how long the source is asked to hold its answer while the document is that one; sent as
    /// `Prefer: wait=SECONDS`, rounded down. `None` asks for an answer at once.
    pub wait: Option<Duration>,
}

/// A complete answer of a demand source.
#[derive(Clone, Debug, PartialEq)]
pub enum DemandAnswer {
    /// A document (200).
    Changed {
        /// Its tag, if it has one.
        etag: Option<String>,
        /// Whether the answer carried `Preference-Applied: wait`.
        wait_applied: bool,
        /// By key: a count of containers, unknown (`Ok(None)`), or what is wrong with the value.
        values: BTreeMap<String, Result<Option<u32>, String>>,
        /// More about some of the keys.
        details: BTreeMap<String, DemandDetail>,
        /// A span of the trace of whatever changed the demand; [`Span::none`] if that is not known.
        cause: Span,
    },
    /// The document is still the one that was asked about (304).
    NotModified {
        /// Whether the answer carried `Preference-Applied: wait`.
        wait_applied: bool,
    },
}

/// What a source says about one key beside its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DemandDetail {
    /// Why it is unknown or stale.
    pub reason: Option<String>,
    /// How old the value is, in milliseconds.
    pub age_ms: Option<u64>,
}

/// Why a source gave no complete answer, in words: lower case, naming the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FeedError(pub String);

/// The way to one demand source.
///
/// The transport bounds each call, in time (some seconds beyond the wait that is asked for) and in the size of the
/// answer, and says in its error where it was asked. The feed never makes two calls to one source at once.
#[async_trait]
pub trait DemandTransport: Send + Sync + 'static {
    /// Asks once.
    async fn fetch(&self, request: FetchRequest) -> Result<DemandAnswer, FeedError>;
}

/// Between the beginnings of two questions to one source, whatever it says: a source that claims to hold its answers
/// and does not must not be asked in a circle.
const SPACING: Duration = Duration::from_millis(10);

/// What is known of one source.
#[derive(Clone, Debug, Default)]
pub(crate) struct SourceReport {
    /// The last document.
    pub(crate) values: BTreeMap<String, Result<Option<u32>, String>>,
    pub(crate) details: BTreeMap<String, DemandDetail>,
    /// When the last complete answer arrived, a document or "not modified".
    pub(crate) answered_at: Option<Instant>,
    /// When the document that holds arrived.
    pub(crate) changed_at: Option<Instant>,
    /// Why there is no complete answer, since the last one.
    pub(crate) error: Option<String>,
    /// Of the document that holds, until the loop has taken it.
    pub(crate) cause: Option<Span>,
}

impl SourceReport {
    /// What the source last said about a key: `Err` gives the reason why it is unknown.
    pub(crate) fn value(&self, source: &str, key: &str) -> Result<u32, String> {
        match self.values.get(key) {
            Some(Ok(Some(containers))) => Ok(*containers),
            Some(Err(fault)) => Err(format!("{source} gives no usable value for {key:?}: {fault}")),
            Some(Ok(None)) => Err(match self.details.get(key).and_then(|detail| detail.reason.as_deref()) {
                Some(reason) => format!("{source} does not know {key:?}: {reason}"),
                None => format!("{source} does not know {key:?}"),
            }),
            None if self.answered_at.is_some() => Err(format!("{source} has no key {key:?}")),
            None => Err(match &self.error {
                Some(error) => format!("{source} has not answered yet: {error}"),
                None => format!("{source} has not answered yet"),
            }),
        }
    }
}

/// Follows one source for as long as it is polled.
pub(crate) async fn follow(
    source: DemandSource,
    post: Arc<Mutex<SourceReport>>,
    shared: Arc<Shared>,
    mut random: ChaCha8Rng,
) {
    let SourceSettings { name, poll_ms, wait_ms } = source.settings;
    let wait = (wait_ms > 0).then(|| Duration::from_millis(wait_ms));
    let poll = Duration::from_millis(poll_ms).max(SPACING);
    let mut etag: Option<String> = None;
    let mut failures = 0;
    loop {
        let asked_at = Instant::now();
        // Only a source that is told what is known can hold its answer for what is not.
        let request = FetchRequest { etag: etag.clone(), wait: wait.filter(|_| etag.is_some()) };
        let conditional = etag.is_some();
        let waits = request.wait.is_some();
        let answer = match caught(source.transport.fetch(request)).await {
            Ok(Ok(DemandAnswer::NotModified { .. })) if !conditional => {
                Err("it answered 304 to a question without If-None-Match".to_owned())
            }
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(error.to_string()),
            Err(panic) => Err(format!("what asks it panicked: {panic}")),
        };
        let outcome = match &answer {
            Ok(DemandAnswer::Changed { .. }) => "changed",
            Ok(DemandAnswer::NotModified { .. }) => "not_modified",
            Err(_) => "error",
        };
        metrics::counter!("force12_demand_polls_total", "source" => name.clone(), "outcome" => outcome)
            .increment(1);
        let now = Instant::now();
        let news;
        let wait_applied;
        {
            let mut report = lock(&post);
            match answer {
                Ok(DemandAnswer::Changed { etag: tag, wait_applied: applied, values, details, cause }) => {
                    news = report.error.is_some()
                        || report.answered_at.is_none()
                        || report.values != values
                        || report.details != details;
                    if report.values != values {
                        report.changed_at = Some(now);
                        report.cause = Some(cause);
                    }
                    report.values = values;
                    report.details = details;
                    report.answered_at = Some(now);
                    report.error = None;
                    etag = tag;
                    wait_applied = Some(applied);
                }
                Ok(DemandAnswer::NotModified { wait_applied: applied }) => {
                    // Nothing new, unless it was missed: then freshness may have changed.
                    news = report.error.is_some();
                    report.answered_at = Some(now);
                    report.error = None;
                    wait_applied = Some(applied);
                }
                Err(error) => {
                    news = report.error.as_ref() != Some(&error);
                    if report.error.is_none() {
                        tracing::warn!(source = name, %error, "the demand source gave no answer");
                    }
                    report.error = Some(error);
                    wait_applied = None;
                }
            }
        }
        if news {
            shared.wake(WokenBy::DEMAND);
        }
        let next = if let Some(applied) = wait_applied {
            failures = 0;
            if applied && waits { asked_at + SPACING } else { asked_at + poll }
        } else {
            failures += 1;
            (now + Schedule::SOURCE.delay(failures, &mut random)).max(asked_at + SPACING)
        };
        tokio::time::sleep_until(next).await;
    }
}
