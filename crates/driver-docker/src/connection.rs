//! The connections to one engine.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use bollard::auth::DockerCredentials;
use bollard::errors::Error as EngineError;
use bollard::{API_DEFAULT_VERSION, BollardRequest, Docker, body_full};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{DATE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::TokioExecutor;
use hyperlocal::UnixConnector;
use serde::Deserialize;

use crate::config::{DockerConfig, EngineAddress};
use crate::tls::Tls;

/// bollard's own limit per call, in seconds. Every call here is bounded more tightly by its caller.
const BACKSTOP_S: u64 = 86_400;
/// A TCP connection on which nothing has come for this long is probed, so that one that a firewall has forgotten
/// is noticed: the event stream may be silent for days.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// Between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Unanswered probes that end the connection.
const KEEPALIVE_RETRIES: u32 = 3;

/// Of the words with which the engine refuses what has no end; more is not read.
const REFUSAL_MAX_BYTES: usize = 64 * 1024;

/// The header with the credentials for a registry.
const REGISTRY_AUTH: &str = "x-registry-auth";

type Answer = Result<Response<Incoming>, EngineError>;
type Sender = Arc<dyn Fn(BollardRequest) -> BoxFuture<'static, Answer> + Send + Sync>;

/// Connects to one engine, anew for every call: an old connection may turn out to be dead only after the request
/// went into it, and then nobody knows whether it was carried out.
#[derive(Clone)]
pub(crate) struct Connection {
    /// The scheme and authority of every request's URI.
    base: String,
    send: Sender,
    docker: Docker,
}

impl Connection {
    /// Connects to nothing yet. `engine` is the driver's name, for logs.
    pub(crate) fn new(engine: &str, config: &DockerConfig) -> Self {
        let (base, send) = match &config.engine {
            EngineAddress::Unix(path) => {
                let root = hyper::Uri::from(hyperlocal::Uri::new(path, "/")).to_string();
                (root.trim_end_matches('/').to_owned(), sender(UnixConnector))
            }
            EngineAddress::Tcp(authority) => {
                let mut connector = HttpConnector::new();
                connector.set_nodelay(true);
                connector.set_connect_timeout(Some(Duration::from_millis(config.limits.connect_ms)));
                connector.set_keepalive(Some(KEEPALIVE));
                connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
                connector.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
                match &config.tls {
                    Some(files) => {
                        let tls = Arc::new(Tls::new(engine, files.clone()));
                        (format!("https://{authority}"), tls_sender(connector, tls))
                    }
                    None => (format!("http://{authority}"), sender(connector)),
                }
            }
        };
        let docker = client(&base, {
            let send = Arc::clone(&send);
            move |request| send(request)
        });
        Self { base, send, docker }
    }

    /// The engine's API.
    pub(crate) fn docker(&self) -> &Docker {
        &self.docker
    }

    /// The engine's events as it tells them, from the moment on in which it has accepted the request.
    pub(crate) async fn events(&self, query: &str) -> Result<Incoming, EngineError> {
        accepted(self.get(&format!("/events?{query}")).await?).await
    }

    /// Has the engine pull an image, and hands back how it comes on, from the moment on in which the engine has something to
    /// tell.
    pub(crate) async fn pull(
        &self,
        query: &str,
        credentials: Option<&DockerCredentials>,
    ) -> Result<Incoming, EngineError> {
        let mut request = Request::post(format!("{}/images/create?{query}", self.base));
        if let Some(credentials) = credentials {
            // The alphabet of URLs: what the engine cannot read it takes for no credentials at all.
            let mut value = HeaderValue::try_from(URL_SAFE.encode(serde_json::to_vec(credentials)?))
                .expect("base64 is fit for a header");
            value.set_sensitive(true);
            request = request.header(REGISTRY_AUTH, value);
        }
        accepted((self.send)(request.body(body_full(Bytes::new()))?).await?).await
    }

    /// Whether the engine answers, and its clock if it tells (to the second).
    pub(crate) async fn ping(&self) -> Result<Option<SystemTime>, EngineError> {
        let response = self.get("/_ping").await?;
        if !response.status().is_success() {
            return Err(EngineError::DockerResponseServerError {
                status_code: response.status().as_u16(),
                message: "the engine does not answer a ping".to_owned(),
            });
        }
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        Ok(date.and_then(|date| httpdate::parse_http_date(date).ok()))
    }

    async fn get(&self, path: &str) -> Answer {
        let request = Request::get(format!("{}{path}", self.base)).body(body_full(Bytes::new()))?;
        (self.send)(request).await
    }
}

fn sender<C: Connect + Clone + Send + Sync + 'static>(connector: C) -> Sender {
    Arc::new(move |request| send(connector.clone(), request).boxed())
}

fn tls_sender(mut connector: HttpConnector, tls: Arc<Tls>) -> Sender {
    connector.enforce_http(false);
    Arc::new(move |request| {
        let (connector, tls) = (connector.clone(), Arc::clone(&tls));
        async move {
            let config = tls.config().await.map_err(io::Error::other)?;
            send(HttpsConnector::from((connector, config)), request).await
        }
        .boxed()
    })
}

async fn send<C: Connect + Clone + Send + Sync + 'static>(connector: C, request: BollardRequest) -> Answer {
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    already_so(client.request(request).await?)
}

/// The body of an answer that has no end, or why the engine has refused.
async fn accepted(response: Response<Incoming>) -> Result<Incoming, EngineError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response.into_body());
    }
    let message = match Limited::new(response.into_body(), REFUSAL_MAX_BYTES).collect().await {
        Ok(message) => refusal(&message.to_bytes()),
        Err(_) => format!("the engine answered {status}"),
    };
    Err(EngineError::DockerResponseServerError { status_code: status.as_u16(), message })
}

/// The engine says it in JSON; something in between may say it in any other way.
fn refusal(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refused {
        message: String,
    }
    match serde_json::from_slice(body) {
        Ok(Refused { message }) => message,
        Err(_) => String::from_utf8_lossy(body).trim().to_owned(),
    }
}

/// bollard takes 304 for success, and with that the news that nothing had to be done would be lost.
fn already_so(response: Response<Incoming>) -> Answer {
    if response.status() == StatusCode::NOT_MODIFIED {
        return Err(EngineError::DockerResponseServerError {
            status_code: response.status().as_u16(),
            message: "it is so already".to_owned(),
        });
    }
    Ok(response)
}

fn client<F, A>(base: &str, send: F) -> Docker
where
    F: Fn(BollardRequest) -> A + Send + Sync + 'static,
    A: Future<Output = Answer> + Send + 'static,
{
    // The version is for features that we do not use: no path carries it, so that each engine answers in its own.
    Docker::connect_with_custom_transport(send, Some(base), BACKSTOP_S, API_DEFAULT_VERSION)
        .expect("it only stores what it is given")
}
