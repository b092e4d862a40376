//! What changes while the scheduler runs: a configuration file, applied whole or not at all, and what is discovered of an
//! ECS cluster.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use controller::{Handle, UpdateError};
use driver_ecs::Discovered;
use planner::Instance;
use service_kit::client::Clients;
use service_kit::reload::{Apply, Refused, needs_no_restart};
use tokio::sync::{Mutex, watch};
use tokio::time::timeout;

use crate::config::{self, Loaded, Settings};
use crate::connections::Connections;
use crate::pool;

/// A changed file waits for so long until the task definitions have been looked up that it names for the first time.
const LOOK_UP_TIMEOUT: Duration = Duration::from_secs(5);
/// From one try to the next, while the controller cannot take what was discovered: it may have yet to see that an instance
/// has gone.
const AGAIN_INTERVAL: Duration = Duration::from_secs(1);

/// What runs now.
pub struct Reload {
    /// The ways to engines and demand sources that are in use.
    pub connections: Connections,
    /// For new demand sources.
    pub clients: Arc<Clients>,
    /// The controller; `None` while there is none: what holds is then what it will start with.
    pub handle: Option<Handle>,
    /// The settings in force.
    pub settings: watch::Sender<Settings>,
    /// What is known of an ECS cluster.
    pub pool: Pool,
}

/// What is known of an ECS cluster, and what of that is in force.
#[derive(Default)]
pub struct Pool {
    /// As last discovered.
    found: Option<Discovered>,
    /// What the controller was told last.
    told: Option<controller::Settings>,
    /// What was doubtful then, and has been said.
    doubts: BTreeSet<String>,
}

/// The same, for two who change it: one follows the file, the other what is discovered.
#[derive(Clone)]
pub struct Shared(Arc<Mutex<Reload>>);

impl Shared {
    /// Shares it.
    pub fn new(reload: Reload) -> Self {
        Self(Arc::new(Mutex::new(reload)))
    }

    /// Has the controller told of everything that is discovered.
    pub async fn follow_pool(self, mut discovered: watch::Receiver<Option<Arc<Discovered>>>) -> Infallible {
        let mut refused = None;
        loop {
            let found = discovered.borrow_and_update().clone();
            let outcome = match found {
                Some(found) => self.0.lock().await.rediscovered(&found).await,
                None => Ok(true),
            };
            if let Err(error) = &outcome
                && refused.as_ref() != Some(error)
            {
                tracing::warn!(%error, "what was discovered of the pool is not in force yet");
            }
            let is_whole = outcome == Ok(true);
            refused = outcome.err();
            // Whoever keeps the driver keeps the channel open.
            let changed = async {
                if discovered.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            if is_whole {
                changed.await;
            } else {
                let _ = timeout(AGAIN_INTERVAL, changed).await;
            }
        }
    }
}

impl Apply for Shared {
    type Config = Loaded;

    fn read(path: &Path) -> Result<Loaded, Refused> {
        Reload::read(path)
    }

    async fn apply(&mut self, loaded: Loaded) -> Result<bool, Refused> {
        self.0.lock().await.apply(loaded).await
    }
}

impl Reload {
    /// What the controller is to start with. `found` is what has been discovered, if the pool is an ECS cluster.
    pub fn begin(&mut self, found: Option<&Discovered>) -> controller::Settings {
        let settings = self.settings.borrow().clone();
        if let Some(found) = found {
            self.take_in(found);
        }
        let told = self.told_of(&settings, Vec::new());
        self.pool.told = Some(told.clone());
        self.say_doubts(&settings);
        told
    }

    /// The controller's settings by what is configured and discovered. Instances that are found no more and hold containers
    /// yet are `leaving`.
    fn told_of(&self, settings: &Settings, leaving: Vec<Instance>) -> controller::Settings {
        match (&settings.ecs, &self.pool.found) {
            (Some(ecs), Some(found)) => pool::settings(settings, ecs, found, leaving),
            _ => settings.controller.clone(),
        }
    }

    fn leaving(&self, handle: &Handle) -> Vec<Instance> {
        match (&self.pool.told, &self.pool.found) {
            (Some(told), Some(found)) => pool::leaving(told, found, &handle.view()),
            _ => Vec::new(),
        }
    }

    fn take_in(&mut self, found: &Discovered) {
        let found = pool::keeping_revisions(found, self.pool.found.as_ref());
        for change in pool::changes(self.pool.found.as_ref(), &found) {
            tracing::info!("{change}");
        }
        self.pool.found = Some(found);
    }

    fn say_doubts(&mut self, settings: &Settings) {
        let Some(found) = &self.pool.found else { return };
        let doubts = pool::doubts(settings, found);
        for doubt in doubts.difference(&self.pool.doubts) {
            tracing::warn!("{doubt}");
        }
        self.pool.doubts = doubts;
    }

    /// Tells the controller what was discovered. `false`: an instance has yet to leave.
    async fn rediscovered(&mut self, found: &Discovered) -> Result<bool, UpdateError> {
        self.take_in(found);
        let settings = self.settings.borrow().clone();
        let Some(handle) = self.handle.clone() else { return Ok(true) };
        let leaving = self.leaving(&handle);
        let all_left = leaving.is_empty();
        let told = self.told_of(&settings, leaving);
        if self.pool.told.as_ref() != Some(&told) {
            handle.update(told.clone(), self.connections.engines()).await?;
            self.pool.told = Some(told);
        }
        self.say_doubts(&settings);
        Ok(all_left)
    }

    /// Waits until the task definitions have been looked up that are named for the first time.
    async fn look_up(&mut self, settings: &Settings, connections: &Connections) -> Result<(), Refused> {
        let Some(driver) = connections.ecs() else { return Ok(()) };
        let mut discovered = driver.discovered();
        let known = discovered
            .wait_for(|found| found.as_ref().is_some_and(|found| pool::is_looked_up(found, settings)));
        let found = match timeout(LOOK_UP_TIMEOUT, known).await {
            Ok(Ok(found)) => found.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let Some(found) = found else {
            let why = driver.problem().map(|problem| format!(": {problem}")).unwrap_or_default();
            return Err(Refused::Now(format!("its task definitions could not be looked up yet{why}")));
        };
        self.take_in(&found);
        Ok(())
    }
}

impl Apply for Reload {
    type Config = Loaded;

    fn read(path: &Path) -> Result<Loaded, Refused> {
        config::load(path, &|name| std::env::var(name).ok())
            // What is wrong may be mended in a file that it names: a certificate, a password.
            .map_err(|error| Refused::Now(error.to_string()))
    }

    /// While there is no controller it does not wait for anything, so that it may be dropped at any time.
    async fn apply(&mut self, loaded: Loaded) -> Result<bool, Refused> {
        let Loaded { settings, warnings } = loaded;
        let before = self.settings.borrow().clone();
        if settings == before {
            return Ok(false);
        }
        needs_no_restart(&[
            ("listen", before.listen != settings.listen),
            ("token_file", before.token_file != settings.token_file),
            ("ca_file", before.ca_file != settings.ca_file),
            ("allowed_hosts", before.allowed_hosts != settings.allowed_hosts),
            ("lock_file or stalled_after_ms", before.lock != settings.lock),
        ])?;
        if let Some(handle) = self.handle.clone() {
            let bound = |settings: &Settings| settings.ecs.as_ref().map(config::Ecs::bound);
            let has_ecs = settings.ecs.is_some();
            let (old, new) = (&before.controller, &settings.controller);
            // What an ECS cluster has just been asked to do and does not show yet, its driver alone knows.
            needs_no_restart(&[
                ("ecs, but for its slots_per_instance and reserve,", bound(&before) != bound(&settings)),
                ("settle_ms with [ecs]", has_ecs && old.settle_ms != new.settle_ms),
            ])?;
            let connections = self.connections.changed_to(&settings, &self.clients);
            self.look_up(&settings, &connections).await?;
            let told = self.told_of(&settings, self.leaving(&handle));
            handle
                .update(told.clone(), connections.engines())
                .await
                .map_err(|error| Refused::Now(error.to_string()))?;
            self.connections = connections;
            self.pool.told = Some(told);
            self.say_doubts(&settings);
        }
        for warning in &warnings {
            tracing::warn!("{warning}");
        }
        self.settings.send_replace(settings);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
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

    async fn apply(reload: &mut Reload, path: &Path) -> Result<bool, Refused> {
        reload.apply(Reload::read(path)?).await
    }

    /// What runs by a file that says `CONFIG`, on an engine that is not there.
    fn running(path: &Path) -> Reload {
        std::fs::write(path, CONFIG).unwrap();
        let settings = config::load(path, &|_| None).unwrap().settings;
        let clients = Arc::new(crate::demand::clients(None).unwrap());
        let connections = Connections::default().changed_to(&settings, &clients);
        let (controller, handle) = Controller::new(Parts {
            settings: settings.controller.clone(),
            engines: connections.engines(),
            clock: Clock::system(),
            seed: 12,
            epoch: "test".to_owned(),
        })
        .unwrap();
        tokio::spawn(controller.run());
        Reload {
            connections,
            clients,
            handle: Some(handle),
            settings: watch::Sender::new(settings),
            pool: Pool::default(),
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_applied_whole_or_not_at_all() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut reload = running(file.path());
        let slots = |reload: &Reload| reload.settings.borrow().controller.instances[0].capacity.slots;
        let write = |from: &str, to: &str| std::fs::write(file.path(), CONFIG.replace(from, to)).unwrap();

        assert!(!apply(&mut reload, file.path()).await.unwrap(), "the same is no change");
        std::fs::write(file.path(), format!("# a remark\n{CONFIG}")).unwrap();
        assert!(!apply(&mut reload, file.path()).await.unwrap(), "nor is a remark");

        write("slots = 3", "slots = 2");
        let driver = reload.connections.drivers().next().unwrap();
        assert!(apply(&mut reload, file.path()).await.unwrap());
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
            let refused = apply(&mut reload, file.path()).await.unwrap_err().to_string();
            assert!(refused.contains(expected), "{refused}");
            assert_eq!(slots(&reload), 2, "what was there holds");
        }
        std::fs::remove_file(file.path()).unwrap();
        assert!(apply(&mut reload, file.path()).await.unwrap_err().to_string().contains("cannot be read"));

        write("slots = 3", "slots = 1");
        assert!(apply(&mut reload, file.path()).await.unwrap(), "mended, it is applied");
        assert_eq!(slots(&reload), 1);
    }

    #[tokio::test]
    async fn what_stays_the_same_goes_on_undisturbed() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut reload = running(file.path());
        let driver = reload.connections.drivers().next().unwrap();
        std::fs::write(file.path(), CONFIG.replace("priority = 2", "priority = 3")).unwrap();
        assert!(apply(&mut reload, file.path()).await.unwrap());
        let same = reload.connections.drivers().next().unwrap();
        assert!(std::sync::Arc::ptr_eq(&driver, &same));
    }

    #[tokio::test]
    async fn a_file_that_is_named_may_come_later_and_changes_the_way_to_the_engine() {
        let (file, directory) = (tempfile::NamedTempFile::new().unwrap(), tempfile::tempdir().unwrap());
        let mut reload = running(file.path());
        let driver = reload.connections.drivers().next().unwrap();
        let logins = directory.path().join("config.json");
        std::fs::write(file.path(), format!("docker_config_file = \"{}\"\n{CONFIG}", logins.display()))
            .unwrap();
        let refused = apply(&mut reload, file.path()).await.unwrap_err();
        assert!(matches!(&refused, Refused::Now(words) if words.contains("docker_config_file")), "{refused}");
        std::fs::write(&logins, "{}").unwrap();
        std::fs::set_permissions(&logins, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert!(apply(&mut reload, file.path()).await.unwrap());
        let another = reload.connections.drivers().next().unwrap();
        assert!(!std::sync::Arc::ptr_eq(&driver, &another), "its driver knows the logins");
    }
}
