//! Images from nothing but the workload's binary.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use bollard::body_full;
use bollard::query_parameters::{BuildImageOptionsBuilder, PruneImagesOptionsBuilder};
use futures_util::TryStreamExt;

use super::engine;

const NAME: &str = "force12-test/workload";
const LABEL: &str = "force12-test.image";
/// Of a file in a tar archive.
const BLOCK_BYTES: usize = 512;

/// The name of an image whose containers run the workload. It is left on the engine for the next run.
pub(crate) fn workload_image() -> &'static str {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(|| {
        // Whoever asks is inside a runtime already.
        let building = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(build_workload_image());
        });
        building.join().expect("the image of the workload can be built");
    });
    NAME
}

async fn build_workload_image() {
    build_image(NAME, &[(LABEL.to_owned(), NAME.to_owned())], true).await;
    // Those of earlier workloads, which have lost the name to this one.
    let filters = HashMap::from([("dangling", vec!["true"]), ("label", vec![LABEL])]);
    let options = PruneImagesOptionsBuilder::new().filters(&filters).build();
    engine().prune_images(Some(options)).await.expect("the engine answers");
}

/// Builds an image of the workload with these labels, which runs it if it `has_command`.
pub(crate) async fn build_image(name: &str, labels: &[(String, String)], has_command: bool) {
    let mut dockerfile = "FROM scratch\nCOPY workload /workload\n".to_owned();
    if has_command {
        dockerfile.push_str("CMD [\"/workload\"]\n");
    }
    for (key, value) in labels {
        writeln!(dockerfile, "LABEL {key}=\"{value}\"").expect("a string takes it");
    }
    build_from(name, &dockerfile, "workload", workload_binary()).await;
}

/// Builds an image with a layer of this content, which no engine has yet if nobody has the content; it runs nothing.
pub(crate) async fn build_image_of(name: &str, labels: &[(String, String)], content: &[u8]) {
    let mut dockerfile = "FROM scratch\nCOPY content /content\nCMD [\"/content\"]\n".to_owned();
    for (key, value) in labels {
        writeln!(dockerfile, "LABEL {key}=\"{value}\"").expect("a string takes it");
    }
    build_from(name, &dockerfile, "content", content).await;
}

async fn build_from(name: &str, dockerfile: &str, file: &str, content: &[u8]) {
    let mut archive = Vec::new();
    append(&mut archive, "Dockerfile", 0o644, dockerfile.as_bytes());
    append(&mut archive, file, 0o755, content);
    archive.extend([0; 2 * BLOCK_BYTES]);
    let options = BuildImageOptionsBuilder::new().t(name).rm(true).forcerm(true).build();
    let engine = engine();
    let built = engine.build_image(options, None, Some(body_full(archive.into())));
    let built: Result<Vec<_>, _> = built.try_collect().await;
    built.expect("the engine builds the image");
}

fn workload_binary() -> &'static [u8] {
    static BINARY: OnceLock<Vec<u8>> = OnceLock::new();
    BINARY.get_or_init(|| {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
        let output = Command::new(cargo)
            .args(["build", "--package", "workload", "--message-format", "json"])
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
            .stderr(Stdio::inherit())
            .output()
            .expect("cargo can be run");
        assert!(output.status.success(), "the workload cannot be built");
        let messages = String::from_utf8(output.stdout).expect("cargo writes text");
        let executable = messages.lines().find_map(|line| {
            let message: serde_json::Value = serde_json::from_str(line).expect("cargo writes JSON");
            message["executable"].as_str().map(str::to_owned)
        });
        std::fs::read(executable.expect("cargo says what it has built")).expect("the binary is there")
    })
}

/// Appends one file to a tar archive.
fn append(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    let mut header = [0; BLOCK_BYTES];
    let mut field = |offset: usize, text: &str| {
        header[offset..offset + text.len()].copy_from_slice(text.as_bytes());
    };
    field(0, name);
    field(100, &format!("{mode:07o}"));
    field(108, "0000000");
    field(116, "0000000");
    field(124, &format!("{:011o}", content.len()));
    field(136, "00000000000");
    // The checksum is taken over the header with blanks in its own place.
    field(148, "        ");
    field(156, "0");
    field(257, "ustar");
    field(263, "00");
    let checksum: u32 = header.iter().map(|&byte| u32::from(byte)).sum();
    header[148..156].copy_from_slice(format!("{checksum:06o}\0 ").as_bytes());
    archive.extend(header);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(BLOCK_BYTES), 0);
}
