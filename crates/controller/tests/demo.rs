//! The demo on a simulated engine: three instances of three slots, demand 4 → 5 → 2 → 9 → 12 → 0.

mod support;

use controller::{ActionOutcome, DecisionQuery};
use support::{Scene, pass_ms};

#[tokio::test(start_paused = true)]
async fn the_demo_follows_its_demand() {
    let mut scene = Scene::demo(1);
    let stranger = scene.engine().place_foreign("somebody-elses");
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    for (demand, priority1, priority2) in [(5, 5, 4), (2, 2, 7), (9, 9, 0)] {
        scene.board.set("priority1", demand);
        running.until_success(2_000, priority1, priority2).await;
    }
    scene.board.set("priority1", 12);
    let view = running
        .until(2_000, "three unmet", |view| view.services[0].unmet == 3 && view.services[0].running == 9)
        .await;
    assert!(!view.success);
    assert_eq!(view.blocked_by, ["capacity"]);
    assert_eq!(view.services[0].limited_by, ["capacity"]);
    assert_eq!(view.used.slots, 9);

    scene.board.set("priority1", 0);
    let view = running.until_success(3_000, 0, 9).await;
    assert_eq!(view.services[0].target, Some(0));
    scene.assert_sound();
    assert!(scene.engine().container(&stranger).is_some(), "what is not ours is still there");

    // What has ended is removed when the last start is over. Then nothing is left over, and nothing more happens.
    pass_ms(1_000).await;
    let before = (running.handle.view().sequence, scene.engine().history().entries().len());
    pass_ms(60_000).await;
    assert_eq!(before, (running.handle.view().sequence, scene.engine().history().entries().len()));
    assert_eq!(scene.engine().containers().len(), 9 + 1, "what has ended is removed");
}

#[tokio::test(start_paused = true)]
async fn a_swap_is_decided_once_and_measured() {
    let mut scene = Scene::demo(2);
    let running = scene.start();
    running.until_success(2_000, 4, 5).await;
    let before = running.handle.view();
    scene.board.set("priority1", 5);
    let view = running.until_success(2_000, 5, 4).await;
    assert_eq!(view.reaction.count, before.reaction.count + 1);
    assert_eq!(view.reaction_preempting.count, before.reaction_preempting.count + 1);
    assert_eq!(view.stop.count, before.stop.count + 1);
    assert!(view.start.count > before.start.count);
    // Kill (90 at most), create (10, beside it), start (120), an event and an observation.
    let reaction_ms = view.reaction.last_ms.expect("one was measured");
    assert!((100..=260).contains(&reaction_ms), "{reaction_ms} ms");

    let query = DecisionQuery { service: Some("priority1".to_owned()), limit: 1, before: None };
    let decision = running.handle.decisions(&query).remove(0);
    let kinds: Vec<&str> = decision.actions.iter().map(|action| action.kind).collect();
    assert_eq!(kinds, ["stop", "start"], "{decision:#?}");
    assert!(decision.woken_by.names().contains(&"demand"));
    assert_eq!(decision.inputs[0].demand, Some(5));
    assert_eq!(decision.actions[1].after, [decision.actions[0].container.clone()]);
    assert!(decision.actions.iter().all(|action| action.outcome == ActionOutcome::Done), "{decision:#?}");
    assert!(decision.actions.iter().all(|action| action.took_ms.is_some()));
    scene.assert_sound();
}
