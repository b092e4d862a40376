//! The binary, as it is run.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

fn status_api() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_status-api"));
    command.env_remove("FORCE12_CONFIG").env_remove("FORCE12_TOKEN").env_remove("FORCE12_TOKEN_FILE");
    command
}

fn output(arguments: &[&str]) -> Output {
    status_api().args(arguments).output().unwrap()
}

fn config(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

/// Ended with the test, whatever its outcome.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already if all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_example_is_a_good_config_and_explained() {
    let example = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("example.toml");
    let output = output(&["check", example.to_str().unwrap()]);
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert!(said.starts_with("status-api listens on 127.0.0.1:8080\n"), "{said}");
}

#[test]
fn bad_usage_is_refused() {
    for arguments in [&[][..], &["run"], &["check"], &["serve"], &["run", "--verbose"]] {
        assert_eq!(output(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn it_prints_its_documents() {
    for (command, key) in [("openapi", "paths"), ("schema", "properties")] {
        let document: Value = serde_json::from_slice(&output(&[command]).stdout).unwrap();
        assert!(document[key].is_object(), "{command}");
    }
}

#[test]
fn it_is_healthy_without_a_scheduler_and_ends_at_once_when_told_to() {
    // Nobody answers on the discard port of loopback.
    let file = config("listen = \"127.0.0.1:0\"\nscheduler_url = \"http://127.0.0.1:9\"\n");
    let mut command = status_api();
    command.args(["run", "--config", file.path().to_str().unwrap()]).env_remove("FORCE12_LOG");
    let mut running = Running(command.stderr(Stdio::piped()).spawn().unwrap());
    let mut log = BufReader::new(running.0.stderr.take().unwrap()).lines();
    let address = loop {
        let line: Value = serde_json::from_str(&log.next().expect("it listens").unwrap()).unwrap();
        if line["message"] == "listening" {
            break line["address"].as_str().unwrap().to_owned();
        }
    };
    let healthz = format!("http://{address}/healthz");
    assert_eq!(output(&["healthcheck", "--url", &healthz]).status.code(), Some(0));
    assert_eq!(output(&["healthcheck", "--url", &format!("http://{address}/readyz")]).status.code(), Some(1));

    let mut stream = TcpStream::connect(&address).unwrap();
    write!(stream, "GET /v1/stream HTTP/1.1\r\nhost: {address}\r\n\r\n").unwrap();
    let mut first = [0; 12];
    stream.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    let told = Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status().unwrap();
    assert!(told.success());
    // The open stream is ended, not waited for: otherwise this would be cut off with a warning.
    let rest: Vec<String> = log.map(Result::unwrap).collect();
    assert_eq!(running.0.wait().unwrap().code(), Some(0), "{rest:#?}");
    assert!(rest.iter().all(|line| !line.contains("cut off")), "{rest:#?}");
}
