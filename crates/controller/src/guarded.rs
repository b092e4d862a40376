//! Panics of what is passed in, the drivers of engines and the transports of sources: each costs the call that it struck,
//! so that one engine's bug is not every engine's.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use driver::{
    Capabilities, ContainerId, ContainerSpec, Driver, DriverError, Event, Observation, Outcome, PullProgress,
    Start, Started, StopOptions,
};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt as _, StreamExt as _, stream};

/// After a panic, events are asked for again so much later.
const EVENTS_AGAIN: Duration = Duration::from_secs(1);

/// What the call comes to; if it panics, the panic's words. Whatever it leaves broken is its own, and a call that finds
/// it broken panics in its turn.
pub(crate) async fn caught<T>(call: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(call).catch_unwind().await.map_err(|panic| words(&*panic))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("without words").to_owned()
}

/// A driver whose panics are failed calls: nobody knows how far such a call came.
pub(crate) struct Guarded(pub(crate) Arc<dyn Driver>);

impl Guarded {
    async fn guard<T>(
        &self,
        call: &'static str,
        answer: impl Future<Output = Result<T, DriverError>>,
    ) -> Result<T, DriverError> {
        caught(answer).await.unwrap_or_else(|panic| {
            let message = format!("its driver panicked: {panic}");
            Err(DriverError::OutcomeUnknown { engine: self.0.name().to_owned(), call, message })
        })
    }
}

#[async_trait]
impl Driver for Guarded {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn instances(&self) -> Vec<String> {
        self.0.instances()
    }

    fn capabilities(&self) -> Capabilities {
        self.0.capabilities()
    }

    fn parallel_calls(&self) -> usize {
        self.0.parallel_calls()
    }

    fn works_in_turn(&self) -> bool {
        self.0.works_in_turn()
    }

    async fn observe(&self) -> Result<Observation, DriverError> {
        self.guard("observe", self.0.observe()).await
    }

    fn events(&self) -> BoxStream<'static, Event> {
        let followed = (Arc::clone(&self.0), None::<BoxStream<'static, Event>>);
        let told = stream::unfold(followed, |(driver, mut events)| async move {
            loop {
                match caught(async { events.get_or_insert_with(|| driver.events()).next().await }).await {
                    Ok(event) => return event.map(|event| (event, (driver, events))),
                    Err(panic) => {
                        let engine = driver.name();
                        tracing::error!(
                            engine,
                            panic,
                            "a driver has panicked over events; they are asked for again"
                        );
                        events = None;
                        tokio::time::sleep(EVENTS_AGAIN).await;
                    }
                }
            }
        });
        told.boxed()
    }

    async fn prepare(&self, spec: &ContainerSpec) -> Result<(), DriverError> {
        self.guard("prepare", self.0.prepare(spec)).await
    }

    fn pull_progress(&self, image: &str) -> Option<PullProgress> {
        self.0.pull_progress(image)
    }

    async fn start(&self, start: &Start, after: Option<&ContainerId>) -> Result<Started, DriverError> {
        self.guard("start", self.0.start(start, after)).await
    }

    async fn stop(&self, id: &ContainerId, options: StopOptions) -> Result<Outcome, DriverError> {
        self.guard("stop", self.0.stop(id, options)).await
    }

    async fn freeze(&self, id: &ContainerId) -> Result<Outcome, DriverError> {
        self.guard("freeze", self.0.freeze(id)).await
    }

    async fn thaw(&self, id: &ContainerId, after: Option<&ContainerId>) -> Result<Outcome, DriverError> {
        self.guard("thaw", self.0.thaw(id, after)).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<Outcome, DriverError> {
        self.guard("remove", self.0.remove(id)).await
    }
}
