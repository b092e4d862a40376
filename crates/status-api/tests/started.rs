//! How the binary starts where it cannot, and goes on where the machine lacks something.

#[path = "../../service-kit/tests/support/started.rs"]
mod started;

use started::Service;

fn service() -> Service {
    Service::new(env!("CARGO_BIN_EXE_status-api"), "scheduler_url = \"http://127.0.0.1:9\"\n")
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
    service().applies_a_changed_file("scheduler_url = \"http://127.0.0.1:9\"\nsilence_ms = 600\n");
}

#[test]
fn a_changed_token_holds_from_then_on() {
    service().takes_a_changed_token("DELETE /v1/demand");
}
