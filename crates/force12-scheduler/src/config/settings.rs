//! From the file as written to settings that hold: every rule that a schema cannot say, all broken ones reported
//! at once. Here is what stands at the top of the file; each kind of table has a file beside this one.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use controller::SourceSettings;
use driver_docker::{EngineAddress, Registries, TlsFiles};
use planner::{Instance, Resources};
use reqwest::Url;
use service_kit::auth;

use super::ecs::{Ecs, ecs};
use super::file::ConfigFile;
use super::instances::instances;
use super::registries::registries;
use super::rules::{name, range};
use super::services::services;
use super::sources::sources;
use super::{Environment, Place, Problems};

const LOST_AFTER_MS_DEFAULT: u64 = 3_000;
/// Agents of ECS disconnect now and then, as part of their normal operation, and are back within seconds.
const ECS_LOST_AFTER_MS_DEFAULT: u64 = 30_000;

/// A valid configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// A file with the operator's token.
    pub token_file: Option<PathBuf>,
    /// A file with more roots for demand sources over https.
    pub ca_file: Option<PathBuf>,
    /// More host names under which changes are accepted.
    pub allowed_hosts: Vec<String>,
    /// Whether SIGTERM stops the workloads too.
    pub drain_on_exit: bool,
    /// What keeps a second scheduler of the cluster from acting too; `None` if nothing does.
    pub lock: Option<LockSettings>,
    /// Those that a service takes its demand from, in the order of names.
    pub sources: Vec<Source>,
    /// The Docker engines, by their addresses; none with an ECS cluster.
    pub engines: BTreeMap<EngineAddress, Engine>,
    /// The ECS cluster, if the pool is one.
    pub ecs: Option<Ecs>,
    /// The ways into registries.
    pub registries: Registries,
    /// What the controller is told; services and instances in the order of names. With an ECS cluster there are no
    /// instances yet, and task definitions are as they are written: see [`crate::pool`].
    pub controller: controller::Settings,
}

/// An engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    /// TLS to it.
    pub tls: Option<TlsFiles>,
    /// The most calls that change something under way at once.
    pub calls_max: usize,
    /// The names of the instances on it, in order.
    pub instances: Vec<String>,
}

/// How one of several schedulers is the one that acts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockSettings {
    /// The file that all of them lock.
    pub file: PathBuf,
    /// One that stands still for so long is killed.
    pub stalled_after: Duration,
}

/// A demand source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Where its demand document is.
    pub url: Url,
    /// How it is asked.
    pub settings: SourceSettings,
}

/// Checks the file and makes settings of it. `environment` answers for `env_from`.
pub(super) fn settings(
    file: ConfigFile,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> Settings {
    let top = Place::top();
    name(&file.cluster, &top.key("cluster"), problems);
    auth::check_hosts(&file.allowed_hosts, problems);
    range(file.start_hold_ms, 0..=600_000, &top.key("start_hold_ms"), problems);
    let lost_after_ms = file.lost_after_ms.unwrap_or(if file.ecs.is_some() {
        ECS_LOST_AFTER_MS_DEFAULT
    } else {
        LOST_AFTER_MS_DEFAULT
    });
    range(lost_after_ms, 500..=3_600_000, &top.key("lost_after_ms"), problems);
    range(file.settle_ms, 1_000..=600_000, &top.key("settle_ms"), problems);
    if let Some(path) = &file.ca_file {
        let place = top.key("ca_file");
        if let Err(error) = service_kit::client::tls(Some(path)) {
            problems.error(&place, error.to_string());
        } else if !file.demand_sources.iter().any(|source| source.url.starts_with("https:")) {
            problems.warning(&place, "no demand source is asked over https, so it is not used".to_owned());
        }
    }
    range(file.stalled_after_ms, 500..=60_000, &top.key("stalled_after_ms"), problems);
    if let Some(lock_file) = file.lock_file.as_ref().filter(|lock_file| !lock_file.is_absolute()) {
        problems.error(
            &top.key("lock_file"),
            format!(
                "`{}` is not an absolute path, so schedulers started in different directories would lock different \
                 files; begin it with `/`",
                lock_file.display()
            ),
        );
    }

    let source_stale_ms: BTreeMap<String, u64> =
        file.demand_sources.iter().map(|table| (table.name.clone(), table.stale_after_ms)).collect();
    let ecs = ecs(&file, problems);
    let mut sources = sources(file.demand_sources, &file.services, problems);
    let registries = registries(file.docker_config_file, file.registries, environment, problems);
    let (engines, mut instances) = instances(file.instances, ecs.is_some(), problems);
    // So that what fits no instance is refused although none is known yet.
    let any: Vec<Instance> = ecs.iter().map(Ecs::any_instance).collect();
    let pool = if ecs.is_some() { &any } else { &instances };
    let mut services = services(file.services, &source_stale_ms, pool, ecs.as_ref(), environment, problems);

    sources.sort_by(|a, b| a.settings.name.cmp(&b.settings.name));
    instances.sort_by(|a, b| a.name.cmp(&b.name));
    services.sort_by(|a, b| a.service.name.cmp(&b.service.name));
    Settings {
        listen: file.listen,
        token_file: file.token_file,
        ca_file: file.ca_file,
        allowed_hosts: file.allowed_hosts,
        drain_on_exit: file.drain_on_exit,
        lock: file.lock_file.map(|path| LockSettings {
            file: path,
            stalled_after: Duration::from_millis(file.stalled_after_ms),
        }),
        sources,
        engines,
        ecs,
        registries,
        controller: controller::Settings {
            cluster: file.cluster,
            services,
            instances,
            start_hold_ms: file.start_hold_ms,
            lost_after_ms,
            settle_ms: file.settle_ms,
        },
    }
}

/// `2 slots, 500 cpu_millis`.
pub fn resources_in_words(resources: Resources) -> String {
    let slots = if resources.slots == 1 { "1 slot".to_owned() } else { format!("{} slots", resources.slots) };
    let mut words = vec![slots];
    for (value, unit) in [(resources.cpu_millis, "cpu_millis"), (resources.memory_mib, "memory_mib")] {
        if value > 0 && value != Resources::UNLIMITED {
            words.push(format!("{value} {unit}"));
        }
    }
    words.join(", ")
}
