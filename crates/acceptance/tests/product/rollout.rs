//! Rollouts on the real engine, by editing the scheduler's configuration while it runs.

use acceptance::observer::now_ns;
use acceptance::stack::{IMPORTANT, Options, Stack};
use acceptance::timeline::Nanos;
use api_types::snapshot::{Phase, Snapshot};

use crate::BOUND;
use crate::failing::service;

/// Adds lines to the important service in the scheduler's configuration, and returns the file as it was.
pub(crate) async fn change_important(stack: &Stack, lines: &str) -> String {
    let before = std::fs::read_to_string(stack.scheduler.config()).unwrap();
    let place = format!("name = \"{IMPORTANT}\"\n");
    assert_eq!(before.matches(&place).count(), 1, "{before}");
    configure(stack, &before.replace(&place, &format!("{place}{lines}"))).await;
    before
}

/// Writes the scheduler's configuration, and returns when it has been applied or refused.
pub(crate) async fn configure(stack: &Stack, text: &str) {
    stack.configure(text, BOUND).await.unwrap();
}

fn outdated(snapshot: &Snapshot) -> u32 {
    service(snapshot, IMPORTANT).map_or(0, |service| service.outdated)
}

fn rolled_out(snapshot: &Snapshot) -> bool {
    snapshot.success == Some(true) && outdated(snapshot) == 0
}

#[tokio::test]
async fn a_changed_spec_replaces_containers_without_a_gap_and_a_bad_one_stops() {
    let stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(4).await.unwrap();
    stack.runs(4, BOUND).await.unwrap();
    stack.snapshot_until("success", BOUND, rolled_out).await.unwrap();
    let from = now_ns();
    let first_ids = ids(&stack.snapshot_until("all", BOUND, rolled_out).await.unwrap());

    // A full cluster: the successors take the fill's room.
    change_important(&stack, "env = { COLOUR = \"green\" }\n").await;
    stack.snapshot_until("outdated ones", BOUND, |snapshot| outdated(snapshot) == 4).await.unwrap();
    let snapshot = stack.snapshot_until("the rollout's end", 2 * BOUND, rolled_out).await.unwrap();
    let green = ids(&snapshot);
    assert!(green.iter().all(|id| !first_ids.contains(id)), "{green:?} {first_ids:?}");

    // A file that is wrong is refused whole, and said.
    let good = change_important(&stack, "no_such_key = 1\nstop_signal = \"SIGINT\"\n").await;
    let log = stack.scheduler.log();
    assert!(log.contains("changed configuration refused") && log.contains("no_such_key"), "{log}");
    stack.snapshot_until("as before", BOUND, rolled_out).await.unwrap();
    // What was in force already is no news.
    std::fs::write(stack.scheduler.config(), &good).unwrap();

    // A generation that fails to start stops there.
    let good = change_important(&stack, "command = [\"--fail-at-start\", \"3\"]\n").await;
    let stuck = |snapshot: &Snapshot| {
        service(snapshot, IMPORTANT).is_some_and(|it| {
            it.limited_by.iter().any(|code| code == "rollout_failing")
                && it.reason.as_deref().is_some_and(|reason| reason.contains("code 3"))
        })
    };
    let snapshot = stack.snapshot_until("a rollout that is stopped", BOUND, stuck).await.unwrap();
    assert_eq!(outdated(&snapshot), 4, "{snapshot:#?}");

    // Back, and nothing of what ran has been touched.
    configure(&stack, &good).await;
    let snapshot = stack.snapshot_until("the rollout is undone", BOUND, rolled_out).await.unwrap();
    assert_eq!(ids(&snapshot), green);
    let timeline = stack.checked_timeline().await.unwrap();
    let fewest = timeline.running_of(IMPORTANT).min_in(from, Nanos::MAX);
    assert!(fewest >= 4, "never below its target: there were {fewest}");
}

/// The important service's containers that run, sorted: what has ended is removed when nothing else is to be done.
fn ids(snapshot: &Snapshot) -> Vec<String> {
    let all = snapshot.instances.iter().flat_map(|instance| &instance.containers);
    let mut ids: Vec<String> = all
        .filter(|it| it.service == IMPORTANT && it.phase == Phase::Running)
        .map(|it| it.id.clone())
        .collect();
    ids.sort();
    ids
}
