//! Engines that are consistent eventually and whose starts are not idempotent, as ECS: what was just started is not listed
//! yet, what has just ended is still listed as running, and an agent may lose its connection.

mod support;

use driver::InstanceAvailability;
use driver_testkit::sim::{Behaviour, Call, Fault, FaultKind, Happening, SimConfig, SimEngine};
use planner::{InstanceState, Phase};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use support::{IMAGE, Running, Scene, pass_ms, runs};

/// Changes show up to so much later.
const LATE_MS: u64 = 800;

/// From the start to success: the settling (10 s), then as on any engine, and what shows late.
const SUCCESS_WITHIN_MS: u64 = 15_000;

/// The demo on such an engine.
fn scene(seed: u64) -> Scene {
    let mut scene = Scene::demo(seed);
    let mut config = SimConfig::seeded(seed);
    config.capabilities.idempotent_start = false;
    config.capabilities.freeze = false;
    config.reports_transitions = true;
    config.lists_late_ms = 0..=LATE_MS;
    config.latencies.observe = 1..=50;
    let mut engine = SimEngine::new("eventual", config).with_image(IMAGE, Behaviour::runs());
    for instance in &scene.settings.instances {
        engine = engine.with_instance(&instance.name, instance.capacity);
    }
    scene.engines = vec![engine];
    scene
}

/// The most of priority 1 that were in their room at once since a moment.
fn most_since(scene: &Scene, since_ms: u64) -> usize {
    let history = scene.engine().history();
    let counts = history.counts("priority1");
    let later = counts.iter().filter(|(at_ms, _)| *at_ms >= since_ms).map(|(_, counts)| counts.in_room());
    later.max().unwrap_or_default()
}

fn starts_since(scene: &Scene, since_ms: u64) -> usize {
    let history = scene.engine().history();
    let started =
        |entry: &&driver_testkit::sim::Entry| entry.what == Happening::Starting && entry.at_ms >= since_ms;
    history.entries().iter().filter(started).count()
}

#[tokio::test(start_paused = true)]
async fn what_is_not_listed_yet_is_not_started_again_and_what_is_listed_still_is_not_counted() {
    for seed in 0..30 {
        let mut scene = scene(seed);
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let running = scene.start();
        running.until_success(SUCCESS_WITHIN_MS, 4, 5).await;
        let mut demand = 4_u32;
        for _ in 0..6 {
            let (before, at_ms) = (demand, scene.engine().now_ms());
            demand = random.random_range(0..=9);
            scene.board.set("priority1", demand);
            pass_ms(random.random_range(1_000..=1_500)).await;
            let most = most_since(&scene, at_ms);
            assert!(most <= before.max(demand) as usize, "seed {seed}: {most}, of {before} and {demand}");
        }
        running.until_success(5_000, demand, 9 - demand).await;
        // Nothing more is done once all of it shows.
        let quiet_since_ms = scene.engine().now_ms();
        pass_ms(20_000).await;
        assert_eq!(starts_since(&scene, quiet_since_ms), 0, "seed {seed}");
        let over = scene.engine().history();
        assert!(over.over_capacity().is_empty(), "seed {seed}: {:?}", over.over_capacity());
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_nothing_is_started_before_a_predecessors_starts_must_show() {
    for seed in 0..30 {
        let mut scene = scene(seed);
        let running = scene.start();
        running.until_success(SUCCESS_WITHIN_MS, 4, 5).await;
        // The demand has risen and its starts are under way, or have just ended.
        let risen_at_ms = scene.engine().now_ms();
        scene.board.set("priority1", 7);
        pass_ms(100 + seed * 15).await;
        running.kill().await;
        let running = scene.start();
        let restarted_at_ms = scene.engine().now_ms();
        running.until_success(SUCCESS_WITHIN_MS, 7, 2).await;
        assert!(most_since(&scene, risen_at_ms) <= 7, "seed {seed}: one was started twice");
        let history = scene.engine().history();
        let early = history.entries().iter().find(|entry| {
            entry.what == Happening::Created
                && (restarted_at_ms + 1..restarted_at_ms + 10_000).contains(&entry.at_ms)
        });
        assert!(early.is_none(), "seed {seed}: {early:?}");
        assert!(history.over_capacity().is_empty(), "seed {seed}: {:?}", history.over_capacity());
    }
}

/// A listing says nothing of what came after it was made, however late it arrives.
#[tokio::test(start_paused = true)]
async fn a_listing_that_arrives_late_does_not_settle_a_start() {
    for seed in 0..30 {
        let mut scene = scene(seed);
        scene.settings.settle_ms = 1_000;
        let running = scene.start();
        running.until_success(SUCCESS_WITHIN_MS, 4, 5).await;
        let starts = scene.engine().history().starts("priority1");
        let risen_at_ms = scene.engine().now_ms();
        scene.engine().fault(Fault::new(FaultKind::AnswerLost).on(Call::Start).service("priority1"));
        scene.board.set("priority1", 5);
        // The list that is made next does not show it yet, and arrives when it should long have been shown.
        scene.engine().until(|engine| engine.count("priority1", Phase::Running) == 5).await;
        scene.engine().fault(Fault::new(FaultKind::Slow { extra_ms: 2_500 }).on(Call::Observe).times(2));
        running.until_success(60_000, 5, 4).await;
        pass_ms(20_000).await;
        assert!(most_since(&scene, risen_at_ms) <= 5, "seed {seed}: one was started twice");
        assert_eq!(scene.engine().history().starts("priority1"), starts + 1, "seed {seed}");
    }
}

async fn until_state(running: &Running, limit_ms: u64, state: InstanceState) -> Option<String> {
    let what = format!("instance-2 is {state:?}");
    let view = running.until(limit_ms, &what, |view| view.instances[1].state == state).await;
    view.instances[1].reason.clone()
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_its_engine_has_lost_is_lost_after_a_while_and_says_why() {
    let mut scene = scene(4);
    let running = scene.start();
    running.until_success(SUCCESS_WITHIN_MS, 4, 5).await;
    scene.board.set("priority1", 6);
    running.until_success(SUCCESS_WITHIN_MS, 6, 3).await;
    let reason = || InstanceAvailability::Lost("its agent is disconnected".to_owned());

    // For a moment only: nothing is given up, and nothing is started there.
    let quiet_since_ms = scene.engine().now_ms();
    let before = scene.engine().happenings();
    scene.engine().set_availability("instance-2", reason());
    let said = until_state(&running, 1_000, InstanceState::Cordoned).await;
    assert_eq!(said.as_deref(), Some("its agent is disconnected"));
    pass_ms(1_500).await;
    scene.engine().set_availability("instance-2", InstanceAvailability::Ready);
    until_state(&running, 1_000, InstanceState::Ready).await;
    pass_ms(5_000).await;
    assert_eq!(scene.engine().happenings(), before, "nothing has happened");

    // For good: what it ran is rescued.
    scene.engine().set_availability("instance-2", reason());
    let lost_at_ms = scene.engine().now_ms();
    let said = until_state(&running, 4_000, InstanceState::Lost).await;
    let took_ms = scene.engine().now_ms() - lost_at_ms;
    assert!((3_000..3_600).contains(&took_ms), "{took_ms} ms");
    assert_eq!(said.as_deref(), Some("its agent is disconnected"));
    assert_eq!(starts_since(&scene, quiet_since_ms), 0);
    running.until(5_000, "all of priority 1 elsewhere", |view| runs(view, "priority1") == 6).await;

    // Back: what still runs there is adopted, and the surplus goes.
    scene.engine().set_availability("instance-2", InstanceAvailability::Ready);
    running.until_success(5_000, 6, 3).await;
    assert!(scene.engine().history().over_capacity().is_empty());
    assert_eq!(scene.engine().count("priority1", Phase::Running), 6);
}
