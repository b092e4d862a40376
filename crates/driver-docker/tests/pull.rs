//! Pulling images from a real registry with a password.

mod support;

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use driver::{ContainerSpec, Driver as _, PullPolicy};
use driver_docker::{DockerConfig, DockerDriver, Limits, Password, Registries, RegistryLogin, Secret};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use support::{Cluster, PASSWORD, PATIENCE, Registry, USERNAME, engine, forget, start_of, workload};

fn spec(image: &str, pull: PullPolicy) -> ContainerSpec {
    ContainerSpec { image: image.to_owned(), pull, ..workload(&[]) }
}

fn driver(cluster: &Cluster, registries: Registries) -> DockerDriver {
    DockerDriver::new(DockerConfig { registries, ..cluster.config() })
}

fn login(server: &str, password: Password) -> Registries {
    let login = RegistryLogin { server: server.to_owned(), username: USERNAME.to_owned(), password };
    Registries { docker_config_file: None, logins: vec![login] }
}

fn given(password: &str) -> Password {
    Password::Given(Secret::new(password))
}

/// As `docker login` writes it.
fn docker_config_file(path: &Path, server: &str, password: &str) {
    use base64::Engine as _;
    use std::os::unix::fs::PermissionsExt as _;

    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{USERNAME}:{password}"));
    std::fs::write(path, format!(r#"{{"auths": {{"{server}": {{"auth": "{auth}"}}}}}}"#)).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// The code and the words of a preparation that is refused.
async fn refusal(driver: &DockerDriver, spec: &ContainerSpec) -> (&'static str, String) {
    let error = driver.prepare(spec).await.expect_err("it cannot be prepared");
    let words = error.to_string();
    assert!(words.contains(&spec.image) && !words.contains("hunter2"), "{words}");
    assert_eq!(driver.pull_progress(&spec.image), None, "it is over");
    (error.code(), words)
}

/// Which of the images of that name the engine has.
async fn version(image: &str) -> String {
    let labels: HashMap<String, String> =
        engine().inspect_image(image).await.expect("it is there").config.unwrap().labels.unwrap();
    labels["force12-test.version"].clone()
}

#[tokio::test]
async fn a_missing_image_is_pulled_if_the_spec_says_so_and_only_then() {
    let (cluster, mut registry) = (Cluster::new(), Registry::start());
    let image = registry.publish(&cluster, "1", "one").await;
    let driver = driver(&cluster, login(&registry.server, given(PASSWORD)));

    let (code, words) = refusal(&driver, &spec(&image, PullPolicy::Never)).await;
    assert_eq!(code, "image_missing", "{words}");
    let error = driver
        .start(&start_of(1, spec(&image, PullPolicy::Missing)), None)
        .await
        .expect_err("not in a start");
    assert_eq!(error.code(), "image_missing");

    driver.prepare(&spec(&image, PullPolicy::Missing)).await.expect("it is pulled");
    assert_eq!(version(&image).await, "one");
    driver.start(&start_of(1, spec(&image, PullPolicy::Missing)), None).await.expect("it starts");

    // What is there is not pulled again.
    registry.down();
    driver.prepare(&spec(&image, PullPolicy::Missing)).await.expect("it is there");
}

#[tokio::test]
async fn always_takes_what_the_registry_has_and_says_if_it_has_not() {
    let (cluster, mut registry) = (Cluster::new(), Registry::start());
    let driver = driver(&cluster, login(&registry.server, given(PASSWORD)));
    let image = registry.publish(&cluster, "1", "one").await;
    let always = spec(&image, PullPolicy::Always);
    driver.prepare(&always).await.expect("it is pulled");
    registry.publish(&cluster, "1", "two").await;
    driver.prepare(&always).await.expect("it is pulled again");
    assert_eq!(version(&image).await, "two");
    registry.down();
    let (code, words) = refusal(&driver, &always).await;
    assert_eq!(code, "registry_unreachable", "{words}");
    driver.prepare(&spec(&image, PullPolicy::Never)).await.expect("what is there is there");
}

#[tokio::test]
async fn what_is_wrong_with_a_pull_is_told_apart_and_over_once_it_is_mended() {
    let (cluster, mut registry) = (Cluster::new(), Registry::start());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("config.json");
    let image = registry.publish(&cluster, "1", "one").await;
    let server = registry.server.clone();
    let missing = spec(&image, PullPolicy::Missing);

    let (code, words) = refusal(&driver(&cluster, Registries::default()), &missing).await;
    assert_eq!(code, "registry_denied");
    assert!(
        words.contains(&format!("registry {server} refuses image {image} without a login: give one")),
        "{words}"
    );

    let wrong = driver(&cluster, login(&server, given("hunter21")));
    let (code, words) = refusal(&wrong, &missing).await;
    assert_eq!(code, "registry_denied");
    assert!(words.contains("to our login: correct the login"), "{words}");

    let driver =
        driver(&cluster, Registries { docker_config_file: Some(path.clone()), ..Registries::default() });
    let error = driver.prepare(&missing).await.expect_err("the file is not there").to_string();
    assert!(error.contains(&format!("{}: cannot be read", path.display())), "{error}");
    docker_config_file(&path, &server, "hunter21");
    assert_eq!(refusal(&driver, &missing).await.0, "registry_denied");
    docker_config_file(&path, &server, PASSWORD);

    let (code, words) = refusal(&driver, &spec(&image.replace(":1", ":9"), PullPolicy::Missing)).await;
    assert_ne!(image, image.replace(":1", ":9"));
    assert_eq!(code, "image_missing");
    assert!(words.contains(&format!("neither on the engine nor at registry {server}")), "{words}");

    registry.down();
    let (code, words) = refusal(&driver, &missing).await;
    assert_eq!(code, "registry_unreachable");
    assert!(words.contains(&format!("cannot reach registry {server}")), "{words}");

    registry.up();
    driver.prepare(&missing).await.expect("all of it is mended");
    assert_eq!(version(&image).await, "one");
}

#[tokio::test]
async fn a_pull_that_makes_no_progress_is_given_up_and_few_go_on_at_once() {
    let cluster = Cluster::new();
    // It takes every connection, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = silent.local_addr().unwrap();
    let mut config = cluster.config();
    config.limits = Limits { pull_stall_ms: 1_000, ..Limits::default() };
    let driver = DockerDriver::new(config);
    let images = [1, 2, 3].map(|number| format!("{server}/silent:{number}"));
    let specs = images.clone().map(|image| spec(&image, PullPolicy::Missing));
    let shown = || images.iter().filter_map(|image| driver.pull_progress(image));
    let under_way = || shown().filter(|progress| !progress.queued).count();
    let (mut most, mut waited) = (0, false);
    let prepared = async {
        tokio::join!(driver.prepare(&specs[0]), driver.prepare(&specs[1]), driver.prepare(&specs[2]))
    };
    let mut prepared = std::pin::pin!(prepared);
    let results = loop {
        tokio::select! {
            results = &mut prepared => break results,
            () = tokio::time::sleep(Duration::from_millis(20)) => {
                most = most.max(under_way());
                waited |= shown().any(|progress| progress.queued && progress.idle > Duration::from_millis(500));
            }
        }
    };
    for result in [results.0, results.1, results.2] {
        let error = result.expect_err("nothing comes");
        assert_eq!(error.code(), "pull_stalled", "{error}");
    }
    assert_eq!((most, waited, shown().count()), (2, true, 0));
}

#[tokio::test]
async fn pulls_that_take_long_do_not_keep_others_waiting() {
    let (cluster, mut registry) = (Cluster::new(), Registry::start());
    let image = registry.publish(&cluster, "1", "one").await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = silent.local_addr().unwrap();
    let mut config = cluster.config();
    config.limits = Limits { pull_turn_ms: 1_000, ..Limits::default() };
    config.registries = login(&registry.server, given(PASSWORD));
    let driver = DockerDriver::new(config);
    let silent = [1, 2].map(|number| spec(&format!("{server}/silent:{number}"), PullPolicy::Missing));
    let wanted = spec(&image, PullPolicy::Missing);
    tokio::select! {
        biased;
        silent = async { tokio::join!(driver.prepare(&silent[0]), driver.prepare(&silent[1])) } => {
            panic!("they hang: {silent:?}")
        }
        prepared = driver.prepare(&wanted) => prepared.expect("it gets its turn"),
        () = tokio::time::sleep(PATIENCE) => panic!("it waits for what hangs"),
    }
}

#[tokio::test]
async fn a_pull_that_trickles_is_given_up() {
    let (cluster, mut registry) = (Cluster::new(), Registry::start());
    let name = format!("{}/{}", registry.server, cluster.name);
    cluster.build_of(&format!("{name}:1"), &noise(4 * 1024 * 1024)).await;
    registry.take(&name, "1").await;
    let server = slow_way_to(registry.server.clone(), 2 * 1024).await;
    let mut config = cluster.config();
    config.limits = Limits { pull_stall_ms: 2_000, ..Limits::default() };
    config.registries = login(&server, given(PASSWORD));
    let driver = DockerDriver::new(config);
    let spec = spec(&format!("{server}/{}:1", cluster.name), PullPolicy::Missing);
    let (code, words) = refusal(&driver, &spec).await;
    assert_eq!(code, "pull_stalled", "{words}");
    assert!(words.contains(" bytes came)") && !words.contains("(0 bytes came)"), "{words}");
}

/// Bytes that do not get fewer when they are packed, other ones each time.
fn noise(count: usize) -> Vec<u8> {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut state = u64::try_from(now.as_nanos()).unwrap() | 1;
    let mut next = || {
        // Marsaglia's xorshift.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}

/// A way to the registry on which bytes come a few at a time.
async fn slow_way_to(server: String, at_a_time: usize) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(&server).await.expect("the registry listens");
            tokio::spawn(async move {
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut some = vec![0; at_a_time];
                while let Ok(count @ 1..) = from_server.read(&mut some).await {
                    if to_client.write_all(&some[..count]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_pull_says_how_far_it_is() {
    let (cluster, mut registry) = (Cluster::new(), Registry::start());
    let name = format!("{}/{}", registry.server, cluster.name);
    cluster.build_of(&format!("{name}:1"), &noise(4 * 1024 * 1024)).await;
    registry.take(&name, "1").await;
    let server = slow_way_to(registry.server.clone(), 16 * 1024).await;
    let image = format!("{server}/{}:1", cluster.name);
    let driver = driver(&cluster, login(&server, given(PASSWORD)));
    let spec = spec(&image, PullPolicy::Missing);
    let mut told = Vec::new();
    let mut prepared = std::pin::pin!(driver.prepare(&spec));
    loop {
        tokio::select! {
            prepared = &mut prepared => break prepared.expect("it is pulled"),
            () = tokio::time::sleep(Duration::from_millis(10)) => told.extend(driver.pull_progress(&image)),
        }
    }
    assert!(told.iter().any(|it| (1..it.total_bytes).contains(&it.done_bytes)), "{told:?}");
    assert!(told.is_sorted_by_key(|it| it.done_bytes), "{told:?}");
    forget(&image).await;
}
