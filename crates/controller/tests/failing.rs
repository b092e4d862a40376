//! Containers that fail, one kind after the other: what they take with them, how often they are tried, what is said.
#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use controller::{DecisionQuery, Ready, ServiceView, View};
use driver::Health;
use driver_testkit::sim::{Actor, Behaviour, Checked, Happening};
use planner::{Fault, OnPreempt, Phase, Service};
use support::{Running, Scene, filling, pass_ms, runs, spec};

/// An image for priority 1 alone.
const FIRST: &str = "force12/first";
const WITHIN_MS: u64 = 5_000;

/// The demo, with priority 1 of an image of its own.
fn scene(seed: u64, first: Behaviour) -> Scene {
    let mut scene = Scene::demo(seed);
    scene.engine().set_image(FIRST, Some(first));
    scene.settings.services[0].spec = spec(FIRST);
    scene
}

/// The same, where priority 1 is to be healthy.
fn checked(seed: u64, first: Behaviour) -> Scene {
    let mut scene = scene(seed, first);
    scene.settings.services[0].ready = Ready::Healthy { within_ms: WITHIN_MS };
    scene
}

fn first(view: &View) -> &ServiceView {
    view.services.iter().find(|service| &*service.name == "priority1").expect("it is configured")
}

fn all() -> DecisionQuery {
    DecisionQuery { limit: 1_000, ..DecisionQuery::default() }
}

fn says(view: &View, words: &str) -> bool {
    // The very first view knows of nothing.
    !view.services.is_empty() && first(view).reason.as_deref().is_some_and(|reason| reason.contains(words))
}

/// While priority 1 fails the fill has its room, and it takes it back when it is well.
async fn fails_and_is_well_again(scene: &mut Scene, words: &str, well: Behaviour) -> Running {
    let running = scene.start();
    running
        .until(60_000, "the fill has all nine", |view| runs(view, "priority2") == 9 && says(view, words))
        .await;
    // Whatever is tried between the waits: the last of them is 15 seconds at least.
    pass_ms(120_000).await;
    let before = scene.engine().history().starts("priority1");
    pass_ms(120_000).await;
    let tried = scene.engine().history().starts("priority1") - before;
    // Three instances, each at every 15 to 30 seconds and what an attempt takes.
    assert!(tried <= 3 * 9 * 2, "{tried} starts in two minutes");
    assert!(!running.handle.view().success);
    scene.engine().set_image(FIRST, Some(well));
    running.until_success(90_000, 4, 5).await;
    scene.assert_sound();
    running
}

#[tokio::test(start_paused = true)]
async fn one_that_exits_at_once_leaves_its_room_to_the_fill_and_takes_it_back() {
    let mut scene = scene(1, Behaviour::exits(3, 50));
    fails_and_is_well_again(&mut scene, "it exited with code 3", Behaviour::runs()).await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_is_slowed_down() {
    let mut scene = scene(2, Behaviour::exits(1, 4_000));
    scene.settings.services.remove(1);
    let running = scene.start();
    pass_ms(600_000).await;
    // In a wait and a life, which are 19 seconds by and by, as many as are wanted and fit, on each of three instances.
    let starts = scene.engine().history().starts("priority1");
    assert!((20..=9 * 32).contains(&starts), "{starts} starts");
    let view = running.until(31_000, "it is held back", |view| says(view, "held back")).await;
    assert!(says(&view, "it exited with code 1 within 10000 ms"), "{:?}", first(&view).reason);
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn one_out_of_memory_is_said_to_be() {
    let mut scene = scene(3, Behaviour::runs_out_of_memory(200));
    fails_and_is_well_again(&mut scene, "code 137, out of memory", Behaviour::runs()).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_never_healthy_is_a_failed_start() {
    let mut scene = checked(4, Behaviour::checked(Checked::default()));
    let running = fails_and_is_well_again(
        &mut scene,
        "it was not healthy within 5000 ms",
        Behaviour::healthy_after(300),
    )
    .await;
    let stops = scene.engine().history();
    let stopped = stops.of("priority1").filter(|it| it.what == Happening::Stopping && it.by == Actor::Driver);
    assert!(stopped.count() > 3, "what is not ready in time is stopped");
    drop(running);
}

/// What takes long to fail does not hold its room all the time.
#[tokio::test(start_paused = true)]
async fn one_that_takes_long_to_fail_leaves_its_room_to_the_fill_between() {
    let mut scene = checked(12, Behaviour::checked(Checked::default()));
    scene.settings.services[0].ready = Ready::Healthy { within_ms: 60_000 };
    let running = scene.start();
    pass_ms(1_200_000).await;
    let from = scene.engine().now_ms();
    pass_ms(7_200_000).await;
    let history = scene.engine().history();
    let moments = (from..from + 7_200_000).step_by(1_000);
    let filled: usize = moments.map(|at_ms| history.counts_at("priority2", at_ms).running).sum();
    // Five of nine would be left for it if priority 1 kept its four.
    assert!(filled * 10 > 7_200 * 65, "{filled} seconds of {}", 7_200 * 9);
    drop(running);
}

/// One that ends before it is ready has failed, however long it lived.
#[tokio::test(start_paused = true)]
async fn one_that_exits_before_it_is_ready_is_a_failed_start() {
    let mut scene =
        checked(13, Behaviour { exits: Some((20_000, 4)), ..Behaviour::checked(Checked::default()) });
    scene.settings.services[0].ready = Ready::Healthy { within_ms: 60_000 };
    let running = scene.start();
    running.until(60_000, "it says so", |view| says(view, "code 4 before it was ready")).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_checks_is_not_waited_for() {
    let mut scene = checked(5, Behaviour::runs());
    fails_and_is_well_again(&mut scene, "it has no healthcheck", Behaviour::healthy_after(300)).await;
}

#[tokio::test(start_paused = true)]
async fn it_counts_as_running_only_when_it_is_healthy() {
    let mut scene = checked(6, Behaviour::healthy_after(2_000));
    let running = scene.start();
    let started = |view: &View| runs(view, "priority2") == 5 && first(view).starting == 4;
    let view = running.until(1_500, "four start and the fill runs", started).await;
    assert!(!view.success);
    scene.engine().until(|engine| engine.count("priority1", Phase::Running) == 4).await;
    assert_eq!(running.handle.view().services[0].running, 0, "the engine says that they run");
    let view = running.until_success(3_000, 4, 5).await;
    assert!(view.start.p99_ms >= Some(1_900), "a start ends when it is healthy: {:?}", view.start);

    // A rise is met when the last container for it is healthy.
    pass_ms(3_000).await;
    scene.board.set("priority1", 5);
    let view = running.until_success(4_000, 5, 4).await;
    assert!(view.reaction.last_ms >= Some(2_000), "{:?}", view.reaction);
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn one_that_turns_unhealthy_is_replaced_the_new_one_first() {
    let mut scene = checked(7, Behaviour::healthy_after(500));
    let running = scene.start();
    running.until_success(3_000, 4, 5).await;
    pass_ms(20_000).await;
    let view = running.handle.view();
    let ill = view.instances.iter().flat_map(|it| &it.containers).find(|it| &*it.service == "priority1");
    let ill = ill.unwrap().id.clone().unwrap();
    scene.engine().hand().health(&ill, Health::Unhealthy);
    let view = running.until(1_000, "it does not count", |view| runs(view, "priority1") == 3).await;
    assert_eq!((first(&view).unhealthy, view.success), (1, false));
    assert!(first(&view).limited_by.contains(&"unhealthy"), "{:?}", first(&view));
    assert!(says(&view, "unhealthy"), "{:?}", first(&view).reason);
    let shown = view.instances.iter().flat_map(|it| &it.containers).find(|it| it.id.as_ref() == Some(&ill));
    assert_eq!(shown.map(|it| (it.phase, it.fault)), Some((Phase::Running, Some(Fault::Unhealthy))));

    running.until_success(5_000, 4, 5).await;
    let history = scene.engine().history();
    let successor = history.of("priority1").filter(|it| it.what == Happening::Running).last().unwrap();
    let stop = history.about(&ill).find(|it| it.what == Happening::Stopping).unwrap();
    assert!(
        stop.at_ms >= successor.at_ms + 500,
        "it stays until the other is healthy: {stop:?} {successor:?}"
    );
    let decisions = running.handle.decisions(&all());
    let why =
        decisions.iter().flat_map(|it| &it.actions).find(|it| it.kind == "stop" && it.reason == "unhealthy");
    assert!(why.is_some_and(|why| why.words.contains("because it is unhealthy")), "{why:?}");
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn when_all_are_unhealthy_at_once_what_serves_is_not_torn_down_for_what_does_not_come_up() {
    let mut scene = checked(8, Behaviour::healthy_after(500));
    let running = scene.start();
    running.until_success(3_000, 4, 5).await;
    pass_ms(20_000).await;
    // What they all depend on is gone: successors do not become healthy either.
    scene.engine().set_image(FIRST, Some(Behaviour::checked(Checked::default())));
    let all: Vec<_> = scene.engine().containers().into_iter().collect();
    let firsts: Vec<_> =
        all.iter().filter(|it| it.subject.labels.as_ref().unwrap().service == "priority1").collect();
    for container in &firsts {
        scene.engine().hand().health(&container.id, Health::Unhealthy);
    }
    running.until(1_000, "none counts", |view| runs(view, "priority1") == 0).await;
    pass_ms(300_000).await;
    let left = firsts
        .iter()
        .filter(|it| scene.engine().container(&it.id).is_some_and(|it| it.phase == Phase::Running));
    assert_eq!(left.count(), 4, "all stay");
    // It comes back, and nothing has to be started.
    for container in &firsts {
        scene.engine().hand().health(&container.id, Health::Healthy);
    }
    running.until_success(10_000, 4, 5).await;
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn one_that_is_removed_by_hand_is_started_again() {
    let mut scene = scene(9, Behaviour::runs());
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    pass_ms(15_000).await;
    let view = running.handle.view();
    let gone = view.instances.iter().flat_map(|it| &it.containers).find(|it| &*it.service == "priority1");
    scene.engine().hand().remove(gone.unwrap().id.as_ref().unwrap());
    running.until(1_000, "it is missed", |view| runs(view, "priority1") == 3).await;
    running.until_success(1_000, 4, 5).await;
    assert_eq!(running.handle.view().services[0].reason, None);
    scene.assert_sound();
}

/// Nobody has said that the work of priority 1 survives being suspended; that of priority 2 does.
#[tokio::test(start_paused = true)]
async fn one_that_is_paused_by_hand_is_replaced_or_resumed() {
    let mut scene = scene(10, Behaviour::runs());
    scene.settings.services[1] =
        filling(Service { on_preempt: OnPreempt::Freeze, ..Service::fill("priority2", 2) });
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    pass_ms(15_000).await;
    let find = |service: &str| {
        let view = running.handle.view();
        let mut all = view.instances.iter().flat_map(|it| &it.containers);
        all.find(|it| &*it.service == service).unwrap().id.clone().unwrap()
    };
    let (one, two) = (find("priority1"), find("priority2"));
    scene.engine().hand().pause(&one);
    running.until(1_000, "it does not count", |view| runs(view, "priority1") == 3).await;
    running.until_success(2_000, 4, 5).await;
    assert!(scene.engine().container(&one).is_none_or(|it| it.phase == Phase::Exited), "replaced");
    let decisions = running.handle.decisions(&all());
    assert!(decisions.iter().flat_map(|it| &it.actions).any(|it| it.reason == "not_freezable"));

    scene.engine().hand().pause(&two);
    running.until(1_000, "it does not count", |view| runs(view, "priority2") == 4).await;
    running.until_success(2_000, 4, 5).await;
    let by_us = |what| {
        let history = scene.engine().history();
        history.about(&two).any(|it| it.what == what && it.by == Actor::Driver)
    };
    assert!(by_us(Happening::Thawed), "resumed");
    scene.assert_sound();
}

/// Waiting for health may begin while containers run: none of them is torn down for it.
#[tokio::test(start_paused = true)]
async fn what_runs_already_goes_on_counting_when_health_is_waited_for() {
    let mut scene = scene(11, Behaviour::runs());
    let wiring = scene.wiring();
    let running = scene.start_with(wiring.clone());
    running.until_success(2_000, 4, 5).await;
    scene.settings.services[0].ready = Ready::Healthy { within_ms: WITHIN_MS };
    running.handle.update(scene.settings.clone(), wiring).await.unwrap();
    let before = scene.engine().history().entries().len();
    pass_ms(60_000).await;
    assert_eq!(scene.engine().history().entries().len(), before);
    assert!(running.handle.view().success);
    // Nor when the scheduler is started again.
    running.kill().await;
    let running = scene.start();
    running.until_success(5_000, 4, 5).await;
    pass_ms(60_000).await;
    assert_eq!(scene.engine().history().entries().len(), before);
}

/// The same, with a standby of priority 1 on each instance.
fn with_standbys(seed: u64, first: Behaviour) -> Scene {
    let mut scene = checked(seed, first);
    scene.settings.services[0].ready = Ready::Healthy { within_ms: 60_000 };
    scene.settings.services[0].service.standby_per_instance = 1;
    scene
}

fn has_standbys(view: &View) -> bool {
    view.success && first(view).standby == 3
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_was_healthy_serves_as_soon_as_it_is_thawed_also_after_a_restart() {
    let mut scene = with_standbys(20, Behaviour::healthy_after(2_000));
    let mut running = scene.start();
    for restart in [false, true] {
        running.until(60_000, "a standby on each instance", has_standbys).await;
        if restart {
            running.kill().await;
            running = scene.start();
            running.until(5_000, "they are known again", has_standbys).await;
        }
        scene.board.set("priority1", 5);
        let view =
            running.until(1_000, "five serve", |view| view.success && runs(view, "priority1") == 5).await;
        assert!(view.reaction.last_ms < Some(1_000), "no check has said anything yet: {:?}", view.reaction);
        pass_ms(10_000).await;
        assert!(running.handle.view().success);
        scene.board.set("priority1", 4);
        running.until_success(10_000, 4, 5).await;
    }
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_standby_that_is_not_healthy_again_is_replaced_the_new_one_first() {
    let mut scene = with_standbys(21, Behaviour::healthy_after(6_000));
    let running = scene.start();
    running.until(90_000, "a standby on each instance", has_standbys).await;
    pass_ms(10_000).await;
    scene.engine().set_image(FIRST, Some(Behaviour::healthy_after(200)));
    scene.settings.services[0].ready = Ready::Healthy { within_ms: WITHIN_MS };
    running.handle.update(scene.settings.clone(), scene.wiring()).await.expect("the settings are sound");
    scene.board.set("priority1", 5);
    running.until(1_000, "five serve", |view| view.success && runs(view, "priority1") == 5).await;
    let history = scene.engine().history();
    let thawed = history.of("priority1").filter(|it| it.what == Happening::Thawed).last().unwrap();
    pass_ms(WITHIN_MS - 500).await;
    assert!(running.handle.view().success, "it has its time");
    let view = running.until(1_000, "it does not count", |view| runs(view, "priority1") == 4).await;
    assert_eq!((first(&view).unhealthy, view.success), (1, false));
    running.until_success(5_000, 5, 4).await;
    let history = scene.engine().history();
    let ended: Vec<_> = history.about(&thawed.container).map(|it| it.what).collect();
    assert!(ended.iter().any(|what| matches!(what, Happening::Exited { .. })), "{ended:?}");
    scene.assert_sound();
}
