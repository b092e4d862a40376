//! From the file as written to settings that hold: every rule that a schema cannot say, all broken ones reported
//! at once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use controller::{DemandKey, Ready, ServiceSettings, SourceSettings};
use driver::{ContainerSpec, Healthcheck, LogOptions, PullPolicy};
use driver_docker::{EngineAddress, Limits, Password, Registries, RegistryLogin, Secret, TlsFiles};
use planner::{
    Instance, InstanceState, OnPreempt, OnStale, Overlap, Placement, Resources, Service, ServiceKind,
};
use reqwest::Url;
use service_kit::auth;

use super::file::{
    ConfigFile, DemandSourceTable, InstanceStateWord, InstanceTable, OnPreemptWord, OnStaleValue,
    OverlapWord, PlacementWord, PullWord, ReadyWord, RegistryTable, ServiceTable,
};
use super::{Environment, Place, Problems};

/// The most containers of one fill service on one instance that are taken for intended without a `max`: an engine
/// does not survive many more, and a capacity in the wrong unit is easily written.
const FILL_PER_INSTANCE_MAX: u64 = 1_000;
/// Names go into container names and labels, three at a time, where engines allow 255 characters and host names 63.
const NAME_CHARACTERS_MAX: usize = 40;
/// The longest that a source is asked to hold its answer: short enough that proxies on the way let it pass.
const WAIT_MS_MAX: u64 = 5_000;
const DAY_MS: u64 = 86_400_000;
const COUNT_MAX: u64 = 1_000_000;
/// Docker refuses memory limits below it.
const MEMORY_MIB_MIN: u64 = 6;
/// Docker refuses CPU limits below it.
const CPU_MILLIS_MIN: u64 = 10;

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
    /// The engines, by their addresses.
    pub engines: BTreeMap<EngineAddress, Engine>,
    /// The ways into registries.
    pub registries: Registries,
    /// What the controller is told; services and instances in the order of names.
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
    range(file.lost_after_ms, 500..=3_600_000, &top.key("lost_after_ms"), problems);
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
    let mut sources = sources(file.demand_sources, &file.services, problems);
    let registries = registries(file.docker_config_file, file.registries, environment, problems);
    let (engines, mut instances) = instances(file.instances, problems);
    let mut services = services(file.services, &source_stale_ms, &instances, environment, problems);

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
        registries,
        controller: controller::Settings {
            cluster: file.cluster,
            services,
            instances,
            start_hold_ms: file.start_hold_ms,
            lost_after_ms: file.lost_after_ms,
            settle_ms: file.settle_ms,
        },
    }
}

fn sources(
    tables: Vec<DemandSourceTable>,
    services: &[ServiceTable],
    problems: &mut Problems<'_>,
) -> Vec<Source> {
    let mut seen = BTreeSet::new();
    let used: BTreeSet<&str> =
        services.iter().filter_map(|service| Some(service.demand.as_ref()?.source.as_str())).collect();
    tables
        .into_iter()
        .enumerate()
        .filter_map(|(index, table)| {
            let place = Place::table("demand_source", index, &table.name);
            name(&table.name, &place.key("name"), problems);
            unique(&mut seen, &table.name, "demand source", &place, problems);
            let is_used = used.contains(table.name.as_str());
            if !is_used {
                problems.warning(&place, "no service takes its demand from it, so it is not asked".to_owned());
            }
            range(table.poll_ms, 10..=3_600_000, &place.key("poll_ms"), problems);
            range(table.stale_after_ms, 500..=DAY_MS, &place.key("stale_after_ms"), problems);
            if table.stale_after_ms < table.poll_ms.saturating_mul(2) {
                problems.error(
                    &place.key("stale_after_ms"),
                    format!(
                        "{} is less than twice poll_ms ({}), so one late answer would make its demands stale; \
                         raise it, or lower poll_ms",
                        table.stale_after_ms, table.poll_ms
                    ),
                );
            }
            let url = source_url(&table.url, &place.key("url"), problems)?;
            // Asked to hold its answers so long that it confirms its demands three times before they are stale.
            let wait_ms = (table.stale_after_ms / 3 / 1_000 * 1_000).min(WAIT_MS_MAX);
            let settings = SourceSettings { name: table.name, poll_ms: table.poll_ms, wait_ms };
            is_used.then_some(Source { url, settings })
        })
        .collect()
}

fn source_url(text: &str, place: &Place, problems: &mut Problems<'_>) -> Option<Url> {
    // The text itself is left out of what is said of it: it may hold a password.
    let example = "for example http://demand-rng:8081/v1/demand";
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            problems.error(place, format!("is not a URL ({error}); {example}"));
            return None;
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        problems.error(
            place,
            format!("the scheme of a demand source is http or https, not `{}`; {example}", url.scheme()),
        );
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() {
        problems
            .error(place, "holds a user or a password, which would show in logs; take them out".to_owned());
        return None;
    }
    if url.fragment().is_some() {
        problems.error(place, "has a fragment (`#`), which is never sent; take it out".to_owned());
    }
    Some(url)
}

fn registries(
    docker_config_file: Option<PathBuf>,
    tables: Vec<RegistryTable>,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> Registries {
    if let Some(path) = &docker_config_file {
        let place = Place::top().key("docker_config_file");
        match Registries::check_docker_config_file(path) {
            Ok(false) => {}
            Ok(true) => problems.warning(
                &place,
                "names credential helpers, which are not run: logins that they keep need a [[registry]]"
                    .to_owned(),
            ),
            Err(error) => problems.error(&place, error.to_string()),
        }
    }
    let mut seen = BTreeSet::new();
    let logins = tables.into_iter().enumerate().filter_map(|(index, table)| {
        let place = Place::table("registry", index, &table.server);
        let server = &table.server;
        if server.is_empty() || server.contains(['/', '@', '?', '#']) || server.contains(char::is_whitespace)
        {
            problems.error(
                &place.key("server"),
                format!(
                    "`{server}` is not a registry; write host or host:port, as in registry.example.org:5000"
                ),
            );
        }
        if !seen.insert(server.clone()) {
            problems.error(
                &place.key("server"),
                format!("there is another login for registry `{server}` above; remove one"),
            );
        }
        let username = username(&table, &place, environment, problems);
        let password = password(&table, &place, environment, problems);
        Some(RegistryLogin { server: table.server, username: username?, password: password? })
    });
    Registries { logins: logins.collect(), docker_config_file }
}

fn username(
    table: &RegistryTable,
    place: &Place,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> Option<String> {
    match (&table.username, &table.username_env) {
        (Some(username), None) if username.is_empty() || username.contains(':') => {
            problems.error(&place.key("username"), "can't be empty or hold a `:`; correct it".to_owned());
            None
        }
        (Some(username), None) => Some(username.clone()),
        (None, Some(variable)) => variable_value(variable, &place.key("username_env"), environment, problems),
        _ => {
            problems.error(place, "give one of username and username_env".to_owned());
            None
        }
    }
}

fn password(
    table: &RegistryTable,
    place: &Place,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> Option<Password> {
    match (&table.password_env, &table.password_file) {
        (Some(variable), None) => {
            let value = variable_value(variable, &place.key("password_env"), environment, problems)?;
            Some(Password::Given(Secret::new(&value)))
        }
        (None, Some(path)) => {
            let password = Password::File(path.clone());
            if let Err(error) = password.check() {
                problems.error(&place.key("password_file"), error.to_string());
            }
            Some(password)
        }
        _ => {
            problems.error(place, "give one of password_env and password_file".to_owned());
            None
        }
    }
}

fn variable_value(
    variable: &str,
    place: &Place,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> Option<String> {
    let value = environment(variable);
    if value.is_none() {
        problems.error(
            place,
            format!(
                "`{variable}` is not set in the scheduler's environment; set it there, or correct its name"
            ),
        );
    }
    value
}

fn instances(
    tables: Vec<InstanceTable>,
    problems: &mut Problems<'_>,
) -> (BTreeMap<EngineAddress, Engine>, Vec<Instance>) {
    if tables.is_empty() {
        problems
            .error(&Place::top(), "there is no [[instance]]; name at least one container host".to_owned());
    }
    let mut seen = BTreeSet::new();
    let mut engines = BTreeMap::new();
    let instances = tables
        .into_iter()
        .enumerate()
        .map(|(index, table)| {
            let place = Place::table("instance", index, &table.name);
            name(&table.name, &place.key("name"), problems);
            unique(&mut seen, &table.name, "instance", &place, problems);
            engine(&table, &place, &mut engines, problems);
            let capacity_place = place.key("capacity");
            range(table.capacity.slots, 1..=Resources::SLOTS_MAX, &capacity_place.key("slots"), problems);
            for (key, value) in
                [("cpu_millis", table.capacity.cpu_millis), ("memory_mib", table.capacity.memory_mib)]
            {
                if let Some(value) = value {
                    range(value, 1..=1_000_000_000, &capacity_place.key(key), problems);
                }
            }
            if let Some(frozen_max) = table.frozen_max {
                range(frozen_max.into(), 0..=10_000, &place.key("frozen_max"), problems);
            }
            range(table.evict_after_ms, 0..=DAY_MS, &place.key("evict_after_ms"), problems);
            if let (Some(frozen), Some(memory)) = (table.frozen_memory_mib, table.capacity.memory_mib)
                && frozen > memory
            {
                problems.error(
                    &place.key("frozen_memory_mib"),
                    format!(
                        "{frozen} is more than the instance has (capacity.memory_mib = {memory}); lower it"
                    ),
                );
            }
            Instance {
                name: table.name,
                state: match table.state {
                    InstanceStateWord::Ready => InstanceState::Ready,
                    InstanceStateWord::Cordoned => InstanceState::Cordoned,
                    InstanceStateWord::Draining => InstanceState::Draining,
                },
                capacity: Resources {
                    slots: table.capacity.slots,
                    cpu_millis: table.capacity.cpu_millis.unwrap_or(Resources::UNLIMITED),
                    memory_mib: table.capacity.memory_mib.unwrap_or(Resources::UNLIMITED),
                },
                frozen_max: table.frozen_max.unwrap_or(u32::MAX),
                frozen_memory_mib: table.frozen_memory_mib.unwrap_or(Resources::UNLIMITED),
                evict_after_ms: table.evict_after_ms,
            }
        })
        .collect();
    for engine in engines.values_mut() {
        engine.instances.sort();
    }
    (engines, instances)
}

/// Enters an instance with its engine, if the engine can be used.
fn engine(
    table: &InstanceTable,
    place: &Place,
    engines: &mut BTreeMap<EngineAddress, Engine>,
    problems: &mut Problems<'_>,
) {
    let engine_place = place.key("engine");
    let address = match table.engine.parse::<EngineAddress>() {
        Ok(address) => address,
        Err(error) => return problems.error(&engine_place, error.to_string()),
    };
    let tls = table.tls.as_ref().map(|tls| TlsFiles {
        ca_file: tls.ca_file.clone(),
        cert_file: tls.cert_file.clone(),
        key_file: tls.key_file.clone(),
    });
    let tls_place = place.key("tls");
    match (&address, &tls) {
        (EngineAddress::Unix(_), Some(_)) => problems.error(
            &tls_place,
            "has no meaning for a socket on the same machine; remove it, or give the engine as tcp://host:port"
                .to_owned(),
        ),
        (EngineAddress::Tcp(_), Some(_)) if table.engine.starts_with("http://") => {
            problems.error(&engine_place, "http is without TLS; write tcp, or remove tls".to_owned());
        }
        (EngineAddress::Tcp(_), None) if table.engine.starts_with("https://") => problems.error(
            &engine_place,
            "https needs certificates; add tls = { ca_file = \"…\", cert_file = \"…\", key_file = \"…\" }".to_owned(),
        ),
        (_, None) => {
            if let Some(warning) = address.warning() {
                problems.warning(&engine_place, warning);
            }
        }
        (EngineAddress::Tcp(_), Some(files)) => {
            if let Err((key, error)) = files.check() {
                problems.error(&tls_place.key(key), error.to_string());
            }
        }
    }
    let calls_place = place.key("engine_calls_max");
    let calls_max = table.engine_calls_max.map_or(Limits::PARALLEL_CALLS, |max| max as usize);
    if let Some(calls_max) = table.engine_calls_max {
        range(calls_max.into(), 1..=256, &calls_place, problems);
    }
    let shared = engines.entry(address).or_insert_with(|| Engine {
        tls: tls.clone(),
        calls_max,
        instances: Vec::new(),
    });
    for (differs, at, what) in [
        (shared.tls != tls, &tls_place, "tls"),
        (shared.calls_max != calls_max, &calls_place, "engine_calls_max"),
    ] {
        if differs {
            let first = shared.instances.first().cloned().unwrap_or_default();
            problems.error(
                at,
                format!(
                    "instance `{first}` above is on the same engine with other {what}; give both the same"
                ),
            );
        }
    }
    shared.instances.push(table.name.clone());
}

fn services(
    tables: Vec<ServiceTable>,
    source_stale_ms: &BTreeMap<String, u64>,
    instances: &[Instance],
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> Vec<ServiceSettings> {
    if tables.is_empty() {
        problems.error(&Place::top(), "there is no [[service]]; name at least one".to_owned());
    }
    let mut seen = BTreeSet::new();
    tables
        .into_iter()
        .enumerate()
        .map(|(index, table)| {
            let place = Place::table("service", index, &table.name);
            name(&table.name, &place.key("name"), problems);
            unique(&mut seen, &table.name, "service", &place, problems);
            range(table.priority.into(), 1..=COUNT_MAX, &place.key("priority"), problems);
            range(table.weight.into(), 1..=1_000, &place.key("weight"), problems);
            wanted(&table, &place, source_stale_ms, problems);
            request(&table, &place, instances, problems);
            freezing(&table, &place, problems);
            for (key, value) in
                [("scale_down_after_ms", table.scale_down_after_ms), ("min_runtime_ms", table.min_runtime_ms)]
            {
                range(value, 0..=DAY_MS, &place.key(key), problems);
            }
            range(table.stop_grace_ms, 0..=600_000, &place.key("stop_grace_ms"), problems);
            let spec = spec(&table, &place, environment, problems);
            ServiceSettings {
                service: service(&table, source_stale_ms),
                spec: Arc::new(spec),
                freeze_or_stop: table.on_preempt == OnPreemptWord::FreezeOrStop,
                ready: ready(&table, &place, problems),
                demand: table.demand.map(|demand| DemandKey { source: demand.source, key: demand.key }),
            }
        })
        .collect()
}

fn service(table: &ServiceTable, source_stale_ms: &BTreeMap<String, u64>) -> Service {
    let defaults = Service::demand(table.name.clone(), table.priority);
    let demand = table.demand.as_ref();
    Service {
        kind: if table.fill { ServiceKind::Fill } else { ServiceKind::Demand },
        weight: table.weight,
        request: Resources {
            slots: table.request.slots,
            cpu_millis: table.request.cpu_millis,
            memory_mib: table.request.memory_mib,
        },
        min: table.min,
        max: table.max.unwrap_or(defaults.max),
        on_preempt: match table.on_preempt {
            OnPreemptWord::Stop => OnPreempt::Stop,
            OnPreemptWord::Freeze | OnPreemptWord::FreezeOrStop => OnPreempt::Freeze,
        },
        overlap: match table.overlap {
            OverlapWord::Never => Overlap::Never,
            OverlapWord::Swap => Overlap::Swap,
        },
        standby_per_instance: table.standby,
        placement: match table.placement {
            PlacementWord::Spread => Placement::Spread,
            PlacementWord::Binpack => Placement::BinPack,
        },
        scale_down_after_ms: table.scale_down_after_ms,
        min_runtime_ms: table.min_runtime_ms,
        stale_after_ms: demand
            .and_then(|demand| source_stale_ms.get(demand.source.as_str()).copied())
            .unwrap_or(defaults.stale_after_ms),
        on_stale: match demand.map(|demand| demand.on_stale).unwrap_or_default() {
            OnStaleValue::Hold => OnStale::Hold,
            OnStaleValue::Fallback { fallback, after_ms } => {
                OnStale::Fallback { containers: fallback, after_ms }
            }
        },
        paused: table.paused,
        ..defaults
    }
}

/// What a service wants: a demand or all that is left, and the bounds of it.
fn wanted(
    table: &ServiceTable,
    place: &Place,
    source_stale_ms: &BTreeMap<String, u64>,
    problems: &mut Problems<'_>,
) {
    match (&table.demand, table.fill) {
        (None, false) => problems.error(
            place,
            "has neither demand nor fill; write demand = { source = \"…\", key = \"…\" } or fill = true"
                .to_owned(),
        ),
        (Some(_), true) => problems.error(
            &place.key("fill"),
            "has both demand and fill = true; a service follows a demand or fills, so remove one".to_owned(),
        ),
        _ => {}
    }
    if let Some(demand) = &table.demand {
        let place = place.key("demand");
        if !source_stale_ms.contains_key(demand.source.as_str()) {
            let known: Vec<&str> = source_stale_ms.keys().map(String::as_str).collect();
            problems.error(
                &place.key("source"),
                if known.is_empty() {
                    format!(
                        "there is no demand source `{}`; add a [[demand_source]] of that name",
                        demand.source
                    )
                } else {
                    format!("there is no demand source `{}`; there is {}", demand.source, known.join(", "))
                },
            );
        }
        if demand.key.is_empty() {
            problems.error(&place.key("key"), "is empty; name the key in the source's demand".to_owned());
        }
        if let OnStaleValue::Fallback { fallback, after_ms } = demand.on_stale {
            range(fallback.into(), 0..=COUNT_MAX, &place.key("on_stale").key("fallback"), problems);
            range(after_ms, 0..=DAY_MS, &place.key("on_stale").key("after_ms"), problems);
        }
    }
    range(table.min.into(), 0..=COUNT_MAX, &place.key("min"), problems);
    if let Some(max) = table.max {
        range(max.into(), 0..=COUNT_MAX, &place.key("max"), problems);
        if table.min > max {
            problems.error(
                &place.key("min"),
                format!("{} is more than max ({max}); lower min, or raise max", table.min),
            );
        }
    }
    if table.fill {
        let without_use = [
            ("min", u64::from(table.min)),
            ("standby", table.standby.into()),
            ("scale_down_after_ms", table.scale_down_after_ms),
        ];
        for (key, value) in without_use {
            if value > 0 {
                problems.error(
                    &place.key(key),
                    "has no meaning for a service that fills: it has no demand; remove it".to_owned(),
                );
            }
        }
    }
}

/// What one container takes, against what there is.
fn request(table: &ServiceTable, place: &Place, instances: &[Instance], problems: &mut Problems<'_>) {
    let place = place.key("request");
    let request = &table.request;
    if request.slots == 0 {
        problems.error(
            &place.key("slots"),
            "is 0; give 1 or more: each container takes a slot, so that slots bound how many there are"
                .to_owned(),
        );
        return;
    }
    range(request.slots, 1..=Resources::SLOTS_MAX, &place.key("slots"), problems);
    if request.memory_mib > 0 {
        range(request.memory_mib, MEMORY_MIB_MIN..=1_000_000_000, &place.key("memory_mib"), problems);
    }
    if request.cpu_millis > 0 {
        range(request.cpu_millis, CPU_MILLIS_MIN..=1_000_000_000, &place.key("cpu_millis"), problems);
    }
    let wanted =
        Resources { slots: request.slots, cpu_millis: request.cpu_millis, memory_mib: request.memory_mib };
    // What is out of range has been said, and is not said again of what does not fit because of it.
    let in_range = |slots| (1..=Resources::SLOTS_MAX).contains(&slots);
    if instances.is_empty()
        || !in_range(request.slots)
        || !instances.iter().all(|instance| in_range(instance.capacity.slots))
    {
        return;
    }
    if !instances.iter().any(|instance| wanted.fits(instance.capacity)) {
        problems.error(
            &place,
            format!(
                "{} fits no instance; lower it, or raise the capacity of one",
                resources_in_words(wanted)
            ),
        );
        return;
    }
    if table.fill && table.max.is_none() {
        let most = instances
            .iter()
            .map(|instance| (wanted.count_in(instance.capacity), &instance.name))
            .max_by_key(|&(count, _)| count);
        if let Some((count, instance)) = most
            && count > FILL_PER_INSTANCE_MAX
        {
            problems.error(
                &place,
                format!(
                    "without a max this service would start {count} containers on {instance}; set max, or correct \
                     the capacity of {instance}"
                ),
            );
        }
    }
}

fn ready(table: &ServiceTable, place: &Place, problems: &mut Problems<'_>) -> Ready {
    range(table.ready_within_ms, 100..=DAY_MS, &place.key("ready_within_ms"), problems);
    if table.ready == ReadyWord::Running {
        return Ready::Running;
    }
    match &table.healthcheck {
        None => problems.warning(
            &place.key("ready"),
            "\"healthy\" waits for a healthcheck, and none is configured: its image needs one, or no start will succeed"
                .to_owned(),
        ),
        Some(check) if check.interval_ms >= table.ready_within_ms => problems.error(
            &place.key("ready_within_ms"),
            format!(
                "a container is checked for the first time after healthcheck.interval_ms ({}), and {} would be over by \
                 then; give it more, or check sooner",
                check.interval_ms, table.ready_within_ms
            ),
        ),
        Some(_) => {}
    }
    Ready::Healthy { within_ms: table.ready_within_ms }
}

fn freezing(table: &ServiceTable, place: &Place, problems: &mut Problems<'_>) {
    if table.on_preempt != OnPreemptWord::Stop && !table.freezable {
        problems.error(
            &place.key("on_preempt"),
            "freeze needs freezable = true, said by whoever knows that the work survives a pause; or use \"stop\""
                .to_owned(),
        );
    }
    if table.standby > 0 && !table.freezable {
        problems.error(
            &place.key("standby"),
            "a standby is kept frozen, which needs freezable = true; add it, or set standby = 0".to_owned(),
        );
    }
    range(table.standby.into(), 0..=1_000, &place.key("standby"), problems);
}

fn spec(
    table: &ServiceTable,
    place: &Place,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> ContainerSpec {
    if table.image.is_empty() || table.image.len() > 255 || table.image.contains(char::is_whitespace) {
        problems.error(
            &place.key("image"),
            format!(
                "`{}` is not the name of an image; for example force12/workload or registry/name:tag",
                table.image
            ),
        );
    }
    if let Some(command) = &table.command {
        words(command, &place.key("command"), "leave command out for the image's own", problems);
    }
    if let Some(signal) = &table.stop_signal {
        let named = signal.strip_prefix("SIG").is_some_and(|rest| {
            !rest.is_empty() && rest.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '+')
        });
        if !named && !signal.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number)) {
            problems.error(
                &place.key("stop_signal"),
                format!("`{signal}` is not a signal; write a name such as SIGTERM, or a number from 1 to 64"),
            );
        }
    }
    if let Some(network) = &table.network {
        let fits = network.chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
            && network.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !fits {
            problems.error(
                &place.key("network"),
                format!(
                    "`{network}` is not the name of a network; write host, none, bridge or a network's name"
                ),
            );
        }
    }
    if let Some(user) = &table.user
        && (user.is_empty() || user.contains(char::is_whitespace) || user.matches(':').count() > 1)
    {
        problems.error(
            &place.key("user"),
            format!(
                "`{user}` is not a user; write a name or number, with :group if wanted, as in 65534:65534"
            ),
        );
    }
    if let Some(log) = &table.log
        && log.driver.is_empty()
    {
        problems
            .error(&place.key("log").key("driver"), "is empty; name a log driver, such as local".to_owned());
    }
    if let Some(check) = &table.healthcheck {
        let place = place.key("healthcheck");
        words(&check.command, &place.key("command"), "leave healthcheck out for the image's own", problems);
        range(check.interval_ms, 1..=DAY_MS, &place.key("interval_ms"), problems);
        range(check.timeout_ms, 1..=DAY_MS, &place.key("timeout_ms"), problems);
        range(check.retries.into(), 1..=1_000, &place.key("retries"), problems);
    }
    let limit = |value: u64| (value > 0).then_some(value);
    ContainerSpec {
        image: table.image.clone(),
        pull: match table.pull {
            PullWord::Never => PullPolicy::Never,
            PullWord::Missing => PullPolicy::Missing,
            PullWord::Always => PullPolicy::Always,
        },
        command: table.command.clone(),
        environment: container_environment(table, place, environment, problems),
        network: table.network.clone(),
        user: table.user.clone(),
        cpu_limit_millis: limit(table.request.cpu_millis),
        memory_limit_mib: limit(table.request.memory_mib),
        read_only_root: table.read_only_root,
        stop_signal: table.stop_signal.clone(),
        stop_grace_ms: table.stop_grace_ms,
        log: table
            .log
            .as_ref()
            .map(|log| LogOptions { driver: log.driver.clone(), options: log.options.clone() }),
        healthcheck: table.healthcheck.as_ref().map(|check| Healthcheck {
            command: check.command.clone(),
            interval_ms: check.interval_ms,
            timeout_ms: check.timeout_ms,
            retries: check.retries,
        }),
    }
}

fn container_environment(
    table: &ServiceTable,
    place: &Place,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> BTreeMap<String, String> {
    let fits =
        |name: &str| !name.is_empty() && !name.contains(['=', '\0']) && !name.contains(char::is_whitespace);
    for (name, value) in &table.env {
        let place = place.key("env").key(name);
        if !fits(name) {
            problems
                .error(&place, format!("`{name}` is not the name of a variable; leave out spaces and `=`"));
        }
        if value.contains('\0') {
            problems.error(&place, "holds a NUL character, which no environment can; take it out".to_owned());
        }
        if looks_secret(name) && !value.is_empty() {
            problems.warning(
                &place,
                "looks like a secret; keep it out of this file: set it in the scheduler's environment and name it in \
                 env_from"
                    .to_owned(),
            );
        }
    }
    let mut variables = table.env.clone();
    for (index, name) in table.env_from.iter().enumerate() {
        let place = place.key("env_from").item(index);
        if !fits(name) {
            problems
                .error(&place, format!("`{name}` is not the name of a variable; leave out spaces and `=`"));
        } else if variables.contains_key(name) {
            problems.error(&place, format!("`{name}` is named twice, in env or env_from; remove one"));
        } else if let Some(value) = environment(name) {
            variables.insert(name.clone(), value);
        } else {
            problems.error(
                &place,
                format!(
                    "`{name}` is not set in the scheduler's environment; set it there, or remove it here"
                ),
            );
        }
    }
    variables
}

fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["SECRET", "PASSWORD", "PASSWD", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "ACCESS_KEY", "CREDENTIAL"]
        .iter()
        .any(|part| name.contains(part))
}

/// A command: at least one word, none of them with a NUL, the first not empty.
fn words(command: &[String], place: &Place, otherwise: &str, problems: &mut Problems<'_>) {
    if command.first().is_none_or(String::is_empty) {
        problems.error(place, format!("names no program; {otherwise}"));
    }
    if command.iter().any(|word| word.contains('\0')) {
        problems.error(place, "holds a NUL character, which no command can; take it out".to_owned());
    }
}

fn name(name: &str, place: &Place, problems: &mut Problems<'_>) {
    let lower_or_digit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = name.len() <= NAME_CHARACTERS_MAX
        && name.starts_with(lower_or_digit)
        && name.chars().all(|c| lower_or_digit(c) || c == '-');
    if !fits {
        problems.error(
            place,
            format!(
                "`{name}` can't be used in names of containers; use 1 to {NAME_CHARACTERS_MAX} lower-case letters, \
                 digits and `-`, beginning with a letter or digit"
            ),
        );
    }
}

fn unique(seen: &mut BTreeSet<String>, name: &str, kind: &str, place: &Place, problems: &mut Problems<'_>) {
    if !seen.insert(name.to_owned()) {
        problems.error(
            &place.key("name"),
            format!("there is another {kind} named `{name}` above; give each its own name"),
        );
    }
}

fn range(value: u64, allowed: std::ops::RangeInclusive<u64>, place: &Place, problems: &mut Problems<'_>) {
    if !allowed.contains(&value) {
        problems
            .error(place, format!("{value} is out of range; give {} to {}", allowed.start(), allowed.end()));
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
