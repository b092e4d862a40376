//! Demand sources that fail, on the real engine: what runs goes on running, why is said, and a source that is well
//! again is heard within a bound.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use acceptance::stack::{IMPORTANT, Options, Stack, at_rest};
use api_types::snapshot::{Freshness, ServiceSnapshot, Snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::BOUND;

/// The source's name in the scheduler's configuration.
const SOURCE: &str = "rng";

/// Milliseconds without a complete answer after which a demand is stale, here.
const STALE_AFTER_MS: u64 = 1_500;

/// From a source's recovery to what it wants running: the longest wait before it is asked again, an answer that is
/// still awaited, and the swaps.
const RECOVERY: Duration = Duration::from_secs(5 + 5 + 10);

/// What a source answers.
#[derive(Clone)]
struct Answer {
    bytes: Vec<u8>,
    /// Sent again and again afterwards, with this pause; nothing if empty.
    again: (Vec<u8>, Duration),
}

impl Answer {
    fn raw(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), again: (Vec::new(), Duration::ZERO) }
    }

    fn ok(body: &str) -> Self {
        let length = body.len();
        Self::raw(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"))
    }

    fn demand(containers: &str) -> Self {
        Self::ok(&format!(r#"{{"demand": {{"{IMPORTANT}": {containers}}}}}"#))
    }

    fn with_again(mut self, again: &[u8], pause: Duration) -> Self {
        self.again = (again.to_vec(), pause);
        self
    }
}

/// A demand source that does as it is told.
struct Source {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicU64>,
    serving: Option<JoinHandle<()>>,
}

impl Source {
    async fn start(answer: Answer) -> Self {
        let mut source = Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            answer: Arc::new(Mutex::new(answer)),
            asked: Arc::default(),
            serving: None,
        };
        source.listen().await;
        source
    }

    async fn listen(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.address = listener.local_addr().unwrap();
        let (answer, asked) = (Arc::clone(&self.answer), Arc::clone(&self.asked));
        self.serving = Some(tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                asked.fetch_add(1, Ordering::Relaxed);
                let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
                tokio::spawn(serve(stream, answer));
            }
        }));
    }

    /// From now on nobody listens.
    async fn vanish(&mut self) {
        let serving = self.serving.take().expect("it listens");
        serving.abort();
        let _ = serving.await;
    }

    fn answers(&self, answer: Answer) {
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    fn url(&self) -> String {
        format!("http://{}/v1/demand", self.address)
    }
}

async fn serve(mut stream: TcpStream, answer: Answer) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else { return };
        head.push(byte);
    }
    if stream.write_all(&answer.bytes).await.is_err() {
        return;
    }
    let (again, pause) = answer.again;
    while !again.is_empty() && stream.write_all(&again).await.is_ok() {
        tokio::time::sleep(pause).await;
    }
}

/// Changes the scheduler's configuration while it runs, to take its demand from `url`.
fn take_demand_from(stack: &Stack, url: &str, on_stale: &str) {
    let config = stack.scheduler.config();
    let text = std::fs::read_to_string(config).unwrap();
    let own = format!("url = \"{}\"", stack.demand_rng.url("/v1/demand"));
    let key = format!("key = \"{IMPORTANT}\"");
    assert!(text.contains(&own) && text.contains(&key), "{text}");
    let text = text
        .replace(&own, &format!("url = \"{url}\"\nstale_after_ms = {STALE_AFTER_MS}"))
        .replace(&key, &format!("{key}, on_stale = {on_stale}"));
    std::fs::write(config, text).unwrap();
}

fn important(snapshot: &Snapshot) -> &ServiceSnapshot {
    snapshot.services.iter().find(|service| service.name == IMPORTANT).expect("it is in every snapshot")
}

/// How a source fails, what is then known of the demand, and what is said of it.
fn failures(source: &Source) -> Vec<(&'static str, Answer, Freshness, String)> {
    use Freshness::{Stale, Unknown};

    let redirect =
        format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", source.url());
    let blank = vec![b' '; 64 * 1024];
    let endless =
        Answer::raw("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{").with_again(&blank, Duration::ZERO);
    let dribble = Answer::raw("HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n{")
        .with_again(b" ", Duration::from_millis(100));
    let endless_head = Answer::raw("HTTP/1.1 200 OK\r\n")
        .with_again("x-more: of the same\r\n".repeat(3_000).as_bytes(), Duration::ZERO);
    let half = Answer::raw("HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"demand\": {\"");
    let error = Answer::raw("HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\n\r\n");
    let packed =
        Answer::raw("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 2\r\n\r\n\x1f\x08");
    [
        ("an error of its own", error, Stale, "answered 500 Internal Server Error"),
        ("garbage", Answer::ok("<html>hello</html>"), Stale, "not a demand document"),
        ("nothing at all", Answer::raw(""), Stale, "no complete answer"),
        ("half an answer", half, Stale, "no complete answer"),
        ("a body without an end", endless, Stale, "larger than 1048576 bytes"),
        ("a head without an end", endless_head, Stale, "no complete answer"),
        ("a body that trickles", dribble, Stale, "no complete answer within 5000 ms"),
        ("a redirect to itself", Answer::raw(redirect), Stale, "redirects are not followed"),
        ("something packed", packed, Stale, "packed (gzip)"),
        ("no demand", Answer::ok(r#"{"sequence": 1}"#), Stale, "`demand` is missing"),
        ("another key only", Answer::ok(r#"{"demand": {"other": 1}}"#), Unknown, "has no key"),
        ("null", Answer::demand("null"), Unknown, "does not know"),
        ("a negative demand", Answer::demand("-1"), Unknown, "-1 is not an integer"),
        ("text", Answer::demand("\"7\""), Unknown, "\"7\" is not an integer"),
        ("a half container", Answer::demand("1.5"), Unknown, "1.5 is not an integer"),
        ("a number beyond all", Answer::demand("1e999"), Unknown, "1e999 is not an integer"),
    ]
    .map(|(what, answer, freshness, words)| (what, answer, freshness, words.to_owned()))
    .into()
}

#[tokio::test]
async fn what_runs_goes_on_while_a_source_fails() {
    let stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(4).await.unwrap();
    stack.runs(4, BOUND).await.unwrap();
    let mut source = Source::start(Answer::demand("4")).await;
    take_demand_from(&stack, &source.url(), "\"hold\"");
    let asked = |snapshot: &Snapshot| source.asked.load(Ordering::Relaxed) > 0 && at_rest(snapshot);
    stack.snapshot_until("the new source is asked", BOUND, asked).await.unwrap();

    let mut wanted = 4;
    let mut failed_as_said = async |source: &Source, what: &str, freshness: Freshness, words: &str| {
        let before = stack.checked_timeline().await.unwrap().events().len();
        let said = |snapshot: &Snapshot| {
            let service = important(snapshot);
            let reason = service.reason.as_deref().unwrap_or_default();
            service.freshness == Some(freshness) && reason.contains(SOURCE) && reason.contains(words)
        };
        let snapshot = stack.snapshot_until(&format!("{what}: {words}"), BOUND, said).await.unwrap();
        let service = important(&snapshot);
        let known = (freshness == Freshness::Stale).then_some(wanted);
        assert_eq!((service.demand, service.target), (known, Some(wanted)), "{what}");
        assert_eq!(
            snapshot.success,
            Some(freshness == Freshness::Stale),
            "{what}: {:?}",
            snapshot.blocked_by
        );
        let seen = stack.checked_timeline().await.unwrap();
        assert_eq!(seen.events().len(), before, "{what} changed something: {:#?}", &seen.events()[before..]);

        wanted = if wanted == 4 { 6 } else { 4 };
        source.answers(Answer::demand(&wanted.to_string()));
    };
    for (what, answer, freshness, words) in failures(&source) {
        source.answers(answer);
        failed_as_said(&source, what, freshness, &words).await;
        let begun = Instant::now();
        let well = important_is(&stack, RECOVERY).await;
        println!("{what}: heard again after {} ms, {well} running", begun.elapsed().as_millis());
    }
    source.vanish().await;
    failed_as_said(&source, "nobody there", Freshness::Stale, "cannot connect").await;
    source.listen().await;
    important_is(&stack, RECOVERY).await;

    // Restarted, it repeats what it said of its documents, and its clock is years off: the demand counts.
    for (containers, changed_at) in [(5, "1970-01-01T00:00:00.000Z"), (7, "2999-12-31T23:59:59.999Z")] {
        let body = format!(
            r#"{{"sequence": 1, "changed_at": "{changed_at}", "demand": {{"{IMPORTANT}": {containers}}}}}"#
        );
        source.answers(Answer::raw(format!(
            "HTTP/1.1 200 OK\r\netag: \"a-1\"\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        )));
        stack.runs(containers, BOUND).await.unwrap();
    }
    stack.checked_timeline().await.unwrap();
}

/// Waits until what is wanted is fresh, and runs; gives how many.
async fn important_is(stack: &Stack, bound: Duration) -> u32 {
    let well = |snapshot: &Snapshot| {
        let service = important(snapshot);
        service.freshness == Some(Freshness::Fresh)
            && service.demand == Some(service.running)
            && service.reason.is_none()
            && at_rest(snapshot)
    };
    important(&stack.snapshot_until("the source is heard again", bound, well).await.unwrap()).running
}

#[tokio::test]
async fn a_fallback_stands_in_and_a_restart_without_a_source_changes_nothing() {
    let mut stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(5).await.unwrap();
    stack.runs(5, BOUND).await.unwrap();
    let mut source = Source::start(Answer::demand("5")).await;
    take_demand_from(&stack, &source.url(), "{ fallback = 2, after_ms = 500 }");
    let asked = |snapshot: &Snapshot| source.asked.load(Ordering::Relaxed) > 0 && at_rest(snapshot);
    stack.snapshot_until("the new source is asked", BOUND, asked).await.unwrap();

    source.vanish().await;
    stack.runs(2, BOUND).await.unwrap();
    let stale = |snapshot: &Snapshot| {
        let service = important(snapshot);
        service.freshness == Some(Freshness::Stale)
            && service.target == Some(2)
            && service.reason.as_deref().is_some_and(|reason| reason.contains("cannot connect"))
            && at_rest(snapshot)
    };
    stack.snapshot_until("the fallback is told as one", BOUND, stale).await.unwrap();

    // It has never heard the source, and has nothing to fall back from: what it finds stays.
    let before = stack.checked_timeline().await.unwrap().events().len();
    stack.scheduler.kill().await.unwrap();
    stack.scheduler.start().await.unwrap();
    stack.scheduler.ready().await.unwrap();
    let unknown = |snapshot: &Snapshot| {
        let service = important(snapshot);
        service.freshness == Some(Freshness::Unknown)
            && service.running == 2
            && service.reason.as_deref().is_some_and(|reason| reason.contains("has not answered yet"))
    };
    stack.snapshot_until("nothing is known of the demand", BOUND, unknown).await.unwrap();
    // Longer than a fill service is held back after a start.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let seen = stack.checked_timeline().await.unwrap();
    assert_eq!(seen.events().len(), before, "a restart changed something: {:#?}", &seen.events()[before..]);

    source.listen().await;
    stack.runs(5, RECOVERY).await.unwrap();
    stack.checked_timeline().await.unwrap();
}

#[tokio::test]
async fn a_source_that_only_claims_to_hold_its_answers_is_not_asked_in_a_circle() {
    let stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(4).await.unwrap();
    stack.runs(4, BOUND).await.unwrap();
    let body = format!(r#"{{"demand": {{"{IMPORTANT}": 4}}}}"#);
    let lie = format!(
        "HTTP/1.1 200 OK\r\netag: \"always-the-same\"\r\npreference-applied: wait\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    let source = Source::start(Answer::raw(lie)).await;
    take_demand_from(&stack, &source.url(), "\"hold\"");
    let asked = |_: &Snapshot| source.asked.load(Ordering::Relaxed) > 1;
    stack.snapshot_until("the new source is asked", BOUND, asked).await.unwrap();
    let (begun, first) = (Instant::now(), source.asked.load(Ordering::Relaxed));
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Whoever asks every 10 ms at most asks one time more than that in any while.
    let most = begun.elapsed().as_millis() / 10 + 1;
    let asked = source.asked.load(Ordering::Relaxed) - first;
    assert!(u128::from(asked) <= most, "asked {asked} times, and {most} at most were to be");
    stack.checked_timeline().await.unwrap();
}
