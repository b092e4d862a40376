//! What the cases share: one service on one instance, started, watched and awaited.

use std::sync::Arc;
use std::time::Duration;

use driver::{
    ContainerId, ContainerSpec, Driver, DriverError, Event, Observation, ObservedContainer, Start, Started,
    StopOptions,
};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use planner::{Phase, Resources};
use tokio::time::timeout;

use super::fixture::Fixture;

/// The grace of stops whose grace does not matter: longer than a container that heeds the signal needs.
pub(super) const GRACE: StopOptions = StopOptions { grace_ms: 5_000 };

/// One case's own service, on the first of the driver's instances.
pub(super) struct Stage<'f> {
    pub(super) fixture: &'f dyn Fixture,
    pub(super) driver: Arc<dyn Driver>,
    service: &'static str,
    pub(super) instance: String,
}

impl<'f> Stage<'f> {
    pub(super) fn new(fixture: &'f dyn Fixture, service: &'static str) -> Self {
        let driver = fixture.driver();
        let instance = driver.instances().first().expect("the driver serves an instance").clone();
        Self { fixture, driver, service, instance }
    }

    /// Whether a second start of the same thing is "already so".
    pub(super) fn idempotent(&self) -> bool {
        self.driver.capabilities().idempotent_start
    }

    pub(super) fn start(&self, ordinal: u32, spec: ContainerSpec) -> Start {
        Start {
            service: self.service.to_owned(),
            instance: self.instance.clone(),
            ordinal,
            request: Resources::ONE_SLOT,
            generation: spec.generation(),
            spec: Arc::new(spec),
        }
    }

    /// Starts a container that runs until it is stopped.
    pub(super) async fn running(&self, ordinal: u32) -> ContainerId {
        self.started(ordinal, self.fixture.runs()).await.id
    }

    /// Starts a container, which must succeed within the fixture's patience.
    pub(super) async fn started(&self, ordinal: u32, spec: ContainerSpec) -> Started {
        let start = self.start(ordinal, spec);
        self.soon("the start", self.driver.start(&start, None)).await.expect("the container starts")
    }

    /// Starts a container and stops it.
    pub(super) async fn ended(&self, ordinal: u32) -> ContainerId {
        let id = self.running(ordinal).await;
        self.soon("the stop", self.driver.stop(&id, GRACE)).await.expect("the container stops");
        id
    }

    /// Starts a container, stops it and removes it.
    pub(super) async fn gone(&self, ordinal: u32) -> ContainerId {
        let id = self.ended(ordinal).await;
        self.soon("the removal", self.driver.remove(&id)).await.expect("the container is removed");
        id
    }

    /// What a call comes to, within the fixture's patience.
    pub(super) async fn soon<T>(&self, what: &str, call: impl Future<Output = T>) -> T {
        let patience = self.fixture.patience();
        let result = timeout(patience, call).await;
        result.unwrap_or_else(|_elapsed| panic!("{what} took longer than {} ms", patience.as_millis()))
    }

    /// What the engine says of this case's service now.
    pub(super) async fn observe(&self) -> Vec<ObservedContainer> {
        self.of_service(
            self.soon("observing", self.driver.observe()).await.expect("the engine can be observed"),
        )
    }

    /// What the engine says of one container now; `None` if it is gone.
    pub(super) async fn observe_one(&self, id: &ContainerId) -> Option<ObservedContainer> {
        self.observe().await.into_iter().find(|container| container.id == *id)
    }

    /// The phase of one container now; `None` if it is gone.
    pub(super) async fn phase(&self, id: &ContainerId) -> Option<Phase> {
        self.observe_one(id).await.map(|container| container.phase)
    }

    /// Looks whenever the driver's events say so, until `condition` holds of the service's containers.
    pub(super) async fn until(
        &self,
        what: &str,
        condition: impl Fn(&[ObservedContainer]) -> bool,
    ) -> Vec<ObservedContainer> {
        Watch::new(self).until(what, condition).await
    }

    /// [`Self::until`] for one container and a phase; `None` is "gone".
    pub(super) async fn until_phase(
        &self,
        id: &ContainerId,
        phase: Option<Phase>,
    ) -> Option<ObservedContainer> {
        let of_id =
            |containers: &[ObservedContainer]| containers.iter().find(|other| other.id == *id).cloned();
        let reached = |containers: &[ObservedContainer]| of_id(containers).map(|one| one.phase) == phase;
        of_id(&self.until(&format!("{id} is {}", words(phase)), reached).await)
    }

    fn of_service(&self, observation: Observation) -> Vec<ObservedContainer> {
        let mut containers = observation.containers;
        containers.retain(|container| container.service == self.service);
        containers
    }
}

/// One stream of the driver's events, and what is observed when it speaks.
pub(super) struct Watch<'s, 'f> {
    stage: &'s Stage<'f>,
    events: BoxStream<'static, Event>,
    /// How many changes were told.
    pub(super) changes: usize,
}

impl<'s, 'f> Watch<'s, 'f> {
    pub(super) fn new(stage: &'s Stage<'f>) -> Self {
        Self { stage, events: stage.driver.events(), changes: 0 }
    }

    /// The next event, within the fixture's patience.
    pub(super) async fn next(&mut self) -> Event {
        let next = self.stage.soon("waiting for an event", self.events.next()).await;
        let event = next.expect("the stream of events ends only with the driver");
        self.changes += usize::from(event == Event::Changed);
        event
    }

    /// Forgets the events that have arrived already.
    pub(super) fn forget(&mut self) {
        while self.events.next().now_or_never().is_some() {}
    }

    /// Looks after each event, and only then, until `condition` holds of the service's containers.
    pub(super) async fn until(
        &mut self,
        what: &str,
        condition: impl Fn(&[ObservedContainer]) -> bool,
    ) -> Vec<ObservedContainer> {
        let patience = self.stage.fixture.patience();
        let mut last = Vec::new();
        let looking = timeout(patience, async {
            loop {
                self.next().await;
                last = self.stage.observe().await;
                if condition(&last) {
                    break;
                }
            }
        });
        let seen = looking.await.is_ok();
        assert!(seen, "no event told within {} ms that {what}; seen last: {last:#?}", patience.as_millis());
        last
    }
}

/// For messages: the phase, or that it is gone.
fn words(phase: Option<Phase>) -> String {
    phase.map_or_else(|| "gone".to_owned(), |phase| format!("{phase:?}"))
}

/// Asserts that a call was refused with this code.
#[track_caller]
pub(super) fn assert_rejected<T: std::fmt::Debug>(result: &Result<T, DriverError>, wanted: &str) {
    match result {
        Err(DriverError::Rejected { code, .. }) if *code == wanted => {}
        other => panic!("expected a refusal with the code {wanted}, got {other:?}"),
    }
}

/// What a call comes to, and how long it took.
pub(super) async fn elapsed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let begun = tokio::time::Instant::now();
    let result = call.await;
    (result, begun.elapsed())
}
