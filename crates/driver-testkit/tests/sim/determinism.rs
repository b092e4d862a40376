//! One seed, one history.

use std::time::Duration;

use driver::Driver;
use driver_testkit::sim::{FaultRates, Happening, History, SimConfig};
use futures_util::future::join_all;
use tokio::time::sleep;

use crate::{GRACE, engine, start};

/// Two clients that start, freeze, thaw, stop and remove side by side, under faults.
async fn commotion(seed: u64) -> History {
    let fault_rates = FaultRates {
        refused_per_mille: 50,
        answer_lost_per_mille: 50,
        hang_per_mille: 20,
        slow_per_mille: 50,
        slow_extra_ms: 900,
    };
    let engine = engine(SimConfig { fault_rates, call_timeout_ms: 1_000, ..SimConfig::seeded(seed) });
    let lives = (0..8).map(|ordinal| {
        let driver = engine.driver(if ordinal % 2 == 0 { "demo" } else { "other" });
        async move {
            for _ in 0..4 {
                let Ok(started) = driver.start(&start("web", ordinal), None).await else { continue };
                let _ = driver.freeze(&started.id).await;
                let _ = driver.thaw(&started.id, None).await;
                let _ = driver.stop(&started.id, GRACE).await;
                let _ = driver.remove(&started.id).await;
            }
        }
    });
    join_all(lives).await;
    sleep(Duration::from_secs(10)).await;
    engine.history()
}

#[tokio::test(start_paused = true)]
async fn the_same_seed_gives_the_same_history() {
    for seed in 0..20 {
        let first = commotion(seed).await;
        assert!(first.entries().len() > 100, "something happened");
        assert_eq!(first, commotion(seed).await, "seed {seed}");
        assert_ne!(first, commotion(seed + 1_000).await, "another seed is another history");
    }
}

/// What a container's calls take does not depend on what else is asked of the engine.
#[tokio::test(start_paused = true)]
async fn draws_do_not_depend_on_the_order_of_calls() {
    let mut running_at_ms = Vec::new();
    for ordinals in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let engine = engine(SimConfig::seeded(5));
        let driver = engine.driver("demo");
        let starts: Vec<_> = ordinals.map(|ordinal| start("web", ordinal)).into();
        join_all(starts.iter().map(|start| driver.start(start, None))).await;
        let history = engine.history();
        let running = history.of("web").filter(|entry| entry.what == Happening::Running);
        let mut times: Vec<_> = running.map(|entry| (entry.subject.ordinal, entry.at_ms)).collect();
        times.sort_unstable();
        running_at_ms.push(times);
    }
    assert_eq!(running_at_ms[0], running_at_ms[1]);
    assert_eq!(running_at_ms[0], running_at_ms[2]);
    assert!(running_at_ms[0].windows(2).any(|pair| pair[0].1 != pair[1].1), "they differ among themselves");
}
