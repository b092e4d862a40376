//! The way to a demand source over HTTP: one question, one bounded answer.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api_types::demand::{ReadDocument, read_document};
use async_trait::async_trait;
use controller::{DemandAnswer, DemandDetail, DemandTransport, FeedError, FetchRequest};
use reqwest::header::{ACCEPT, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderMap, IF_NONE_MATCH, LOCATION};
use reqwest::{Response, StatusCode, Url};
use service_kit::client::{ClientError, Clients};
use service_kit::trace;
use tracing::{Instrument as _, Span, info_span};

/// The largest demand document that is read: ten thousand keys with details.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// The longest tag that is sent back to a source.
const ETAG_BYTES_MAX: usize = 1024;
/// How long a connection may take to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a complete answer may take, beyond the time for which the source was asked to hold it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How much of a source's own words is shown.
const SHOWN_CHARACTERS_MAX: usize = 200;

/// A demand source behind a URL.
pub struct HttpTransport {
    clients: Arc<Clients>,
    url: Url,
    answer_timeout: Duration,
}

/// The clients that all transports share, with more roots from `ca_file`.
///
/// They take no proxy from the environment: a demand source is asked where the configuration says it is. Nor do they
/// follow it elsewhere, or unpack what it has packed: an answer is as large as it is sent.
pub fn clients(ca_file: Option<PathBuf>) -> Result<Clients, ClientError> {
    Clients::new(ca_file, |client| {
        client
            .user_agent(concat!("force12-scheduler/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
    })
}

impl HttpTransport {
    /// A source behind `url`.
    pub fn new(clients: Arc<Clients>, url: Url) -> Self {
        Self { clients, url, answer_timeout: ANSWER_TIMEOUT }
    }

    /// Where an answer points to.
    fn place_in_words(&self, location: &str) -> String {
        let url = self.url.join(location);
        url.map_or_else(|_| "a place that is no url".to_owned(), |url| shown(&url_in_words(&url)))
    }

    async fn ask(&self, request: FetchRequest) -> Result<DemandAnswer, String> {
        let wait = request.wait.filter(|wait| wait.as_secs() > 0);
        let timeout = self.answer_timeout + wait.unwrap_or_default();
        let mut question = self
            .clients
            .current()
            .await
            .get(self.url.clone())
            .header(ACCEPT, "application/json")
            .timeout(timeout);
        question = question.headers(trace::headers());
        if let Some(wait) = wait {
            question = question.header("prefer", format!("wait={}", wait.as_secs()));
        }
        let tagged = request.etag.is_some();
        if let Some(etag) = request.etag {
            question = question.header(IF_NONE_MATCH, etag);
        }
        let in_words = |error: reqwest::Error| error_in_words(&error.without_url(), timeout);
        let response = question.send().await.map_err(in_words)?;
        let wait_applied = wait_applied(response.headers());
        match response.status() {
            StatusCode::NOT_MODIFIED if tagged => Ok(DemandAnswer::NotModified { wait_applied }),
            StatusCode::OK => {
                if let Some(encoding) =
                    response.headers().get(CONTENT_ENCODING).filter(|encoding| *encoding != "identity")
                {
                    return Err(format!(
                        "the answer is packed ({}), which was not asked for",
                        shown(&String::from_utf8_lossy(encoding.as_bytes()))
                    ));
                }
                let etag = etag(response.headers());
                let cause = cause(response.headers());
                let body = body(response, BODY_BYTES_MAX, timeout).await?;
                let document = read_document(&body)
                    .map_err(|error| format!("the answer is not a demand document: {error}"))?;
                Ok(changed(document, etag, wait_applied, cause))
            }
            status if status.is_redirection() => Err(match response.headers().get(LOCATION) {
                Some(location) if status != StatusCode::NOT_MODIFIED => format!(
                    "answered {status}, to {}; redirects are not followed: configure the final url",
                    self.place_in_words(&String::from_utf8_lossy(location.as_bytes()))
                ),
                _ => format!("answered {status}, which was not asked for"),
            }),
            status => Err(format!("answered {status}; a demand source answers 200 or 304")),
        }
    }
}

#[async_trait]
impl DemandTransport for HttpTransport {
    async fn fetch(&self, request: FetchRequest) -> Result<DemandAnswer, FeedError> {
        let span = match request.wait {
            Some(_) => {
                info_span!("ask for demand", otel.kind = "client", server.address = self.url.host_str())
            }
            // At most every few hundred milliseconds: there is nothing to see in that many.
            None => Span::none(),
        };
        let asked = self.ask(request).instrument(span).await;
        asked.map_err(|words| FeedError(format!("{}: {words}", url_in_words(&self.url))))
    }
}

/// A URL for logs and pages: without a user, a password, or what its query says, any of which may be a secret.
pub fn url_in_words(url: &Url) -> String {
    let mut shown = url.clone();
    // Neither is refused of a URL with a host, and one without has neither.
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    shown.set_query(url.query().map(|_| "…"));
    shown.set_fragment(None);
    // A URL has no other way to hold that sign.
    shown.as_str().replace("?%E2%80%A6", "?…")
}

/// What has changed the demand, if the source tells: what follows is a part of that trace.
fn cause(headers: &HeaderMap) -> Span {
    if !headers.contains_key(trace::TRACEPARENT) {
        return Span::none();
    }
    let span = info_span!(parent: None, "learn demand");
    trace::set_parent(&span, headers);
    span
}

fn changed(document: ReadDocument, etag: Option<String>, wait_applied: bool, cause: Span) -> DemandAnswer {
    let details = document
        .details
        .into_iter()
        .map(|(key, detail)| {
            let reason = detail.reason.map(|reason| shown(&reason));
            (key, DemandDetail { reason, age_ms: detail.age_ms })
        })
        .collect();
    DemandAnswer::Changed { etag, wait_applied, values: document.demand, details, cause }
}

/// Reads the body, of at most `bytes_max` bytes.
pub(crate) async fn body(
    mut response: Response,
    bytes_max: usize,
    timeout: Duration,
) -> Result<Vec<u8>, String> {
    let too_large = || format!("the answer is larger than {bytes_max} bytes");
    let announced =
        response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if announced.is_some_and(|bytes: u64| bytes > bytes_max as u64) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| error_in_words(&error, timeout))? {
        if body.len() + chunk.len() > bytes_max {
            return Err(too_large());
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// A tag that is too long, or not text, is as none: the next answer is read whole.
fn etag(headers: &HeaderMap) -> Option<String> {
    let etag = headers.get(ETAG)?.to_str().ok()?;
    (etag.len() <= ETAG_BYTES_MAX).then(|| etag.to_owned())
}

/// Whether `Preference-Applied` names `wait` (RFC 7240: names are case-insensitive, a value may follow).
fn wait_applied(headers: &HeaderMap) -> bool {
    headers
        .get_all("preference-applied")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|preference| {
            preference.split(['=', ';']).next().unwrap_or_default().trim().eq_ignore_ascii_case("wait")
        })
}

fn error_in_words(error: &reqwest::Error, timeout: Duration) -> String {
    if error.is_connect() {
        if error.is_timeout() {
            return format!("no connection within {} ms", CONNECT_TIMEOUT.as_millis());
        }
        return format!("cannot connect: {}", root_in_words(error));
    }
    if error.is_timeout() {
        return format!("no complete answer within {} ms", timeout.as_millis());
    }
    format!("no complete answer: {}", root_in_words(error))
}

/// The last cause, which is the one that says something.
fn root_in_words(error: &reqwest::Error) -> String {
    let mut root: &dyn Error = error;
    while let Some(source) = root.source() {
        root = source;
    }
    shown(&root.to_string().to_lowercase())
}

/// A peer's own words, cut and without control characters, fit for a log line and a page.
fn shown(text: &str) -> String {
    let mut characters = text.chars();
    let mut shown = String::new();
    for character in characters.by_ref().take(SHOWN_CHARACTERS_MAX) {
        let _ = if character.is_control() { shown.write_char(' ') } else { shown.write_char(character) };
    }
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests;
