//! The transport of the AWS SDK without a network: a client is given this as its HTTP client.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::body::SdkBody;

use crate::ecs::FakeEcs;
use crate::wire::Outcome;

/// An HTTP client of the SDK that asks a [`FakeEcs`], on tokio's clock: `Config::builder().http_client(…)`.
#[derive(Clone, Debug)]
pub struct InProcess {
    ecs: FakeEcs,
    /// The SDK's own limit for the first byte of an answer.
    read_timeout: Option<Duration>,
}

impl InProcess {
    /// A client of this fake.
    pub fn new(ecs: FakeEcs) -> Self {
        Self { ecs, read_timeout: None }
    }
}

impl HttpClient for InProcess {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        _components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        SharedHttpConnector::new(Self { ecs: self.ecs.clone(), read_timeout: settings.read_timeout() })
    }
}

impl HttpConnector for InProcess {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (ecs, read_timeout) = (self.ecs.clone(), self.read_timeout);
        let target = request.headers().get("x-amz-target").unwrap_or_default().to_owned();
        let body = request.body().bytes().unwrap_or_default().to_vec();
        HttpConnectorFuture::new(async move {
            let asked = ecs.call(&target, body);
            let outcome = match read_timeout {
                None => asked.await,
                Some(limit) => tokio::time::timeout(limit, asked)
                    .await
                    .map_err(|elapsed| ConnectorError::timeout(elapsed.into()))?,
            };
            match outcome {
                Outcome::Broken => Err(ConnectorError::io("connection reset by the fake".into())),
                Outcome::Answered(answer) => {
                    let status = StatusCode::try_from(answer.status)
                        .map_err(|error| ConnectorError::other(error.into(), None))?;
                    let mut response = HttpResponse::new(status, SdkBody::from(answer.body));
                    response.headers_mut().insert("content-type", "application/x-amz-json-1.1");
                    Ok(response)
                }
            }
        })
    }
}
