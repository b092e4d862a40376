//! Pulling an image: ahead of need, a few at once, for as long as it makes progress.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bollard::auth::DockerCredentials;
use bollard::errors::Error as EngineError;
use bollard::models::{CreateImageInfo, ErrorDetail};
use driver::{DriverError, PullProgress};
use futures_util::{Stream, StreamExt as _, TryFutureExt as _};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::info;

use crate::config::Limits;
use crate::connection::Connection;
use crate::error::{Errors, Refusal};
use crate::registry::{self, Registries, RegistryError};
use crate::tale::{Broken, Tale};

/// Turns of one engine. A pull waits for one, and keeps it for [`Limits::pull_turn_ms`] at most. Each loads several
/// layers side by side, and what one pull leaves of the line and the disk, a second takes.
const TURNS: usize = 2;
/// So many bytes over the line are progress, and fewer are not: with the time that a pull may go without, the least rate
/// of one that is not given up. Engines tell of half as many at a time.
const PROGRESS_BYTES_MIN: u64 = 1024 * 1024;
/// The login at a registry is waited for no longer: its file may be on a mount that hangs.
const LOGIN_WAIT: Duration = Duration::from_secs(10);
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
    turn: Duration,
    turns: Semaphore,
    /// For whoever reads a login. One that hangs is to hold one thread, and not one more at each try.
    reading: Arc<Semaphore>,
    progress: Mutex<AllProgress>,
}

/// How far those are that are under way or wait for their turn: by image, and a number each.
#[derive(Default)]
struct AllProgress {
    begun: u64,
    pulls: BTreeMap<(String, u64), Progress>,
}

/// How far one pull is.
#[derive(Clone, Copy)]
struct Progress {
    queued: bool,
    done_bytes: u64,
    total_bytes: u64,
    /// When there was progress last, or it was asked for.
    advanced_at: Instant,
    /// How many bytes there were then.
    advanced_bytes: u64,
}

impl Progress {
    fn queued() -> Self {
        Self { queued: true, done_bytes: 0, total_bytes: 0, advanced_at: Instant::now(), advanced_bytes: 0 }
    }

    /// Takes in what the engine tells.
    fn take_in(&mut self, layers: &mut HashMap<String, Bytes>, news: CreateImageInfo) {
        // Bytes are counted. A try that comes to nothing is no progress, and neither is the wait for the next.
        let waits = |status: &str| status == "Downloading" || status.starts_with("Retrying");
        let is_progress = !news.status.as_deref().is_some_and(waits);
        let all = count(layers, news);
        (self.done_bytes, self.total_bytes) = (all.done, all.total);
        self.advanced_bytes = self.advanced_bytes.min(all.done);
        if is_progress || all.done - self.advanced_bytes >= PROGRESS_BYTES_MIN {
            (self.advanced_at, self.advanced_bytes) = (Instant::now(), all.done);
        }
    }
}

impl Pulls {
    pub(crate) fn new(
        connection: Connection,
        errors: Errors,
        registries: Registries,
        limits: Limits,
    ) -> Self {
        Self {
            connection,
            errors,
            registries: Arc::new(registries),
            stall: Duration::from_millis(limits.pull_stall_ms),
            turn: Duration::from_millis(limits.pull_turn_ms),
            turns: Semaphore::new(TURNS),
            reading: Arc::new(Semaphore::new(1)),
            progress: Mutex::default(),
        }
    }

    /// How far the pull of an image is; of several, the one that is the furthest.
    pub(crate) fn progress(&self, image: &str) -> Option<PullProgress> {
        let progress = self.progress.lock().expect("nothing panics while holding it");
        let of_image = (image.to_owned(), 0)..=(image.to_owned(), u64::MAX);
        let pulls = progress.pulls.range(of_image).map(|(_, pull)| pull);
        let furthest = pulls.max_by_key(|pull| (!pull.queued, pull.done_bytes))?;
        let Progress { queued, done_bytes, total_bytes, advanced_at, .. } = *furthest;
        Some(PullProgress { done_bytes, total_bytes, queued, idle: advanced_at.elapsed() })
    }

    /// Has the engine pull an image. Dropping this gives the pull up.
    pub(crate) async fn pull(&self, image: &str) -> Result<(), DriverError> {
        let under_way = UnderWay::new(&self.progress, image);
        let mut turn = Some(self.turns.acquire().await.expect("the semaphore is never closed"));
        let turn_over = Instant::now() + self.turn;
        let server = registry::server_of(image);
        let credentials = self.credentials(&server).await.map_err(|words| {
            self.errors.rejected(CALL, "registry_denied", format!("no login for registry {server}: {words}"))
        })?;
        let logs_in = credentials.is_some();
        let (name, tag) = registry::tag_of(image);
        let question = question(name, tag);
        let mut news = self.news(&question, credentials.as_ref()).boxed();
        let mut layers = HashMap::new();
        let mut comes = false;
        let mut progress = Progress { queued: false, ..Progress::queued() };
        loop {
            under_way.set(progress);
            let next = tokio::select! {
                next = news.next() => next,
                () = sleep_until(turn_over), if turn.is_some() => {
                    turn = None;
                    continue;
                }
                () = sleep_until(progress.advanced_at + self.stall) => {
                    let message = format!(
                        "the pull of image {image} from {server} made no progress for {} s ({} bytes came): see to the \
                         registry, or the way there",
                        self.stall.as_secs(),
                        progress.done_bytes - progress.advanced_bytes
                    );
                    return Err(self.errors.rejected(CALL, "pull_stalled", message));
                }
            };
            match next {
                None => {
                    info!(engine = self.errors.engine, image, "an image has been pulled");
                    return Ok(());
                }
                Some(Ok(news)) => {
                    progress.take_in(&mut layers, news);
                    // Not before: that it is asked for again and again is no news.
                    if progress.done_bytes > 0 && !std::mem::replace(&mut comes, true) {
                        info!(engine = self.errors.engine, image, "an image is being pulled");
                    }
                }
                Some(Err(EngineError::DockerStreamError { error })) => {
                    return Err(self.failed(image, &server, logs_in, &error));
                }
                Some(Err(error)) => {
                    let Refusal { message, .. } = self.errors.sort(CALL, error)?;
                    return Err(self.failed(image, &server, logs_in, &message));
                }
            }
        }
    }

    /// What the engine tells of a pull.
    fn news(
        &self,
        question: &str,
        credentials: Option<&DockerCredentials>,
    ) -> impl Stream<Item = Result<CreateImageInfo, EngineError>> {
        let accepted = async move {
            let body = self.connection.pull(question, credentials).await?;
            let failed = |words: String| EngineError::DockerStreamError { error: words };
            Ok(Tale::new(body).into_stream().map(move |told: Result<CreateImageInfo, _>| match told {
                Ok(CreateImageInfo {
                    error_detail: Some(ErrorDetail { message: Some(words), .. }), ..
                }) => Err(failed(words)),
                Ok(news) => Ok(news),
                Err(Broken::Cut(error)) => Err(error.into()),
                Err(broken) => Err(failed(broken.to_string())),
            }))
        };
        accepted.try_flatten_stream()
    }

    /// Reads files, which may be on a slow mount: not on the threads that everything else needs. If there is no login
    /// where there should be one, says why.
    async fn credentials(&self, server: &str) -> Result<Option<DockerCredentials>, String> {
        let (registries, server) = (Arc::clone(&self.registries), server.to_owned());
        let reading = Arc::clone(&self.reading);
        let read = async {
            let reader = reading.acquire_owned().await.expect("the semaphore is never closed");
            let read = tokio::task::spawn_blocking(move || {
                let read = registries.credentials(&server);
                drop(reader);
                read
            });
            read.await.expect("reading does not panic, and is not cancelled")
        };
        let Ok(read) = timeout(LOGIN_WAIT, read).await else {
            let waited_s = LOGIN_WAIT.as_secs();
            return Err(format!(
                "its file cannot be read within {waited_s} s: see to the mount that it is on"
            ));
        };
        read.map_err(|error: RegistryError| error.to_string())
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
            "engine" => format!("the engine cannot keep image {image}: see to its disk: {words}"),
            _ => format!("image {image} cannot be pulled from {server}: {words}"),
        };
        self.errors.rejected(CALL, code, message)
    }
}

/// For the pull of one image.
fn question(name: &str, tag: &str) -> String {
    let mut question = form_urlencoded::Serializer::new(String::new());
    question.append_pair("fromImage", name).append_pair("tag", tag).finish()
}

/// Shows a pull for as long as it is under way.
struct UnderWay<'p> {
    all: &'p Mutex<AllProgress>,
    key: (String, u64),
}

impl<'p> UnderWay<'p> {
    fn new(all: &'p Mutex<AllProgress>, image: &str) -> Self {
        let mut locked = all.lock().expect("nothing panics while holding it");
        locked.begun += 1;
        let key = (image.to_owned(), locked.begun);
        locked.pulls.insert(key.clone(), Progress::queued());
        Self { all, key }
    }

    fn set(&self, progress: Progress) {
        self.all.lock().expect("nothing panics while holding it").pulls.insert(self.key.clone(), progress);
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.all.lock().expect("nothing panics while holding it").pulls.remove(&self.key);
    }
}

/// Bytes of a layer, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Bytes {
    done: u64,
    total: u64,
}

/// Takes in what the engine tells of one layer; how far all of them are.
fn count(layers: &mut HashMap<String, Bytes>, news: CreateImageInfo) -> Bytes {
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
                layer.total = bytes(detail.total).max(layer.total);
                layer.done = bytes(detail.current);
            }
            Some("Verifying Checksum" | "Download complete") => {
                if let Some(layer) = layers.get_mut(&id) {
                    layer.done = layer.total;
                }
            }
            // The registry's start line, and what does not come over the line.
            _ => {}
        }
    }
    layers.values().fold(Bytes::default(), |sum, layer| Bytes {
        done: sum.done.saturating_add(layer.done),
        total: sum.total.saturating_add(layer.total),
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
    } else if is_of_a_file(&words) || has(&["failed to register layer", "dial unix", "read-only file system"])
    {
        "engine"
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

/// Whether something is wrong with a file of the engine's own, in the words of its operating system: `open /path: permission
/// denied`. What registries refuse has no path before it.
fn is_of_a_file(words: &str) -> bool {
    [": permission denied", ": operation not permitted", ": input/output error"].iter().any(|problem| {
        words
            .match_indices(problem)
            .any(|(at, _)| words[..at].rsplit(' ').next().is_some_and(|before| before.starts_with('/')))
    })
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
            ("open /var/lib/docker/tmp/GetImageBlob1: permission denied", "engine"),
            (
                "failed to register layer: Error processing tar file(exit status 1): operation not permitted",
                "engine",
            ),
            ("mkdir /var/lib/docker/overlay2/1: read-only file system", "engine"),
            ("denied: permission denied", "registry_denied"),
            (r#"denied: Permission "downloadArtifacts" denied on resource"#, "registry_denied"),
            (
                r#"Get "https://r/v2/": dial tcp 10.0.0.2:443: connect: permission denied"#,
                "registry_unreachable",
            ),
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
        for (news, done, total) in [
            (news("latest", "Pulling from w", 0, 0), 0, 0),
            (news("a", "Downloading", 10, 100), 10, 100),
            (news("b", "Downloading", 5, 50), 15, 150),
            (news("a", "Download complete", 0, 0), 105, 150),
            (news("a", "Extracting", 1, 100), 105, 150),
            (news("c", "Already exists", 0, 0), 105, 150),
            (news("b", "Downloading", -1, -1), 100, 150),
        ] {
            assert_eq!(count(&mut layers, news), Bytes { done, total });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_trickle_is_no_progress() {
        let news = |status: &str, current| CreateImageInfo {
            id: Some("a".to_owned()),
            status: Some(status.to_owned()),
            progress_detail: Some(ProgressDetail { current: Some(current), total: Some(1 << 30) }),
            ..CreateImageInfo::default()
        };
        let (mut layers, mut progress) = (HashMap::new(), Progress::queued());
        let mut idle_s = |news| {
            progress.take_in(&mut layers, news);
            progress.advanced_at.elapsed().as_secs()
        };
        for (status, current, idle) in [
            ("Downloading", 1, 1),
            ("Downloading", (1 << 20) - 1, 2),
            ("Downloading", 1 << 20, 0),
            ("Downloading", 3 << 19, 1),
            ("Retrying in 5 seconds", 0, 2),
            // It begins again, and what had come counts for nothing.
            ("Downloading", 1, 3),
            ("Downloading", 1 << 20, 4),
            ("Downloading", (1 << 20) + 1, 0),
            ("Downloading", (1 << 20) + 2, 1),
            // The engine works on what has come.
            ("Extracting", 1, 0),
        ] {
            tokio::time::advance(Duration::from_secs(1)).await;
            assert_eq!(idle_s(news(status, current)), idle, "{status} {current}");
        }
    }
}
