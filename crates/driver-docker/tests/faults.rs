//! An engine that is away, hangs, or breaks off: what is told, and what becomes of it afterwards.

mod support;

use std::time::{Duration, Instant};

use driver::{ContainerId, Driver, DriverError, Event, StopOptions};
use driver_docker::{DockerDriver, EngineAddress, Limits};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use planner::Phase;
use tokio::time::timeout;

use support::{Cluster, Mode, PATIENCE, Proxy, driver_through, next, observe, running, start_of, workload};

#[tokio::test]
async fn an_engine_that_is_not_there_is_unreachable_and_nothing_was_asked() {
    let cluster = Cluster::new();
    let directory = tempfile::tempdir().expect("a temporary directory can be made");
    let path = directory.path().join("engine.sock");
    let mut config = cluster.config();
    config.engine = EngineAddress::Unix(path.clone());
    let driver = DockerDriver::new(config);
    let shown = path.display();
    let error = driver.observe().await.expect_err("there is no engine");
    assert_eq!(
        error.to_string(),
        format!(
            "docker unix://{shown} cannot be reached: there is no such socket: start the engine, or correct its address"
        )
    );
    drop(std::os::unix::net::UnixListener::bind(&path).expect("it can listen there"));
    let error = driver.start(&start_of(0, workload(&[])), None).await.expect_err("nobody listens any more");
    assert_eq!(
        error.to_string(),
        format!(
            "docker unix://{shown} cannot be reached: connection refused: start the engine, or correct its address"
        )
    );
    assert!(matches!(error, DriverError::Unreachable { source: Some(_), .. }));

    let mut config = cluster.config();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    config.engine = format!("tcp://{}", closed.expect("a port is free")).parse().expect("it is an address");
    let error = DockerDriver::new(config).observe().await.expect_err("nobody listens");
    assert_eq!(error.code(), "unreachable");
}

#[tokio::test]
async fn an_engine_that_hangs_leaves_the_outcome_open_in_time() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    let driver = driver_through(&proxy, &cluster);
    proxy.set(Mode::Hang);
    let begun = Instant::now();
    let error = driver.observe().await.expect_err("the engine hangs");
    assert_eq!(error.code(), "outcome_unknown");
    assert!(error.to_string().contains(" gave no clear answer to observe: "), "{error}");
    assert!(begun.elapsed() >= Duration::from_millis(500));
    proxy.set(Mode::Forward);
    observe(&driver).await;
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_is_completed_by_the_same_start() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    let driver = driver_through(&proxy, &cluster);
    let start = start_of(0, workload(&[]));
    driver.prepare(&start.spec).await.expect("the image is there");
    for mode in [Mode::Drop, Mode::DropAnswer, Mode::DropAnswer] {
        proxy.set(mode);
        let error = driver.start(&start, None).await.expect_err("the answer is lost");
        assert_eq!(error.code(), "outcome_unknown", "{error}");
    }
    proxy.set(Mode::Forward);
    let started = driver.start(&start, None).await.expect("it starts");
    let observed = observe(&driver).await.containers;
    assert_eq!(observed.len(), 1, "one container, however often it was asked for");
    assert_eq!((&observed[0].id, observed[0].phase), (&started.id, Phase::Running));
}

#[tokio::test]
async fn a_gap_comes_first_when_the_events_are_back() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    let driver = driver_through(&proxy, &cluster);
    let mut events = driver.events();
    assert_eq!(next(&mut events).await, Event::Gap);
    let id = running(&driver, 0).await;
    assert_eq!(next(&mut events).await, Event::Changed);

    proxy.set(Mode::Drop);
    proxy.cut();
    // What happens meanwhile, by another way.
    cluster.driver().freeze(&id).await.expect("it freezes");
    let away =
        timeout(Duration::from_millis(300), async { while next(&mut events).await == Event::Changed {} });
    assert!(away.await.is_err(), "no gap is told before the engine is back");
    assert!(proxy.requests("/_ping").len() >= 3, "it tries again and again");
    proxy.set(Mode::Forward);
    assert_eq!(next(&mut events).await, Event::Gap);
    assert_eq!(observe(&driver).await.containers[0].phase, Phase::Frozen);
    driver.thaw(&id, None).await.expect("it thaws");
    while observe(&driver).await.containers[0].phase != Phase::Running {
        next(&mut events).await;
    }
}

#[tokio::test]
async fn an_engine_that_has_gone_silent_is_noticed() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    let driver = driver_through(&proxy, &cluster);
    let mut events = driver.events();
    assert_eq!(next(&mut events).await, Event::Gap);
    // The stream stays open, and nothing new is answered: as with an engine that is stopped or cut off.
    proxy.set(Mode::Hang);
    let following = tokio::spawn(async move {
        let event = next(&mut events).await;
        (event, events)
    });
    // One ping to connect, one that finds it silent, one to connect again.
    timeout(PATIENCE, proxy.until_requests("/_ping", 3)).await.expect("its silence is noticed");
    proxy.set(Mode::Forward);
    let (event, _events) = following.await.expect("it did not panic");
    assert_eq!(event, Event::Gap);
}

/// As many of the 40 as may be asked at once have been, and no more.
async fn asked_at_once(proxy: &Proxy, text: &str, most: usize, calls: impl Future) {
    let enough = async {
        timeout(PATIENCE, proxy.until_requests(text, most)).await.expect("they are asked");
        // Time for more, were they not held back.
        let more = timeout(Duration::from_millis(200), proxy.until_requests(text, most + 1)).await;
        assert!(more.is_err(), "more than {most} at once");
    };
    tokio::select! {
        _ = calls => panic!("the engine answers nothing"),
        () = enough => {}
    }
}

#[tokio::test]
async fn those_who_wait_on_an_engine_that_hangs_hold_few_connections() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    proxy.set(Mode::Hang);
    let mut config = cluster.config();
    config.engine = proxy.address();
    config.limits = Limits { parallel_stops: 2, observe_ms: 60_000, ..Limits::default() };
    let driver = DockerDriver::new(config);
    let ids: Vec<_> = (0..40).map(|number| ContainerId::new(format!("c{number}"))).collect();
    let grace = StopOptions { grace_ms: 60_000 };
    let stops = join_all(ids.iter().map(|id| driver.stop(id, grace)));
    asked_at_once(&proxy, "/stop", 2, stops).await;
    let waits = join_all(ids.iter().map(|id| driver.thaw(id, Some(id))));
    asked_at_once(&proxy, "/json", 16, waits).await;
}

#[tokio::test]
async fn one_subscription_serves_all_who_wait() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    let mut config = cluster.config();
    config.engine = proxy.address();
    let driver = DockerDriver::new(config);
    let mut events = driver.events();
    assert_eq!(next(&mut events).await, Event::Gap);
    let driver = &driver;
    join_all((0..4).map(|ordinal| async move {
        let victim = running(driver, ordinal).await;
        let start = start_of(ordinal + 4, workload(&[]));
        let grace = StopOptions { grace_ms: 5_000 };
        let (started, stopped) =
            tokio::join!(driver.start(&start, Some(&victim)), driver.stop(&victim, grace));
        started.expect("it starts");
        stopped.expect("the victim stops");
    }))
    .await;
    assert_eq!(proxy.requests("/events").len(), 1);
    assert_eq!(proxy.requests("/wait").len(), 0);
}

#[tokio::test]
async fn a_wait_does_without_events() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    let (driver, direct) = (driver_through(&proxy, &cluster), cluster.driver());
    let victim = running(&direct, 0).await;
    // Nothing is heard as long as this is not answered.
    proxy.set(Mode::Hang);
    let mut events = driver.events();
    assert_eq!(events.next().now_or_never(), None);
    proxy.until_requests("/_ping", 1).await;
    proxy.set(Mode::Forward);
    let start = start_of(1, workload(&[]));
    let ending = async {
        proxy.until_requests(&format!("/{victim}/json"), 2).await;
        direct.stop(&victim, StopOptions { grace_ms: 5_000 }).await.expect("it stops");
    };
    let swap = async { tokio::join!(driver.start(&start, Some(&victim)), ending) };
    let (started, ()) = timeout(PATIENCE, swap).await.expect("the end is noticed");
    started.expect("it starts");
}

#[tokio::test]
async fn no_more_calls_are_under_way_than_allowed() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    let mut config = cluster.config();
    config.engine = proxy.address();
    config.limits = Limits { parallel_calls: 2, ..Limits::default() };
    let driver = DockerDriver::new(config);
    let starts: Vec<_> = (0..6).map(|ordinal| start_of(ordinal, workload(&[]))).collect();
    for started in join_all(starts.iter().map(|start| driver.start(start, None))).await {
        started.expect("it starts");
    }
    assert_eq!(proxy.requests("/start").len(), 6);
    assert_eq!(proxy.most_changes_at_once(), 2);
}
