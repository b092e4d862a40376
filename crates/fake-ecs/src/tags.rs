//! Tags: at most 50 on a resource, keys of 1 to 128 characters, values of 0 to 256, none beginning with `aws:`
//! (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Tag.html>).

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::ecs::FakeEcs;
use crate::wire::{ApiError, Reply};
use crate::world::World;

const MOST: usize = 50;
const KEY_CHARS: usize = 128;
const VALUE_CHARS: usize = 256;

/// A key and a value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tag {
    #[serde(default)]
    pub(crate) key: String,
    #[serde(default)]
    pub(crate) value: String,
}

/// Refuses tags that a resource cannot have.
pub(crate) fn check(tags: &[Tag]) -> Result<(), ApiError> {
    if tags.len() > MOST {
        return Err(ApiError::invalid(format!("The number of tags exceeds {MOST}.")));
    }
    for (position, Tag { key, value }) in tags.iter().enumerate() {
        // "letters, numbers, and spaces representable in UTF-8, and the following characters: + - = . _ : / @".
        let allowed = |text: &str| text.chars().all(|c| c.is_alphanumeric() || " +-=._:/@".contains(c));
        if key.is_empty() || key.chars().count() > KEY_CHARS || !allowed(key) {
            return Err(ApiError::invalid(format!("Tag key is not valid: {key}")));
        }
        if value.chars().count() > VALUE_CHARS || !allowed(value) {
            return Err(ApiError::invalid(format!("Tag value is not valid: {value}")));
        }
        if key.to_lowercase().starts_with("aws:") {
            return Err(ApiError::invalid("The prefix aws: is reserved for AWS use."));
        }
        if tags[..position].iter().any(|other| other.key == *key) {
            return Err(ApiError::invalid(format!("Duplicate tag key: {key}")));
        }
    }
    Ok(())
}

/// With these, in place of those of the same keys.
fn merge(tags: &mut Vec<Tag>, new: Vec<Tag>) -> Result<(), ApiError> {
    let mut merged = tags.clone();
    merged.retain(|tag| new.iter().all(|other| other.key != tag.key));
    merged.extend(new);
    check(&merged)?;
    *tags = merged;
    Ok(())
}

/// Which resource, and which of its tags.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct TagsRequest {
    resource_arn: String,
    tags: Vec<Tag>,
    tag_keys: Vec<String>,
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_TagResource.html>
pub(crate) fn tag_resource(ecs: &FakeEcs, request: TagsRequest) -> Reply {
    let mut tags = find(&ecs.world(), &request.resource_arn)?;
    merge(&mut tags, request.tags)?;
    replace(&mut ecs.world(), &request.resource_arn, tags);
    Ok(json!({}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_UntagResource.html>
pub(crate) fn untag_resource(ecs: &FakeEcs, request: &TagsRequest) -> Reply {
    let mut tags = find(&ecs.world(), &request.resource_arn)?;
    tags.retain(|tag| !request.tag_keys.contains(&tag.key));
    replace(&mut ecs.world(), &request.resource_arn, tags);
    Ok(json!({}))
}

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTagsForResource.html>
pub(crate) fn list_tags(ecs: &FakeEcs, request: &TagsRequest) -> Reply {
    Ok(json!({"tags": find(&ecs.world(), &request.resource_arn)?}))
}

/// The tags of what the ARN names.
fn find(world: &World, arn: &str) -> Result<Vec<Tag>, ApiError> {
    let not_found = || ApiError {
        status: 400,
        code: "ResourceNotFoundException",
        message: format!("The specified resource could not be found: {arn}"),
    };
    let (kind, id) = parts(arn)?;
    let tags = match kind {
        "cluster" => world.clusters.get(id).map(|cluster| cluster.tags.clone()),
        "container-instance" => world.instances.get(id).map(|instance| instance.view.now().tags.clone()),
        "task" => world.tasks.get(id).map(|task| task.view.now().tags.clone()),
        "task-definition" => world.definitions.find(id).map(|definition| definition.tags.clone()),
        "service" => service_key(arn).and_then(|key| world.services.get(&key)).map(|s| s.tags.clone()),
        _ => None,
    };
    tags.ok_or_else(not_found)
}

/// Gives what the ARN names these tags.
fn replace(world: &mut World, arn: &str, tags: Vec<Tag>) {
    match parts(arn) {
        Ok(("cluster", id)) => {
            if let Some(cluster) = world.clusters.get_mut(id) {
                cluster.tags = tags;
            }
        }
        Ok(("container-instance", id)) => {
            if let Some(instance) = world.instances.get_mut(id) {
                instance.view.change(|view| view.tags = tags);
            }
        }
        Ok(("task", id)) => {
            if let Some(task) = world.tasks.get_mut(id) {
                task.view.change(|view| view.tags = tags);
            }
        }
        Ok(("service", _)) => {
            if let Some(service) = service_key(arn).and_then(|key| world.services.get_mut(&key)) {
                service.tags = tags;
            }
        }
        Ok(("task-definition", id)) => {
            if let Some(definition) = world.definitions.find_mut(id) {
                definition.tags = tags;
            }
        }
        _ => {}
    }
}

fn service_key(arn: &str) -> Option<(String, String)> {
    let (cluster, name) = arn.split_once(":service/")?.1.split_once('/')?;
    Some((cluster.to_owned(), name.to_owned()))
}

/// What kind of resource an ARN names, and its id.
fn parts(arn: &str) -> Result<(&str, &str), ApiError> {
    let resource = arn.splitn(6, ':').nth(5);
    let parts =
        resource.and_then(|resource| Some((resource.split_once('/')?.0, resource.rsplit('/').next()?)));
    parts.ok_or_else(|| ApiError::invalid(format!("Invalid identifier: {arn}")))
}
