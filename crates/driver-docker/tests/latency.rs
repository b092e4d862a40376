//! How long the driver takes, beside what the engine takes. `--nocapture` shows the figures.

mod support;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::query_parameters::{EventsOptionsBuilder, RemoveContainerOptionsBuilder};
use driver::{ContainerId, Driver, StopOptions};
use driver_docker::DockerDriver;
use futures_util::StreamExt;

use support::{Cluster, Proxy, engine, running, start_of, workload, workload_image};

const ROUNDS: u32 = 15;
const GRACE: StopOptions = StopOptions { grace_ms: 5_000 };
/// From the engine's report of the victim's end to the request for the start, at the median. It takes about one
/// millisecond; the rest is for machines that have other things to do. Waiting for the stop to be answered, or for
/// the next look at the victim, would take longer.
const BOUND: Duration = Duration::from_millis(15);

/// When the container died, since the epoch, by the engine's own clock, which is ours.
async fn died_at(id: &ContainerId) -> Duration {
    let filters = HashMap::from([("container", vec![id.as_str()]), ("event", vec!["die"])]);
    let engine = engine();
    let mut events =
        engine.events(Some(EventsOptionsBuilder::new().since("1").filters(&filters).build())).boxed();
    let event = events.next().await.expect("it has died").expect("the event can be read");
    Duration::from_nanos(event.time_nano.and_then(|nanos| u64::try_from(nanos).ok()).expect("it has a time"))
}

fn median(mut taken: Vec<Duration>) -> Duration {
    taken.sort();
    taken[taken.len() / 2]
}

fn show(what: &str, taken: &[Duration]) {
    let middle = median(taken.to_vec());
    let most = taken.iter().max().expect("there is one");
    println!("{what}: median {:.1} ms, most {:.1} ms", middle.as_secs_f64() * 1e3, most.as_secs_f64() * 1e3);
}

/// What the engine takes for kill, create and start, each after the other.
async fn bare_swap(cluster: &Cluster) -> Duration {
    let engine = engine();
    let victim = cluster.run_foreign(&format!("victim-{}", cluster.name), workload_image()).await;
    let begun = Instant::now();
    engine.kill_container(victim.as_str(), None).await.expect("it is killed");
    let next = cluster.run_foreign(&format!("next-{}", cluster.name), workload_image()).await;
    let taken = begun.elapsed();
    for id in [victim, next] {
        let options = RemoveContainerOptionsBuilder::new().force(true).build();
        engine.remove_container(id.as_str(), Some(options)).await.expect("it is removed");
    }
    taken
}

async fn clear(driver: &DockerDriver, id: &ContainerId) {
    driver.stop(id, GRACE).await.expect("it stops");
    driver.remove(id).await.expect("it is removed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_goes_out_when_the_engine_reports_its_victims_end() {
    let (cluster, proxy) = (Cluster::new(), Proxy::new());
    let mut config = cluster.config();
    config.engine = proxy.address();
    let driver = DockerDriver::new(config);
    let (mut delays, mut swaps, mut bare_swaps) = (Vec::new(), Vec::new(), Vec::new());
    let mut victim = running(&driver, 0).await;
    for round in 1..=ROUNDS {
        let start = start_of(round, workload(&[]));
        let begun = Instant::now();
        let (started, stopped) =
            tokio::join!(driver.start(&start, Some(&victim)), driver.stop(&victim, GRACE));
        swaps.push(begun.elapsed());
        let started = started.expect("it starts").id;
        stopped.expect("the victim stops");
        let (sent, _) = proxy.requests(&format!("/{started}/start")).remove(0);
        let died = died_at(&victim).await;
        delays.push(sent.saturating_sub(died));
        driver.remove(&victim).await.expect("it is removed");
        bare_swaps.push(bare_swap(&cluster).await);
        victim = started;
    }
    show("from the victim's end to the request for the start", &delays);
    show("a whole swap by a stop", &swaps);
    show("the same by bare calls", &bare_swaps);
    assert!(median(delays.clone()) <= BOUND, "it took {delays:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_of_single_calls() {
    let cluster = Cluster::new();
    let driver = cluster.driver();
    let mut taken: HashMap<&str, Vec<Duration>> = HashMap::new();
    let mut timed = |what, begun: Instant| taken.entry(what).or_default().push(begun.elapsed());
    for round in 0..ROUNDS {
        let start = start_of(round, workload(&[]));
        let begun = Instant::now();
        let id = driver.start(&start, None).await.expect("it starts").id;
        timed("create and start", begun);
        let begun = Instant::now();
        driver.observe().await.expect("it can be observed");
        timed("observe", begun);
        let begun = Instant::now();
        driver.freeze(&id).await.expect("it freezes");
        timed("freeze", begun);
        let begun = Instant::now();
        driver.thaw(&id, None).await.expect("it thaws");
        timed("thaw", begun);
        let begun = Instant::now();
        driver.stop(&id, GRACE).await.expect("it stops");
        timed("stop", begun);
        let begun = Instant::now();
        driver.observe().await.expect("it can be observed");
        timed("observe just after a stop", begun);
        let begun = Instant::now();
        driver.remove(&id).await.expect("it is removed");
        timed("remove", begun);
    }
    // A swap by freezing: one frozen, another one thawed in its room.
    let [mut up, mut down] = [running(&driver, ROUNDS).await, running(&driver, ROUNDS + 1).await];
    driver.freeze(&down).await.expect("it freezes");
    for _ in 0..ROUNDS {
        let begun = Instant::now();
        let (thawed, frozen) = tokio::join!(driver.thaw(&down, Some(&up)), driver.freeze(&up));
        timed("a whole swap by a freeze and a thaw", begun);
        thawed.expect("it thaws");
        frozen.expect("it freezes");
        std::mem::swap(&mut up, &mut down);
    }
    clear(&driver, &up).await;
    clear(&driver, &down).await;
    let mut taken: Vec<_> = taken.into_iter().collect();
    taken.sort();
    for (what, taken) in &taken {
        show(what, taken);
        assert!(median(taken.clone()) < Duration::from_millis(GRACE.grace_ms), "{what} waits for something");
    }
}
