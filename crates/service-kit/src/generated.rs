//! Files that are generated from the code and kept in the repository, so that people can read them there and see
//! in a diff what has changed: OpenAPI documents and config schemas. A test of each service calls [`check`].

use std::fs;
use std::path::Path;

use serde::Serialize;

/// With this variable set to `1`, [`check`] writes the file in place of comparing it.
pub const UPDATE_VARIABLE: &str = "UPDATE_GENERATED";

/// `document` as it is kept in a file: indented, with a newline at its end.
pub fn pretty(document: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(document).expect("a document of our own serialises");
    text.push('\n');
    text
}

/// Compares the file at `path` with what is generated now; the error says how to bring it up to date.
pub fn check(path: &Path, generated: &str) -> Result<(), String> {
    if std::env::var(UPDATE_VARIABLE).is_ok_and(|value| value == "1") {
        return fs::write(path, generated)
            .map_err(|error| format!("cannot write {}: {error}", path.display()));
    }
    let kept = fs::read_to_string(path).unwrap_or_default();
    if kept == generated {
        return Ok(());
    }
    let line =
        kept.lines().zip(generated.lines()).take_while(|(kept, generated)| kept == generated).count() + 1;
    Err(format!(
        "{} is out of date from line {line} on: run the tests once with {UPDATE_VARIABLE}=1 and look at the diff",
        path.display()
    ))
}
