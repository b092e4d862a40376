//! Removing.

use driver::Outcome;
use planner::Phase;

use crate::conformance::Fixture;
use crate::conformance::stage::{Stage, assert_rejected};

/// A container that has ended is gone once it is removed; removing it again is already so.
pub async fn removed_container_is_gone(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "remove");
    let id = stage.ended(0).await;
    for expected in [Outcome::Done, Outcome::Already] {
        let removed = stage.soon("the removal", stage.driver.remove(&id)).await;
        assert_eq!(removed.expect("it is removed"), expected);
        assert_eq!(stage.phase(&id).await, None);
    }
}

/// A container that runs is not removed.
pub async fn remove_of_a_running_one_is_refused(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "remove-running");
    let id = stage.running(0).await;
    assert_rejected(&stage.soon("the removal", stage.driver.remove(&id)).await, "conflict");
    assert_eq!(stage.phase(&id).await, Some(Phase::Running));
}
