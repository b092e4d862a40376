//! How the binary starts where it cannot, and goes on where the machine lacks something.

#[path = "../../service-kit/tests/support/started.rs"]
mod started;

use started::Service;

/// On an engine that is not there.
const CONFIG: &str = r#"cluster = "started-test"

[[instance]]
name = "instance-1"
engine = "unix:///nonexistent/docker.sock"
capacity = { slots = 3 }

[[service]]
name = "batch"
priority = 2
image = "example/batch"
fill = true
"#;

fn service() -> Service {
    Service::new(env!("CARGO_BIN_EXE_force12-scheduler"), CONFIG)
}

#[test]
fn why_it_does_not_start_is_one_clear_line() {
    service().says_why_it_does_not_start();
}

#[test]
fn a_log_that_cannot_be_written_stops_nothing() {
    service().needs_no_log();
}

#[test]
fn peers_cannot_take_the_last_file_descriptor() {
    service().outlives_a_lack_of_file_descriptors();
}

#[test]
fn a_changed_file_is_applied_and_a_bad_one_refused() {
    service().applies_a_changed_file(&CONFIG.replace("slots = 3", "slots = 2"));
}

#[test]
fn a_changed_token_holds_from_then_on() {
    service().takes_a_changed_token("POST /v1/services/batch/pause");
}
