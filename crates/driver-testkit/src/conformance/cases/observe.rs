//! Observing, and looking ahead.

use driver::InstanceAvailability;
use planner::Phase;

use crate::conformance::Fixture;
use crate::conformance::stage::{Stage, assert_rejected};

/// Every instance that the driver serves is observed, ready, with its capacity.
pub async fn instances_are_observed_with_their_capacity(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "observe");
    let observed = stage.soon("observing", stage.driver.observe()).await.expect("the engine can be observed");
    let mut names: Vec<_> = observed.instances.iter().map(|instance| instance.name.clone()).collect();
    let mut served = stage.driver.instances();
    names.sort();
    served.sort();
    assert_eq!(names, served);
    for instance in observed.instances {
        assert_eq!(instance.capacity, fixture.capacity(), "{}", instance.name);
        assert_eq!(instance.availability, InstanceAvailability::Ready, "{}", instance.name);
    }
}

/// A container that ends by itself is observed exited, with its exit code.
pub async fn exit_code_is_observed(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "observe-exit");
    for (ordinal, code) in [(0, 0), (1, 7)] {
        let id = stage.started(ordinal, fixture.exits(code)).await.id;
        let observed =
            stage.until_phase(&id, Some(Phase::Exited)).await.expect("it is there until it is removed");
        let exit = observed.exit.expect("how it ended is known");
        assert_eq!((exit.code, exit.out_of_memory), (i64::from(code), false));
    }
}

/// What a start would miss is known before: preparing says `image_missing`, and nothing where all is there.
pub async fn prepare_knows_what_is_missing(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "prepare");
    stage.soon("preparing", stage.driver.prepare(&fixture.runs())).await.expect("the image is there");
    let missing = stage.soon("preparing", stage.driver.prepare(&fixture.image_missing())).await;
    assert_rejected(&missing, "image_missing");
    assert_eq!(stage.observe().await, [], "preparing makes no container");
}

/// A container of someone else's is not observed, and outlives all that is done beside it.
pub async fn containers_of_others_are_not_observed(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "observe-others");
    let Some(backdoor) = fixture.backdoor() else {
        return;
    };
    let foreign = backdoor.run_foreign().await;
    stage.gone(0).await;
    let observed = stage.soon("observing", stage.driver.observe()).await.expect("the engine can be observed");
    assert!(observed.containers.iter().all(|container| container.id != foreign), "{observed:#?}");
    assert!(backdoor.foreign_runs(&foreign).await);
}
