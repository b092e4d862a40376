//! Tasks: started on instances that the caller names, stopped, listed, described.
//!
//! What becomes of them in between is in `life_cycle.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::backend::{ContainerPlan, Plan};
use crate::consistency::Lagging;
use crate::definitions::{self, Definition, is_essential};
use crate::ecs::FakeEcs;
use crate::pages::{PAGE, Paging};
use crate::placement::Constraint;
use crate::resources::Needs;
use crate::tags::{self, Tag};
use crate::wire::{ApiError, Reply};
use crate::world::{Stamp, World, last_part};
use crate::{dice, events, instances, life_cycle, placement};

/// The most instances that one `StartTask` names, and the most tasks that one `RunTask` starts
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StartTask.html>).
const MOST_STARTED: usize = 10;
/// Characters of `startedBy` (same page).
const STARTED_BY_CHARS: usize = 36;
/// Characters of `overrides` as JSON (same page).
const OVERRIDES_CHARS: usize = 8_192;
/// Characters of the reason of a stop. The API's page names no limit today; it named 255
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopTask.html>).
const REASON_CHARS: usize = 255;

/// Where a task or container is, as far as ECS knows, in the order of its life
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Status {
    Provisioning,
    Pending,
    Activating,
    Running,
    Stopping,
    Deprovisioning,
    Stopped,
}

/// Where it should be. ECS knows no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Desired {
    Running,
    Stopped,
}

/// What its health check says, as far as it has one: "if health checks aren't configured for this container in its task
/// definition, then it reports the health status as `UNKNOWN`"
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Container.html>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub(crate) enum Health {
    #[default]
    Unknown,
    Healthy,
    Unhealthy,
}

/// One task.
pub(crate) struct Task {
    pub(crate) cluster: String,
    /// The container instance's id.
    pub(crate) instance: String,
    /// What ECS knows.
    pub(crate) view: Lagging<TaskView>,
    pub(crate) needs: Arc<Needs>,
    /// Whether ECS counts its resources as taken.
    pub(crate) counted: bool,
    /// Its place in what ECS has sent to agents.
    pub(crate) placed: u64,
    pub(crate) signals: watch::Sender<Signals>,
    /// What is so on the instance, known to ECS or not.
    pub(crate) truth: Truth,
}

/// What a task's life waits for. Each becomes true once.
#[expect(clippy::struct_excessive_bools, reason = "four things that may happen in any order")]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Signals {
    /// The agent has room for it.
    pub(crate) started: bool,
    /// The agent has heard that it is to stop.
    pub(crate) stop: bool,
    /// Somebody has killed its containers on the instance.
    pub(crate) killed: bool,
    /// The instance is gone, and all that was on it.
    pub(crate) lost: bool,
}

/// What is so on the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Truth {
    /// No container runs yet.
    Waiting,
    /// Its containers run.
    Running,
    /// They have ended, or never will run.
    Ended,
}

/// A task as ECS describes it (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html>).
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TaskView {
    #[serde(flatten)]
    pub(crate) fixed: Arc<Fixed>,
    pub(crate) last_status: Status,
    pub(crate) desired_status: Desired,
    pub(crate) connectivity: &'static str,
    pub(crate) health_status: Health,
    pub(crate) containers: Vec<ContainerView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pull_started_at: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pull_stopped_at: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_at: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stopping_at: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) execution_stopped_at: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stopped_at: Option<Stamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stop_code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stopped_reason: Option<String>,
    pub(crate) tags: Vec<Tag>,
    pub(crate) version: u64,
}

/// What of a task does not change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Fixed {
    pub(crate) task_arn: String,
    pub(crate) cluster_arn: String,
    pub(crate) container_instance_arn: String,
    pub(crate) task_definition_arn: String,
    #[serde(skip)]
    pub(crate) family: String,
    #[serde(skip)]
    pub(crate) network_interface: bool,
    pub(crate) group: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) started_by: Option<String>,
    pub(crate) availability_zone: String,
    pub(crate) launch_type: &'static str,
    pub(crate) cpu: String,
    pub(crate) memory: String,
    pub(crate) overrides: Value,
    pub(crate) attributes: Value,
    pub(crate) attachments: Value,
    pub(crate) enable_execute_command: bool,
    pub(crate) created_at: Stamp,
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Container.html>
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerView {
    #[serde(flatten)]
    fixed: Arc<FixedContainer>,
    pub(crate) last_status: Status,
    pub(crate) health_status: Health,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) runtime_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) exit_code: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) network_bindings: Vec<Value>,
}

/// What of a container does not change.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FixedContainer {
    container_arn: String,
    task_arn: String,
    name: String,
    image: String,
    cpu: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_reservation: Option<String>,
    network_interfaces: Value,
}

/// What `StartTask` and `RunTask` are told of the tasks to be made.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct NewTasks {
    pub(crate) cluster: Option<String>,
    pub(crate) task_definition: String,
    pub(crate) container_instances: Vec<String>,
    pub(crate) group: Option<String>,
    pub(crate) started_by: Option<String>,
    pub(crate) tags: Vec<Tag>,
    pub(crate) propagate_tags: Option<String>,
    pub(crate) count: Option<usize>,
    pub(crate) client_token: Option<String>,
    pub(crate) placement_constraints: Vec<Constraint>,
    pub(crate) overrides: Overrides,
    pub(crate) network_configuration: Option<Value>,
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TaskOverride.html>
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Overrides {
    container_overrides: Vec<ContainerOverride>,
    inference_accelerator_overrides: Vec<Value>,
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerOverride.html>
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct ContainerOverride {
    name: String,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

/// Starts a task on each of the instances, where it can be started
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StartTask.html>). There is no client token: asked
/// twice, it starts twice.
pub(crate) fn start(ecs: &FakeEcs, request: &NewTasks) -> Reply {
    let asked = &request.container_instances;
    if asked.is_empty() || asked.len() > MOST_STARTED {
        return Err(ApiError::invalid("Container instances must have 1 to 10 elements."));
    }
    let mut world = ecs.world();
    let cluster = world.cluster(request.cluster.as_deref())?;
    check(&world, request)?;
    let (mut started, mut failures): (Vec<String>, Vec<Value>) = Default::default();
    for given in asked {
        let Some(instance) = world.instance_id(&cluster, given) else {
            let arn = world.arn(&format!("container-instance/{cluster}/{}", last_part(given)));
            failures.push(json!({"arn": arn, "reason": "MISSING"}));
            continue;
        };
        let ec2_instance_id = world.instances[&instance].spec.ec2_instance_id.clone();
        let asked_for = world.faults.refusal(&ec2_instance_id);
        let definition = definitions::for_new_task(&world, &request.task_definition)?;
        match asked_for.or_else(|| placement::refusal(&world.instances[&instance], definition)) {
            Some(reason) => {
                let arn = instances::arn(&world, &world.instances[&instance]);
                failures.push(json!({"arn": arn, "reason": reason}));
            }
            None => started.push(place(&mut world, request, &instance)?),
        }
    }
    let tasks: Vec<Value> = started.iter().map(|id| document(world.tasks[id].view.now(), true)).collect();
    drop(world);
    ecs.bring_to_life(started);
    Ok(json!({"tasks": tasks, "failures": failures}))
}

/// Starts tasks where ECS finds room for them, and says of each that it has none for why, instance by instance
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html>). With a client token it is done once.
pub(crate) fn run(ecs: &FakeEcs, request: &NewTasks) -> Reply {
    let count = request.count.unwrap_or(1);
    if !(1..=MOST_STARTED).contains(&count) {
        return Err(ApiError::invalid("Count must be 1 to 10."));
    }
    placement::check(&request.placement_constraints)?;
    let mut world = ecs.world();
    let cluster = world.cluster(request.cluster.as_deref())?;
    if let Some(answer) = request.client_token.as_ref().and_then(|token| world.tokens.get(token)) {
        return Ok(answer.clone());
    }
    check(&world, request)?;
    let (mut started, mut used): (Vec<String>, Vec<String>) = Default::default();
    let mut failures = Vec::new();
    for _ in 0..count {
        let definition = &request.task_definition;
        match placement::choose(&world, &cluster, definition, &request.placement_constraints, &used) {
            Ok(instance) => {
                started.push(place(&mut world, request, &instance)?);
                used.push(instance);
            }
            Err(refused) => {
                let failed = refused.into_iter().map(|(instance, reason)| {
                    json!({"arn": instances::arn(&world, &world.instances[&instance]), "reason": reason})
                });
                failures.extend(failed);
                break;
            }
        }
    }
    let tasks: Vec<Value> = started.iter().map(|id| document(world.tasks[id].view.now(), true)).collect();
    let answer = json!({"tasks": tasks, "failures": failures});
    if let Some(token) = &request.client_token {
        world.tokens.insert(token.clone(), answer.clone());
    }
    drop(world);
    ecs.bring_to_life(started);
    Ok(answer)
}

/// Refuses what no instance could be asked to start.
pub(crate) fn check(world: &World, request: &NewTasks) -> Result<(), ApiError> {
    let definition = definitions::for_new_task(world, &request.task_definition)?;
    tags::check(&request.tags)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'/' | b'_');
    let started_by = request.started_by.as_deref().unwrap_or_default();
    if started_by.len() > STARTED_BY_CHARS || !started_by.bytes().all(allowed) {
        return Err(ApiError::invalid("startedBy must be at most 36 letters, numbers, - / or _."));
    }
    if json!(request.overrides).to_string().len() > OVERRIDES_CHARS {
        return Err(ApiError::invalid("Overrides length must be at most 8192."));
    }
    for name in request.overrides.container_overrides.iter().map(|one| &one.name) {
        if !definition.containers().iter().any(|container| container["name"] == **name) {
            return Err(ApiError::invalid(format!(
                "Override for container named {name} is not a container in the TaskDefinition."
            )));
        }
    }
    // "Required for task definitions that use the awsvpc network mode … not supported for other network modes"
    // (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html>).
    match (definition.network_mode() == "awsvpc", request.network_configuration.is_some()) {
        (true, false) => Err(ApiError::invalid(
            "Network Configuration must be provided when networkMode 'awsvpc' is specified.",
        )),
        (false, true) => Err(ApiError::invalid(
            "Network Configuration is not valid for the given networkMode of this task definition.",
        )),
        _ => Ok(()),
    }
}

/// Makes a task on an instance that has room for it, and returns its id. It has no life yet.
pub(crate) fn place(world: &mut World, request: &NewTasks, instance: &str) -> Result<String, ApiError> {
    let mut ids = world.id_dice();
    let id = dice::hex_id(&mut ids);
    let placed = world.next_sequence();
    let definition = definitions::for_new_task(world, &request.task_definition)?;
    let host = &world.instances[instance];
    let task_arn = world.arn(&format!("task/{}/{id}", host.cluster));
    let mut tags = request.tags.clone();
    if request.propagate_tags.as_deref() == Some("TASK_DEFINITION") {
        let own: Vec<String> = tags.iter().map(|tag| tag.key.clone()).collect();
        tags.extend(definition.tags.iter().filter(|tag| !own.contains(&tag.key)).cloned());
    }
    let network_interface = definition.needs.interface;
    let containers = definition.containers().iter().map(|container| {
        let text = |key: &str| container[key].as_u64().map(|number| number.to_string());
        let cluster = &host.cluster;
        let fixed = FixedContainer {
            container_arn: world.arn(&format!("container/{cluster}/{id}/{}", dice::uuid(&mut ids))),
            task_arn: task_arn.clone(),
            name: container["name"].as_str().unwrap_or_default().to_owned(),
            image: container["image"].as_str().unwrap_or_default().to_owned(),
            cpu: text("cpu").unwrap_or_else(|| "0".to_owned()),
            memory: text("memory"),
            memory_reservation: text("memoryReservation"),
            network_interfaces: json!([]),
        };
        ContainerView {
            fixed: Arc::new(fixed),
            last_status: Status::Pending,
            health_status: Health::Unknown,
            runtime_id: None,
            exit_code: None,
            reason: None,
            network_bindings: Vec::new(),
        }
    });
    let containers = containers.collect();
    let fixed = Fixed {
        cluster_arn: world.arn(&format!("cluster/{}", host.cluster)),
        container_instance_arn: instances::arn(world, host),
        task_definition_arn: definitions::arn(world, definition),
        family: definition.family.clone(),
        network_interface,
        group: request.group.clone().unwrap_or_else(|| format!("family:{}", definition.family)),
        started_by: request.started_by.clone(),
        availability_zone: format!("{}a", world.config.region),
        launch_type: "EC2",
        cpu: definition.needs.cpu.to_string(),
        memory: definition.needs.memory.to_string(),
        overrides: json!(request.overrides),
        attributes: json!([{"name": "ecs.cpu-architecture", "value": "x86_64"}]),
        attachments: json!([]),
        enable_execute_command: false,
        created_at: world.stamp(),
        task_arn,
    };
    let view = TaskView {
        fixed: Arc::new(fixed),
        last_status: if network_interface { Status::Provisioning } else { Status::Pending },
        desired_status: Desired::Running,
        connectivity: "CONNECTED",
        health_status: Health::Unknown,
        containers,
        pull_started_at: None,
        pull_stopped_at: None,
        started_at: None,
        stopping_at: None,
        execution_stopped_at: None,
        stopped_at: None,
        stop_code: None,
        stopped_reason: None,
        tags,
        version: 1,
    };
    let task = Task {
        cluster: host.cluster.clone(),
        instance: instance.to_owned(),
        view: Lagging::new(view),
        needs: Arc::clone(&definition.needs),
        counted: true,
        placed,
        signals: watch::Sender::default(),
        truth: Truth::Waiting,
    };
    let needs = Arc::clone(&task.needs);
    let plan = plan(world, request, definition, instance, &id);
    world.plans.insert(id.clone(), Arc::new(plan));
    world.tasks.insert(id.clone(), task);
    world.change_instance(instance, |view| {
        view.taken.add(&needs);
        view.pending += 1;
    });
    events::task_changed(world, &id);
    Ok(id)
}

/// What the agent is told to run: the definition, with what the request overrides.
fn plan(world: &World, request: &NewTasks, definition: &Definition, instance: &str, id: &str) -> Plan {
    let host = &world.instances[instance];
    let containers = definition.containers().iter().map(|container| {
        let mut container = container.clone();
        let named = |one: &&ContainerOverride| container["name"] == *one.name;
        if let Some(given) = request.overrides.container_overrides.iter().find(named) {
            for (key, value) in &given.rest {
                if key == "environment" {
                    override_environment(&mut container, value);
                } else {
                    container[key] = value.clone();
                }
            }
        }
        // Without one it is what the agent is configured to.
        let own = container["stopTimeout"].as_u64().map(Duration::from_secs);
        ContainerPlan {
            name: container["name"].as_str().unwrap_or_default().to_owned(),
            image: container["image"].as_str().unwrap_or_default().to_owned(),
            essential: is_essential(&container),
            stop_timeout: own.unwrap_or(Duration::from_millis(host.spec.stop_timeout_ms)),
            definition: container,
        }
    });
    Plan {
        task: id.to_owned(),
        cluster: host.cluster.clone(),
        instance: host.spec.ec2_instance_id.clone(),
        family: definition.family.clone(),
        network_mode: definition.network_mode().to_owned(),
        has_role: definition.document.contains_key("taskRoleArn"),
        volumes: definition.document.get("volumes").cloned().unwrap_or_default(),
        containers: containers.collect(),
    }
}

/// "You can add new environment variables … or you can override the existing environment variables"
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerOverride.html>).
fn override_environment(container: &mut Value, given: &Value) {
    let given = given.as_array().cloned().unwrap_or_default();
    let mut all = container["environment"].as_array().cloned().unwrap_or_default();
    all.retain(|variable| given.iter().all(|other| other["name"] != variable["name"]));
    all.extend(given);
    container["environment"] = Value::Array(all);
}

/// Which tasks, and what of them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TasksRequest {
    cluster: Option<String>,
    task: Option<String>,
    tasks: Vec<String>,
    reason: Option<String>,
    include: Vec<String>,
    container_instance: Option<String>,
    family: Option<String>,
    started_by: Option<String>,
    service_name: Option<String>,
    desired_status: Option<String>,
    launch_type: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

/// Tells a task to stop. Its tags are deleted, and ECS counts its resources as free
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopTask.html>). For one that was told before, or
/// has stopped, nothing changes.
pub(crate) fn stop(ecs: &FakeEcs, request: &TasksRequest) -> Reply {
    let reason = request.reason.as_deref().unwrap_or("Task stopped by user");
    if reason.chars().count() > REASON_CHARS {
        return Err(ApiError::invalid("Reason must be at most 255 characters."));
    }
    let mut world = ecs.world();
    let cluster = world.cluster(request.cluster.as_deref())?;
    let id = world
        .task_id(&cluster, request.task.as_deref().unwrap_or_default())
        .ok_or_else(|| ApiError::invalid("The referenced task was not found."))?;
    let told = life_cycle::tell_to_stop(&mut world, &id, "UserInitiated", reason);
    let task = document(world.tasks[&id].view.now(), true);
    drop(world);
    if told {
        ecs.deliver_stop(id);
    }
    Ok(json!({"task": task}))
}

/// Tasks by what they *should* be: those that should run, unless `desiredStatus` asks for the others
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html>).
///
/// "When you specify `startedBy` as the filter, it must be the only filter that you use." `desiredStatus` is let pass
/// beside it: it has a value in any case, and public tools give it so.
pub(crate) fn list(ecs: &FakeEcs, request: &TasksRequest) -> Reply {
    let desired = match request.desired_status.as_deref() {
        None | Some("RUNNING") => Some(Desired::Running),
        Some("STOPPED") => Some(Desired::Stopped),
        // "Although you can filter results based on a desired status of PENDING, this doesn't return any results."
        Some("PENDING") => None,
        Some(other) => return Err(ApiError::invalid(format!("Invalid desiredStatus: {other}"))),
    };
    let others = [&request.container_instance, &request.family, &request.service_name, &request.launch_type];
    if request.started_by.is_some() && others.iter().any(|filter| filter.is_some()) {
        return Err(ApiError::invalid("startedBy must be the only filter."));
    }
    let world = ecs.world();
    let cluster = world.cluster(request.cluster.as_deref())?;
    let instance = match &request.container_instance {
        None => None,
        Some(given) => Some(
            world
                .instance_id(&cluster, given)
                .ok_or_else(|| ApiError::invalid("The referenced container instance was not found."))?,
        ),
    };
    let group = request.service_name.as_deref().map(|name| format!("service:{}", last_part(name)));
    let then = world.answered_as_of("ListTasks", &world.config.lag.list);
    let matches = |task: &Task| {
        let Some(view) = task.view.at(then) else { return false };
        task.cluster == cluster
            && Some(view.desired_status) == desired
            && instance.as_ref().is_none_or(|instance| *instance == task.instance)
            && request.started_by.as_ref().is_none_or(|by| view.fixed.started_by.as_ref() == Some(by))
            && request.family.as_ref().is_none_or(|family| *family == view.fixed.family)
            && group.as_ref().is_none_or(|group| *group == view.fixed.group)
            && request.launch_type.as_deref().is_none_or(|wanted| wanted == view.fixed.launch_type)
    };
    let all = world.tasks.iter().filter(|(_, task)| matches(task));
    let all = all.map(|(id, task)| (id.clone(), task.view.now().fixed.task_arn.clone()));
    request.paging.page("taskArns", all, false)
}

/// "Currently, stopped tasks appear in the returned results for at least one hour"; tags only where asked for
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html>).
pub(crate) fn describe(ecs: &FakeEcs, request: &TasksRequest) -> Reply {
    if request.tasks.is_empty() {
        return Err(ApiError::invalid("Tasks cannot be empty."));
    }
    if request.tasks.len() > PAGE {
        return Err(ApiError::invalid("Tasks cannot have more than 100 elements."));
    }
    let world = ecs.world();
    let cluster = world.cluster(request.cluster.as_deref())?;
    let then = world.answered_as_of("DescribeTasks", &world.config.lag.describe);
    let with_tags = request.include.iter().any(|what| what == "TAGS");
    let (mut tasks, mut failures): (Vec<Value>, Vec<Value>) = Default::default();
    for given in &request.tasks {
        let id = world.task_id(&cluster, given);
        if let Some(view) = id.and_then(|id| world.tasks[&id].view.at(then)) {
            tasks.push(document(view, with_tags));
        } else {
            let arn = world.arn(&format!("task/{cluster}/{}", last_part(given)));
            failures.push(json!({"arn": arn, "reason": "MISSING"}));
        }
    }
    Ok(json!({"tasks": tasks, "failures": failures}))
}

/// As it goes over the wire.
pub(crate) fn document(view: &TaskView, with_tags: bool) -> Value {
    let mut document = json!(view);
    if !with_tags {
        document["tags"] = json!([]);
    }
    document
}

impl World {
    /// Changes what ECS says of a task, and tells whoever listens to events: "every time a task experiences a change
    /// that starts a CloudWatch event, the version counter is incremented"
    /// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html>). Keeps the instance's counts.
    pub(crate) fn change_task(&mut self, id: &str, change: impl FnOnce(&mut TaskView)) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let before = counts(task.view.now());
        task.view.change(|view| {
            change(view);
            view.version += 1;
        });
        let after = counts(task.view.now());
        let instance = task.instance.clone();
        events::task_changed(self, id);
        if before != after {
            self.change_instance(&instance, |view| {
                view.running += after.0 - before.0;
                view.pending += after.1 - before.1;
            });
        }
    }

    /// ECS counts a task's resources as free from now on.
    pub(crate) fn free(&mut self, id: &str) {
        let Some(task) = self.tasks.get_mut(id).filter(|task| task.counted) else { return };
        task.counted = false;
        let (instance, needs) = (task.instance.clone(), Arc::clone(&task.needs));
        self.change_instance(&instance, |view| view.taken.give_back(&needs));
    }
}

/// What a task adds to its instance's `runningTasksCount` ("tasks on the container instance that have a desired status
/// of `RUNNING`") and `pendingTasksCount` ("in the `PENDING` status")
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerInstance.html>).
fn counts(view: &TaskView) -> (i64, i64) {
    let pending = view.last_status < Status::Running;
    let wanted = view.desired_status == Desired::Running;
    (i64::from(wanted && !pending), i64::from(wanted && pending))
}
