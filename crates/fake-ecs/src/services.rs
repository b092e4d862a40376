//! Services: a desired count of tasks, kept up, and replaced when the task definition changes
//! (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateService.html>).
//!
//! REPLICA services without load balancers, by rolling updates. During one there are never fewer than
//! `minimumHealthyPercent` of the desired count RUNNING because of it ("rounded up"), nor more than `maximumPercent`
//! RUNNING or PENDING ("rounded down")
//! (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeploymentConfiguration.html>); a task counts until it
//! has STOPPED. Not here: circuit breakers, health checks, protection of tasks.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::definitions;
use crate::dice;
use crate::ecs::FakeEcs;
use crate::life_cycle;
use crate::pages::Paging;
use crate::placement::{self, Constraint};
use crate::tags::{self, Tag};
use crate::tasks::{self, Desired, NewTasks, Status, TaskView};
use crate::wire::{ApiError, Reply};
use crate::world::{Stamp, World, last_part};

/// How soon services are looked after again, at most and at least.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_millis(100);
/// "The service scheduler … increases the time between subsequent restart attempts" of tasks that fail to start, here
/// from a second to a minute
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-throttle-logic.html>).
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);
/// "Up to 100" are described
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Service.html>).
const MOST_EVENTS: usize = 100;
/// The most services that one call describes
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeServices.html>).
const MOST_DESCRIBED: usize = 10;

/// One service.
#[derive(Debug)]
pub(crate) struct Service {
    cluster: String,
    name: String,
    /// ACTIVE; DRAINING while tasks of a deleted one are left, and then INACTIVE.
    status: &'static str,
    desired: u64,
    /// What it was created and updated with, without what is here.
    settings: Map<String, Value>,
    /// The newest first: what its tasks should be.
    deployments: Vec<Deployment>,
    pub(crate) tags: Vec<Tag>,
    created_at: Stamp,
    /// The newest first.
    events: VecDeque<Value>,
    /// After tasks that failed to start: nothing is started before, and how long the next pause is.
    paused_until: Instant,
    pause: Duration,
}

/// One revision of it.
#[derive(Debug)]
struct Deployment {
    id: String,
    /// `family:revision`.
    definition: String,
    created_at: Stamp,
    failed: u64,
    /// Tasks that were counted as failed.
    seen_failed: Vec<String>,
}

/// What requests about services say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ServicesRequest {
    cluster: Option<String>,
    service: Option<String>,
    services: Vec<String>,
    include: Vec<String>,
    force: bool,
    #[serde(flatten)]
    paging: Paging,
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateService.html>
pub(crate) fn create(ecs: &FakeEcs, mut settings: Map<String, Value>) -> Reply {
    let mut world = ecs.world();
    let cluster = world.cluster(settings.get("cluster").and_then(Value::as_str))?;
    let name = settings.get("serviceName").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !crate::clusters::is_name(&name) {
        return Err(ApiError::invalid("Service name contains invalid characters."));
    }
    let key = (cluster.clone(), name.clone());
    match world.services.get(&key).map(|service| service.status) {
        Some("DRAINING") => {
            return Err(ApiError::invalid("Unable to Start a service that is still Draining."));
        }
        Some("ACTIVE") => return Err(ApiError::invalid("Creation of service was not idempotent.")),
        _ => {}
    }
    let definition = revision(&world, settings.get("taskDefinition"))?;
    let own_tags: Vec<Tag> = from(settings.remove("tags"))?.unwrap_or_default();
    tags::check(&own_tags)?;
    constraints(&settings)?;
    let desired = from(settings.remove("desiredCount"))?.unwrap_or(1);
    for member in ["cluster", "serviceName", "taskDefinition", "clientToken"] {
        settings.remove(member);
    }
    let now = world.stamp();
    let service = Service {
        cluster,
        name,
        status: "ACTIVE",
        desired,
        settings,
        deployments: vec![deployment(&mut world, definition)],
        tags: own_tags,
        created_at: now,
        events: VecDeque::new(),
        paused_until: Instant::now(),
        pause: FIRST_PAUSE,
    };
    let described = document(&world, &service, true);
    world.services.insert(key, service);
    let is_first = !std::mem::replace(&mut world.services_are_kept, true);
    drop(world);
    if is_first {
        tokio::spawn(keep(ecs.clone()));
    }
    ecs.changed();
    Ok(json!({"service": described}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UpdateService.html>
pub(crate) fn update(ecs: &FakeEcs, mut settings: Map<String, Value>) -> Reply {
    let mut world = ecs.world();
    let key = key(
        &world,
        settings.get("cluster").and_then(Value::as_str),
        settings.get("service").and_then(Value::as_str),
    )?;
    if world.services.get(&key).is_none_or(|service| service.status != "ACTIVE") {
        return Err(ApiError {
            code: "ServiceNotActiveException",
            ..ApiError::client("Service was not ACTIVE.")
        });
    }
    let force = settings.remove("forceNewDeployment") == Some(json!(true));
    let definition = match settings.remove("taskDefinition") {
        Some(given) => Some(revision(&world, Some(&given))?),
        None => None,
    };
    constraints(&settings)?;
    let desired = from(settings.remove("desiredCount"))?;
    settings.remove("cluster");
    settings.remove("service");
    let current = world.services[&key].deployments[0].definition.clone();
    let wanted = definition.unwrap_or_else(|| current.clone());
    let new = (force || wanted != current).then(|| deployment(&mut world, wanted));
    if let Some(service) = world.services.get_mut(&key) {
        service.desired = desired.unwrap_or(service.desired);
        service.settings.extend(settings);
        if let Some(new) = new {
            service.deployments.insert(0, new);
            service.paused_until = Instant::now();
            service.pause = FIRST_PAUSE;
        }
    }
    let described = document(&world, &world.services[&key], true);
    drop(world);
    ecs.changed();
    Ok(json!({"service": described}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteService.html>
pub(crate) fn delete(ecs: &FakeEcs, request: &ServicesRequest) -> Reply {
    let mut world = ecs.world();
    let key = key(&world, request.cluster.as_deref(), request.service.as_deref())?;
    let Some(service) = world.services.get_mut(&key).filter(|service| service.status != "INACTIVE") else {
        return Err(ApiError::service_not_found());
    };
    if service.desired > 0 && !request.force {
        return Err(ApiError::invalid("The service cannot be stopped while it is scaled above 0."));
    }
    service.desired = 0;
    service.status = "DRAINING";
    let described = document(&world, &world.services[&key], true);
    drop(world);
    ecs.changed();
    Ok(json!({"service": described}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeServices.html>
pub(crate) fn describe(ecs: &FakeEcs, request: &ServicesRequest) -> Reply {
    if request.services.is_empty() || request.services.len() > MOST_DESCRIBED {
        return Err(ApiError::invalid("Services must have 1 to 10 elements."));
    }
    let world = ecs.world();
    let cluster = world.cluster(request.cluster.as_deref())?;
    let with_tags = request.include.iter().any(|what| what == "TAGS");
    let (mut services, mut failures): (Vec<Value>, Vec<Value>) = Default::default();
    for given in &request.services {
        let name = last_part(given);
        if let Some(service) = world.services.get(&(cluster.clone(), name.to_owned())) {
            services.push(document(&world, service, with_tags));
        } else {
            let arn = world.arn(&format!("service/{cluster}/{name}"));
            failures.push(json!({"arn": arn, "reason": "MISSING"}));
        }
    }
    Ok(json!({"services": services, "failures": failures}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListServices.html>
pub(crate) fn list(ecs: &FakeEcs, request: &ServicesRequest) -> Reply {
    let world = ecs.world();
    let cluster = world.cluster(request.cluster.as_deref())?;
    let there = |service: &&Service| service.cluster == cluster && service.status != "INACTIVE";
    let all = world.services.values().filter(there);
    let all = all.map(|service| (service.name.clone(), arn(&world, service)));
    request.paging.page("serviceArns", all, false)
}

fn from<T: for<'de> Deserialize<'de>>(value: Option<Value>) -> Result<Option<T>, ApiError> {
    value.map(serde_json::from_value).transpose().map_err(|error| ApiError::invalid(error.to_string()))
}

fn revision(world: &World, given: Option<&Value>) -> Result<String, ApiError> {
    let given = given.and_then(Value::as_str).unwrap_or_default();
    definitions::for_new_task(world, given).map(definitions::Definition::name)
}

fn constraints(settings: &Map<String, Value>) -> Result<Vec<Constraint>, ApiError> {
    let given: Vec<Constraint> = from(settings.get("placementConstraints").cloned())?.unwrap_or_default();
    placement::check(&given)?;
    Ok(given)
}

fn deployment(world: &mut World, definition: String) -> Deployment {
    let id = dice::hex_id(&mut world.id_dice());
    // As ECS has them: 19 digits.
    let digits: String = id.bytes().map(|byte| char::from(b'0' + byte % 10)).take(19).collect();
    let created_at = world.stamp();
    Deployment { id: format!("ecs-svc/{digits}"), definition, created_at, failed: 0, seen_failed: Vec::new() }
}

fn key(world: &World, cluster: Option<&str>, service: Option<&str>) -> Result<(String, String), ApiError> {
    let cluster = world.cluster(cluster)?;
    let key = (cluster, last_part(service.unwrap_or_default()).to_owned());
    if world.services.contains_key(&key) { Ok(key) } else { Err(ApiError::service_not_found()) }
}

fn arn(world: &World, service: &Service) -> String {
    world.arn(&format!("service/{}/{}", service.cluster, service.name))
}

fn group(service: &Service) -> String {
    format!("service:{}", service.name)
}

/// A service's tasks that have not stopped.
fn tasks_of<'w>(world: &'w World, service: &Service) -> Vec<(&'w String, &'w TaskView)> {
    let group = group(service);
    let all = world.tasks.iter().filter(|(_, task)| task.cluster == service.cluster);
    let all = all.map(|(id, task)| (id, task.view.now()));
    all.filter(|(_, view)| view.fixed.group == group && view.last_status != Status::Stopped).collect()
}

fn is_of(view: &TaskView, deployment: &Deployment) -> bool {
    view.fixed.started_by.as_ref() == Some(&deployment.id)
}

fn is_wanted(view: &TaskView) -> bool {
    view.desired_status == Desired::Running
}

fn runs(view: &TaskView) -> bool {
    is_wanted(view) && view.last_status == Status::Running
}

fn document(world: &World, service: &Service, with_tags: bool) -> Value {
    let all = tasks_of(world, service);
    let count =
        |condition: &dyn Fn(&TaskView) -> bool| all.iter().filter(|(_, view)| condition(view)).count();
    let definition_arn = |name: &str| world.arn(&format!("task-definition/{name}"));
    let deployments: Vec<Value> = service
        .deployments
        .iter()
        .enumerate()
        .map(|(position, deployment)| {
            let running = count(&|view| is_of(view, deployment) && runs(view));
            let pending = count(&|view| is_of(view, deployment) && is_wanted(view) && !runs(view));
            let desired = if position == 0 { service.desired } else { 0 };
            let completed = position == 0 && running as u64 == desired && service.deployments.len() == 1;
            json!({
                "id": deployment.id,
                "status": if position == 0 { "PRIMARY" } else { "ACTIVE" },
                "taskDefinition": definition_arn(&deployment.definition),
                "desiredCount": desired,
                "pendingCount": pending,
                "runningCount": running,
                "failedTasks": deployment.failed,
                "createdAt": deployment.created_at,
                "updatedAt": deployment.created_at,
                "launchType": "EC2",
                "rolloutState": if completed { "COMPLETED" } else { "IN_PROGRESS" },
            })
        })
        .collect();
    let mut document = json!({
        "launchType": "EC2",
        "schedulingStrategy": "REPLICA",
        "deploymentController": {"type": "ECS"},
        "deploymentConfiguration": {"minimumHealthyPercent": 100, "maximumPercent": 200},
        "placementConstraints": [],
        "placementStrategy": [],
        "enableECSManagedTags": false,
        "enableExecuteCommand": false,
        "propagateTags": "NONE",
    });
    for (name, value) in &service.settings {
        document[name] = value.clone();
    }
    let known = json!({
        "serviceArn": arn(world, service),
        "serviceName": service.name,
        "clusterArn": world.arn(&format!("cluster/{}", service.cluster)),
        "status": service.status,
        "desiredCount": service.desired,
        "runningCount": count(&runs),
        "pendingCount": count(&|view| is_wanted(view) && !runs(view)),
        "taskDefinition": definition_arn(&service.deployments[0].definition),
        "deployments": if service.status == "INACTIVE" { Vec::new() } else { deployments },
        "events": service.events,
        "createdAt": service.created_at,
        "loadBalancers": [],
        "serviceRegistries": [],
        "tags": if with_tags { &service.tags[..] } else { &[] },
    });
    for (name, value) in known.as_object().into_iter().flatten() {
        document[name] = value.clone();
    }
    document
}

/// Looks after all services, for as long as the fake is there.
async fn keep(ecs: FakeEcs) {
    let mut changes = ecs.changes();
    loop {
        changes.mark_unchanged();
        let keys: Vec<_> = ecs.world().services.keys().cloned().collect();
        for key in keys {
            look_after(&ecs, &key);
        }
        sleep(REST).await;
        // Over early when anything has changed.
        let _ = timeout(LOOK_AGAIN, changes.changed()).await;
    }
}

/// Starts and stops what one service needs started and stopped now.
fn look_after(ecs: &FakeEcs, key: &(String, String)) {
    let mut world = ecs.world();
    if world.closed {
        return;
    }
    let Some(mut service) = world.services.remove(key) else { return };
    count_failures(&world, &mut service);
    let told = stop_surplus(&mut world, &service);
    let started = start_missing(&mut world, &mut service);
    let left = tasks_of(&world, &service);
    let primary_is_there =
        left.iter().filter(|(_, view)| is_of(view, &service.deployments[0]) && runs(view)).count() as u64
            >= service.desired;
    let has_left: Vec<bool> = service
        .deployments
        .iter()
        .map(|deployment| left.iter().all(|(_, view)| !is_of(view, deployment)))
        .collect();
    let is_over = service.status == "DRAINING" && left.is_empty();
    let mut position = 0;
    service.deployments.retain(|_| {
        position += 1;
        position == 1 || !(primary_is_there && has_left[position - 1])
    });
    if is_over {
        service.status = "INACTIVE";
    }
    world.services.insert(key.clone(), service);
    drop(world);
    let something = !told.is_empty() || !started.is_empty();
    for id in told {
        ecs.deliver_stop(id);
    }
    if something {
        ecs.bring_to_life(started);
    }
}

/// A task that stopped before it was RUNNING has failed; after one, there is a pause.
fn count_failures(world: &World, service: &mut Service) {
    let group = group(service);
    let deployment = &mut service.deployments[0];
    let mut has_failed = false;
    for (id, task) in world.tasks.iter().filter(|(_, task)| task.cluster == service.cluster) {
        let view = task.view.now();
        let failed = view.fixed.group == group
            && is_of(view, deployment)
            && view.last_status == Status::Stopped
            && view.started_at.is_none();
        if failed && !deployment.seen_failed.contains(id) {
            deployment.seen_failed.push(id.clone());
            deployment.failed += 1;
            has_failed = true;
        }
    }
    if has_failed {
        service.paused_until = Instant::now() + service.pause;
        service.pause = (service.pause * 2).min(LONGEST_PAUSE);
    }
}

/// Of the desired count.
fn percent(service: &Service, of: &str, default: u64) -> u64 {
    service.settings.get("deploymentConfiguration").and_then(|all| all[of].as_u64()).unwrap_or(default)
}

/// Tells tasks to stop that are too many, that are of an earlier deployment, or whose instance is DRAINING; returns
/// them.
fn stop_surplus(world: &mut World, service: &Service) -> Vec<String> {
    let primary = &service.deployments[0];
    let lower = (service.desired * percent(service, "minimumHealthyPercent", 100)).div_ceil(100);
    let mut healthy = 0;
    let (mut current, mut outdated) = (Vec::<(bool, String)>::new(), Vec::<(bool, String)>::new());
    for (id, view) in tasks_of(world, service).into_iter().filter(|(_, view)| is_wanted(view)) {
        healthy += u64::from(runs(view));
        let host = world.tasks.get(id).and_then(|task| world.instances.get(&task.instance));
        let drains = host.is_some_and(|host| host.view.now().status == "DRAINING");
        let which = if is_of(view, primary) && !drains { &mut current } else { &mut outdated };
        which.push((runs(view), id.clone()));
    }
    // Those that don't run go first.
    current.sort();
    outdated.sort();
    let mut told = Vec::new();
    let reason = format!("Scaling activity initiated by (deployment {})", primary.id);
    let surplus = usize::try_from((current.len() as u64).saturating_sub(service.desired)).unwrap_or_default();
    for (ran, id) in current.into_iter().take(surplus) {
        healthy -= u64::from(ran);
        life_cycle::tell_to_stop(world, &id, "ServiceSchedulerInitiated", &reason);
        told.push(id);
    }
    for (ran, id) in outdated {
        if ran && healthy <= lower {
            break;
        }
        healthy -= u64::from(ran);
        life_cycle::tell_to_stop(world, &id, "ServiceSchedulerInitiated", &reason);
        told.push(id);
    }
    told
}

/// Places the tasks that are missing, as far as may be now; returns them.
fn start_missing(world: &mut World, service: &mut Service) -> Vec<String> {
    if service.status != "ACTIVE" || Instant::now() < service.paused_until {
        return Vec::new();
    }
    let all = tasks_of(world, service);
    let upper = service.desired * percent(service, "maximumPercent", 200) / 100;
    let current =
        all.iter().filter(|(_, view)| is_wanted(view) && is_of(view, &service.deployments[0])).count() as u64;
    let missing = service.desired.saturating_sub(current).min(upper.saturating_sub(all.len() as u64));
    let request = NewTasks {
        cluster: Some(service.cluster.clone()),
        task_definition: service.deployments[0].definition.clone(),
        group: Some(group(service)),
        started_by: Some(service.deployments[0].id.clone()),
        tags: match service.settings.get("propagateTags").and_then(Value::as_str) {
            Some("SERVICE") => service.tags.clone(),
            _ => Vec::new(),
        },
        propagate_tags: service.settings.get("propagateTags").and_then(Value::as_str).map(str::to_owned),
        ..NewTasks::default()
    };
    let constraints = constraints(&service.settings).unwrap_or_default();
    let mut started = Vec::new();
    for _ in 0..missing {
        let placed = placement::choose(world, &service.cluster, &request.task_definition, &constraints, &[]);
        let Some(id) = placed.ok().and_then(|instance| tasks::place(world, &request, &instance).ok()) else {
            let why = "was unable to place a task because no container instance met all of its requirements.";
            say(world, service, why);
            break;
        };
        started.push(id);
    }
    if !started.is_empty() {
        say(world, service, &format!("has started {} tasks.", started.len()));
    }
    started
}

/// One more event of a service, unless it is the last again
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/service-event-messages-list.html>).
fn say(world: &mut World, service: &mut Service, what: &str) {
    let message = format!("(service {}) {what}", service.name);
    if service.events.front().is_some_and(|last| last["message"] == *message) {
        return;
    }
    let event = json!({
        "id": dice::uuid(&mut world.id_dice()), "createdAt": world.stamp(), "message": message,
    });
    service.events.push_front(event);
    service.events.truncate(MOST_EVENTS);
}
