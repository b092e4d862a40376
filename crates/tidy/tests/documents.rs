//! That README.md, ARCHITECTURE.md and the pages of `docs` speak of what is there.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the repository is there")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Their paths, from the root.
fn documents() -> Vec<String> {
    let mut documents = vec!["README.md".to_owned(), "ARCHITECTURE.md".to_owned()];
    for entry in std::fs::read_dir(root().join("docs")).expect("there are pages") {
        let name = entry.expect("a directory can be read").file_name().to_string_lossy().into_owned();
        if std::path::Path::new(&name).extension().is_some_and(|extension| extension == "md") {
            documents.push(format!("docs/{name}"));
        }
    }
    assert!(documents.len() > 2, "no pages found");
    documents
}

/// What stands between backticks on one line.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.lines().flat_map(|line| line.split('`').skip(1).step_by(2))
}

#[test]
fn every_crate_is_in_the_code_map() {
    let architecture = read("ARCHITECTURE.md");
    for entry in std::fs::read_dir(root().join("crates")).expect("there are crates") {
        let path = entry.expect("a directory can be read").path();
        if !path.join("Cargo.toml").is_file() {
            continue;
        }
        let name = path.file_name().expect("a crate has a name").to_string_lossy().into_owned();
        assert!(
            architecture.contains(&format!("`crates/{name}`")),
            "ARCHITECTURE.md: no `crates/{name}` in the code map"
        );
    }
}

#[test]
fn every_file_that_is_named_is_there() {
    let beginnings = ["crates/", "docker/", "docs/", "scripts/", ".ci/", ".cargo/", "cloud-config/"];
    let mut wrong = Vec::new();
    let mut seen = 0;
    for document in documents() {
        let text = read(&document);
        for quote in quoted(&text) {
            // `scripts/demo down` names a file and its argument.
            let path = quote.split_whitespace().next().unwrap_or_default();
            if beginnings.iter().any(|beginning| path.starts_with(beginning)) {
                seen += 1;
                if !root().join(path).exists() {
                    wrong.push(format!("{document}: `{path}` is not there"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(
        seen > 20,
        "only {seen} files named: are they still written in backticks, from the repository's root?"
    );
}

#[test]
fn every_link_leads_somewhere() {
    for document in documents() {
        let text = read(&document);
        let page = root().join(&document);
        let beside = page.parent().expect("a page is in a directory");
        for (position, _) in text.match_indices("](") {
            let target = text[position + 2..].split(')').next().unwrap_or_default();
            if !target.starts_with("http") && !target.starts_with('#') {
                let file = target.split('#').next().unwrap_or_default();
                assert!(beside.join(file).exists(), "{document}: the link to {target} leads nowhere");
            }
        }
    }
}
