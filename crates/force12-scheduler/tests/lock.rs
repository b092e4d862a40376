//! Several schedulers of one cluster, as processes: one acts, the others stand by.
//!
//! Their engine is not there. That changes nothing about who acts, and leaves nothing behind.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// For whatever has to happen: debug builds on a busy machine.
const BOUND: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);
/// Longer than any test pauses anything, unless it says otherwise.
const STALLED_AFTER_MS: u64 = 30_000;

/// A directory with the lock file of one cluster.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    fn config(&self, name: &str, listen: SocketAddr, lock_file: &str, stalled_after_ms: u64) -> String {
        let socket = self.path("docker.sock");
        let text = format!(
            r#"cluster = "lock-test"
listen = "{listen}"
lock_file = "{lock_file}"
stalled_after_ms = {stalled_after_ms}

[[instance]]
name = "instance-1"
engine = "unix://{socket}"
capacity = {{ slots = 3 }}

[[service]]
name = "batch"
priority = 2
image = "example/batch"
fill = true
"#
        );
        let path = self.path(&format!("{name}.toml"));
        fs::write(&path, text).unwrap();
        path
    }

    /// Starts one more scheduler.
    fn start(&self, name: &str, stalled_after_ms: u64) -> Scheduler {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = self.config(name, address, &self.path("demo.lock"), stalled_after_ms);
        let log = self.0.path().join(format!("{name}.log"));
        let child = command(&["run", "--config", &config])
            .stdout(File::create(&log).unwrap())
            .stderr(File::options().append(true).open(&log).unwrap())
            .spawn()
            .unwrap();
        let scheduler = Scheduler { child, address, config, log };
        scheduler.until("it answers", || scheduler.get("/healthz").is_some_and(|answer| answer.0 == 200));
        scheduler
    }
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_force12-scheduler"));
    command.args(arguments).stdin(Stdio::null());
    for variable in ["FORCE12_CONFIG", "FORCE12_TOKEN", "FORCE12_TOKEN_FILE", "FORCE12_LOG"] {
        command.env_remove(variable);
    }
    command
}

struct Scheduler {
    child: Child,
    address: SocketAddr,
    config: String,
    log: PathBuf,
}

impl Scheduler {
    /// Status and body; `None` if it does not answer.
    fn ask(&self, method: &str, path: &str) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address, BOUND).ok()?;
        stream.set_read_timeout(Some(BOUND)).unwrap();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
            self.address
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
    }

    fn get(&self, path: &str) -> Option<(u16, String)> {
        self.ask("GET", path)
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid().try_into().unwrap()), signal).unwrap();
    }

    /// Only whoever acts has a snapshot.
    fn acts(&self) -> bool {
        self.get("/v1/snapshot").is_some_and(|answer| answer.0 == 200)
    }

    fn epoch(&self) -> String {
        let (status, body) = self.get("/v1/snapshot").unwrap();
        assert_eq!(status, 200, "{body}");
        let snapshot: serde_json::Value = serde_json::from_str(&body).unwrap();
        snapshot["epoch"].as_str().unwrap().to_owned()
    }

    /// The detail of the problem that `/readyz` answers with.
    fn not_ready(&self) -> String {
        let (status, body) = self.get("/readyz").unwrap();
        assert_eq!(status, 503, "{body}");
        let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
        problem["detail"].as_str().unwrap().to_owned()
    }

    fn metric(&self, name: &str) -> Option<String> {
        let (_, text) = self.get("/metrics")?;
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    }

    fn until(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(begun.elapsed() < BOUND, "{what}: not within {BOUND:?}\n{}", log());
            std::thread::sleep(POLL);
        }
    }

    fn ended(&mut self) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(begun.elapsed() < BOUND, "it does not end");
            std::thread::sleep(POLL);
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn one_acts_and_the_others_stand_by_and_say_so() {
    let place = Place::new();
    let first = place.start("first", STALLED_AFTER_MS);
    first.until("it acts", || first.acts());
    let mut second = place.start("second", STALLED_AFTER_MS);
    second.until("it says who acts", || second.not_ready().contains("epoch"));
    let detail = second.not_ready();
    for part in [
        "standing by while another acts (run: pid ",
        &first.pid().to_string(),
        "cluster lock-test",
        &first.epoch(),
        &first.address.to_string(),
        "since 20",
    ] {
        assert!(detail.contains(part), "{detail:?} does not tell {part:?}");
    }
    for (method, path) in [
        ("GET", "/v1/snapshot"),
        ("GET", "/v1/stream"),
        ("GET", "/v1/decisions"),
        ("POST", "/v1/instances/instance-1/cordon"),
        ("POST", "/v1/services/batch/pause"),
    ] {
        let (status, body) = second.ask(method, path).unwrap();
        assert_eq!(status, 503, "{method} {path}: {body}");
        assert!(body.contains("urn:force12:problem:standing-by") && body.contains(&detail), "{body}");
    }
    assert_eq!(second.get("/v1/nothing").unwrap().0, 404);
    assert_eq!(first.metric("force12_leader").as_deref(), Some("1"));
    assert_eq!(second.metric("force12_leader").as_deref(), Some("0"));

    second.signal(Signal::SIGTERM);
    assert_eq!(second.ended().code(), Some(0), "it ends in good order while it stands by");
    assert!(first.acts());
}

#[test]
fn when_the_one_that_acts_is_killed_another_takes_over_with_the_configuration_of_now() {
    let place = Place::new();
    let mut first = place.start("first", STALLED_AFTER_MS);
    first.until("it acts", || first.acts());
    let second = place.start("second", STALLED_AFTER_MS);
    assert!(!second.acts());

    // What changes while it stands by is checked at once, and holds when it acts.
    let config = fs::read_to_string(&second.config).unwrap();
    fs::write(&second.config, config.replace("slots = 3", "slots = 0")).unwrap();
    second.until("a bad file is refused", || second.metric("force12_config_refused").as_deref() == Some("1"));
    fs::write(&second.config, config.replace("slots = 3", "slots = 4")).unwrap();
    second.until("a good one is taken", || second.metric("force12_config_refused").as_deref() == Some("0"));
    assert!(!second.acts());

    let before = first.epoch();
    first.child.kill().unwrap();
    first.ended();
    second.until("it takes over", || second.acts());
    assert_ne!(second.epoch(), before);
    assert!(second.get("/v1/snapshot").unwrap().1.contains(r#""capacity":{"slots":4"#));
    assert_eq!(second.metric("force12_leader").as_deref(), Some("1"));

    let again = place.start("first", STALLED_AFTER_MS);
    again.until("it says who acts", || again.not_ready().contains(&second.epoch()));
    assert!(!again.acts() && second.acts());
}

#[test]
fn when_the_one_that_acts_ends_in_good_order_another_takes_over() {
    let place = Place::new();
    let mut first = place.start("first", STALLED_AFTER_MS);
    first.until("it acts", || first.acts());
    let second = place.start("second", STALLED_AFTER_MS);
    first.signal(Signal::SIGTERM);
    assert_eq!(first.ended().code(), Some(0));
    second.until("it takes over", || second.acts());
}

#[test]
fn a_stopped_one_is_killed_before_another_takes_over_and_never_wakes_up() {
    let place = Place::new();
    let mut first = place.start("first", 1_000);
    first.until("it acts", || first.acts());
    let second = place.start("second", STALLED_AFTER_MS);
    first.signal(Signal::SIGSTOP);
    second.until("it takes over", || second.acts());
    let status = first.ended();
    assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status}");
}

#[test]
fn a_stopped_one_that_stands_by_is_in_nobodys_way() {
    let place = Place::new();
    let mut first = place.start("first", STALLED_AFTER_MS);
    first.until("it acts", || first.acts());
    let stopped = place.start("second", STALLED_AFTER_MS);
    let third = place.start("third", STALLED_AFTER_MS);
    stopped.signal(Signal::SIGSTOP);
    first.child.kill().unwrap();
    first.ended();
    third.until("it takes over", || third.acts());
    stopped.signal(Signal::SIGCONT);
    stopped.until("it says who acts", || stopped.not_ready().contains(&third.epoch()));
}

#[test]
fn one_that_was_paused_for_a_moment_goes_on() {
    let place = Place::new();
    let first = place.start("first", STALLED_AFTER_MS);
    first.until("it acts", || first.acts());
    let epoch = first.epoch();
    let second = place.start("second", STALLED_AFTER_MS);
    first.signal(Signal::SIGSTOP);
    let stat = format!("/proc/{}/stat", first.pid());
    first.until("it is stopped", || fs::read_to_string(&stat).unwrap().contains(") T "));
    first.signal(Signal::SIGCONT);
    assert_eq!(first.epoch(), epoch);
    assert!(!second.acts());
}

#[test]
fn one_that_runs_outlives_its_deadline_many_times() {
    let place = Place::new();
    let mut first = place.start("first", 1_000);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert!(first.child.try_wait().unwrap().is_none(), "it was killed, and it was not hung");
        first.until("it acts", || first.acts());
    }
}

#[test]
fn without_its_lock_file_it_ends() {
    let place = Place::new();
    let mut first = place.start("first", STALLED_AFTER_MS);
    first.until("it acts", || first.acts());
    fs::remove_file(place.path("demo.lock")).unwrap();
    assert_eq!(first.ended().code(), Some(1));
    let log = fs::read_to_string(&first.log).unwrap();
    assert!(log.contains("demo.lock: was deleted or replaced while it was held"), "{log}");
}

#[test]
fn drain_refuses_while_another_acts_and_keeps_others_from_it() {
    let place = Place::new();
    let mut first = place.start("first", STALLED_AFTER_MS);
    first.until("it acts", || first.acts());
    let elsewhere = place.config("drain", "127.0.0.1:1".parse().unwrap(), &place.path("demo.lock"), 2_000);
    let refused = command(&["drain", &elsewhere, "--timeout-ms", "100"]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let words = String::from_utf8(refused.stderr).unwrap();
    let holder = format!("another process acts for cluster lock-test (run: pid {} on ", first.pid());
    assert!(words.contains(&holder) && words.lines().count() == 1, "{words}");
    assert!(refused.stdout.is_empty(), "no engine was asked");
    let forced = command(&["drain", &elsewhere, "--timeout-ms", "100", "--force"]).output().unwrap();
    assert!(String::from_utf8(forced.stdout).unwrap().contains("waiting for docker"));

    first.child.kill().unwrap();
    first.ended();
    let mut draining = command(&["drain", &elsewhere]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 11];
    draining.stdout.as_mut().unwrap().read_exact(&mut line).unwrap();
    assert_eq!(&line, b"waiting for");
    let second = place.start("second", STALLED_AFTER_MS);
    second.until("it says who acts", || second.not_ready().contains("(drain: pid "));
    // As by a terminal's Ctrl-Z: it is ended, and others are not kept from acting.
    kill(Pid::from_raw(draining.id().try_into().unwrap()), Signal::SIGSTOP).unwrap();
    second.until("it takes over", || second.acts());
    assert_eq!(draining.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
}

#[test]
fn what_the_environment_has_wrong_is_refused_before_the_lock_file_is_made() {
    let place = Place::new();
    let config =
        place.config("bad", "127.0.0.1:1".parse().unwrap(), &place.path("demo.lock"), STALLED_AFTER_MS);
    for (variable, value, expected) in [
        ("FORCE12_LOG", "force12=loud", "FORCE12_LOG=\"force12=loud\" is not a log filter"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "nonsense", "OTEL_EXPORTER_OTLP_ENDPOINT is not a URL"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nonexistent/ca.pem", "/nonexistent/ca.pem: cannot be read"),
    ] {
        let mut run = command(&["run", "--config", &config]);
        run.env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9").env(variable, value);
        let refused = run.output().unwrap();
        let words = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{variable}: {words}");
        assert!(words.starts_with("error: ") && words.contains(expected), "{words}");
        assert!(!PathBuf::from(place.path("demo.lock")).exists(), "{variable}");
    }
}

#[test]
fn a_lock_file_that_cannot_be_one_is_refused_before_anything_is_touched() {
    let place = Place::new();
    fs::write(place.path("notes.txt"), "remember the milk\n").unwrap();
    std::os::unix::fs::symlink(place.path("notes.txt"), place.path("link")).unwrap();
    let listen = TcpListener::bind("127.0.0.1:0").unwrap();
    for (lock_file, expected) in [
        (place.path("missing/demo.lock"), "missing/demo.lock: cannot be opened: No such file or directory"),
        (place.path("notes.txt/demo.lock"), "cannot be opened: Not a directory"),
        (place.path(""), "cannot be opened: Is a directory"),
        (place.path("link"), "link: cannot be opened: "),
        ("/dev/null".to_owned(), "/dev/null: is not a regular file"),
        ("/proc/1/stat".to_owned(), "/proc/1/stat: "),
        (place.path("notes.txt"), "notes.txt: holds something else"),
        ("demo.lock".to_owned(), "lock_file: `demo.lock` is not an absolute path"),
    ] {
        // The port is taken: whoever gets as far as to bind it says so.
        let config = place.config("bad", listen.local_addr().unwrap(), &lock_file, 2_000);
        for arguments in [&["run", "--config", &config][..], &["drain", &config]] {
            let refused = command(arguments).output().unwrap();
            let words = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(2), "{lock_file}: {words}");
            assert!(words.starts_with("error: ") && words.contains(expected), "{words}");
            assert_eq!((words.lines().count(), refused.stdout.as_slice()), (1, &b""[..]), "{words}");
        }
    }
    assert_eq!(fs::read_to_string(place.path("notes.txt")).unwrap(), "remember the milk\n");
}
