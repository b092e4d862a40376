//! A changed config file, applied while the service runs, whole or not at all.

use std::convert::Infallible;
use std::fs;
use std::future::Future;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, timeout};

/// How often a file is looked at. Looking costs one system call, and works where notifications do not: mounts of
/// other file systems, and files that are put in the place of others.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A look that takes longer is said in the log: the file is on a mount that hangs. Nothing else waits for it.
const LOOK_LATE: Duration = Duration::from_secs(10);

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
    /// What such a file says.
    type Config: Send + 'static;

    /// Reads the file at `path`, and those that it names. On a thread of its own: any of them may be on a mount that hangs.
    fn read(path: &Path) -> Result<Self::Config, Refused>;

    /// Puts what was read in force, whole or not at all. `false` if it was in force already.
    fn apply(&mut self, config: Self::Config) -> impl Future<Output = Result<bool, Refused>> + Send;
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

    /// Looks at the file: whether it is another one than at the last look; and what `read` makes of it if it is, or is to
    /// be read again.
    ///
    /// Not on the threads that everything else needs: the file may be on a mount that hangs. A look that is given up was
    /// none, but for one thread that it may hold.
    pub(crate) async fn look<T: Send + 'static>(
        &mut self,
        again: bool,
        read: fn(&Path) -> T,
    ) -> (bool, Option<T>) {
        let (path, before) = (self.path.clone(), self.stamp);
        let mut looking = spawn_blocking(move || {
            let stamp = Stamp::of(&path);
            let changed = stamp != before;
            (stamp, changed, (changed || again).then(|| read(&path)))
        });
        let looked = if let Ok(looked) = timeout(LOOK_LATE, &mut looking).await {
            looked
        } else {
            tracing::warn!(
                file = %self.path.display(),
                "a file cannot be looked at, and what it said before holds: see to the mount that it is on"
            );
            looking.await
        };
        let (stamp, changed, read) = looked.expect("looking does not panic, and is not cancelled");
        self.stamp = stamp;
        (changed, read)
    }

    /// Looks at the file for ever, and has each change applied. What is refused is logged once, and the gauge
    /// `force12_config_refused` says so for as long as it lasts.
    pub async fn follow<A: Apply>(&mut self, apply: &mut A) -> Infallible {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let again = matches!(self.refused, Some(Refused::Now(_)));
            let (changed, read) = self.look(again, A::read).await;
            let outcome = match read {
                None => continue,
                Some(Ok(config)) => apply.apply(config).await,
                Some(Err(refused)) => Err(refused),
            };
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
    use std::sync::{Arc, Mutex, mpsc};

    use super::*;

    /// Applies a file that says `good`; one that says `later` is refused for now, anything else until it is mended.
    struct Words(Arc<Mutex<Vec<String>>>);

    impl Apply for Words {
        type Config = String;

        fn read(path: &Path) -> Result<String, Refused> {
            Ok(fs::read_to_string(path).unwrap_or_default())
        }

        async fn apply(&mut self, text: String) -> Result<bool, Refused> {
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
        let mut before = Stamp::of(&path);
        let mut has_changed = || {
            let stamp = Stamp::of(&path);
            std::mem::replace(&mut before, stamp) != stamp
        };
        assert!(!has_changed());
        fs::write(&path, "the same").unwrap();
        assert!(has_changed() && !has_changed());
        let other = directory.path().join("b.toml");
        fs::write(&other, "the same").unwrap();
        fs::rename(&other, &path).unwrap();
        assert!(has_changed(), "of the same length, and perhaps of the same moment");
        // More often than can be within one tick of a file system's clock.
        let noticed = (0..100_000).any(|_| {
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            has_changed()
        });
        assert!(noticed, "it may be readable now, or fit for a secret");
    }

    #[tokio::test]
    async fn a_file_that_hangs_keeps_nothing_else_waiting() {
        let directory = tempfile::TempDir::new().unwrap();
        // Whoever opens it waits for its writer.
        let path = directory.path().join("hangs");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (release, released) = mpsc::channel::<()>();
        let writer = std::thread::spawn({
            let path = path.clone();
            move || {
                let _ = released.recv_timeout(Duration::from_secs(20));
                fs::write(path, "good").unwrap();
            }
        });
        let tried = Arc::new(Mutex::new(Vec::new()));
        let mut watched = Watched::unseen(&path);
        let mut words = Words(Arc::clone(&tried));
        tokio::select! {
            never = watched.follow(&mut words) => match never {},
            // On the same thread, the only one of this runtime: as a scheduler that stands by moves its deadline on.
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
        assert!(watched.stamp.is_none(), "what has not been read counts as not seen");
        assert!(tried.lock().unwrap().is_empty());
        drop(release);
        writer.join().unwrap();
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
