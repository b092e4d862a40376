//! The way to a collector over HTTP: bounded in time and in what is read of its answers, and the one place that says
//! that a collector does not take what it is given.

use std::error::Error;
use std::io::Read as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use reqwest::blocking::Client;
use reqwest::header::CONTENT_TYPE;

use super::environment::Target;
use crate::client::{ClientError, tls};

/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// As much of an answer as is read. It says at most how many of the spans were refused, and why.
const ANSWER_MAX_BYTES: u64 = 64 * 1024;
/// While a collector does not take what it is given, this is said no more often.
const SAY_EVERY: Duration = Duration::from_mins(1);

/// A client runs on a thread of its own, so it must be made, and used, outside of any asynchronous runtime: the SDK's
/// own threads use it.
fn client(ca_file: Option<&Path>) -> Result<Client, ClientError> {
    let client = Client::builder()
        .tls_backend_preconfigured(tls(ca_file)?)
        .connect_timeout(CONNECT_TIMEOUT)
        // The headers may hold secrets: they go where they were meant to go.
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    Ok(client)
}

/// Sends one signal.
#[derive(Debug)]
pub(crate) struct Sender {
    client: Client,
    signal: &'static str,
    /// Without path and query, for people.
    origin: String,
    timeout: Duration,
    trouble: Mutex<Trouble>,
}

/// What has gone wrong since it last went well.
#[derive(Debug, Default)]
struct Trouble {
    failed: u64,
    said_at: Option<Instant>,
}

impl Sender {
    pub(crate) fn new(signal: &'static str, target: &Target) -> Result<Self, ClientError> {
        let client = client(target.ca_path())?;
        let origin = target.endpoint.origin().ascii_serialization();
        Ok(Self { client, signal, origin, timeout: target.timeout, trouble: Mutex::default() })
    }

    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let mut request = reqwest::blocking::Request::try_from(request)?;
        *request.timeout_mut() = Some(self.timeout);
        // Its query may hold secrets too.
        let answer = self.client.execute(request).map_err(reqwest::Error::without_url)?;
        let mut response = Response::builder().status(answer.status());
        if let Some(headers) = response.headers_mut() {
            headers.extend(answer.headers().clone());
        }
        let mut body = Vec::new();
        // What is longer is no answer to this; cut off, it is not read as one.
        answer.take(ANSWER_MAX_BYTES).read_to_end(&mut body)?;
        Ok(response.body(body.into())?)
    }

    fn say(&self, answer: &Result<Response<Bytes>, HttpError>) {
        let why = match answer {
            // A collector answers in protobuf, or says nothing; this is somebody else's web site.
            Ok(answer) if is_page(answer) => Some(format!("answered {} with a web page", answer.status())),
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("answered {}", answer.status())),
            Err(error) => Some(root(&**error)),
        };
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(why) = why else {
            if trouble.failed > 0 {
                tracing::info!(
                    signal = self.signal,
                    collector = self.origin,
                    "the collector takes telemetry again"
                );
            }
            *trouble = Trouble::default();
            return;
        };
        trouble.failed += 1;
        if trouble.said_at.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            trouble.said_at = Some(Instant::now());
            tracing::warn!(
                signal = self.signal,
                collector = self.origin,
                error = why,
                failed = trouble.failed,
                "the collector does not take telemetry; what it does not take is lost"
            );
        }
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.send(request);
        self.say(&answer);
        answer
    }
}

fn is_page(answer: &Response<Bytes>) -> bool {
    answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/html"))
}

/// What is at the bottom of an error: the layers above repeat the URL, and say less.
fn root(error: &(dyn Error + 'static)) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}
