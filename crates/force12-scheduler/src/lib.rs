//! force12-scheduler: the service around the controller.
//!
//! - [`config`]: the configuration file, from text to settings or to everything that is wrong with it.
//! - [`connections`], [`demand`]: the ways to engines and demand sources.
//! - [`pool`]: the pool where it is an ECS cluster, whose instances are discovered.
//! - [`convert`], [`summary`]: the controller's words as the wire's, and in a sentence.
//! - [`http`]: the API.
//! - [`claim`], [`lock`], [`deadline`], [`init`]: which of several schedulers acts.
//! - [`run`](mod@run), [`reload`], [`drain`](mod@drain), [`check`]: what the commands do.

pub mod check;
pub mod claim;
pub mod config;
pub mod connections;
pub mod convert;
pub mod deadline;
pub mod demand;
pub mod drain;
pub mod http;
pub mod init;
pub mod lock;
pub mod pool;
pub mod reload;
pub mod run;
pub mod summary;

/// The service's name, in logs and in what it says of itself.
pub const SERVICE: &str = "force12-scheduler";
