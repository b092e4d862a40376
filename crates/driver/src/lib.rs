//! The driver trait: what Force12 asks of a container engine, and the errors with which it answers.
//!
//! One driver speaks to one engine (Docker: one daemon, with one or several instances on it; ECS: one
//! cluster). A driver keeps no opinion: it observes, and does what it is told. Every call is bounded in time
//! by the driver itself, and a call that ends without a clear answer says so ([`DriverError::OutcomeUnknown`]).

mod error;
mod observation;
mod spec;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::BoxStream;

pub use error::DriverError;
pub use observation::{Exit, Health, InstanceAvailability, Observation, ObservedContainer, ObservedInstance};
pub use spec::{ContainerSpec, Generation, Healthcheck, LogOptions, PullPolicy, Start};

/// An engine's own id of a container: unique for all time, unlike its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(pub std::sync::Arc<str>);

impl ContainerId {
    /// From the engine's text.
    pub fn new(id: impl AsRef<str>) -> Self {
        Self(id.as_ref().into())
    }

    /// The engine's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ContainerId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What an engine can do beyond starting and stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether it can suspend a container in place.
    pub freeze: bool,
    /// Whether a second start of the same [`Start`] is "already so". Where it is not, the controller holds the
    /// room of an unknown outcome for `settle_ms`; believes its own actions rather than an observation for as long, so
    /// that one may show late what was done; and starts nothing for as long after its own start.
    pub idempotent_start: bool,
}

/// Something happened on the engine. Events carry no data: they say that an observation is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A container of ours was created, started, suspended, resumed, ended or removed, or its health changed.
    Changed,
    /// The stream was interrupted and is back: something may have been missed.
    Gap,
}

/// How a start ended well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The engine's id of the container that runs now.
    pub id: ContainerId,
    /// Whether it ran already, and nothing was done.
    pub already: bool,
    /// What the engine took to create it and to start it, without any wait for room or for the driver's own bounds.
    pub took: Duration,
}

/// How an action that takes something away ended well. That there was nothing to do is an outcome, not an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was so already: gone, ended, frozen or running.
    Already,
}

/// How far a pull is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Bytes that have come; they grow.
    pub done_bytes: u64,
    /// Bytes of what is known to be needed; 0 while nothing is known. They grow: how much there is shows only by and by.
    pub total_bytes: u64,
    /// It has not begun, because others are pulled before it.
    pub queued: bool,
    /// For how long nothing has come of it that is worth waiting for.
    pub idle: Duration,
}

/// How a container is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StopOptions {
    /// Milliseconds from the stop signal to SIGKILL; 0 is SIGKILL at once.
    pub grace_ms: u64,
}

impl StopOptions {
    /// A stop with a grace is work for the engine for this many milliseconds: the signal has been sent long before, and
    /// from then on the engine only waits.
    pub const SIGNALLED_MS: u64 = 250;
}

/// One container engine.
///
/// Calls for different containers may be made side by side; the driver bounds how many reach the engine at once.
/// Dropping a call's future gives up waiting for it; it does not undo it.
#[async_trait]
pub trait Driver: Send + Sync + 'static {
    /// A name for logs and metrics: the kind of engine and where it is, without secrets.
    fn name(&self) -> &str;

    /// The instances that this driver serves, by name; known from configuration or discovery.
    fn instances(&self) -> Vec<String>;

    /// What the engine can do.
    fn capabilities(&self) -> Capabilities;

    /// The most calls that the driver has the engine work on at once, of those that change something; at least 1. What is
    /// asked of it beyond that waits in the driver, first come, first served.
    fn parallel_calls(&self) -> usize;

    /// Whether the engine works on calls in turn, so that those beyond what it gets done at once only wait inside it. How
    /// many it is given is learnt then. One that does not is given as many as [`Driver::parallel_calls`] allows.
    fn works_in_turn(&self) -> bool {
        true
    }

    /// Everything of our cluster that is there now: instances, and the containers that carry our labels.
    async fn observe(&self) -> Result<Observation, DriverError>;

    /// Says when an observation is due. The stream ends only with the driver; while the engine cannot be
    /// reached it is silent, and [`Event::Gap`] comes first when it is back. The first item is a `Gap`, once
    /// the stream is established: whatever happened before it needs an observation.
    fn events(&self) -> BoxStream<'static, Event>;

    /// Does ahead of need whatever a start of this spec would wait for: the image is pulled as the spec says, is there,
    /// and fit to run. A pull may take as long as it makes progress; dropping the future gives it up.
    async fn prepare(&self, spec: &ContainerSpec) -> Result<(), DriverError>;

    /// How far the pull of an image is that a [`Driver::prepare`] under way asks for; `None` while there is none.
    fn pull_progress(&self, _image: &str) -> Option<PullProgress> {
        None
    }

    /// Creates the container and starts it, as soon as `after` (if given) has ended or is suspended.
    ///
    /// Creating goes on while `after` is on its way out. If `after` has not left its room within the driver's
    /// limit, the answer is [`DriverError::Timeout`], and the container that was created is left for removal.
    async fn start(&self, start: &Start, after: Option<&ContainerId>) -> Result<Started, DriverError>;

    /// Stops it, and returns when it has ended. A frozen container is stopped too.
    async fn stop(&self, id: &ContainerId, options: StopOptions) -> Result<Outcome, DriverError>;

    /// Suspends it in place, and returns when it is suspended.
    async fn freeze(&self, id: &ContainerId) -> Result<Outcome, DriverError>;

    /// Resumes it, as soon as `after` (if given) has ended or is suspended.
    async fn thaw(&self, id: &ContainerId, after: Option<&ContainerId>) -> Result<Outcome, DriverError>;

    /// Removes one that has ended or was never started. One that runs is refused.
    async fn remove(&self, id: &ContainerId) -> Result<Outcome, DriverError>;
}
