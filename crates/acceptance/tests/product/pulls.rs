//! Images from a registry with a password: one that cannot be pulled is said, and nothing else suffers.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use acceptance::stack::{IMPORTANT, Options, Stack};
use api_types::snapshot::Snapshot;
use bollard::query_parameters::{PushImageOptions, RemoveImageOptions, TagImageOptions};
use futures_util::TryStreamExt as _;
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

use crate::BOUND;
use crate::failing::service;
use crate::rollout::configure;

const USERNAME: &str = "robot";
const PASSWORD: &str = "not-to-be-seen???";

/// The longest between two attempts, and time for one.
const RETRY_BOUND: Duration = Duration::from_mins(1);

/// A registry on loopback, which engines trust without TLS. It ends when it goes out of scope.
struct Registry {
    directory: tempfile::TempDir,
    server: String,
}

impl Registry {
    async fn new() -> Self {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let registry =
            Self { directory: tempfile::tempdir().unwrap(), server: free.local_addr().unwrap().to_string() };
        let hashed = Command::new("htpasswd").args(["-Bbn", USERNAME, PASSWORD]).output().await;
        let hashed =
            hashed.expect("this check needs htpasswd (`scripts/test` installs apache2-utils)").stdout;
        std::fs::write(registry.path("htpasswd"), hashed).unwrap();
        registry
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    async fn serve(&self, with_password: bool) -> Child {
        let (data, htpasswd) = (self.path("data"), self.path("htpasswd"));
        let password = format!("auth: {{ htpasswd: {{ realm: check, path: {htpasswd} }} }}\n");
        let config = format!(
            "version: 0.1\nstorage: {{ filesystem: {{ rootdirectory: {data} }} }}\nhttp: {{ addr: {} }}\n{}",
            self.server,
            if with_password { password.as_str() } else { "" }
        );
        std::fs::write(self.path("config.yml"), config).unwrap();
        let serving = Command::new("docker-registry")
            .args(["serve", &self.path("config.yml")])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("this check needs docker-registry (`scripts/test` installs it)");
        let listens = async {
            while TcpStream::connect(&self.server).await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(BOUND, listens).await.expect("the registry listens");
        serving
    }

    /// Has it keep an image of the engine's, under the name that is returned; the engine does not know that name.
    async fn keep(&self, stack: &Stack, image: &str) -> String {
        let docker = stack.engine.docker();
        let name = format!("{}/{}", self.server, stack.cluster);
        let tag = |tag: &str| TagImageOptions { repo: Some(name.clone()), tag: Some(tag.to_owned()) };
        docker.tag_image(image, Some(tag("1"))).await.unwrap();
        let mut serving = self.serve(false).await;
        let options = PushImageOptions { tag: Some("1".to_owned()), ..PushImageOptions::default() };
        let pushed: Result<Vec<_>, _> = docker.push_image(&name, Some(options), None).try_collect().await;
        pushed.expect("it takes the image");
        serving.kill().await.unwrap();
        let kept = format!("{name}:1");
        docker.remove_image(&kept, None::<RemoveImageOptions>, None).await.unwrap();
        kept
    }
}

/// As `docker login` writes it.
fn log_in(path: &Path, server: &str, password: &str) {
    let content = serde_json::json!({"auths": {server: {"username": USERNAME, "password": password}}});
    std::fs::write(path, content.to_string()).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

/// Whether the important service is held back for this, with all of its old containers running.
fn held_back(snapshot: &Snapshot, code: &str) -> bool {
    service(snapshot, IMPORTANT).is_some_and(|it| {
        it.running == 4 && it.outdated == 4 && it.limited_by.iter().any(|limit| limit == code)
    })
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_said_and_stops_the_rollout() {
    let stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(4).await.unwrap();
    stack.runs(4, BOUND).await.unwrap();
    stack.snapshot_until("success", BOUND, |snapshot| snapshot.success == Some(true)).await.unwrap();
    let before = std::fs::read_to_string(stack.scheduler.config()).unwrap();
    let own = before.lines().find_map(|line| line.strip_prefix("image = \"")?.strip_suffix('"')).unwrap();

    let registry = Registry::new().await;
    let kept = registry.keep(&stack, own).await;
    let logins = registry.directory.path().join("config.json");
    log_in(&logins, &registry.server, "wrong");
    let changed = before.replacen(own, &kept, 1);
    configure(&stack, &format!("docker_config_file = \"{}\"\n{changed}", logins.display())).await;

    let unreachable = |snapshot: &Snapshot| held_back(snapshot, "registry_unreachable");
    stack.snapshot_until("a registry that is away", BOUND, unreachable).await.unwrap();
    let _serving = registry.serve(true).await;
    let denied = |snapshot: &Snapshot| held_back(snapshot, "registry_denied");
    let snapshot = stack.snapshot_until("a wrong password", RETRY_BOUND, denied).await.unwrap();
    let reason = service(&snapshot, IMPORTANT).and_then(|it| it.reason.clone()).unwrap_or_default();
    assert!(reason.contains(&format!("registry {} refuses", registry.server)), "{reason}");

    log_in(&logins, &registry.server, PASSWORD);
    let rolled_out = |snapshot: &Snapshot| {
        snapshot.success == Some(true) && service(snapshot, IMPORTANT).is_some_and(|it| it.outdated == 0)
    };
    stack.snapshot_until("the rollout's end", RETRY_BOUND + BOUND, rolled_out).await.unwrap();

    let log = stack.scheduler.log();
    assert!(!log.contains(PASSWORD), "a password is never logged");
    for code in ["registry_unreachable", "registry_denied"] {
        let told =
            log.lines().filter(|line| line.contains("cannot be prepared") && line.contains(code)).count();
        assert_eq!(told, 1, "{code} is said once, however often it is tried:\n{log}");
    }
    stack.checked_timeline().await.unwrap();
    // What was made of it has to go before it.
    configure(&stack, &before).await;
    stack.snapshot_until("the rollout is undone", RETRY_BOUND, rolled_out).await.unwrap();
    stack.engine.docker().remove_image(&kept, None::<RemoveImageOptions>, None).await.unwrap();
}
