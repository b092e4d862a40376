//! Container instances: what they have, what is taken of it, their status, and whether their agent is connected.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::agent::Agent;
use crate::consistency::Lagging;
use crate::ecs::FakeEcs;
use crate::events;
use crate::pages::{PAGE, Paging};
use crate::resources::Taken;
use crate::tags::Tag;
use crate::wire::{ApiError, Reply};
use crate::world::{Stamp, World, last_part};

/// Ports of the host that the agent keeps for itself: ssh, Docker's two, and the agent's own
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_PortMapping.html>).
const AGENT_PORTS: [u16; 5] = [22, 2375, 2376, 51678, 51679];

/// The most instances that one call changes
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateContainerInstancesState.html>).
const MOST_UPDATED: usize = 10;

/// A host as its agent registers it.
#[derive(Clone, Debug)]
pub struct InstanceSpec {
    /// The EC2 instance's id.
    pub ec2_instance_id: String,
    /// CPU units: 1,024 are one vCPU.
    pub cpu: u64,
    /// MiB.
    pub memory: u64,
    /// How many tasks in `awsvpc` network mode it can have, each with a network interface of its own.
    pub interfaces: u64,
    /// The agent's version: three numbers.
    pub agent_version: String,
    /// `ECS_CONTAINER_STOP_TIMEOUT` of its agent, in milliseconds: for containers without a `stopTimeout`
    /// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-agent-config.html>).
    pub stop_timeout_ms: u64,
    /// Attributes beside those of every Linux host on EC2, with their values.
    pub attributes: BTreeMap<String, String>,
    /// Attributes that it lacks of those that every Linux host on EC2 has.
    pub without_attributes: Vec<String>,
}

impl Default for InstanceSpec {
    /// About a t3.small.
    fn default() -> Self {
        Self {
            ec2_instance_id: "i-0fa4e0000000000000".to_owned(),
            cpu: 2_048,
            memory: 1_900,
            interfaces: 2,
            agent_version: "1.98.0".to_owned(),
            stop_timeout_ms: 30_000,
            attributes: BTreeMap::new(),
            without_attributes: Vec::new(),
        }
    }
}

/// What every Linux host on EC2 can do
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-constraints.html>).
const USUAL_ATTRIBUTES: [(&str, Option<&str>); 19] = [
    ("ecs.availability-zone", Some("a")),
    ("ecs.os-type", Some("linux")),
    ("ecs.os-family", Some("LINUX")),
    ("ecs.cpu-architecture", Some("x86_64")),
    ("ecs.instance-type", Some("t3.small")),
    ("ecs.capability.task-eni", None),
    ("ecs.capability.execution-role-awslogs", None),
    ("ecs.capability.execution-role-ecr-pull", None),
    ("ecs.capability.secrets.asm.environment-variables", None),
    ("ecs.capability.secrets.ssm.environment-variables", None),
    ("ecs.capability.container-health-check", None),
    ("ecs.capability.container-ordering", None),
    ("com.amazonaws.ecs.capability.privileged-container", None),
    ("com.amazonaws.ecs.capability.task-iam-role", None),
    ("com.amazonaws.ecs.capability.task-iam-role-network-host", None),
    ("com.amazonaws.ecs.capability.ecr-auth", None),
    ("com.amazonaws.ecs.capability.logging-driver.awslogs", None),
    ("com.amazonaws.ecs.capability.logging-driver.json-file", None),
    ("com.amazonaws.ecs.capability.docker-remote-api.1.44", None),
];

/// One container instance.
pub(crate) struct Instance {
    pub(crate) cluster: String,
    pub(crate) id: String,
    pub(crate) spec: InstanceSpec,
    registered_at: Stamp,
    /// What ECS knows.
    pub(crate) view: Lagging<InstanceView>,
    /// Whether its agent is connected in truth.
    pub(crate) connected: watch::Sender<bool>,
    pub(crate) agent: Agent,
}

/// What ECS says of an instance.
#[derive(Clone, Debug)]
pub(crate) struct InstanceView {
    /// ACTIVE, DRAINING, or INACTIVE once it is deregistered.
    pub(crate) status: &'static str,
    pub(crate) agent_connected: bool,
    version: u64,
    /// By the tasks that ECS wants to run there, and the agent's own ports.
    pub(crate) taken: Taken,
    /// Tasks with a desired status of RUNNING that are past PENDING.
    pub(crate) running: i64,
    /// Tasks that are PENDING, or before that.
    pub(crate) pending: i64,
    pub(crate) attributes: Arc<BTreeMap<String, Option<String>>>,
    pub(crate) tags: Vec<Tag>,
}

impl Instance {
    pub(crate) fn is_registered(&self) -> bool {
        self.view.now().status != "INACTIVE"
    }
}

/// Registers a host with a cluster, as its agent does, and returns the container instance's id.
pub(crate) fn register(world: &mut World, cluster: &str, spec: InstanceSpec) -> String {
    let id = crate::dice::hex_id(&mut world.id_dice());
    let mut attributes: BTreeMap<String, Option<String>> = USUAL_ATTRIBUTES
        .iter()
        .filter(|(name, _)| !spec.without_attributes.iter().any(|without| without == name))
        .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
        .collect();
    if let Some(zone) = attributes.get_mut("ecs.availability-zone") {
        *zone = Some(format!("{}a", world.config.region));
    }
    attributes.extend(spec.attributes.iter().map(|(name, value)| (name.clone(), Some(value.clone()))));
    let view = InstanceView {
        status: "ACTIVE",
        agent_connected: true,
        version: 1,
        taken: Taken { tcp: AGENT_PORTS.into(), ..Taken::default() },
        running: 0,
        pending: 0,
        attributes: Arc::new(attributes),
        tags: Vec::new(),
    };
    let instance = Instance {
        cluster: cluster.to_owned(),
        id: id.clone(),
        registered_at: world.stamp(),
        view: Lagging::new(view),
        connected: watch::Sender::new(true),
        agent: Agent::new(&spec),
        spec,
    };
    world.instances.insert(id.clone(), instance);
    events::instance_changed(world, &id);
    id
}

impl World {
    /// Changes what ECS says of an instance, and tells whoever listens to events.
    pub(crate) fn change_instance(&mut self, id: &str, change: impl FnOnce(&mut InstanceView)) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.view.change(|view| {
                change(view);
                view.version += 1;
            });
            events::instance_changed(self, id);
        }
    }
}

/// Which instances, and what of them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct InstancesRequest {
    cluster: Option<String>,
    container_instances: Vec<String>,
    container_instance: Option<String>,
    include: Vec<String>,
    status: Option<String>,
    filter: Option<String>,
    force: bool,
    #[serde(flatten)]
    paging: Paging,
}

/// The instances of a cluster; those deregistered only where `status` asks for them
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListContainerInstances.html>).
pub(crate) fn list(ecs: &FakeEcs, request: &InstancesRequest) -> Reply {
    let world = ecs.world();
    let cluster = world.cluster(request.cluster.as_deref())?;
    let filter = request.filter.as_deref().map(crate::query::parse).transpose()?;
    let then = world.answered_as_of("ListContainerInstances", &world.config.lag.list);
    let matches = |instance: &&Instance| {
        let Some(view) = instance.view.at(then) else { return false };
        let has_status = match request.status.as_deref() {
            None => view.status != "INACTIVE",
            Some(wanted) => view.status == wanted,
        };
        instance.cluster == cluster
            && has_status
            && filter.as_ref().is_none_or(|filter| filter.matches(instance, view))
    };
    let all = world.instances.values().filter(matches);
    let all = all.map(|instance| (instance.id.clone(), arn(&world, instance)));
    request.paging.page("containerInstanceArns", all, false)
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeContainerInstances.html>
pub(crate) fn describe(ecs: &FakeEcs, request: &InstancesRequest) -> Reply {
    let asked = &request.container_instances;
    if asked.is_empty() || asked.len() > PAGE {
        return Err(ApiError::invalid("Container instances must have 1 to 100 elements."));
    }
    let world = ecs.world();
    let cluster = world.cluster(request.cluster.as_deref())?;
    let then = world.answered_as_of("DescribeContainerInstances", &world.config.lag.describe);
    let with_tags = request.include.iter().any(|what| what == "TAGS");
    let (mut instances, mut failures): (Vec<Value>, Vec<Value>) = Default::default();
    for given in asked {
        let instance = world.instance_id(&cluster, given).map(|id| &world.instances[&id]);
        match instance.and_then(|instance| Some((instance, instance.view.at(then)?))) {
            Some((instance, view)) => instances.push(document(&world, instance, view, with_tags)),
            None => failures.push(missing(&world, &cluster, given)),
        }
    }
    Ok(json!({"containerInstances": instances, "failures": failures}))
}

/// Drains instances, or makes them ACTIVE again. What happens to services' tasks then is theirs to do
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/container-instance-draining.html>).
pub(crate) fn update_state(ecs: &FakeEcs, request: &InstancesRequest) -> Reply {
    let asked = &request.container_instances;
    if asked.is_empty() || asked.len() > MOST_UPDATED {
        return Err(ApiError::invalid("Container instances must have 1 to 10 elements."));
    }
    let status = match request.status.as_deref() {
        Some("ACTIVE") => "ACTIVE",
        Some("DRAINING") => "DRAINING",
        _ => return Err(ApiError::invalid("Container instance status must be ACTIVE or DRAINING.")),
    };
    let mut world = ecs.world();
    let cluster = world.cluster(request.cluster.as_deref())?;
    let (mut instances, mut failures): (Vec<Value>, Vec<Value>) = Default::default();
    for given in asked {
        let id = world.instance_id(&cluster, given);
        match id.filter(|id| world.instances[id].is_registered()) {
            Some(id) => {
                world.change_instance(&id, |view| view.status = status);
                let instance = &world.instances[&id];
                instances.push(document(&world, instance, instance.view.now(), false));
            }
            None => failures.push(missing(&world, &cluster, given)),
        }
    }
    drop(world);
    ecs.changed();
    Ok(json!({"containerInstances": instances, "failures": failures}))
}

/// Takes an instance out of its cluster. Its containers run on, and ECS knows nothing of them any more; its tasks are
/// STOPPED with `force`, and keep it otherwise
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeregisterContainerInstance.html>).
pub(crate) fn deregister(ecs: &FakeEcs, request: &InstancesRequest) -> Reply {
    let mut world = ecs.world();
    let cluster = world.cluster(request.cluster.as_deref())?;
    let given = request.container_instance.as_deref().unwrap_or_default();
    let id = world.instance_id(&cluster, given).filter(|id| world.instances[id].is_registered());
    let Some(id) = id else {
        return Err(ApiError::client("Referenced container instance not found."));
    };
    let view = world.instances[&id].view.now();
    if !request.force && view.running + view.pending > 0 {
        return Err(ApiError::invalid("Found running tasks on the instance."));
    }
    crate::life_cycle::lose_instance(&mut world, &id, "Container instance deregistration forced by user");
    let instance = &world.instances[&id];
    let document = document(&world, instance, instance.view.now(), false);
    drop(world);
    ecs.changed();
    Ok(json!({"containerInstance": document}))
}

/// Which attributes, and of which instances.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AttributesRequest {
    cluster: Option<String>,
    attributes: Vec<Attribute>,
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Attribute.html>
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Attribute {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    target_id: String,
}

/// Gives instances attributes (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_PutAttributes.html>).
pub(crate) fn put_attributes(ecs: &FakeEcs, request: &AttributesRequest) -> Reply {
    change_attributes(ecs, request, |all, attribute| {
        all.insert(attribute.name.clone(), attribute.value.clone());
    })
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteAttributes.html>
pub(crate) fn delete_attributes(ecs: &FakeEcs, request: &AttributesRequest) -> Reply {
    change_attributes(ecs, request, |all, attribute| {
        all.remove(&attribute.name);
    })
}

fn change_attributes(
    ecs: &FakeEcs,
    request: &AttributesRequest,
    change: impl Fn(&mut BTreeMap<String, Option<String>>, &Attribute),
) -> Reply {
    if request.attributes.is_empty() || request.attributes.len() > MOST_UPDATED {
        return Err(ApiError::invalid("Attributes must have 1 to 10 elements."));
    }
    let mut world = ecs.world();
    let cluster = world.cluster(request.cluster.as_deref())?;
    for attribute in &request.attributes {
        let id = world.instance_id(&cluster, &attribute.target_id).ok_or_else(|| ApiError {
            status: 400,
            code: "TargetNotFoundException",
            message: format!("The specified target could not be found: {}", attribute.target_id),
        })?;
        world.change_instance(&id, |view| change(Arc::make_mut(&mut view.attributes), attribute));
    }
    drop(world);
    ecs.changed();
    Ok(json!({"attributes": request.attributes}))
}

fn missing(world: &World, cluster: &str, given: &str) -> Value {
    let arn = world.arn(&format!("container-instance/{cluster}/{}", last_part(given)));
    json!({"arn": arn, "reason": "MISSING"})
}

pub(crate) fn arn(world: &World, instance: &Instance) -> String {
    world.arn(&format!("container-instance/{}/{}", instance.cluster, instance.id))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerInstance.html>. What remains leaves out the
/// tasks that were told to stop, whether or not they have: "placing or stopping tasks on a container instance modifies
/// the available resources"
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_container_instance_events.html>).
pub(crate) fn document(world: &World, instance: &Instance, view: &InstanceView, with_tags: bool) -> Value {
    let spec = &instance.spec;
    let registered = Taken { tcp: AGENT_PORTS.into(), ..Taken::default() };
    let resources = |cpu: u64, memory: u64, taken: &Taken| {
        let integer = |name: &str, value: u64| json!({"name": name, "type": "INTEGER", "integerValue": value, "doubleValue": 0.0, "longValue": 0});
        let ports = |name: &str, ports: &std::collections::BTreeSet<u16>| {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            json!({"name": name, "type": "STRINGSET", "stringSetValue": ports, "integerValue": 0,
                   "doubleValue": 0.0, "longValue": 0})
        };
        json!([
            integer("CPU", cpu),
            integer("MEMORY", memory),
            ports("PORTS", &taken.tcp),
            ports("PORTS_UDP", &taken.udp),
        ])
    };
    let attributes: Vec<Value> = view
        .attributes
        .iter()
        .map(|(name, value)| match value {
            Some(value) => json!({"name": name, "value": value}),
            None => json!({"name": name}),
        })
        .collect();
    json!({
        "containerInstanceArn": arn(world, instance),
        "ec2InstanceId": spec.ec2_instance_id,
        "version": view.version,
        "versionInfo": {
            "agentVersion": spec.agent_version,
            "agentHash": "fake",
            "dockerVersion": "DockerVersion: 25.0.6",
        },
        "registeredResources": resources(spec.cpu, spec.memory, &registered),
        "remainingResources": resources(
            spec.cpu.saturating_sub(view.taken.cpu),
            spec.memory.saturating_sub(view.taken.memory),
            &view.taken,
        ),
        "status": view.status,
        "agentConnected": view.agent_connected,
        "runningTasksCount": view.running,
        "pendingTasksCount": view.pending,
        "attributes": attributes,
        "registeredAt": instance.registered_at,
        "attachments": [],
        "tags": if with_tags { &view.tags[..] } else { &[] },
    })
}
