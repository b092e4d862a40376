//! What every file of the repository keeps to.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Beginnings of paths that are only on somebody's machine, and marks of what is not finished. In pieces, so that
/// this file keeps to its own rule.
const FORBIDDEN: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X:"),
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

/// The repository's text files: those of git, and new ones that it does not ignore.
fn files() -> Vec<(PathBuf, String)> {
    let output = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git runs: the rules are for a git checkout");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let files: Vec<_> = names
        .split_terminator('\0')
        .map(PathBuf::from)
        // A file that is deleted and not yet committed as such can't be read; a binary one is not text.
        .filter_map(|name| std::fs::read_to_string(root().join(&name)).ok().map(|text| (name, text)))
        .collect();
    assert!(files.len() > 50, "only {} files found in {}", files.len(), root().display());
    files
}

fn is_generated(name: &Path) -> bool {
    matches!(name.file_name().and_then(|name| name.to_str()), Some("Cargo.lock" | "package-lock.json"))
}

#[test]
fn nothing_unfinished_and_nobodys_machine() {
    let mut wrong = Vec::new();
    for (name, text) in files().iter().filter(|(name, _)| !is_generated(name)) {
        for (number, line) in text.lines().enumerate() {
            for forbidden in FORBIDDEN.iter().filter(|forbidden| line.contains(**forbidden)) {
                wrong.push(format!("{}:{}: {forbidden}", name.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lines_end_clean() {
    let mut wrong = Vec::new();
    for (name, text) in files().iter().filter(|(name, _)| name != Path::new("LICENSE")) {
        for (number, line) in text.split('\n').enumerate() {
            if line.ends_with([' ', '\t', '\r']) {
                wrong.push(format!("{}:{}: white space at the end of the line", name.display(), number + 1));
            }
        }
        if !text.is_empty() && !text.ends_with('\n') {
            wrong.push(format!("{}: no newline at the end", name.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn locked_packages_come_from_the_public_registries() {
    let mut wrong = Vec::new();
    for (name, text) in files().iter().filter(|(name, _)| is_generated(name)) {
        let (key, registry) = if name.ends_with("Cargo.lock") {
            ("source = \"", "registry+https://github.com/rust-lang/crates.io-index\"")
        } else {
            ("\"resolved\": \"", "https://registry.npmjs.org/")
        };
        for (number, line) in text.lines().enumerate() {
            if let Some((_, source)) = line.split_once(key)
                && !source.starts_with(registry)
            {
                wrong.push(format!("{}:{}: {source}", name.display(), number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn scripts_can_be_run_and_explain_themselves() {
    let mut verbs = 0;
    for entry in std::fs::read_dir(root().join("scripts")).expect("there are scripts") {
        let path = entry.expect("a directory can be read").path();
        if path.is_dir() {
            continue;
        }
        verbs += 1;
        let text = std::fs::read_to_string(&path).expect("a script is text");
        let mode = path.metadata().expect("a file has a mode").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{}: not executable", path.display());
        assert!(
            text.starts_with("#!/usr/bin/env bash\n"),
            "{}: does not begin with bash's line",
            path.display()
        );
        assert!(text.contains("\nset -euo pipefail\n"), "{}: no set -euo pipefail", path.display());
        let help = Command::new(&path).arg("--help").output().expect("a script runs");
        let words = String::from_utf8_lossy(&help.stdout);
        assert!(
            help.status.success() && words.contains("Usage: scripts/"),
            "{} --help: {words}",
            path.display()
        );
    }
    assert!(verbs >= 5, "only {verbs} scripts found");
    let ci = root().join(".ci/run").metadata().expect("there is .ci/run");
    assert_eq!(ci.permissions().mode() & 0o111, 0o111, ".ci/run: not executable");
}

/// The stages that begin with `FROM scratch`, as lists of their instructions; where a binary is copied from is left out.
fn scratch_stages(name: &str) -> Vec<Vec<String>> {
    let text = std::fs::read_to_string(root().join("docker").join(name)).expect("a Dockerfile can be read");
    let mut stages: Vec<Vec<String>> = Vec::new();
    let mut in_scratch = false;
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if line.starts_with("FROM ") {
            in_scratch = line.starts_with("FROM scratch ");
            if in_scratch {
                stages.push(Vec::new());
            }
        }
        if let (true, Some(stage)) = (in_scratch, stages.last_mut()) {
            stage.push(line.replace("COPY --from=build /out/", "COPY "));
        }
    }
    stages
}

#[test]
fn both_dockerfiles_make_the_same_images() {
    let prebuilt = scratch_stages("Dockerfile.prebuilt");
    assert_eq!(prebuilt.len(), 4, "docker/Dockerfile.prebuilt makes four images");
    assert_eq!(prebuilt, scratch_stages("Dockerfile"));
}
