//! What is frozen beyond the bounds of its instance is ended, in the room of a sibling that is frozen meanwhile or, where
//! none runs, in its freezer; and swaps side by side keep to an instance's memory.

use std::collections::BTreeMap;
use std::time::Instant;

use acceptance::observer::now_ns;
use acceptance::stack::{FILL, IMPORTANT, INSTANCES, Options, Stack};
use acceptance::timeline::{Event, MS, Nanos, SIGKILL, Timeline};
use api_types::snapshot::{ServiceSnapshot, Snapshot};

use crate::BOUND;
use crate::failing::service;
use crate::rollout::configure;

/// What each instance has in a configuration of [`Stack::start`].
const CAPACITY: &str = "capacity = { slots = 3 }\n";

/// What a workload exits with that has been asked to end.
const GRACEFUL: Option<i64> = Some(0);

/// What one exits with that was killed.
const KILLED: Option<i64> = Some(128 + SIGKILL);

/// A round thaws three standbys, of which every second or so is told of before its victim: none in so many is no chance.
const ROUNDS_MAX: u32 = 20;

/// What is preempted is frozen; each container may take more memory than a workload does.
const FREEZES: &str = "freezable = true\non_preempt = \"freeze\"\nrequest = { slots = 1, memory_mib = 32 }";

/// The fill has all, and has worked for a moment.
async fn freezing() -> Stack {
    let stack = Stack::start(Options { fill_lines: FREEZES, ..Options::default() }).await.unwrap();
    stack.hold(0).await.unwrap();
    stack.settled(0, 0, BOUND).await.unwrap();
    stack
}

/// Gives every instance `lines` in place of its capacity.
async fn bound(stack: &Stack, without: &str, lines: &str) {
    assert_eq!(without.matches(CAPACITY).count(), INSTANCES.len(), "{without}");
    configure(stack, &without.replace(CAPACITY, &format!("{lines}\n"))).await;
}

fn config(stack: &Stack) -> String {
    std::fs::read_to_string(stack.scheduler.config()).unwrap()
}

fn fill(snapshot: &Snapshot) -> &ServiceSnapshot {
    service(snapshot, FILL).expect("it is configured")
}

/// Waits until nothing is under way and so many of the fill are frozen, and hands back the snapshot.
async fn frozen(stack: &Stack, demand: u32, count: u32) -> Snapshot {
    stack.settled(demand, 0, BOUND).await.unwrap();
    let what = format!("{count} of {FILL} frozen, at rest");
    let there = |snapshot: &Snapshot| acceptance::stack::at_rest(snapshot) && fill(snapshot).frozen == count;
    stack.snapshot_until(&what, BOUND, there).await.unwrap()
}

/// The ends of the fill's containers after a moment.
fn ends(seen: &Timeline, after: Nanos) -> Vec<&Event> {
    seen.after(after).iter().filter(|event| event.service == FILL && event.action == "die").collect()
}

/// Why the scheduler did what it did to the fill, by action.
async fn reasons(stack: &Stack) -> Vec<(String, String)> {
    let decisions = stack.decisions(FILL, 200).await.unwrap().decisions;
    decisions.into_iter().flat_map(|it| it.actions).map(|it| (it.action, it.reason)).collect()
}

#[tokio::test]
async fn beyond_the_bound_one_ends_gracefully_while_a_sibling_is_frozen() {
    let stack = freezing().await;
    let unbounded = config(&stack);
    for lines in ["frozen_max = 1", "frozen_memory_mib = 63"] {
        if config(&stack) != unbounded {
            configure(&stack, &unbounded).await;
        }
        stack.hold(0).await.unwrap();
        stack.settled(0, 0, BOUND).await.unwrap();
        // Two come to each instance, so two are frozen there and one still runs.
        stack.hold(6).await.unwrap();
        frozen(&stack, 6, 6).await;
        let before = now_ns();
        bound(&stack, &unbounded, &format!("{CAPACITY}{lines}")).await;
        frozen(&stack, 6, 3).await;

        let seen = stack.checked_timeline().await.unwrap();
        let ended = ends(&seen, before);
        let by_instance: BTreeMap<&str, &Event> =
            ended.iter().map(|event| (event.instance.as_str(), *event)).collect();
        assert_eq!((ended.len(), by_instance.len()), (3, 3), "{lines}: one on each instance: {ended:#?}");
        for (instance, end) in by_instance {
            assert_eq!(end.code, GRACEFUL, "{lines}: {end:?}");
            let here: Vec<&Event> = seen.after(before).iter().filter(|it| it.instance == instance).collect();
            let lender = here.iter().find(|event| event.action == "pause").expect("one lends its room");
            assert!(lender.id != end.id && lender.service == FILL, "{lines}: {lender:?} {end:?}");
            let asked = here.iter().find(|event| event.id == end.id && event.action == "kill").unwrap();
            // Its room is given back, to itself or to another that is frozen.
            let resumed = here.iter().find(|event| event.id != end.id && event.action == "unpause").unwrap();
            assert!(lender.at < asked.at && end.at < resumed.at, "{lines}: {lender:?} {asked:?} {resumed:?}");
        }
    }
    let reasons = reasons(&stack).await;
    for expected in [("freeze", "lends"), ("stop", "frozen_bound")] {
        assert!(reasons.iter().any(|(action, reason)| (&**action, &**reason) == expected), "{reasons:?}");
    }
}

/// Bounds come into force while demand goes up and down: whatever is chosen to end, and wherever, ends gracefully.
#[tokio::test]
async fn beyond_the_bound_none_is_killed_while_demand_goes_on_changing() {
    let stack = freezing().await;
    let unbounded = config(&stack);
    stack.hold(6).await.unwrap();
    frozen(&stack, 6, 6).await;
    let before = now_ns();
    bound(&stack, &unbounded, &format!("{CAPACITY}frozen_memory_mib = 63")).await;
    for demand in [4, 7, 5, 8, 6] {
        stack.hold(demand).await.unwrap();
        let reacted =
            |seen: &Timeline| (seen.running_of(IMPORTANT).at(Nanos::MAX) == i64::from(demand)).then_some(());
        stack.observer.wait_for("a change of demand is followed", BOUND, reacted).await.unwrap();
    }
    stack.settled(6, 0, BOUND).await.unwrap();
    let within = |snapshot: &Snapshot| acceptance::stack::at_rest(snapshot) && fill(snapshot).frozen <= 3;
    stack.snapshot_until("what is frozen is within its bounds", BOUND, within).await.unwrap();
    let seen = stack.checked_timeline().await.unwrap();
    let ended = ends(&seen, before);
    assert!(!ended.is_empty() && ended.iter().all(|end| end.code == GRACEFUL), "{ended:#?}");
}

#[tokio::test]
async fn where_no_sibling_runs_it_is_killed_in_its_freezer_after_a_while_and_its_work_is_lost() {
    const EVICT_AFTER_MS: i64 = 700;
    let stack = freezing().await;
    stack.hold(9).await.unwrap();
    let snapshot = frozen(&stack, 9, 9).await;
    let (lost, kept) = (fill(&snapshot).work_lost_ms.unwrap(), fill(&snapshot).work_kept_ms.unwrap());
    assert!(lost == 0 && kept > 0, "what was frozen has kept its work: {lost} ms lost, {kept} ms kept");

    let before = now_ns();
    let lines = format!("{CAPACITY}frozen_max = 1\nevict_after_ms = {EVICT_AFTER_MS}");
    bound(&stack, &config(&stack), &lines).await;
    let snapshot = frozen(&stack, 9, 3).await;
    assert!(fill(&snapshot).work_lost_ms > Some(0), "{snapshot:#?}");
    assert_eq!(fill(&snapshot).work_kept_ms, Some(kept));
    let metrics = stack.scheduler.anonymous(reqwest::Method::GET, "/metrics").send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let counted = format!("force12_work_lost_seconds_total{{service=\"{FILL}\"}}");
    assert!(metrics.contains(&counted), "{metrics}");

    // The check of slots has it that none of them ran again.
    let seen = stack.checked_timeline().await.unwrap();
    let ended = ends(&seen, before);
    assert!(ended.len() == 6 && ended.iter().all(|end| end.code == KILLED), "{ended:#?}");
    let soonest = ended.iter().map(|end| end.at - before).min().unwrap_or_default();
    assert!(soonest >= EVICT_AFTER_MS * MS, "the first was killed after {} ms", soonest / MS);
    let reasons = reasons(&stack).await;
    assert!(reasons.contains(&("kill".to_owned(), "frozen_bound".to_owned())), "{reasons:?}");
}

#[tokio::test]
async fn side_by_side_a_standby_does_not_wait_for_its_victim_and_memory_is_never_exceeded() {
    const CONTAINERS_MAX: i64 = 5;
    let options = Options {
        important_lines: "freezable = true\nstandby = 1\non_preempt = \"freeze\"\noverlap = \"swap\"\n\
                          request = { slots = 1, memory_mib = 32 }",
        fill_lines: FREEZES,
        ..Options::default()
    };
    let stack = Stack::start(options).await.unwrap();
    stack.hold(0).await.unwrap();
    let memory_mib = CONTAINERS_MAX * 32;
    bound(&stack, &config(&stack), &format!("capacity = {{ slots = 3, memory_mib = {memory_mib} }}")).await;

    let begun = Instant::now();
    let mut beside = 0;
    let mut rounds = 0;
    while beside == 0 {
        rounds += 1;
        assert!(rounds <= ROUNDS_MAX, "no standby was thawed beside its victim in {ROUNDS_MAX} rounds");
        stack.hold(0).await.unwrap();
        stack.settled(0, 3, BOUND).await.unwrap();
        let before = now_ns();
        stack.hold(3).await.unwrap();
        stack.settled(3, 0, BOUND).await.unwrap();
        let seen = stack.observer.timeline().unwrap();
        let first = |instance: &str, service: &str, action: &str| {
            let mut here = seen.after(before).iter().filter(|event| event.instance == instance);
            here.find(|event| event.service == service && event.action == action).map(|event| event.at)
        };
        beside += INSTANCES
            .iter()
            .filter(|instance| {
                let thawed = first(instance, IMPORTANT, "unpause");
                let frozen = first(instance, FILL, "pause");
                thawed.zip(frozen).is_some_and(|(thawed, frozen)| thawed < frozen)
            })
            .count();
    }
    println!("{beside} beside each other after {rounds} rounds, {} ms", begun.elapsed().as_millis());
    // More than can be frozen: what has no room in memory is stopped.
    stack.hold(9).await.unwrap();
    stack.settled(9, 0, BOUND).await.unwrap();

    let seen = stack.checked_timeline_beside(1).await.unwrap();
    for instance in INSTANCES {
        let alive = seen.alive(|event| event.instance == instance);
        let over = Timeline::more_than(&alive, CONTAINERS_MAX, 0, now_ns());
        assert!(over.is_empty(), "{instance} held more than its memory:\n{}", crate::lines(&over));
    }
    assert!(ends(&seen, 0).iter().all(|end| end.code == GRACEFUL), "{seen}");
}
