//! Containers that fail on the real engine: they leave their room to the fill and take it back when they are well, and
//! it is said what is wrong.

use acceptance::stack::{FILL, IMPORTANT, Options, SLOTS, Stack};
use acceptance::timeline::Nanos;
use api_types::snapshot::{ServiceSnapshot, Snapshot};

use crate::BOUND;
use crate::rollout::{change_important, configure};

/// A healthcheck of the workload's, some times a second.
const CHECKED: &str = r#"healthcheck = { command = ["/workload", "healthcheck"], interval_ms = 150, retries = 2 }
ready = "healthy"
"#;

pub(crate) fn service<'a>(snapshot: &'a Snapshot, name: &str) -> Option<&'a ServiceSnapshot> {
    snapshot.services.iter().find(|service| service.name == name)
}

fn says(snapshot: &Snapshot, words: &str) -> bool {
    let important = service(snapshot, IMPORTANT);
    important.and_then(|it| it.reason.as_deref()).is_some_and(|reason| reason.contains(words))
}

#[tokio::test]
async fn what_fails_leaves_its_room_and_takes_it_back_when_it_is_well() {
    let stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(2).await.unwrap();
    stack.runs(2, BOUND).await.unwrap();
    let out_of_memory =
        "env = { WORKLOAD_ALLOCATE_MIB = \"256\" }\nrequest = { slots = 1, memory_mib = 32 }\n";
    let kinds = [
        ("exit at start", "command = [\"--fail-at-start\", \"3\"]\n".to_owned(), "it exited with code 3"),
        ("a bad command", "user = \"nobody-knows\"\n".to_owned(), "nobody-knows"),
        (
            "crash loop",
            "env = { WORKLOAD_EXIT_AFTER_MS = \"300\", WORKLOAD_EXIT_CODE = \"9\" }\n".to_owned(),
            "code 9",
        ),
        ("out of memory", out_of_memory.to_owned(), "code 137, out of memory"),
        ("never healthy", format!("{CHECKED}ready_within_ms = 800\n"), "it was not healthy within 800 ms"),
    ];
    for (what, lines, words) in kinds {
        // Nothing of the old generation is there that could go on.
        stack.hold(0).await.unwrap();
        stack.runs(0, BOUND).await.unwrap();
        let good = change_important(&stack, &lines).await;
        stack.hold(2).await.unwrap();
        let fill_has_all = |snapshot: &Snapshot| {
            let fill = service(snapshot, FILL).map_or(0, |fill| i64::from(fill.running));
            fill == SLOTS && says(snapshot, words)
        };
        let snapshot = stack.snapshot_until(what, BOUND, fill_has_all).await.unwrap();
        assert_eq!(snapshot.success, Some(false), "{what}");
        println!(
            "{what}: {}",
            service(&snapshot, IMPORTANT).and_then(|it| it.reason.clone()).unwrap_or_default()
        );
        configure(&stack, &good).await;
        stack.runs(2, BOUND).await.unwrap();
    }
    stack.checked_timeline().await.unwrap();
}

#[tokio::test]
async fn what_is_taken_away_or_paused_by_hand_is_replaced() {
    let stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(4).await.unwrap();
    stack.runs(4, BOUND).await.unwrap();
    let success = |snapshot: &Snapshot| snapshot.success == Some(true);
    let one = |snapshot: &Snapshot| {
        let mut all = snapshot.instances.iter().flat_map(|instance| &instance.containers);
        all.find(|it| it.service == IMPORTANT).map(|it| it.id.clone()).unwrap_or_default()
    };
    let snapshot = stack.snapshot_until("success", BOUND, success).await.unwrap();
    let gone = one(&snapshot);
    stack.engine.remove(&gone).await.unwrap();
    let without = |id: String| {
        move |snapshot: &Snapshot| {
            let mut all = snapshot.instances.iter().flat_map(|instance| &instance.containers);
            snapshot.success == Some(true) && all.all(|it| it.id != id)
        }
    };
    let snapshot = stack.snapshot_until("another in its place", BOUND, without(gone)).await.unwrap();
    let paused = one(&snapshot);
    stack.engine.docker().pause_container(&paused).await.unwrap();
    stack.snapshot_until("another in its place", BOUND, without(paused)).await.unwrap();
    stack.runs(4, BOUND).await.unwrap();
    let decisions = stack.decisions(IMPORTANT, 100).await.unwrap();
    let actions = decisions.decisions.iter().flat_map(|decision| &decision.actions);
    assert!(actions.into_iter().any(|action| action.reason == "not_freezable"), "{decisions:#?}");
    stack.checked_timeline().await.unwrap();
}

#[tokio::test]
async fn what_turns_unhealthy_is_replaced_the_new_one_first() {
    let stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(0).await.unwrap();
    stack.runs(0, BOUND).await.unwrap();
    let times = "env = { WORKLOAD_READY_AFTER_MS = \"100\", WORKLOAD_UNREADY_AFTER_MS = \"12000\" }\n";
    change_important(&stack, &format!("{CHECKED}{times}")).await;
    stack.hold(2).await.unwrap();
    stack.runs(2, BOUND).await.unwrap();
    let success = |snapshot: &Snapshot| snapshot.success == Some(true);
    stack.snapshot_until("success", BOUND, success).await.unwrap();
    let from = acceptance::observer::now_ns();
    let ill = |snapshot: &Snapshot| service(snapshot, IMPORTANT).is_some_and(|it| it.unhealthy > 0);
    let snapshot = stack.snapshot_until("one is unhealthy", BOUND, ill).await.unwrap();
    assert_eq!(snapshot.success, Some(false));
    stack.snapshot_until("others in their place", BOUND, success).await.unwrap();
    let decisions = stack.decisions(IMPORTANT, 100).await.unwrap();
    let mut actions = decisions.decisions.iter().flat_map(|decision| &decision.actions);
    assert!(actions.any(|it| it.reason == "unhealthy"), "{decisions:#?}");
    let timeline = stack.checked_timeline().await.unwrap();
    let fewest = timeline.running_of(IMPORTANT).min_in(from, Nanos::MAX);
    assert!(fewest >= 2, "the new one comes first: there were {fewest} processes");
}
