//! What simulated histories have found, each as a case of its own.

mod support;

use controller::SettingsError;
use driver::ContainerId;
use driver_testkit::sim::{Behaviour, Call, Fault, FaultKind, Happening, Outage, SimConfig, SimEngine};
use planner::{OnPreempt, Phase, Resources, Service};
use support::{IMAGE, Scene, demanded, filling, pass_ms, runs};

fn one_running(scene: &Scene, service: &str) -> ContainerId {
    let all = scene.engine().containers();
    let of = |labels: &driver_testkit::sim::Labels| labels.service == service;
    let running = all
        .into_iter()
        .filter(|container| container.phase == Phase::Running)
        .find(|container| container.subject.labels.as_ref().is_some_and(of));
    running.expect("one runs").id
}

/// To end what is suspended takes a slot for a moment: its successor has to wait for that.
#[tokio::test(start_paused = true)]
async fn what_was_paused_by_hand_has_ended_before_another_takes_its_slot() {
    let mut scene = Scene::demo(1);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    let victim = one_running(&scene, "priority2");
    scene.engine().hand().pause(&victim);
    pass_ms(1_000).await;
    assert!(scene.engine().container(&victim).is_none(), "nobody wants it");
    running.until_success(2_000, 4, 5).await;
    scene.assert_sound();
}

/// An instance of an engine that cannot freeze has no place for frozen containers, whatever is configured.
#[tokio::test(start_paused = true)]
async fn where_nothing_can_be_frozen_it_is_stopped() {
    let mut scene = Scene::demo(2);
    let mut config = SimConfig::seeded(2);
    config.capabilities.freeze = false;
    let mut engine = SimEngine::new("cannot-freeze", config).with_image(IMAGE, Behaviour::runs());
    for instance in &scene.settings.instances {
        engine = engine.with_instance(&instance.name, instance.capacity);
    }
    scene.engines = vec![engine];
    let freezes = Service { on_preempt: OnPreempt::Freeze, ..Service::fill("priority2", 2) };
    let standby = Service { standby_per_instance: 1, ..Service::demand("priority1", 1) };
    scene.settings.services = vec![demanded(standby), filling(freezes)];
    let refused = scene.settings.validate(&scene.wiring());
    let (service, engine) = ("priority1".to_owned(), "sim cannot-freeze".to_owned());
    assert_eq!(refused, Err(SettingsError::CannotFreeze { service, engine }));
    scene.settings.services.iter_mut().for_each(|service| service.freeze_or_stop = true);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    scene.board.set("priority1", 7);
    running.until_success(2_000, 7, 2).await;
    scene.board.set("priority1", 1);
    running.until_success(2_000, 1, 8).await;
    pass_ms(5_000).await;
    let view = running.handle.view();
    assert!(view.services.iter().all(|service| service.reason.is_none()), "nothing is unusual: {view:#?}");
    scene.assert_sound();
}

/// The time of day went back while the scheduler was down: what runs was made in its future.
#[tokio::test(start_paused = true)]
async fn a_container_from_the_future_grows_old_all_the_same() {
    let mut scene = Scene::demo(3);
    let shy = Service { min_runtime_ms: 3_000, ..Service::demand("priority1", 1) };
    scene.settings.services = vec![demanded(shy), demanded(Service::demand("priority2", 1))];
    scene.board.set("priority1", 9);
    scene.board.set("priority2", 0);
    let running = scene.start();
    running.until_success(2_000, 9, 0).await;
    running.kill().await;
    scene.engine().jump_clock_ms(-20 * 3_600_000);
    let running = scene.start();
    running.until(5_000, "it is back", |view| view.success).await;
    scene.board.set("priority2", 9);
    let shared = |view: &controller::View| (4..=5).contains(&runs(view, "priority2"));
    running.until(5_000, "a fair share, once they are old enough", shared).await;
    scene.assert_sound();
}

/// A service that was removed and holds nothing more is forgotten, and nothing else with it: not what the engine says
/// of its instances.
#[tokio::test(start_paused = true)]
async fn a_service_that_goes_leaves_what_is_known_of_instances() {
    let mut scene = Scene::demo(4);
    scene.engine().set_capacity("instance-1", Resources::slots_only(1));
    let gone = scene.settings.services[0].clone();
    let running = scene.start();
    running.until(3_000, "it is at work", |view| view.success).await;
    scene.settings.services.retain(|settings| settings.service.name != gone.service.name);
    let (settings, wiring) = (scene.settings.clone(), scene.wiring());
    running.handle.update(settings, wiring).await.expect("it is sound");
    running.until(3_000, "all is filled", |view| view.success && runs(view, "priority2") == 7).await;
    pass_ms(5_000).await;
    let on_first = |entry: &&driver_testkit::sim::Entry| {
        entry.subject.labels.as_ref().is_some_and(|labels| labels.instance == "instance-1")
    };
    let history = scene.engine().history();
    let starts =
        history.entries().iter().filter(on_first).filter(|it| it.what == Happening::Starting).count();
    assert!(starts <= 2, "{starts} starts on one slot, for two containers");
    scene.assert_sound();
}

/// A predecessor has died while an engine was slow to start a container, and the engine still says that it is created.
#[tokio::test(start_paused = true)]
async fn a_predecessors_slow_start_keeps_its_room() {
    let slow = || Fault::new(FaultKind::Slow { extra_ms: 6_500 }).on(Call::Start);
    let lost = || Fault::new(FaultKind::AnswerLost).on(Call::Remove);
    for (hangs, faults) in [(false, vec![slow(), lost()]), (true, vec![slow()])] {
        let mut scene = Scene::spread(5);
        for fault in faults {
            scene.engines[2].fault(fault);
        }
        let running = scene.start();
        pass_ms(500).await;
        running.kill().await;
        if hangs {
            // Whoever waits for its first answer asks the others only when it is lost.
            scene.engines[1].outage_for(Outage::Silent, 9_000);
        }
        let running = scene.start();
        running.until_success(30_000, 4, 5).await;
        scene.assert_sound();
    }
}

/// A service goes and comes back while an engine that is slow to list still shows what has been stopped meanwhile.
#[tokio::test(start_paused = true)]
async fn a_service_that_comes_back_at_once_is_not_started_twice() {
    for seed in 0..50 {
        let mut scene = Scene::rough(seed, false, 200);
        let wiring = scene.wiring();
        let running = scene.start_with(wiring.clone());
        // Started, and not listed yet.
        scene.engine().until(|engine| engine.count("priority1", Phase::Running) == 4).await;
        pass_ms(30).await;
        let with = scene.settings.clone();
        let mut without = with.clone();
        without.services.retain(|settings| settings.service.name != "priority1");
        running.handle.update(without, wiring.clone()).await.expect("it is sound");
        pass_ms(160).await;
        running.handle.update(with, wiring).await.expect("it is sound");
        running.until_success(5_000, 4, 5).await;
        assert!(scene.engine().history().over_capacity().is_empty(), "seed {seed}: over capacity");
    }
}
