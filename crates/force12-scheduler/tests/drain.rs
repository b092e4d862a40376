//! `drain`, on simulated engines and virtual time.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use driver::{Driver, Generation};
use driver_testkit::sim::{Labels, Outage, SimConfig, SimEngine};
use force12_scheduler::config::{self, Settings};
use force12_scheduler::demand::clients;
use force12_scheduler::drain::{drain, is_running};
use planner::{Phase, Resources};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn settings() -> Settings {
    let text = r#"
        cluster = "demo"
        [[instance]]
        name = "instance-1"
        engine = "tcp://one:2375"
        capacity = { slots = 4 }
        [[instance]]
        name = "instance-2"
        engine = "tcp://two:2375"
        capacity = { slots = 4 }
        [[service]]
        name = "batch"
        priority = 1
        image = "example/batch"
        fill = true
    "#;
    config::parse("demo.toml", text, &|_| None).unwrap().settings
}

fn engine(instance: &str, seed: u64) -> SimEngine {
    SimEngine::new(instance, SimConfig::seeded(seed)).with_instance(instance, Resources::slots_only(4))
}

fn place(
    engine: &SimEngine,
    cluster: &str,
    service: &str,
    ordinal: u32,
    phase: Phase,
) -> driver::ContainerId {
    let labels = Labels {
        cluster: cluster.to_owned(),
        service: service.to_owned(),
        instance: engine.name().to_owned(),
        generation: Generation::from_label("0123456789abcdef"),
    };
    engine.place(labels, ordinal, Resources::ONE_SLOT, phase)
}

#[tokio::test]
async fn whoever_says_more_than_a_scheduler_could_is_none() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let settings = Settings { listen: listener.local_addr().unwrap(), ..settings() };
    let answering = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n{").await.unwrap();
        // Whoever waits for the rest stays connected.
        stream.read(&mut head).await
    });
    let asked_at = std::time::Instant::now();
    let clients = Arc::new(clients(None).unwrap());
    assert!(!is_running(&settings, &clients.current().await).await);
    assert!(
        asked_at.elapsed() < Duration::from_millis(1_900),
        "refused by its announced length, not after 2 s"
    );
    answering.abort();
}

#[tokio::test(start_paused = true)]
async fn every_container_of_the_cluster_goes_and_no_other() {
    let (one, two) = (engine("instance-1", 1), engine("instance-2", 2));
    let phases = [Phase::Running, Phase::Frozen, Phase::Created, Phase::Exited];
    for (ordinal, phase) in (0..).zip(phases) {
        place(&one, "demo", "batch", ordinal, phase);
    }
    place(&two, "demo", "no-longer-configured", 0, Phase::Running);
    let others = place(&one, "another", "batch", 0, Phase::Running);
    let foreign = one.place_foreign("postgres");

    let drivers: Vec<Arc<dyn Driver>> = vec![Arc::new(one.driver("demo")), Arc::new(two.driver("demo"))];
    let lines = RefCell::new(Vec::new());
    let (removed, left) =
        drain(&settings(), drivers, Duration::from_mins(2), |line| lines.borrow_mut().push(line)).await;
    assert_eq!((removed, left), (5, Vec::new()));
    let lines = lines.into_inner();
    assert_eq!(lines.iter().filter(|line| line.starts_with("stopped and removed ")).count(), 5, "{lines:?}");
    assert!(
        lines.iter().any(|line| line.starts_with("stopped and removed batch/0 on instance-1 (")),
        "{lines:?}"
    );
    let remaining: Vec<_> = one.containers().into_iter().map(|container| container.id).collect();
    assert_eq!(remaining, [others, foreign]);
    assert!(two.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_named_and_delays_no_other() {
    let (one, two) = (engine("instance-1", 3), engine("instance-2", 4));
    place(&one, "demo", "batch", 0, Phase::Running);
    place(&two, "demo", "batch", 0, Phase::Running);
    one.set_outage(Some(Outage::Refusing));
    let drivers: Vec<Arc<dyn Driver>> = vec![Arc::new(one.driver("demo")), Arc::new(two.driver("demo"))];
    let lines = RefCell::new(Vec::new());
    let (removed, left) =
        drain(&settings(), drivers, Duration::from_secs(20), |line| lines.borrow_mut().push(line)).await;
    assert_eq!(removed, 1);
    assert!(left.len() == 1 && left[0].contains("instance-1"), "{left:?}");
    assert!(two.containers().is_empty());
    let waits = lines.borrow().iter().filter(|line| line.starts_with("waiting for ")).count();
    assert_eq!(waits, 1, "said once, not at each try: {lines:?}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_comes_back_in_time_is_emptied() {
    let one = engine("instance-1", 5);
    place(&one, "demo", "batch", 0, Phase::Running);
    one.outage_for(Outage::Refusing, 5_000);
    let drivers: Vec<Arc<dyn Driver>> = vec![Arc::new(one.driver("demo"))];
    let (removed, left) = drain(&settings(), drivers, Duration::from_mins(2), |_| {}).await;
    assert_eq!((removed, left), (1, Vec::new()));
}
