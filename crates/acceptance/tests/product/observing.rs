//! The observer itself: it has to see what was done, or the other checks prove nothing.

use std::time::Duration;

use acceptance::binaries::Binaries;
use acceptance::engine::{CLUSTER_LABEL, Cleanup, Engine, stranger};
use acceptance::observer::{Observer, now_ns};

#[tokio::test]
async fn the_observer_sees_what_the_engine_does() {
    let engine = Engine::connect().await.unwrap();
    let binaries = Binaries::locate().await.unwrap();
    let cluster = format!("acc-{}-observing", std::process::id());
    let mut cleanup = Cleanup::new(&cluster);
    let begun = now_ns();
    let observer = Observer::follow(&engine, &cluster);
    let image = engine.import_image(binaries.path("workload"), &cluster, &[]).await.unwrap();
    cleanup.image(&image);

    let mut body = stranger(&cluster, &image, "none");
    body.labels = Some([(CLUSTER_LABEL.to_owned(), cluster.clone())].into());
    let name = format!("force12.{cluster}.one.a.1");
    let id = engine.create(&name, body).await.unwrap();
    engine.start(&id).await.unwrap();
    let bound = Duration::from_secs(5);
    let started =
        observer.wait_for("the start", bound, |seen| seen.of("start").next().cloned()).await.unwrap();
    assert_eq!((started.id.as_str(), started.name.as_str()), (id.as_str(), name.as_str()));
    assert!((begun..now_ns()).contains(&started.at), "the engine's clock is the machine's");

    engine.docker().pause_container(&id).await.unwrap();
    engine.docker().unpause_container(&id).await.unwrap();
    engine.kill(&id).await.unwrap();
    engine.remove(&id).await.unwrap();
    observer.barrier(&engine, &image).await.unwrap();
    let seen = observer.timeline().unwrap();
    let actions: Vec<&str> = seen.events().iter().map(|event| event.action.as_str()).collect();
    assert_eq!(actions, ["create", "start", "pause", "unpause", "kill", "die", "destroy"]);
    let running = seen.running_total();
    let values: Vec<i64> = running.changes().iter().map(|change| change.1).collect();
    assert_eq!(values, [1, 0, 1, 0, 0]);
}
