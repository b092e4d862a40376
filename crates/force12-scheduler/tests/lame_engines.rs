//! The scheduler's binary beside engines that are not there, not permitted, or out of disk: it stays, says why, and does
//! not ask without pause.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use wiremock::matchers::{method, path_regex};
use wiremock::{Mock, MockServer, Request, Respond, ResponseTemplate};

/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A scheduler with one fill service on one instance; ended with the test.
struct Scheduler {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Scheduler {
    /// Started by `before`, which may lower its rights.
    fn start(directory: &TempDir, before: &[&str], engine: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let (config, log) = (directory.path().join("config.toml"), directory.path().join("log"));
        let text = format!(
            r#"cluster = "lame-engines-test"
listen = "{address}"
start_hold_ms = 0
lost_after_ms = 500

[[instance]]
name = "instance-1"
engine = "{engine}"
capacity = {{ slots = 1 }}

[[service]]
name = "batch"
priority = 2
image = "example/batch"
pull = "never"
fill = true
"#
        );
        fs::write(&config, text).unwrap();
        // A copy, since the build's own directory may be closed to others. Made by another process: while this one wrote
        // it, a child that another thread forks would have it open for writing too, and it could not be run.
        let binary = directory.path().join("scheduler");
        let built = env!("CARGO_BIN_EXE_force12-scheduler");
        assert!(Command::new("cp").arg(built).arg(&binary).status().unwrap().success());
        let words = [binary.to_str().unwrap(), "run", "--config", config.to_str().unwrap()];
        let mut words = before.iter().copied().chain(words);
        let mut command = Command::new(words.next().unwrap());
        for variable in ["FORCE12_CONFIG", "FORCE12_TOKEN", "FORCE12_TOKEN_FILE"] {
            command.env_remove(variable);
        }
        let child = command
            .args(words)
            .env("FORCE12_LOG", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, address, log }
    }

    /// The first snapshot of which `wanted` holds.
    async fn snapshot(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            assert_eq!(self.child.try_wait().unwrap(), None, "it has ended: {}", self.said());
            if let Some(snapshot) = self.asked() {
                if wanted(&snapshot) {
                    return snapshot;
                }
                assert!(began.elapsed() < PATIENCE, "not so: {snapshot:#}\n{}", self.said());
            }
            assert!(began.elapsed() < PATIENCE, "no answer: {}", self.said());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn asked(&self) -> Option<Value> {
        let mut stream = TcpStream::connect_timeout(&self.address, PATIENCE).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let request =
            format!("GET /v1/snapshot HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

fn is_lost(snapshot: &Value) -> bool {
    snapshot["instances"][0]["state"] == "lost"
}

/// An instance that is lost for this reason, of which the log speaks once, however often it was looked for since.
async fn rides_out(mut scheduler: Scheduler, reason: &str) {
    let snapshot = scheduler.snapshot(is_lost).await;
    let said = snapshot["instances"][0]["reason"].as_str().unwrap();
    assert!(said.contains(reason), "{said}");
    let log = scheduler.said();
    for words in ["the engine could not be observed", "an engine is lost"] {
        assert_eq!(log.lines().filter(|line| line.contains(words)).count(), 1, "{log}");
    }
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_a_lost_instance() {
    let directory = TempDir::new().unwrap();
    let scheduler = Scheduler::start(&directory, &["env"], "unix:///nonexistent/docker.sock");
    rides_out(scheduler, "there is no such socket: start the engine, or correct its address").await;
}

#[tokio::test]
async fn a_socket_that_is_not_permitted_is_a_lost_instance() {
    let directory = TempDir::new().unwrap();
    let socket = directory.path().join("docker.sock");
    let _engine = UnixListener::bind(&socket).unwrap();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o000)).unwrap();
    // The permission does not bind root.
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let before =
        if std::os::unix::net::UnixStream::connect(&socket).is_ok() { &nobody[..] } else { &["env"] };
    let scheduler = Scheduler::start(&directory, before, &format!("unix://{}", socket.display()));
    rides_out(scheduler, "permission").await;
}

/// Answers as an engine whose disk is full, and notes when it was asked.
struct Full(Arc<Mutex<Vec<Instant>>>);

impl Respond for Full {
    fn respond(&self, _: &Request) -> ResponseTemplate {
        self.0.lock().unwrap().push(Instant::now());
        let message = "mkdir /var/lib/docker/overlay2/0f1e-init: no space left on device";
        ResponseTemplate::new(500).set_body_json(json!({ "message": message }))
    }
}

/// An engine without containers, which answers what it is asked for a service to be started.
async fn engine() -> MockServer {
    let engine = MockServer::start().await;
    let answer = |path: &'static str, answer: ResponseTemplate| {
        Mock::given(method("GET")).and(path_regex(path)).respond_with(answer).mount(&engine)
    };
    let image = json!({ "Id": "sha256:0", "Config": { "Cmd": ["/batch"] } });
    answer("/containers/json$", ResponseTemplate::new(200).set_body_json(json!([]))).await;
    answer("/images/.*/json$", ResponseTemplate::new(200).set_body_json(image)).await;
    answer("/_ping$", ResponseTemplate::new(200).set_body_string("OK")).await;
    answer("/events$", ResponseTemplate::new(200).set_delay(Duration::from_hours(1))).await;
    answer("/info$", ResponseTemplate::new(200).set_body_json(json!({}))).await;
    answer("/version$", ResponseTemplate::new(200).set_body_json(json!({ "ApiVersion": "1.41" }))).await;
    engine
}

#[tokio::test]
async fn a_full_disk_is_told_and_asked_again_less_and_less() {
    let engine = engine().await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    Mock::given(method("POST"))
        .and(path_regex("/containers/create$"))
        .respond_with(Full(Arc::clone(&asked)))
        .mount(&engine)
        .await;

    let directory = TempDir::new().unwrap();
    let mut scheduler = Scheduler::start(&directory, &["env"], &engine.uri());
    let told = |snapshot: &Value| {
        let reason = snapshot["services"][0]["reason"].as_str().unwrap_or_default();
        reason.contains("no space left on device") && asked.lock().unwrap().len() >= 5
    };
    let snapshot = scheduler.snapshot(told).await;
    assert_eq!(snapshot["instances"][0]["state"], "ready", "its other work goes on");
    let asked = asked.lock().unwrap().clone();
    // Waits double, with jitter of up to a half: over two of them there is always a rise.
    let waits: Vec<Duration> = asked.windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (before, after) in waits.iter().zip(&waits[2..]) {
        assert!(after > before, "{waits:?}");
    }
}

#[tokio::test]
async fn peers_leave_the_way_to_the_engine_open() {
    let engine = engine().await;
    let directory = TempDir::new().unwrap();
    let few = ["prlimit", "--nofile=64:64"];
    let mut scheduler = Scheduler::start(&directory, &few, &engine.uri());
    let is_ready = |snapshot: &Value| snapshot["instances"][0]["state"] == "ready";
    scheduler.snapshot(is_ready).await;

    let mut flood = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect_timeout(&scheduler.address, PATIENCE).unwrap();
        // Half a request, so that it waits for the rest.
        stream.write_all(b"GET /v1/snapshot HTTP/1.1\r\n").unwrap();
        flood.push(stream);
    }
    // The engine's events do not come, so that it is connected to anew and looked at again and again.
    let asked = |path: &'static str| {
        let engine = &engine;
        async move {
            let requests = engine.received_requests().await.unwrap();
            requests.iter().filter(|request| request.url.path().ends_with(path)).count()
        }
    };
    let (events, looks) = (asked("/events").await, asked("/containers/json").await);
    let began = Instant::now();
    while asked("/events").await < events + 2 || asked("/containers/json").await < looks + 2 {
        assert!(began.elapsed() < PATIENCE, "the engine is not asked any more: {}", scheduler.said());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let log = scheduler.said();
    assert!(!log.contains("an engine is lost") && !log.contains("could not be observed"), "{log}");
    drop(flood);
    scheduler.snapshot(is_ready).await;
}
