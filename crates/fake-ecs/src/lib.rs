//! A faithful fake of Amazon ECS, for tests and demonstrations. No emulator enforces what matters to a scheduler;
//! this one does: capacity, placement failures, delays, lag, quotas, pages, events, agents that go away.
//!
//! [`FakeEcs`] is the service and its container instances. It is asked over HTTP ([`http`]), or by a client of the AWS
//! SDK without any network ([`InProcess`]), on tokio's clock in both cases, so that paused time makes hours pass in
//! milliseconds. The containers are simulated, or those of a Docker engine. Every behaviour names the page of the AWS
//! documentation that it follows, beside the code:
//!
//! | what | where |
//! |---|---|
//! | the wire format and its errors | `wire.rs` |
//! | which operations there are | `operations.rs` |
//! | what is known, and the names of things | `world.rs` |
//! | clusters | `clusters.rs` |
//! | container instances: resources, status, agent | `instances.rs` |
//! | the filter of `ListContainerInstances` | `query.rs` |
//! | task definitions and revisions | `definitions.rs` |
//! | `StartTask`, `StopTask`, `ListTasks`, `DescribeTasks` | `tasks.rs` |
//! | what becomes of a task, and when | `life_cycle.rs` |
//! | when an agent starts what it was given | `agent.rs` |
//! | `failures`: what is refused, and why | `placement.rs` |
//! | services: a desired count, kept up | `services.rs` |
//! | tags | `tags.rs` |
//! | what is told late | `consistency.rs` |
//! | quotas | `throttle.rs` |
//! | pages of 100 | `pages.rs` |
//! | state change events, and the queue that they wait in | `events.rs`, `queue.rs` |
//! | what goes wrong on request | `faults.rs` |
//! | containers that are simulated, or real | `backend.rs`, `simulated.rs`, `docker.rs` |
//!
//! **What surprises** whoever has not read all of that documentation:
//!
//! - `StopTask` deletes the task's tags, while the task is still there and stopping.
//! - `ListTasks` shows tasks whose *desired* status is RUNNING, so a task that is stopping is not among them. With
//!   `startedBy` it takes no other filter of ours.
//! - A task that was just started may be MISSING when it is described, and a listing may be behind.
//! - A stopping task's resources are free for the next placement at once. The agent, not ECS, then makes the new task
//!   wait in PENDING: agents before 1.74.1 until *every* task told to stop before it has ended, later ones (and 1.73.0)
//!   until their own account of cpu, memory and ports has room for it.
//! - A disconnected agent's tasks keep their last known status, for as long as it takes.
//! - Calls of one family share a bucket: `StartTask` with `StopTask`, `DescribeTasks` with `ListContainerInstances`.

mod agent;
mod backend;
mod clusters;
mod config;
mod consistency;
mod definitions;
mod dice;
mod docker;
mod ecs;
mod events;
mod faults;
pub mod http;
mod in_process;
mod instances;
mod life_cycle;
mod operations;
mod pages;
mod placement;
mod query;
mod queue;
mod resources;
mod services;
mod simulated;
mod tags;
mod tasks;
mod throttle;
mod wire;
mod world;

pub use config::{Config, Delays, EventDelivery, Lag};
pub use docker::DockerOptions;
pub use ecs::{FakeEcs, TaskTruth};
pub use faults::{Fault, FaultKind, FaultRates};
pub use in_process::InProcess;
pub use instances::InstanceSpec;
pub use simulated::Behaviour;
pub use wire::{Answer, Outcome};
