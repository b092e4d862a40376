//! Serves a router over HTTP/1.1 with a named bound on everything that a peer can hold on to: see [`Limits`].
//!
//! [`app`] is the part that works on requests, for tests without sockets; [`serve`] puts connections in front of it.
//! What cannot be read as HTTP at all (a malformed or oversized head) is answered by the HTTP library itself, with a
//! bare status: there is no request yet that a document could be about.

use std::any::Any;
use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api_types::problem::PROBLEM_JSON;
use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State};
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;

use crate::listen::{Acceptor, connections_that_fit};
use crate::problem::Problem;
use crate::trace::serve_in_span;
use crate::waiting::{Place, Waiting};

/// The longest that a request with `Prefer: wait` is held.
pub const LONG_POLL_MAX: Duration = Duration::from_mins(1);

/// `Prefer`, of RFC 7240.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// `Preference-Applied`, of RFC 7240.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// Places for peers on this machine beyond [`Limits::connections_max`]: that is where a container engine's healthcheck
/// and a person with curl ask from, when all other places are taken.
const LOCAL_PLACES: usize = 16;

/// The most bytes that wait in one connection, each way. The library's own limit, 400 KiB, would add up to as many
/// megabytes for peers that write one request after the other without reading an answer.
const BUFFER_MAX_BYTES: usize = 32 * 1024;

/// The most bytes of a plain error's text that are carried over into its problem document.
const PLAIN_TEXT_MAX_BYTES: usize = 4096;

/// What peers may hold on to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most connections at a time. One more takes the place of the one that has waited longest for a request;
    /// where all have one under way, it is answered 503 and closed. Peers on this machine have a few places more.
    pub connections_max: usize,
    /// From the opening of a connection, or the end of an answer, to the whole head of the next request: bounds both
    /// a peer that dribbles its head and a connection that idles.
    pub head_timeout: Duration,
    /// The most bytes of a request's head.
    pub head_max_bytes: usize,
    /// The most headers of a request.
    pub headers_max: usize,
    /// The most bytes of a request's body.
    pub body_max_bytes: usize,
    /// From a request's head to the head of its answer. With `Prefer: wait` the wait is added, up to
    /// [`LONG_POLL_MAX`]; what streams afterwards is not bounded by it.
    pub request_timeout: Duration,
    /// The longest that a peer may take nothing of what is sent to it.
    pub write_timeout: Duration,
    /// The longest from the shutdown to the end of the last connection.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Four times the readers that a stream allows; each connection costs some 20 KiB.
            connections_max: 1024,
            // Longer than a container engine's healthcheck interval or a scraper's, shorter than a person's patience.
            head_timeout: Duration::from_secs(20),
            // Room for a browser's cookies of other services on the same host.
            head_max_bytes: 16 * 1024,
            headers_max: 64,
            // The largest document that is sent to us is a trace: 10,000 values of up to five digits fit.
            body_max_bytes: 64 * 1024,
            request_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            // Under the 10 s that container engines allow by default before they kill.
            drain_timeout: Duration::from_secs(5),
        }
    }
}

/// Serves `router` on `listener` until `shutdown` is cancelled; then accepts nothing more, lets what is under way
/// end, and cuts off what has not ended within [`Limits::drain_timeout`].
///
/// Long polls and streams must end by themselves on `shutdown`, or they are cut off then.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
    limits: Limits,
) -> io::Result<()> {
    tracing::info!(address = %listener.local_addr()?, "listening");
    // Half of the descriptors are for peers, those on this machine included.
    let connections_max =
        connections_that_fit(limits.connections_max + LOCAL_PLACES).saturating_sub(LOCAL_PLACES).max(1);
    let limits = Limits { connections_max, ..limits };
    let app = app(router, limits);
    let mut acceptor = Acceptor::new(listener);
    let mut connections = JoinSet::new();
    let waiting = Waiting::default();
    loop {
        let (stream, peer) = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = acceptor.accept() => accepted,
        };
        let local_places = if peer.ip().to_canonical().is_loopback() { LOCAL_PLACES } else { 0 };
        // The one that is ended for it has its place for a moment longer.
        if connections.len() >= limits.connections_max
            && !waiting.end_longest()
            && connections.len() >= limits.connections_max + local_places
        {
            metrics::counter!("http_connections_refused_total").increment(1);
            refuse(&stream);
            continue;
        }
        let given_up = CancellationToken::new();
        let place = waiting.place(given_up.clone());
        let connection = connection(stream, app.clone(), place, shutdown.clone(), limits);
        connections.spawn(async move {
            tokio::select! { () = connection => {}, () = given_up.cancelled() => {} }
        });
    }
    drop(acceptor);
    let drained =
        timeout(limits.drain_timeout, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(connections = connections.len(), "cut off: not ended within the drain's time");
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection(
    stream: TcpStream,
    app: Router,
    place: Arc<Place>,
    shutdown: CancellationToken,
    limits: Limits,
) {
    // Answers are small and waited for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set nodelay");
    }
    let io = TokioIo::new(WriteBound { stream, limit: limits.write_timeout, stalled: None });
    let app = TowerToHyperService::new(app);
    let working = service_fn(move |request| {
        let work = place.works();
        let answer = app.call(request);
        async move { answer.await.map(|answer| answer.map(|body| work.until_taken(body))) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_header_size(limits.head_max_bytes)
        .max_headers(limits.headers_max)
        .max_buf_size(BUFFER_MAX_BYTES.max(limits.head_max_bytes))
        .serve_connection(io, working);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}

/// Says that there are too many connections, as far as that can be said without waiting.
fn refuse(stream: &TcpStream) {
    let document = Problem::unavailable("too many connections; try again later").document();
    let body = serde_json::to_string(&document).unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: {PROBLEM_JSON}\r\ncontent-length: {}\r\nretry-after: 1\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    if let Err(error) = stream.try_write(answer.as_bytes()) {
        tracing::debug!(%error, "refused a connection without a word");
    }
}

/// `router` with what every request passes: bounds on its body and its time, panics caught, every error a problem
/// document, `http_requests_total` counted by route, method and status, and a span of the caller's trace.
pub fn app(router: Router, limits: Limits) -> Router {
    router
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.body_max_bytes))
        .layer(middleware::from_fn_with_state(limits, bound_time))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(finish))
        .layer(middleware::from_fn(serve_in_span))
}

async fn bound_time(State(limits): State<Limits>, request: Request, next: Next) -> Response {
    let allowed = limits.request_timeout + prefer_wait(request.headers()).unwrap_or_default();
    timeout(allowed, next.run(request)).await.unwrap_or_else(|_| {
        Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("not read and answered within {} ms; try again", allowed.as_millis()),
        )
        .into_response()
    })
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that the layer asks for")]
fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let cause = cause
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| cause.downcast_ref::<&str>().copied())
        .unwrap_or("unknown");
    tracing::error!(cause, "a handler panicked");
    Problem::internal("this should not have happened; the service's log says more").into_response()
}

/// Makes a problem document of every plain error, and counts.
async fn finish(path: Option<MatchedPath>, request: Request, next: Next) -> Response {
    let method = match request.method().as_str() {
        method @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS") => method.to_owned(),
        _ => "other".to_owned(),
    };
    let mut response = next.run(request).await;
    let status = response.status();
    if (status.is_client_error() || status.is_server_error()) && !is_problem(response.headers()) {
        response = problem_of(response).await;
    }
    response
        .headers_mut()
        .insert(HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff"));
    let route = path.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    metrics::counter!("http_requests_total", "route" => route, "method" => method, "status" => status.as_u16().to_string())
        .increment(1);
    response
}

fn is_problem(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(PROBLEM_JSON.as_bytes()))
}

async fn problem_of(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let plain =
        parts.headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"text/plain"));
    let text = if plain { axum::body::to_bytes(body, PLAIN_TEXT_MAX_BYTES).await.ok() } else { None };
    let text = text.and_then(|text| String::from_utf8(text.to_vec()).ok());
    let (problem, document): (_, Body) = Problem::of_plain(parts.status, text).into_response().into_parts();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.extend(problem.headers);
    Response::from_parts(parts, document)
}

/// How long the client would have its answer held, at most [`LONG_POLL_MAX`]: `Prefer: wait=5` of RFC 7240, in
/// seconds. `None` if it does not say so, or not in a number.
pub fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    // The first counts, where there are several.
    let (_, seconds) = preferences
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.split(';').next()?.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))?;
    let seconds: u64 = seconds.trim().trim_matches('"').parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONG_POLL_MAX))
}

/// A stream whose writes fail when the peer takes nothing for too long.
struct WriteBound<S> {
    stream: S,
    limit: Duration,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteBound<S> {
    fn bound<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        stalled.as_mut().poll(context).map(|()| {
            self.stalled = None;
            Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing of what is sent to it"))
        })
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteBound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteBound<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bound(context, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let poll = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bound(context, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(context);
        self.bound(context, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bound(context, poll)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::net::SocketAddr;

    use axum::body::to_bytes;
    use axum::http::header::{ALLOW, CONTENT_LENGTH};
    use axum::routing::{get, put};
    use futures_util::{StreamExt as _, stream};
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;
    use tokio::time::Instant;
    use tower::ServiceExt as _;

    use super::*;
    use crate::problem::{Json, Query};

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Count {
        count: u32,
    }

    fn router() -> Router {
        Router::new()
            .route("/quick", get(async || "quick"))
            .route("/slow", get(async || sleep(Duration::from_hours(1)).await))
            .route(
                "/endless",
                get(async || {
                    Body::from_stream(stream::iter([Ok::<_, Infallible>("begun")]).chain(stream::pending()))
                }),
            )
            .route(
                "/flood",
                get(async || {
                    Body::from_stream(stream::repeat_with(|| Ok::<_, Infallible>(vec![b'x'; 65_536])))
                }),
            )
            .route("/panic", get(async || -> () { panic!("secret cause") }))
            .route("/count", put(async |Json(body): Json<Count>| body.count.to_string()))
            .route("/query", get(async |Query(query): Query<Count>| query.count.to_string()))
    }

    async fn ask(request: Request) -> (u16, HeaderMap, Value) {
        let response = app(router(), Limits::default()).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        (parts.status.as_u16(), parts.headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    fn request(method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Request {
        let request = Request::builder().method(method).uri(path);
        headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value))
            .body(body.into())
            .unwrap()
    }

    const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

    #[tokio::test(start_paused = true)]
    async fn every_error_is_a_problem_document() {
        let large = format!("{{\"count\": {}1}}", " ".repeat(64 * 1024));
        let said = [("content-type", "application/json"), ("content-length", "65537")];
        for (request, wanted, detail) in [
            (request("GET", "/none", &[], ""), 404, "no such path; GET /openapi.json lists them"),
            (
                request("POST", "/quick", &[], ""),
                405,
                "this path does not take that method; the `allow` header lists those that it takes",
            ),
            (request("GET", "/slow", &[], ""), 408, "not read and answered within 10000 ms; try again"),
            (
                request("GET", "/panic", &[], ""),
                500,
                "this should not have happened; the service's log says more",
            ),
            (
                request("PUT", "/count", &said, large.clone()),
                413,
                "the body is larger than this service takes",
            ),
            (request("PUT", "/count", JSON, large), 413, "the body is larger than this service takes"),
            (
                request("PUT", "/count", &[], "{}"),
                415,
                "the body must be JSON: send it with `content-type: application/json`",
            ),
            (
                request("PUT", "/count", JSON, "{\"cuont\": 1}"),
                400,
                "body: unknown field `cuont`, expected `count` at line 1 column 8; did you mean `count`?",
            ),
            (
                request("PUT", "/count", JSON, "{"),
                400,
                "body: EOF while parsing an object at line 1 column 1",
            ),
            (
                request("GET", "/query?cuont=1", &[], ""),
                400,
                "query: cuont: unknown field `cuont`, expected `count`; did you mean `count`?",
            ),
            (request("GET", "/query?count=x", &[], ""), 400, "query: count: invalid digit found in string"),
        ] {
            let what = request.uri().clone();
            let (status, headers, document) = ask(request).await;
            assert_eq!(status, wanted, "{what} {document}");
            assert_eq!(headers[CONTENT_TYPE], PROBLEM_JSON, "{what}");
            assert_eq!(document["status"], wanted, "{what}");
            assert_eq!(document["type"], "about:blank");
            assert_eq!(document["detail"], detail, "{what}");
            if wanted == 405 {
                assert_eq!(headers[ALLOW], "GET,HEAD");
            }
            if let Some(length) = headers.get(CONTENT_LENGTH) {
                let length: usize = length.to_str().unwrap().parse().unwrap();
                assert_eq!(length, serde_json::to_vec(&document).unwrap().len(), "{what}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_right_passes() {
        let (status, headers, body) = ask(request(
            "PUT",
            "/count",
            &[("content-type", "application/json; charset=utf-8")],
            "{\"count\": 7}",
        ))
        .await;
        assert_eq!((status, body), (200, json!(7)));
        assert_eq!(headers["x-content-type-options"], "nosniff");
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_request_has_its_wait_on_top() {
        for (prefer, seconds) in [("wait=5", 15), ("wait=3600", 70), ("respond-async", 10)] {
            let began = Instant::now();
            assert_eq!(ask(request("GET", "/slow", &[("prefer", prefer)], "")).await.0, 408);
            assert_eq!(began.elapsed().as_secs(), seconds, "{prefer}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_takes_nothing_is_cut_off() {
        let (stream, mut peer) = tokio::io::duplex(4);
        let mut bound = WriteBound { stream, limit: Duration::from_secs(10), stalled: None };
        let began = Instant::now();
        bound.write_all(b"1234").await.unwrap();
        assert_eq!(bound.write(b"5").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
        assert_eq!(began.elapsed().as_secs(), 10);

        // What it takes in time starts the time anew.
        let (sent, ()) = tokio::join!(bound.write_all(b"56789abc"), async {
            for _ in 0..2 {
                sleep(Duration::from_secs(7)).await;
                peer.read_exact(&mut [0; 4]).await.unwrap();
            }
        });
        sent.unwrap();
    }

    #[test]
    fn prefer_is_read_as_written_in_its_rfc() {
        for (values, wanted) in [
            (vec!["wait=5"], Some(5)),
            (vec!["respond-async, wait=10"], Some(10)),
            (vec!["handling=lenient; wait=3, WAIT = \"7\""], Some(7)),
            (vec!["respond-async", "wait=2"], Some(2)),
            (vec!["wait=1, wait=2"], Some(1)),
            (vec!["wait=99999999999"], Some(60)),
            (vec!["wait=0"], Some(0)),
            (vec!["wait"], None),
            (vec!["wait=-1"], None),
            (vec!["wait=1.5"], None),
            (vec![], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(PREFER, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(prefer_wait(&headers), wanted.map(Duration::from_secs), "{values:?}");
        }
    }

    // From here on with real sockets, and so in real time: short limits in place of paused clocks.

    struct Server {
        address: SocketAddr,
        shutdown: CancellationToken,
        serving: JoinHandle<io::Result<()>>,
    }

    impl Server {
        async fn start(limits: Limits) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let shutdown = CancellationToken::new();
            let serving = tokio::spawn(serve(listener, router(), shutdown.clone(), limits));
            Self { address, shutdown, serving }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.address).await.unwrap()
        }

        /// Sends this and gives all that comes back until the server closes.
        async fn say(&self, text: &[u8]) -> String {
            let mut stream = self.connect().await;
            stream.write_all(text).await.unwrap();
            read_all(&mut stream).await
        }

        async fn stop(self) {
            self.shutdown.cancel();
            self.serving.await.unwrap().unwrap();
        }
    }

    /// All until the end, which may come as a reset; fails after 10 s, many times what any test's limits allow.
    async fn read_all(stream: &mut TcpStream) -> String {
        let mut bytes = Vec::new();
        let ended = timeout(Duration::from_secs(10), stream.read_to_end(&mut bytes)).await;
        assert!(ended.is_ok(), "the server has not closed the connection");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    const QUICK: &[u8] = b"GET /quick HTTP/1.1\r\nhost: a\r\n\r\n";
    const QUICK_LAST: &[u8] = b"GET /quick HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";

    fn brief() -> Limits {
        Limits {
            head_timeout: Duration::from_millis(200),
            write_timeout: Duration::from_millis(200),
            drain_timeout: Duration::from_millis(200),
            ..Limits::default()
        }
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_cut_off() {
        let server = Server::start(brief()).await;
        assert!(!server.say(b"GET /quick HTTP/1.1\r\nhost: a\r\nx-a: ").await.contains("200 OK"));
        assert_eq!(server.say(b"").await, "", "a connection that says nothing");
        // A peer that keeps dribbling gets no more time than one that is silent.
        let mut stream = server.connect().await;
        let dribble = async {
            while stream.write_all(b"x").await.is_ok() {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(Duration::from_secs(10), dribble).await.expect("the server never cuts it off");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_connection_is_kept_but_not_for_ever() {
        let server = Server::start(brief()).await;
        let mut stream = server.connect().await;
        stream.write_all(QUICK).await.unwrap();
        stream.write_all(QUICK).await.unwrap();
        let answers = read_all(&mut stream).await;
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
        server.stop().await;
    }

    #[tokio::test]
    async fn an_oversized_head_is_refused() {
        let server = Server::start(Limits::default()).await;
        let long = format!("GET /quick HTTP/1.1\r\nhost: a\r\nx-a: {}\r\n\r\n", "x".repeat(20_000));
        assert!(server.say(long.as_bytes()).await.starts_with("HTTP/1.1 431 "));
        let many = format!("GET /quick HTTP/1.1\r\nhost: a\r\n{}\r\n", "x-a: b\r\n".repeat(70));
        assert!(server.say(many.as_bytes()).await.starts_with("HTTP/1.1 431 "));
        assert!(server.say(b"NONSENSE\r\n\r\n").await.starts_with("HTTP/1.1 400 "));
        server.stop().await;
    }

    #[tokio::test]
    async fn an_oversized_body_is_refused_unread() {
        let server = Server::start(Limits::default()).await;
        let head = b"PUT /count HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 1000000000\r\nconnection: close\r\n\r\n";
        let answer = server.say(head).await;
        assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
        assert!(answer.contains(PROBLEM_JSON), "{answer}");
        server.stop().await;
    }

    #[tokio::test]
    async fn a_body_that_never_comes_is_cut_off() {
        let limits = Limits { request_timeout: Duration::from_millis(200), ..brief() };
        let server = Server::start(limits).await;
        let head =
            b"PUT /count HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{";
        let answer = server.say(head).await;
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        server.stop().await;
    }

    /// Connections whose answer has begun, and does not end.
    async fn busy(server: &Server, connections: usize) -> Vec<TcpStream> {
        let mut busy = Vec::new();
        for _ in 0..connections {
            let mut stream = server.connect().await;
            stream.write_all(b"GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let mut status = [0; 15];
            stream.read_exact(&mut status).await.unwrap();
            assert_eq!(&status, b"HTTP/1.1 200 OK");
            busy.push(stream);
        }
        busy
    }

    /// Asks until it is answered 200: a refused connection may be reset before its answer is read.
    async fn answered(server: &Server) {
        let asking = async {
            loop {
                let mut stream = server.connect().await;
                if stream.write_all(QUICK_LAST).await.is_ok()
                    && read_all(&mut stream).await.contains("200 OK")
                {
                    break;
                }
            }
        };
        timeout(Duration::from_secs(10), asking).await.expect("nobody is answered any more");
    }

    #[tokio::test]
    async fn one_connection_too_many_is_told_so() {
        let server = Server::start(Limits { connections_max: 2, ..Limits::default() }).await;
        let busy = busy(&server, 2 + LOCAL_PLACES).await;
        let answer = server.say(b"").await;
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("too many connections"), "{answer}");
        assert!(answer.contains("retry-after: 1\r\n") && answer.contains(PROBLEM_JSON), "{answer}");
        drop(busy);
        // Their places become free as soon as the server has noticed.
        answered(&server).await;
        server.stop().await;
    }

    #[tokio::test]
    async fn this_machine_is_heard_where_all_places_are_taken() {
        let server = Server::start(Limits { connections_max: 2, ..brief() }).await;
        let _busy = busy(&server, 2).await;
        assert!(server.say(QUICK_LAST).await.contains("200 OK"));
        server.stop().await;
    }

    #[tokio::test]
    async fn who_only_waits_gives_its_place_up() {
        let server =
            Server::start(Limits { connections_max: 4, head_timeout: Duration::from_hours(1), ..brief() })
                .await;
        let mut busy = busy(&server, 1).await;
        // Far more than there are places: silent ones, heads that never end, and some that were answered once.
        let mut waiting = Vec::new();
        for said in [&b""[..], b"GET /quick HTTP/1.1\r\nhost: a\r\nx-a: ", QUICK] {
            for _ in 0..50 {
                let mut stream = server.connect().await;
                stream.write_all(said).await.unwrap();
                waiting.push(stream);
            }
        }
        for _ in 0..10 {
            assert!(server.say(QUICK_LAST).await.contains("200 OK"), "shut out by those who only wait");
        }
        assert_eq!(read_all(&mut waiting[0]).await, "", "the first has been let go long since");
        // What is under way goes on: it has not ended, and is closed only with the server.
        let mut rest = [0; 4096];
        let more = timeout(Duration::from_millis(100), async {
            while busy[0].read(&mut rest).await.is_ok_and(|bytes| bytes > 0) {}
        });
        assert!(more.await.is_err(), "a request under way was given up");
        server.stop().await;
    }

    #[tokio::test]
    async fn what_is_not_http_is_refused_and_hurts_nobody() {
        let server = Server::start(brief()).await;
        for (said, wanted) in [
            (&b"\r\n\r\nGET /quick HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n"[..], &["200"][..]),
            (b"GET /quick HTTP/1.0\r\n\r\n", &["200"]),
            (b"GET http://elsewhere/quick HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n", &["200"]),
            (b"GET /quick\r\n\r\n", &["400"]),
            (b"GET  /quick  HTTP/1.1\r\n\r\n", &["400"]),
            (b"GET /qu ick HTTP/1.1\r\n\r\n", &["400"]),
            (b"GET /quick HTTP/9.9\r\n\r\n", &["400"]),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &["400", ""]),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", &["400"]),
            (b"\0\0\0\0\r\n\r\n", &["400"]),
            (b"GET /quick HTTP/1.1\r\nno colon\r\n\r\n", &["400"]),
            (b"GET /quick HTTP/1.1\r\nhost: a\r\n folded\r\n\r\n", &["400"]),
            (b"PUT /count HTTP/1.1\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}", &["400"]),
            (b"PUT /count HTTP/1.1\r\ncontent-length: -1\r\n\r\n", &["400"]),
            (b"PUT /count HTTP/1.1\r\ncontent-length: 99999999999999999999\r\n\r\n", &["400"]),
            (b"PUT /count HTTP/1.1\r\ntransfer-encoding: gzip\r\n\r\n", &["400"]),
            (
                b"PUT /count HTTP/1.1\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\nzz\r\n",
                &["400"],
            ),
        ] {
            let answer = server.say(said).await;
            let status = answer.split(' ').nth(1).unwrap_or_default();
            let said = String::from_utf8_lossy(said);
            assert!(wanted.contains(&status), "{said:?} was answered {answer:?}");
        }
        answered(&server).await;
        server.stop().await;
    }

    #[tokio::test]
    async fn requests_written_ahead_are_answered_in_turn_and_not_hoarded() {
        // More than all buffers on the way can hold, so that the server has to read as it answers.
        const REQUESTS: usize = 20_000;
        let server = Server::start(brief()).await;
        let (mut reading, mut writing) = server.connect().await.into_split();
        let write = async {
            writing.write_all(&QUICK.repeat(REQUESTS - 1)).await.unwrap();
            writing.write_all(QUICK_LAST).await.unwrap();
        };
        let mut answers = String::new();
        let read = timeout(Duration::from_mins(1), reading.read_to_string(&mut answers));
        let ((), read) = tokio::join!(write, read);
        read.expect("it goes on answering").unwrap();
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), REQUESTS);
        server.stop().await;
    }

    #[tokio::test]
    async fn a_body_without_an_end_is_read_up_to_its_bound() {
        let server = Server::start(Limits::default()).await;
        let (mut reading, mut writing) = server.connect().await.into_split();
        let head = b"PUT /count HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
        writing.write_all(head).await.unwrap();
        let chunk = format!("1000\r\n{}\r\n", " ".repeat(4096));
        let write = async { while writing.write_all(chunk.as_bytes()).await.is_ok() {} };
        let mut answer = Vec::new();
        // Its end may come as a reset, since the server does not read what it has refused.
        let ended = timeout(Duration::from_secs(10), async {
            let _ = tokio::join!(write, reading.read_to_end(&mut answer));
        });
        ended.await.expect("the server never closes");
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 413 "), "{answer}");
        answered(&server).await;
        server.stop().await;
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_is_cut_off() {
        let server = Server::start(brief()).await;
        let mut stream = server.connect().await;
        stream.write_all(b"GET /flood HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        // What is not taken for so long is given up: then there is an end to what would have none.
        sleep(brief().write_timeout * 3).await;
        let mut taken = vec![0; 65_536];
        let rest = timeout(Duration::from_secs(10), async {
            while stream.read(&mut taken).await.is_ok_and(|bytes| bytes > 0) {}
        });
        rest.await.expect("it goes on for one who did not read");
        server.stop().await;
    }

    #[tokio::test]
    async fn one_who_has_gone_silent_halfway_costs_its_time_and_no_more() {
        let limits = Limits { connections_max: 8, request_timeout: Duration::from_millis(200), ..brief() };
        let server = Server::start(limits).await;
        // Closed for writing after half a head, after half a body, after a whole request.
        for said in [
            &b"GET /quick HTTP/1.1\r\nho"[..],
            b"PUT /count HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n{",
            QUICK,
        ] {
            for _ in 0..20 {
                let mut stream = server.connect().await;
                stream.write_all(said).await.unwrap();
                stream.shutdown().await.unwrap();
                let answer = read_all(&mut stream).await;
                assert!(!answer.contains("HTTP/1.1 5"), "{answer}");
            }
        }
        answered(&server).await;
        server.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn json_without_a_bottom_is_refused() {
        for body in ["[".repeat(60_000), "{\"count\":".repeat(6_000)] {
            let (status, _, document) = ask(request("PUT", "/count", JSON, body)).await;
            assert_eq!(status, 400, "{document}");
        }
    }

    #[tokio::test]
    async fn the_drain_lets_go_of_idlers_and_cuts_off_the_rest() {
        let server =
            Server::start(Limits { drain_timeout: Duration::from_millis(300), ..Limits::default() }).await;
        let mut idle = server.connect().await;
        idle.write_all(QUICK).await.unwrap();
        idle.read_exact(&mut [0; 15]).await.unwrap();
        let mut busy = server.connect().await;
        busy.write_all(b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        // One answered exchange later, the server has read the one before.
        server.say(QUICK_LAST).await;

        let (address, began) = (server.address, Instant::now());
        server.shutdown.cancel();
        read_all(&mut idle).await;
        assert!(began.elapsed() < Duration::from_millis(300), "an idle connection waits for nothing");
        assert!(TcpStream::connect(address).await.is_err(), "nothing is accepted any more");
        server.serving.await.unwrap().unwrap();
        assert!((300..5_000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        assert_eq!(read_all(&mut busy).await, "");
    }
}
