//! What only a Docker engine can show: whose a container is, what its spec becomes, who waits for what.

mod support;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::models::ContainerCreateBody;
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, EventsOptionsBuilder, LogsOptionsBuilder, RemoveImageOptionsBuilder,
    RenameContainerOptionsBuilder,
};
use driver::{
    ContainerId, ContainerSpec, Driver, DriverError, Event, Health, Healthcheck, LogOptions, Outcome,
    StopOptions,
};
use driver_docker::{DockerDriver, Limits};
use futures_util::StreamExt;
use planner::Phase;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, UnixStream};
use tokio::time::timeout;

use support::{
    Cluster, INSTANCE, PATIENCE, SOCKET, engine, inspect, observe, running, runs, start_of, workload,
    workload_image,
};

const GRACE: StopOptions = StopOptions { grace_ms: 5_000 };

fn rejected<T: std::fmt::Debug>(result: Result<T, DriverError>, wanted: &str) -> String {
    match result {
        Err(DriverError::Rejected { code, message, .. }) if code == wanted => message,
        other => panic!("expected a refusal with the code {wanted}, got {other:?}"),
    }
}

#[tokio::test]
async fn a_container_with_labels_from_its_image_is_nobodys_of_ours_whatever_its_name() {
    let cluster = Cluster::new();
    let driver = cluster.driver();
    let image = cluster.labelled_image().await;
    let by_any_name = cluster.run_foreign(&format!("foreign-{}", cluster.name), &image).await;
    // The name that its labels give: the worst case.
    let by_our_name =
        cluster.run_foreign(&format!("force12.{}.web.{INSTANCE}.0", cluster.name), &image).await;
    assert_eq!(observe(&driver).await.containers, []);

    let message = rejected(driver.start(&start_of(0, workload(&[])), None).await, "conflict");
    assert!(
        message.contains(by_our_name.as_str()) && message.contains("whose image carries our labels"),
        "{message}"
    );

    let ours = running(&driver, 1).await;
    driver.stop(&ours, GRACE).await.expect("it stops");
    driver.remove(&ours).await.expect("it is removed");
    for foreign in [&by_any_name, &by_our_name] {
        assert!(runs(foreign).await, "{foreign} was touched");
    }
}

#[tokio::test]
async fn an_image_that_carries_our_labels_is_refused_before_anything_is_made_of_it() {
    let cluster = Cluster::new();
    let driver = cluster.driver();
    let spec = ContainerSpec { image: cluster.labelled_image().await, ..workload(&[]) };
    let message = rejected(driver.prepare(&spec).await, "bad_spec");
    assert!(message.contains("carries the label force12.cluster"), "{message}");
    rejected(driver.start(&start_of(0, spec), None).await, "bad_spec");
    let name = format!("force12.{}.web.{INSTANCE}.0", cluster.name);
    let found = engine().inspect_container(&name, None).await;
    assert!(found.is_err(), "nothing was created: {found:?}");
}

#[tokio::test]
async fn a_container_with_some_of_our_labels_is_not_ours() {
    let cluster = Cluster::new();
    let driver = cluster.driver();
    for missing in 1..4 {
        let labels: HashMap<String, String> = cluster
            .labels()
            .into_iter()
            .enumerate()
            .filter(|&(at, _)| at != missing)
            .map(|(_, label)| label)
            .collect();
        let options =
            CreateContainerOptionsBuilder::new().name(&format!("partial-{}-{missing}", cluster.name)).build();
        let body = ContainerCreateBody {
            image: Some(workload_image().to_owned()),
            labels: Some(labels),
            ..ContainerCreateBody::default()
        };
        engine().create_container(Some(options), body).await.expect("it is created");
    }
    assert_eq!(observe(&driver).await.containers, []);
}

#[tokio::test]
async fn a_container_of_ours_stays_ours_when_it_is_renamed() {
    let cluster = Cluster::new();
    let driver = cluster.driver();
    let id = running(&driver, 4).await;
    assert_eq!(observe(&driver).await.containers[0].ordinal, Some(4));
    let options = RenameContainerOptionsBuilder::new().name(&format!("renamed-{}", cluster.name)).build();
    engine().rename_container(id.as_str(), options).await.expect("it is renamed");
    let observed = observe(&driver).await.containers;
    assert_eq!(observed.len(), 1);
    assert_eq!((&observed[0].id, observed[0].ordinal), (&id, None));
}

#[tokio::test]
async fn a_container_whose_image_was_deleted_is_known_by_its_name() {
    let cluster = Cluster::new();
    let driver = cluster.driver();
    let image = format!("force12-test/{}", cluster.name);
    cluster.build(&image, &[], true).await;
    let spec = ContainerSpec { image: image.clone(), ..workload(&[]) };
    let started = driver.start(&start_of(0, spec), None).await.expect("it starts");
    driver.stop(&started.id, GRACE).await.expect("it stops");
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    engine().remove_image(&image, Some(options), None).await.expect("the image is deleted");
    // A driver that has not seen the image.
    let observed = observe(&cluster.driver()).await.containers;
    assert_eq!(observed.len(), 1);
    assert_eq!((&observed[0].id, observed[0].phase), (&started.id, Phase::Exited));
}

#[tokio::test]
async fn a_spec_reaches_the_container_whole() {
    let cluster = Cluster::new();
    let driver = cluster.driver();
    let spec = ContainerSpec {
        pull: driver::PullPolicy::Missing,
        image: workload_image().to_owned(),
        command: Some(["/workload", "--count-every-ms", "1000"].map(str::to_owned).into()),
        environment: [("A".to_owned(), "1 = one".to_owned()), ("B".to_owned(), String::new())].into(),
        network: Some("none".to_owned()),
        user: Some("65534:65534".to_owned()),
        cpu_limit_millis: Some(500),
        memory_limit_mib: Some(32),
        read_only_root: true,
        stop_signal: Some("SIGINT".to_owned()),
        stop_grace_ms: 1_000,
        log: Some(LogOptions {
            driver: "json-file".to_owned(),
            options: [("max-size".to_owned(), "1m".to_owned())].into(),
        }),
        healthcheck: None,
        task_definition: None,
    };
    let id = driver.start(&start_of(0, spec), None).await.expect("it starts").id;
    let found = inspect(&id).await;
    let config = found.config.expect("it has a config");
    let own: HashSet<&str> = config.env.iter().flatten().map(String::as_str).collect();
    let own: HashSet<&str> = own.into_iter().filter(|variable| !variable.starts_with("PATH=")).collect();
    assert_eq!(own, HashSet::from(["A=1 = one", "B="]), "the engine adds PATH, and we add nothing");
    assert_eq!(config.user.as_deref(), Some("65534:65534"));
    assert_eq!(config.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(found.args.as_deref(), Some(["--count-every-ms", "1000"].map(str::to_owned).as_slice()));
    let host = found.host_config.expect("it has a host config");
    assert_eq!(host.network_mode.as_deref(), Some("none"));
    assert_eq!(host.nano_cpus, Some(500_000_000));
    assert_eq!(host.memory, Some(33_554_432));
    assert_eq!(host.readonly_rootfs, Some(true));
    assert_eq!(host.security_opt, Some(vec!["no-new-privileges".to_owned()]));
    assert_eq!(host.auto_remove, Some(false));
    let log = host.log_config.expect("it has a log");
    assert_eq!(
        (log.typ.as_deref(), log.config.unwrap_or_default()["max-size"].as_str()),
        (Some("json-file"), "1m")
    );
    assert_eq!(driver.stop(&id, GRACE).await.expect("it stops"), Outcome::Done);
    assert_eq!(observe(&driver).await.containers[0].exit.as_ref().expect("it has ended").code, 0);
}

#[tokio::test]
async fn a_workload_becomes_healthy_without_a_root_to_write_to() {
    let cluster = Cluster::new();
    let driver = cluster.driver();
    let mut spec = workload(&[("WORKLOAD_READY_AFTER_MS", "300")]);
    spec.user = Some("65534:65534".to_owned());
    spec.healthcheck = Some(Healthcheck {
        command: ["/workload", "healthcheck"].map(str::to_owned).into(),
        interval_ms: 100,
        timeout_ms: 10_000,
        retries: 1_000,
    });
    let label = format!("force12.cluster={}", cluster.name);
    let filters = HashMap::from([("label", vec![label.as_str()]), ("event", vec!["health_status"])]);
    let engine = engine();
    let mut events =
        engine.events(Some(EventsOptionsBuilder::new().since("1").filters(&filters).build())).boxed();
    driver.start(&start_of(0, spec), None).await.expect("it starts");
    let event =
        timeout(PATIENCE, events.next()).await.expect("its health is told").expect("the stream goes on");
    assert_eq!(event.expect("it can be read").action.as_deref(), Some("health_status: healthy"));
}

#[tokio::test]
async fn what_a_start_would_miss_is_known_before() {
    let cluster = Cluster::new();
    let driver = cluster.driver();
    let spec = ContainerSpec { network: Some("not-there".to_owned()), ..workload(&[]) };
    let message = rejected(driver.prepare(&spec).await, "bad_spec");
    assert_eq!(message, "there is no network not-there on the engine: create it there");

    let image = format!("force12-test/{}", cluster.name);
    cluster.build(&image, &[], false).await;
    let spec = ContainerSpec { image: image.clone(), ..workload(&[]) };
    let message = rejected(driver.prepare(&spec).await, "bad_spec");
    assert_eq!(message, format!("image {image} says nothing about what to run: give a command"));
    let spec = ContainerSpec { command: Some(vec!["/workload".to_owned()]), ..spec };
    driver.prepare(&spec).await.expect("now it can run");

    let spec = ContainerSpec { image: "force12-test/none:at-all".to_owned(), ..workload(&[]) };
    let message = rejected(driver.prepare(&spec).await, "image_missing");
    assert!(message.contains("image force12-test/none:at-all is not on the engine"), "{message}");
}

#[tokio::test]
async fn a_frozen_container_ends_by_its_own_signal_when_it_is_stopped() {
    let cluster = Cluster::new();
    let driver = cluster.driver();
    let counting = workload(&[("WORKLOAD_COUNT_EVERY_MS", "1000")]);
    let id = driver.start(&start_of(0, counting), None).await.expect("it starts").id;
    // It counts once it can handle signals; the first process of a container is deaf to them before.
    let (engine, options) = (engine(), LogsOptionsBuilder::new().follow(true).stdout(true).build());
    let mut output = engine.logs(id.as_str(), Some(options)).boxed();
    let line = timeout(PATIENCE, output.next()).await.expect("it counts").expect("it goes on");
    assert_eq!(line.expect("it can be read").to_string(), "1\n");
    driver.freeze(&id).await.expect("it freezes");
    assert_eq!(driver.stop(&id, GRACE).await.expect("it stops"), Outcome::Done);
    let exit = observe(&driver).await.containers.remove(0).exit.expect("it has ended");
    assert_eq!(exit.code, 0, "it was asked, not killed");
}

#[tokio::test]
async fn a_victim_that_somebody_else_suspends_has_left_its_room() {
    let cluster = Cluster::new();
    let driver = cluster.driver();
    let victim = running(&driver, 0).await;
    let start = start_of(1, workload(&[]));
    let pause = async {
        engine().pause_container(victim.as_str()).await.expect("it is suspended");
    };
    let (started, ()) = tokio::join!(driver.start(&start, Some(&victim)), pause);
    assert!(runs(&started.expect("it starts").id).await);
}

/// An engine that sets up one network and takes down another at the same time takes longer for both.
#[tokio::test]
async fn a_successor_whose_network_is_to_be_made_waits_until_that_of_its_victim_is_gone() {
    const SWAPS: u32 = 4;
    let cluster = Cluster::new();
    let driver = cluster.driver();
    let on_bridge = || ContainerSpec { network: Some("bridge".to_owned()), ..workload(&[]) };
    let mut victim = driver.start(&start_of(0, on_bridge()), None).await.expect("it starts").id;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later").as_secs().to_string();
    for round in 1..=SWAPS {
        let start = start_of(round, on_bridge());
        let swap = async { tokio::join!(driver.start(&start, Some(&victim)), driver.stop(&victim, GRACE)) };
        let (started, stopped) = swap.await;
        let successor = started.expect("it starts").id;
        stopped.expect("the victim stops");
        let filters = HashMap::from([("type", vec!["network"]), ("event", vec!["connect", "disconnect"])]);
        let options = EventsOptionsBuilder::new().since(&since).filters(&filters).build();
        let engine = engine();
        let mut events = engine.events(Some(options)).boxed();
        let wanted = [("disconnect", victim.as_str()), ("connect", successor.as_str())];
        let mut told = Vec::new();
        while told.len() < wanted.len() {
            let event = timeout(PATIENCE, events.next()).await.expect("both are told").expect("it goes on");
            let event = event.expect("it can be read");
            let container = event.actor.and_then(|actor| actor.attributes?.remove("container"));
            let event = (event.action.unwrap_or_default(), container.unwrap_or_default());
            let wanted = wanted.iter().find(|it| (it.0, it.1) == (event.0.as_str(), event.1.as_str()));
            told.extend(wanted.map(|it| it.0));
        }
        assert_eq!(told, ["disconnect", "connect"], "swap {round}");
        victim = successor;
    }
}

#[tokio::test]
async fn an_engine_is_reached_over_tcp_alike() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let forwarding = tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut engine = UnixStream::connect(SOCKET).await.expect("the engine listens");
            tokio::spawn(async move { copy_bidirectional(&mut client, &mut engine).await });
        }
    });
    let cluster = Cluster::new();
    let mut config = cluster.config();
    config.engine = format!("tcp://{address}").parse().expect("it is an address");
    let driver = DockerDriver::new(config);
    assert_eq!(driver.name(), format!("docker tcp://{address}"));
    let mut events = driver.events();
    assert_eq!(timeout(PATIENCE, events.next()).await.expect("it is told"), Some(Event::Gap));
    let id = running(&driver, 0).await;
    assert_eq!(timeout(PATIENCE, events.next()).await.expect("it is told"), Some(Event::Changed));
    assert_eq!(observe(&driver).await.containers[0].id, id);
    forwarding.abort();
}

#[tokio::test]
async fn waiting_for_room_keeps_nobody_else_waiting() {
    let cluster = Cluster::new();
    let mut config = cluster.config();
    config.limits = Limits { parallel_calls: 1, ..Limits::default() };
    let driver = Arc::new(DockerDriver::new(config));
    let victim = running(&driver, 0).await;
    let starting = tokio::spawn({
        let (driver, victim) = (Arc::clone(&driver), victim.clone());
        async move { driver.start(&start_of(1, workload(&[])), Some(&victim)).await }
    });
    // It has been created once it can be seen, and from then on it only waits.
    let mut events = driver.events();
    while !observe(&driver).await.containers.iter().any(|container| container.phase == Phase::Created) {
        events.next().await;
    }
    let others: [ContainerId; 2] = [running(&driver, 2).await, running(&driver, 3).await];
    assert!(!starting.is_finished());
    driver.stop(&victim, GRACE).await.expect("it stops");
    let started = timeout(PATIENCE, starting).await.expect("it has its room").expect("it did not panic");
    let ids = [&[started.expect("it starts").id], others.as_slice()].concat();
    let observed = observe(&driver).await.containers;
    let running: HashSet<_> = observed
        .iter()
        .filter(|container| container.phase == Phase::Running)
        .map(|running| &running.id)
        .collect();
    assert_eq!(running, ids.iter().collect());
}

/// What the engine's healthcheck says comes with the list, changes wake whoever observes, and of one that is suspended it
/// is known what its last check said, also to those who have not seen it run.
#[tokio::test]
async fn health_is_observed_as_the_engine_says_it() {
    let cluster = Cluster::new();
    let driver = cluster.driver();
    let checked = |options: &[(&str, &str)]| ContainerSpec {
        healthcheck: Some(Healthcheck {
            command: vec!["/workload".to_owned(), "healthcheck".to_owned()],
            interval_ms: 250,
            timeout_ms: 5_000,
            retries: 8,
        }),
        network: Some("none".to_owned()),
        ..workload(options)
    };
    let times = [("WORKLOAD_READY_AFTER_MS", "600"), ("WORKLOAD_UNREADY_AFTER_MS", "4000")];
    let mut events = driver.events();
    let id = driver.start(&start_of(0, checked(&times)), None).await.expect("it starts").id;
    let unchecked = running(&driver, 1).await;
    let mut seen: Vec<Option<Health>> = Vec::new();
    let course = timeout(PATIENCE, async {
        let all = [Some(Health::Starting), Some(Health::Healthy), Some(Health::Unhealthy)];
        while !seen.ends_with(&all) {
            // Only events lead to a look: each change has one.
            events.next().await.expect("events never end");
            let observed = observe(&driver).await.containers;
            assert!(observed.iter().filter(|it| it.id == unchecked).all(|it| it.health.is_none()));
            let health = observed.iter().find(|it| it.id == id).and_then(|it| it.health);
            if seen.last() != Some(&health) {
                seen.push(health);
            }
        }
    });
    let on_time = course.await;
    assert!(on_time.is_ok(), "it was seen as {seen:?}");

    let times = [("WORKLOAD_READY_AFTER_MS", "0")];
    let id = driver.start(&start_of(2, checked(&times)), None).await.expect("it starts").id;
    let health_of = async |wanted: Health| {
        let waited = timeout(PATIENCE, async {
            while observe(&driver).await.containers.iter().find(|it| it.id == id).and_then(|it| it.health)
                != Some(wanted)
            {
                tokio::task::yield_now().await;
            }
        });
        waited.await.unwrap_or_else(|_| panic!("{wanted:?} was not seen"));
    };
    health_of(Health::Healthy).await;
    driver.freeze(&id).await.expect("it is suspended");
    let frozen = observe(&driver).await.containers.into_iter().find(|it| it.id == id).expect("it is there");
    assert_eq!((frozen.phase, frozen.health), (Phase::Frozen, Some(Health::Healthy)));
    let another = cluster.driver();
    for driver in [&another, &driver, &another] {
        let frozen = observe(driver).await.containers.into_iter().find(|it| it.id == id);
        assert_eq!(frozen.map(|it| it.health), Some(Some(Health::Healthy)));
    }
    driver.thaw(&id, None).await.expect("it is resumed");
    health_of(Health::Healthy).await;
}
