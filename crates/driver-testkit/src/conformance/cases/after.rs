//! Starting in the room of another one.

use std::time::Duration;

use driver::{DriverError, Outcome, StopOptions};
use planner::Phase;

use crate::conformance::Fixture;
use crate::conformance::stage::{GRACE, Stage, elapsed};

/// The successor of a victim that takes its time to end runs only once the victim has ended.
pub async fn start_after_a_victim_waits_for_its_end(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "after-stop");
    let victim = stage.started(0, fixture.ignores_stop_signal()).await.id;
    let grace = fixture.after_limit() / 4;
    let options =
        StopOptions { grace_ms: u64::try_from(grace.as_millis()).expect("a limit of milliseconds") };
    let start = stage.start(1, fixture.runs());
    let swap = async {
        let start = elapsed(stage.driver.start(&start, Some(&victim)));
        let stop = stage.driver.stop(&victim, options);
        tokio::join!(start, stop)
    };
    let ((started, waited), stopped) = stage.soon("the swap", swap).await;
    assert_eq!(stopped.expect("the victim stops"), Outcome::Done);
    let started = started.expect("the successor starts");
    assert!(!started.already);
    assert!(waited >= grace, "started after {waited:?}, while the victim ignored its signal for {grace:?}");
    assert_eq!(stage.phase(&started.id).await, Some(Phase::Running));
    assert_eq!(stage.phase(&victim).await, Some(Phase::Exited));
}

/// A victim that is gone is not waited for.
pub async fn start_after_a_victim_that_is_gone_is_immediate(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "after-gone");
    let victim = stage.gone(0).await;
    starts_at_once(&stage, &victim).await;
}

/// A victim that has ended and was not removed is not waited for.
pub async fn start_after_a_victim_that_ended_is_immediate(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "after-ended");
    let victim = stage.ended(0).await;
    starts_at_once(&stage, &victim).await;
}

async fn starts_at_once(stage: &Stage<'_>, victim: &driver::ContainerId) {
    let start = stage.start(1, stage.fixture.runs());
    let started = stage.soon("the start", stage.driver.start(&start, Some(victim))).await;
    let started = started.expect("the successor starts");
    assert_eq!(stage.phase(&started.id).await, Some(Phase::Running));
}

/// A victim that is frozen has left its room.
pub async fn start_after_a_victim_that_is_frozen_meanwhile(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "after-freeze");
    if !stage.driver.capabilities().freeze {
        return;
    }
    let victim = stage.running(0).await;
    let start = stage.start(1, fixture.runs());
    let swap =
        async { tokio::join!(stage.driver.start(&start, Some(&victim)), stage.driver.freeze(&victim)) };
    let (started, frozen) = stage.soon("the swap", swap).await;
    assert_eq!(frozen.expect("the victim freezes"), Outcome::Done);
    let started = started.expect("the successor starts");
    assert_eq!(stage.phase(&started.id).await, Some(Phase::Running));
    assert_eq!(stage.phase(&victim).await, Some(Phase::Frozen));
    // Also when it was frozen before.
    let start = stage.start(2, fixture.runs());
    let started = stage.soon("the start", stage.driver.start(&start, Some(&victim))).await;
    assert_eq!(stage.phase(&started.expect("the successor starts").id).await, Some(Phase::Running));
}

/// A victim that nobody stops: the driver gives up at its limit, and the successor does not run.
pub async fn start_after_a_victim_that_stays_times_out(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "after-timeout");
    let victim = stage.running(0).await;
    let start = stage.start(1, fixture.runs());
    let limit = fixture.after_limit();
    let result =
        tokio::time::timeout(limit + fixture.patience(), stage.driver.start(&start, Some(&victim))).await;
    match result.expect("the driver keeps to its own limit") {
        Err(DriverError::Timeout { waited_ms, .. }) => {
            assert!(Duration::from_millis(waited_ms) >= limit, "it waited {waited_ms} ms");
        }
        other => panic!("expected a timeout, got {other:?}"),
    }
    assert_eq!(stage.phase(&victim).await, Some(Phase::Running), "the victim was not touched");
    for left in stage.observe().await.into_iter().filter(|container| container.id != victim) {
        assert_eq!(left.phase, Phase::Created, "the successor does not run");
        let removed = stage.soon("the removal", stage.driver.remove(&left.id)).await;
        assert_eq!(removed.expect("what is left can be removed"), Outcome::Done);
    }
    stage.soon("the stop", stage.driver.stop(&victim, GRACE)).await.expect("the victim stops");
}
