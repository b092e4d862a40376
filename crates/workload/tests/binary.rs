//! Runs the binary as a container would.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How long anything here may take before it counts as hung; a busy machine is slow.
const BOUND: Duration = Duration::from_secs(20);

/// Ends its process however the test ends.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_workload"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        Self(child)
    }

    /// Counting shows that it is up and its handlers are in place.
    fn start_counting(arguments: &[&str]) -> Self {
        let mut running = Self::start(&[arguments, &["--count-every-ms", "5"]].concat());
        let output = running.0.stdout.take().expect("it is piped");
        let lines: Vec<String> =
            BufReader::new(output).lines().take(3).collect::<Result<_, _>>().expect("it is text");
        assert_eq!(lines, ["1", "2", "3"]);
        running
    }

    fn signal(&self, name: &str) {
        let status = Command::new("kill")
            .args(["-s", name, &self.0.id().to_string()])
            .status()
            .expect("kill can be run");
        assert!(status.success());
    }

    fn wait(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(start.elapsed() < BOUND, "it did not end");
            thread::yield_now();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn output_of(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_workload")).args(arguments).output().expect("the binary runs")
}

fn ready_file(name: &str) -> PathBuf {
    std::env::temp_dir().join(format!("workload-test-{name}-{}", std::process::id()))
}

#[test]
fn ends_at_once_and_well_when_asked() {
    for signal in ["TERM", "INT"] {
        let mut running = Running::start_counting(&[]);
        running.signal(signal);
        assert_eq!(running.wait(), Some(0), "SIG{signal}");
    }
}

#[test]
fn ignores_sigterm_when_told_to() {
    let mut running =
        Running::start_counting(&["--ignore-sigterm", "--exit-after-ms", "400", "--exit-code", "9"]);
    running.signal("TERM");
    assert_eq!(running.wait(), Some(9), "it ran on to its own end");

    let mut running = Running::start_counting(&["--ignore-sigterm"]);
    running.signal("TERM");
    running.signal("INT");
    assert_eq!(running.wait(), Some(0), "SIGINT still ends it");
}

#[test]
fn takes_its_time_to_stop() {
    let mut running = Running::start_counting(&["--stop-takes-ms", "300"]);
    let start = Instant::now();
    running.signal("TERM");
    assert_eq!(running.wait(), Some(0));
    assert!(start.elapsed() >= Duration::from_millis(300), "it took {:?}", start.elapsed());
}

#[test]
fn fails_at_start_with_the_code_given() {
    let output = output_of(&["--fail-at-start", "41"]);
    assert_eq!(output.status.code(), Some(41));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "workload: failing with code 41, as told\n");
}

#[test]
fn is_ready_when_it_says_so() {
    let file = ready_file("ready");
    let path = file.to_str().expect("a plain path");
    std::fs::write(&file, "left by an earlier run").expect("the directory can be written to");
    let running = Running::start_counting(&["--ready-after-ms", "600000", "--ready-file", path]);
    let check = output_of(&["healthcheck", "--ready-file", path]);
    assert_eq!(check.status.code(), Some(1));
    let message = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(message.starts_with(&format!("workload: not ready: {path}: ")), "{message}");
    drop(running);

    let _running = Running::start_counting(&["--ready-after-ms", "0", "--ready-file", path]);
    let start = Instant::now();
    while output_of(&["healthcheck", "--ready-file", path]).status.code() != Some(0) {
        assert!(start.elapsed() < BOUND, "it did not become ready");
    }
    std::fs::remove_file(&file).expect("the workload wrote it");
}

#[test]
fn is_ready_no_longer_when_its_time_is_over() {
    let file = ready_file("unready");
    let path = file.to_str().expect("a plain path");
    let options = ["--ready-after-ms", "0", "--unready-after-ms", "200", "--ready-file", path];
    let _running = Running::start_counting(&options);
    let start = Instant::now();
    for code in [0, 1] {
        while output_of(&["healthcheck", "--ready-file", path]).status.code() != Some(code) {
            assert!(start.elapsed() < BOUND, "the healthcheck did not come to code {code}");
        }
    }
}

#[test]
fn takes_the_memory_that_it_is_told_to() {
    let running = Running::start_counting(&["--allocate-mib", "64"]);
    let status = std::fs::read_to_string(format!("/proc/{}/status", running.0.id())).expect("it runs");
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("the kernel says it");
    let kib: u64 = resident.trim().trim_end_matches(" kB").parse().expect("a number of KiB");
    assert!(kib >= 64 * 1024, "{kib} KiB are resident");
}

#[test]
fn fails_when_it_cannot_become_ready() {
    let mut running = Running::start(&["--ready-after-ms", "0", "--ready-file", "/nowhere/ready"]);
    assert_eq!(running.wait(), Some(1));
}

#[test]
fn burns_about_the_share_it_was_told() {
    let running = Running::start_counting(&["--burn-percent", "40", "--exit-after-ms", "1000"]);
    let stat = format!("/proc/{}/stat", running.0.id());
    let mut last_ticks = 0;
    while let Ok(text) = std::fs::read_to_string(&stat) {
        // After the name in brackets: state is field 3, the times in user and system mode are 14 and 15.
        let fields: Vec<&str> =
            text.rsplit(')').next().expect("it has one part").split_whitespace().collect();
        if fields[0] == "Z" {
            break;
        }
        last_ticks = [fields[11], fields[12]].iter().map(|field| field.parse::<u64>().expect("ticks")).sum();
        thread::yield_now();
    }
    // 40 % of a second is 40 ticks; on a machine whose CPUs are all taken it gets fewer.
    assert!((5..=60).contains(&last_ticks), "{last_ticks} ticks of 10 ms");
}

#[test]
fn bad_usage_is_refused_with_code_2() {
    let output = output_of(&["--burn-percent", "lots"]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "workload: --burn-percent: \"lots\" is not a number from 0 to 100\n"
    );
    let help = output_of(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&help.stdout).contains("--ignore-sigterm"));
}
