//! Pulling an image: ahead of need, a few at once, for as long as it makes progress.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::models::CreateImageInfo;
use bollard::query_parameters::CreateImageOptionsBuilder;
use driver::{DriverError, PullProgress};
use futures_util::StreamExt as _;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::info;

use crate::connection::Connection;
use crate::error::{Errors, Refusal};
use crate::registry::{self, Registries, RegistryError};

/// Pulls at once on one engine; the rest wait their turn. Each loads several layers side by side, and what one pull
/// leaves of the line and the disk, a second takes.
const PULLS_AT_ONCE: usize = 2;
/// Layers of one image that are counted: engines allow 127.
const LAYERS_MAX: usize = 256;
/// The call of the driver, for errors.
const CALL: &str = "prepare";

/// The pulls of one engine.
pub(crate) struct Pulls {
    connection: Connection,
    errors: Errors,
    registries: Arc<Registries>,
    stall: Duration,
    turns: Semaphore,
    /// Those under way, by image.
    progress: Mutex<HashMap<String, PullProgress>>,
}

impl Pulls {
    pub(crate) fn new(connection: Connection, errors: Errors, registries: Registries, stall_ms: u64) -> Self {
        Self {
            connection,
            errors,
            registries: Arc::new(registries),
            stall: Duration::from_millis(stall_ms),
            turns: Semaphore::new(PULLS_AT_ONCE),
            progress: Mutex::default(),
        }
    }

    /// How far the pull of an image is.
    pub(crate) fn progress(&self, image: &str) -> Option<PullProgress> {
        self.progress.lock().expect("nothing panics while holding it").get(image).copied()
    }

    /// Has the engine pull an image. Dropping this gives the pull up.
    pub(crate) async fn pull(&self, image: &str) -> Result<(), DriverError> {
        let _turn = self.turns.acquire().await.expect("the semaphore is never closed");
        let server = registry::server_of(image);
        let credentials = self.credentials(&server).await.map_err(|error| {
            self.errors.rejected(CALL, "registry_denied", format!("no login for registry {server}: {error}"))
        })?;
        let logs_in = credentials.is_some();
        let (name, tag) = registry::tag_of(image);
        let options = CreateImageOptionsBuilder::new().from_image(name).tag(tag).build();
        let under_way = UnderWay::new(&self.progress, image);
        let mut news = self.connection.docker().create_image(Some(options), None, credentials).boxed();
        let mut layers = HashMap::new();
        let mut comes = false;
        loop {
            match timeout(self.stall, news.next()).await {
                Err(_) => {
                    let stalled_s = self.stall.as_secs();
                    let message =
                        format!("the pull of image {image} from {server} made no progress for {stalled_s} s");
                    return Err(self.errors.rejected(CALL, "pull_stalled", message));
                }
                Ok(None) => {
                    info!(engine = self.errors.engine, image, "an image has been pulled");
                    return Ok(());
                }
                Ok(Some(Ok(news))) => {
                    let progress = count(&mut layers, news);
                    // Not before: that it is asked for again and again is no news.
                    if progress.done_bytes > 0 && !std::mem::replace(&mut comes, true) {
                        info!(engine = self.errors.engine, image, "an image is being pulled");
                    }
                    under_way.set(progress);
                }
                Ok(Some(Err(bollard::errors::Error::DockerStreamError { error }))) => {
                    return Err(self.failed(image, &server, logs_in, &error));
                }
                Ok(Some(Err(error))) => {
                    let Refusal { message, .. } = self.errors.sort(CALL, error)?;
                    return Err(self.failed(image, &server, logs_in, &message));
                }
            }
        }
    }

    /// Reads files, which may be on a slow mount: not on the threads that everything else needs.
    async fn credentials(&self, server: &str) -> Result<Option<DockerCredentials>, RegistryError> {
        let (registries, server) = (Arc::clone(&self.registries), server.to_owned());
        let reading = tokio::task::spawn_blocking(move || registries.credentials(&server));
        reading.await.expect("reading does not panic, and is not cancelled")
    }

    fn failed(&self, image: &str, server: &str, logs_in: bool, words: &str) -> DriverError {
        let words = without_queries(words);
        let code = code(&words);
        let message = match code {
            "image_missing" => {
                format!(
                    "image {image} is neither on the engine nor at registry {server}: push it, or correct its name"
                )
            }
            "registry_denied" if logs_in => {
                format!(
                    "registry {server} refuses image {image} to our login: correct the login or its rights: {words}"
                )
            }
            "registry_denied" => format!(
                "registry {server} refuses image {image} without a login: give one in docker_config_file or [[registry]]: \
                 {words}"
            ),
            "registry_unreachable" => format!(
                "image {image} is to be pulled, and the engine cannot reach registry {server}: correct the image's name, \
                 or see to the registry: {words}"
            ),
            "no_space" => format!("no space on the engine for image {image}: make room there: {words}"),
            _ => format!("image {image} cannot be pulled from {server}: {words}"),
        };
        self.errors.rejected(CALL, code, message)
    }
}

/// Shows a pull for as long as it is under way.
struct UnderWay<'p> {
    progress: &'p Mutex<HashMap<String, PullProgress>>,
    image: &'p str,
}

impl<'p> UnderWay<'p> {
    fn new(progress: &'p Mutex<HashMap<String, PullProgress>>, image: &'p str) -> Self {
        let under_way = Self { progress, image };
        under_way.set(PullProgress::default());
        under_way
    }

    fn set(&self, progress: PullProgress) {
        self.progress
            .lock()
            .expect("nothing panics while holding it")
            .insert(self.image.to_owned(), progress);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.progress.lock().expect("nothing panics while holding it").remove(self.image);
    }
}

/// Takes in what the engine tells of one layer; how far all of them are.
fn count(layers: &mut HashMap<String, PullProgress>, news: CreateImageInfo) -> PullProgress {
    if let Some(id) = news.id
        && (layers.len() < LAYERS_MAX || layers.contains_key(&id))
    {
        match news.status.as_deref() {
            Some("Downloading") => {
                let bytes = |bytes: Option<i64>| {
                    bytes.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or_default()
                };
                let detail = news.progress_detail.unwrap_or_default();
                let layer = layers.entry(id).or_default();
                layer.total_bytes = bytes(detail.total).max(layer.total_bytes);
                layer.done_bytes = bytes(detail.current);
            }
            Some("Verifying Checksum" | "Download complete") => {
                if let Some(layer) = layers.get_mut(&id) {
                    layer.done_bytes = layer.total_bytes;
                }
            }
            // The registry's start line, and what does not come over the line.
            _ => {}
        }
    }
    layers.values().fold(PullProgress::default(), |sum, layer| PullProgress {
        done_bytes: sum.done_bytes.saturating_add(layer.done_bytes),
        total_bytes: sum.total_bytes.saturating_add(layer.total_bytes),
    })
}

/// The code for an engine's words about a pull that has failed. It has a status for a few of them only: the rest are
/// the registry's words, or its own about the way there. Images are named there too: what could be a part of a name
/// comes last.
fn code(words: &str) -> &'static str {
    let words = words.to_ascii_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| words.contains(part));
    if has(&["no space left on device"]) {
        "no_space"
    } else if has(&[
        "manifest unknown",
        "not found: ",
        "no such image",
        "name unknown",
        "no matching manifest",
    ]) {
        "image_missing"
    } else if has(&[
        "dial tcp",
        "no such host",
        "connection refused",
        "connection reset",
        "i/o timeout",
        "timeout exceeded",
        "tls handshake",
        "server gave http response to https client",
        "x509",
        "unexpected eof",
        "service unavailable",
        "bad gateway",
    ]) {
        "registry_unreachable"
    } else if has(&[
        "unauthorized",
        "no basic auth credentials",
        "denied",
        "authentication required",
        "forbidden",
    ]) {
        "registry_denied"
    } else {
        "pull_failed"
    }
}

/// Without what URLs carry after their path: a registry's links to its storage are signed there.
fn without_queries(words: &str) -> String {
    let mut shown = String::with_capacity(words.len());
    let mut skips = false;
    for character in words.chars() {
        skips = match character {
            '?' => true,
            '"' | '\'' | ' ' => false,
            _ => skips,
        };
        if !skips {
            shown.push(character);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use bollard::models::ProgressDetail;

    use super::*;

    #[test]
    fn what_an_engine_says_of_a_failed_pull_has_a_code() {
        for (words, expected) in [
            (
                r#"Head "http://127.0.0.1:5055/v2/w/manifests/1": no basic auth credentials"#,
                "registry_denied",
            ),
            ("unauthorized: authentication required", "registry_denied"),
            (
                "pull access denied for nope, repository does not exist or may require 'docker login': denied: requested \
                 access to the resource is denied",
                "registry_denied",
            ),
            (
                "manifest for 127.0.0.1:5055/w:nope not found: manifest unknown: manifest unknown",
                "image_missing",
            ),
            (
                "manifest for r/forbidden-denied:1 not found: manifest unknown: manifest unknown",
                "image_missing",
            ),
            (
                r#"Head "https://r/v2/denied/manifests/1": dial tcp 10.0.0.2:443: i/o timeout"#,
                "registry_unreachable",
            ),
            (
                r#"Get "http://127.0.0.1:5056/v2/": dial tcp 127.0.0.1:5056: connect: connection refused"#,
                "registry_unreachable",
            ),
            (
                r#"Get "https://x.invalid/v2/": dial tcp: lookup x.invalid on 10.0.0.2:53: no such host"#,
                "registry_unreachable",
            ),
            ("Get https://r/v2/: net/http: TLS handshake timeout", "registry_unreachable"),
            ("write /var/lib/docker/tmp/GetImageBlob1: no space left on device", "no_space"),
            ("filesystem layer verification failed for digest sha256:ab", "pull_failed"),
        ] {
            assert_eq!(code(words), expected, "{words}");
        }
    }

    #[test]
    fn links_are_shown_without_what_signs_them() {
        assert_eq!(
            without_queries(r#"Get "https://s/blob?X-Signature=hunter2&b=1": dial tcp: what?"#),
            r#"Get "https://s/blob": dial tcp: what"#
        );
    }

    #[test]
    fn layers_are_counted_together() {
        let news = |id: &str, status: &str, current, total| CreateImageInfo {
            id: Some(id.to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(total) }),
            ..CreateImageInfo::default()
        };
        let mut layers = HashMap::new();
        for (news, done_bytes, total_bytes) in [
            (news("latest", "Pulling from w", 0, 0), 0, 0),
            (news("a", "Downloading", 10, 100), 10, 100),
            (news("b", "Downloading", 5, 50), 15, 150),
            (news("a", "Download complete", 0, 0), 105, 150),
            (news("a", "Extracting", 1, 100), 105, 150),
            (news("c", "Already exists", 0, 0), 105, 150),
            (news("b", "Downloading", -1, -1), 100, 150),
        ] {
            assert_eq!(count(&mut layers, news), PullProgress { done_bytes, total_bytes });
        }
    }
}
