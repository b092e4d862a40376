//! The suite that every driver passes, on a real engine.

mod support;

use support::DockerFixture;

driver_testkit::conformance_tests!(DockerFixture::new(), flavor = "multi_thread", worker_threads = 2);
