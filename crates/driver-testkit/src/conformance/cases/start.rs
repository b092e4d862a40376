//! Starting.

use driver::Outcome;
use futures_util::FutureExt;
use futures_util::future::join_all;
use planner::Phase;

use crate::conformance::Fixture;
use crate::conformance::stage::{GRACE, Stage, assert_rejected};

/// A container that was started is observed running, with its service, instance, ordinal and generation.
pub async fn started_container_is_observed_running(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "start");
    let started = stage.started(3, fixture.runs()).await;
    assert!(!started.already, "it did not run before");
    let observed = stage.observe().await;
    assert_eq!(observed.len(), 1, "one container was started: {observed:#?}");
    let observed = &observed[0];
    assert_eq!(observed.id, started.id);
    assert_eq!(observed.phase, Phase::Running);
    assert_eq!(observed.instance, stage.instance);
    if stage.idempotent() {
        assert_eq!(observed.ordinal, Some(3));
    }
    assert_eq!(observed.generation, fixture.runs().generation());
    assert_eq!(observed.exit, None);
    assert!(
        observed.created_at_ms > 1_577_836_800_000,
        "created in {} ms of the epoch",
        observed.created_at_ms
    );
}

/// The same start again does nothing and says so. An engine without idempotent starts makes another one.
pub async fn second_start_is_already_so(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "start-twice");
    let first = stage.started(0, fixture.runs()).await;
    let second = stage.started(0, fixture.runs()).await;
    if stage.idempotent() {
        assert_eq!((second.id, second.already), (first.id, true));
        assert_eq!(stage.observe().await.len(), 1, "nothing was made twice");
    } else {
        assert_ne!(second.id, first.id);
        assert!(!second.already);
    }
}

/// Two of the same start at the same time make one container, and both say which.
pub async fn same_start_twice_side_by_side_makes_one(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "start-race");
    if !stage.idempotent() {
        return;
    }
    let start = stage.start(0, fixture.runs());
    let both = join_all([stage.driver.start(&start, None), stage.driver.start(&start, None)]);
    let ids =
        stage.soon("two starts", both).await.into_iter().map(|started| started.expect("both succeed").id);
    let ids: Vec<_> = ids.collect();
    assert_eq!(ids[0], ids[1], "both say the same container");
    let observed = stage.observe().await;
    assert_eq!(observed.iter().map(|container| container.phase).collect::<Vec<_>>(), [Phase::Running]);
}

/// The name is taken by a running container of another generation: refused as a conflict, and nothing is
/// touched.
pub async fn start_of_another_generation_is_a_conflict(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "start-generation");
    if !stage.idempotent() {
        return;
    }
    let id = stage.running(0).await;
    let mut other = fixture.runs();
    other.environment.insert("FORCE12_CONFORMANCE".to_owned(), "another generation".to_owned());
    let start = stage.start(0, other);
    assert_rejected(&stage.soon("the start", stage.driver.start(&start, None)).await, "conflict");
    let observed = stage.observe().await;
    assert_eq!(observed.len(), 1);
    assert_eq!((&observed[0].id, observed[0].phase), (&id, Phase::Running));
}

/// A container that has ended and was not removed yet does not stand in the way of its successor, whatever its
/// generation.
pub async fn start_replaces_one_that_has_ended(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "start-ended");
    for spec in [fixture.exits(0), fixture.runs()] {
        let ended = stage.started(0, spec.clone()).await;
        if spec == fixture.runs() {
            stage.soon("the stop", stage.driver.stop(&ended.id, GRACE)).await.expect("the container stops");
        } else {
            stage.until_phase(&ended.id, Some(Phase::Exited)).await;
        }
        let next = stage.started(0, fixture.runs()).await;
        assert_ne!(next.id, ended.id, "it is another container");
        assert!(!next.already);
        assert_eq!(stage.phase(&next.id).await, Some(Phase::Running));
        if stage.idempotent() {
            assert_eq!(stage.phase(&ended.id).await, None, "its name was needed");
        }
        stage.soon("the stop", stage.driver.stop(&next.id, GRACE)).await.expect("the container stops");
        stage.soon("the removal", stage.driver.remove(&next.id)).await.expect("the container is removed");
    }
}

/// Containers of different ordinals start side by side.
pub async fn many_start_side_by_side(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "start-many");
    let starts: Vec<_> = (0..5).map(|ordinal| stage.start(ordinal, fixture.runs())).collect();
    let all = join_all(starts.iter().map(|start| stage.driver.start(start, None)));
    for started in stage.soon("five starts", all).await {
        assert!(!started.expect("each succeeds").already);
    }
    let observed = stage.observe().await;
    assert_eq!(observed.len(), 5);
    assert!(observed.iter().all(|container| container.phase == Phase::Running), "{observed:#?}");
}

/// A start of an image that is not there is refused as `image_missing`, and leaves nothing that runs.
pub async fn start_with_a_missing_image_is_refused(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "start-image-missing");
    let start = stage.start(0, fixture.image_missing());
    assert_rejected(&stage.soon("the start", stage.driver.start(&start, None)).await, "image_missing");
    assert!(stage.observe().await.iter().all(|container| container.phase == Phase::Created));
}

/// A start that the engine cannot do is refused as `bad_spec`; what is left does not run and can be removed.
pub async fn start_that_the_engine_cannot_do_is_refused(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "start-fails");
    let start = stage.start(0, fixture.fails_to_start());
    assert_rejected(&stage.soon("the start", stage.driver.start(&start, None)).await, "bad_spec");
    for left in stage.observe().await {
        assert!(matches!(left.phase, Phase::Created | Phase::Exited), "{left:#?}");
        let removed = stage.soon("the removal", stage.driver.remove(&left.id)).await;
        assert_eq!(removed.expect("it can be removed"), Outcome::Done);
    }
}

/// The caller of a start goes away before anything was answered: the same start made again runs one container.
pub async fn start_dropped_at_once_is_completed_by_the_same_start(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "start-dropped");
    let start = stage.start(0, fixture.runs());
    let answer = stage.driver.start(&start, None).now_or_never();
    assert!(answer.is_none(), "a start takes longer than one poll");
    let started = stage.soon("the start", stage.driver.start(&start, None)).await.expect("it is completed");
    assert_eq!(stage.phase(&started.id).await, Some(Phase::Running));
    if stage.idempotent() {
        assert_eq!(stage.observe().await.len(), 1, "nothing was made twice");
    }
}

/// The caller of a start goes away while it waits for its victim: what it has created is started by the same
/// start made again.
pub async fn start_dropped_while_it_waits_is_completed_by_the_same_start(fixture: &dyn Fixture) {
    let stage = Stage::new(fixture, "start-dropped-waiting");
    let victim = stage.running(0).await;
    let start = stage.start(1, fixture.runs());
    if !stage.idempotent() {
        // Nothing is made ahead that could be completed.
        let waited =
            tokio::time::timeout(fixture.after_limit() / 4, stage.driver.start(&start, Some(&victim))).await;
        assert!(waited.is_err(), "it did not wait for its victim: {waited:?}");
        stage.soon("the stop", stage.driver.stop(&victim, GRACE)).await.expect("the victim stops");
        let started = stage.soon("the start", stage.driver.start(&start, None)).await.expect("it starts");
        let all = stage.observe().await;
        let running = all.iter().filter(|container| container.phase == Phase::Running);
        assert_eq!(running.map(|container| &container.id).collect::<Vec<_>>(), [&started.id]);
        return;
    }
    let created = tokio::select! {
        started = stage.driver.start(&start, Some(&victim)) => panic!("it did not wait for its victim: {started:?}"),
        observed = stage.until("a container is created", |all| {
            all.iter().any(|container| container.phase == Phase::Created)
        }) => observed.into_iter().find(|container| container.phase == Phase::Created).expect("as awaited").id,
    };
    stage.soon("the stop", stage.driver.stop(&victim, GRACE)).await.expect("the victim stops");
    let started = stage.soon("the start", stage.driver.start(&start, None)).await.expect("it is completed");
    assert_eq!(stage.phase(&started.id).await, Some(Phase::Running));
    if stage.idempotent() {
        assert_eq!(started.id, created, "the container that was created is the one that runs");
    }
}
