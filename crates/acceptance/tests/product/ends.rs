//! How the services end, and what goes on without them.

use std::time::Duration;

use acceptance::engine::CLUSTER_LABEL;
use acceptance::http;
use acceptance::observer::now_ns;
use acceptance::service::Service;
use acceptance::stack::{Options, SLOTS, Stack};
use api_types::snapshot::Snapshot;
use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

use crate::BOUND;

/// From SIGTERM to a service's end: five seconds to finish answers under way, and one to end.
const END_BOUND: Duration = Duration::from_secs(6);

/// Reads a stream until it ends; the first item has come before this returns.
async fn open_stream(service: &Service) -> JoinHandle<()> {
    let answer = http::stream_client().unwrap().get(service.url("/v1/stream")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let mut stream = answer.bytes_stream();
    stream.next().await.expect("a stream begins with the latest snapshot").unwrap();
    tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} })
}

/// Asks for demand in a way that is answered late, and returns the wait for its answer.
async fn open_poll(service: &Service) -> JoinHandle<Result<reqwest::Response, reqwest::Error>> {
    let now = service.anonymous(reqwest::Method::GET, "/v1/demand").send().await.unwrap();
    let etag = now.headers().get("etag").expect("a demand document has an etag").clone();
    let later = service.anonymous(reqwest::Method::GET, "/v1/demand");
    tokio::spawn(later.header("if-none-match", etag).header("prefer", "wait=60").send())
}

#[tokio::test]
async fn sigterm_ends_the_services_and_drain_ends_the_workloads() {
    let mut stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(4).await.unwrap();
    stack.runs(4, BOUND).await.unwrap();
    stack.snapshot_until("success", BOUND, |snapshot| snapshot.success == Some(true)).await.unwrap();
    let before = stack.checked_timeline().await.unwrap().events().len();

    // Clients that hold on have to be let go of.
    let streams = [open_stream(&stack.status_api).await, open_stream(&stack.scheduler).await];
    let poll = open_poll(&stack.demand_rng).await;
    for service in [&mut stack.status_api, &mut stack.scheduler, &mut stack.demand_rng] {
        let (status, took) = service.terminate(END_BOUND).await.unwrap();
        println!("{} ended after {} ms", service.url(""), took.as_millis());
        assert_eq!(status.code(), Some(0), "{status} of {}", service.config().display());
    }
    for stream in streams {
        tokio::time::timeout(BOUND, stream).await.expect("a stream ends with its service").unwrap();
    }
    let _ = tokio::time::timeout(BOUND, poll).await.expect("a long poll ends with its service").unwrap();
    let after = stack.checked_timeline().await.unwrap();
    assert_eq!(after.events().len(), before, "containers saw something: {:#?}", &after.events()[before..]);
    assert_eq!(after.running_total().at(now_ns()), SLOTS);

    let config = stack.scheduler.config().to_string_lossy().into_owned();
    let status = stack.scheduler.command(&["drain", &config]).unwrap().status();
    let status = tokio::time::timeout(BOUND, status).await.expect("drain ends").unwrap();
    assert_eq!(status.code(), Some(0), "drain: {status}");
    let drained = stack.checked_timeline().await.unwrap();
    assert_eq!(drained.running_total().at(now_ns()), 0, "drain stops every workload");
    let left = stack.engine.containers_with(CLUSTER_LABEL, &stack.cluster).await.unwrap();
    let ours = format!("/force12.{}.", stack.cluster);
    let left: Vec<_> =
        left.iter().flat_map(|c| c.names.iter().flatten()).filter(|n| n.starts_with(&ours)).collect();
    assert!(left.is_empty(), "drain leaves {left:?}");
}

#[tokio::test]
async fn status_api_outlives_the_scheduler_and_says_so() {
    let mut stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(4).await.unwrap();
    stack.runs(4, BOUND).await.unwrap();
    let live = |shown: &Snapshot| {
        shown.success == Some(true) && shown.source.as_ref().is_some_and(|source| source.live)
    };
    let shown = stack.status_api.get_until("/v1/snapshot", "success, live", BOUND, live).await.unwrap();
    let before = stack.checked_timeline().await.unwrap().events().len();

    stack.scheduler.kill().await.unwrap();
    let dead = |shown: &Snapshot| shown.source.as_ref().is_some_and(|source| !source.live);
    let blind: Snapshot = stack.status_api.get_until("/v1/snapshot", "not live", BOUND, dead).await.unwrap();
    assert_eq!(blind.success, None, "what is not known is not called a success: {blind:#?}");
    assert!(blind.source.as_ref().is_some_and(|source| source.reason.is_some()), "says why: {blind:#?}");
    for path in ["/", "/v1/history?window_ms=60000", "/healthz", "/metrics"] {
        let answer = stack.status_api.anonymous(reqwest::Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path} while the scheduler is dead");
    }

    stack.scheduler.start().await.unwrap();
    let again: Snapshot =
        stack.status_api.get_until("/v1/snapshot", "success, live again", BOUND, live).await.unwrap();
    assert_ne!(again.epoch, shown.epoch, "another start, another epoch");
    let after = stack.checked_timeline().await.unwrap();
    assert_eq!(after.events().len(), before, "adopting touched containers: {:#?}", &after.events()[before..]);
}
