//! Drivers and transports that panic: what they serve fails, and nothing else.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use controller::{DemandAnswer, DemandTransport, FeedError, FetchRequest, View};
use driver::{
    Capabilities, ContainerId, ContainerSpec, Driver, DriverError, Event, Observation, Outcome, Start,
    Started, StopOptions,
};
use futures_util::StreamExt as _;
use futures_util::stream::BoxStream;
use planner::InstanceState;
use support::{Scene, pass_ms, runs};

const NOTHING: u32 = 0;
const ALL_CALLS: u32 = 1;
const EVENTS: u32 = 2;
const PREPARE: u32 = 3;

/// Passes everything on, but for what is to panic.
struct Panicking<T: ?Sized> {
    what: Arc<AtomicU32>,
    inner: Arc<T>,
}

impl<T: ?Sized> Clone for Panicking<T> {
    fn clone(&self) -> Self {
        Self { what: Arc::clone(&self.what), inner: Arc::clone(&self.inner) }
    }
}

impl<T: ?Sized> Panicking<T> {
    fn new(inner: Arc<T>, what: u32) -> Self {
        Self { what: Arc::new(AtomicU32::new(what)), inner }
    }

    fn set(&self, what: u32) {
        self.what.store(what, Ordering::SeqCst);
    }

    fn at(&self, what: u32) -> &T {
        let now = self.what.load(Ordering::SeqCst);
        assert!(now != what && now != ALL_CALLS, "beside itself");
        &self.inner
    }
}

#[async_trait]
impl Driver for Panicking<dyn Driver> {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn instances(&self) -> Vec<String> {
        self.inner.instances()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn parallel_calls(&self) -> usize {
        self.inner.parallel_calls()
    }

    async fn observe(&self) -> Result<Observation, DriverError> {
        self.at(ALL_CALLS).observe().await
    }

    fn events(&self) -> BoxStream<'static, Event> {
        let (events, panicking) = (self.inner.events(), self.clone());
        let told = events.map(move |event| {
            panicking.at(EVENTS);
            event
        });
        told.boxed()
    }

    async fn prepare(&self, spec: &ContainerSpec) -> Result<(), DriverError> {
        self.at(PREPARE).prepare(spec).await
    }

    async fn start(&self, start: &Start, after: Option<&ContainerId>) -> Result<Started, DriverError> {
        self.at(ALL_CALLS).start(start, after).await
    }

    async fn stop(&self, id: &ContainerId, options: StopOptions) -> Result<Outcome, DriverError> {
        self.at(ALL_CALLS).stop(id, options).await
    }

    async fn freeze(&self, id: &ContainerId) -> Result<Outcome, DriverError> {
        self.at(ALL_CALLS).freeze(id).await
    }

    async fn thaw(&self, id: &ContainerId, after: Option<&ContainerId>) -> Result<Outcome, DriverError> {
        self.at(ALL_CALLS).thaw(id, after).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<Outcome, DriverError> {
        self.at(ALL_CALLS).remove(id).await
    }
}

#[async_trait]
impl DemandTransport for Panicking<dyn DemandTransport> {
    async fn fetch(&self, request: FetchRequest) -> Result<DemandAnswer, FeedError> {
        self.at(ALL_CALLS).fetch(request).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_panics_loses_its_engine_and_no_other() {
    let mut scene = Scene::spread(21);
    scene.board.set("priority1", 6);
    let mut wiring = scene.wiring();
    let panicking = Panicking::new(Arc::clone(&wiring.drivers[1]), NOTHING);
    wiring.drivers[1] = Arc::new(panicking.clone());
    let running = scene.start_with(wiring);
    running.until_success(2_000, 6, 3).await;
    panicking.set(ALL_CALLS);
    let lost = |view: &View| view.instances[1].state == InstanceState::Lost;
    let view = running.until(5_000, "the instance is lost", lost).await;
    let reason = view.instances[1].reason.as_deref().unwrap_or_default();
    assert!(reason.contains("engine-2") && reason.contains("its driver panicked: beside itself"), "{reason}");
    running.until(2_000, "all six run elsewhere", |view| runs(view, "priority1") == 6).await;
    panicking.set(NOTHING);
    running.until_success(5_000, 6, 3).await;
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn events_over_which_a_driver_panicked_are_followed_again() {
    let mut scene = Scene::demo(22);
    let mut wiring = scene.wiring();
    let panicking = Panicking::new(Arc::clone(&wiring.drivers[0]), EVENTS);
    wiring.drivers[0] = Arc::new(panicking.clone());
    let running = scene.start_with(wiring);
    running.until_success(4_000, 4, 5).await;
    panicking.set(NOTHING);
    pass_ms(1_500).await;
    // Sooner than the next look that comes by time alone.
    let one = scene.engine().history().of("priority1").next().expect("one runs").container.clone();
    scene.engine().hand().exit(&one, 1);
    let ended = |view: &View| {
        let mut all = view.instances.iter().flat_map(|instance| &instance.containers);
        all.all(|container| container.id.as_ref() != Some(&one) || container.phase == planner::Phase::Exited)
    };
    running.until(100, "its end is seen", ended).await;
    running.until_success(4_000, 4, 5).await;
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn what_panics_in_a_preparation_or_a_question_for_demand_is_tried_again() {
    let mut scene = Scene::demo(23);
    let mut wiring = scene.wiring();
    let driver = Panicking::new(Arc::clone(&wiring.drivers[0]), PREPARE);
    wiring.drivers[0] = Arc::new(driver.clone());
    let running = scene.start_with(wiring.clone());
    let says = |view: &View| {
        let reasons = view.services.iter().filter_map(|service| service.reason.as_deref());
        reasons.into_iter().any(|reason| reason.contains("its driver panicked: beside itself"))
    };
    running.until(4_000, "it is said", says).await;
    driver.set(NOTHING);
    running.until_success(31_000, 4, 5).await;

    let transport = Panicking::new(Arc::clone(&wiring.sources[0].transport), ALL_CALLS);
    wiring.sources[0].transport = Arc::new(transport.clone());
    running.handle.update(scene.settings.clone(), wiring).await.expect("it is sound");
    let stale = |view: &View| view.services.iter().any(|it| it.freshness == Some(planner::Freshness::Stale));
    running.until(20_000, "its word is old", stale).await;
    transport.set(NOTHING);
    scene.board.set("priority1", 5);
    running.until_success(10_000, 5, 4).await;
    scene.assert_sound();
}
