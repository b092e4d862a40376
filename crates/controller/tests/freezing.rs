//! Freezing as it is carried out: bounds, evictions, swaps side by side, and every half of a swap that fails.

mod support;

use driver::ContainerId;
use driver_testkit::sim::{Actor, Call, Fault, FaultKind, Happening, Labels, Outage, SimConfig};
use driver_testkit::sim::{Behaviour, SimEngine};
use planner::{Instance, OnPreempt, Overlap, Phase, Resources, Service};
use support::{IMAGE, Running, Scene, demanded, filling, pass_ms, runs};

fn batch() -> Service {
    Service { on_preempt: OnPreempt::Freeze, ..Service::fill("priority2", 2) }
}

/// The demo in freeze mode.
fn scene(seed: u64) -> Scene {
    let mut scene = Scene::demo(seed);
    scene.settings.services[1] = filling(batch());
    scene
}

/// One instance of three slots in freeze mode, with these bounds and this demand.
fn small(seed: u64, demand: u32, bounds: Instance) -> Scene {
    let mut scene = scene(seed);
    let capacity = Resources::slots_only(3);
    let engine = SimEngine::new("small", SimConfig::seeded(seed)).with_image(IMAGE, Behaviour::runs());
    scene.engines = vec![engine.with_instance("instance-1", capacity)];
    scene.settings.instances = vec![bounds];
    scene.board.set("priority1", demand);
    scene
}

fn instance() -> Instance {
    Instance::ready("instance-1", Resources::slots_only(3))
}

fn in_phase(scene: &Scene, service: &str, phase: Phase) -> Vec<ContainerId> {
    let of = |labels: &Labels| labels.service == service;
    let there = scene.engine().containers().into_iter();
    there
        .filter(|it| it.phase == phase && it.subject.labels.as_ref().is_some_and(of))
        .map(|it| it.id)
        .collect()
}

async fn with_bounds(running: &Running, scene: &mut Scene, bounds: Instance) {
    scene.settings.instances = vec![bounds];
    // The same ways to the engines and sources as before, by name.
    running.handle.update(scene.settings.clone(), scene.wiring()).await.expect("the settings are sound");
}

fn reasons(running: &Running) -> Vec<(&'static str, &'static str)> {
    let query = controller::DecisionQuery { service: None, limit: 50, before: None };
    let decisions = running.handle.decisions(&query);
    decisions.iter().flat_map(|it| &it.actions).map(|action| (action.kind, action.reason)).collect()
}

/// How those of priority 2 have ended, in the order of time.
fn exits(scene: &Scene) -> Vec<i64> {
    let history = scene.engine().history();
    let code = |entry: &driver_testkit::sim::Entry| match entry.what {
        Happening::Exited { code } => Some(code),
        _ => None,
    };
    history.of("priority2").filter_map(code).collect()
}

/// How many of priority 2 we have ended, or told to end.
fn ended_by_us(scene: &Scene) -> usize {
    let history = scene.engine().history();
    let ends = |what| matches!(what, Happening::Stopping | Happening::Exited { .. });
    history.of("priority2").filter(|entry| entry.by == Actor::Driver && ends(entry.what)).count()
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bound_one_ends_gracefully_in_the_room_of_a_sibling() {
    let mut scene = small(1, 0, instance());
    let running = scene.start();
    running.until_success(4_000, 0, 3).await;
    scene.board.set("priority1", 2);
    running.until_success(4_000, 2, 1).await;
    assert_eq!(in_phase(&scene, "priority2", Phase::Frozen).len(), 2);
    let lender = in_phase(&scene, "priority2", Phase::Running);
    with_bounds(&running, &mut scene, Instance { frozen_max: 1, ..instance() }).await;
    running.until(5_000, "one is evicted", |view| view.success && view.services[1].frozen == 1).await;
    assert!(exits(&scene).iter().all(|&code| code == 143) && exits(&scene).len() == 1, "gracefully");
    assert!(
        reasons(&running).contains(&("freeze", "lends"))
            && reasons(&running).contains(&("stop", "frozen_bound"))
    );
    let lender = scene.engine().container(&lender[0]).expect("it has lost nothing");
    assert!(matches!(lender.phase, Phase::Running | Phase::Frozen));
    pass_ms(60_000).await;
    assert_eq!(in_phase(&scene, "priority2", Phase::Frozen).len(), 1);
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn beyond_the_bound_in_memory_none_is_killed_while_demand_goes_on_changing() {
    let mut scene = small(8, 0, instance());
    let request = Resources { slots: 1, cpu_millis: 0, memory_mib: 2 };
    scene.settings.services[1] = filling(Service { request, ..batch() });
    let running = scene.start();
    running.until_success(4_000, 0, 3).await;
    scene.board.set("priority1", 2);
    running.until_success(4_000, 2, 1).await;
    assert_eq!(in_phase(&scene, "priority2", Phase::Frozen).len(), 2);
    scene.board.set("priority1", 3);
    with_bounds(&running, &mut scene, Instance { frozen_memory_mib: 3, ..instance() }).await;
    for demand in [2, 3, 1, 2, 3, 0, 2] {
        scene.board.set("priority1", demand);
        pass_ms(70).await;
    }
    running.until(9_000, "one is frozen", |view| view.success && view.services[1].frozen == 1).await;
    let exits = exits(&scene);
    assert!(!exits.is_empty() && exits.iter().all(|&code| code == 143), "gracefully: {exits:?}");
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn where_no_sibling_runs_it_is_killed_in_its_freezer_after_a_while() {
    let mut scene = small(2, 0, instance());
    let running = scene.start();
    running.until_success(4_000, 0, 3).await;
    scene.board.set("priority1", 3);
    running.until_success(4_000, 3, 0).await;
    with_bounds(&running, &mut scene, Instance { frozen_max: 1, evict_after_ms: 5_000, ..instance() }).await;
    pass_ms(4_500).await;
    assert_eq!(in_phase(&scene, "priority2", Phase::Frozen).len(), 3, "a slot may come free");
    running.until(2_000, "two are evicted", |view| view.success && view.services[1].frozen == 1).await;
    pass_ms(500).await;
    assert_eq!(exits(&scene), [137, 137]);
    let never_again = |what| !matches!(what, Happening::Stopping | Happening::Thawed);
    assert!(scene.engine().history().of("priority2").all(|entry| never_again(entry.what)), "none ran again");
    assert!(reasons(&running).contains(&("kill", "frozen_bound")));
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn side_by_side_the_successor_does_not_wait_for_the_freeze() {
    for (overlap, beside) in [(Overlap::Never, 0), (Overlap::Swap, 1)] {
        let mut scene = small(3, 1, instance());
        let mut config = SimConfig::seeded(3);
        // So that the order shows: a freeze takes longer than making the successor.
        config.latencies.freeze = 40..=40;
        config.latencies.create = 1..=1;
        let engine = SimEngine::new("slow-freeze", config).with_image(IMAGE, Behaviour::runs());
        scene.engines = vec![engine.with_instance("instance-1", Resources::slots_only(3))];
        scene.settings.services[0] = demanded(Service { overlap, ..Service::demand("priority1", 1) });
        let running = scene.start();
        running.until_success(4_000, 1, 2).await;
        scene.board.set("priority1", 2);
        running.until_success(4_000, 2, 1).await;
        let history = scene.engine().history();
        assert_eq!(history.over_capacity().len(), beside, "{overlap:?}");
        assert_eq!(history.peak("instance-1").slots, 3 + beside as u64);
        assert_eq!(in_phase(&scene, "priority2", Phase::Frozen).len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_fails_or_hangs_ends_in_a_right_state() {
    let kinds = [
        FaultKind::Rejected { code: "engine" },
        FaultKind::Refused,
        FaultKind::AnswerLost,
        FaultKind::Hang,
        FaultKind::Slow { extra_ms: 15_000 },
    ];
    for overlap in [Overlap::Never, Overlap::Swap] {
        for kind in &kinds {
            let mut scene = small(4, 1, instance());
            scene.settings.services[0] = demanded(Service { overlap, ..Service::demand("priority1", 1) });
            let running = scene.start();
            running.until_success(4_000, 1, 2).await;
            scene.engine().fault(Fault::new(kind.clone()).on(Call::Freeze));
            scene.board.set("priority1", 2);
            running.until_success(60_000, 2, 1).await;
            pass_ms(20_000).await;
            running.until_success(1_000, 2, 1).await;
            assert_eq!(scene.engine().history().occupancy().last().expect("it has some").used.slots, 3);
            assert_eq!(in_phase(&scene, "priority2", Phase::Frozen).len(), 1, "{kind:?}, {overlap:?}");
            assert_eq!(ended_by_us(&scene), 0, "no work is lost: {kind:?}, {overlap:?}");
            if overlap == Overlap::Never {
                scene.assert_sound();
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_thaw_that_fails_or_hangs_ends_in_a_right_state() {
    let kinds = [
        FaultKind::Rejected { code: "engine" },
        FaultKind::Refused,
        FaultKind::AnswerLost,
        FaultKind::Hang,
        FaultKind::Slow { extra_ms: 15_000 },
    ];
    for kind in &kinds {
        let mut scene = small(5, 1, instance());
        let running = scene.start();
        running.until_success(4_000, 1, 2).await;
        scene.board.set("priority1", 2);
        running.until_success(4_000, 2, 1).await;
        scene.engine().fault(Fault::new(kind.clone()).on(Call::Thaw));
        scene.board.set("priority1", 1);
        running.until_success(90_000, 1, 2).await;
        pass_ms(20_000).await;
        running.until_success(1_000, 1, 2).await;
        assert_eq!(
            scene.engine().history().starts("priority2"),
            2,
            "none was started in its place: {kind:?}"
        );
        assert_eq!(ended_by_us(&scene), 0, "no work is lost: {kind:?}");
        scene.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_other_settings_meet_is_not_made_a_stop() {
    let mut scene = small(9, 1, instance());
    let running = scene.start();
    running.until_success(4_000, 1, 2).await;
    scene.engine().fault(Fault::new(FaultKind::Rejected { code: "engine" }).on(Call::Freeze).times(3));
    scene.board.set("priority1", 2);
    for evict_after_ms in [9_000, 8_000, 7_000] {
        pass_ms(100).await;
        with_bounds(&running, &mut scene, Instance { evict_after_ms, ..instance() }).await;
    }
    running.until_success(10_000, 2, 1).await;
    assert_eq!(in_phase(&scene, "priority2", Phase::Frozen).len(), 1);
    assert_eq!(ended_by_us(&scene), 0, "no work is lost");
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_end_goes_on_waiting_under_other_settings() {
    let mut scene = small(10, 0, instance());
    let running = scene.start();
    running.until_success(4_000, 0, 3).await;
    scene.board.set("priority1", 3);
    running.until_success(4_000, 3, 0).await;
    let bounds = Instance { frozen_max: 1, evict_after_ms: 5_000, ..instance() };
    with_bounds(&running, &mut scene, bounds.clone()).await;
    for _ in 0..4 {
        pass_ms(1_100).await;
        scene.settings.settle_ms += 1;
        with_bounds(&running, &mut scene, bounds.clone()).await;
    }
    assert_eq!(in_phase(&scene, "priority2", Phase::Frozen).len(), 3, "a slot may come free");
    running.until(1_500, "two are evicted", |view| view.success && view.services[1].frozen == 1).await;
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn an_eviction_that_fails_is_tried_again_and_the_lender_runs_on() {
    for call in [Call::Freeze, Call::Stop] {
        for kind in [FaultKind::Rejected { code: "engine" }, FaultKind::Hang, FaultKind::AnswerLost] {
            let mut scene = small(6, 0, instance());
            let running = scene.start();
            running.until_success(4_000, 0, 3).await;
            scene.board.set("priority1", 2);
            running.until_success(4_000, 2, 1).await;
            scene.engine().fault(Fault::new(kind).on(call).service("priority2"));
            with_bounds(&running, &mut scene, Instance { frozen_max: 1, ..instance() }).await;
            let settled = running
                .until(120_000, "one is evicted", |view| view.success && view.services[1].frozen == 1)
                .await;
            assert_eq!((runs(&settled, "priority1"), runs(&settled, "priority2")), (2, 1));
            pass_ms(30_000).await;
            running.until_success(1_000, 2, 1).await;
            assert_eq!(in_phase(&scene, "priority2", Phase::Frozen).len(), 1);
            scene.assert_sound();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_happens_to_a_frozen_one_meanwhile_is_noticed() {
    let mut scene = small(7, 2, instance());
    scene.board.set("priority1", 0);
    let running = scene.start();
    running.until_success(4_000, 0, 3).await;
    scene.board.set("priority1", 2);
    running.until_success(4_000, 2, 1).await;
    let frozen = in_phase(&scene, "priority2", Phase::Frozen);
    // Killed: it is not counted on when there is room again.
    scene.engine().hand().exit(&frozen[0], 137);
    running.until(2_000, "one is frozen", |view| view.services[1].frozen == 1).await;
    scene.board.set("priority1", 0);
    running.until_success(4_000, 0, 3).await;
    scene.board.set("priority1", 2);
    running.until_success(4_000, 2, 1).await;
    // Resumed: it takes a slot that it is not given.
    let frozen = in_phase(&scene, "priority2", Phase::Frozen);
    scene.engine().hand().unpause(&frozen[0]);
    pass_ms(500).await;
    let view = running.until_success(4_000, 2, 1).await;
    assert_eq!((view.used.slots, view.services[1].frozen), (3, 2));
    // The engine is away and back, with what was frozen; and so is the scheduler.
    scene.engine().outage_for(Outage::Stopped, 10_000);
    pass_ms(5_000).await;
    running.kill().await;
    pass_ms(6_000).await;
    let running = scene.start();
    let view = running.until_success(10_000, 2, 1).await;
    assert_eq!(view.services[1].frozen, 2);
    scene.board.set("priority1", 0);
    running.until_success(4_000, 0, 3).await;
    assert_eq!(in_phase(&scene, "priority2", Phase::Frozen).len(), 0);
    let by_us = |entry: &driver_testkit::sim::Entry| {
        entry.by == Actor::Driver && matches!(entry.what, Happening::Exited { .. })
    };
    assert!(!scene.engine().history().of("priority2").any(by_us), "no work was lost by us");
}
