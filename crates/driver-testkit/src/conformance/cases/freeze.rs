//! Suspending and resuming. Where the engine cannot, the driver says so.

use driver::{DriverError, Outcome};
use planner::Phase;

use crate::conformance::Fixture;
use crate::conformance::stage::{GRACE, Stage};

/// Frozen and thawed, each of them twice: the second time it is already so.
pub async fn freeze_and_thaw(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "freeze");
    let id = stage.running(0).await;
    if !stage.driver.capabilities().freeze {
        let frozen = stage.soon("the freeze", stage.driver.freeze(&id)).await;
        assert!(matches!(frozen, Err(DriverError::Unsupported { .. })), "{frozen:?}");
        let thawed = stage.soon("the thaw", stage.driver.thaw(&id, None)).await;
        assert!(matches!(thawed, Err(DriverError::Unsupported { .. })), "{thawed:?}");
        assert_eq!(stage.phase(&id).await, Some(Phase::Running));
        return;
    }
    for expected in [Outcome::Done, Outcome::Already] {
        let frozen = stage.soon("the freeze", stage.driver.freeze(&id)).await;
        assert_eq!(frozen.expect("it freezes"), expected);
        assert_eq!(stage.phase(&id).await, Some(Phase::Frozen));
    }
    for expected in [Outcome::Done, Outcome::Already] {
        let thawed = stage.soon("the thaw", stage.driver.thaw(&id, None)).await;
        assert_eq!(thawed.expect("it thaws"), expected);
        assert_eq!(stage.phase(&id).await, Some(Phase::Running));
    }
}

/// A container that has ended, or is gone, has left its room: there is nothing to suspend.
pub async fn freeze_of_one_that_has_ended_is_already_so(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "freeze-ended");
    if !stage.driver.capabilities().freeze {
        return;
    }
    for id in [stage.ended(0).await, stage.gone(1).await] {
        let frozen = stage.soon("the freeze", stage.driver.freeze(&id)).await;
        assert_eq!(frozen.expect("there is nothing to do"), Outcome::Already);
    }
}

/// A container that has ended, or is gone, cannot be made to run by a thaw: refused, with whatever code.
pub async fn thaw_of_one_that_is_gone_is_refused(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "thaw-gone");
    if !stage.driver.capabilities().freeze {
        return;
    }
    for id in [stage.ended(0).await, stage.gone(1).await] {
        let thawed = stage.soon("the thaw", stage.driver.thaw(&id, None)).await;
        assert!(matches!(thawed, Err(DriverError::Rejected { .. })), "{thawed:?}");
    }
}

/// A thaw in the room of another one waits until that one has left it.
pub async fn thaw_waits_for_its_victim(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "thaw-after");
    if !stage.driver.capabilities().freeze {
        return;
    }
    let frozen = stage.running(0).await;
    stage.soon("the freeze", stage.driver.freeze(&frozen)).await.expect("it freezes");
    let victim = stage.started(1, fixture.ignores_stop_signal()).await.id;
    let grace = fixture.after_limit() / 4;
    let grace_ms = u64::try_from(grace.as_millis()).expect("a limit of milliseconds");
    let swap = async {
        tokio::join!(
            crate::conformance::stage::elapsed(stage.driver.thaw(&frozen, Some(&victim))),
            stage.driver.stop(&victim, driver::StopOptions { grace_ms }),
        )
    };
    let ((thawed, waited), stopped) = stage.soon("the swap", swap).await;
    assert_eq!(stopped.expect("the victim stops"), Outcome::Done);
    assert_eq!(thawed.expect("it thaws"), Outcome::Done);
    assert!(waited >= grace, "thawed after {waited:?}, while the victim ignored its signal for {grace:?}");
    assert_eq!(stage.phase(&frozen).await, Some(Phase::Running));
}

/// A frozen container is stopped like any other, and is not removed while it is frozen.
pub async fn frozen_container_can_be_stopped(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "freeze-stop");
    if !stage.driver.capabilities().freeze {
        return;
    }
    let id = stage.running(0).await;
    stage.soon("the freeze", stage.driver.freeze(&id)).await.expect("it freezes");
    let removed = stage.soon("the removal", stage.driver.remove(&id)).await;
    assert!(matches!(removed, Err(DriverError::Rejected { .. })), "{removed:?}");
    let stopped = stage.soon("the stop", stage.driver.stop(&id, GRACE)).await;
    assert_eq!(stopped.expect("it stops"), Outcome::Done);
    assert_eq!(stage.phase(&id).await, Some(Phase::Exited));
}

/// A frozen container that is stopped without grace ends by SIGKILL: it does not run on before that, not even to heed a
/// signal.
pub async fn frozen_container_can_be_killed(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "freeze-kill");
    if !stage.driver.capabilities().freeze {
        return;
    }
    let id = stage.running(0).await;
    stage.soon("the freeze", stage.driver.freeze(&id)).await.expect("it freezes");
    let no_grace = driver::StopOptions { grace_ms: 0 };
    let killed = stage.soon("the kill", stage.driver.stop(&id, no_grace)).await;
    assert_eq!(killed.expect("it is killed"), Outcome::Done);
    let ended = stage.observe_one(&id).await.expect("it is there until it is removed");
    assert_eq!((ended.phase, ended.exit.map(|exit| exit.code)), (Phase::Exited, Some(137)));
    let again = stage.soon("another kill", stage.driver.stop(&id, no_grace)).await;
    assert_eq!(again.expect("there is nothing to do"), Outcome::Already);
}

/// What somebody has resumed meanwhile runs: there is nothing to thaw.
pub async fn thaw_of_one_that_somebody_resumed_is_already_so(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "thaw-resumed");
    let Some(backdoor) = fixture.backdoor().filter(|_| stage.driver.capabilities().freeze) else { return };
    let id = stage.running(0).await;
    stage.soon("the freeze", stage.driver.freeze(&id)).await.expect("it freezes");
    stage.soon("somebody", backdoor.unpause(&id)).await;
    let thawed = stage.soon("the thaw", stage.driver.thaw(&id, None)).await;
    assert_eq!(thawed.expect("it runs"), Outcome::Already);
    assert_eq!(stage.phase(&id).await, Some(Phase::Running));
}

/// One that somebody has suspended is frozen already, and is thawed like any other.
pub async fn freeze_of_one_that_somebody_suspended_is_already_so(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "freeze-suspended");
    let Some(backdoor) = fixture.backdoor().filter(|_| stage.driver.capabilities().freeze) else { return };
    let id = stage.running(0).await;
    stage.soon("somebody", backdoor.pause(&id)).await;
    let frozen = stage.soon("the freeze", stage.driver.freeze(&id)).await;
    assert_eq!(frozen.expect("it is frozen"), Outcome::Already);
    let thawed = stage.soon("the thaw", stage.driver.thaw(&id, None)).await;
    assert_eq!(thawed.expect("it thaws"), Outcome::Done);
    assert_eq!(stage.phase(&id).await, Some(Phase::Running));
}
