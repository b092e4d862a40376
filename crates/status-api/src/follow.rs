//! Keeps a connection to the scheduler's stream, and says so when there is none.

use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api_types::problem::{ProblemDocument, STANDING_BY};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _, TryStreamExt as _};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use reqwest::{StatusCode, Url};
use service_kit::client::Clients;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::address::Addresses;
use crate::board::NotShown;
use crate::hub::Line;
use crate::sse::{Parser, Received, TooLarge};

/// The most bytes of one event: 10,000 instances take some 3 MiB, 1,000 containers 300 KiB.
pub const EVENT_MAX_BYTES: usize = 8 * 1024 * 1024;
/// The first wait before connecting again: a scheduler is back within some 100 ms of its restart.
const RETRY_FIRST: Duration = Duration::from_millis(100);
/// The longest wait before connecting again.
const RETRY_LAST: Duration = Duration::from_secs(2);
/// Before a scheduler that stands by is asked again: it may act at any moment, and answers at once.
const RETRY_STANDBY: Duration = Duration::from_millis(250);
/// The most bytes of an answer that says why there is no stream.
const PROBLEM_MAX_BYTES: usize = 16 * 1024;

/// How long the scheduler may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From asking for the stream to the first event.
    pub first_event: Duration,
    /// The longest silence on an open stream; heartbeats count.
    pub silence: Duration,
}

/// Why a stream is given up.
#[derive(Debug, thiserror::Error)]
pub enum FollowError {
    /// Nobody answers.
    #[error("the scheduler cannot be connected to: {}", root(.0))]
    Connect(#[source] reqwest::Error),
    /// The answer is not a stream.
    #[error("the scheduler answered {0}, and not with a stream of events; is scheduler_url right?")]
    NotAStream(StatusCode),
    /// The connection broke.
    #[error("the stream broke: {}", root(.0))]
    Broken(#[source] reqwest::Error),
    /// The scheduler ended the stream.
    #[error("the stream ended")]
    Ended,
    /// Nothing came, not even a heartbeat.
    #[error("nothing was heard for {} ms", .0.as_millis())]
    Silent(Duration),
    /// An event is larger than is read.
    #[error(transparent)]
    TooLarge(#[from] TooLarge),
    /// An event is not a snapshot.
    #[error("an event is not a snapshot: {0}")]
    NotASnapshot(#[from] serde_json::Error),
    /// A snapshot is older than what is known, or another scheduler's.
    #[error(transparent)]
    NotShown(#[from] NotShown),
    /// It stands by while another scheduler of the cluster acts; in its own words.
    #[error("the scheduler says: {0}")]
    StandsBy(String),
}

impl FollowError {
    /// For the metric; one word each.
    fn kind(&self) -> &'static str {
        match self {
            Self::Connect(_) => "connect",
            Self::NotAStream(_) => "not_a_stream",
            Self::Broken(_) => "broken",
            Self::Ended => "ended",
            Self::Silent(_) => "silent",
            Self::TooLarge(_) => "too_large",
            Self::NotASnapshot(_) => "not_a_snapshot",
            Self::NotShown(NotShown::Outdated(_)) => "outdated",
            Self::NotShown(NotShown::Another) => "another",
            Self::StandsBy(_) => "stands_by",
        }
    }
}

/// The first cause of an error, which reqwest leaves out of its own text: `Connection refused (os error 111)`.
pub(crate) fn root(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

/// Opens streams: over HTTP, or scripted in tests.
pub trait Dial {
    /// The bytes of a stream.
    type Bytes: Stream<Item = Result<Bytes, FollowError>> + Send + Unpin;

    /// Opens one.
    fn dial(&self) -> impl Future<Output = Result<Opened<Self::Bytes>, FollowError>> + Send;

    /// What the next one is to be opened with.
    fn addresses(&self) -> &Addresses;
}

/// An answer that has begun.
pub struct Opened<B> {
    /// What comes of it.
    pub bytes: B,
    /// Who gives it, where that is known.
    pub from: Option<IpAddr>,
}

/// Opens streams over HTTP.
#[derive(Clone, Debug)]
pub struct Http {
    clients: Arc<Clients>,
    url: Url,
    addresses: Addresses,
}

impl Http {
    /// Asks for `url`, by a client of these addresses.
    pub fn new(clients: Arc<Clients>, url: Url, addresses: Addresses) -> Self {
        Self { clients, url, addresses }
    }

    async fn ask(&self) -> Result<reqwest::Response, FollowError> {
        let events = HeaderValue::from_static("text/event-stream");
        let response = self
            .clients
            .current()
            .await
            .get(self.url.clone())
            .header(ACCEPT, &events)
            .send()
            .await
            .map_err(|error| FollowError::Connect(error.without_url()))?;
        let is_events = response
            .headers()
            .get(CONTENT_TYPE)
            .is_some_and(|value| value.as_bytes().starts_with(events.as_bytes()));
        if !response.status().is_success() || !is_events {
            return Err(refusal(response).await);
        }
        Ok(response)
    }
}

impl Dial for Http {
    type Bytes = std::pin::Pin<Box<dyn Stream<Item = Result<Bytes, FollowError>> + Send>>;

    async fn dial(&self) -> Result<Opened<Self::Bytes>, FollowError> {
        let response = self.ask().await?;
        let from = response.remote_addr().map(|address| address.ip());
        let bytes = response.bytes_stream().map_err(|error| FollowError::Broken(error.without_url()));
        Ok(Opened { bytes: bytes.boxed(), from })
    }

    fn addresses(&self) -> &Addresses {
        &self.addresses
    }
}

/// Follows the stream until `shutdown`, and hands each snapshot to `line`. Changed `limits` count from the next event on.
/// `jitter` gives numbers from 0 to 1, which spread the waits.
pub async fn follow(
    dial: impl Dial,
    line: Line<'_>,
    limits: watch::Receiver<Limits>,
    mut jitter: impl FnMut() -> f64,
    shutdown: CancellationToken,
) {
    let forever = async {
        let mut failures = 0;
        loop {
            let mut heard = false;
            let error = stream_once(&dial, line, &limits, &mut heard).await;
            if heard {
                failures = 0;
            }
            if let FollowError::StandsBy(_) = &error {
                // As it should be, and no failure: whatever failed before is over.
                failures = 0;
                tracing::debug!("{error}");
                line.lose(error.to_string());
                tokio::time::sleep(RETRY_STANDBY).await;
                continue;
            }
            metrics::counter!("status_stream_errors_total", "kind" => error.kind()).increment(1);
            let silent = matches!(error, FollowError::Silent(_));
            if heard && silent {
                // A stream that has gone quiet proves nothing yet: asked again, a scheduler that is alive answers
                // with its newest snapshot at once. If it does not, the next round says so.
                tracing::debug!(%error, "asking the scheduler again");
                continue;
            }
            // Silence was a wait already.
            let wait = if silent { Duration::ZERO } else { retry_wait(failures, jitter()) };
            failures += 1;
            if failures == 1 {
                tracing::warn!(%error, "the scheduler is not heard");
            } else {
                tracing::debug!(%error, failures, "the scheduler is still not heard");
            }
            line.lose(error.to_string());
            tokio::time::sleep(wait).await;
        }
    };
    tokio::select! {
        () = shutdown.cancelled() => {}
        () = forever => {}
    }
}

/// Why an answer is not a stream.
async fn refusal(mut response: reqwest::Response) -> FollowError {
    let status = response.status();
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await
        && body.len() + chunk.len() <= PROBLEM_MAX_BYTES
    {
        body.extend_from_slice(&chunk);
    }
    match serde_json::from_slice::<ProblemDocument>(&body) {
        Ok(problem) if problem.has_code(STANDING_BY) => {
            FollowError::StandsBy(problem.detail.unwrap_or(problem.title))
        }
        _ => FollowError::NotAStream(status),
    }
}

/// Follows one stream to its end. `heard` becomes true with its first snapshot, and then whoever sent it is stayed with;
/// where none comes, it is the next address's turn: an answer that has begun is no snapshot.
async fn stream_once(
    dial: &impl Dial,
    line: Line<'_>,
    limits: &watch::Receiver<Limits>,
    heard: &mut bool,
) -> FollowError {
    let opening = async {
        let Opened { bytes, from } = dial.dial().await?;
        let mut events = Events { bytes, parser: Parser::new(EVENT_MAX_BYTES) };
        while !events.next(line).await? {}
        Ok((events, from))
    };
    let Limits { first_event, .. } = *limits.borrow();
    let opened = timeout(first_event, opening).await.unwrap_or(Err(FollowError::Silent(first_event)));
    let (mut events, from) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            dial.addresses().turn();
            return error;
        }
    };
    *heard = true;
    if let Some(from) = from {
        dial.addresses().stay(from);
    }
    loop {
        let Limits { silence, .. } = *limits.borrow();
        match timeout(silence, events.next(line)).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error,
            Err(_) => return FollowError::Silent(silence),
        }
    }
}

struct Events<B> {
    bytes: B,
    parser: Parser,
}

impl<B: Stream<Item = Result<Bytes, FollowError>> + Unpin> Events<B> {
    /// Waits until something has arrived whole; bytes that complete nothing are no sign of life. True if there was
    /// a snapshot.
    async fn next(&mut self, line: Line<'_>) -> Result<bool, FollowError> {
        loop {
            let chunk = self.bytes.next().await.ok_or(FollowError::Ended)??;
            let received = self.parser.push(&chunk)?;
            let mut snapshots = 0;
            for event in &received {
                if let Received::Event(data) = event {
                    line.accept(serde_json::from_slice(data)?)?;
                    snapshots += 1;
                }
            }
            if !received.is_empty() {
                return Ok(snapshots > 0);
            }
        }
    }
}

/// Doubles up to [`RETRY_LAST`]; half of it is spread by `jitter`.
fn retry_wait(failures: u32, jitter: f64) -> Duration {
    let full = RETRY_LAST.min(RETRY_FIRST.saturating_mul(1 << failures.min(10)));
    full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use api_types::Timestamp;
    use api_types::snapshot::Snapshot;
    use futures_util::stream::{self, BoxStream};
    use service_kit::health::Readiness;

    use super::*;
    use crate::clock::Clock;
    use crate::hub::Hub;
    use crate::testing::snapshot;

    /// What a stream does next.
    enum Step {
        Sends(Vec<u8>),
        Waits(u64),
        Ends,
    }
    use Step::{Ends, Sends, Waits};

    /// Each connection plays the next script and then stays open, silent; after the last, nobody answers.
    struct Scripted(Mutex<VecDeque<Vec<Step>>>, Addresses);

    impl Dial for Scripted {
        type Bytes = BoxStream<'static, Result<Bytes, FollowError>>;

        async fn dial(&self) -> Result<Opened<Self::Bytes>, FollowError> {
            let script = self.0.lock().unwrap().pop_front().ok_or(FollowError::Ended)?;
            let bytes = stream::unfold(VecDeque::from(script), async |mut script| {
                loop {
                    match script.pop_front() {
                        Some(Sends(bytes)) => return Some((Ok(bytes.into()), script)),
                        Some(Waits(ms)) => tokio::time::sleep(Duration::from_millis(ms)).await,
                        Some(Ends) => return None,
                        None => std::future::pending().await,
                    }
                }
            });
            Ok(Opened { bytes: bytes.boxed(), from: None })
        }

        fn addresses(&self) -> &Addresses {
            &self.1
        }
    }

    const LIMITS: Limits = Limits { first_event: Duration::from_secs(2), silence: Duration::from_secs(5) };

    fn sends(snapshot: &Snapshot) -> Step {
        Sends(format!("data: {}\n\n", serde_json::to_string(snapshot).unwrap()).into_bytes())
    }

    fn heartbeat() -> Step {
        Sends(b": alive\n\n".to_vec())
    }

    /// Each document that was published, with the milliseconds since the start.
    async fn published(scripts: Vec<Vec<Step>>, for_ms: u64) -> Vec<(u64, Snapshot)> {
        let clock = Clock::starting_at(Timestamp::from_epoch_ms(0));
        let hub = Hub::new(clock, Readiness::not_ready("test"));
        let mut newest = hub.newest();
        let mut seen = Vec::new();
        let watch = async {
            while newest.changed().await.is_ok() {
                let published = newest.borrow_and_update().clone().unwrap();
                seen.push((clock.now().epoch_ms(), published.snapshot.clone()));
            }
        };
        let follow = follow(
            Scripted(Mutex::new(scripts.into()), Addresses::default()),
            hub.line(0),
            watch::channel(LIMITS).1,
            || 1.0,
            CancellationToken::new(),
        );
        let _ = timeout(Duration::from_millis(for_ms), async { tokio::join!(follow, watch) }).await;
        seen
    }

    /// Time, epoch, sequence, live; a change of the reason alone is left out.
    fn brief(seen: &[(u64, Snapshot)]) -> Vec<(u64, &str, u64, bool)> {
        let mut brief: Vec<_> = seen
            .iter()
            .map(|(at, snapshot)| {
                let live = snapshot.source.as_ref().unwrap().live;
                (*at, snapshot.epoch.as_str(), snapshot.sequence, live)
            })
            .collect();
        brief.dedup_by_key(|&mut (_, epoch, sequence, live)| (epoch, sequence, live));
        brief
    }

    fn reason(seen: &[(u64, Snapshot)], at: usize) -> &str {
        seen[at].1.source.as_ref().unwrap().reason.as_deref().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_restart_is_a_loss_and_a_new_epoch() {
        let first = vec![sends(&snapshot("a", 1)), Waits(1_000), sends(&snapshot("a", 2)), Waits(500), Ends];
        let second = vec![Waits(300), sends(&snapshot("b", 1)), Waits(1_000)];
        let seen = published(vec![first, second], 3_000).await;
        assert_eq!(
            brief(&seen),
            [(0, "a", 1, true), (1_000, "a", 2, true), (1_500, "a", 2, false), (1_900, "b", 1, true)]
        );
        assert_eq!((seen[2].1.success, reason(&seen, 2)), (None, "the stream ended"));
        assert_eq!(seen[3].1.success, Some(true));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_cluster_is_not_a_lost_one() {
        let quiet = || vec![sends(&snapshot("a", 1))];
        let beating = vec![sends(&snapshot("a", 1)), Waits(4_900), heartbeat(), Waits(4_900), heartbeat()];
        let seen = published(vec![beating, quiet(), quiet()], 24_000).await;
        assert_eq!(brief(&seen), [(0, "a", 1, true)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hung_scheduler_is_found_out() {
        let hung = vec![sends(&snapshot("a", 1)), Waits(100), heartbeat()];
        let seen = published(vec![hung, vec![], vec![]], 8_000).await;
        assert_eq!(brief(&seen), [(0, "a", 1, true), (7_100, "a", 1, false)]);
        assert_eq!(reason(&seen, 1), "nothing was heard for 2000 ms");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_drips_is_silence() {
        let mut drips = vec![sends(&snapshot("a", 1))];
        for _ in 0..20 {
            drips.extend([Waits(500), Sends(b"data: x".to_vec())]);
        }
        let seen = published(vec![drips, vec![]], 8_000).await;
        assert_eq!(brief(&seen), [(0, "a", 1, true), (7_000, "a", 1, false)]);
    }

    #[tokio::test(start_paused = true)]
    async fn garbage_and_oversize_are_refused_and_survived() {
        let garbage = vec![sends(&snapshot("a", 1)), Waits(10), Sends(b"data: {\"epoch\": 7}\n\n".to_vec())];
        let oversize = vec![sends(&snapshot("a", 2)), Waits(10), Sends(vec![b'x'; EVENT_MAX_BYTES + 1])];
        let seen = published(vec![garbage, oversize, vec![sends(&snapshot("a", 3))]], 1_000).await;
        assert_eq!(
            brief(&seen),
            [
                (0, "a", 1, true),
                (10, "a", 1, false),
                (110, "a", 2, true),
                (120, "a", 2, false),
                (220, "a", 3, true)
            ]
        );
        assert!(reason(&seen, 1).starts_with("an event is not a snapshot: "), "{}", reason(&seen, 1));
        assert_eq!(reason(&seen, 3), "an event has more than 8388608 bytes");
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_state_is_never_shown_as_new() {
        let newer = vec![sends(&snapshot("a", 9)), Waits(10), Ends];
        let older = vec![sends(&snapshot("a", 8))];
        let seen = published(vec![newer, older], 1_000).await;
        assert_eq!(brief(&seen), [(0, "a", 9, true), (10, "a", 9, false)]);
        assert!(
            reason(&seen, 2).starts_with("the scheduler served an old state (sequence 8 of "),
            "{seen:?}"
        );
    }

    #[test]
    fn waits_double_are_bounded_and_are_spread() {
        let ms = |failures, jitter| retry_wait(failures, jitter).as_millis();
        assert_eq!((ms(0, 1.0), ms(0, 0.0), ms(1, 1.0), ms(99, 1.0)), (100, 50, 200, 2_000));
    }
}
