//! Events: each change is told, so that looking when they come misses nothing.

use driver::{ContainerId, Event, ObservedContainer};
use planner::Phase;

use crate::conformance::Fixture;
use crate::conformance::stage::{GRACE, Stage, Watch};

/// The first event of a stream is a gap: whatever happened before it needs an observation.
pub async fn event_stream_begins_with_a_gap(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "events");
    assert_eq!(Watch::new(&stage).next().await, Event::Gap);
    stage.running(0).await;
    assert_eq!(Watch::new(&stage).next().await, Event::Gap, "also after something has happened");
}

/// After a start, freeze, thaw, stop and removal there is an event after which it can be observed.
pub async fn every_change_is_told_by_an_event(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "events-each");
    let mut watch = Watch::new(&stage);
    assert_eq!(watch.next().await, Event::Gap);
    let id = stage.running(0).await;
    watch.until("it runs", is(&id, Some(Phase::Running))).await;
    if stage.driver.capabilities().freeze {
        watch.forget();
        stage.soon("the freeze", stage.driver.freeze(&id)).await.expect("it freezes");
        watch.until("it is frozen", is(&id, Some(Phase::Frozen))).await;
        watch.forget();
        stage.soon("the thaw", stage.driver.thaw(&id, None)).await.expect("it thaws");
        watch.until("it runs again", is(&id, Some(Phase::Running))).await;
    }
    watch.forget();
    stage.soon("the stop", stage.driver.stop(&id, GRACE)).await.expect("it stops");
    watch.until("it has ended", is(&id, Some(Phase::Exited))).await;
    watch.forget();
    stage.soon("the removal", stage.driver.remove(&id)).await.expect("it is removed");
    watch.until("it is gone", is(&id, None)).await;
    assert!(
        watch.changes >= 3,
        "a start, a stop and a removal are changes, not gaps; {} were told",
        watch.changes
    );
}

/// Two streams of one driver tell the same.
pub async fn every_reader_of_events_is_told(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "events-two");
    let mut watches = [Watch::new(&stage), Watch::new(&stage)];
    for watch in &mut watches {
        assert_eq!(watch.next().await, Event::Gap);
    }
    let id = stage.running(0).await;
    for watch in &mut watches {
        watch.until("it runs", is(&id, Some(Phase::Running))).await;
    }
}

/// What somebody does to our containers without the driver is told and observed like what the driver does.
pub async fn what_others_do_to_our_containers_is_told_and_observed(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "events-others");
    let Some(backdoor) = fixture.backdoor() else {
        return;
    };
    let [killed, removed] = [stage.running(0).await, stage.running(1).await];
    let mut watch = Watch::new(&stage);
    assert_eq!(watch.next().await, Event::Gap);
    if stage.driver.capabilities().freeze {
        backdoor.pause(&killed).await;
        watch.until("it is paused", is(&killed, Some(Phase::Frozen))).await;
        watch.forget();
        backdoor.unpause(&killed).await;
        watch.until("it is resumed", is(&killed, Some(Phase::Running))).await;
        watch.forget();
    }
    backdoor.kill(&killed).await;
    let observed = watch.until("it has ended", is(&killed, Some(Phase::Exited))).await;
    let exit =
        observed.into_iter().find(|container| container.id == killed).and_then(|container| container.exit);
    assert_eq!(exit.expect("how it ended is known").code, 137, "128 + SIGKILL");
    watch.forget();
    backdoor.remove(&removed).await;
    watch.until("it is gone", is(&removed, None)).await;
}

/// Whether a container is in this phase; `None` is "gone".
fn is(id: &ContainerId, phase: Option<Phase>) -> impl Fn(&[ObservedContainer]) -> bool {
    move |all| all.iter().find(|container| container.id == *id).map(|container| container.phase) == phase
}
