//! Serves a router over HTTP/1.1 with a named bound on everything that a peer can hold on to: see [`Limits`].
//!
//! [`app`] is the part that works on requests, for tests without sockets; [`serve`] puts connections in front of it.
//! What cannot be read as HTTP at all (a malformed or oversized head) is answered by the HTTP library itself, with a
//! bare status: there is no request yet that a document could be about.

use std::any::Any;
use std::future::Future as _;
use std::io;
use std::pin::{Pin, pin};
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
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Sleep, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::limit::RequestBodyLimitLayer;

use crate::problem::Problem;

/// The longest that a request with `Prefer: wait` is held.
pub const LONG_POLL_MAX: Duration = Duration::from_mins(1);

/// `Prefer`, of RFC 7240.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// `Preference-Applied`, of RFC 7240.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// After a failed `accept` (most often: no file descriptor left) there is nothing to do but to let some go.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The most bytes of a plain error's text that are carried over into its problem document.
const PLAIN_TEXT_MAX_BYTES: usize = 4096;

/// What peers may hold on to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most connections at a time; one more is answered 503 and closed.
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
            // The largest document that is sent to us is a trace of 10,000 values: some 60 KB.
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
    let app = app(router, limits);
    let mut connections = JoinSet::new();
    loop {
        let stream = tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::select! { () = shutdown.cancelled() => break, () = sleep(ACCEPT_PAUSE) => continue }
                }
            },
        };
        if connections.len() >= limits.connections_max {
            metrics::counter!("http_connections_refused_total").increment(1);
            refuse(&stream);
            continue;
        }
        connections.spawn(connection(stream, app.clone(), shutdown.clone(), limits));
    }
    drop(listener);
    let drained =
        timeout(limits.drain_timeout, async { while connections.join_next().await.is_some() {} }).await;
    if drained.is_err() {
        tracing::warn!(connections = connections.len(), "cut off: not ended within the drain's time");
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection(stream: TcpStream, app: Router, shutdown: CancellationToken, limits: Limits) {
    // Answers are small and waited for.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set nodelay");
    }
    let io = TokioIo::new(WriteBound { stream, limit: limits.write_timeout, stalled: None });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_timeout)
        .max_header_size(limits.head_max_bytes)
        .max_headers(limits.headers_max)
        .serve_connection(io, TowerToHyperService::new(app));
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
/// document, and `http_requests_total` counted by route, method and status.
pub fn app(router: Router, limits: Limits) -> Router {
    router
        .layer(DefaultBodyLimit::disable())
        .layer(RequestBodyLimitLayer::new(limits.body_max_bytes))
        .layer(middleware::from_fn_with_state(limits, bound_time))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(finish))
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
    let (problem, document): (_, Body) =
        Problem::of_plain(parts.status, text, &parts.headers).into_response().into_parts();
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
struct WriteBound {
    stream: TcpStream,
    limit: Duration,
    /// Runs while the peer takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl WriteBound {
    fn bound<T>(&mut self, context: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.stalled = None;
            return poll;
        }
        let limit = self.limit;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(limit)));
        stalled.as_mut().poll(context).map(|()| {
            Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing of what is sent to it"))
        })
    }
}

impl AsyncRead for WriteBound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for WriteBound {
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
