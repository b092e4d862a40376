//! A real engine whose streams of events break in every way, while demand changes and containers are taken away: the
//! scheduler misses nothing.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use acceptance::engine::{CLUSTER_LABEL, STRANGER_LABEL};
use acceptance::stack::{FILL, IMPORTANT, Options, Stack};
use acceptance::way::{Telling, Way};
use api_types::snapshot::Snapshot;

use crate::BOUND;

/// From what somebody does on the engine to another container in its place, success and a snapshot that is right. The
/// engine is asked every 500 ms; the rest is for a debug build on a busy machine.
const UNSEEN: Duration = Duration::from_secs(6);

/// Each container and its phase, as the snapshot has them.
fn shown(snapshot: &Snapshot) -> BTreeMap<String, String> {
    let all = snapshot.instances.iter().flat_map(|instance| &instance.containers);
    all.map(|it| (it.id.clone(), format!("{:?}", it.phase).to_lowercase())).collect()
}

/// Each container and its state, as the engine has them.
async fn there(stack: &Stack) -> BTreeMap<String, String> {
    let all = stack.engine.containers_with(CLUSTER_LABEL, &stack.cluster).await.unwrap();
    let ours = all
        .into_iter()
        .filter(|it| it.labels.as_ref().is_none_or(|labels| !labels.contains_key(STRANGER_LABEL)));
    let id_and_state = ours.map(|it| {
        let state = it.state.map(|state| state.to_string()).unwrap_or_default();
        (it.id.unwrap_or_default(), state)
    });
    id_and_state.collect()
}

/// Waits until the snapshot says of each container what the engine says, with success.
async fn right(stack: &Stack) -> Snapshot {
    let begun = Instant::now();
    loop {
        let snapshot: Snapshot = stack.scheduler.get("/v1/snapshot").await.unwrap();
        let there = there(stack).await;
        if snapshot.success == Some(true) && shown(&snapshot) == there {
            return snapshot;
        }
        assert!(begun.elapsed() < UNSEEN, "the engine has {there:?}, and not {snapshot:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn whatever_becomes_of_the_events_nothing_is_missed() {
    let mut stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(4).await.unwrap();
    stack.runs(4, BOUND).await.unwrap();
    let mut way = Way::to(stack.engine.address()).unwrap();
    stack.scheduler.kill().await.unwrap();
    let config = std::fs::read_to_string(stack.scheduler.config()).unwrap();
    let config = config.replace(stack.engine.address(), &way.address());
    std::fs::write(stack.scheduler.config(), config).unwrap();
    stack.scheduler.start().await.unwrap();
    stack.scheduler.ready().await.unwrap();
    for telling in Telling::BROKEN.into_iter().chain([Telling::AsItIs]) {
        way.tell(telling, BOUND).await.unwrap();
        stack.hold(7).await.unwrap();
        stack.runs(7, BOUND).await.unwrap();
        let mut took = Vec::new();
        for service in [IMPORTANT, FILL] {
            let snapshot = right(&stack).await;
            let mut all = snapshot.instances.iter().flat_map(|instance| &instance.containers);
            let one = all.find(|it| it.service == service).map(|it| it.id.clone()).unwrap();
            let begun = Instant::now();
            stack.engine.remove(&one).await.unwrap();
            let another =
                |snapshot: &Snapshot| snapshot.success == Some(true) && !shown(snapshot).contains_key(&one);
            stack.snapshot_until("another in its place", UNSEEN, another).await.unwrap();
            took.push(begun.elapsed());
        }
        println!("{telling:?}: one that was taken away replaced after {took:?}");
        right(&stack).await;
        stack.hold(2).await.unwrap();
        stack.runs(2, BOUND).await.unwrap();
        right(&stack).await;
    }
    stack.checked_timeline().await.unwrap();
}
