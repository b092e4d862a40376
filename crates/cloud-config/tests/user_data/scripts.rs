//! The scripts that templates put on hosts, run here with a stand-in for what they call.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tempfile::TempDir;

use crate::support::{AMAZON_LINUX, FLATCAR, REGISTRY_ARN, template};

/// A script of a template: from its first line to where the indentation ends.
fn script(name: &str, path: &str) -> String {
    let template = template(name);
    let (_, rest) = template.split_once(&format!("path: {path}\n")).expect("the template has the script");
    let begins = rest.find("#!/bin/sh\n").expect("a script says what runs it");
    let indent = rest[..begins].rsplit('\n').next().expect("there is a line").len();
    let lines = rest[begins - indent..].lines();
    let lines = lines.take_while(|line| line.len() > indent && line[..indent].trim().is_empty());
    lines.map(|line| &line[indent..]).chain([""]).collect::<Vec<_>>().join("\n")
}

/// `fetch-secret` of both hosts.
fn fetch_secret() -> [String; 2] {
    [script(FLATCAR, "/opt/bin/fetch-secret"), script(AMAZON_LINUX, "/usr/local/bin/fetch-secret")]
}

/// Runs a script before a `docker` that says what it is called with, and prints or fails as it is told.
fn run(directory: &TempDir, script: &str, docker: &str, arguments: &[&str]) -> bool {
    let executable = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).expect("a script is written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("a script can be run");
        path
    };
    let said = directory.path().join("called-with");
    executable("docker", &format!("#!/bin/sh\necho \"$@\" >{}\n{docker}\n", said.display()));
    let path = std::env::var("PATH").expect("there is a PATH");
    Command::new(executable("script", script))
        .args(arguments)
        .env("PATH", format!("{}:{path}", directory.path().display()))
        .status()
        .expect("a script runs")
        .success()
}

#[test]
fn a_secret_takes_the_place_of_the_one_before() {
    for script in fetch_secret() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let file = directory.path().join("ecs.config");
        fs::write(&file, "ECS_CLUSTER=demo\nECS_ENGINE_AUTH_DATA=old\nECS_LOGLEVEL=info\n")
            .expect("it is written");
        let arguments = [REGISTRY_ARN, "ECS_ENGINE_AUTH_DATA=", &file.display().to_string()];
        assert!(run(&directory, &script, r#"printf '%s\n' '{"quay.io":{"auth":"%s\n$HOME"}}'"#, &arguments));
        assert_eq!(
            fs::read_to_string(&file).expect("it is there"),
            "ECS_CLUSTER=demo\nECS_LOGLEVEL=info\nECS_ENGINE_AUTH_DATA={\"quay.io\":{\"auth\":\"%s\\n$HOME\"}}\n"
        );
        assert_eq!(fs::metadata(&file).expect("it is there").permissions().mode() & 0o777, 0o600);
        let called = fs::read_to_string(directory.path().join("called-with")).expect("docker was called");
        assert!(called.contains(" --region eu-west-1 secretsmanager get-secret-value "), "{called}");
        assert!(called.contains(&format!(" --secret-id {REGISTRY_ARN} ")), "{called}");
    }
}

#[test]
fn without_a_secret_the_file_stays_and_the_agent_is_not_started() {
    for script in fetch_secret() {
        for docker in ["echo secret; exit 1", "exit 0"] {
            let directory = tempfile::tempdir().expect("a temporary directory");
            let file = directory.path().join("ecs.config");
            fs::write(&file, "ECS_ENGINE_AUTH_DATA=old\n").expect("it is written");
            let arguments = [REGISTRY_ARN, "ECS_ENGINE_AUTH_DATA=", &file.display().to_string()];
            assert!(!run(&directory, &script, docker, &arguments), "{docker}");
            assert_eq!(fs::read_to_string(&file).expect("it is there"), "ECS_ENGINE_AUTH_DATA=old\n");
        }
    }
}

#[test]
fn both_hosts_have_the_same_script() {
    let [flatcar, amazon_linux] = fetch_secret();
    assert_eq!(flatcar, amazon_linux);
}

#[test]
fn scripts_are_clean() {
    for script in [script(FLATCAR, "/opt/bin/ecs-network"), script(FLATCAR, "/opt/bin/fetch-secret")] {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("script");
        fs::write(&path, script).expect("a script is written");
        let done = Command::new("shellcheck")
            .arg(&path)
            .output()
            .expect("shellcheck is there; scripts/test installs it");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
    }
}
