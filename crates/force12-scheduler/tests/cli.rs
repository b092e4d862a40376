//! The binary itself: what it prints, where, and with which exit code it ends.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn force12_scheduler(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_force12-scheduler"));
    command.args(arguments);
    for variable in ["FORCE12_CONFIG", "FORCE12_TOKEN", "FORCE12_TOKEN_FILE", "FORCE12_LOG"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null());
    command
}

struct Ended {
    code: i32,
    out: String,
    err: String,
}

fn ended(command: &mut Command) -> Ended {
    let Output { status, stdout, stderr } = command.output().unwrap();
    Ended {
        code: status.code().expect("it ends by itself"),
        out: String::from_utf8(stdout).unwrap(),
        err: String::from_utf8(stderr).unwrap(),
    }
}

/// A configuration of a cluster on an engine that is not there, and a port that nobody has.
fn config(directory: &TempDir, extra: &str) -> String {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let socket = directory.path().join("docker.sock");
    let text = format!(
        r#"cluster = "cli-test"
listen = "127.0.0.1:{port}"
{extra}

[[instance]]
name = "instance-1"
engine = "unix://{}"
capacity = {{ slots = 3 }}

[[service]]
name = "batch"
priority = 2
image = "example/batch"
fill = true
"#,
        socket.display()
    );
    write(directory.path(), "scheduler.toml", &text)
}

fn write(directory: &Path, name: &str, text: &str) -> String {
    let path = directory.join(name);
    std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_good_config_is_explained() {
    let directory = TempDir::new().unwrap();
    let config = config(&directory, "");
    let Ended { code, out, err } = ended(&mut force12_scheduler(&["check", &config]));
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(
        out.starts_with("cluster cli-test: 1 instance on 1 engine, 3 slots in all; the api listens on "),
        "{out}"
    );
    assert!(
        out.contains("  priority 2 batch (example/batch): fills all that is left; each takes 1 slot; "),
        "{out}"
    );
}

#[test]
fn the_examples_are_good_configs() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let demo = here.join("../../docker/config");
    let examples = ["example.toml", "example-ecs.toml"].map(|file| here.join(file));
    for file in examples.into_iter().chain([demo.join("scheduler.toml"), demo.join("scheduler-freeze.toml")])
    {
        let mut command = force12_scheduler(&["check", file.to_str().unwrap()]);
        command.env("DATABASE_PASSWORD", "a password").env("REGISTRY_PASSWORD", "another");
        let Ended { code, out, err } = ended(&mut command);
        assert_eq!((code, err.as_str()), (0, ""), "{}", file.display());
        assert!(out.starts_with("cluster "), "{out}");
    }
}

#[test]
fn a_good_config_of_an_ecs_cluster_is_explained() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("example-ecs.toml");
    let Ended { code, out, err } = ended(&mut force12_scheduler(&["check", example.to_str().unwrap()]));
    assert_eq!((code, err.as_str()), (0, ""));
    for words in [
        "cluster example: the container instances of ECS cluster force12-demo, 3 slots on each; the api listens on ",
        "  looked up in eu-west-1, and again every 60000 ms; task definitions too\n",
        "  those for which holds: attribute:pool == batch\n",
        "  256 cpu_millis of each left for others\n",
        "  changes are told by https://sqs.eu-west-1.amazonaws.com/123456789012/force12-demo\n",
        "  priority 1 web (force12-web): as many as traffic demands",
        "; stopped within the stopTimeout of its task definition to make room",
    ] {
        assert!(out.contains(words), "{words:?} is not in\n{out}");
    }
}

/// So that what one of them shows differs from what the other shows by freezing alone.
#[test]
fn the_demo_with_freezing_is_the_demo_but_for_that() {
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docker/config");
    let without_freezing = |file: &str| {
        let text = std::fs::read_to_string(demo.join(file)).unwrap();
        let of_freezing = ["freezable", "standby", "on_preempt"];
        let other = |line: &&str| {
            let key = line.split(" = ").next().unwrap_or_default();
            !line.starts_with('#') && !of_freezing.contains(&key)
        };
        text.lines().filter(other).map(str::to_owned).collect::<Vec<_>>()
    };
    let plain = without_freezing("scheduler.toml");
    assert!(plain.len() > 40, "{plain:#?}");
    assert_eq!(without_freezing("scheduler-freeze.toml"), plain);
}

#[test]
fn warnings_go_to_stderr_and_do_not_fail() {
    let directory = TempDir::new().unwrap();
    let path = config(&directory, "");
    let text = std::fs::read_to_string(&path).unwrap() + "env = { API_TOKEN = \"abc\" }\n";
    let path = write(directory.path(), "secret.toml", &text);
    let Ended { code, out, err } = ended(&mut force12_scheduler(&["check", &path]));
    assert_eq!(code, 0);
    assert!(err.starts_with("warning: config ") && err.contains("looks like a secret"), "{err}");
    assert!(!err.contains("abc") && !out.contains("abc"), "a secret is never repeated");
}

#[test]
fn a_bad_config_is_refused_by_every_command_with_all_that_is_wrong() {
    let directory = TempDir::new().unwrap();
    let path = config(&directory, "settle_ms = 1");
    let text = std::fs::read_to_string(&path).unwrap().replace("priority = 2", "priority = 0");
    let path = write(directory.path(), "bad.toml", &text);
    for arguments in [&["check", &path][..], &["run", "--config", &path], &["drain", &path]] {
        let Ended { code, out, err } = ended(&mut force12_scheduler(arguments));
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}: {err}");
        assert!(err.contains("bad.toml:3:13: settle_ms: 1 is out of range; give 1000 to 600000"), "{err}");
        assert!(err.contains("service.batch.priority: 0 is out of range"), "{err}");
        assert_eq!(err.lines().count(), 2, "{err}");
    }
}

#[test]
fn a_config_that_is_not_there_is_one_clear_line() {
    for arguments in [&["check", "/nonexistent/a.toml"][..], &["run", "--config", "/nonexistent/a.toml"]] {
        let Ended { code, err, .. } = ended(&mut force12_scheduler(arguments));
        assert_eq!(code, 2);
        assert!(err.contains("/nonexistent/a.toml: cannot be read: "), "{err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    let mut command = force12_scheduler(&["run"]);
    let Ended { code, err, .. } = ended(command.env("FORCE12_CONFIG", "/nonexistent/b.toml"));
    assert_eq!(code, 2);
    assert!(err.contains("/nonexistent/b.toml"), "{err}");
}

#[test]
fn bad_usage_is_explained() {
    for arguments in [&[][..], &["run"], &["check"], &["drain"], &["stop"], &["run", "--verbose"]] {
        let Ended { code, out, err } = ended(&mut force12_scheduler(arguments));
        assert_eq!((code, out.as_str()), (2, ""), "{arguments:?}");
        assert!(err.contains("Usage"), "{arguments:?}: {err}");
    }
    let Ended { code, out, .. } = ended(&mut force12_scheduler(&["--help"]));
    assert_eq!(code, 0);
    for part in ["check", "drain", "healthcheck", "openapi", "schema", "FORCE12_TOKEN_FILE", "Exit codes"] {
        assert!(out.contains(part), "--help says nothing of {part}");
    }
}

#[test]
fn a_token_file_that_others_can_read_is_refused() {
    let directory = TempDir::new().unwrap();
    let token = write(directory.path(), "token", "0123456789abcdef0123456789abcdef\n");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o644)).unwrap();
    let path = config(&directory, &format!("token_file = \"{token}\""));
    let Ended { code, err, .. } = ended(&mut force12_scheduler(&["run", "--config", &path]));
    assert_eq!(code, 2);
    assert!(err.contains("chmod 600") && !err.contains("0123456789abcdef"), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn a_port_that_is_taken_is_one_clear_error() {
    let directory = TempDir::new().unwrap();
    let path = config(&directory, "");
    let text = std::fs::read_to_string(&path).unwrap();
    let listen = text.lines().nth(1).unwrap().split('"').nth(1).unwrap().to_owned();
    let _taken = TcpListener::bind(&listen).unwrap();
    let mut command = force12_scheduler(&["run", "--config", &path]);
    let Ended { code, err, .. } = ended(command.env("FORCE12_LOG", "error"));
    assert_eq!(code, 1);
    assert!(err.contains(&format!("cannot listen on {listen}")), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn an_engine_that_is_not_there_leaves_the_drain_undone() {
    let directory = TempDir::new().unwrap();
    let path = config(&directory, "");
    let Ended { code, out, err } = ended(&mut force12_scheduler(&["drain", &path, "--timeout-ms", "100"]));
    assert_eq!(code, 1);
    assert!(out.contains("waiting for docker unix://") && out.contains("no such socket"), "{out}");
    assert!(err.contains("gave up after 100 ms"), "{err}");

    // Nor does it fall over a disk that is full.
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = force12_scheduler(&["drain", &path, "--timeout-ms", "100"]);
    assert_eq!(command.stdout(full()).stderr(full()).status().unwrap().code(), Some(1));
}

#[test]
fn documents_are_printed() {
    for (command, file) in [("openapi", "openapi.json"), ("schema", "config.schema.json")] {
        let Ended { code, out, err } = ended(&mut force12_scheduler(&[command]));
        assert_eq!((code, err.as_str()), (0, ""));
        let kept = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(out == kept, "{command} prints what {file} holds");
    }
}

#[test]
fn the_healthcheck_needs_the_listener_and_not_a_valid_config() {
    let directory = TempDir::new().unwrap();
    let path = config(&directory, "settle_ms = 1");
    let Ended { code, err, .. } = ended(&mut force12_scheduler(&["healthcheck", "--config", &path]));
    assert_eq!(code, 1, "nobody listens: {err}");
    assert!(err.contains("/healthz"), "{err}");
}
