//! What the mains of Force12's services share, so that each main is short and all behave alike at their edges.
//!
//! - [`cli`]: the subcommands that every service has.
//! - [`mod@file`]: files that a configuration names, read within a bound.
//! - [`config`]: one bounded TOML file, unknown keys refused with their place.
//! - [`reload`]: a changed config file, applied while the service runs.
//! - [`telemetry`], [`metrics`]: logs to stderr, Prometheus text on the service's own listener, and metrics and traces
//!   to a collector where the environment names one.
//! - [`trace`]: one trace from service to service.
//! - [`shutdown`]: one token that ends everything.
//! - [`listen`]: an address, or why not.
//! - [`http`]: the accept loop, with a named bound on everything that a peer can hold on to.
//! - [`problem`]: every error is an RFC 9457 document.
//! - [`auth`], [`token`]: who may change something, and how the operator is known.
//! - [`client`]: what they ask others with.
//! - [`openapi`]: what the services' OpenAPI documents share.
//! - [`health`], [`healthcheck`]: the endpoints that every service has, and the client for one of them.
//! - [`sse`]: one stream of documents to many readers.
//! - [`generated`]: keeps generated files in the repository true.

pub mod auth;
pub mod cli;
pub mod client;
pub mod config;
pub mod file;
pub mod generated;
pub mod health;
pub mod healthcheck;
pub mod http;
mod json_lines;
pub mod listen;
pub mod metrics;
pub mod openapi;
mod otlp;
pub mod problem;
pub mod reload;
pub mod shutdown;
pub mod sse;
mod suggest;
pub mod telemetry;
pub mod token;
pub mod trace;
mod waiting;
