//! The demand feed, against a source in the process that is scripted call by call.

mod support;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use controller::{
    DemandAnswer, DemandDetail, DemandSource, DemandTransport, Engines, FeedError, FetchRequest,
    SourceSettings, View,
};
use planner::{Freshness, OnStale, Service};
use support::{SOURCE, Scene, demanded, filling, pass_ms, runs};
use tokio::time::Instant;

/// What the source does with one call.
#[derive(Clone)]
enum Answer {
    Document {
        etag: Option<&'static str>,
        wait_applied: bool,
        values: Vec<(&'static str, Result<Option<u32>, String>)>,
    },
    NotModified {
        wait_applied: bool,
    },
    /// Holds the answer for as long as it was asked to, then says that nothing has changed.
    Held,
    Error(&'static str),
    Never,
}

/// A source that follows a script, and repeats its last line.
struct Script {
    started_at: Instant,
    lines: Mutex<VecDeque<Answer>>,
    calls: Mutex<Vec<(u64, FetchRequest)>>,
}

impl Script {
    fn new(lines: impl IntoIterator<Item = Answer>) -> Arc<Self> {
        let lines = Mutex::new(lines.into_iter().collect());
        Arc::new(Self { started_at: Instant::now(), lines, calls: Mutex::default() })
    }

    fn then(&self, lines: impl IntoIterator<Item = Answer>) {
        *self.lines.lock().unwrap() = lines.into_iter().collect();
    }

    /// When each call was made, in milliseconds since the script's start, and what was asked.
    fn calls(&self) -> Vec<(u64, FetchRequest)> {
        self.calls.lock().unwrap().clone()
    }
}

#[async_trait]
impl DemandTransport for Script {
    async fn fetch(&self, request: FetchRequest) -> Result<DemandAnswer, FeedError> {
        let at_ms = u64::try_from(self.started_at.elapsed().as_millis()).unwrap();
        self.calls.lock().unwrap().push((at_ms, request.clone()));
        let line = {
            let mut lines = self.lines.lock().unwrap();
            let line = lines.pop_front().expect("a script has lines");
            if lines.is_empty() {
                lines.push_back(line.clone());
            }
            line
        };
        match line {
            Answer::Document { etag, wait_applied, values } => Ok(DemandAnswer::Changed {
                etag: etag.map(ToOwned::to_owned),
                wait_applied,
                values: values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect(),
                details: BTreeMap::from([(
                    "priority1".to_owned(),
                    DemandDetail { reason: Some("redis: connection refused".to_owned()), age_ms: None },
                )]),
                cause: tracing::Span::none(),
            }),
            Answer::NotModified { wait_applied } => Ok(DemandAnswer::NotModified { wait_applied }),
            Answer::Held => {
                tokio::time::sleep(request.wait.unwrap_or_default()).await;
                Ok(DemandAnswer::NotModified { wait_applied: request.wait.is_some() })
            }
            Answer::Error(reason) => Err(FeedError(reason.to_owned())),
            Answer::Never => {
                let limit = request.wait.unwrap_or_default() + Duration::from_secs(5);
                tokio::time::sleep(limit).await;
                Err(FeedError(format!(
                    "http://rng:8081/v1/demand: no answer within {} ms",
                    limit.as_millis()
                )))
            }
        }
    }
}

fn document(values: &[(&'static str, Option<u32>)]) -> Answer {
    let values = values.iter().map(|&(key, value)| (key, Ok(value))).collect();
    Answer::Document { etag: Some("a"), wait_applied: false, values }
}

fn wire(scene: &Scene, script: &Arc<Script>) -> Engines {
    let settings = SourceSettings { name: SOURCE.to_owned(), poll_ms: 250, wait_ms: 5_000 };
    let transport: Arc<dyn DemandTransport> = Arc::<Script>::clone(script);
    Engines { sources: vec![DemandSource { settings, transport }], ..scene.wiring() }
}

fn gaps(calls: &[(u64, FetchRequest)]) -> Vec<u64> {
    calls.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
}

fn priority1(view: &View) -> &controller::ServiceView {
    view.services.iter().find(|service| &*service.name == "priority1").expect("it is configured")
}

#[tokio::test(start_paused = true)]
async fn a_source_that_holds_its_answers_is_asked_at_once_and_another_is_polled() {
    let mut scene = Scene::demo(1);
    let held = Script::new([document(&[("priority1", Some(4))]), Answer::Held]);
    let running = scene.start_with(wire(&scene, &held));
    pass_ms(16_000).await;
    let calls = held.calls();
    assert_eq!(calls[0].1, FetchRequest::default(), "nothing is known yet, so there is nothing to wait for");
    let wanted = FetchRequest { etag: Some("a".to_owned()), wait: Some(Duration::from_secs(5)) };
    assert!(calls[1..].iter().all(|(_, request)| *request == wanted));
    assert_eq!(gaps(&calls), [250, 5_000, 5_000, 5_000]);
    running.kill().await;

    let polled =
        Script::new([document(&[("priority1", Some(4))]), Answer::NotModified { wait_applied: false }]);
    let running = scene.start_with(wire(&scene, &polled));
    pass_ms(2_000).await;
    assert!(gaps(&polled.calls()).iter().all(|&gap| gap == 250), "{:?}", gaps(&polled.calls()));
    running.kill().await;

    // One that says it waits, and does not, is not asked in a circle.
    let liar = Script::new([document(&[("priority1", Some(4))]), Answer::NotModified { wait_applied: true }]);
    let running = scene.start_with(wire(&scene, &liar));
    pass_ms(2_000).await;
    assert!(gaps(&liar.calls()).iter().all(|&gap| gap >= 10), "{:?}", gaps(&liar.calls()));
    running.kill().await;

    // Without a tag there is nothing to wait for.
    let values = vec![("priority1", Ok(Some(4)))];
    let untagged = Script::new([Answer::Document { etag: None, wait_applied: true, values }]);
    let running = scene.start_with(wire(&scene, &untagged));
    pass_ms(2_000).await;
    assert!(untagged.calls().iter().all(|(_, request)| *request == FetchRequest::default()));
    assert!(gaps(&untagged.calls()).iter().all(|&gap| gap == 250));
    running.kill().await;
}

#[tokio::test(start_paused = true)]
async fn errors_are_waited_out_and_told() {
    let mut scene = Scene::demo(2);
    let script = Script::new([document(&[("priority1", Some(4))])]);
    let running = scene.start_with(wire(&scene, &script));
    running.until_success(2_000, 4, 5).await;
    script.then([Answer::Error("http://rng:8081/v1/demand: connection refused")]);
    let from = script.calls().len();
    pass_ms(14_000).await;
    let gaps = gaps(&script.calls()[from..]);
    assert!(gaps[0] >= 50 && gaps[0] <= 100, "{gaps:?}");
    assert!(gaps.iter().all(|&gap| gap <= 5_000) && gaps.len() < 15, "{gaps:?}");
    let view = running.handle.view();
    assert_eq!(priority1(&view).freshness, Some(Freshness::Fresh));
    assert!(priority1(&view).reason.as_deref().is_some_and(|reason| reason.ends_with("connection refused")));
    assert!(view.success, "the last value holds");

    // Fifteen seconds after its last answer it is stale, and still holds.
    let view =
        running.until(2_000, "it is stale", |view| priority1(view).freshness == Some(Freshness::Stale)).await;
    assert_eq!(runs(&view, "priority1"), 4);
    pass_ms(60_000).await;
    assert_eq!(runs(&running.handle.view(), "priority1"), 4);

    script.then([document(&[("priority1", Some(6))])]);
    let view = running.until_success(8_000, 6, 3).await;
    assert_eq!(priority1(&view).freshness, Some(Freshness::Fresh));
    assert_eq!(priority1(&view).reason, None);
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn not_modified_keeps_a_demand_fresh_and_wakes_nobody() {
    let mut scene = Scene::demo(3);
    let script =
        Script::new([document(&[("priority1", Some(4))]), Answer::NotModified { wait_applied: false }]);
    let running = scene.start_with(wire(&scene, &script));
    running.until_success(2_000, 4, 5).await;
    pass_ms(3_000).await;
    let view = running.handle.view();
    pass_ms(120_000).await;
    let later = running.handle.view();
    assert_eq!(priority1(&later).freshness, Some(Freshness::Fresh));
    assert_eq!(later.sequence, view.sequence);
}

#[tokio::test(start_paused = true)]
async fn a_fallback_takes_over_from_a_stale_demand() {
    let mut scene = Scene::demo(4);
    let on_stale = OnStale::Fallback { containers: 2, after_ms: 5_000 };
    scene.settings.services[0] = demanded(Service { on_stale, ..Service::demand("priority1", 1) });
    let script = Script::new([document(&[("priority1", Some(4))]), Answer::Never]);
    let running = scene.start_with(wire(&scene, &script));
    running.until_success(2_000, 4, 5).await;
    pass_ms(16_500).await;
    assert_eq!(runs(&running.handle.view(), "priority1"), 4);
    assert_eq!(priority1(&running.handle.view()).freshness, Some(Freshness::Stale));
    assert!(
        priority1(&running.handle.view()).reason.as_deref().is_some_and(|it| it.contains("no answer within"))
    );
    running.until(5_000, "the fallback", |view| runs(view, "priority1") == 2).await;
    assert!(gaps(&script.calls()).iter().all(|&gap| gap <= 15_000));
}

#[tokio::test(start_paused = true)]
async fn unknown_is_not_zero() {
    let mut scene = Scene::demo(5);
    let script = Script::new([document(&[("priority1", Some(4))])]);
    let running = scene.start_with(wire(&scene, &script));
    running.until_success(2_000, 4, 5).await;
    let garbage = Answer::Document {
        etag: Some("g"),
        wait_applied: false,
        values: vec![("priority1", Err("\"7\" is not an integer from 0 to 1000000".to_owned()))],
    };
    for (line, words) in [
        (document(&[("priority1", None)]), "board does not know \"priority1\": redis: connection refused"),
        (document(&[]), "board has no key \"priority1\""),
        (garbage, "board gives no usable value for \"priority1\": \"7\" is not an integer from 0 to 1000000"),
    ] {
        script.then([line]);
        let view = running.until(1_000, words, |view| priority1(view).reason.as_deref() == Some(words)).await;
        assert_eq!(priority1(&view).freshness, Some(Freshness::Unknown));
        assert_eq!((priority1(&view).demand, view.success), (None, false));
        assert_eq!(view.blocked_by, ["unknown_demand"]);
        pass_ms(30_000).await;
        assert_eq!((scene.run("priority1"), scene.run("priority2")), (4, 5), "unknown changes nothing");
    }
    script.then([document(&[("priority1", Some(0))])]);
    running.until_success(3_000, 0, 9).await;
}

#[tokio::test(start_paused = true)]
async fn services_of_one_source_change_together() {
    let mut scene = Scene::demo(6);
    scene.settings.services = vec![
        demanded(Service::demand("priority1", 1)),
        demanded(Service::demand("batch", 2)),
        filling(Service::fill("priority2", 3)),
    ];
    let script = Script::new([document(&[("priority1", Some(4)), ("batch", Some(5))])]);
    let running = scene.start_with(wire(&scene, &script));
    running.until(4_000, "both run", |view| view.success && runs(view, "batch") == 5).await;
    script.then([document(&[("priority1", Some(5)), ("batch", Some(4))])]);
    running.until(4_000, "both have changed", |view| view.success && runs(view, "batch") == 4).await;
    let query = controller::DecisionQuery { limit: 50, ..Default::default() };
    let decisions = running.handle.decisions(&query);
    let changed =
        decisions.iter().rev().find(|decision| decision.inputs[0].demand == Some(5)).expect("it was decided");
    assert_eq!(changed.inputs[1].demand, Some(4), "{changed:#?}");
    assert_eq!(scene.engine().history().starts("priority2"), 0, "no slot was free in between");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_never_answers_changes_nothing() {
    let mut scene = Scene::demo(7);
    let script = Script::new([document(&[("priority1", Some(4))])]);
    let running = scene.start_with(wire(&scene, &script));
    running.until_success(2_000, 4, 5).await;
    running.kill().await;
    let silent = Script::new([Answer::Never]);
    let running = scene.start_with(wire(&scene, &silent));
    pass_ms(30_000).await;
    assert_eq!((scene.run("priority1"), scene.run("priority2")), (4, 5));
    let view = running.handle.view();
    assert_eq!(
        priority1(&view).reason.as_deref(),
        Some("board has not answered yet: http://rng:8081/v1/demand: no answer within 5000 ms")
    );
    scene.assert_sound();
}
