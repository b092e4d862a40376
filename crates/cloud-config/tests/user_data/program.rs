//! The program: where secrets come from, and where they do not go.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

use crate::support::{AMAZON_LINUX, AUTH, DOCKER_CONFIG, LICENSE_KEY, NEW_RELIC_ARN, directory};

/// Runs it, with a license key in the environment.
fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_render-cloud-config"))
        .args(arguments)
        .env("KEY", LICENSE_KEY)
        .env("QUOTED_KEY", format!("'{LICENSE_KEY}'"))
        .env("EMPTY_KEY", "")
        .output()
        .expect("the program runs")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn amazon_linux() -> String {
    directory().join(AMAZON_LINUX).display().to_string()
}

fn file(directory: &TempDir, name: &str, text: &str) -> String {
    let path = directory.path().join(name);
    std::fs::write(&path, text).expect("a temporary file is written");
    path.display().to_string()
}

#[test]
fn secrets_come_from_files_and_the_environment() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let logins = format!("file:{}", file(&directory, "config.json", DOCKER_CONFIG));
    let done = run(&[&amazon_linux(), "--cluster", "demo", "--registry", &logins, "--new-relic", "env:KEY"]);
    assert!(done.status.success(), "{}", stderr(&done));
    assert!(stdout(&done).contains(&format!("license_key: {LICENSE_KEY}\n")));
    assert!(
        stdout(&done).contains("ECS_ENGINE_AUTH_DATA={\"quay.io\":{\"auth\":\"cm9ib3Q6aHVudGVyMg==\"}}\n")
    );
    assert_eq!(stderr(&done), "");
    // A key in a file ends with a newline, which is not its own.
    let key = format!("file:{}", file(&directory, "key", &format!("{LICENSE_KEY}\n")));
    let done = run(&[&amazon_linux(), "--cluster", "demo", "--new-relic", &key]);
    assert!(stdout(&done).contains(&format!("license_key: {LICENSE_KEY}\n")), "{}", stderr(&done));
    let arn = format!("secret:{NEW_RELIC_ARN}");
    let done = run(&[&amazon_linux(), "--cluster", "demo", "--new-relic", &arn]);
    assert!(stdout(&done).contains(NEW_RELIC_ARN), "{}", stderr(&done));
}

#[test]
fn what_is_refused_shows_no_secret_and_renders_nothing() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let key_with_space = format!("file:{}", file(&directory, "key", &format!("{LICENSE_KEY} \n")));
    let not_json = format!("file:{}", file(&directory, "config.json", AUTH));
    // A template in which the secret ends up where YAML and systemd quote it.
    let template = std::fs::read_to_string(amazon_linux()).expect("a template");
    let in_yaml =
        file(&directory, "a.yaml", &template.replace("runcmd:\n", "runcmd: YOUR_NEWRELIC_LICENSE_KEY\nx:\n"));
    let in_unit = file(
        &directory,
        "b.yaml",
        &template.replace("Restart=always", "Restart=always\n      license_key: YOUR_NEWRELIC_LICENSE_KEY"),
    );
    let missing = format!("file:{}", directory.path().join("missing").display());
    for (template, option, secret, expected) in [
        (amazon_linux(), "--new-relic", LICENSE_KEY, "--new-relic: a secret comes from 'file:PATH'"),
        (amazon_linux(), "--new-relic", "env:QUOTED_KEY", "--new-relic: is in quotes"),
        (amazon_linux(), "--new-relic", "env:EMPTY_KEY", "--new-relic: is missing"),
        (amazon_linux(), "--new-relic", "env:NO_KEY", "environment variable NO_KEY is not set"),
        (amazon_linux(), "--new-relic", &key_with_space, "--new-relic: has white space around it"),
        (amazon_linux(), "--new-relic", &missing, "missing: No such file"),
        (amazon_linux(), "--registry", &not_json, "--registry: is not the JSON of logins"),
        (amazon_linux(), "--registry", AUTH, "--registry: a secret comes from 'file:PATH'"),
        (in_yaml, "--new-relic", "env:KEY", "refused"),
        (in_unit, "--new-relic", "env:KEY", "refused"),
    ] {
        let done = run(&[&template, "--cluster", "demo", option, secret]);
        let said = stderr(&done);
        assert!(!done.status.success(), "{option} {secret}");
        assert_eq!(stdout(&done), "", "{option} {secret}");
        assert!(said.contains(expected), "{option} {secret}: {said}");
        for secret in [LICENSE_KEY, AUTH] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[test]
fn a_file_is_for_its_owner_only() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // One that everybody could read before.
    let path = file(&directory, "user-data", "old");
    std::fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a mode is set");
    let done = run(&[&amazon_linux(), "--cluster", "demo", "--new-relic", "env:KEY", "--output", &path]);
    assert!(done.status.success(), "{}", stderr(&done));
    let mode = Path::new(&path).metadata().expect("it is written").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let done = run(&["check", &path]);
    assert!(
        stdout(&done).contains("cloud-config for cloud-init, nothing to say against it"),
        "{}",
        stderr(&done)
    );
    // What is refused leaves the file as it was.
    let before = std::fs::read(&path).expect("it is there");
    let done = run(&[&amazon_linux(), "--cluster", "de mo", "--output", &path]);
    assert!(stderr(&done).contains("--cluster: is not a cluster's name"), "{}", stderr(&done));
    assert_eq!(std::fs::read(&path).expect("it is there"), before);
}

#[test]
fn logins_are_converted_for_a_secret_store() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let logins = format!("file:{}", file(&directory, "config.json", DOCKER_CONFIG));
    let done = run(&["auth-data", &logins]);
    assert_eq!(stdout(&done), format!("{{\"quay.io\":{{\"auth\":\"{AUTH}\"}}}}\n"), "{}", stderr(&done));
}

#[test]
fn every_problem_has_a_line() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = file(&directory, "user-data", "#cloud-config\nwrite_file: [] \n");
    let done = run(&["check", &path]);
    assert_eq!(done.status.code(), Some(1));
    let said = stderr(&done);
    assert!(
        said.lines().count() >= 2 && said.lines().all(|line| line.starts_with("render-cloud-config: ")),
        "{said}"
    );
}
