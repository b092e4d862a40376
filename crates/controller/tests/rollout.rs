//! Rollouts: a changed spec replaces containers one at a time, and stops where the new ones fail.
#![expect(clippy::unwrap_used, reason = "these are tests")]

mod support;

use std::time::Duration;

use controller::{Engines, Ready, ServiceView, View};
use driver::{ContainerSpec, PullPolicy};
use driver_testkit::sim::{Behaviour, Checked};
use support::{Running, Scene, pass_ms, runs, spec};

const NEW: &str = "force12/new";

/// A cluster that runs, and what it was told.
struct Rollout {
    scene: Scene,
    wiring: Engines,
    running: Running,
}

impl Rollout {
    /// The demo with so many of priority 1, settled long ago.
    async fn of(seed: u64, demand: u32, ready: Ready) -> Self {
        let mut scene = Scene::demo(seed);
        if ready != Ready::Running {
            scene.engine().set_image(support::IMAGE, Some(Behaviour::healthy_after(500)));
        }
        scene.settings.services[0].ready = ready;
        scene.board.set("priority1", demand);
        let wiring = scene.wiring();
        let running = scene.start_with(wiring.clone());
        running.until_success(5_000, demand, 9 - demand).await;
        pass_ms(20_000).await;
        Self { scene, wiring, running }
    }

    async fn change(&mut self, spec: ContainerSpec) {
        self.scene.settings.services[0].spec = spec.into();
        self.running.handle.update(self.scene.settings.clone(), self.wiring.clone()).await.unwrap();
    }

    /// The least of priority 1 that ran at any moment after this one, in milliseconds since the engine was made.
    fn fewest_since(&self, at_ms: u64) -> usize {
        let history = self.scene.engine().history();
        let before = history.counts_at("priority1", at_ms).running;
        let after = history.counts("priority1").into_iter().filter(|(then, _)| *then >= at_ms);
        after.map(|(_, counts)| counts.running).chain([before]).min().unwrap()
    }
}

fn first(view: &View) -> &ServiceView {
    view.services.iter().find(|service| &*service.name == "priority1").unwrap()
}

fn changed() -> ContainerSpec {
    let mut changed = (*spec(support::IMAGE)).clone();
    changed.environment.insert("GREETING".to_owned(), "hello".to_owned());
    changed
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_the_new_one_first_on_a_full_cluster() {
    for (seed, demand, ready) in
        [(1, 4, Ready::Running), (2, 8, Ready::Running), (3, 4, Ready::Healthy { within_ms: 5_000 })]
    {
        let mut rollout = Rollout::of(seed, demand, ready).await;
        let began_at = rollout.scene.engine().now_ms();
        rollout.change(changed()).await;
        let view =
            rollout.running.until(1_000, "all are outdated", |view| first(view).outdated == demand).await;
        assert!(!first(&view).limited_by.is_empty());
        let rolled = |view: &View| view.success && first(view).outdated == 0;
        rollout.running.until(30_000, "all are of the new generation", rolled).await;
        let history = rollout.scene.engine().history();
        let counts = history.counts("priority1").into_iter().filter(|(at_ms, _)| *at_ms > began_at);
        let most = counts.map(|(_, it)| it.starting + it.running).max();
        let demand = usize::try_from(demand).unwrap();
        // A victim that has been told to go runs on beside the next successor for a moment.
        assert!(most <= Some(demand + 2), "{most:?}");
        assert!(rollout.fewest_since(began_at) >= demand, "never below its target");
        rollout.scene.assert_sound();
    }
}

/// The old one goes only when the new one is healthy.
#[tokio::test(start_paused = true)]
async fn the_old_one_stays_until_the_new_one_is_healthy() {
    let ready = Ready::Healthy { within_ms: 20_000 };
    let mut rollout = Rollout::of(4, 4, ready).await;
    rollout.scene.engine().set_image(NEW, Some(Behaviour::healthy_after(9_000)));
    let began_at = rollout.scene.engine().now_ms();
    rollout.change((*spec(NEW)).clone()).await;
    pass_ms(8_000).await;
    let view = rollout.running.handle.view();
    assert_eq!((first(&view).outdated, first(&view).running, first(&view).starting), (4, 4, 1));
    let rolled = |view: &View| view.success && first(view).outdated == 0;
    rollout.running.until(60_000, "all are of the new generation", rolled).await;
    assert!(rollout.fewest_since(began_at) >= 4);
    rollout.scene.assert_sound();
}

/// Whatever is wrong with the new generation, the old one serves on, and the snapshot says why; the way back is short.
async fn stops_and_is_undone(seed: u64, ready: Ready, new: Option<Behaviour>, code: &str, words: &str) {
    let mut rollout = Rollout::of(seed, 4, ready).await;
    rollout.scene.engine().set_image(NEW, new);
    let old = (*rollout.scene.settings.services[0].spec).clone();
    let began_at = rollout.scene.engine().now_ms();
    rollout.change((*spec(NEW)).clone()).await;
    let said = |view: &View| {
        let first = first(view);
        first.limited_by.contains(&code) && first.reason.as_deref().is_some_and(|it| it.contains(words))
    };
    let view = rollout.running.until(30_000, words, said).await;
    assert!(first(&view).outdated >= 4, "{:?}", first(&view));
    pass_ms(300_000).await;
    let view = rollout.running.handle.view();
    assert_eq!(first(&view).outdated, 4, "{:?}", first(&view));
    assert!(rollout.fewest_since(began_at) >= 4, "never below its target");
    let starts = rollout.scene.engine().history().starts("priority1");
    assert!(starts <= 4 + 5 + 3 * 24, "{starts} starts");

    // Back to what runs: nothing of that is touched.
    rollout.change(old).await;
    let undone = |view: &View| view.success && first(view).outdated == 0 && first(view).reason.is_none();
    rollout.running.until(5_000, "undone", undone).await;
    let at_ms = rollout.scene.engine().now_ms();
    pass_ms(60_000).await;
    let history = rollout.scene.engine().history();
    assert!(history.of("priority1").all(|it| it.at_ms <= at_ms), "no churn");
    assert_eq!(history.starts("priority1"), starts, "nothing is started for it");
    assert_eq!(runs(&rollout.running.handle.view(), "priority1"), 4);
    rollout.scene.assert_sound();
}

/// Nothing is made of a spec that is no longer configured; to configure it again is enough.
#[tokio::test(start_paused = true)]
async fn what_ends_while_the_new_image_is_pulled_is_missed_until_the_change_is_taken_back() {
    let mut rollout = Rollout::of(16, 4, Ready::Running).await;
    let engine = rollout.scene.engine().clone();
    engine.set_pull(NEW, Duration::from_hours(1), Behaviour::runs());
    let old = (*rollout.scene.settings.services[0].spec).clone();
    rollout.change(ContainerSpec { pull: PullPolicy::Missing, ..(*spec(NEW)).clone() }).await;
    pass_ms(5_000).await;
    let view = rollout.running.handle.view();
    assert!(view.success && first(&view).outdated == 4, "{:?}", first(&view));
    let victim = engine.history().of("priority1").next().expect("they run").container.clone();
    engine.hand().exit(&victim, 1);
    pass_ms(60_000).await;
    let view = rollout.running.handle.view();
    assert!(!view.success && (first(&view).running, first(&view).unmet) == (3, 1), "{:?}", first(&view));
    assert!(first(&view).reason.as_deref().is_some_and(|reason| reason.contains("is being pulled")));
    rollout.change(old).await;
    let back = |view: &View| view.success && first(view).running == 4;
    rollout.running.until(2_000, "it is replaced", back).await;
    rollout.scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_bad_command_stops_it() {
    let fails = Some(Behaviour::fails_to_start());
    stops_and_is_undone(5, Ready::Running, fails, "rollout_failing", "no such command").await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_stops_it() {
    stops_and_is_undone(6, Ready::Running, None, "image_missing", "no image").await;
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_stops_it() {
    let crashes = Some(Behaviour::exits(1, 6_000));
    stops_and_is_undone(7, Ready::Running, crashes, "rollout_failing", "it exited with code 1").await;
}

#[tokio::test(start_paused = true)]
async fn one_that_is_never_healthy_stops_it() {
    let ready = Ready::Healthy { within_ms: 5_000 };
    let never = Some(Behaviour::checked(Checked::default()));
    stops_and_is_undone(8, ready, never, "rollout_failing", "not healthy within 5000 ms").await;
}

/// Where there is no room for a successor and none that may be taken, it says so and waits.
#[tokio::test(start_paused = true)]
async fn without_room_for_a_successor_it_says_so() {
    let mut rollout = Rollout::of(9, 9, Ready::Running).await;
    rollout.change(changed()).await;
    let stuck = |view: &View| first(view).limited_by.contains(&"rollout_no_room");
    let view = rollout.running.until(2_000, "no room", stuck).await;
    assert!(view.success, "all that is wanted runs: {:?}", view.blocked_by);
    assert!(
        first(&view).reason.as_deref().is_some_and(|it| it.contains("room")),
        "{:?}",
        first(&view).reason
    );
    pass_ms(60_000).await;
    assert_eq!(first(&rollout.running.handle.view()).outdated, 9);
    rollout.scene.board.set("priority1", 8);
    let rolled = |view: &View| view.success && first(view).outdated == 0;
    rollout.running.until(30_000, "all are of the new generation", rolled).await;
    rollout.scene.assert_sound();
}

/// A fix is not held back by what the generation before it did.
#[tokio::test(start_paused = true)]
async fn a_fix_is_tried_at_once() {
    let mut rollout = Rollout::of(10, 4, Ready::Running).await;
    rollout.scene.engine().set_image(NEW, Some(Behaviour::exits(1, 100)));
    rollout.change((*spec(NEW)).clone()).await;
    pass_ms(200_000).await;
    rollout.change(changed()).await;
    let rolled = |view: &View| view.success && first(view).outdated == 0;
    rollout.running.until(20_000, "the fix is rolled out", rolled).await;
    rollout.scene.assert_sound();
}
