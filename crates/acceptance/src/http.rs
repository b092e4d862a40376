//! A client for the services under test: loopback only, without TLS, proxies or redirects.

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};

/// The time for one answer. The longest that is asked for on purpose is a long poll of five seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);

/// A client that gives up after fifteen seconds.
pub fn client() -> Result<Client> {
    builder().timeout(ANSWER_TIMEOUT).build().context("make an HTTP client")
}

/// A client for streams, which have no end.
pub fn stream_client() -> Result<Client> {
    builder().connect_timeout(ANSWER_TIMEOUT).build().context("make an HTTP client")
}

fn builder() -> ClientBuilder {
    // Built with the rest of the workspace, the client knows TLS and wants a provider before it is made, and
    // roots before it is used. A second call finds the provider there, which is as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().redirect(Policy::none()).tls_certs_only([])
}
