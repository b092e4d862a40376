//! The configuration file as it is written: every key, its unit, its range and its default.
//!
//! The doc comments here are the descriptions in the JSON schema (`force12-scheduler schema`).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The scheduler's configuration: one TOML file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// The cluster's name: the pool and what runs on it. Lower-case letters, digits and `-`, up to 40
    /// characters. Containers are found again by it: another name is another cluster.
    pub cluster: String,
    /// Where the API listens: `ADDRESS:PORT`. Default `127.0.0.1:8082`.
    #[serde(default = "default_listen")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// A file with the operator's token, which whatever changes something asks for. The environment's
    /// `FORCE12_TOKEN` or `FORCE12_TOKEN_FILE` wins over it. Without a token, only a loopback listener changes
    /// anything.
    pub token_file: Option<PathBuf>,
    /// A file of certificates in PEM form: who signs those of demand sources, beside the public authorities that are
    /// compiled in. Read again when it changes. Default: none.
    pub ca_file: Option<PathBuf>,
    /// Host names, beside loopback and the listener's own address, under which the API may be asked to change
    /// something.
    #[serde(default)]
    pub allowed_hosts: Vec<String>,
    /// After the start, no fill service starts anything before every demand is known or this many milliseconds
    /// have passed. 0 to 600,000; default 2,000.
    #[serde(default = "default_start_hold_ms")]
    pub start_hold_ms: u64,
    /// An instance whose engine has not answered for this many milliseconds, or has said for as long that it has lost
    /// it, is lost. 500 to 3,600,000; default 3,000, and with `[ecs]` 30,000: agents disconnect for a moment every now and
    /// then.
    pub lost_after_ms: Option<u64>,
    /// For engines on which a start that is asked for twice makes two containers, and which may list late what was done
    /// (ECS). There a start without a clear answer keeps its room for this many milliseconds, what was done counts for
    /// as long whatever is listed, and nothing is started for as long after the scheduler's own start. 1,000 to 600,000;
    /// default 10,000.
    #[serde(default = "default_settle_ms")]
    pub settle_ms: u64,
    /// Whether SIGTERM stops the workloads too. Default false: they run on, and the next start adopts them.
    #[serde(default)]
    pub drain_on_exit: bool,
    /// Of several schedulers of the cluster, all of which name this file, one acts and the others stand by. An absolute
    /// path, on a local file system; the file is made if it is not there, and must not be deleted. Default: none, and
    /// nothing keeps a second scheduler from acting too.
    pub lock_file: Option<PathBuf>,
    /// With `lock_file`: a scheduler that is stopped or hangs for this many milliseconds is killed, so that another can
    /// act. 500 to 60,000; default 2,000.
    #[serde(default = "default_stalled_after_ms")]
    pub stalled_after_ms: u64,
    /// A file with logins for registries, as `docker login` writes it (`auths`; credential helpers that it names are not
    /// run). Read again for each pull. To be readable by its owner and group at most (mode 0640). Default: none.
    pub docker_config_file: Option<PathBuf>,
    /// Logins for registries, before those of `docker_config_file`.
    #[serde(default, rename = "registry")]
    pub registries: Vec<RegistryTable>,
    /// Where demand comes from: anything that answers `GET` with a demand document.
    #[serde(default, rename = "demand_source")]
    pub demand_sources: Vec<DemandSourceTable>,
    /// The pool, where it is the container instances of an ECS cluster, and not those that `[[instance]]` names.
    pub ecs: Option<EcsTable>,
    /// The container hosts of the pool, each a Docker engine or a part of one; at least one, unless there is `[ecs]`.
    #[serde(default, rename = "instance")]
    pub instances: Vec<InstanceTable>,
    /// What runs on them; at least one.
    #[serde(default, rename = "service")]
    pub services: Vec<ServiceTable>,
}

/// A demand source.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DemandSourceTable {
    /// Its name, by which services refer to it.
    pub name: String,
    /// Where its demand document is: `http://` or `https://`, without user or password.
    pub url: String,
    /// Milliseconds from one answer to the next question, where the source does not hold questions until
    /// something changes. 10 to 3,600,000; default 250.
    #[serde(default = "default_poll_ms")]
    pub poll_ms: u64,
    /// Milliseconds after the last complete answer at which its demands are stale. At least 500, and twice
    /// `poll_ms`; at most 86,400,000; default 15,000.
    #[serde(default = "default_stale_after_ms")]
    pub stale_after_ms: u64,
}

/// A login for a registry: one of `username` and `username_env`, and one of `password_env` and `password_file`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RegistryTable {
    /// The registry, as images name it: `host` or `host:port`; `docker.io` for images that name none.
    pub server: String,
    /// Who logs in.
    pub username: Option<String>,
    /// The variable of the scheduler's environment that says who logs in.
    pub username_env: Option<String>,
    /// The variable of the scheduler's environment that holds the password.
    pub password_env: Option<String>,
    /// A file that holds the password. Read again for each pull. To be readable by its owner and group at most (mode
    /// 0640).
    pub password_file: Option<PathBuf>,
}

/// An ECS cluster whose container instances (EC2 or external, not Fargate) are the pool. Which there are, and what they have,
/// is looked up.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EcsTable {
    /// The ECS cluster: its name, or its ARN. (The top-level `cluster` is Force12's own name for what it runs there.)
    pub cluster: String,
    /// The AWS region. Default: that of the ARN, or as the AWS SDK finds it (`AWS_REGION`, the profile, the host).
    pub region: Option<String>,
    /// Where the ECS API is, `http://` or `https://`, for a VPC endpoint or a fake. Default: AWS, by the region.
    pub endpoint_url: Option<String>,
    /// Places for containers on each instance. 1 to 10,000.
    pub slots_per_instance: u64,
    /// What of each instance is not to be used: for the ECS agent, and for tasks that others place there. What others' tasks
    /// take beyond it is not used either. Default: nothing.
    #[serde(default)]
    pub reserve: ReserveTable,
    /// Which container instances are the pool, in the cluster query language, such as `attribute:pool == batch`.
    /// Default: all.
    pub instance_filter: Option<String>,
    /// Milliseconds from one look at the container instances and task definitions to the next. 5,000 to 3,600,000;
    /// default 60,000.
    #[serde(default = "default_refresh_ms")]
    pub refresh_ms: u64,
    /// The SQS queue to which an EventBridge rule sends the cluster's state changes; see docs/ecs.md. Default: none, and the
    /// cluster is asked more often.
    pub events_queue_url: Option<String>,
    /// Whether a start in a swap is sent only once what makes room for it has ended. Default false: it is sent at once where
    /// the instance's agent is of a version that holds it back by itself.
    #[serde(default)]
    pub stop_before_start: bool,
}

/// What of an instance is not to be used.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReserveTable {
    /// Thousandths of a CPU. 0 (default) to 1,000,000,000.
    #[serde(default)]
    pub cpu_millis: u64,
    /// Mebibytes of memory. 0 (default) to 1,000,000,000.
    #[serde(default)]
    pub memory_mib: u64,
}

/// A container host.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InstanceTable {
    /// Its name; part of the names of its containers.
    pub name: String,
    /// The Docker engine that it is: `unix:///path/to/docker.sock` or `tcp://host:port`. Several instances may share
    /// one engine. (`https://host:port` is the same as `tcp://host:port`, and needs `tls`; `http://host:port` is without.)
    pub engine: String,
    /// TLS to the engine, over tcp. Default: none, for which whoever reaches the engine is root on its host. The same for
    /// all instances of one engine.
    pub tls: Option<TlsTable>,
    /// At most this many calls that change something under way at once on the engine; how many make sense is learnt, and
    /// may be fewer. 1 to 256; default 16: an engine that works in turn gains nothing by more than a handful, and one that
    /// does not is kept busy. The same for all instances of one engine.
    pub engine_calls_max: Option<u32>,
    /// How much runs on it at most.
    pub capacity: CapacityTable,
    /// `ready` (default), `cordoned` (nothing new starts there) or `draining` (and what runs there is moved).
    #[serde(default)]
    pub state: InstanceStateWord,
    /// At most this many frozen containers. 0 to 10,000; default: not limited.
    pub frozen_max: Option<u32>,
    /// At most this many mebibytes of memory in frozen containers. Default: not limited beyond the capacity.
    pub frozen_memory_mib: Option<u64>,
    /// A frozen container that is to end (beyond these bounds, or wanted by nobody) and has no slot to end in is killed
    /// after this many milliseconds, or at once where the instance holds more than its capacity, and its work is lost.
    /// 0 (at once) to 86,400,000; default 10,000.
    #[serde(default = "default_evict_after_ms")]
    pub evict_after_ms: u64,
}

/// TLS to an engine, both sides with certificates: files in PEM form, read again when they change.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_field_names, reason = "keys that hold a path say so")]
pub struct TlsTable {
    /// The CA that signed the engine's certificate. No others are trusted.
    pub ca_file: PathBuf,
    /// The scheduler's own certificate, which the engine asks for.
    pub cert_file: PathBuf,
    /// Its key, without a passphrase. To be readable by its owner and group at most (mode 0640).
    pub key_file: PathBuf,
}

/// What an instance has. Configured, never asked of the engine, which reports the whole machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CapacityTable {
    /// Places for containers. 1 to 10,000.
    pub slots: u64,
    /// Thousandths of a CPU. Default: not limited.
    pub cpu_millis: Option<u64>,
    /// Mebibytes of memory. Default: not limited.
    pub memory_mib: Option<u64>,
}

/// What may be done with an instance.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InstanceStateWord {
    /// Starts and stops as planned.
    #[default]
    Ready,
    /// Nothing new starts there; what runs stays.
    Cordoned,
    /// Nothing new starts there, and what runs there is moved.
    Draining,
}

/// A kind of container.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServiceTable {
    /// Its name; part of the names of its containers.
    pub name: String,
    /// 1 is the most important; a larger number is less important. 1 to 1,000,000.
    pub priority: u32,
    /// The image, as the engine names it. Required, unless there is `[ecs]`.
    pub image: Option<String>,
    /// With `[ecs]`, in place of `image`: the task definition, by its family (the newest active revision, also when there is
    /// a newer one), `family:revision`, or ARN. All that it says of a container is not said here.
    pub task_definition: Option<String>,
    /// Whether the engine pulls the image, ahead of need and never in a start: `never`, `missing` (default: if it is not
    /// there), or `always` (when the scheduler starts, and when this service's containers or this key are changed; if that
    /// fails, or brings nothing for 10 seconds, what is there will do until it has succeeded). A new image under the same
    /// name replaces no container that runs; new ones are made of it.
    pub pull: Option<PullWord>,
    /// The command, one word an item. Default: the image's own.
    pub command: Option<Vec<String>>,
    /// The containers' environment: these names and values, those of `env_from`, and nothing else. Not for
    /// secrets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Names of variables of the scheduler's own environment to pass on, for secrets.
    #[serde(default)]
    pub env_from: Vec<String>,
    /// Where its demand comes from. A service has either this or `fill = true`.
    pub demand: Option<DemandTable>,
    /// Whether it takes all the room that is left. Default false.
    #[serde(default)]
    pub fill: bool,
    /// What one container takes; also its CPU and memory limits. Default: one slot, no limits. With `[ecs]` the limits are the
    /// task definition's, and what it reserves counts where it is more.
    #[serde(default)]
    pub request: RequestTable,
    /// At least this many containers, whatever the demand; not for a service that fills. 0 to 1,000,000; default 0.
    #[serde(default)]
    pub min: u32,
    /// At most this many containers. 0 to 1,000,000; default: as many as there is demand, or room, for.
    pub max: Option<u32>,
    /// Its part of what services of the same priority share. 1 to 1,000; default 1.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// How more important work takes its room: `stop` (default), or `freeze` or `freeze-or-stop`, which need
    /// `freezable = true`. On an engine that cannot freeze, the one is refused and the other stops.
    #[serde(default)]
    pub on_preempt: OnPreemptWord,
    /// Whether its containers may begin beside what is being frozen to make room for them: `never` (default) or `swap`. For
    /// those milliseconds the instance has more slots and CPU taken than there are, never more memory.
    #[serde(default)]
    pub overlap: OverlapWord,
    /// Whether its work survives being suspended for a while: it holds no leases and no unacknowledged
    /// messages. Default false.
    #[serde(default)]
    pub freezable: bool,
    /// Containers to keep frozen and ready on each instance; needs `freezable = true`, and a demand. Where `on_preempt` is
    /// `freeze` or `freeze-or-stop`, what a fall in demand leaves over is kept frozen too. 0 to 1,000; default 0.
    #[serde(default)]
    pub standby: u32,
    /// Which instance a new container prefers: the one with the fewest of the service (`spread`, default), or
    /// the fullest (`binpack`).
    #[serde(default)]
    pub placement: PlacementWord,
    /// Milliseconds by which a fall in demand takes effect later. 0 to 86,400,000; default 0.
    #[serde(default)]
    pub scale_down_after_ms: u64,
    /// Milliseconds for which a container, once started, is the last choice to be stopped. 0 to 86,400,000;
    /// default 0.
    #[serde(default)]
    pub min_runtime_ms: u64,
    /// Milliseconds from the stop signal to SIGKILL. 0 (SIGKILL at once) to 600,000; default 10,000.
    pub stop_grace_ms: Option<u64>,
    /// The signal that asks it to stop, such as `SIGTERM`. Default: the image's own.
    pub stop_signal: Option<String>,
    /// Its network: `host`, `none`, `bridge`, or one by name. Default: the engine's own.
    pub network: Option<String>,
    /// `user` or `user:group`. Default: the image's own.
    pub user: Option<String>,
    /// Whether its root file system is read-only. Default false.
    pub read_only_root: Option<bool>,
    /// Where its output goes. Default: as the engine is set up.
    pub log: Option<LogTable>,
    /// How the engine tells whether it is healthy. Default: the image's own.
    pub healthcheck: Option<HealthcheckTable>,
    /// When a container counts as running: as soon as it runs (`running`, default), or once its healthcheck says so
    /// (`healthy`). Until then it meets no demand, and lets no older one go.
    #[serde(default)]
    pub ready: ReadyWord,
    /// Milliseconds that a container may run without being healthy, where `ready = "healthy"`; one that takes longer is
    /// a failed start, and is stopped. One that was healthy when it was frozen counts as soon as it is thawed, and is
    /// unhealthy if no check has said so again after this long. To be longer than the healthcheck's `interval_ms`, after
    /// which it is checked for the first time. 100 to 86,400,000; default 60,000, twice what engines wait for that by
    /// themselves.
    #[serde(default = "default_ready_within_ms")]
    pub ready_within_ms: u64,
    /// Whether nothing new is started for it. Default false.
    #[serde(default)]
    pub paused: bool,
}

/// Whether an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PullWord {
    /// Not at all.
    Never,
    /// If it is not there.
    #[default]
    Missing,
    /// Whenever starts are prepared.
    Always,
}

/// Where a service's demand comes from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DemandTable {
    /// The name of a `[[demand_source]]`.
    pub source: String,
    /// The key of this service in the source's `demand`.
    pub key: String,
    /// What a stale demand becomes: `"hold"` (default) keeps the last value; `{ fallback = n, after_ms = m }`
    /// makes it n once it has been stale for m milliseconds.
    #[serde(default)]
    pub on_stale: OnStaleValue,
}

/// What a stale demand becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnStaleValue {
    /// The last value, for as long as it takes.
    #[default]
    Hold,
    /// The last value for `after_ms`, then `fallback` containers.
    Fallback {
        /// The demand from then on; 0 to 1,000,000.
        fallback: u32,
        /// Milliseconds of staleness before that; 0 to 86,400,000.
        after_ms: u64,
    },
}

/// What one container takes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RequestTable {
    /// Places. 1 to 10,000; default 1.
    #[serde(default = "default_request_slots")]
    pub slots: u64,
    /// Thousandths of a CPU, also its limit. Default 0: nothing asked for, no limit; otherwise 10 to 1,000,000,000.
    #[serde(default)]
    pub cpu_millis: u64,
    /// Mebibytes of memory, also its limit. Default 0: nothing asked for, no limit; otherwise 6 to 1,000,000,000.
    #[serde(default)]
    pub memory_mib: u64,
}

/// Where a service's output goes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LogTable {
    /// The engine's log driver, such as `json-file`, `local`, `journald` or `none`.
    pub driver: String,
    /// Its options.
    #[serde(default)]
    pub options: BTreeMap<String, String>,
}

/// How the engine tells whether a container is healthy.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthcheckTable {
    /// The command, one word an item, without a shell.
    pub command: Vec<String>,
    /// Milliseconds between two checks. 1 to 86,400,000; default 10,000.
    #[serde(default = "default_healthcheck_interval_ms")]
    pub interval_ms: u64,
    /// Milliseconds for one check. 1 to 86,400,000; default 2,000.
    #[serde(default = "default_healthcheck_timeout_ms")]
    pub timeout_ms: u64,
    /// Failures in a row that make it unhealthy. 1 to 1,000; default 3.
    #[serde(default = "default_healthcheck_retries")]
    pub retries: u32,
}

/// When a container counts as running.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReadyWord {
    /// As soon as it runs.
    #[default]
    Running,
    /// Once its healthcheck says that it is healthy.
    Healthy,
}

/// How room is taken from a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnPreemptWord {
    /// Its container is stopped.
    #[default]
    Stop,
    /// Its container is suspended in place.
    Freeze,
    /// Its container is suspended in place, or stopped where the engine cannot do that.
    #[serde(rename = "freeze-or-stop")]
    FreezeOrStop,
}

/// Whether a container may begin beside what is being frozen for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OverlapWord {
    /// It waits until that is frozen.
    #[default]
    Never,
    /// It does not wait.
    Swap,
}

/// Which instance a new container prefers.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PlacementWord {
    /// The one with the fewest containers of the service.
    #[default]
    Spread,
    /// The fullest.
    Binpack,
}

impl Default for RequestTable {
    fn default() -> Self {
        Self { slots: default_request_slots(), cpu_millis: 0, memory_mib: 0 }
    }
}

/// Where the API listens by default. Loopback: whoever wants more says so.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8082);

const fn default_listen() -> SocketAddr {
    LISTEN_DEFAULT
}

const fn default_start_hold_ms() -> u64 {
    2_000
}

const fn default_settle_ms() -> u64 {
    10_000
}

const fn default_stalled_after_ms() -> u64 {
    2_000
}

const fn default_poll_ms() -> u64 {
    250
}

const fn default_stale_after_ms() -> u64 {
    15_000
}

const fn default_weight() -> u32 {
    1
}

const fn default_evict_after_ms() -> u64 {
    10_000
}

const fn default_refresh_ms() -> u64 {
    60_000
}

const fn default_request_slots() -> u64 {
    1
}

const fn default_ready_within_ms() -> u64 {
    60_000
}

const fn default_healthcheck_interval_ms() -> u64 {
    10_000
}

const fn default_healthcheck_timeout_ms() -> u64 {
    2_000
}

const fn default_healthcheck_retries() -> u32 {
    3
}

// By hand, because a derived untagged enum answers every mistake with "did not match any variant".
impl<'de> Deserialize<'de> for OnStaleValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Values;

        impl<'de> Visitor<'de> for Values {
            type Value = OnStaleValue;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("\"hold\" or { fallback = n, after_ms = m }")
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<OnStaleValue, E> {
                if word == "hold" {
                    Ok(OnStaleValue::Hold)
                } else {
                    Err(E::invalid_value(serde::de::Unexpected::Str(word), &self))
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<OnStaleValue, A::Error> {
                let (mut fallback, mut after_ms) = (None, None);
                while let Some(key) = map.next_key::<String>()? {
                    match key.as_str() {
                        "fallback" => fallback = Some(map.next_value()?),
                        "after_ms" => after_ms = Some(map.next_value()?),
                        other => return Err(A::Error::unknown_field(other, &["fallback", "after_ms"])),
                    }
                }
                match (fallback, after_ms) {
                    (Some(fallback), Some(after_ms)) => Ok(OnStaleValue::Fallback { fallback, after_ms }),
                    (None, _) => Err(A::Error::missing_field("fallback")),
                    (_, None) => Err(A::Error::missing_field("after_ms")),
                }
            }
        }

        deserializer.deserialize_any(Values)
    }
}

impl JsonSchema for OnStaleValue {
    fn schema_name() -> Cow<'static, str> {
        "OnStale".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "oneOf": [
                { "const": "hold" },
                {
                    "type": "object",
                    "properties": {
                        "fallback": { "type": "integer", "minimum": 0, "maximum": 1_000_000 },
                        "after_ms": { "type": "integer", "minimum": 0, "maximum": 86_400_000 }
                    },
                    "required": ["fallback", "after_ms"],
                    "additionalProperties": false
                }
            ]
        })
    }
}
