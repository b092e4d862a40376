//! Whose turn it is at an engine: what is urgent goes first, no more is under way than the engine makes use of, and what
//! has not been sent is never in the way.

mod support;

use std::collections::HashSet;

use controller::{DecisionQuery, Settings};
use driver_testkit::sim::{
    Behaviour, Call, Entry, Fault, FaultKind, Happening, Latencies, SimConfig, SimEngine,
};
use planner::{Instance, Resources};
use support::{Board, IMAGE, Scene, demo_services, pass_ms};

const START_MS: u64 = 100;

/// From then on the controller knows that the demand source holds its answers, and hears of a change at once.
const LISTENS_AFTER_MS: u64 = 300;

/// The demo's services on one instance of so many slots; no demand. What a call takes is known exactly.
fn scene(slots: u64, works_on: Option<usize>, parallel_calls: usize) -> Scene {
    let mut config = SimConfig {
        latencies: Latencies {
            start: START_MS..=START_MS,
            stop: 50..=50,
            create: 5..=5,
            remove: 5..=5,
            ..Latencies::all(1..=1)
        },
        event_delay_ms: 0..=0,
        parallel_calls,
        ..SimConfig::seeded(7)
    };
    if let Some(works_on) = works_on {
        config.works_on = works_on;
    }
    let mut scene = Scene::demo(7);
    let capacity = Resources::slots_only(slots);
    scene.engines = vec![
        SimEngine::new("engine", config)
            .with_image(IMAGE, Behaviour::runs())
            .with_instance("instance-1", capacity),
    ];
    scene.settings = Settings {
        services: demo_services(),
        instances: vec![Instance::ready("instance-1", capacity)],
        ..scene.settings
    };
    scene.board = Board::new(&[("priority1", 0)]);
    scene
}

fn service(entry: &Entry) -> &str {
    entry.subject.labels.as_ref().map_or("", |labels| labels.service.as_str())
}

fn happened<'a>(
    entries: &'a [Entry],
    service_: &'a str,
    what: &'a Happening,
) -> impl Iterator<Item = &'a Entry> {
    entries.iter().filter(move |entry| service(entry) == service_ && entry.what == *what)
}

/// The most containers that were being started at once, of the last so many starts.
fn most_at_once(entries: &[Entry], last: usize) -> usize {
    let begun: Vec<usize> = entries
        .iter()
        .enumerate()
        .filter(|(_, entry)| entry.what == Happening::Starting)
        .map(|(place, _)| place)
        .collect();
    let from = begun[begun.len().saturating_sub(last)];
    let (mut starting, mut most) = (HashSet::new(), 0);
    for (place, entry) in entries.iter().enumerate() {
        match entry.what {
            Happening::Starting => starting.insert(&entry.container),
            Happening::Running => starting.remove(&entry.container),
            _ => false,
        };
        if place >= from {
            most = most.max(starting.len());
        }
    }
    most
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_works_in_turn_is_given_few_calls_and_another_as_many_as_may_be() {
    for (works_on, parallel_calls, expected) in
        [(Some(1), 16, 1..=4), (Some(4), 16, 4..=7), (None, 16, 15..=16), (None, 6, 5..=6), (None, 1, 1..=1)]
    {
        let mut scene = scene(200, works_on, parallel_calls);
        let running = scene.start();
        running.until_success(60_000, 0, 200).await;
        let most = most_at_once(scene.engine().history().entries(), 60);
        assert!(expected.contains(&most), "{works_on:?} of {parallel_calls}: {most}");
        scene.assert_sound();
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_urgent_goes_before_what_waits_and_what_has_not_been_sent_gives_way() {
    let mut scene = scene(12, Some(1), 16);
    let running = scene.start();
    pass_ms(LISTENS_AFTER_MS).await;
    assert!((2..8).contains(&running.handle.view().used.slots), "fill is being started");
    scene.board.set("priority1", 4);
    running.until_success(10_000, 4, 8).await;
    let query = DecisionQuery { service: None, limit: 100, before: None };
    let decisions = running.handle.decisions(&query);
    let issued: Vec<&str> = decisions
        .iter()
        .rev()
        .flat_map(|decision| &decision.actions)
        .filter(|action| action.kind == "start")
        .map(|action| &*action.service)
        .collect();
    let first = issued.iter().position(|service| *service == "priority1").expect("they were started");
    assert_eq!(issued[first..first + 4], ["priority1"; 4], "nothing else goes before them: {issued:?}");
    let turns = decisions.iter().filter(|it| it.actions.iter().any(|action| &*action.service == "priority1"));
    assert!(turns.count() > 1, "there was no place for all at once");
    let history = scene.engine().history();
    let entries = history.entries();
    assert_eq!(
        happened(entries, "priority2", &Happening::Stopping).count(),
        0,
        "what had not been sent gave way"
    );
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn a_rise_waits_for_no_start_of_fill() {
    let mut scene = scene(40, None, 4);
    let running = scene.start();
    pass_ms(LISTENS_AFTER_MS).await;
    assert!((6..30).contains(&running.handle.view().used.slots), "fill is being started");
    let risen_at_ms = scene.engine().now_ms();
    scene.board.set("priority1", 1);
    pass_ms(START_MS / 2).await;
    let history = scene.engine().history();
    let asked = happened(history.entries(), "priority1", &Happening::Created).next();
    let asked = asked.expect("it has been asked for while as many starts of fill are under way as may be");
    assert!(asked.at_ms - risen_at_ms <= 20, "{} ms", asked.at_ms - risen_at_ms);
    running.until_success(20_000, 1, 39).await;
}

#[tokio::test(start_paused = true)]
async fn the_victims_of_a_burst_are_stopped_together_as_far_as_there_are_places() {
    let mut scene = scene(9, None, 16);
    let running = scene.start();
    running.until_success(10_000, 0, 9).await;
    let before = scene.engine().history().entries().len();
    scene.board.set("priority1", 4);
    running.until_success(10_000, 4, 5).await;
    let history = scene.engine().history();
    let entries = &history.entries()[before..];
    let stops: Vec<u64> =
        happened(entries, "priority2", &Happening::Stopping).map(|entry| entry.at_ms).collect();
    assert_eq!(stops.len(), 4);
    assert!(stops.iter().all(|at_ms| *at_ms == stops[0]), "{stops:?}");
    let first_start = happened(entries, "priority1", &Happening::Starting).next().expect("it was started");
    assert_eq!(first_start.at_ms, stops[0] + 50, "as soon as its victim has ended");
    scene.assert_sound();
}

#[tokio::test(start_paused = true)]
async fn what_has_ended_is_removed_when_no_start_is_delayed_by_it() {
    let mut scene = scene(9, None, 16);
    let running = scene.start();
    running.until_success(10_000, 0, 9).await;
    let before = scene.engine().history().entries().len();
    scene.board.set("priority1", 2);
    running.until_success(10_000, 2, 7).await;
    pass_ms(100).await;
    let history = scene.engine().history();
    let entries = &history.entries()[before..];
    let last_runs = happened(entries, "priority1", &Happening::Running).map(|entry| entry.at_ms).max();
    let removed: Vec<u64> =
        happened(entries, "priority2", &Happening::Removed).map(|entry| entry.at_ms).collect();
    assert_eq!(removed.len(), 2);
    assert!(removed.iter().all(|&at_ms| Some(at_ms) > last_runs), "{removed:?}, {last_runs:?}");
}

#[tokio::test(start_paused = true)]
async fn on_an_engine_that_never_rests_what_has_ended_is_removed_all_the_same() {
    // Forty seconds of starts, one after the other.
    let mut scene = scene(400, Some(1), 16);
    let running = scene.start();
    // So that nothing is held back for it.
    pass_ms(12_000).await;
    let ends = scene.engine().containers().remove(0).id;
    let ended_at_ms = scene.engine().now_ms();
    scene.engine().hand().exit(&ends, 0);
    pass_ms(1_500).await;
    assert!(running.handle.view().used.slots < 200, "the engine has been at work all the time");
    assert_eq!(scene.engine().container(&ends), None, "it has been removed");
    let history = scene.engine().history();
    let removed = history.about(&ends).find(|entry| entry.what == Happening::Removed).expect("it was");
    assert!(
        removed.at_ms >= ended_at_ms + 1_000,
        "it has waited for its turn: {} ms",
        removed.at_ms - ended_at_ms
    );
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_has_waited_long_enough_wakes_the_loop() {
    let mut scene = scene(3, None, 16);
    // So that nothing else wakes it.
    scene.settings.lost_after_ms = 60_000;
    let running = scene.start();
    running.until_success(10_000, 0, 3).await;
    pass_ms(3_000).await;
    scene
        .engine()
        .fault(Fault::new(FaultKind::Slow { extra_ms: 3_000 }).on(Call::Start).service("priority1"));
    scene.board.set("priority1", 1);
    running.until_success(10_000, 1, 2).await;
    let history = scene.engine().history();
    let ended = history.of("priority2").find(|entry| matches!(entry.what, Happening::Exited { .. }));
    let removed = history.of("priority2").find(|entry| entry.what == Happening::Removed);
    let waited_ms = removed.expect("it was removed").at_ms - ended.expect("it was stopped").at_ms;
    assert!((1_000..1_100).contains(&waited_ms), "{waited_ms} ms");
}
