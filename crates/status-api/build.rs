//! Makes sure that the page has been built before it is embedded.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=web/dist");
    if Path::new("web/dist/index.html").is_file() {
        return ExitCode::SUCCESS;
    }
    println!(
        "cargo::error=the page has not been built: crates/status-api/web/dist/index.html is missing; run scripts/build-page"
    );
    ExitCode::FAILURE
}
