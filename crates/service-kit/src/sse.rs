//! Server-sent events: one sequence of documents to many readers.
//!
//! The producer serialises each document once and puts it into a `watch`; every reader gets the newest at its own
//! pace, at most one per [`StreamLimits::interval_min`]. A reader that is slow skips to the newest: nothing queues
//! up for it. One that takes next to nothing is cut off by [`crate::http::Limits::write_timeout`].

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::problem::Problem;

/// Tells a browser to come back 1 s after a stream has broken.
const OPENING: &[u8] = b"retry: 1000\n\n";
/// A comment: says that the stream is alive.
const HEARTBEAT: &[u8] = b": alive\n\n";

/// The id of the last event that a reader has seen, sent when it comes back.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// One event, formatted once for all readers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    id: String,
    event: Bytes,
}

impl Message {
    /// An event with this `id` and this text, which is usually a document as JSON. Line breaks in `id` are left out.
    pub fn new(id: &str, data: &str) -> Self {
        let id: String = id.chars().filter(|character| !character.is_control()).collect();
        let mut event = format!("id: {id}\n");
        // A line break ends a field, so each line of the text is a field of its own; the reader joins them.
        for line in data.split(['\n', '\r']) {
            event.push_str("data: ");
            event.push_str(line);
            event.push('\n');
        }
        event.push('\n');
        Self { id, event: event.into() }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// What the readers of one sequence may take.
#[derive(Clone, Copy, Debug)]
pub struct StreamLimits {
    /// The most readers at a time; one more is answered 503.
    pub readers_max: usize,
    /// The least time between two events to one reader.
    pub interval_min: Duration,
    /// The longest silence: then a comment is sent, so that both ends notice a broken connection.
    pub heartbeat: Duration,
}

impl Default for StreamLimits {
    /// 256 readers, 20 events a second, a heartbeat after 2 s: readers that miss two of
    /// them may take the stream for dead.
    fn default() -> Self {
        Self { readers_max: 256, interval_min: Duration::from_millis(50), heartbeat: Duration::from_secs(2) }
    }
}

/// One sequence of documents and its readers. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Streams {
    newest: watch::Receiver<Option<Arc<Message>>>,
    shutdown: CancellationToken,
    readers: Arc<Semaphore>,
    limits: StreamLimits,
}

impl Streams {
    /// Serves what `newest` holds; `None` is nothing yet. Every stream ends when `shutdown` is cancelled or the
    /// sender is gone.
    pub fn new(
        newest: watch::Receiver<Option<Arc<Message>>>,
        shutdown: CancellationToken,
        limits: StreamLimits,
    ) -> Self {
        Self { newest, shutdown, readers: Arc::new(Semaphore::new(limits.readers_max)), limits }
    }

    /// Opens a stream for a request with these headers. It begins with the newest document, unless the reader says
    /// by `Last-Event-ID` that it has that one. 503 when there are too many readers.
    pub fn open(&self, headers: &HeaderMap) -> Result<Response, Problem> {
        let place = Arc::clone(&self.readers).try_acquire_owned().map_err(|_| {
            Problem::unavailable(format!(
                "all {} places on this stream are taken; try again later",
                self.limits.readers_max
            ))
        })?;
        let seen = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
        let mut newest = self.newest.clone();
        newest.mark_changed();
        let now = Instant::now();
        let reader = Reader {
            newest,
            shutdown: self.shutdown.clone(),
            seen,
            opened: false,
            next_event_at: now,
            last_sent_at: now,
            limits: self.limits,
            _place: place,
        };
        let events = stream::unfold(reader, async |mut reader| {
            let bytes = reader.next().await?;
            Some((Ok::<_, std::convert::Infallible>(bytes), reader))
        });
        let headers = [
            (CONTENT_TYPE, "text/event-stream"),
            (CACHE_CONTROL, "no-store"),
            (HeaderName::from_static("x-accel-buffering"), "no"),
        ];
        Ok((headers, Body::from_stream(events)).into_response())
    }
}

struct Reader {
    newest: watch::Receiver<Option<Arc<Message>>>,
    shutdown: CancellationToken,
    /// The id of the last event sent.
    seen: Option<String>,
    opened: bool,
    next_event_at: Instant,
    last_sent_at: Instant,
    limits: StreamLimits,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// What to send next; `None` ends the stream.
    async fn next(&mut self) -> Option<Bytes> {
        if !self.opened {
            self.opened = true;
            return Some(Bytes::from_static(OPENING));
        }
        loop {
            let changed = async {
                tokio::time::sleep_until(self.next_event_at).await;
                self.newest.changed().await
            };
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                changed = changed => changed.ok()?,
                () = tokio::time::sleep_until(self.last_sent_at + self.limits.heartbeat) => {
                    self.last_sent_at = Instant::now();
                    return Some(Bytes::from_static(HEARTBEAT));
                }
            }
            let Some(message) = self.newest.borrow_and_update().clone() else { continue };
            if self.seen.as_deref() == Some(message.id()) {
                continue;
            }
            self.last_sent_at = Instant::now();
            self.next_event_at = self.last_sent_at + self.limits.interval_min;
            self.seen = Some(message.id.clone());
            return Some(message.event.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::BodyDataStream;
    use axum::http::HeaderValue;
    use futures_util::StreamExt as _;

    use super::*;

    struct Producer {
        newest: watch::Sender<Option<Arc<Message>>>,
        shutdown: CancellationToken,
        streams: Streams,
    }

    impl Producer {
        fn new(limits: StreamLimits) -> Self {
            let (newest, receiver) = watch::channel(None);
            let shutdown = CancellationToken::new();
            Self { newest, streams: Streams::new(receiver, shutdown.clone(), limits), shutdown }
        }

        fn send(&self, id: &str, data: &str) {
            self.newest.send_replace(Some(Arc::new(Message::new(id, data))));
        }

        fn open(&self, seen: Option<&'static str>) -> BodyDataStream {
            let seen = seen.map(|id| (LAST_EVENT_ID, HeaderValue::from_static(id)));
            let response = self.streams.open(&seen.into_iter().collect()).unwrap();
            assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
            response.into_body().into_data_stream()
        }
    }

    async fn next(stream: &mut BodyDataStream) -> String {
        String::from_utf8(stream.next().await.expect("the stream goes on").unwrap().to_vec()).unwrap()
    }

    #[test]
    fn line_breaks_do_not_break_events() {
        assert_eq!(Message::new("a:1", "{}").event, "id: a:1\ndata: {}\n\n");
        assert_eq!(Message::new("a\n\nb", "1\n2\r3").event, "id: ab\ndata: 1\ndata: 2\ndata: 3\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_gets_the_newest_at_once_and_then_each_change() {
        let producer = Producer::new(StreamLimits::default());
        producer.send("a:1", "1");
        let mut stream = producer.open(None);
        assert_eq!(next(&mut stream).await, "retry: 1000\n\n");
        assert_eq!(next(&mut stream).await, "id: a:1\ndata: 1\n\n");
        producer.send("a:2", "2");
        assert_eq!(next(&mut stream).await, "id: a:2\ndata: 2\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_reader_skips_to_the_newest() {
        let producer = Producer::new(StreamLimits::default());
        let mut stream = producer.open(None);
        for id in 1..=1_000 {
            producer.send(&format!("a:{id}"), "x");
        }
        next(&mut stream).await;
        assert_eq!(next(&mut stream).await, "id: a:1000\ndata: x\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_twenty_events_a_second() {
        let producer = Producer::new(StreamLimits::default());
        let mut stream = producer.open(None);
        next(&mut stream).await;
        let began = Instant::now();
        let newest = producer.newest.clone();
        let sending = tokio::spawn(async move {
            for id in 0_u32.. {
                newest.send_replace(Some(Arc::new(Message::new(&id.to_string(), ""))));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let mut events = 0;
        while began.elapsed() < Duration::from_secs(1) {
            next(&mut stream).await;
            events += 1;
        }
        assert!((19..=21).contains(&events), "{events}");
        sending.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_seen_is_not_sent_again() {
        let producer = Producer::new(StreamLimits::default());
        producer.send("a:1", "1");
        let mut stream = producer.open(Some("a:1"));
        next(&mut stream).await;
        let began = Instant::now();
        assert_eq!(next(&mut stream).await, ": alive\n\n");
        assert_eq!(began.elapsed(), StreamLimits::default().heartbeat);
        producer.send("a:2", "2");
        assert_eq!(next(&mut stream).await, "id: a:2\ndata: 2\n\n");
        // One of another epoch.
        let mut other = producer.open(Some("b:2"));
        next(&mut other).await;
        assert_eq!(next(&mut other).await, "id: a:2\ndata: 2\n\n");
    }

    #[tokio::test(start_paused = true)]
    async fn readers_are_bounded_and_their_places_come_back() {
        let producer = Producer::new(StreamLimits { readers_max: 2, ..StreamLimits::default() });
        let (_one, two) = (producer.open(None), producer.open(None));
        let problem = producer.streams.open(&HeaderMap::new()).unwrap_err();
        assert_eq!(problem.status(), 503);
        assert_eq!(problem.detail(), Some("all 2 places on this stream are taken; try again later"));
        drop(two);
        assert!(producer.streams.open(&HeaderMap::new()).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn streams_end_with_the_service_or_the_producer() {
        let producer = Producer::new(StreamLimits::default());
        let (mut one, mut two) = (producer.open(None), producer.open(None));
        next(&mut one).await;
        next(&mut two).await;
        producer.shutdown.cancel();
        assert!(one.next().await.is_none());
        assert!(two.next().await.is_none());

        let Producer { newest, streams, .. } = Producer::new(StreamLimits::default());
        let mut stream = streams.open(&HeaderMap::new()).unwrap().into_body().into_data_stream();
        next(&mut stream).await;
        drop(newest);
        assert!(stream.next().await.is_none());
    }
}
