//! The clients of ECS and SQS, made when they are first asked for: finding region and credentials may take a call.

use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use tokio::sync::OnceCell;

use crate::config::EcsConfig;
use crate::http::https;

/// How long a call to the queue may be held, and then some.
pub(crate) const QUEUE_WAIT_S: i32 = 20;
const QUEUE_MORE: Duration = Duration::from_secs(10);

/// Both clients.
#[derive(Clone, Debug)]
pub(crate) struct Clients {
    pub(crate) ecs: aws_sdk_ecs::Client,
    pub(crate) sqs: aws_sdk_sqs::Client,
}

/// Where the clients come from.
pub(crate) struct Connection {
    config: EcsConfig,
    /// In tests: a transport of their own, with credentials that nobody checks.
    transport: Option<SharedHttpClient>,
    clients: OnceCell<Clients>,
}

impl Connection {
    pub(crate) fn new(config: EcsConfig, transport: Option<SharedHttpClient>) -> Self {
        Self { config, transport, clients: OnceCell::new() }
    }

    /// The clients, or in words why there are none.
    pub(crate) async fn clients(&self) -> Result<&Clients, String> {
        self.clients.get_or_try_init(|| self.make()).await
    }

    async fn make(&self) -> Result<Clients, String> {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            // One attempt: what is tried again, and when, is decided here.
            .retry_config(RetryConfig::disabled())
            // A queue holds its answer while nothing happens, which the SDK would take for an answer that has stalled.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .timeout_config(self.timeouts());
        if let Some(region) = &self.config.region {
            loader = loader.region(Region::new(region.clone()));
        }
        loader = match &self.transport {
            Some(transport) => loader.http_client(transport.clone()).credentials_provider(
                SharedCredentialsProvider::new(Credentials::new("test", "test", None, None, "driver-ecs")),
            ),
            None => loader.http_client(https().map_err(|error| error.to_string())?),
        };
        let shared = Box::pin(loader.load()).await;
        if shared.region().is_none() {
            return Err("no region is known: set `region` in [ecs], AWS_REGION, or a profile's".to_owned());
        }
        Ok(self.of(&shared))
    }

    fn of(&self, shared: &SdkConfig) -> Clients {
        let mut ecs = aws_sdk_ecs::config::Builder::from(shared);
        if let Some(url) = &self.config.endpoint_url {
            ecs = ecs.endpoint_url(url);
        }
        let mut sqs = aws_sdk_sqs::config::Builder::from(shared).timeout_config(
            TimeoutConfig::builder()
                .operation_attempt_timeout(
                    Duration::from_secs(u64::from(QUEUE_WAIT_S.unsigned_abs())) + QUEUE_MORE,
                )
                .build(),
        );
        if let Some(url) = self.config.events_queue_url.as_deref().and_then(origin) {
            sqs = sqs.endpoint_url(url);
        }
        Clients {
            ecs: aws_sdk_ecs::Client::from_conf(ecs.build()),
            sqs: aws_sdk_sqs::Client::from_conf(sqs.build()),
        }
    }

    fn timeouts(&self) -> TimeoutConfig {
        TimeoutConfig::builder()
            .operation_attempt_timeout(Duration::from_millis(self.config.limits.call_ms))
            .build()
    }
}

/// Scheme, host and port of a queue's URL.
fn origin(url: &str) -> Option<String> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split('/').next().filter(|authority| !authority.is_empty())?;
    Some(format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_answers_where_its_url_says() {
        for (url, expected) in [
            (
                "https://sqs.eu-west-1.amazonaws.com/123456789012/events",
                Some("https://sqs.eu-west-1.amazonaws.com"),
            ),
            ("http://127.0.0.1:4566/queue/events", Some("http://127.0.0.1:4566")),
            ("queue", None),
            ("http:///events", None),
        ] {
            assert_eq!(origin(url).as_deref(), expected, "{url}");
        }
    }
}
