//! A scheduler that would be the first process of its container, which the kernel spares a SIGKILL of its own timer.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Instant;

use acceptance::binaries::Binaries;
use acceptance::engine::{Cleanup, Engine, stranger};
use acceptance::service::Service;
use api_types::snapshot::Snapshot;
use bollard::query_parameters::LogsOptionsBuilder;
use futures_util::TryStreamExt as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getgid, getuid};

use crate::BOUND;

/// Where the container has the directory of the configuration and the lock file.
const MOUNTED: &str = "/contained";

/// A scheduler of an engine that is not there: who acts does not depend on it.
fn config(listen: &str, directory: &str) -> String {
    format!(
        r#"
cluster = "contained"
listen = "{listen}"
lock_file = "{directory}/contained.lock"

[[instance]]
name = "instance-1"
engine = "unix:///nonexistent/docker.sock"
capacity = {{ slots = 3 }}

[[service]]
name = "batch"
priority = 1
image = "example/batch"
fill = true
"#
    )
}

/// The only child of a process.
fn child_of(pid: i64) -> Pid {
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let child = children.trim().parse().unwrap_or_else(|_| panic!("children of {pid}: {children:?}"));
    Pid::from_raw(child)
}

/// Starts a container with these arguments to its binary, and the directory where they look for it.
async fn start(engine: &Engine, run: &str, image: &str, directory: &Path, arguments: &[&str]) -> String {
    let mut body = stranger(run, image, "none");
    body.cmd = Some(arguments.iter().map(|&argument| argument.to_owned()).collect());
    body.user = Some(format!("{}:{}", getuid(), getgid()));
    let host = body.host_config.as_mut().unwrap();
    host.binds = Some(vec![format!("{}:{MOUNTED}", directory.display())]);
    host.readonly_rootfs = Some(true);
    let contained = engine.create(run, body).await.unwrap();
    engine.start(&contained).await.unwrap();
    contained
}

async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < BOUND, "{what}: not within {BOUND:?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn in_a_container_too_a_stopped_scheduler_is_killed_and_the_container_ends() {
    let engine = Engine::connect().await.unwrap();
    let binary = Binaries::locate().await.unwrap().path("force12-scheduler");
    let run = format!("acc-{}-contained", std::process::id());
    let mut cleanup = Cleanup::new(&run);
    let image = engine.import_image(binary, &run, &[]).await.unwrap();
    cleanup.image(&image);
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("contained.toml"), config("127.0.0.1:8082", MOUNTED)).unwrap();

    let file = format!("{MOUNTED}/contained.toml");
    let contained = start(&engine, &run, &image, directory.path(), &["run", "--config", &file]).await;
    let acts = |lock_file: &Path| std::fs::read_to_string(lock_file).is_ok_and(|text| text.contains("epoch"));
    until("it acts", async || acts(&path("contained.lock"))).await;

    // Beside it one on the host: a lock knows no containers.
    let beside = |listen: SocketAddr| config(&listen.to_string(), directory.path().to_str().unwrap());
    let mut other =
        Service::new("beside", binary, directory.path(), "beside-operator-token-0123456789", beside).unwrap();
    other.start().await.unwrap();
    assert!(other.get::<Snapshot>("/v1/snapshot").await.is_err(), "it stands by");

    let first = engine.inspect(&contained).await.unwrap().state.unwrap().pid.unwrap();
    kill(child_of(first), Signal::SIGSTOP).unwrap();
    other.get_until("/v1/snapshot", "the other acts", BOUND, |_: &Snapshot| true).await.unwrap();
    until("the container has ended", async || {
        let state = engine.inspect(&contained).await.unwrap().state.unwrap();
        (state.running, state.exit_code) == (Some(false), Some(137))
    })
    .await;

    // Started again, as by a restart policy, it stands by; and ends in good order when its first process is told to.
    engine.start(&contained).await.unwrap();
    until("it stands by", async || {
        let options = LogsOptionsBuilder::default().stdout(true).stderr(true).build();
        let lines = engine.docker().logs(&contained, Some(options)).map_ok(|line| line.to_string());
        lines.try_collect::<String>().await.unwrap().contains("standing by while another acts")
    })
    .await;
    engine.docker().stop_container(&contained, None).await.unwrap();
    let state = engine.inspect(&contained).await.unwrap().state.unwrap();
    assert_eq!((state.running, state.exit_code), (Some(false), Some(0)));
}

#[tokio::test]
async fn in_a_container_too_a_stopped_drain_is_killed_and_one_that_is_told_to_ends() {
    let engine = Engine::connect().await.unwrap();
    let binary = Binaries::locate().await.unwrap().path("force12-scheduler");
    let run = format!("acc-{}-drain", std::process::id());
    let mut cleanup = Cleanup::new(&run);
    let image = engine.import_image(binary, &run, &[]).await.unwrap();
    cleanup.image(&image);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("contained.toml");
    std::fs::write(&file, config("127.0.0.1:8082", MOUNTED)).unwrap();
    let lock_file = directory.path().join("contained.lock");
    let arguments = ["drain", &format!("{MOUNTED}/contained.toml"), "--timeout-ms", "600000"];
    let contained = start(&engine, &run, &image, directory.path(), &arguments).await;
    let drains = async || std::fs::read_to_string(&lock_file).is_ok_and(|text| text.contains("drain: pid"));
    until("it drains", drains).await;
    let first = engine.inspect(&contained).await.unwrap().state.unwrap().pid.unwrap();
    kill(child_of(first), Signal::SIGSTOP).unwrap();
    let ended = async |code: i64| {
        let state = engine.inspect(&contained).await.unwrap().state.unwrap();
        (state.running, state.exit_code) == (Some(false), Some(code))
    };
    until("the container has ended", async || ended(137).await).await;

    std::fs::remove_file(&lock_file).unwrap();
    engine.start(&contained).await.unwrap();
    until("it drains again", drains).await;
    engine.docker().stop_container(&contained, None).await.unwrap();
    assert!(ended(143).await, "it has heeded SIGTERM: {:?}", engine.inspect(&contained).await.unwrap().state);
}
