//! What there is in the cluster: container instances, and the revisions of task definitions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_sdk_ecs::types::{
    Compatibility, ContainerDefinition, ContainerInstance, NetworkMode, Resource, TaskDefinition,
    TaskDefinitionStatus,
};
use planner::Resources;
use serde::Deserialize;
use tokio::time::{Instant, sleep, timeout};

use crate::book::HostFacts;
use crate::core::{Core, Looks};
use crate::error::CallError;
use crate::quota::Turn;
use crate::task::{Arn, Reserved};

/// How long a container has from its signal to SIGKILL where its definition does not say: `ECS_CONTAINER_STOP_TIMEOUT`'s default
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-agent-config.html>).
const STOP_TIMEOUT_MS: u64 = 30_000;
/// Instances are looked at no more often than this, whatever the surprise.
const INSTANCES_SPACING: Duration = Duration::from_secs(1);
/// While an agent is away, or a task is on an instance that is not known: nothing is lost for want of an event.
const INSTANCES_SOON: Duration = Duration::from_secs(5);
/// Where events tell of instances, they are looked at this many times less often.
const WITH_EVENTS: u32 = 4;
/// Of many task definitions one is looked at after the other, at this distance at least: no more than two calls a minute.
const DEFINITIONS_SPACING: Duration = Duration::from_secs(30);

/// What there is in the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Discovered {
    /// By name. One that is gone stays for as long as a task of ours is known on it.
    pub instances: Vec<DiscoveredInstance>,
    /// By the names in [`crate::Wanted`]; if one cannot be used, why, in words.
    pub task_definitions: BTreeMap<String, Result<Arc<Revision>, String>>,
}

/// A container instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoveredInstance {
    /// The EC2 instance's id; where there is none, or it is taken, the last part of its own ARN.
    pub name: String,
    /// What there is for us: the configured slots, and what is registered less what is set aside or taken by others.
    pub capacity: Resources,
    /// The configured slots, and what its agent has registered.
    pub registered: Resources,
    /// Its agent's.
    pub agent_version: Option<String>,
}

/// A revision of a task definition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// Its name for all time.
    pub arn: String,
    /// Its family.
    pub family: String,
    /// Its number in the family.
    pub revision: i32,
    /// Thousandths of a CPU that ECS sets aside for a task.
    pub cpu_millis: u64,
    /// Mebibytes that ECS sets aside for a task.
    pub memory_mib: u64,
    /// The longest `stopTimeout` of its containers.
    pub stop_timeout_ms: u64,
    /// Whether any of its containers has a healthcheck.
    pub has_healthcheck: bool,
    /// `host`, `bridge` or `none`.
    pub network_mode: String,
    /// The ports of the host that a task takes; 0 is not among them.
    pub host_ports: BTreeSet<u16>,
    /// Its containers' images.
    pub images: Vec<String>,
}

impl Revision {
    /// From ECS's answer, or why it cannot be used.
    fn of(definition: &TaskDefinition) -> Result<(Self, Reserved), String> {
        let family = definition.family().unwrap_or_default();
        let name = format!("{family}:{}", definition.revision());
        if definition.status() != Some(&TaskDefinitionStatus::Active) {
            return Err(format!(
                "task definition {name} is not ACTIVE: register it again, or name another revision"
            ));
        }
        let compatible = definition.compatibilities();
        if !compatible.is_empty() && !compatible.contains(&Compatibility::Ec2) {
            return Err(format!(
                "task definition {name} is not compatible with EC2: add EC2 to its requiresCompatibilities"
            ));
        }
        let network_mode = definition.network_mode().map_or("bridge", NetworkMode::as_str).to_owned();
        if network_mode == "awsvpc" {
            return Err(format!(
                "task definition {name} has the network mode awsvpc, which takes a network interface for each task, and \
                 seconds: use host or bridge"
            ));
        }
        let containers = definition.container_definitions();
        let of_containers = containers.iter().fold(Reserved::default(), |sum, container| {
            let memory = container.memory_reservation().or(container.memory());
            let memory = memory.and_then(|memory| u64::try_from(memory).ok());
            sum.plus(Reserved {
                cpu_units: u64::try_from(container.cpu()).unwrap_or_default(),
                memory_mib: memory.unwrap_or_default(),
            })
        });
        let number = |text: Option<&str>| text.and_then(|text| text.parse().ok());
        let reserved = Reserved {
            cpu_units: number(definition.cpu()).unwrap_or(of_containers.cpu_units),
            memory_mib: number(definition.memory()).unwrap_or(of_containers.memory_mib),
        };
        let stop_timeout = |seconds: Option<i32>| {
            seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .map_or(STOP_TIMEOUT_MS, |seconds| seconds * 1_000)
        };
        let ports = containers.iter().flat_map(ContainerDefinition::port_mappings).filter_map(|mapping| {
            let port = if network_mode == "host" { mapping.container_port() } else { mapping.host_port() };
            port.and_then(|port| u16::try_from(port).ok()).filter(|&port| port != 0)
        });
        let revision = Self {
            arn: definition.task_definition_arn().unwrap_or_default().to_owned(),
            family: family.to_owned(),
            revision: definition.revision(),
            cpu_millis: reserved.cpu_millis(),
            memory_mib: reserved.memory_mib,
            stop_timeout_ms: containers
                .iter()
                .map(|container| stop_timeout(container.stop_timeout()))
                .max()
                .unwrap_or(STOP_TIMEOUT_MS),
            has_healthcheck: containers.iter().any(|container| container.health_check().is_some()),
            host_ports: ports.collect(),
            images: containers.iter().filter_map(|container| container.image().map(str::to_owned)).collect(),
            network_mode,
        };
        Ok((revision, reserved))
    }
}

/// The revisions that have been looked up.
#[derive(Default)]
pub(crate) struct Revisions {
    by_name: Mutex<BTreeMap<String, Result<Arc<Revision>, String>>>,
    by_arn: Mutex<BTreeMap<Arn, Reserved>>,
}

impl Revisions {
    /// What its tasks take, if it has been looked up.
    pub(crate) fn reserved(&self, arn: &str) -> Option<Reserved> {
        self.by_arn.lock().expect("nothing panics while holding it").get(arn).copied()
    }
}

impl HostFacts {
    /// From an answer; `None` for an instance without a name.
    fn of_answer(instance: &ContainerInstance) -> Option<Self> {
        Some(Self {
            arn: instance.container_instance_arn()?.into(),
            version: instance.version(),
            ec2_id: instance.ec2_instance_id().filter(|id| !id.is_empty()).map(str::to_owned),
            status: instance.status().unwrap_or_default().to_owned(),
            connected: instance.agent_connected(),
            registered: of_resources(instance.registered_resources()),
            remaining: of_resources(instance.remaining_resources()),
            agent_version: instance.version_info().and_then(|info| info.agent_version().map(str::to_owned)),
        })
    }

    /// From an event's detail.
    pub(crate) fn of_event(told: ToldInstance) -> Self {
        let sum = |resources: Option<Vec<ToldResource>>| {
            resources.unwrap_or_default().iter().fold(Reserved::default(), |sum, resource| {
                sum.plus(reserved(&resource.name, resource.integer_value.unwrap_or_default()))
            })
        };
        Self {
            arn: told.container_instance_arn.into(),
            version: told.version,
            ec2_id: told.ec2_instance_id.filter(|id| !id.is_empty()),
            status: told.status,
            connected: told.agent_connected,
            registered: sum(told.registered_resources),
            remaining: sum(told.remaining_resources),
            agent_version: told.version_info.and_then(|info| info.agent_version),
        }
    }
}

fn of_resources(resources: &[Resource]) -> Reserved {
    resources.iter().fold(Reserved::default(), |sum, resource| {
        sum.plus(reserved(resource.name().unwrap_or_default(), i64::from(resource.integer_value())))
    })
}

fn reserved(name: &str, value: i64) -> Reserved {
    let value = u64::try_from(value).unwrap_or_default();
    match name {
        "CPU" => Reserved { cpu_units: value, memory_mib: 0 },
        "MEMORY" => Reserved { cpu_units: 0, memory_mib: value },
        _ => Reserved::default(),
    }
}

/// The detail of a container instance state change event, as far as anybody here asks
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_container_instance_events.html>).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToldInstance {
    pub(crate) cluster_arn: String,
    container_instance_arn: String,
    ec2_instance_id: Option<String>,
    version: i64,
    status: String,
    agent_connected: bool,
    registered_resources: Option<Vec<ToldResource>>,
    remaining_resources: Option<Vec<ToldResource>>,
    version_info: Option<ToldVersion>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToldResource {
    name: String,
    integer_value: Option<i64>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToldVersion {
    agent_version: Option<String>,
}

impl Core {
    /// One look at all instances.
    pub(crate) async fn look_at_instances(&self) -> Result<(), CallError> {
        let answer = self.api.instances(Turn::Second).await?;
        self.book.looked_at_hosts(answer.iter().filter_map(HostFacts::of_answer).collect());
        self.publish();
        Ok(())
    }

    /// One look at a task definition; the inner error is why it cannot be used.
    pub(crate) async fn look_up(&self, name: &str) -> Result<Result<Arc<Revision>, String>, CallError> {
        let found = match self.api.task_definition(name, Turn::Second).await {
            Ok(Some(definition)) => Revision::of(&definition),
            Ok(None) => Err(format!("ECS has answered nothing about task definition {name}")),
            Err(CallError::Refused { code, message }) if code == "ClientException" => Err(format!(
                "task definition {name} cannot be used: {message}: register it, or correct its name"
            )),
            Err(error) => return Err(error),
        };
        Ok(found.map(|(revision, reserved)| {
            if revision.has_healthcheck {
                self.book.has_health(&revision.arn);
            }
            let mut by_arn = self.revisions.by_arn.lock().expect("nothing panics while holding it");
            by_arn.insert(revision.arn.as_str().into(), reserved);
            Arc::new(revision)
        }))
    }

    /// Looks up all that is wanted and has not been, or one that is wanted. Says how many are wanted.
    async fn look_at_definitions(&self, turn: usize) -> Result<usize, CallError> {
        let wanted = self.wanted().task_definitions;
        let unknown: Vec<String> = {
            let mut known = self.revisions.by_name.lock().expect("nothing panics while holding it");
            known.retain(|name, _| wanted.contains(name));
            wanted.iter().filter(|name| !known.contains_key(*name)).cloned().collect()
        };
        let due = if unknown.is_empty() {
            wanted.iter().nth(turn % wanted.len().max(1)).cloned().into_iter().collect()
        } else {
            unknown
        };
        for name in due {
            let found = self.look_up(&name).await?;
            if let Err(problem) = &found {
                tracing::warn!(task_definition = name, problem, "a task definition cannot be used");
            }
            self.revisions.by_name.lock().expect("nothing panics while holding it").insert(name, found);
        }
        self.publish();
        Ok(wanted.len())
    }

    /// One look at everything, for whoever asks now.
    pub(crate) async fn discover(&self) -> Result<Discovered, CallError> {
        self.look_at_instances().await?;
        for name in self.wanted().task_definitions {
            let found = self.look_up(&name).await?;
            self.revisions.by_name.lock().expect("nothing panics while holding it").insert(name, found);
        }
        Ok(self.seen())
    }

    fn seen(&self) -> Discovered {
        let hosts = self.book.hosts(self.config.slots_per_instance, self.config.reserve);
        let instances = hosts.into_iter().map(|host| DiscoveredInstance {
            name: host.name,
            capacity: host.capacity,
            registered: host.registered,
            agent_version: host.agent_version,
        });
        Discovered {
            instances: instances.collect(),
            task_definitions: self.revisions.by_name.lock().expect("nothing panics while holding it").clone(),
        }
    }

    /// Tells of what is discovered, once everything wanted has been looked up.
    pub(crate) fn publish(&self) {
        let seen = self.seen();
        let wanted = self.wanted().task_definitions;
        let is_whole = wanted.iter().all(|name| seen.task_definitions.contains_key(name));
        if !is_whole || seen.instances.is_empty() && self.discovered.borrow().is_none() {
            return;
        }
        self.discovered.send_if_modified(|known| {
            let is_news = known.as_deref() != Some(&seen);
            if is_news {
                *known = Some(Arc::new(seen));
            }
            is_news
        });
    }
}

/// Looks at the instances, on a period and on surprise, for ever.
pub(crate) async fn follow_instances(core: Arc<Core>) {
    let refresh = Duration::from_millis(core.config.limits.refresh_ms);
    loop {
        let began = Instant::now();
        let answer = core.look_at_instances().await;
        let went_well = core.noted(Looks::Instances, began, answer).is_some();
        let period = match core.book.events_tell() {
            _ if !went_well => core.api.jittered(INSTANCES_SOON),
            _ if core.book.any_away() => INSTANCES_SOON.min(refresh),
            (_, true) if core.listens() => refresh * WITH_EVENTS,
            _ => refresh,
        };
        let next = began + period;
        sleep(INSTANCES_SPACING).await;
        let rest = next.saturating_duration_since(Instant::now());
        let _ = timeout(rest, core.look_at_instances.notified()).await;
    }
}

/// Looks at the task definitions, in turn, for ever.
pub(crate) async fn follow_definitions(core: Arc<Core>) {
    let refresh = Duration::from_millis(core.config.limits.refresh_ms);
    let mut turn = 0;
    loop {
        let began = Instant::now();
        let answer = core.look_at_definitions(turn).await;
        turn = turn.wrapping_add(1);
        let wanted = core.noted(Looks::Definitions, began, answer);
        let period = match wanted {
            Some(count) => {
                let count = u32::try_from(count).unwrap_or(u32::MAX).max(1);
                (refresh / count).max(DEFINITIONS_SPACING.min(refresh))
            }
            None => core.api.jittered(INSTANCES_SOON),
        };
        let _ = timeout(period, core.look_at_definitions.notified()).await;
    }
}
