//! A client that dies: nothing of it goes on but what had reached the engine.

use std::time::Duration;

use driver::Driver;
use driver_testkit::sim::{Actor, FaultRates, Happening, SimConfig};
use futures_util::StreamExt;
use planner::Phase;
use tokio::time::{sleep, timeout};

use crate::{GRACE, engine, run, start};

#[tokio::test(start_paused = true)]
async fn calls_of_a_killed_client_never_return_and_its_streams_end() {
    let engine = engine(SimConfig::default());
    let driver = engine.driver("demo");
    let mut events = driver.events();
    let begin = start("web", 0);
    let killed = async {
        sleep(Duration::from_millis(3)).await;
        driver.kill();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        started = driver.start(&begin, None) => panic!("a dead client got {started:?}"),
        () = killed => unreachable!(),
        () = sleep(Duration::from_mins(1)) => {}
    }
    assert_eq!(
        engine.count("web", Phase::Created),
        1,
        "the create had reached the engine, the start had not"
    );
    timeout(Duration::from_secs(1), driver.observe()).await.expect_err("nor do new calls");
    while let Ok(Some(_)) = timeout(Duration::from_secs(1), events.next()).await {}
    assert_eq!(timeout(Duration::from_secs(1), events.next()).await, Ok(None), "the stream has ended");
    assert_eq!(engine.driver("demo").observe().await.expect("another client").containers.len(), 1);
}

/// Aborted after each millisecond of a swap in turn: whatever the moment, the next client completes it, with
/// one container, and never two in the room of one.
#[tokio::test(start_paused = true)]
async fn a_swap_that_dies_at_any_moment_is_completed_by_the_next_client() {
    for after_ms in 0..260 {
        let engine = engine(SimConfig::seeded(after_ms));
        engine.set_capacity("instance-1", planner::Resources::slots_only(1));
        let victim = run(&engine.driver("demo"), "batch", 0).await;
        let client = {
            let (driver, victim) = (engine.driver("demo"), victim.clone());
            tokio::spawn(async move {
                let begin = start("web", 0);
                let _ = tokio::join!(driver.stop(&victim, GRACE), driver.start(&begin, Some(&victim)));
            })
        };
        sleep(Duration::from_millis(after_ms)).await;
        client.abort();
        let driver = engine.driver("demo");
        let begin = start("web", 0);
        let (stopped, started) =
            tokio::join!(driver.stop(&victim, GRACE), driver.start(&begin, Some(&victim)));
        stopped.unwrap_or_else(|error| panic!("killed after {after_ms} ms: {error}"));
        started.unwrap_or_else(|error| panic!("killed after {after_ms} ms: {error}"));
        let history = engine.history();
        history.assert_sound("demo");
        assert_eq!(history.starts("web"), 1, "killed after {after_ms} ms");
        assert_eq!(engine.count("web", Phase::Running), 1);
    }
}

/// With 40 in 100 calls going wrong, nobody fails so often in a row.
const ATTEMPTS: usize = 100;

/// Starts repeated until they succeed, under every kind of fault: one container each, whatever the seed.
#[tokio::test(start_paused = true)]
async fn starts_repeated_under_faults_start_nothing_twice() {
    let rates = FaultRates {
        refused_per_mille: 100,
        answer_lost_per_mille: 150,
        hang_per_mille: 50,
        slow_per_mille: 100,
        slow_extra_ms: 700,
    };
    for seed in 0..200 {
        let config = SimConfig { fault_rates: rates, call_timeout_ms: 500, ..SimConfig::seeded(seed) };
        let engine = engine(config);
        let persist = |ordinal| {
            let driver = engine.driver("demo");
            async move {
                for _ in 0..ATTEMPTS {
                    if driver.start(&start("web", ordinal), None).await.is_ok() {
                        return;
                    }
                }
                panic!("seed {seed}: web/{ordinal} did not start in {ATTEMPTS} attempts");
            }
        };
        tokio::join!(persist(0), persist(1), persist(2));
        let history = engine.history();
        history.assert_sound("demo");
        let ours = history.of("web").filter(|entry| entry.by == Actor::Driver);
        let created = ours.filter(|entry| entry.what == Happening::Created).count();
        assert_eq!((created, history.starts("web")), (3, 3), "seed {seed}");
    }
}
