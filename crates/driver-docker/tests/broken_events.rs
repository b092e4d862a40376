//! Streams of events that break, on a real engine: they are asked for anew, and what they have not told is observed.

mod support;

use std::time::Duration;

use driver::{ContainerId, Driver, Event, StopOptions};
use driver_docker::DockerDriver;
use futures_util::stream::BoxStream;
use planner::Phase;
use tokio::time::timeout;

use support::{
    Cluster, Mode, PATIENCE, Proxy, Telling, driver_through, inspect, next, observe, running, start_of,
    workload,
};

const GRACE: StopOptions = StopOptions { grace_ms: 5_000 };

/// What the engine says itself of a driver's containers.
async fn phase(driver: &DockerDriver, id: &ContainerId) -> Option<Phase> {
    observe(driver).await.containers.iter().find(|it| it.id == *id).map(|it| it.phase)
}

async fn until_requests(proxy: &Proxy, text: &str, count: usize) {
    timeout(PATIENCE, proxy.until_requests(text, count)).await.expect("it is asked that often");
}

/// The first event of the next stream, past those of the last one.
async fn gap(events: &mut BoxStream<'static, Event>) {
    while next(events).await != Event::Gap {}
}

#[tokio::test]
async fn a_stream_that_makes_no_sense_is_asked_for_anew_and_nothing_is_missed() {
    const EVENT: &str = r#"{"Type":"container","Action":"start","Actor":{"ID":"a"}}"#;
    let broken: [(&str, Telling); 8] = [
        ("no JSON", Telling::Instead(b"<html>\n")),
        ("not even text", Telling::Instead(b"\xff\xfe\x00\n")),
        ("JSON of another kind", Telling::Instead(b"[1,2]\n")),
        ("an event of nothing", Telling::Instead(b"{}\n")),
        ("a line that stops half-way", Telling::Instead(b"{\"Type\":\"container\",\"Action\"\n")),
        ("an end half-way", Telling::Last(EVENT.split_at(20).0.as_bytes())),
        ("an end before anything", Telling::Last(b"")),
        ("a line without an end", Telling::Endless),
    ];
    for (what, telling) in broken {
        let (cluster, proxy) = (Cluster::new(), Proxy::new());
        let driver = driver_through(&proxy, &cluster);
        let mut events = driver.events();
        gap(&mut events).await;
        let id = running(&driver, 0).await;

        proxy.set(Mode::Events(telling));
        proxy.cut();
        println!("{what}");
        until_requests(&proxy, "/events", 4).await;
        // What happens meanwhile, by another way.
        cluster.driver().freeze(&id).await.expect("it freezes");
        proxy.set(Mode::Forward);
        gap(&mut events).await;
        while phase(&driver, &id).await != Some(Phase::Frozen) {
            // Its list may lag behind it.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        cluster.driver().thaw(&id, None).await.expect("it thaws");
        while phase(&driver, &id).await != Some(Phase::Running) {
            next(&mut events).await;
        }
    }
}

#[tokio::test]
async fn a_line_without_an_end_is_not_taken_for_ever() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    proxy.set(Mode::Events(Telling::Endless));
    let driver = driver_through(&proxy, &cluster);
    let _events = driver.events();
    until_requests(&proxy, "/events", 3).await;
    // A megabyte each, and what the sockets hold.
    let (taken, streams) = (proxy.endless_bytes(), proxy.requests("/events").len());
    assert!(taken <= streams * 4 * 1024 * 1024, "{taken} bytes of {streams} lines");
}

#[tokio::test]
async fn a_stream_that_always_ends_at_once_is_asked_for_ever_more_seldom() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    proxy.set(Mode::Events(Telling::Last(b"")));
    let driver = driver_through(&proxy, &cluster);
    let mut events = driver.events();
    until_requests(&proxy, "/events", 7).await;
    let asked: Vec<Duration> = proxy.requests("/events").into_iter().map(|(at, _)| at).collect();
    let mut at_least = Duration::from_millis(25);
    for pair in asked.windows(2).take(6) {
        let waited = pair[1].checked_sub(pair[0]).expect("the clock goes on");
        assert!(waited >= at_least, "{waited:?}, and not {at_least:?}: {asked:?}");
        at_least = (at_least * 2).min(Duration::from_secs(1));
    }
    proxy.set(Mode::Forward);
    gap(&mut events).await;
    let id = running(&driver, 0).await;
    while phase(&driver, &id).await != Some(Phase::Running) {
        next(&mut events).await;
    }
}

#[tokio::test]
async fn nothing_waits_for_a_stream_that_tells_nothing() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    proxy.set(Mode::Events(Telling::Nothing));
    let driver = driver_through(&proxy, &cluster);
    let mut events = driver.events();
    assert_eq!(next(&mut events).await, Event::Gap);
    let stubborn = workload(&[("WORKLOAD_IGNORE_SIGTERM", "1")]);
    let (first, second) = (start_of(0, workload(&[])), start_of(1, stubborn));
    let all = async {
        let first = driver.start(&first, None).await.expect("it starts").id;
        assert_eq!(phase(&driver, &first).await, Some(Phase::Running));
        driver.freeze(&first).await.expect("it freezes");
        assert_eq!(phase(&driver, &first).await, Some(Phase::Frozen));
        driver.thaw(&first, None).await.expect("it thaws");
        let swap = async { tokio::join!(driver.start(&second, Some(&first)), driver.stop(&first, GRACE)) };
        let (second, stopped) = swap.await;
        stopped.expect("it stops");
        let second = second.expect("it starts").id;
        assert_eq!(phase(&driver, &first).await, Some(Phase::Exited));
        assert_eq!(phase(&driver, &second).await, Some(Phase::Running));
        driver.stop(&second, StopOptions { grace_ms: 100 }).await.expect("it is killed");
        assert_eq!(phase(&driver, &second).await, Some(Phase::Exited));
        for id in [&first, &second] {
            driver.remove(id).await.expect("it is removed");
        }
        assert!(observe(&driver).await.containers.is_empty());
    };
    timeout(PATIENCE, all).await.expect("it does without events");
    assert_eq!(proxy.requests("/events").len(), 1, "nothing is wrong with it that could be seen");
}

/// The pause, the resumption and the ends of others, told again and again, are not taken for its own end.
#[tokio::test]
async fn events_that_come_again_or_in_another_order_start_nothing_too_early() {
    for telling in [Telling::Again, Telling::Swapped] {
        let (cluster, proxy) = (Cluster::new(), Proxy::new());
        proxy.set(Mode::Events(telling));
        let driver = driver_through(&proxy, &cluster);
        let mut events = driver.events();
        assert_eq!(next(&mut events).await, Event::Gap);
        let others = [running(&driver, 0).await, running(&driver, 1).await];
        let victim = running(&driver, 2).await;
        driver.freeze(&victim).await.expect("it freezes");
        driver.thaw(&victim, None).await.expect("it thaws");
        let successor = start_of(3, workload(&[]));
        let stops = async {
            for id in &others {
                driver.stop(id, GRACE).await.expect("it stops");
                driver.remove(id).await.expect("it is removed");
            }
            driver.stop(&victim, GRACE).await.expect("it stops");
        };
        let (started, ()) = tokio::join!(driver.start(&successor, Some(&victim)), stops);
        let started = started.expect("it starts").id;
        let (ended, began) = (inspect(&victim).await, inspect(&started).await);
        let ended = ended.state.and_then(|state| state.finished_at).expect("it has ended");
        let began = began.state.and_then(|state| state.started_at).expect("it has started");
        assert!(ended <= began, "{telling:?}: {ended} {began}");
        assert_eq!(phase(&driver, &victim).await, Some(Phase::Exited));
        assert_eq!(phase(&driver, &started).await, Some(Phase::Running));
        assert_eq!(observe(&driver).await.containers.len(), 2);
    }
}

#[tokio::test]
async fn events_of_what_is_not_there_any_more_cost_a_look_at_the_list() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    proxy.set(Mode::Events(Telling::Instead(
        b"{\"Action\":\"die\",\"Actor\":{\"ID\":\"gone\"}}\n\
          {\"Action\":\"pause\",\"Actor\":{\"ID\":\"gone\"}}\n\
          {\"Action\":\"destroy\",\"Actor\":{\"ID\":\"never-there\"}}\n",
    )));
    let driver = driver_through(&proxy, &cluster);
    let id = running(&driver, 0).await;
    let mut events = driver.events();
    assert_eq!(next(&mut events).await, Event::Gap);
    timeout(Duration::from_secs(1), async { while next(&mut events).await != Event::Changed {} }).await.ok();
    assert_eq!(phase(&driver, &id).await, Some(Phase::Running));
    for name in ["gone", "never-there"] {
        assert_eq!(proxy.requests(name).len(), 0, "nothing is asked about {name}");
    }
}
