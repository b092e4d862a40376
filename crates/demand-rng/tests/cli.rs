//! The binary, as it is run.

use std::path::Path;
use std::process::{Command, Output};

fn output(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demand-rng"));
    command.env_remove("FORCE12_CONFIG").args(arguments).output().unwrap()
}

#[test]
fn the_examples_are_good_configs_and_explained() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in [here.join("example.toml"), here.join("../../docker/config/demand-rng.toml")] {
        let output = output(&["check", file.to_str().unwrap()]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(
            (output.status.code(), output.stderr.as_slice()),
            (Some(0), &b""[..]),
            "{}",
            file.display()
        );
        assert!(said.contains("  priority1: walk from 0 to 9, a step every 3000 ms; "), "{said}");
    }
}

#[test]
fn bad_usage_is_refused() {
    for arguments in [&[][..], &["run"], &["check"], &["serve"], &["run", "--verbose"]] {
        assert_eq!(output(arguments).status.code(), Some(2), "{arguments:?}");
    }
}
