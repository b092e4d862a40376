//! Which crate may depend on which: the arrows of ARCHITECTURE.md, held to it.

use std::collections::BTreeSet;

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package};

/// A crate, the crates of the workspace that it may use, and those that its tests may use beside them.
struct Arrows {
    from: &'static str,
    to: &'static [&'static str],
    tests_to: &'static [&'static str],
}

/// All arrows. A crate stands below everything that it may use, so none can turn round.
const ALLOWED: &[Arrows] = &[
    Arrows { from: "planner", to: &[], tests_to: &[] },
    Arrows { from: "api-types", to: &[], tests_to: &[] },
    Arrows { from: "workload", to: &[], tests_to: &[] },
    Arrows { from: "tidy", to: &[], tests_to: &[] },
    Arrows { from: "cloud-config", to: &[], tests_to: &[] },
    // Knows ECS, and nothing of ours.
    Arrows { from: "fake-ecs", to: &[], tests_to: &[] },
    Arrows { from: "driver", to: &["planner"], tests_to: &[] },
    Arrows { from: "driver-testkit", to: &["driver", "planner"], tests_to: &[] },
    Arrows { from: "driver-docker", to: &["driver", "planner"], tests_to: &["driver-testkit"] },
    Arrows { from: "controller", to: &["driver", "planner"], tests_to: &["driver-testkit"] },
    Arrows {
        from: "driver-ecs",
        to: &["driver", "planner"],
        tests_to: &["controller", "driver-testkit", "fake-ecs"],
    },
    Arrows { from: "service-kit", to: &["api-types"], tests_to: &[] },
    Arrows { from: "demand-rng", to: &["api-types", "service-kit"], tests_to: &[] },
    Arrows { from: "status-api", to: &["api-types", "service-kit"], tests_to: &[] },
    Arrows {
        from: "force12-scheduler",
        to: &["api-types", "controller", "driver", "driver-docker", "driver-ecs", "planner", "service-kit"],
        tests_to: &["driver-testkit", "fake-ecs"],
    },
    // Sees the product from outside: the wire, and the engine.
    Arrows { from: "acceptance", to: &["api-types"], tests_to: &[] },
];

fn metadata() -> Metadata {
    MetadataCommand::new()
        .manifest_path(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata reads the workspace")
}

fn allowed(package: &Package) -> Option<&'static Arrows> {
    ALLOWED.iter().find(|arrows| arrows.from == package.name.as_str())
}

#[test]
fn every_arrow_between_crates_is_allowed() {
    let metadata = metadata();
    let members: BTreeSet<&str> = metadata.packages.iter().map(|package| package.name.as_str()).collect();
    let mut wrong = Vec::new();
    for package in &metadata.packages {
        let Some(arrows) = allowed(package) else {
            wrong.push(format!(
                "{}: not in the table of arrows; add it to ALLOWED, below what it uses",
                package.name
            ));
            continue;
        };
        for dependency in &package.dependencies {
            let to = dependency.name.as_str();
            let of_tests = dependency.kind == DependencyKind::Development;
            if members.contains(to)
                && !arrows.to.contains(&to)
                && !(of_tests && arrows.tests_to.contains(&to))
            {
                wrong.push(format!(
                    "{} -> {to} ({}): not an arrow of ARCHITECTURE.md",
                    package.name, dependency.kind
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_arrow_of_the_table_turns_round() {
    for (position, arrows) in ALLOWED.iter().enumerate() {
        for to in arrows.to.iter().chain(arrows.tests_to) {
            assert!(
                ALLOWED[..position].iter().any(|above| above.from == *to),
                "{} -> {to}: a crate stands below everything that it uses",
                arrows.from
            );
        }
    }
}

#[test]
fn every_crate_of_the_table_is_there() {
    let metadata = metadata();
    for arrows in ALLOWED {
        assert!(
            metadata.packages.iter().any(|package| package.name == arrows.from),
            "{}: in the table of arrows and not in the workspace",
            arrows.from
        );
    }
}

#[test]
fn the_planner_depends_on_nothing() {
    let metadata = metadata();
    let planner =
        metadata.packages.iter().find(|package| package.name == "planner").expect("there is a planner");
    let dependencies: Vec<&str> = planner
        .dependencies
        .iter()
        .filter(|dependency| dependency.kind != DependencyKind::Development)
        .map(|dependency| dependency.name.as_str())
        .collect();
    assert!(dependencies.is_empty(), "the planner is pure; it has gained: {}", dependencies.join(", "));
}

#[test]
fn every_crate_says_what_it_is_and_keeps_the_workspace_lints() {
    let mut wrong = Vec::new();
    for package in &metadata().packages {
        if package.description.as_deref().unwrap_or_default().trim().is_empty() {
            wrong.push(format!("{}: no description", package.manifest_path));
        }
        if package.license.as_deref() != Some("Apache-2.0") {
            wrong.push(format!("{}: no `license.workspace = true`", package.manifest_path));
        }
        if package.publish.as_deref() != Some(&[]) {
            wrong.push(format!("{}: no `publish.workspace = true`", package.manifest_path));
        }
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a manifest can be read");
        if !manifest.contains("[lints]\nworkspace = true\n") {
            wrong.push(format!("{}: no `[lints]` with `workspace = true`", package.manifest_path));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
