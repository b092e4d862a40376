//! What a driver brings to the suite.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use driver::{ContainerId, ContainerSpec, Driver};
use planner::Resources;

/// A driver, its engine, and containers that behave as the cases need them.
///
/// One fixture serves one case. Its cluster is one that no other test uses.
#[async_trait]
pub trait Fixture: Send + Sync {
    /// The driver under test.
    fn driver(&self) -> Arc<dyn Driver>;

    /// What each of the driver's instances has.
    fn capacity(&self) -> Resources;

    /// A container that runs until its stop signal, and then ends within a second.
    fn runs(&self) -> ContainerSpec;

    /// A container that ends by itself with this code, within a second of its start.
    fn exits(&self, code: u8) -> ContainerSpec;

    /// A container that only SIGKILL ends. Ready to ignore the signal as soon as it is observed running.
    fn ignores_stop_signal(&self) -> ContainerSpec;

    /// A container that can be created and not started: its command is not there.
    fn fails_to_start(&self) -> ContainerSpec;

    /// A container of an image that the engine does not have and cannot get.
    fn image_missing(&self) -> ContainerSpec {
        ContainerSpec { image: "force12.invalid/no-such-image:conformance".to_owned(), ..self.runs() }
    }

    /// The limit that the driver has for what a start waits for. One to five seconds serve well: a case waits
    /// for all of it, and the others end a victim within half of it.
    fn after_limit(&self) -> Duration;

    /// How long anything may take that is neither the grace of a stop nor [`Self::after_limit`].
    fn patience(&self) -> Duration;

    /// A way to act on the engine without the driver; `None` where the engine has none.
    fn backdoor(&self) -> Option<&dyn Backdoor>;

    /// Removes all that the case has left on the engine; called also when it failed.
    async fn tear_down(&self);
}

/// Acting on the engine behind the driver's back. A method that fails panics.
#[async_trait]
pub trait Backdoor: Send + Sync {
    /// Ends a container with SIGKILL.
    async fn kill(&self, id: &ContainerId);

    /// Suspends a container, where the driver can freeze.
    async fn pause(&self, id: &ContainerId);

    /// Resumes a container, where the driver can freeze.
    async fn unpause(&self, id: &ContainerId);

    /// Ends and removes a container.
    async fn remove(&self, id: &ContainerId);

    /// Runs a container of someone else's: one without our labels, from an image that carries them where images
    /// have labels.
    async fn run_foreign(&self) -> ContainerId;

    /// Whether that container still runs.
    async fn foreign_runs(&self, id: &ContainerId) -> bool;
}
