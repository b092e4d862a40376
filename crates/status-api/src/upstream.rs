//! Requests that are passed on to the services behind this one.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api_types::problem::PROBLEM_JSON;
use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use reqwest::Url;
use service_kit::client::{ClientError, Clients};
use service_kit::problem::Problem;
use service_kit::trace;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::field::Empty;
use tracing::{Instrument as _, Span, info_span};

use crate::address::Addresses;
use crate::follow::root;

/// From the connection to the last byte; less than this service's own answers may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// The most bytes of an answer: 500 decisions of some 10 actions each take 2 MiB.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;
/// The most bytes of one service's answers that are held at a time, until their callers have taken them: two of the
/// largest. However many ask, this is what it takes of memory. Answers to changes are not counted: only the operator
/// gets them, they are small, and what was done has to be told.
const HELD_MAX_BYTES: usize = 8 * 1024 * 1024;
/// The most requests under way at a time to one service, that its connections are not used up from here.
const UNDER_WAY_MAX: usize = 32;
/// Resolving and connecting, within one machine or one network.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// The most bytes of one name in a path.
const NAME_MAX_BYTES: usize = 255;

/// The client for one service, with more roots from `ca_file`.
pub fn client(ca_file: Option<PathBuf>) -> Result<Arc<Clients>, ClientError> {
    Clients::new(ca_file, setup).map(Arc::new)
}

/// The client for whichever service of a name acts. It keeps no connections, so that each request goes where `addresses`
/// says then.
pub fn client_of(addresses: &Addresses, ca_file: Option<PathBuf>) -> Result<Arc<Clients>, ClientError> {
    let resolver = Arc::new(addresses.clone());
    let setup = move |builder| setup(builder).dns_resolver(Arc::clone(&resolver)).pool_max_idle_per_host(0);
    Clients::new(ca_file, setup).map(Arc::new)
}

fn setup(builder: reqwest::ClientBuilder) -> reqwest::ClientBuilder {
    builder
        .connect_timeout(CONNECT_MAX)
        // What is configured is what is asked: no proxy of the environment, no redirect with the operator's token.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
}

/// A service behind this one. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Upstream {
    name: &'static str,
    base: Url,
    clients: Arc<Clients>,
    under_way: Arc<Semaphore>,
    /// A permit a byte.
    held: Arc<Semaphore>,
}

impl Upstream {
    /// The service `name` (for people) at `base`.
    pub fn new(name: &'static str, base: Url, clients: Arc<Clients>) -> Self {
        let under_way = Arc::new(Semaphore::new(UNDER_WAY_MAX));
        let held = Arc::new(Semaphore::new(HELD_MAX_BYTES));
        Self { name, base, clients, under_way, held }
    }

    /// The URL of a path, given as its segments; `None` where a segment cannot be a name.
    pub fn url(&self, segments: &[&str]) -> Option<Url> {
        // A URL has no way to carry these as names: they would change the path.
        if segments.iter().any(|name| matches!(*name, "" | "." | "..") || name.len() > NAME_MAX_BYTES) {
            return None;
        }
        let mut url = self.base.clone();
        url.path_segments_mut().ok()?.pop_if_empty().extend(segments);
        Some(url)
    }

    /// Passes a request on, with the caller's token, and its answer back. What the service itself refuses is passed
    /// back as it is; 503 when it does not answer, 502 when its answer cannot be passed on.
    pub async fn pass(
        &self,
        method: Method,
        segments: &[&str],
        query: &[(&str, String)],
        authorization: Option<&HeaderValue>,
        body: Option<Bytes>,
    ) -> Result<Response, Problem> {
        let _place = self.under_way.try_acquire().map_err(|_| {
            Problem::unavailable(format!(
                "{UNDER_WAY_MAX} requests to {} are under way already; try again",
                self.name
            ))
        })?;
        let mut url = self.url(segments).ok_or_else(|| {
            Problem::not_found(format!("no such name: {NAME_MAX_BYTES} bytes at most, and not empty"))
        })?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let counted = method == Method::GET;
        let span = info_span!(
            "pass on",
            otel.name = format!("{method} /{}", segments.join("/")),
            otel.kind = "client",
            peer.service = self.name,
            http.response.status_code = Empty,
        );
        let headers = span.in_scope(trace::headers);
        let client = self.clients.current().await;
        let mut request = client.request(method, url).timeout(ANSWER_MAX).headers(headers);
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        async {
            let response = request.send().await.map_err(|error| self.unreachable(&error))?;
            Span::current().record("http.response.status_code", response.status().as_u16());
            self.answer(response, counted).await
        }
        .instrument(span)
        .await
    }

    async fn answer(&self, mut response: reqwest::Response, counted: bool) -> Result<Response, Problem> {
        let status = response.status();
        let kind = response.headers().get(CONTENT_TYPE).cloned();
        let mut body: Vec<Held> = Vec::new();
        let mut bytes = 0;
        while let Some(chunk) = response.chunk().await.map_err(|error| self.unreachable(&error))? {
            bytes += chunk.len();
            if bytes > ANSWER_MAX_BYTES {
                return Err(Problem::bad_gateway(format!(
                    "{} answered with more than {ANSWER_MAX_BYTES} bytes; ask for less",
                    self.name
                )));
            }
            let place = if counted { Some(self.hold(chunk.len())?) } else { None };
            body.push(Held { chunk, _place: place });
        }
        let is_json = kind.as_ref().is_some_and(|kind| {
            kind.as_bytes().starts_with(b"application/json")
                || kind.as_bytes().starts_with(PROBLEM_JSON.as_bytes())
        });
        // Anything else is not ours to serve from this origin: a redirect, a proxy's page.
        if !(status == StatusCode::NO_CONTENT && bytes == 0) && (!is_json || status.is_redirection()) {
            return Err(Problem::bad_gateway(format!(
                "{} answered {status} and not in JSON; is its URL in the config right?",
                self.name
            )));
        }
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(kind) = kind {
            headers.insert(CONTENT_TYPE, kind);
        }
        // Chunk by chunk, so that a caller's pace frees what it has taken.
        let chunks = body.into_iter().map(|held| Ok::<_, Infallible>(Bytes::from_owner(held)));
        Ok((status, headers, Body::from_stream(futures_util::stream::iter(chunks))).into_response())
    }

    fn hold(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let permits = u32::try_from(bytes).unwrap_or(u32::MAX);
        Arc::clone(&self.held).try_acquire_many_owned(permits).map_err(|_| {
            Problem::unavailable(format!(
                "{HELD_MAX_BYTES} bytes of answers of {} wait to be taken already; try again",
                self.name
            ))
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Problem {
        // The URL is the operator's to know; a caller is told the name.
        tracing::warn!(url = %self.base, error = root(error), "a request could not be passed on");
        let why = if error.is_timeout() {
            format!("not within {} ms", ANSWER_MAX.as_millis())
        } else if error.is_connect() {
            "it cannot be connected to".to_owned()
        } else {
            "the connection broke".to_owned()
        };
        Problem::unavailable(format!("{} did not answer: {why}; try again", self.name)).with_code("upstream")
    }
}

/// A part of an answer, and its share of [`HELD_MAX_BYTES`].
struct Held {
    chunk: Bytes,
    _place: Option<OwnedSemaphorePermit>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.chunk
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use super::*;

    /// A service over https that answers everybody `{}`, with a certificate for 127.0.0.1 of its own making; gives its URL
    /// and the certificate, in PEM form.
    fn https_service() -> (Url, String) {
        let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}/", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let mut socket = socket.unwrap();
                let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
                let mut stream = rustls::Stream::new(&mut connection, &mut socket);
                let answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\
                    connection: close\r\n\r\n{}";
                // Whoever does not trust the certificate goes away before.
                if stream.read(&mut [0; 4096]).is_ok() && stream.write_all(answer).is_ok() {
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
            }
        });
        (Url::parse(&url).unwrap(), made.cert.pem())
    }

    #[tokio::test]
    async fn roots_in_a_file_that_changes_are_trusted() {
        let (url, certificate) = https_service();
        let (_, another) = https_service();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), another).unwrap();
        let ca_file = Some(file.path().to_owned());
        let of_all = client(ca_file.clone()).unwrap();
        let of_one = client_of(&Addresses::default(), ca_file).unwrap();
        let upstreams = [of_all, of_one].map(|clients| Upstream::new("the scheduler", url.clone(), clients));
        let ask = async |upstream: &Upstream| upstream.pass(Method::GET, &["x"], &[], None, None).await;
        for upstream in &upstreams {
            assert!(ask(upstream).await.is_err(), "the file names another");
        }
        std::fs::write(file.path(), certificate).unwrap();
        let trusted = async {
            for upstream in &upstreams {
                while ask(upstream).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), trusted).await.expect("the file names it now");
    }

    #[test]
    fn names_cannot_change_the_path() {
        let upstream =
            Upstream::new("the scheduler", Url::parse("http://h:1/base/").unwrap(), client(None).unwrap());
        let path = |name: &str| upstream.url(&["v1", "instances", name, "drain"]).map(|url| url.to_string());
        assert_eq!(path("instance-1").unwrap(), "http://h:1/base/v1/instances/instance-1/drain");
        assert_eq!(path("a/b?c#d%2f").unwrap(), "http://h:1/base/v1/instances/a%2Fb%3Fc%23d%252f/drain");
        for refused in ["", ".", ".."] {
            assert_eq!(path(refused), None);
        }
        assert_eq!(path(&"x".repeat(NAME_MAX_BYTES + 1)), None);
    }
}
