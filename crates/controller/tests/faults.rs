//! Engines that lose answers, refuse, hang, vanish and come back; containers that fail.

mod support;

use std::sync::Arc;
use std::time::Duration;

use controller::{ActionOutcome, DecisionQuery, ServiceSettings};
use driver::{ContainerSpec, Generation, PullPolicy};
use driver_testkit::sim::{
    Behaviour, Call, Fault, FaultKind, FaultRates, Happening, Labels, Outage, SimContainerView,
};
use planner::{InstanceState, Phase, Resources, Service};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use support::{CLUSTER, IMAGE, Running, Scene, demanded, pass_ms, runs, spec};

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime")
}

#[test]
fn it_converges_from_any_state() {
    for seed in 0..60 {
        paused().block_on(async {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            let mut scene = Scene::demo(seed);
            let now = spec(IMAGE).generation();
            for ordinal in 0..random.random_range(0..16) {
                let instance = format!("instance-{}", random.random_range(1..=4));
                if instance == "instance-4" {
                    // Not configured, and so not ours to touch.
                    scene.engine().set_capacity(&instance, Resources::slots_only(3));
                }
                let service = ["priority1", "priority2", "gone"][random.random_range(0..3)];
                let generation = if random.random_bool(0.8) {
                    now.clone()
                } else {
                    Generation::from_label("0123456789abcdef")
                };
                let phase = [Phase::Running, Phase::Created, Phase::Exited][random.random_range(0..3)];
                let labels =
                    Labels { cluster: CLUSTER.to_owned(), service: service.to_owned(), instance, generation };
                scene.engine().place(labels, ordinal, Resources::ONE_SLOT, phase);
            }
            let strays = scene.engine().containers().iter().filter(|it| on_4(it)).count();
            // Not nine: nothing less important would be there to make room for the successor of an outdated one.
            let demand = random.random_range(0..=8);
            scene.board.set("priority1", demand);
            let running = scene.start();
            running.until_success(20_000, demand, 9 - demand).await;
            let view = running
                .until(20_000, "nothing outdated, nothing of an unknown service", |view| {
                    let containers = || view.instances.iter().flat_map(|instance| &instance.containers);
                    view.success
                        && view.services.len() == 2
                        && !containers().any(|container| container.outdated)
                })
                .await;
            assert_eq!(view.instances[0].strays.len(), strays);
            assert_eq!(scene.engine().containers().iter().filter(|it| on_4(it)).count(), strays);
            scene.assert_sound();
        });
    }
}

fn on_4(container: &SimContainerView) -> bool {
    container.subject.labels.as_ref().is_some_and(|labels| labels.instance == "instance-4")
}

/// Demand changes while calls fail in every way: nothing is started twice or over capacity, and it ends well.
async fn rough(seed: u64, idempotent: bool) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut scene = Scene::rough(seed, idempotent, random.random_range(0..=80));
    let running = scene.start();
    // Where a start is not idempotent, nothing is started before 10 s.
    running.until_success(if idempotent { 4_000 } else { 14_000 }, 4, 5).await;
    scene.engine().set_fault_rates(FaultRates {
        refused_per_mille: 30,
        answer_lost_per_mille: 100,
        hang_per_mille: 10,
        slow_per_mille: 50,
        slow_extra_ms: 400,
    });
    let mut demand = 4;
    for _ in 0..8 {
        demand = random.random_range(0..=9);
        scene.board.set("priority1", demand);
        pass_ms(random.random_range(10..=1_500)).await;
    }
    scene.engine().set_fault_rates(FaultRates::default());
    // The last call that hangs (10 s, a stop one more), what it settles for (10 s), and a row of failures (30 s).
    running.until_success(60_000, demand, 9 - demand).await;
    let history = scene.engine().history();
    assert!(history.over_capacity().is_empty(), "{:?}", history.over_capacity());
    // An engine that knows no numbers cannot tell which of several lost starts it was that it has done, so a number
    // may be asked for again while its first bearer runs under another's. What counts there is the room.
    assert!(!idempotent || history.duplicates().is_empty(), "{:?}", history.duplicates());
    assert!(history.others_touched(CLUSTER).is_empty());
}

#[test]
fn lost_answers_start_nothing_twice() {
    for seed in 0..40 {
        paused().block_on(rough(seed, true));
    }
}

#[test]
fn lost_answers_start_nothing_twice_where_starts_are_not_idempotent() {
    for seed in 0..40 {
        paused().block_on(rough(seed, false));
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_older_than_a_start_does_not_undo_it() {
    let mut scene = Scene::demo(3);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    // From now on every listing is half a second old when it arrives, and many starts end meanwhile.
    scene.engine().fault(Fault::new(FaultKind::Slow { extra_ms: 500 }).on(Call::Observe).times(1_000));
    for demand in [7, 3, 9, 0, 5] {
        scene.board.set("priority1", demand);
        pass_ms(700).await;
    }
    running.until_success(5_000, 5, 4).await;
    scene.assert_sound();
    assert!(scene.engine().history().counts("priority1").iter().all(|(_, counts)| counts.running <= 9));
}

#[tokio::test(start_paused = true)]
async fn the_unknown_outcome_of_a_start_holds_its_room_until_it_is_settled() {
    let mut scene = Scene::rough(4, false, 4);
    let running = scene.start();
    running.until_success(14_000, 4, 5).await;
    let starts = scene.engine().history().starts("priority1");
    scene.engine().fault(Fault::new(FaultKind::Hang).on(Call::Create).service("priority1"));
    scene.board.set("priority1", 5);
    // 10 s for the driver's limit, and 10 s more for what the engine may do all the same.
    pass_ms(19_000).await;
    assert_eq!(scene.engine().history().starts("priority1"), starts);
    assert!(scene.run("priority2") <= 5);
    let query = DecisionQuery { service: Some("priority1".to_owned()), limit: 10, before: None };
    let unknown = running.handle.decisions(&query).iter().any(|decision| {
        decision
            .actions
            .iter()
            .any(|action| action.outcome == ActionOutcome::Unknown && action.detail.is_some())
    });
    assert!(unknown);
    running.until_success(5_000, 5, 4).await;
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_lost_engine_is_planned_around_and_taken_back() {
    let mut scene = Scene::spread(5);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    scene.board.set("priority1", 6);
    running.until_success(2_000, 6, 3).await;

    // All is quiet, so that no event has the engines asked.
    pass_ms(1_700).await;
    scene.engines[1].set_outage(Some(Outage::Silent));
    let lost = |view: &controller::View| view.instances[1].state == InstanceState::Lost;
    // It is asked six times in `lost_after_ms`, and lost when one question has not been answered for all of that.
    let view = running.until(3_600, "the instance is lost", lost).await;
    assert!(
        view.instances[1].reason.as_deref().is_some_and(|reason| reason.contains("engine-2")),
        "{view:#?}"
    );
    let view = running.until(2_000, "all six run elsewhere", |view| runs(view, "priority1") == 6).await;
    assert_eq!(view.usable_capacity.slots, 6);

    // The others answer as ever meanwhile.
    let before = view.reaction.count;
    scene.board.set("priority1", 5);
    pass_ms(500).await;
    scene.board.set("priority1", 6);
    let view = running.until(1_000, "the others react", |view| view.reaction.count == before + 1).await;
    assert!(view.reaction.last_ms.is_some_and(|ms| ms < 400));

    scene.engines[1].set_outage(None);
    running.until_success(8_000, 6, 3).await;
    // What ran there all along was adopted, and more important work was not stopped for it.
    scene.assert_sound();
    let total: usize = scene.run("priority1") + scene.run("priority2");
    assert_eq!(total, 9);
}

#[tokio::test(start_paused = true)]
async fn a_hung_engine_does_not_delay_a_start_of_the_scheduler_for_long() {
    let mut scene = Scene::spread(6);
    scene.engines[2].set_outage(Some(Outage::Silent));
    let running = scene.start();
    let view = running.until(4_000, "two engines are used", |view| runs(view, "priority1") == 4).await;
    assert_eq!(view.instances[2].state, InstanceState::Lost);
    scene.engines[2].set_outage(None);
    running.until_success(8_000, 4, 5).await;
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_ready_before_an_engine_has_answered_for_the_first_time() {
    let mut scene = Scene::demo(11);
    scene.engine().set_outage(Some(Outage::Silent));
    let running = scene.start();
    pass_ms(20_000).await;
    let view = running.handle.view();
    assert!(view.instances.iter().all(|instance| instance.state == InstanceState::Lost), "{view:#?}");
    let reason = view.not_ready.as_deref().unwrap_or_default();
    assert!(reason.starts_with("no engine has been observed yet: "), "{reason}");
    assert!(reason.contains("has not answered"), "{reason}");
    scene.engine().set_outage(None);
    let view = running.until_success(15_000, 4, 5).await;
    assert_eq!(view.not_ready, None);
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn what_fails_at_once_is_started_ever_more_seldom() {
    let mut scene = Scene::demo(7);
    scene.engine().set_image(IMAGE, Some(Behaviour::exits(3, 200)));
    scene.board.set("priority1", 1);
    scene.settings.services.retain(|settings| settings.service.name == "priority1");
    let running = scene.start();
    pass_ms(60_000).await;
    let starts = scene.engine().history().starts("priority1");
    // Three instances, each at 0.25, 0.5, 1, … 16 s at most: some twenty in a minute, and not some two hundred.
    assert!((6..=40).contains(&starts), "{starts} starts");
    let view = running.handle.view();
    assert!(view.services[0].reason.as_deref().is_some_and(|reason| reason.contains("code 3")), "{view:#?}");

    // It is well again, and so is its record after a good start.
    scene.engine().set_image(IMAGE, Some(Behaviour::runs()));
    running.until(31_000, "it runs", |view| view.success).await;
    pass_ms(11_000).await;
    assert_eq!(running.handle.view().services[0].reason, None);
    let removals = running.handle.decisions(&DecisionQuery { limit: 1_000, ..DecisionQuery::default() });
    let how = removals.iter().flat_map(|decision| &decision.actions).find(|action| action.kind == "remove");
    assert!(how.and_then(|action| action.detail.as_deref()).is_some_and(|detail| detail.contains("code 3")));
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_holds_starts_back_and_takes_no_room() {
    let mut scene = Scene::demo(8);
    let missing = ContainerSpec { image: "force12/missing".to_owned(), ..ContainerSpec::default() };
    let extra = demanded(Service::demand("extra", 1));
    scene.settings.services.push(ServiceSettings { spec: Arc::new(missing), ..extra });
    scene.board.set("extra", 3);
    scene.board.set("priority1", 2);
    let running = scene.start();
    let settled = |view: &controller::View| runs(view, "priority1") == 2 && runs(view, "priority2") == 7;
    let view = running.until(4_000, "the others run", settled).await;
    let extra = view.services.iter().find(|service| &*service.name == "extra").expect("it is configured");
    assert!(extra.reason.as_deref().is_some_and(|reason| reason.contains("force12/missing")), "{extra:#?}");
    assert_eq!(view.blocked_by, ["backing_off"]);
    pass_ms(60_000).await;
    assert_eq!(scene.engine().history().of("extra").count(), 0, "nothing was tried in vain");
    assert_eq!(scene.run("priority2"), 7);

    scene.engine().set_image("force12/missing", Some(Behaviour::runs()));
    running.until(31_000, "it is there now", |view| runs(view, "extra") == 3 && view.success).await;
    scene.assert_sound();
}

/// The reason that the newest decision about a service gives for what was not done, as a code and in words.
fn not_done(running: &Running, service: &str) -> (&'static str, String) {
    let decisions = running.handle.decisions(&DecisionQuery { limit: 1_000, ..DecisionQuery::default() });
    let found = decisions.iter().flat_map(|decision| &decision.not_done).find(|it| &*it.service == service);
    found.map(|it| (it.reason, it.words.clone())).expect("something was not done")
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_prepared_has_a_code_and_is_no_loop() {
    let mut scene = Scene::demo(13);
    let denied = FaultKind::Rejected { code: "registry_denied" };
    scene.engine().fault(Fault::new(denied).on(Call::Prepare).times(30));
    scene.board.set("priority1", 4);
    let running = scene.start();
    let view = running.until(4_000, "it is told", |view| view.blocked_by == ["backing_off"]).await;
    for service in &view.services {
        assert_eq!(service.limited_by, ["registry_denied"], "{service:#?}");
        let reason = service.reason.as_deref().unwrap_or_default();
        assert!(reason.starts_with("its starts are held back: ") && reason.contains("prepare"), "{reason}");
    }
    let (code, words) = not_done(&running, "priority1");
    assert_eq!(code, "registry_denied");
    assert!(words.starts_with("priority1: 4 more wanted; its starts are held back: "), "{words}");
    let decided =
        || running.handle.decisions(&DecisionQuery { limit: 1_000, ..DecisionQuery::default() }).len();
    let before = decided();
    pass_ms(300_000).await;
    assert_eq!(decided(), before, "the same again and again is no news");
    assert_eq!(scene.engine().history().of("priority1").count(), 0, "nothing is started in vain");
    running.until_success(900_000, 4, 5).await;
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn while_an_image_is_pulled_the_fill_below_has_its_room() {
    let mut scene = Scene::demo(14);
    let spec = ContainerSpec {
        image: "force12/large".to_owned(),
        pull: PullPolicy::Missing,
        ..ContainerSpec::default()
    };
    let large = demanded(Service::demand("large", 1));
    scene.settings.services.push(ServiceSettings { spec: Arc::new(spec), ..large });
    scene.board.set("large", 3);
    scene.board.set("priority1", 2);
    scene.engine().set_pull("force12/large", Duration::from_mins(2), Behaviour::runs());
    let running = scene.start();
    let settled = |view: &controller::View| runs(view, "priority1") == 2 && runs(view, "priority2") == 7;
    running.until(4_000, "the others run", settled).await;
    let pulling = |view: &controller::View, words: &str| {
        let large = view.services.iter().find(|service| &*service.name == "large").expect("it is configured");
        large.reason.as_deref().is_some_and(|reason| {
            reason.starts_with("its image is being pulled on ") && reason.ends_with(words)
        })
    };
    running.until(60_000, "half has come", |view| pulling(view, ": 50 of 100 MiB, 60 s")).await;
    let view = running.handle.view();
    assert_eq!((view.blocked_by.as_slice(), view.success), (&["in_progress"][..], false));
    assert!(settled(&view), "the others run on: {view:#?}");
    let all =
        |view: &controller::View| runs(view, "large") == 3 && runs(view, "priority2") == 4 && view.success;
    running.until(70_000, "it takes its room back", all).await;
    scene.assert_sound();
}

/// Three containers of an image that the engine has, and that is to be pulled all the same.
fn always_pulled(seed: u64) -> Scene {
    let mut scene = Scene::demo(seed);
    let spec = ContainerSpec {
        image: "force12/large".to_owned(),
        pull: PullPolicy::Always,
        ..ContainerSpec::default()
    };
    let large = demanded(Service::demand("large", 1));
    scene.settings.services.push(ServiceSettings { spec: Arc::new(spec), ..large });
    scene.board.set("large", 3);
    scene.engine().set_image("force12/large", Some(Behaviour::runs()));
    scene
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_used_while_its_registry_hangs_and_the_pull_goes_on() {
    let mut scene = always_pulled(17);
    scene.engine().set_failing_pull("force12/large", Duration::from_mins(2), "pull_stalled");
    let running = scene.start();
    pass_ms(9_000).await;
    let view = running.handle.view();
    let large = view.services.iter().find(|service| &*service.name == "large").expect("it is configured");
    let reason = large.reason.as_deref().unwrap_or_default();
    assert!(large.running == 0 && reason.starts_with("its image is being pulled on "), "{large:#?}");
    running.until(3_000, "it makes do", |view| runs(view, "large") == 3 && view.success).await;
    pass_ms(400_000).await;
    let view = running.handle.view();
    assert!(runs(&view, "large") == 3 && view.success, "several pulls have failed: {view:#?}");
    // The registry is back, and what it has is of another kind.
    scene.engine().set_pull("force12/large", Duration::from_secs(1), Behaviour::exits(7, 1_000));
    pass_ms(160_000).await;
    scene.board.set("large", 4);
    let newer = |view: &controller::View| {
        let large = view.services.iter().find(|service| &*service.name == "large");
        large.and_then(|it| it.reason.as_deref()).is_some_and(|reason| reason.contains("exited with code 7"))
    };
    running.until(10_000, "the fourth is made of the newer image", newer).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_used_while_its_registry_is_away_also_after_an_outage() {
    let mut scene = always_pulled(18);
    scene.engine().set_failing_pull("force12/large", Duration::from_millis(50), "registry_unreachable");
    let running = scene.start();
    running.until(4_000, "it makes do", |view| runs(view, "large") == 3 && view.success).await;
    scene.engine().set_outage(Some(Outage::Refusing));
    pass_ms(300_000).await;
    scene.board.set("large", 4);
    scene.engine().set_outage(None);
    running.until(4_000, "it is known what is there", |view| runs(view, "large") == 4).await;
    // Without it there is nothing to make do with.
    scene.engine().set_image("force12/large", None);
    scene.board.set("large", 5);
    let denied = |view: &controller::View| {
        view.services.iter().any(|it| &*it.name == "large" && it.limited_by == ["registry_unreachable"])
    };
    running.until(60_000, "it is the registry that is missed", denied).await;
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn another_pull_policy_is_another_preparation() {
    let mut scene = Scene::demo(16);
    let spec = ContainerSpec { image: "force12/large".to_owned(), ..ContainerSpec::default() };
    let large = demanded(Service::demand("large", 1));
    scene.settings.services.push(ServiceSettings { spec: Arc::new(spec.clone()), ..large });
    scene.board.set("large", 3);
    scene.engine().set_pull("force12/large", Duration::from_secs(5), Behaviour::runs());
    let wiring = scene.wiring();
    let running = scene.start_with(wiring.clone());
    let missing = |view: &controller::View| view.services.iter().any(|it| it.limited_by == ["image_missing"]);
    running.until(4_000, "nothing is pulled", missing).await;
    let spec = ContainerSpec { pull: PullPolicy::Missing, ..spec };
    assert_eq!(spec.generation(), scene.settings.services[2].spec.generation());
    scene.settings.services[2].spec = Arc::new(spec);
    running.handle.update(scene.settings.clone(), wiring).await.expect("it is sound");
    running.until(10_000, "it is pulled", |view| runs(view, "large") == 3).await;
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn an_image_that_vanishes_is_prepared_again() {
    let mut scene = Scene::demo(15);
    scene.board.set("priority1", 2);
    let running = scene.start();
    running.until_success(4_000, 2, 7).await;
    scene.engine().set_image(IMAGE, None);
    scene.board.set("priority1", 4);
    let gone = |view: &controller::View| {
        view.services
            .iter()
            .any(|service| &*service.name == "priority1" && service.limited_by == ["image_missing"])
    };
    running.until(10_000, "it is noticed", gone).await;
    let tried = scene.engine().history().of("priority1").count();
    pass_ms(60_000).await;
    assert_eq!(scene.engine().history().of("priority1").count(), tried, "nothing more is tried in vain");
    scene.engine().set_image(IMAGE, Some(Behaviour::runs()));
    running.until_success(31_000, 4, 5).await;
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_first_preparation_is_no_failure() {
    let mut scene = Scene::demo(12);
    scene.engine().fault(Fault::new(FaultKind::Slow { extra_ms: 5_000 }).on(Call::Prepare).times(1));
    let running = scene.start();
    pass_ms(4_000).await;
    let view = running.handle.view();
    assert_eq!((view.success, view.blocked_by.as_slice()), (false, &["in_progress"][..]));
    for service in &view.services {
        assert_eq!(service.limited_by, ["in_progress"], "{service:#?}");
        let reason = service.reason.as_deref().unwrap_or_default();
        assert!(reason.starts_with("its image is being checked on "), "{reason}");
    }
    let decisions = running.handle.decisions(&DecisionQuery { limit: 100, ..DecisionQuery::default() });
    let words: Vec<&str> =
        decisions.iter().flat_map(|decision| &decision.not_done).map(|it| it.words.as_str()).collect();
    let named = "priority1: 4 more wanted; its image is being checked on ";
    assert!(words.iter().any(|words| words.starts_with(named)), "{words:?}");
    assert!(!words.iter().any(|words| words.contains("failures")), "{words:?}");
    let view = running.until_success(4_000, 4, 5).await;
    assert!(view.services.iter().all(|service| service.reason.is_none()), "{view:#?}");
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_victim_that_cannot_be_stopped_keeps_its_room() {
    let mut scene = Scene::demo(9);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    let refusals =
        Fault::new(FaultKind::Rejected { code: "engine" }).on(Call::Stop).service("priority2").times(3);
    scene.engine().fault(refusals);
    scene.board.set("priority1", 5);
    running.until_success(40_000, 5, 4).await;
    scene.assert_sound();
    let refused = scene.engine().clear_faults();
    assert_eq!(refused, 0, "it was tried again, and not in a circle");
}

#[tokio::test(start_paused = true)]
async fn how_a_predecessors_container_ends_holds_no_start_back() {
    // A predecessor may have asked for that end: it says nothing of starts. That of one's own container does.
    for (restarted, held_back) in [(true, false), (false, true)] {
        let mut scene = Scene::demo(10);
        let mut running = scene.start();
        running.until_success(2_000, 4, 5).await;
        if restarted {
            running.kill().await;
            running = scene.start();
            running.until_success(5_000, 4, 5).await;
        }
        let victim = scene.engine().history().of("priority1").next().expect("one runs").container.clone();
        scene.engine().hand().exit(&victim, 0);
        pass_ms(20).await;
        let reason = running.handle.view().services[0].reason.clone();
        assert_eq!(reason.is_some(), held_back, "restarted: {restarted}: {reason:?}");
        running.until_success(5_000, 4, 5).await;
        scene.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn what_ends_by_itself_is_replaced_and_removed() {
    let mut scene = Scene::demo(10);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    pass_ms(20_000).await;
    let history = scene.engine().history();
    let victim = history.of("priority1").next().expect("one runs").container.clone();
    scene.engine().hand().exit(&victim, 9);
    pass_ms(5).await;
    running.until_success(2_000, 4, 5).await;
    pass_ms(100).await;
    assert!(scene.engine().container(&victim).is_none());
    assert_eq!(running.handle.view().services[0].reason, None, "it had run well");
    // Lost events are made up for by the next periodic look.
    scene.engine().set_events_cut(true);
    let history = scene.engine().history();
    let started = history.of("priority1").filter(|entry| entry.what == Happening::Running).last();
    scene.engine().hand().exit(&started.expect("one runs").container, 9);
    pass_ms(5_000).await;
    assert_eq!(scene.run("priority1"), 4);
    scene.assert_sound();
}
