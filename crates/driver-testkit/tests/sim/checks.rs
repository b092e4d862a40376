//! The checks find what they are for, and only that.

use driver::{Capabilities, Driver};
use driver_testkit::sim::{Behaviour, Counts, Latencies, SimConfig, SimEngine};
use planner::{Phase, Resources};

use crate::{GRACE, engine, labels, run, start};

const MEMORY: Resources = Resources { slots: 1, cpu_millis: 500, memory_mib: 100 };

/// Every call takes 10 ms, so that the arithmetic shows.
fn steady() -> SimConfig {
    SimConfig { latencies: Latencies::all(10..=10), ..SimConfig::default() }
}

fn small(slots: u64) -> SimEngine {
    engine(steady()).with_instance("instance-1", Resources::slots_only(slots))
}

#[tokio::test(start_paused = true)]
async fn a_start_over_capacity_is_found() {
    let engine = small(1);
    let driver = engine.driver("demo");
    run(&driver, "web", 0).await;
    assert!(engine.history().over_capacity().is_empty());
    run(&driver, "web", 1).await;
    let history = engine.history();
    let over = history.over_capacity();
    assert_eq!(over.len(), 1);
    assert_eq!(
        (over[0].at_ms, over[0].used.slots, over[0].capacity.slots),
        (30, 2, 1),
        "as it begins to start"
    );
    assert_eq!(history.peak("instance-1").slots, 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_being_stopped_still_takes_its_room() {
    let engine = small(1);
    let driver = engine.driver("demo");
    let victim = run(&driver, "web", 0).await;
    let begin = start("web", 1);
    let _ = tokio::join!(driver.stop(&victim, GRACE), driver.start(&begin, Some(&victim)));
    engine.history().assert_sound("demo");
    assert_eq!(engine.history().peak("instance-1").slots, 1);

    let engine = small(1);
    engine.set_image("runs", Some(Behaviour::ignores_stop_signal()));
    let driver = engine.driver("demo");
    let stubborn = run(&driver, "web", 0).await;
    let (stopped, started) = tokio::join!(driver.stop(&stubborn, GRACE), driver.start(&begin, None));
    stopped.expect("it is killed");
    started.expect("the engine does not count");
    let history = engine.history();
    assert_eq!(history.over_capacity().len(), 1, "one on its way out, one on its way in");
}

#[tokio::test(start_paused = true)]
async fn frozen_containers_take_their_memory() {
    let capacity = Resources { slots: 1, cpu_millis: 500, memory_mib: 150 };
    let engine = engine(steady()).with_instance("instance-1", capacity);
    let driver = engine.driver("demo");
    let mut first = start("web", 0);
    first.request = MEMORY;
    let id = driver.start(&first, None).await.expect("it starts").id;
    driver.freeze(&id).await.expect("it freezes");
    assert_eq!(engine.history().occupancy().last().map(|last| last.used), Some(MEMORY.when_frozen()));
    let mut second = start("web", 1);
    second.request = MEMORY;
    driver.start(&second, None).await.expect("the engine does not count");
    let history = engine.history();
    assert_eq!(history.over_capacity().len(), 1, "100 MiB frozen and 100 MiB started are more than 150");
    assert_eq!(history.peak("instance-1"), Resources { memory_mib: 200, ..MEMORY });
}

#[tokio::test(start_paused = true)]
async fn what_is_not_the_drivers_doing_is_not_held_against_it() {
    let engine = small(2);
    let driver = engine.driver("demo");
    let first = run(&driver, "web", 0).await;
    run(&driver, "web", 1).await;
    engine.set_capacity("instance-1", Resources::slots_only(1));
    assert_eq!(engine.history().occupancy().last().map(|last| last.capacity.slots), Some(1));
    driver.stop(&first, GRACE).await.expect("it stops");
    engine.hand().start(&first);
    let foreign = engine.place_foreign("postgres");
    engine.hand().remove(&foreign);
    engine.place(labels("other", "web"), 0, Resources::slots(5), Phase::Running);
    assert_eq!(engine.history().peak("instance-1").slots, 5, "each cluster by itself");
    engine.history().assert_sound("demo");
    run(&driver, "web", 2).await;
    assert_eq!(engine.history().over_capacity().len(), 1, "but a start on top of it is");
}

#[tokio::test(start_paused = true)]
async fn two_of_one_key_at_once_are_found() {
    let capabilities = Capabilities { freeze: true, idempotent_start: false };
    let engine = engine(SimConfig { capabilities, ..steady() });
    let driver = engine.driver("demo");
    let first = run(&driver, "web", 0).await;
    driver.stop(&first, GRACE).await.expect("it stops");
    let second = run(&driver, "web", 0).await;
    assert_eq!(engine.history().duplicates(), [], "one after the other");
    let third = run(&driver, "web", 0).await;
    let duplicates = engine.history().duplicates();
    assert_eq!(duplicates.len(), 1);
    assert_eq!((&duplicates[0].first, &duplicates[0].second), (&second, &third));
    assert_eq!(duplicates[0].key, "web/0 on instance-1");
}

#[tokio::test(start_paused = true)]
async fn a_hand_laid_on_others_is_found() {
    let engine = small(3);
    let foreign = engine.place_foreign("postgres");
    let other = engine.place(labels("other", "web"), 0, Resources::ONE_SLOT, Phase::Running);
    let driver = engine.driver("demo");
    assert!(driver.observe().await.expect("it can be observed").containers.is_empty());
    engine.hand().exit(&other, 0);
    engine.history().assert_sound("demo");
    driver.stop(&foreign, GRACE).await.expect("the engine does what it is told");
    let history = engine.history();
    let touched = history.others_touched("demo");
    assert_eq!(touched.len(), 2, "asked to stop, and ended: {touched:#?}");
    assert!(touched.iter().all(|entry| entry.container == foreign));
}

#[tokio::test(start_paused = true)]
async fn counts_follow_a_service_through_time() {
    let engine = small(3);
    let driver = engine.driver("demo");
    let id = run(&driver, "web", 0).await;
    driver.freeze(&id).await.expect("it freezes");
    driver.thaw(&id, None).await.expect("it thaws");
    driver.stop(&id, GRACE).await.expect("it stops");
    let history = engine.history();
    let one = |starting, running, stopping, frozen| Counts { starting, running, stopping, frozen };
    let expected = [
        (0, one(0, 0, 0, 0)),
        (10, one(1, 0, 0, 0)),
        (20, one(0, 1, 0, 0)),
        (30, one(0, 0, 0, 1)),
        (40, one(0, 0, 1, 0)),
        (50, one(0, 0, 0, 0)),
    ];
    for (at_ms, counts) in expected {
        assert_eq!(history.counts_at("web", at_ms), counts, "at {at_ms} ms");
    }
    assert_eq!(history.counts_at("web", 29), one(0, 1, 0, 0));
    assert_eq!(history.counts_at("web", 9_999), one(0, 0, 0, 0));
    assert_eq!(history.starts("web"), 1);
    assert_eq!(history.about(&id).count(), 7, "created, starting, running, frozen, thawed, stopping, exited");
}
