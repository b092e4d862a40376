//! What operators and configurations ask for: pause, cordon, drain, other settings, the end.

mod support;

use std::sync::Arc;
use std::time::Duration;

use controller::{CommandError, DrainError, ServiceSettings, Settings, UpdateError, View};
use driver_testkit::sim::{Behaviour, Outage, SimConfig, SimEngine};
use planner::{Instance, InstanceState, Resources, Service};
use support::{CLUSTER, IMAGE, Scene, demanded, filling, pass_ms, runs};

fn on_instance(view: &View, instance: &str) -> usize {
    let instance = view.instances.iter().find(|other| &*other.name == instance).expect("it is configured");
    instance.containers.len()
}

#[tokio::test(start_paused = true)]
async fn a_paused_service_starts_nothing() {
    let mut scene = Scene::demo(1);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    running.handle.pause("priority1").await.expect("it is configured");
    scene.board.set("priority1", 6);
    pass_ms(5_000).await;
    let view = running.handle.view();
    assert_eq!(runs(&view, "priority1"), 4);
    assert!(view.services[0].paused);
    assert_eq!(view.blocked_by, ["paused"]);
    running.handle.resume("priority1").await.expect("it is configured");
    running.until_success(2_000, 6, 3).await;
    let unknown = running.handle.pause("priority3").await;
    assert_eq!(unknown, Err(CommandError::UnknownService("priority3".to_owned())));
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_drained_instance_is_emptied_and_a_cordoned_one_gets_nothing_new() {
    let mut scene = Scene::demo(2);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    pass_ms(2_000).await;
    running.handle.drain("instance-1").await.expect("it is configured");
    let emptied = |view: &View| on_instance(view, "instance-1") == 0 && runs(view, "priority1") == 4;
    let view = running.until(5_000, "instance-1 is empty", emptied).await;
    assert_eq!(view.instances[0].state, InstanceState::Draining);
    assert_eq!(view.instances[0].reason.as_deref(), Some("drained by the operator"));
    assert_eq!(view.usable_capacity.slots, 6);
    // Priority 1 never had less than it needs.
    let least =
        scene.engine().history().counts("priority1").iter().rev().take(8).map(|(_, it)| it.running).min();
    assert_eq!(least, Some(4));

    running.handle.cordon("instance-1").await.expect("it is configured");
    scene.board.set("priority1", 9);
    pass_ms(2_000).await;
    assert_eq!(on_instance(&running.handle.view(), "instance-1"), 0);
    running.handle.uncordon("instance-1").await.expect("it is configured");
    running.until_success(2_000, 9, 0).await;
    assert_eq!(running.handle.cordon("x").await, Err(CommandError::UnknownInstance("x".to_owned())));
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn settings_change_live() {
    let mut scene = Scene::demo(3);
    let wiring = scene.wiring();
    let running = scene.start_with(wiring.clone());
    running.until_success(2_000, 4, 5).await;
    pass_ms(2_000).await;
    let before = scene.engine().history().entries().len();

    // The same again changes nothing.
    running.handle.update(scene.settings.clone(), wiring.clone()).await.expect("it is sound");
    pass_ms(5_000).await;
    assert_eq!(scene.engine().history().entries().len(), before);

    // A service goes: what it ran is surplus. Another comes.
    let mut settings = scene.settings.clone();
    settings.services = vec![
        demanded(Service { max: 3, ..Service::demand("priority1", 1) }),
        filling(Service { max: 4, ..Service::fill("other", 3) }),
    ];
    running.handle.update(settings.clone(), wiring.clone()).await.expect("it is sound");
    let changed = |view: &View| {
        runs(view, "priority1") == 3
            && runs(view, "other") == 4
            && view.services.len() == 2
            && view.used.slots == 7
    };
    running.until(5_000, "the new services", changed).await;

    // Another generation is rolled out, one at a time.
    let mut spec = (*settings.services[1].spec).clone();
    spec.environment.insert("GREETING".to_owned(), "hello".to_owned());
    settings.services[1] = ServiceSettings { spec: spec.into(), ..settings.services[1].clone() };
    running.handle.update(settings.clone(), wiring.clone()).await.expect("it is sound");
    let rolled = |view: &View| {
        let all = || view.instances.iter().flat_map(|instance| &instance.containers);
        changed(view) && all().count() == 7 && !all().any(|container| container.outdated)
    };
    // The first of them is on trial for ten seconds.
    running.until(20_000, "the new generation", rolled).await;
    let fewest =
        scene.engine().history().counts("other").iter().rev().take(8).map(|(_, it)| it.running).min();
    assert!(fewest >= Some(3), "{fewest:?}");

    // An instance goes only when it is empty.
    let mut fewer = settings.clone();
    fewer.instances.retain(|instance| instance.name != "instance-2");
    let refused = running.handle.update(fewer.clone(), wiring.clone()).await;
    let Err(UpdateError::InstanceHoldsContainers { instance, containers }) = refused else {
        panic!("it holds containers: {refused:?}");
    };
    assert_eq!(instance, "instance-2");
    assert!(!containers.is_empty() && containers.iter().all(|name| name.ends_with("on instance-2")));
    running.handle.drain("instance-2").await.expect("it is configured");
    running.until(5_000, "it is empty", |view| on_instance(view, "instance-2") == 0).await;
    running.handle.update(fewer.clone(), wiring.clone()).await.expect("it is empty");
    let view = running.until(2_000, "it is gone", |view| view.instances.len() == 2).await;
    assert_eq!(view.capacity.slots, 6);

    // And comes again, ready.
    running.handle.update(settings, wiring.clone()).await.expect("it is sound");
    running.until(5_000, "all nine", |view| changed(view) && view.capacity.slots == 9).await;
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_host_that_is_gone_for_good_can_be_given_up() {
    let mut scene = Scene::spread(11);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    scene.engines[1].set_outage(Some(Outage::Silent));
    let lost = |view: &View| view.instances[1].state == InstanceState::Lost;
    running.until(4_000, "it is lost", lost).await;

    // It may come back, unless somebody says that nobody wants it to.
    let mut fewer = scene.settings.clone();
    fewer.instances.retain(|instance| instance.name != "instance-2");
    let mut wiring = scene.wiring();
    wiring.drivers.remove(1);
    let refused = running.handle.update(fewer.clone(), wiring.clone()).await;
    assert!(matches!(refused, Err(UpdateError::InstanceHoldsContainers { .. })), "{refused:?}");
    running.handle.drain("instance-2").await.expect("it is configured");
    running.handle.update(fewer, wiring).await.expect("it is given up");
    let view = running.until_success(2_000, 4, 2).await;
    assert_eq!((view.instances.len(), view.capacity.slots), (2, 6));
    // Whatever ends late over there is nobody's business any more.
    scene.engines[1].set_outage(None);
    pass_ms(60_000).await;
    let view = running.handle.view();
    assert!(view.success && view.used.slots == 6, "{view:#?}");
    assert_eq!(scene.engines[1].containers().len(), 3, "nobody touches what runs there");
}

#[tokio::test(start_paused = true)]
async fn an_instance_moves_to_another_engine_only_when_it_is_empty() {
    let mut scene = Scene::spread(9);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    pass_ms(2_000).await;

    // New drivers of the same engines, as after a change of capacity: nothing is forgotten, nothing is done.
    let entries = scene.engine().history().entries().len();
    running.handle.update(scene.settings.clone(), scene.wiring()).await.expect("the engines are the same");
    let view = running.handle.view();
    assert!(view.success, "{view:#?}");
    assert_eq!((view.usable_capacity.slots, on_instance(&view, "instance-1")), (9, 3));
    pass_ms(5_000).await;
    assert_eq!(scene.engine().history().entries().len(), entries);

    let other = SimEngine::new("engine-9", SimConfig::seeded(9))
        .with_image(IMAGE, Behaviour::runs())
        .with_instance("instance-1", Resources::slots_only(3));
    let mut wiring = scene.wiring();
    wiring.drivers[0] = Arc::new(other.driver(CLUSTER));
    let refused = running.handle.update(scene.settings.clone(), wiring.clone()).await;
    let Err(UpdateError::InstanceMoves { instance, from, to, containers }) = refused else {
        panic!("it holds containers: {refused:?}");
    };
    assert_eq!((instance.as_str(), containers.len()), ("instance-1", 3));
    assert!(from.contains("engine-1") && to.contains("engine-9"), "{from} {to}");
    pass_ms(5_000).await;
    assert!(running.handle.view().success, "what was there holds");

    running.handle.drain("instance-1").await.expect("it is configured");
    running.until(5_000, "it is empty", |view| on_instance(view, "instance-1") == 0).await;
    // Until the other engine has answered, nothing that the first has said counts.
    other.set_outage(Some(Outage::Silent));
    running.handle.update(scene.settings.clone(), wiring).await.expect("it is empty");
    running.handle.uncordon("instance-1").await.expect("it is configured");
    assert_eq!(running.handle.view().instances[0].reason.as_deref(), Some("not observed yet"));
    other.set_outage(None);
    // The preparation that hung is given up after ten seconds, and tried again.
    running.until_success(15_000, 4, 5).await;
    assert_eq!((scene.engine().containers().len(), other.containers().len()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn a_changed_limit_of_silence_counts_at_once() {
    let mut scene = Scene::spread(10);
    scene.settings.lost_after_ms = 60_000;
    let wiring = scene.wiring();
    let running = scene.start_with(wiring.clone());
    running.until_success(2_000, 4, 5).await;
    scene.engines[1].set_outage(Some(Outage::Silent));
    pass_ms(40_000).await;
    assert_eq!(running.handle.view().instances[1].state, InstanceState::Ready);
    let settings = Settings { lost_after_ms: 1_000, ..scene.settings.clone() };
    running.handle.update(settings, wiring).await.expect("it is sound");
    let lost = |view: &View| view.instances[1].state == InstanceState::Lost;
    let view = running.until(1_100, "it is lost", lost).await;
    let reason = view.instances[1].reason.as_deref();
    assert!(reason.is_some_and(|reason| reason.ends_with("has not answered for 1000 ms")), "{reason:?}");
}

#[tokio::test(start_paused = true)]
async fn settings_that_are_wrong_change_nothing() {
    let mut scene = Scene::demo(4);
    let wiring = scene.wiring();
    let running = scene.start_with(wiring.clone());
    running.until_success(2_000, 4, 5).await;
    let mut settings = scene.settings.clone();
    settings.services.push(demanded(Service::demand("priority1", 7)));
    let refused =
        running.handle.update(settings.clone(), wiring.clone()).await.expect_err("a name is there twice");
    assert_eq!(refused.to_string(), "service \"priority1\" is configured twice; give each a name of its own");
    settings.services.pop();
    settings.instances.push(Instance::ready("nowhere", Resources::slots_only(1)));
    let refused =
        running.handle.update(settings.clone(), wiring.clone()).await.expect_err("nobody serves it");
    assert_eq!(refused.to_string(), "instance \"nowhere\" is served by no driver");
    settings.instances.pop();
    settings.cluster = "other".to_owned();
    let refused = running.handle.update(settings, wiring).await.expect_err("the cluster cannot change");
    assert!(refused.to_string().contains("cannot change from \"demo\" to \"other\""), "{refused}");
    pass_ms(1_000).await;
    assert!(running.handle.view().success);
}

#[tokio::test(start_paused = true)]
async fn drain_all_stops_everything_of_ours_and_says_how_far_it_is() {
    let mut scene = Scene::demo(5);
    let stranger = scene.engine().place_foreign("somebody-elses");
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    let mut told = Vec::new();
    running
        .handle
        .drain_all(Duration::from_secs(20), |progress| told.push(progress.remaining.len()))
        .await
        .expect("everything can be stopped");
    assert_eq!(told.first(), Some(&9), "{told:?}");
    assert_eq!(told.last(), Some(&0), "{told:?}");
    assert_eq!(scene.engine().containers().len(), 1);
    assert!(scene.engine().container(&stranger).is_some());
    // Nothing is started any more.
    scene.board.set("priority1", 9);
    pass_ms(10_000).await;
    assert_eq!(scene.engine().containers().len(), 1);
    running.handle.shutdown(Duration::from_secs(1)).await;
    running.ended().await;
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn drain_all_gives_up_on_a_lost_engine_and_says_what_is_left() {
    let mut scene = Scene::spread(6);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    scene.engines[0].set_outage(Some(Outage::Silent));
    let error = running
        .handle
        .drain_all(Duration::from_secs(30), |_| {})
        .await
        .expect_err("one engine does not answer");
    let DrainError::TimedOut { remaining, .. } = &error else { panic!("{error}") };
    assert_eq!(remaining.remaining.len(), 3);
    assert_eq!(remaining.lost.len(), 1);
    assert!(error.to_string().starts_with("3 left after 30000 ms: "), "{error}");
    assert!(error.to_string().contains("instance-1 is lost: "), "{error}");
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_swaps_and_leaves_the_workloads_running() {
    let mut scene = Scene::demo(7);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    pass_ms(1_000).await;
    scene.board.set("priority1", 7);
    pass_ms(20).await;
    let handle = running.handle.clone();
    handle.shutdown(Duration::from_secs(5)).await;
    running.ended().await;
    assert_eq!((scene.run("priority1"), scene.run("priority2")), (7, 2), "the swaps were finished");
    let entries = scene.engine().history().entries().len();
    pass_ms(60_000).await;
    assert_eq!(scene.engine().history().entries().len(), entries, "and then nothing more was done");
    assert_eq!(handle.pause("priority1").await, Err(CommandError::Ended));
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn shutdown_waits_no_longer_than_it_may() {
    let mut scene = Scene::demo(8);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    pass_ms(1_000).await;
    scene.engine().set_outage(Some(Outage::Silent));
    scene.board.set("priority1", 7);
    pass_ms(20).await;
    let asked_at = tokio::time::Instant::now();
    running.handle.shutdown(Duration::from_secs(2)).await;
    running.ended().await;
    assert!(asked_at.elapsed() <= Duration::from_millis(2_010));
}
