//! A changed config file, applied while the service runs, whole or not at all.

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::MissedTickBehavior;

/// How often a file is looked at. Looking costs one system call, and works where notifications do not: mounts of
/// other file systems, and files that are put in the place of others.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Tells the recorder what each metric of reloading means. Call it once, when the recorder is installed.
pub fn describe_metrics() {
    metrics::describe_counter!(
        "force12_config_reloads_total",
        "Changed configuration files, by their outcome."
    );
    metrics::describe_gauge!(
        "force12_config_refused",
        "1 while the configuration file says something that was refused, otherwise 0."
    );
}

/// A file, as it was when it was looked at last.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    stamp: Option<Stamp>,
    /// Why what it says is not in force.
    refused: Option<Refused>,
}

/// By what a changed file is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// When its content was changed, or who may read it: that mends a file too. Seconds and nanoseconds.
    changed: (i64, i64),
    bytes: u64,
    inode: u64,
}

impl Stamp {
    /// Of the file at `path`; `None` if there is none.
    pub(crate) fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Some(Self { changed, bytes: metadata.len(), inode: metadata.ino() })
    }
}

/// Why a changed file is not in force.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It has to be mended.
    #[error("{0}")]
    File(String),
    /// It may become possible without a change of the file, such as when an instance has been emptied; tried again
    /// at each look.
    #[error("{0}")]
    Now(String),
}

/// Puts what a config file says in force.
pub trait Apply: Send {
    /// Reads the file at `path` and puts it in force, whole or not at all. `false` if it was in force already.
    fn apply(&mut self, path: &Path) -> impl Future<Output = Result<bool, Refused>> + Send;
}

impl Watched {
    /// The file at `path`, as it is now. To be called before the file is read: a change in between is seen then.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), stamp: Stamp::of(path), refused: None }
    }

    /// The file at `path`, which counts as changed when it is looked at for the first time.
    pub(crate) fn unseen(path: &Path) -> Self {
        Self { path: path.to_owned(), stamp: None, refused: None }
    }

    /// Whether the file is another one than at the last look.
    pub fn has_changed(&mut self) -> bool {
        let stamp = Stamp::of(&self.path);
        std::mem::replace(&mut self.stamp, stamp) != stamp
    }

    /// Looks at the file for ever, and has each change applied. What is refused is logged once, and the gauge
    /// `force12_config_refused` says so for as long as it lasts.
    pub async fn follow(&mut self, apply: &mut impl Apply) -> Infallible {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let changed = self.has_changed();
            if !changed && !matches!(self.refused, Some(Refused::Now(_))) {
                continue;
            }
            let outcome = apply.apply(&self.path).await;
            if !changed && outcome.as_ref().err() == self.refused.as_ref() {
                continue;
            }
            match &outcome {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(file = %self.path.display(), "changed configuration applied");
                    metrics::counter!("force12_config_reloads_total", "outcome" => "applied").increment(1);
                }
                Err(error) => {
                    for line in error.to_string().lines() {
                        tracing::error!("changed configuration refused, the one before holds: {line}");
                    }
                    metrics::counter!("force12_config_reloads_total", "outcome" => "refused").increment(1);
                }
            }
            self.refused = outcome.err();
            metrics::gauge!("force12_config_refused").set(if self.refused.is_some() { 1.0 } else { 0.0 });
        }
    }
}

/// Refuses a change of what is bound or read once, at the start: each key with whether it has changed.
pub fn needs_no_restart(keys: &[(&str, bool)]) -> Result<(), Refused> {
    let changed: Vec<&str> = keys.iter().filter_map(|(key, changed)| changed.then_some(*key)).collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(Refused::File(format!(
        "{} cannot change while the service runs; restart it, or take the change back",
        changed.join(" and ")
    )))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Applies a file that says `good`; one that says `later` is refused for now, anything else until it is mended.
    struct Words(Arc<Mutex<Vec<String>>>);

    impl Apply for Words {
        async fn apply(&mut self, path: &Path) -> Result<bool, Refused> {
            let text = fs::read_to_string(path).unwrap_or_default();
            self.0.lock().unwrap().push(text.clone());
            match text.as_str() {
                "good" => Ok(true),
                "later" => Err(Refused::Now("not yet".to_owned())),
                _ => Err(Refused::File("bad".to_owned())),
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_applied_once_and_one_refused_for_now_again() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "first").unwrap();
        let tried = Arc::new(Mutex::new(Vec::new()));
        let mut watched = Watched::new(file.path());
        let mut words = Words(Arc::clone(&tried));
        let following = tokio::spawn(async move { watched.follow(&mut words).await });
        let looks = async |count: u32| {
            tokio::time::sleep(LOOK_INTERVAL * count).await;
            std::mem::take(&mut *tried.lock().unwrap())
        };
        assert!(looks(5).await.is_empty(), "what it was read from is no change");
        fs::write(file.path(), "good").unwrap();
        assert_eq!(looks(5).await, ["good"]);
        fs::write(file.path(), "worse").unwrap();
        assert_eq!(looks(5).await, ["worse"], "until it is mended there is nothing to try");
        fs::write(file.path(), "later").unwrap();
        assert!(looks(5).await.len() >= 4, "it may have become possible");
        fs::remove_file(file.path()).unwrap();
        assert_eq!(looks(5).await.last().unwrap(), "");
        following.abort();
    }

    #[test]
    fn a_file_put_in_the_place_of_another_is_noticed() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("a.toml");
        let mut watched = Watched::new(&path);
        assert!(!watched.has_changed());
        fs::write(&path, "the same").unwrap();
        assert!(watched.has_changed() && !watched.has_changed());
        let other = directory.path().join("b.toml");
        fs::write(&other, "the same").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(watched.has_changed(), "of the same length, and perhaps of the same moment");
        // More often than can be within one tick of a file system's clock.
        let noticed = (0..100_000).any(|_| {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            watched.has_changed()
        });
        assert!(noticed, "it may be readable now, or fit for a secret");
    }

    #[test]
    fn the_keys_that_take_a_restart_are_named() {
        assert_eq!(needs_no_restart(&[("listen", false)]), Ok(()));
        assert_eq!(
            needs_no_restart(&[("listen", true), ("a", false), ("token_file", true)])
                .unwrap_err()
                .to_string(),
            "listen and token_file cannot change while the service runs; restart it, or take the change back"
        );
    }
}
