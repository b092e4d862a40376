//! Connections, and the bounds on them.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use api_types::problem::PROBLEM_JSON;
use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::write_bound::WriteBound;
use super::{Limits, app};
use crate::listen::{Acceptor, connections_that_fit};
use crate::problem::Problem;
use crate::waiting::{Place, Waiting};

/// Places for peers on this machine beyond [`Limits::connections_max`]: that is where a container engine's healthcheck
/// and a person with curl ask from, when all other places are taken.
const LOCAL_PLACES: usize = 16;

/// The most bytes that wait in one connection, each way. The library's own limit, 400 KiB, would add up to as many
/// megabytes for peers that write one request after the other without reading an answer.
const BUFFER_MAX_BYTES: usize = 32 * 1024;

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
    let io = TokioIo::new(WriteBound::new(stream, limits.write_timeout, limits.write_min_bytes));
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

#[cfg(test)]
mod tests {
    // With real sockets, and so in real time: short limits in place of paused clocks.

    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::task::JoinHandle;
    use tokio::time::{Instant, sleep};

    use super::super::testing::router;
    use super::*;

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
