//! A host of the pool is lost for half a minute under changing demand, and comes back: three engines, each in a
//! network namespace of its own. Needs root; see the crate's documentation.
//!
//! What is judged is what the engines themselves tell, by sockets that no cut reaches.

mod walk;

use std::time::Duration;

use acceptance::farm::{Fault, HostOptions, Way};
use acceptance::observer::now_ns;
use acceptance::pool::Pool;
use acceptance::stack::{FILL, IMPORTANT, INSTANCES, SLOTS_PER_INSTANCE};
use acceptance::timeline::{Event, MS, Nanos, Timeline};
use api_types::snapshot::{InstanceState, Snapshot};

use crate::walk::{ALL, Walk, median};

/// The time for any change; a debug build on a busy machine takes a few seconds.
const BOUND: Duration = Duration::from_mins(1);

/// The scheduler's default, after which an engine that does not answer is lost.
const LOST_AFTER: Nanos = 3_000 * MS;

/// The time to do without what is lost, once it is known to be. On a busy machine this many of the slowest reactions
/// before count, if they take longer.
const REPLACE: Nanos = 1_000 * MS;
const REPLACE_REACTIONS: Nanos = 3;

/// Rises in demand while the engine is away and nobody knows it yet, and the time from one to the next. A fall could
/// take away just what ran there: then nothing of importance would be missed.
const UNAWARE_RISES: u32 = 4;
const UNAWARE_PERIOD: Duration = Duration::from_millis(600);

/// Rises in demand that are answered before the engine is lost, and after it is found.
const RISES: usize = 12;

/// Fewer rises in demand while it is lost would show little; it is lost for longer if there are not as many.
const RISES_LEAST: usize = 5;

/// One way of being lost.
struct Scenario {
    fault: Fault,
    /// Which engine.
    target: usize,
    /// Whether containers outlive their engine.
    live_restore: bool,
    /// Whether the scheduler is killed and started again meanwhile.
    restart: bool,
    ways: [Way; 3],
}

const SOCKETS: [Way; 3] = [Way::Socket; 3];
const NETWORKS: [Way; 3] = [Way::Socket, Way::Tls, Way::Tcp];

#[tokio::test]
async fn an_engine_that_hangs_is_done_without_and_adopted_again() {
    ride_out(Scenario { fault: Fault::Hang, target: 0, live_restore: false, restart: false, ways: SOCKETS })
        .await;
}

#[tokio::test]
async fn an_engine_whose_network_swallows_everything_is_done_without_and_adopted_again() {
    ride_out(Scenario { fault: Fault::Cut, target: 1, live_restore: false, restart: false, ways: NETWORKS })
        .await;
}

#[tokio::test]
async fn an_engine_whose_link_is_down_is_done_without_and_adopted_again() {
    ride_out(Scenario {
        fault: Fault::LinkDown,
        target: 2,
        live_restore: false,
        restart: false,
        ways: NETWORKS,
    })
    .await;
}

#[tokio::test]
async fn a_killed_engine_is_done_without_and_what_outlived_it_is_adopted_again() {
    ride_out(Scenario { fault: Fault::Kill, target: 2, live_restore: true, restart: false, ways: SOCKETS })
        .await;
}

#[tokio::test]
async fn a_killed_engine_that_ends_its_containers_is_done_without_and_filled_again() {
    ride_out(Scenario { fault: Fault::Kill, target: 0, live_restore: false, restart: false, ways: SOCKETS })
        .await;
}

#[tokio::test]
async fn a_scheduler_that_starts_while_an_engine_hangs_adopts_what_runs_there_later() {
    ride_out(Scenario { fault: Fault::Hang, target: 1, live_restore: false, restart: true, ways: NETWORKS })
        .await;
}

async fn ride_out(scenario: Scenario) {
    let Scenario { fault, target, live_restore, restart, ways } = scenario;
    let outage = Duration::from_secs(acceptance::from_environment("FORCE12_ACCEPTANCE_OUTAGE_S", 30));
    let seed = acceptance::from_environment("FORCE12_ACCEPTANCE_SEED", 1);
    println!("FORCE12_ACCEPTANCE_SEED={seed}");
    let name = INSTANCES[target];
    let others: Vec<&str> = INSTANCES.into_iter().filter(|other| *other != name).collect();
    let mut pool = Pool::start(ways.map(|way| HostOptions { way, live_restore })).await.unwrap();
    let mut walk = Walk::begin(&pool, seed).await;
    let before = walk.rises(&pool, &ALL, RISES).await;

    walk.gather(&pool, name).await;
    let lost = pool.lose(target, fault).await.unwrap();
    for _ in 0..UNAWARE_RISES {
        walk.rise(&pool).await;
        // Not in place of a condition: the pace of demand.
        tokio::time::sleep(UNAWARE_PERIOD).await;
    }
    let whole = walk.settled(&pool, &others).await;
    let missing = pool.snapshot().await.unwrap();
    let mut decisions = Vec::new();
    if restart {
        decisions = pool.decisions().await.unwrap().decisions;
        pool.scheduler.kill().await.unwrap();
        pool.scheduler.start().await.unwrap();
        pool.scheduler.ready().await.unwrap();
    }
    let mut during = Vec::new();
    let until = lost + Nanos::try_from(outage.as_nanos()).unwrap();
    while now_ns() < until || during.len() < RISES_LEAST {
        during.extend(walk.step(&pool, &others).await);
    }
    let still_missing = pool.snapshot().await.unwrap();

    let found = pool.find(target, fault).await.unwrap();
    walk.settled(&pool, &ALL).await;
    let settled = settled(&pool).await;
    let adoption = pool.timeline().unwrap();
    decisions.extend(pool.decisions().await.unwrap().decisions);
    let after = walk.rises(&pool, &ALL, RISES).await;
    walk.settled(&pool, &ALL).await;
    self::settled(&pool).await;
    let seen = pool.timeline().unwrap();

    // What was asked of it before it was known to be lost may come through when it is back.
    let asked = |action: &str| {
        let late = decisions.iter().filter(|decision| at(decision.decided_at) >= lost - MS);
        let actions = late.flat_map(|decision| &decision.actions);
        actions.filter(|asked| asked.instance == name && asked.action == action).count()
    };
    let back = |action: &str, service: &str| -> Vec<Event> {
        let of = adoption.of(action).filter(|event| event.service == service);
        of.filter(|event| (found..settled).contains(&event.at)).cloned().collect()
    };
    // What was decided for the others before anybody knew, in milliseconds.
    let unaware =
        decisions.iter().filter(|decision| (lost..lost + LOST_AFTER).contains(&at(decision.decided_at)));
    let unaware: Vec<Nanos> = unaware
        .flat_map(|decision| &decision.actions)
        .filter(|action| action.instance != name && action.action == "start")
        .map(|action| action.took_ms.map_or(Nanos::MAX, |ms| Nanos::try_from(ms).unwrap()))
        .collect();
    let (before_ms, during_ms, after_ms) = (median(&before), median(&during), median(&after));
    println!(
        "{fault:?}{}: {IMPORTANT} whole elsewhere after {} ms; median reaction of the others {before_ms} ms before, \
         {during_ms} ms meanwhile ({} rises), {after_ms} ms after: ratio {:.2}; their starts before anybody knew: \
         {unaware:?} ms; {} ms from its return to success",
        if restart { ", and the scheduler started anew" } else { "" },
        (whole - lost) / MS,
        during.len(),
        ratio(during_ms, before_ms),
        (settled - found) / MS,
    );
    println!(
        "on its return: {} of {IMPORTANT} and {} of {FILL} started, {} and {} ended",
        back("start", IMPORTANT).len(),
        back("start", FILL).len(),
        back("die", IMPORTANT).len(),
        back("die", FILL).len(),
    );

    let slowest_before = before.iter().max().copied().unwrap_or_default();
    let allowed = LOST_AFTER + REPLACE.max(REPLACE_REACTIONS * slowest_before * MS);
    assert!(whole - lost <= allowed, "{IMPORTANT} was whole after {} ms only", (whole - lost) / MS);
    for (moment, snapshot) in [("once replaced", &missing), ("before its return", &still_missing)] {
        judge_missing(moment, snapshot, name);
    }
    let slowest = during.iter().chain(&unaware).max().copied().unwrap_or_default();
    assert!(slowest < LOST_AFTER / MS, "a reaction of {slowest} ms has waited for the lost engine");

    // Adopted: nothing that matters is started, nothing that fills is ended, but by what had been asked before.
    let ends_itself = fault == Fault::Kill && !live_restore;
    let started = back("start", IMPORTANT);
    assert!(started.len() <= asked("start"), "started on its return: {started:#?}");
    let ended: Vec<Event> =
        back("die", FILL).into_iter().filter(|end| !(ends_itself && end.instance == name)).collect();
    assert!(ended.len() <= asked("stop"), "ended on its return: {ended:#?}");

    let mut wrong = seen.started_twice();
    for instance in INSTANCES {
        let here = seen.running(|event| event.instance == instance);
        let over = Timeline::more_than(&here, SLOTS_PER_INSTANCE, 0, Nanos::MAX / 2);
        wrong.extend(over.iter().map(|breach| format!("{instance}: {breach}")));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));

    let config = pool.scheduler.config().to_string_lossy().into_owned();
    pool.scheduler.terminate(BOUND).await.unwrap();
    let drained = pool.scheduler.command(&["drain", &config]).unwrap().status();
    let drained = tokio::time::timeout(BOUND, drained).await.expect("drain ends").unwrap();
    assert_eq!(drained.code(), Some(0), "drain: {drained}");
    for (index, instance) in INSTANCES.iter().enumerate() {
        let left = pool.containers_on(index).await.unwrap();
        assert!(left.is_empty(), "left on {instance}: {left:#?}");
    }
}

/// Waits until scheduler and engines agree that all is well and nothing is left over; returns when that was.
async fn settled(pool: &Pool) -> Nanos {
    let well = |snapshot: &Snapshot| {
        let ready = snapshot.instances.iter().all(|instance| instance.state == InstanceState::Ready);
        ready && snapshot.success == Some(true) && snapshot.used == snapshot.capacity
    };
    pool.scheduler.get_until("/v1/snapshot", "all ready, and success", BOUND, well).await.unwrap();
    let at = now_ns();
    let begun = std::time::Instant::now();
    loop {
        let mut left_over = Vec::new();
        for (index, instance) in INSTANCES.iter().enumerate() {
            let here = pool.containers_on(index).await.unwrap();
            let states: Vec<_> =
                here.iter().map(|container| container.state.map(|s| s.to_string())).collect();
            if states != vec![Some("running".to_owned()); 3] {
                left_over.push(format!("{instance}: {states:?}"));
            }
        }
        if left_over.is_empty() {
            return at;
        }
        assert!(begun.elapsed() < BOUND, "left over: {left_over:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn judge_missing(moment: &str, snapshot: &Snapshot, name: &str) {
    for instance in &snapshot.instances {
        let lost = instance.name == name;
        let expected = if lost { InstanceState::Lost } else { InstanceState::Ready };
        assert_eq!(instance.state, expected, "{moment}: {snapshot:#?}");
        assert_eq!(instance.reason.is_some(), lost, "{moment}: {snapshot:#?}");
    }
    assert_eq!((snapshot.capacity.slots, snapshot.usable_capacity.slots), (9, 6), "{moment}: {snapshot:#?}");
}

fn at(moment: api_types::Timestamp) -> Nanos {
    Nanos::try_from(moment.epoch_ms()).unwrap() * MS
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds, of which there are few")]
fn ratio(a: Nanos, b: Nanos) -> f64 {
    a as f64 / b as f64
}
