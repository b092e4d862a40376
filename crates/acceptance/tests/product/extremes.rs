//! More demand than there is room, and none.

use acceptance::stack::{FILL, IMPORTANT, Options, SLOTS, Stack};
use api_types::snapshot::{ServiceSnapshot, Snapshot};

use crate::BOUND;

fn service<'a>(snapshot: &'a Snapshot, name: &str) -> &'a ServiceSnapshot {
    snapshot.services.iter().find(|service| service.name == name).expect("the service is in the snapshot")
}

#[tokio::test]
async fn demand_beyond_the_room_is_met_as_far_as_it_goes_and_said_so() {
    let stack = Stack::start(Options::default()).await.unwrap();

    stack.hold(12).await.unwrap();
    stack.runs(SLOTS, BOUND).await.unwrap();
    let full = stack
        .snapshot_until("nine running", BOUND, |snapshot| service(snapshot, IMPORTANT).running == 9)
        .await
        .unwrap();
    let important = service(&full, IMPORTANT);
    assert_eq!((important.demand, important.target, important.unmet), (Some(12), Some(12), 3), "{full:#?}");
    assert_eq!(important.limited_by, ["capacity"], "{full:#?}");
    assert_eq!((service(&full, FILL).running, full.used.slots), (0, 9), "{full:#?}");
    assert_eq!(
        (full.success, full.blocked_by.as_slice()),
        (Some(false), &["capacity".to_owned()][..]),
        "{full:#?}"
    );
    assert!(
        full.summary.contains("3 of the 12 containers that priority1 wants"),
        "says nothing: {:?}",
        full.summary
    );
    let shown: Snapshot = stack
        .status_api
        .get_until("/v1/snapshot", "what is blocked", BOUND, |shown: &Snapshot| {
            shown.sequence >= full.sequence
        })
        .await
        .unwrap();
    assert_eq!((shown.success, shown.blocked_by), (Some(false), vec!["capacity".to_owned()]));

    stack.hold(0).await.unwrap();
    stack.runs(0, BOUND).await.unwrap();
    let idle =
        stack.snapshot_until("success", BOUND, |snapshot| snapshot.success == Some(true)).await.unwrap();
    assert_eq!((service(&idle, IMPORTANT).running, service(&idle, FILL).running), (0, 9), "{idle:#?}");
    assert!(idle.blocked_by.is_empty(), "{idle:#?}");
    stack.checked_timeline().await.unwrap();
}
