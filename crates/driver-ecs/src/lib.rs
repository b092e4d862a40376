//! The driver for an ECS cluster: a task is a container, a container instance (EC2) is an instance. Fargate has no pool
//! that could be shared out.
//!
//! # What is known
//!
//! One [`EcsDriver`] speaks with one ECS cluster, and keeps a book of its tasks and instances (`book`). An observation is
//! read from the book and costs no call. What is written into it comes from the answers to what the driver did, from
//! listings and descriptions (`look`), and from the cluster's events in an SQS queue, where one is configured (`queue`).
//! Each of these may be late, be told twice, or out of order. But what ECS says of a task only ever moves on: from
//! PROVISIONING over RUNNING to STOPPED, and from wanted to be stopped. So whatever comes is merged by taking the later
//! of the two, and no order of arrival makes a difference. A listing that does not show what has just been started, or still
//! shows what has just been stopped, changes nothing: only a task that is looked up by name, and is missing, is gone.
//!
//! # Which tasks are ours
//!
//! Those whose `startedBy` is that of our cluster (`names`): it can be listed by, and nobody else sets it. Tags say of
//! which service and generation a task is. ECS deletes a task's tags with StopTask, so the task's `group` says the same
//! once more. Which instance it is on is what ECS itself says; no tag is asked.
//!
//! # What is never done twice
//!
//! StartTask has no client token. A call without a clear answer is an unknown outcome, never repeated here, and its
//! instance is listed until the outcome has shown. A driver that begins does not know what another one before it has
//! asked for: it answers no observation, so that nothing is planned, before `settle_ms` have passed and everything has
//! been listed after that.
//!
//! # How much is asked
//!
//! Every call takes a token of its API's quota first (`quota`). A part is kept for the most important services' starts, and
//! for the stops that they wait for.

mod agent;
mod api;
mod batch;
mod book;
mod config;
mod connection;
mod core;
mod discovery;
mod driver;
mod error;
mod http;
mod look;
mod names;
mod queue;
mod quota;
mod task;

pub use config::{EcsConfig, Limits, Reserve, Wanted};
pub use discovery::{Discovered, DiscoveredInstance, Revision};
pub use driver::EcsDriver;
pub use http::{TransportError, https};

/// Tells the recorder what each metric of this driver means. Call it once, when the recorder is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "force12_ecs_calls_total",
        "Calls to AWS that have ended, by API and outcome."
    );
    metrics::describe_histogram!(
        "force12_ecs_call_seconds",
        "What calls to AWS take, without the wait for their turn."
    );
    metrics::describe_counter!(
        "force12_ecs_events_total",
        "Events from the queue, by what became of them: `news`, `known`, `foreign` or `poison`."
    );
}
