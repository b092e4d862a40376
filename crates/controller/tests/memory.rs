//! What is suspended holds its memory: whatever fails on the way, no instance is given more than it has, in memory or in
//! slots.

mod support;

use controller::Settings;
use driver_testkit::sim::{Behaviour, Call, Fault, FaultKind, Happening, SimConfig, SimEngine};
use planner::{Instance, InstanceState, OnPreempt, Phase, Resources, Service};
use support::{Board, IMAGE, Running, Scene, demanded, filling, pass_ms, runs};

const fn taking(slots: u64, memory_mib: u64) -> Resources {
    Resources { slots, cpu_millis: 0, memory_mib }
}

const fn having(slots: u64, memory_mib: u64) -> Resources {
    Resources { slots, cpu_millis: Resources::UNLIMITED, memory_mib }
}

fn batch(request: Resources, priority: u32) -> Service {
    Service { on_preempt: OnPreempt::Freeze, request, ..Service::fill("batch", priority) }
}

fn demand(name: &str, priority: u32, request: Resources) -> Service {
    Service { request, ..Service::demand(name, priority) }
}

/// One instance; `batch` fills it, the others follow the board, which says 0 at first.
fn scene(seed: u64, capacity: Resources, batch: Service, others: Vec<Service>) -> Scene {
    let mut scene = Scene::demo(seed);
    let engine = SimEngine::new("engine", SimConfig::seeded(seed)).with_image(IMAGE, Behaviour::runs());
    scene.engines = vec![engine.with_instance("instance-1", capacity)];
    let values: Vec<(&str, u32)> = others.iter().map(|service| (service.name.as_str(), 0)).collect();
    scene.board = Board::new(&values);
    let services = others.into_iter().map(demanded).chain([filling(batch)]).collect();
    let instances = vec![Instance::ready("instance-1", capacity)];
    scene.settings = Settings { services, instances, ..scene.settings };
    scene
}

/// Waits until so many of `batch` are frozen, and each of these runs as often.
async fn until(running: &Running, limit_ms: u64, frozen: u32, expected: &[(&str, u32)]) {
    let what = format!("{frozen} frozen, and {expected:?}");
    let view = running.until(limit_ms, &what, |view| {
        let of_batch = view.services.iter().find(|service| &*service.name == "batch");
        of_batch.is_some_and(|service| service.frozen == frozen)
            && expected.iter().all(|(name, count)| runs(view, name) == *count)
    });
    view.await;
}

fn assert_within(scene: &Scene, capacity: Resources) {
    scene.assert_sound();
    let peak = scene.engine().history().peak("instance-1");
    assert!(peak.slots <= capacity.slots && peak.memory_mib <= capacity.memory_mib, "{peak:?}");
}

#[tokio::test(start_paused = true)]
async fn a_frozen_one_whose_stop_has_failed_still_holds_its_memory() {
    let kinds = [
        FaultKind::Rejected { code: "engine" },
        FaultKind::Refused,
        FaultKind::AnswerLost,
        FaultKind::Hang,
        FaultKind::Slow { extra_ms: 3_000 },
    ];
    for kind in kinds {
        let capacity = having(3, 200);
        let batch = Service { max: 2, ..batch(taking(1, 100), 2) };
        let others = vec![demand("web", 1, taking(1, 0)), demand("big", 1, taking(1, 150))];
        let mut scene = scene(1, capacity, batch, others);
        let running = scene.start();
        until(&running, 4_000, 0, &[("batch", 2)]).await;
        scene.board.set("web", 3);
        until(&running, 4_000, 2, &[("web", 3)]).await;
        // Slots are free, and nobody is thawed in them.
        running.handle.pause("batch").await.expect("it is there");
        scene.board.set("web", 0);
        until(&running, 4_000, 2, &[("web", 0)]).await;
        scene.engine().fault(Fault::new(kind).on(Call::Stop).service("batch").times(3));
        scene.board.set("big", 1);
        until(&running, 60_000, 0, &[("big", 1)]).await;
        assert_within(&scene, capacity);
    }
}

#[tokio::test(start_paused = true)]
async fn the_memory_of_one_whose_freeze_has_failed_is_nobody_elses() {
    let capacity = having(3, 300);
    let others = vec![demand("web", 1, taking(1, 0)), demand("big", 1, taking(1, 100))];
    let mut scene = scene(2, capacity, batch(taking(1, 100), 2), others);
    let running = scene.start();
    until(&running, 4_000, 0, &[("batch", 3)]).await;
    pass_ms(500).await;
    let fails = Fault::new(FaultKind::Rejected { code: "engine" }).on(Call::Freeze).service("batch");
    scene.engine().fault(fails.times(3));
    scene.board.set("web", 1);
    pass_ms(60).await;
    scene.board.set("big", 1);
    until(&running, 20_000, 1, &[("web", 1), ("big", 1), ("batch", 1)]).await;
    assert_within(&scene, capacity);
}

/// What ends in the room of a sibling was not lent it: somebody waits for its memory, and no slot is free to end it in.
#[tokio::test(start_paused = true)]
async fn a_frozen_one_whose_eviction_has_failed_does_not_run_again_to_end() {
    let capacity = having(6, 400);
    let others = vec![demand("web", 2, taking(1, 0)), demand("big", 1, taking(1, 200))];
    let mut scene = scene(3, capacity, batch(taking(2, 100), 3), others);
    let running = scene.start();
    until(&running, 4_000, 0, &[("batch", 3)]).await;
    scene.board.set("web", 4);
    until(&running, 4_000, 2, &[("web", 4), ("batch", 1)]).await;
    let fails = Fault::new(FaultKind::Rejected { code: "engine" }).on(Call::Freeze).service("batch");
    scene.engine().fault(fails.times(1_000));
    scene.settings.instances[0].frozen_max = 1;
    running.handle.update(scene.settings.clone(), scene.wiring()).await.expect("the settings are sound");
    pass_ms(5_000).await;
    scene.board.set("big", 1);
    until(&running, 60_000, 1, &[("web", 4), ("big", 1), ("batch", 0)]).await;
    let ends = |entry: &&driver_testkit::sim::Entry| matches!(entry.what, Happening::Exited { code: 137 });
    assert_eq!(scene.engine().history().of("batch").filter(ends).count(), 1, "it has ended in its freezer");
    assert_within(&scene, capacity);
}

/// A restarted scheduler waits with ends for which nobody waits. This is none of them.
#[tokio::test(start_paused = true)]
async fn an_instance_that_holds_too_much_does_not_wait_for_the_hold_after_a_start() {
    for (web, frozen, left) in [(3, 3, 1), (2, 2, 1)] {
        let mut scene =
            scene(4, having(3, 300), batch(taking(1, 100), 2), vec![demand("web", 1, taking(1, 0))]);
        let running = scene.start();
        until(&running, 4_000, 0, &[("batch", 3)]).await;
        scene.board.set("web", web);
        until(&running, 4_000, frozen, &[("web", web)]).await;
        running.kill().await;
        let memory_mib = u64::from(left + 3 - frozen) * 100;
        scene.engine().set_capacity("instance-1", having(3, memory_mib));
        scene.settings.start_hold_ms = 20_000;
        let running = scene.start();
        until(&running, 4_000, left, &[("web", web), ("batch", 3 - frozen)]).await;
        // They are on their way out by now.
        pass_ms(500).await;
        let view = running.handle.view();
        assert!(view.instances.iter().all(|instance| instance.state == InstanceState::Ready));
        let history = scene.engine().history();
        let ends = history.of("batch").filter(|entry| matches!(entry.what, Happening::Exited { .. })).count();
        assert_eq!(ends, usize::try_from(frozen - left).expect("a few"));
        assert_eq!(scene.engine().count("web", Phase::Running), usize::try_from(web).expect("a few"));
    }
}
