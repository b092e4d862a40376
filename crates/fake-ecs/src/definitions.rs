//! Task definitions: families and their revisions, and what a task of one takes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::clusters::is_name;
use crate::ecs::FakeEcs;
use crate::pages::Paging;
use crate::resources::Needs;
use crate::tags::{self, Tag};
use crate::wire::{ApiError, Reply};
use crate::world::{World, short};

/// Docker reserves at least so many MiB for a container
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html>).
const LEAST_MEMORY: u64 = 6;

/// The most revisions that one call deletes
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteTaskDefinitions.html>).
const MOST_DELETED: usize = 10;

/// Every revision that was ever registered.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    /// By family and revision.
    by_name: BTreeMap<(String, u64), Definition>,
}

/// One revision.
#[derive(Debug)]
pub(crate) struct Definition {
    pub(crate) family: String,
    pub(crate) revision: u64,
    /// A deregistered one is INACTIVE: what runs runs on, nothing new is started of it.
    pub(crate) active: bool,
    /// It is only remembered for its number.
    deleted: bool,
    pub(crate) tags: Vec<Tag>,
    /// As it is described, without ARN, revision and status.
    pub(crate) document: Arc<Map<String, Value>>,
    pub(crate) needs: Arc<Needs>,
    /// Attributes that an instance must have.
    pub(crate) requires: Vec<String>,
}

impl Definition {
    pub(crate) fn name(&self) -> String {
        format!("{}:{}", self.family, self.revision)
    }

    pub(crate) fn network_mode(&self) -> &str {
        self.document.get("networkMode").and_then(Value::as_str).unwrap_or("bridge")
    }

    /// The container definitions.
    pub(crate) fn containers(&self) -> &[Value] {
        self.document.get("containerDefinitions").and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }
}

impl Definitions {
    /// By `family:revision`, or by `family` alone for the latest ACTIVE revision.
    pub(crate) fn find(&self, name: &str) -> Option<&Definition> {
        self.by_name.get(&self.key(name)?).filter(|definition| !definition.deleted)
    }

    pub(crate) fn find_mut(&mut self, name: &str) -> Option<&mut Definition> {
        let key = self.key(name)?;
        self.by_name.get_mut(&key)
    }

    fn key(&self, name: &str) -> Option<(String, u64)> {
        if let Some((family, revision)) = name.rsplit_once(':') {
            return Some((family.to_owned(), revision.parse().ok()?));
        }
        let of_family = self.of_family(name).filter(|definition| definition.active);
        of_family.last().map(|definition| (name.to_owned(), definition.revision))
    }

    fn of_family(&self, family: &str) -> impl Iterator<Item = &Definition> {
        let range = (family.to_owned(), 0)..=(family.to_owned(), u64::MAX);
        self.by_name.range(range).map(|(_, definition)| definition)
    }
}

/// The definition that a new task is to be made of; an INACTIVE one is refused
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-definition-state.html>).
pub(crate) fn for_new_task<'w>(world: &'w World, given: &str) -> Result<&'w Definition, ApiError> {
    let name = short(given, "task-definition");
    match world.definitions.find(name) {
        Some(definition) if definition.active => Ok(definition),
        Some(_) => Err(ApiError::client("TaskDefinition is inactive")),
        None => Err(ApiError::client("TaskDefinition not found.")),
    }
}

/// Which definitions, and what of them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DefinitionsRequest {
    task_definition: String,
    task_definitions: Vec<String>,
    include: Vec<String>,
    family_prefix: Option<String>,
    status: Option<String>,
    sort: Option<String>,
    #[serde(flatten)]
    paging: Paging,
}

/// Registers one more revision of a family, whether or not it differs from the last
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RegisterTaskDefinition.html>).
pub(crate) fn register(ecs: &FakeEcs, mut document: Map<String, Value>) -> Reply {
    let tags: Vec<Tag> = match document.remove("tags") {
        Some(tags) => serde_json::from_value(tags).map_err(|error| ApiError::invalid(error.to_string()))?,
        None => Vec::new(),
    };
    tags::check(&tags)?;
    let family = document.get("family").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !is_name(&family) {
        return Err(ApiError::client("Family contains invalid characters."));
    }
    complete(&mut document)?;
    check(&document)?;
    let mut world = ecs.world();
    let definition = Definition {
        revision: world.definitions.of_family(&family).last().map_or(1, |last| last.revision + 1),
        family: family.clone(),
        active: true,
        deleted: false,
        needs: Arc::new(needs(&document)),
        requires: requires(&document),
        tags: tags.clone(),
        document: Arc::new(document),
    };
    let described = describe_one(&world, &definition);
    let key = (family, definition.revision);
    world.definitions.by_name.insert(key, definition);
    Ok(json!({"taskDefinition": described, "tags": tags}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeregisterTaskDefinition.html>
pub(crate) fn deregister(ecs: &FakeEcs, request: &DefinitionsRequest) -> Reply {
    let mut world = ecs.world();
    let name = short(&request.task_definition, "task-definition");
    if !name.contains(':') {
        return Err(ApiError::client("You must specify a revision."));
    }
    let Some(definition) = world.definitions.find_mut(name) else {
        return Err(ApiError::client("The specified task definition does not exist."));
    };
    definition.active = false;
    let described = world.definitions.find(name).map(|definition| describe_one(&world, definition));
    Ok(json!({"taskDefinition": described}))
}

/// Deletes INACTIVE revisions
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteTaskDefinitions.html>). ECS takes its time, while
/// tasks are left of them; here they are gone at once.
pub(crate) fn delete(ecs: &FakeEcs, request: &DefinitionsRequest) -> Reply {
    if request.task_definitions.is_empty() || request.task_definitions.len() > MOST_DELETED {
        return Err(ApiError::invalid("Task definitions must have 1 to 10 elements."));
    }
    let mut world = ecs.world();
    let (mut deleted, mut failures): (Vec<Value>, Vec<Value>) = Default::default();
    for given in &request.task_definitions {
        let name = short(given, "task-definition");
        match world.definitions.find(name) {
            Some(definition) if !definition.active => {
                let mut described = describe_one(&world, definition);
                described["status"] = json!("DELETE_IN_PROGRESS");
                deleted.push(described);
                let key = (definition.family.clone(), definition.revision);
                // The next revision's number is one more all the same.
                if let Some(definition) = world.definitions.by_name.get_mut(&key) {
                    definition.deleted = true;
                }
            }
            Some(_) => failures.push(json!({"arn": given, "reason": "TASK_DEFINITION_NOT_INACTIVE"})),
            None => failures.push(json!({"arn": given, "reason": "MISSING"})),
        }
    }
    Ok(json!({"taskDefinitions": deleted, "failures": failures}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTaskDefinition.html>
pub(crate) fn describe(ecs: &FakeEcs, request: &DefinitionsRequest) -> Reply {
    let world = ecs.world();
    let name = short(&request.task_definition, "task-definition");
    let Some(definition) = world.definitions.find(name) else {
        return Err(ApiError::client("Unable to describe task definition."));
    };
    let described = describe_one(&world, definition);
    if request.include.iter().any(|what| what == "TAGS") {
        Ok(json!({"taskDefinition": described, "tags": definition.tags}))
    } else {
        Ok(json!({"taskDefinition": described}))
    }
}

/// ACTIVE revisions, or those of another status: by family and then by revision, the newest last, or first
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTaskDefinitions.html>). `familyPrefix` is "the
/// full family name" there.
pub(crate) fn list(ecs: &FakeEcs, request: &DefinitionsRequest) -> Reply {
    let world = ecs.world();
    let active = request.status.as_deref() != Some("INACTIVE");
    let matches = |definition: &&Definition| {
        definition.active == active
            && !definition.deleted
            && request.family_prefix.as_ref().is_none_or(|family| *family == definition.family)
    };
    // Keys whose order as text is that of families and revisions: a space comes before all that a family may contain.
    let named = world.definitions.by_name.values().filter(matches).map(|definition| {
        (format!("{} {:020}", definition.family, definition.revision), arn(&world, definition))
    });
    if request.sort.as_deref() == Some("DESC") {
        let named: Vec<_> = named.collect();
        return request.paging.page("taskDefinitionArns", named.into_iter().rev(), true);
    }
    request.paging.page("taskDefinitionArns", named, false)
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTaskDefinitionFamilies.html>
pub(crate) fn list_families(ecs: &FakeEcs, request: &DefinitionsRequest) -> Reply {
    let world = ecs.world();
    let mut families: BTreeMap<&String, bool> = BTreeMap::new();
    for definition in world.definitions.by_name.values().filter(|definition| !definition.deleted) {
        *families.entry(&definition.family).or_default() |= definition.active;
    }
    let matches = |(family, active): &(&String, bool)| {
        let has_status = match request.status.as_deref() {
            Some("ACTIVE") => *active,
            Some("INACTIVE") => !*active,
            _ => true,
        };
        has_status && request.family_prefix.as_ref().is_none_or(|prefix| family.starts_with(prefix))
    };
    let all = families.into_iter().filter(matches).map(|(family, _)| (family.clone(), family.clone()));
    request.paging.page("families", all, false)
}

pub(crate) fn arn(world: &World, definition: &Definition) -> String {
    world.arn(&format!("task-definition/{}", definition.name()))
}

fn describe_one(world: &World, definition: &Definition) -> Value {
    let mut document = (*definition.document).clone();
    let requires: Vec<Value> = definition.requires.iter().map(|name| json!({"name": name})).collect();
    document.insert("taskDefinitionArn".to_owned(), json!(arn(world, definition)));
    document.insert("revision".to_owned(), json!(definition.revision));
    document.insert("status".to_owned(), json!(if definition.active { "ACTIVE" } else { "INACTIVE" }));
    document.insert("requiresAttributes".to_owned(), json!(requires));
    Value::Object(document)
}

/// Puts in what is described although it was not given, and sizes as numbers of CPU units and MiB
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task_definition_parameters.html>).
fn complete(document: &mut Map<String, Value>) -> Result<(), ApiError> {
    for (size, unit) in [("cpu", "vcpu"), ("memory", "gb")] {
        if let Some(given) = document.get(size) {
            let text = given.as_str().map_or_else(|| given.to_string(), str::to_owned).to_lowercase();
            let number = match text.strip_suffix(unit) {
                Some(whole) => whole.trim().parse::<f64>().ok().map(|whole| whole * 1_024.0),
                None => text.trim().parse::<f64>().ok(),
            };
            let refused = || ApiError::client(format!("Invalid '{size}' setting for task."));
            let number = number.filter(|number| *number > 0.0).ok_or_else(refused)?;
            document.insert(size.to_owned(), json!(format!("{number:.0}")));
        }
    }
    let network_mode = document.get("networkMode").and_then(Value::as_str).unwrap_or("bridge").to_owned();
    document.insert("networkMode".to_owned(), json!(network_mode));
    for list in ["volumes", "placementConstraints"] {
        document.entry(list).or_insert_with(|| json!([]));
    }
    document.insert("compatibilities".to_owned(), json!(["EXTERNAL", "EC2"]));
    let containers = document.get_mut("containerDefinitions").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
        container.entry("cpu").or_insert_with(|| json!(0));
        container.entry("essential").or_insert_with(|| json!(true));
        for list in ["environment", "mountPoints", "volumesFrom", "portMappings", "systemControls"] {
            container.entry(list).or_insert_with(|| json!([]));
        }
        for mapping in objects_mut(container.get_mut("portMappings")) {
            mapping.entry("protocol").or_insert_with(|| json!("tcp"));
            let container_port = mapping.get("containerPort").cloned().unwrap_or_else(|| json!(0));
            // "In the host network mode the host port can be left blank, or must be the same"; otherwise it is chosen
            // when the task starts.
            let host_port = if network_mode == "bridge" { json!(0) } else { container_port };
            mapping.entry("hostPort").or_insert(host_port);
        }
    }
    Ok(())
}

fn objects_mut(list: Option<&mut Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    list.and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// Refuses what ECS refuses.
fn check(document: &Map<String, Value>) -> Result<(), ApiError> {
    let mode = document["networkMode"].as_str().unwrap_or_default();
    if !["bridge", "host", "none", "awsvpc"].contains(&mode) {
        return Err(ApiError::client(format!("Invalid networkMode: {mode}")));
    }
    let containers = document.get("containerDefinitions").and_then(Value::as_array);
    let containers = containers.map_or(&[][..], Vec::as_slice);
    if containers.is_empty() {
        return Err(ApiError::client("Container list cannot be empty."));
    }
    let volumes: BTreeSet<&str> =
        document["volumes"].as_array().into_iter().flatten().filter_map(|v| v["name"].as_str()).collect();
    let mut names = BTreeSet::new();
    for container in containers {
        let name = container["name"].as_str().unwrap_or_default();
        if !is_name(name) {
            return Err(ApiError::client("Container.name contains invalid characters."));
        }
        if !names.insert(name) {
            return Err(ApiError::client(format!("Container names must be unique: {name}")));
        }
        if container["image"].as_str().is_none_or(str::is_empty) {
            return Err(ApiError::client("Container.image should not be null or empty."));
        }
        let (limit, reservation) = (container["memory"].as_u64(), container["memoryReservation"].as_u64());
        if limit.is_none() && reservation.is_none() && !document.contains_key("memory") {
            return Err(ApiError::client(format!(
                "Invalid setting for container '{name}'. At least one of 'memory' or 'memoryReservation' must be \
                 specified."
            )));
        }
        if limit.is_some_and(|limit| limit < LEAST_MEMORY) {
            return Err(ApiError::client(format!(
                "Invalid setting for container '{name}'. 'memory' must be at least {LEAST_MEMORY}."
            )));
        }
        if limit.zip(reservation).is_some_and(|(limit, reservation)| limit <= reservation) {
            return Err(ApiError::client(format!(
                "Invalid setting for container '{name}'. The memory must be greater than the memoryReservation."
            )));
        }
        for mount in container["mountPoints"].as_array().into_iter().flatten() {
            let volume = mount["sourceVolume"].as_str().unwrap_or_default();
            if !volumes.contains(volume) {
                return Err(ApiError::client(format!("Unknown volume '{volume}'.")));
            }
        }
        for mapping in container["portMappings"].as_array().into_iter().flatten() {
            if mode == "host" && mapping["hostPort"] != mapping["containerPort"] {
                return Err(ApiError::client(
                    "When networkMode=host, the host ports and container ports in port mappings must match.",
                ));
            }
        }
    }
    if !containers.iter().any(is_essential) {
        return Err(ApiError::client("At least one container must be essential."));
    }
    Ok(())
}

pub(crate) fn is_essential(container: &Value) -> bool {
    container["essential"].as_bool().unwrap_or(true)
}

/// What a task of it takes.
fn needs(document: &Map<String, Value>) -> Needs {
    let containers = || document["containerDefinitions"].as_array().into_iter().flatten();
    let of_task = |size: &str| document.get(size)?.as_str()?.parse::<u64>().ok();
    let memory = |container: &Value| {
        container["memoryReservation"].as_u64().or(container["memory"].as_u64()).unwrap_or_default()
    };
    let mut needs = Needs {
        cpu: of_task("cpu")
            .unwrap_or_else(|| containers().filter_map(|container| container["cpu"].as_u64()).sum()),
        memory: of_task("memory").unwrap_or_else(|| containers().map(memory).sum()),
        interface: document["networkMode"] == "awsvpc",
        ..Needs::default()
    };
    // With a network interface of its own a task takes none of the host's ports.
    for mapping in containers()
        .filter(|_| !needs.interface)
        .flat_map(|container| container["portMappings"].as_array().into_iter().flatten())
    {
        let port = mapping["hostPort"].as_u64().and_then(|port| u16::try_from(port).ok());
        let Some(port) = port.filter(|port| *port != 0) else { continue };
        if mapping["protocol"] == "udp" {
            needs.udp.insert(port);
        } else {
            needs.tcp.insert(port);
        }
    }
    needs
}

/// The attributes that its parameters ask of an instance
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-constraints.html>).
fn requires(document: &Map<String, Value>) -> Vec<String> {
    let mut requires = BTreeSet::new();
    if document["networkMode"] == "awsvpc" {
        requires.insert("ecs.capability.task-eni".to_owned());
    }
    if document.contains_key("taskRoleArn") {
        requires.insert("com.amazonaws.ecs.capability.task-iam-role".to_owned());
    }
    for container in document["containerDefinitions"].as_array().into_iter().flatten() {
        if container["privileged"] == true {
            requires.insert("com.amazonaws.ecs.capability.privileged-container".to_owned());
        }
        if let Some(driver) = container["logConfiguration"]["logDriver"].as_str() {
            requires.insert(format!("com.amazonaws.ecs.capability.logging-driver.{driver}"));
        }
        for secret in container["secrets"].as_array().into_iter().flatten() {
            let from = secret["valueFrom"].as_str().unwrap_or_default();
            let store = if from.contains(":secretsmanager:") { "asm" } else { "ssm" };
            requires.insert(format!("ecs.capability.secrets.{store}.environment-variables"));
        }
        if container.get("healthCheck").is_some() {
            requires.insert("ecs.capability.container-health-check".to_owned());
        }
    }
    requires.into_iter().collect()
}
