//! A registry with a password, for as long as it lives: a real one, on loopback, which engines trust without TLS.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bollard::query_parameters::{PushImageOptions, RemoveImageOptionsBuilder};
use futures_util::TryStreamExt as _;

use super::{Cluster, PATIENCE, engine};

pub(crate) const USERNAME: &str = "robot";
/// Its `?` come out of base64 as characters that differ between its two alphabets.
pub(crate) const PASSWORD: &str = "hunter2???";

/// Runs the registry until its own input ends, which it does with the test's process, whatever that dies of.
const SCRIPT: &str = r#"
docker-registry serve "$1" >"$2" 2>&1 </dev/null &
registry=$!
cat >/dev/null
kill "$registry"
"#;

pub(crate) struct Registry {
    directory: tempfile::TempDir,
    /// `host:port`.
    pub(crate) server: String,
    running: Option<Child>,
}

impl Registry {
    /// Asks everybody for the password.
    pub(crate) fn start() -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let server = free.local_addr().expect("it is bound").to_string();
        let mut registry =
            Self { directory: tempfile::tempdir().expect("there is room"), server, running: None };
        let hashed = Command::new("htpasswd").args(["-Bbn", USERNAME, PASSWORD]).output();
        let hashed = hashed.expect("this test needs htpasswd (`scripts/test` installs apache2-utils)").stdout;
        fs::write(registry.directory.path().join("htpasswd"), hashed).expect("it can be written");
        drop(free);
        registry.up();
        registry
    }

    /// Listens, with what it had before.
    pub(crate) fn up(&mut self) {
        self.serve(true);
    }

    /// Listens no longer.
    pub(crate) fn down(&mut self) {
        if let Some(mut running) = self.running.take() {
            drop(running.stdin.take());
            running.wait().expect("it is our child");
            wait_for(|| TcpStream::connect(&self.server).is_err());
        }
    }

    /// Builds an image of the workload with a label of this value, and keeps it here and nowhere else. Says its name.
    pub(crate) async fn publish(&mut self, cluster: &Cluster, tag: &str, label: &str) -> String {
        let name = format!("{}/{}", self.server, cluster.name);
        let image = format!("{name}:{tag}");
        cluster.build(&image, &[("force12-test.version".to_owned(), label.to_owned())], true).await;
        self.take(&name, tag).await;
        image
    }

    /// Takes an image that the engine has, and has it from then on in place of the engine.
    pub(crate) async fn take(&mut self, name: &str, tag: &str) {
        // Without its password, for as long as this takes.
        self.down();
        self.serve(false);
        let options = PushImageOptions { tag: Some(tag.to_owned()), ..PushImageOptions::default() };
        let pushed: Result<Vec<_>, _> = engine().push_image(name, Some(options), None).try_collect().await;
        pushed.expect("the registry takes it");
        forget(&format!("{name}:{tag}")).await;
        self.down();
        self.up();
    }

    fn serve(&mut self, with_password: bool) {
        let path = |name: &str| self.directory.path().join(name).display().to_string();
        let password = if with_password {
            format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path("htpasswd"))
        } else {
            String::new()
        };
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {}\n{password}",
            path("data"),
            self.server
        );
        fs::write(path("config.yml"), config).expect("it can be written");
        let running = Command::new("sh")
            .args(["-c", SCRIPT, "sh", &path("config.yml"), &path("log")])
            .stdin(Stdio::piped())
            .spawn()
            .expect("there is a shell");
        self.running = Some(running);
        wait_for(|| {
            let log = || fs::read_to_string(Path::new(&path("log"))).unwrap_or_default();
            assert!(
                !log().contains("not found"),
                "this test needs docker-registry (`scripts/test` installs it)"
            );
            TcpStream::connect(&self.server).is_ok()
        });
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.down();
    }
}

/// Takes an image from the engine.
pub(crate) async fn forget(image: &str) {
    let options = RemoveImageOptionsBuilder::new().force(true).build();
    engine().remove_image(image, Some(options), None).await.expect("it is removed");
}

fn wait_for(holds: impl Fn() -> bool) {
    let given_up = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < given_up, "the registry does not come to that");
        std::thread::sleep(Duration::from_millis(20));
    }
}
