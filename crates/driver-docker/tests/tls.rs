//! TLS to a real engine that lets nobody in without a certificate that it trusts (`dockerd --tlsverify`).

mod support;

use std::path::Path;
use std::time::Duration;

use driver::{Driver as _, DriverError};
use driver_docker::{DockerDriver, EngineAddress, TlsFiles};
use support::{Authority, Cluster, DockerFixture, PATIENCE, Pair, TlsEngine, Validity, observe, running};

/// The suite that every driver passes, over TLS.
mod conformance {
    use super::{DockerFixture, TlsEngine};

    fn fixture() -> DockerFixture {
        TlsEngine::get();
        DockerFixture::new()
    }

    driver_testkit::conformance_tests!(fixture(), flavor = "multi_thread", worker_threads = 2);
}

fn cluster() -> Cluster {
    TlsEngine::get();
    Cluster::new()
}

fn driver(cluster: &Cluster, tls: Option<TlsFiles>) -> DockerDriver {
    DockerDriver::new(driver_docker::DockerConfig { tls, ..cluster.config() })
}

/// Files with which the engine is asked by `pair`, and is to be signed by `authority`.
fn driver_with(cluster: &Cluster, directory: &Path, pair: &Pair, authority: &Authority) -> DockerDriver {
    driver(cluster, Some(pair.write(directory, authority)))
}

async fn refusal(driver: &DockerDriver) -> String {
    let error = driver.observe().await.expect_err("it is refused");
    assert!(matches!(error, DriverError::Unreachable { .. }), "nothing was asked: {error}");
    error.to_string()
}

#[tokio::test]
async fn an_engine_that_another_ca_has_signed_is_not_spoken_to() {
    let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
    let engine = TlsEngine::get();
    let driver =
        driver_with(&cluster, directory.path(), &engine.authority.client(Validity::Now), &Authority::new());
    let text = refusal(&driver).await;
    assert!(text.contains("is not signed by any in ca_file"), "{text}");
}

#[tokio::test]
async fn a_certificate_that_the_engine_does_not_trust_is_said_to_be_the_trouble() {
    let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
    let engine = TlsEngine::get();
    for (pair, what) in [
        (Authority::new().client(Validity::Now), "of another CA"),
        (engine.authority.client(Validity::Past), "expired"),
    ] {
        let text = refusal(&driver_with(&cluster, directory.path(), &pair, &engine.authority)).await;
        assert!(text.contains("it refuses our certificate"), "{what}: {text}");
    }
}

#[tokio::test]
async fn without_tls_the_engine_says_what_is_missing() {
    let error = driver(&cluster(), None).observe().await.expect_err("it is refused");
    let text = error.to_string();
    assert!(text.contains("Client sent an HTTP request to an HTTPS server"), "{text}");
}

#[tokio::test]
async fn an_engine_is_known_by_the_name_in_its_address() {
    let cluster = cluster();
    let mut config = cluster.config();
    // The same engine by a name that its certificate does not have.
    let EngineAddress::Tcp(authority) = &config.engine else { panic!("it listens on tcp") };
    let [a, b, c, d] = authority.split(':').next().unwrap().parse::<std::net::Ipv4Addr>().unwrap().octets();
    let mapped = format!("[::ffff:{a}.{b}.{c}.{d}]:2376");
    config.engine = EngineAddress::Tcp(mapped);
    let text = refusal(&DockerDriver::new(config)).await;
    assert!(text.contains("its certificate is for other names"), "{text}");
}

#[tokio::test]
async fn an_engine_without_tls_is_told_from_one_with() {
    let cluster = cluster();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut config = cluster.config();
    config.engine = EngineAddress::Tcp(listener.local_addr().unwrap().to_string());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _ =
                tokio::io::AsyncWriteExt::write_all(&mut client, b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        }
    });
    let text = refusal(&DockerDriver::new(config)).await;
    assert!(text.contains("it does not answer in TLS"), "{text}");
}

#[tokio::test]
async fn renewed_files_are_used_without_a_restart_and_bad_ones_are_not() {
    let (cluster, directory) = (cluster(), tempfile::tempdir().unwrap());
    let engine = TlsEngine::get();
    let stranger = Authority::new();
    let driver = driver_with(&cluster, directory.path(), &stranger.client(Validity::Now), &engine.authority);
    refusal(&driver).await;

    let good = engine.authority.client(Validity::Now);
    let files = good.write(directory.path(), &engine.authority);
    until(async || driver.observe().await.is_ok()).await;
    let id = running(&driver, 1).await;

    // Half of a renewal, and then garbage: those that were good stay in use.
    std::fs::write(&files.cert_file, &engine.authority.client(Validity::Now).certificate).unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(observe(&driver).await.containers.len(), 1);
    std::fs::write(&files.key_file, "garbage").unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert_eq!(observe(&driver).await.containers[0].id, id);

    // Whatever can be used is used, whatever the engine says to it.
    stranger.client(Validity::Now).write(directory.path(), &engine.authority);
    until(async || driver.observe().await.is_err()).await;
    let text = refusal(&driver).await;
    assert!(text.contains("it refuses our certificate"), "{text}");
}

/// Files are looked at once a second.
async fn until(holds: impl AsyncFn() -> bool) {
    let given_up = std::time::Instant::now() + PATIENCE;
    while !holds().await {
        assert!(std::time::Instant::now() < given_up, "it does not come to hold");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[test]
fn files_that_cannot_be_used_are_refused_with_the_key_at_fault() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new();
    let (pair, other) = (authority.client(Validity::Now), authority.client(Validity::Now));
    let files = pair.write(directory.path(), &authority);
    assert!(files.check().is_ok());
    let refused = |change: &dyn Fn(), key: &str, words: &str| {
        pair.write(directory.path(), &authority);
        change();
        let (found, error) = files.check().expect_err(words);
        let text = error.to_string();
        assert!(found == key && text.contains(words), "{found}: {text}");
        assert!(text.starts_with(directory.path().to_str().unwrap()), "{text}");
        assert!(!text.contains("PRIVATE") || text.contains("give one"), "{text}");
    };
    let write = |path: &Path, text: &str| std::fs::write(path, text).unwrap();
    refused(&|| std::fs::remove_file(&files.ca_file).unwrap(), "ca_file", "cannot be read: No such file");
    refused(&|| write(&files.ca_file, ""), "ca_file", "holds no certificate");
    refused(&|| write(&files.ca_file, &pair.key), "ca_file", "holds no certificate");
    refused(
        &|| write(&files.cert_file, "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n"),
        "cert_file",
        "not in PEM form",
    );
    refused(
        &|| write(&files.cert_file, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        "cert_file",
        "not a certificate",
    );
    refused(&|| write(&files.key_file, &pair.certificate), "key_file", "holds no private key");
    refused(
        &|| write(&files.key_file, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        "key_file",
        "cannot be used as a key",
    );
    refused(&|| write(&files.key_file, &other.key), "key_file", "not the key of the certificate in");
    refused(&|| expose(&files.key_file), "key_file", "too many have access (mode 644); run: chmod 600");
    refused(
        &|| {
            std::fs::remove_file(&files.key_file).unwrap();
            std::fs::create_dir(&files.key_file).unwrap();
        },
        "key_file",
        "not a regular file",
    );
}

fn expose(path: &Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}
