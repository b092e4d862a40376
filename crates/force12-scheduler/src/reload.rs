//! A changed configuration file, applied while the scheduler runs, whole or not at all.

use std::path::Path;
use std::sync::Arc;

use controller::Handle;
use service_kit::client::Clients;
use service_kit::reload::{Apply, Refused, needs_no_restart};
use tokio::sync::watch;

use crate::config::{self, Loaded, Settings};
use crate::connections::Connections;

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
        if let Some(handle) = &self.handle {
            let connections = self.connections.changed_to(&settings, &self.clients);
            handle
                .update(settings.controller.clone(), connections.engines())
                .await
                .map_err(|error| Refused::Now(error.to_string()))?;
            self.connections = connections;
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
        Reload { connections, clients, handle: Some(handle), settings: watch::Sender::new(settings) }
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
