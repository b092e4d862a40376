//! Clusters. There is `default` from the beginning, as in an account that uses ECS.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::ecs::FakeEcs;
use crate::pages::{PAGE, Paging};
use crate::tags::{self, Tag};
use crate::tasks::{Desired, Status};
use crate::wire::{ApiError, Reply};
use crate::world::{World, short};

/// One cluster.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    /// A deleted one is INACTIVE, and cannot be used.
    pub(crate) active: bool,
    pub(crate) tags: Vec<Tag>,
}

/// What requests about clusters say.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ClusterRequest {
    cluster_name: Option<String>,
    cluster: Option<String>,
    clusters: Vec<String>,
    include: Vec<String>,
    tags: Vec<Tag>,
    #[serde(flatten)]
    paging: Paging,
}

/// Creates a cluster; one that is there is given back as it is
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateCluster.html>).
pub(crate) fn create(ecs: &FakeEcs, request: ClusterRequest) -> Reply {
    let name = request.cluster_name.as_deref().unwrap_or("default");
    if !is_name(name) {
        return Err(ApiError::invalid("Cluster name contains invalid characters."));
    }
    tags::check(&request.tags)?;
    let mut world = ecs.world();
    let cluster = world.clusters.entry(name.to_owned()).or_default();
    if !cluster.active {
        *cluster = Cluster { active: true, tags: request.tags };
    }
    Ok(json!({"cluster": describe_one(&world, name, true)}))
}

/// Makes a cluster INACTIVE, if nothing is in it any more
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DeleteCluster.html>).
pub(crate) fn delete(ecs: &FakeEcs, request: &ClusterRequest) -> Reply {
    let mut world = ecs.world();
    let name = world.cluster(request.cluster.as_deref())?;
    let refused = |code, message: &str| ApiError { status: 400, code, message: message.to_owned() };
    if world.instances.values().any(|instance| instance.cluster == name && instance.is_registered()) {
        return Err(refused(
            "ClusterContainsContainerInstancesException",
            "The Cluster cannot be deleted while Container Instances are active or draining.",
        ));
    }
    let has_stopped = |status| status == Status::Stopped;
    if world.tasks.values().any(|task| task.cluster == name && !has_stopped(task.view.now().last_status)) {
        return Err(refused(
            "ClusterContainsTasksException",
            "The Cluster cannot be deleted while Tasks are active.",
        ));
    }
    if let Some(cluster) = world.clusters.get_mut(&name) {
        cluster.active = false;
    }
    Ok(json!({"cluster": describe_one(&world, &name, false)}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeClusters.html>
pub(crate) fn describe(ecs: &FakeEcs, request: &ClusterRequest) -> Reply {
    if request.clusters.len() > PAGE {
        return Err(ApiError::invalid("Clusters cannot have more than 100 elements."));
    }
    let world = ecs.world();
    let default = ["default".to_owned()];
    let asked = if request.clusters.is_empty() { &default[..] } else { &request.clusters[..] };
    let with_tags = request.include.iter().any(|what| what == "TAGS");
    let (mut clusters, mut failures): (Vec<Value>, Vec<Value>) = Default::default();
    for given in asked {
        let name = short(given, "cluster");
        if world.clusters.contains_key(name) {
            clusters.push(describe_one(&world, name, with_tags));
        } else {
            let arn = world.arn(&format!("cluster/{name}"));
            failures.push(json!({"arn": arn, "reason": "MISSING"}));
        }
    }
    Ok(json!({"clusters": clusters, "failures": failures}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListClusters.html>
pub(crate) fn list(ecs: &FakeEcs, request: &ClusterRequest) -> Reply {
    let world = ecs.world();
    let active: BTreeMap<&String, &Cluster> =
        world.clusters.iter().filter(|(_, cluster)| cluster.active).collect();
    let all = active.keys().map(|name| ((*name).clone(), world.arn(&format!("cluster/{name}"))));
    request.paging.page("clusterArns", all, false)
}

fn describe_one(world: &World, name: &str, with_tags: bool) -> Value {
    let tasks = || world.tasks.values().filter(|task| task.cluster == name).map(|task| task.view.now());
    let running = tasks()
        .filter(|task| task.desired_status == Desired::Running && task.last_status == Status::Running)
        .count();
    let pending = tasks().filter(|task| task.last_status == Status::Pending).count();
    let instances = world
        .instances
        .values()
        .filter(|instance| instance.cluster == name && instance.is_registered())
        .count();
    let cluster = &world.clusters[name];
    json!({
        "clusterArn": world.arn(&format!("cluster/{name}")),
        "clusterName": name,
        "status": if cluster.active { "ACTIVE" } else { "INACTIVE" },
        "registeredContainerInstancesCount": instances,
        "runningTasksCount": running,
        "pendingTasksCount": pending,
        "activeServicesCount": 0,
        "statistics": [],
        "settings": [],
        "capacityProviders": [],
        "defaultCapacityProviderStrategy": [],
        "tags": if with_tags { &cluster.tags[..] } else { &[] },
    })
}

/// "Up to 255 letters (uppercase and lowercase), numbers, underscores, and hyphens are allowed", as of families.
pub(crate) fn is_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 255
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}
