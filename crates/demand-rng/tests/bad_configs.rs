//! The corpus of bad configurations: `bad-configs`, a file for each kind of mistake.

use std::path::Path;

#[path = "../../service-kit/tests/support/refused.rs"]
mod refused;

use refused::Service;

fn service() -> Service {
    Service::new(env!("CARGO_BIN_EXE_demand-rng"))
}

#[test]
fn each_is_refused_with_its_place_and_remedy_and_nothing_is_touched() {
    service().refuses_all_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad-configs"), 40);
}

#[test]
fn what_is_no_text_is_refused() {
    service().refuses_what_is_no_text();
}
