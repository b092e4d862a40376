//! A changed configuration file, applied while the scheduler runs, whole or not at all.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use controller::{Handle, UpdateError};
use reqwest::Client;
use tokio::sync::watch;

use crate::config::{self, Loaded, Settings};
use crate::connections::Connections;

/// How often the file is looked at. Looking costs one system call, and works where notifications do not: mounts of
/// other file systems, and files that are put in the place of others.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

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

/// What runs now, and where it came from.
pub struct Reload {
    /// The file.
    pub path: PathBuf,
    /// The file's stamp when `settings` were read.
    pub stamp: Option<Stamp>,
    /// The ways to engines and demand sources that are in use.
    pub connections: Connections,
    /// For new demand sources.
    pub client: Client,
    /// The controller; `None` while there is none: what holds is then what it will start with.
    pub handle: Option<Handle>,
    /// The settings in force.
    pub settings: watch::Sender<Settings>,
}

/// By what a changed file is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl Stamp {
    /// Of the file at `path`; `None` if there is none.
    pub fn of(path: &std::path::Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;

        let metadata = std::fs::metadata(path).ok()?;
        Some(Self { modified: metadata.modified().ok(), bytes: metadata.len(), inode: metadata.ino() })
    }
}

/// Why a changed file is not in force.
#[derive(Debug, thiserror::Error)]
enum Refused {
    /// It has to be mended.
    #[error("{0}")]
    File(String),
    /// It may become possible without a change of the file.
    #[error(transparent)]
    Now(#[from] UpdateError),
}

impl Reload {
    /// Watches the file for ever. While there is no controller it may be dropped at any time, and run again.
    pub async fn run(&mut self) -> Infallible {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        // Refused for a reason that may pass by itself, such as an instance that has first to be emptied.
        let mut refused_for_now: Option<String> = None;
        loop {
            looks.tick().await;
            let stamp = Stamp::of(&self.path);
            let changed = stamp != self.stamp;
            if !changed && refused_for_now.is_none() {
                continue;
            }
            self.stamp = stamp;
            let outcome = self.apply().await;
            if let Err(Refused::Now(error)) = &outcome
                && !changed
                && refused_for_now.as_deref() == Some(&error.to_string())
            {
                continue;
            }
            refused_for_now = None;
            match outcome {
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
                    if let Refused::Now(error) = error {
                        refused_for_now = Some(error.to_string());
                    }
                    metrics::gauge!("force12_config_refused").set(1.0);
                    continue;
                }
            }
            metrics::gauge!("force12_config_refused").set(0.0);
        }
    }

    /// Whether what the file says now was put in force; `false` if it was already.
    async fn apply(&mut self) -> Result<bool, Refused> {
        let Loaded { settings, warnings } = config::load(&self.path, &|name| std::env::var(name).ok())
            .map_err(|error| Refused::File(error.to_string()))?;
        let before = self.settings.borrow().clone();
        if settings == before {
            return Ok(false);
        }
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        needs_no_restart(&before, &settings).map_err(Refused::File)?;
        if let Some(handle) = &self.handle {
            let connections = self.connections.changed_to(&settings, &self.client);
            handle.update(settings.controller.clone(), connections.engines()).await?;
            self.connections = connections;
        }
        self.settings.send_replace(settings);
        Ok(true)
    }
}

/// Refuses changes to what is bound or read once, at the start.
fn needs_no_restart(before: &Settings, after: &Settings) -> Result<(), String> {
    let changed: Vec<&str> = [
        ("listen", before.listen != after.listen),
        ("token_file", before.token_file != after.token_file),
        ("allowed_hosts", before.allowed_hosts != after.allowed_hosts),
        ("lock_file or stalled_after_ms", before.lock != after.lock),
    ]
    .into_iter()
    .filter_map(|(key, changed)| changed.then_some(key))
    .collect();
    if changed.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} cannot change while the scheduler runs; restart it, or take the change back",
        changed.join(" and ")
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use controller::{Clock, Controller, Parts};

    use super::*;

    const CONFIG: &str = r#"cluster = "reload-test"

[[instance]]
name = "instance-1"
engine = "unix:///nonexistent/docker.sock"
capacity = { slots = 3 }

[[service]]
name = "batch"
priority = 2
image = "example/batch"
fill = true
"#;

    /// What runs by a file that says `CONFIG`, on an engine that is not there.
    fn running(path: &Path) -> Reload {
        std::fs::write(path, CONFIG).unwrap();
        let settings = config::load(path, &|_| None).unwrap().settings;
        let client = crate::demand::client().unwrap();
        let connections = Connections::default().changed_to(&settings, &client);
        let (controller, handle) = Controller::new(Parts {
            settings: settings.controller.clone(),
            engines: connections.engines(),
            clock: Clock::system(),
            seed: 12,
            epoch: "test".to_owned(),
        })
        .unwrap();
        tokio::spawn(controller.run());
        let stamp = Stamp::of(path);
        Reload {
            path: path.to_owned(),
            stamp,
            connections,
            client,
            handle: Some(handle),
            settings: watch::Sender::new(settings),
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_applied_whole_or_not_at_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut reload = running(file.path());
        let slots = |reload: &Reload| reload.settings.borrow().controller.instances[0].capacity.slots;
        let write = |from: &str, to: &str| std::fs::write(file.path(), CONFIG.replace(from, to)).unwrap();

        assert!(!reload.apply().await.unwrap(), "the same is no change");
        std::fs::write(file.path(), format!("# a remark\n{CONFIG}")).unwrap();
        assert!(!reload.apply().await.unwrap(), "nor is a remark");

        write("slots = 3", "slots = 2");
        let driver = reload.connections.drivers().next().unwrap();
        assert!(reload.apply().await.unwrap());
        assert_eq!(slots(&reload), 2);
        let capacity = reload.handle.as_ref().unwrap().view().instances[0].capacity.slots;
        assert_eq!(capacity, 2, "the controller has it");
        let another = reload.connections.drivers().next().unwrap();
        assert!(!std::sync::Arc::ptr_eq(&driver, &another), "its driver knows the new capacity");

        for (from, to, expected) in [
            ("slots = 3", "slots = 0", "capacity.slots: 0 is out of range"),
            ("fill = true", "fil = true", "did you mean `fill`"),
            ("priority = 2", "priority = [", "config "),
            (
                "cluster = \"reload-test\"",
                "cluster = \"reload-test\"\nlisten = \"127.0.0.1:1\"",
                "listen cannot change",
            ),
            ("cluster = \"reload-test\"", "cluster = \"another\"", "the cluster's name cannot change"),
        ] {
            write(from, to);
            let refused = reload.apply().await.unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
            assert_eq!(slots(&reload), 2, "what was there holds");
        }
        std::fs::remove_file(file.path()).unwrap();
        assert!(reload.apply().await.unwrap_err().to_string().contains("cannot be read"));

        write("slots = 3", "slots = 1");
        assert!(reload.apply().await.unwrap(), "mended, it is applied");
        assert_eq!(slots(&reload), 1);
    }

    #[tokio::test]
    async fn what_stays_the_same_goes_on_undisturbed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut reload = running(file.path());
        let driver = reload.connections.drivers().next().unwrap();
        std::fs::write(file.path(), CONFIG.replace("priority = 2", "priority = 3")).unwrap();
        assert!(reload.apply().await.unwrap());
        let same = reload.connections.drivers().next().unwrap();
        assert!(std::sync::Arc::ptr_eq(&driver, &same));
    }

    #[test]
    fn a_file_put_in_the_place_of_another_is_noticed() {
        let directory = tempfile::TempDir::new().unwrap();
        let path = directory.path().join("a.toml");
        assert_eq!(Stamp::of(&path), None);
        std::fs::write(&path, CONFIG).unwrap();
        let first = Stamp::of(&path);
        assert!(first.is_some() && first == Stamp::of(&path));
        let other = directory.path().join("b.toml");
        std::fs::write(&other, CONFIG).unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(Stamp::of(&path), first, "of the same length, and perhaps of the same moment");
    }
}
