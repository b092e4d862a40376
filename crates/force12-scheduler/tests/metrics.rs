//! What is measured of a running controller, as Prometheus reads it. Alone in its binary: the recorder is the process's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use controller::{
    Clock, Controller, DemandAnswer, DemandKey, DemandSource, DemandTransport, Engines, FeedError,
    FetchRequest, Parts, Ready, ServiceSettings, Settings, SourceSettings, View,
};
use driver::ContainerSpec;
use driver_testkit::sim::{Behaviour, SimConfig, SimEngine};
use planner::{Freshness, Instance, OnPreempt, Resources, Service};
use tokio::sync::watch;

/// Demands what it was last told; `None` is unknown.
struct Demands(watch::Receiver<Option<u32>>);

#[async_trait]
impl DemandTransport for Demands {
    async fn fetch(&self, _: FetchRequest) -> Result<DemandAnswer, FeedError> {
        let values = BTreeMap::from([("web".to_owned(), Ok(*self.0.borrow()))]);
        Ok(DemandAnswer::Changed {
            etag: None,
            wait_applied: false,
            values,
            details: BTreeMap::new(),
            cause: tracing::Span::none(),
        })
    }
}

#[tokio::test(start_paused = true)]
async fn every_metric_is_described_and_true() {
    let metrics = service_kit::metrics::install().unwrap();
    controller::describe_metrics();
    service_kit::reload::describe_metrics();

    let capacity = Resources::slots_only(3);
    let engine = SimEngine::new("sim", SimConfig::seeded(12))
        .with_image("example/web", Behaviour::default())
        .with_instance("instance-1", capacity);
    let spec = Arc::new(ContainerSpec { image: "example/web".to_owned(), ..ContainerSpec::default() });
    let batch = ServiceSettings {
        service: Service { on_preempt: OnPreempt::Freeze, ..Service::fill("batch", 2) },
        spec: Arc::clone(&spec),
        freeze_or_stop: false,
        ready: Ready::Running,
        demand: None,
    };
    let settings = Settings {
        instances: vec![Instance::ready("instance-1", capacity)],
        services: vec![
            batch,
            ServiceSettings {
                service: Service::demand("web", 1),
                spec,
                freeze_or_stop: false,
                ready: Ready::Running,
                demand: Some(DemandKey { source: "board".to_owned(), key: "web".to_owned() }),
            },
        ],
        ..Settings::new("demo")
    };
    let (demand, demands) = watch::channel(Some(2));
    let engines = Engines {
        drivers: vec![Arc::new(engine.driver("demo"))],
        sources: vec![DemandSource {
            settings: SourceSettings { name: "board".to_owned(), poll_ms: 250, wait_ms: 0 },
            transport: Arc::new(Demands(demands)),
        }],
    };
    let clock = Clock::starting_at(1_795_366_800_000);
    let parts = Parts {
        settings: settings.clone(),
        engines: engines.clone(),
        clock,
        seed: 12,
        epoch: "9c2e".to_owned(),
    };
    let (controller, handle) = Controller::new(parts).unwrap();
    tokio::spawn(controller.run());
    let until = async |wanted: fn(&View) -> bool| {
        let mut views = handle.views();
        let found = tokio::time::timeout(Duration::from_mins(1), views.wait_for(|view| wanted(view)));
        found.await.expect("it comes to that").unwrap();
    };
    until(|view| view.success).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let text = metrics.render();
    let says =
        |text: &str, line: &str| assert!(text.lines().any(|it| it == line), "{line} is not in\n{text}");
    for (phase, count) in
        [("created", 0), ("starting", 0), ("running", 2), ("frozen", 0), ("stopping", 0), ("exited", 0)]
    {
        says(&text, &format!("force12_containers{{service=\"web\",phase=\"{phase}\"}} {count}"));
    }
    says(&text, "force12_demand{service=\"web\"} 2");
    says(&text, "force12_engine_calls_total{engine=\"sim sim\",call=\"prepare\",outcome=\"done\"} 1");
    let observed = "force12_engine_calls_total{engine=\"sim sim\",call=\"observe\",outcome=\"done\"} ";
    assert!(text.contains(observed), "{text}");
    let seconds = text.lines().find_map(|line| {
        line.strip_prefix("force12_success_seconds_total{success=\"true\"} ")?.parse::<u64>().ok()
    });
    assert!(seconds.is_some_and(|seconds| (14..=20).contains(&seconds)), "{text}");

    // Batch has worked for that long: it is frozen for web, and ended when it is no longer configured.
    let worked = |text: &str, what: &str| {
        let name = format!("force12_work_{what}_seconds_total{{service=\"batch\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok())
    };
    demand.send_replace(Some(3));
    until(|view| view.services[1].frozen == 1).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let text = metrics.render();
    assert!(worked(&text, "kept").is_some_and(|seconds| (19..=25).contains(&seconds)), "{text}");
    assert_eq!(worked(&text, "lost"), None);

    demand.send_replace(None);
    until(|view| view.services[0].freshness == Some(Freshness::Unknown)).await;
    let text = metrics.render();
    says(&text, "force12_demand{service=\"web\"} NaN");
    says(&text, "force12_demand_freshness{service=\"web\",freshness=\"unknown\"} 1");

    // A service that goes leaves nothing behind.
    handle.update(Settings { services: Vec::new(), ..settings }, engines).await.unwrap();
    until(|view| view.services.is_empty()).await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let text = metrics.render();
    // Its time in the freezer is none that it has worked.
    assert!(worked(&text, "lost").is_some_and(|seconds| (19..=25).contains(&seconds)), "{text}");
    says(&text, "force12_containers{service=\"web\",phase=\"running\"} 0");
    says(&text, "force12_demand_freshness{service=\"web\",freshness=\"unknown\"} 0");

    let described: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# HELP ")?.split_whitespace().next()).collect();
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = line.split_whitespace().next().unwrap();
        assert!(described.contains(&name), "{name} is not described");
    }
}
