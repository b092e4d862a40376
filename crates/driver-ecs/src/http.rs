//! The SDK's way to the network: reqwest with rustls, and roots that are compiled in, since an image FROM scratch has none.

use std::sync::Arc;
use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use reqwest::redirect;
use rustls::{ClientConfig, RootCertStore};
use tokio::time::timeout;

/// For a connection, TLS included. The SDK asks for less where less is due, such as for instance metadata.
const CONNECT: Duration = Duration::from_secs(3);
/// A connection that is not used is kept for so long: AWS closes its own after some 20 s.
const KEPT_IDLE: Duration = Duration::from_secs(15);
/// The most bytes of an answer. A hundred described tasks of ten containers each are some hundreds of kilobytes.
const ANSWER_MAX_BYTES: usize = 32 * 1024 * 1024;

/// No connection was made, so that nothing was asked.
#[derive(Debug, thiserror::Error)]
#[error("no connection: {0}")]
pub(crate) struct NotConnected(String);

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
#[error("cannot build an http client: {0}")]
pub struct TransportError(#[from] reqwest::Error);

/// The way to the network that a driver uses by itself, for other clients of the SDK.
pub fn https() -> Result<SharedHttpClient, TransportError> {
    Ok(SharedHttpClient::new(Https::new()?))
}

#[derive(Clone, Debug)]
struct Https {
    client: reqwest::Client,
}

impl Https {
    fn new() -> Result<Self, TransportError> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has what both versions need")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            // Credentials come by HTTP too, from the host itself: no proxy is to see them.
            .no_proxy()
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT)
            .pool_idle_timeout(KEPT_IDLE)
            .build()?;
        Ok(Self { client })
    }
}

impl HttpClient for Https {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        // Without a limit for the answer there is one for the attempt: a queue holds its answer for long, and the SDK's
        // default for connecting says nothing of that.
        let limit = settings.read_timeout().map(|read| settings.connect_timeout().unwrap_or_default() + read);
        SharedHttpConnector::new(Connector { client: self.client.clone(), limit })
    }
}

#[derive(Debug)]
struct Connector {
    client: reqwest::Client,
    limit: Option<Duration>,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.client.clone();
        let limit = self.limit;
        HttpConnectorFuture::new(async move {
            let Some(limit) = limit else { return send(&client, request).await };
            timeout(limit, send(&client, request)).await.unwrap_or_else(|_| {
                Err(ConnectorError::timeout(format!("no answer within {} ms", limit.as_millis()).into()))
            })
        })
    }
}

async fn send(client: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (parts, body) = request.into_parts();
    let bytes = body.bytes().map(<[u8]>::to_vec).ok_or_else(|| {
        ConnectorError::user("a request whose body is not in memory is not for this client".into())
    })?;
    let answer = client
        .request(parts.method, parts.uri.to_string())
        .headers(parts.headers)
        .body(bytes)
        .send()
        .await
        .map_err(sort)?;
    let mut response = HttpResponse::new(
        answer
            .status()
            .as_u16()
            .try_into()
            .map_err(|_| ConnectorError::other("the answer has no HTTP status".into(), None))?,
        SdkBody::empty(),
    );
    for (name, value) in answer.headers() {
        if let Ok(value) = value.to_str() {
            response.headers_mut().append(name.as_str().to_owned(), value.to_owned());
        }
    }
    *response.body_mut() = SdkBody::from(whole(answer).await?);
    Ok(response)
}

async fn whole(mut answer: reqwest::Response) -> Result<Vec<u8>, ConnectorError> {
    let mut bytes = Vec::new();
    while let Some(more) = answer.chunk().await.map_err(sort)? {
        if bytes.len() + more.len() > ANSWER_MAX_BYTES {
            let message = format!("the answer has more than {ANSWER_MAX_BYTES} bytes");
            return Err(ConnectorError::other(message.into(), None));
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

fn sort(error: reqwest::Error) -> ConnectorError {
    if error.is_connect() {
        ConnectorError::io(Box::new(NotConnected(crate::error::chain(&error))))
    } else if error.is_timeout() {
        ConnectorError::timeout(Box::new(error))
    } else {
        ConnectorError::io(Box::new(error))
    }
}
