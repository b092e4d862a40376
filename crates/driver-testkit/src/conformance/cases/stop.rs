//! Stopping.

use std::time::Duration;

use driver::{Outcome, StopOptions};
use futures_util::future::join_all;
use planner::Phase;

use crate::conformance::Fixture;
use crate::conformance::stage::{GRACE, Stage, elapsed};

/// When a stop returns, the container has ended.
pub async fn stopped_container_has_ended(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "stop");
    let id = stage.running(0).await;
    let stopped = stage.soon("the stop", stage.driver.stop(&id, GRACE)).await;
    assert_eq!(stopped.expect("it stops"), Outcome::Done);
    let observed = stage.observe_one(&id).await.expect("it is there until it is removed");
    assert_eq!(observed.phase, Phase::Exited);
    assert!(observed.exit.is_some(), "how it ended is known");
}

/// A container that has ended, or is gone, needs no stop.
pub async fn stop_of_one_that_has_ended_is_already_so(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "stop-ended");
    for id in [stage.ended(0).await, stage.gone(1).await] {
        let stopped = stage.soon("the stop", stage.driver.stop(&id, GRACE)).await;
        assert_eq!(stopped.expect("there is nothing to do"), Outcome::Already);
    }
}

/// A container that ignores its signal gets its whole grace, and is killed then.
pub async fn stop_waits_its_grace_for_one_that_ignores_the_signal(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "stop-stubborn");
    let id = stage.started(0, fixture.ignores_stop_signal()).await.id;
    let grace_ms = 700;
    let grace = Duration::from_millis(grace_ms);
    let stop = stage.driver.stop(&id, StopOptions { grace_ms });
    let limit = grace + fixture.patience();
    let (stopped, took) = elapsed(tokio::time::timeout(limit, stop)).await;
    assert_eq!(stopped.expect("it is killed after its grace").expect("it stops"), Outcome::Done);
    assert!(took >= grace, "it was killed after {took:?} and had {grace:?}");
    let observed = stage.observe_one(&id).await.expect("it is there until it is removed");
    assert_eq!(observed.exit.expect("it has ended").code, 137, "128 + SIGKILL");
}

/// A grace of 0 is SIGKILL at once, also for a container whose image or spec says otherwise.
pub async fn stop_without_grace_is_immediate(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "stop-kill");
    let mut spec = fixture.ignores_stop_signal();
    spec.stop_grace_ms =
        u64::try_from(fixture.patience().as_millis()).expect("a patience of milliseconds") * 2;
    let id = stage.started(0, spec).await.id;
    let stopped = stage.soon("the stop", stage.driver.stop(&id, StopOptions { grace_ms: 0 })).await;
    assert_eq!(stopped.expect("it is killed"), Outcome::Done);
    assert_eq!(stage.phase(&id).await, Some(Phase::Exited));
}

/// A container that ends at its signal is not waited for any longer, however long its grace.
pub async fn stop_does_not_wait_for_its_grace_in_vain(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "stop-grace");
    let id = stage.running(0).await;
    let grace_ms = u64::try_from(fixture.patience().as_millis()).expect("a patience of milliseconds") * 2;
    let stopped = stage.soon("the stop", stage.driver.stop(&id, StopOptions { grace_ms })).await;
    assert_eq!(stopped.expect("it stops"), Outcome::Done);
}

/// Several stops of one container at the same time all succeed.
pub async fn stops_side_by_side_all_succeed(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "stop-race");
    let id = stage.running(0).await;
    let stops = join_all((0..3).map(|_| stage.driver.stop(&id, GRACE)));
    let outcomes =
        stage.soon("three stops", stops).await.into_iter().map(|stopped| stopped.expect("it stops"));
    assert!(outcomes.collect::<Vec<_>>().contains(&Outcome::Done), "one of them did it");
    assert_eq!(stage.phase(&id).await, Some(Phase::Exited));
}
