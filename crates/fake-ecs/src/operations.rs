//! Which operations there are, and who answers them.

use crate::ecs::FakeEcs;
use crate::wire::{ApiError, Reply, parse};
use crate::{clusters, definitions, instances, queue, services, tags, tasks};

/// What the header of a request begins with, before the operation's name.
const ECS: &str = "AmazonEC2ContainerServiceV20141113.";
const SQS: &str = "AmazonSQS.";

/// The operation that a target names.
pub(crate) fn name(target: &str) -> Result<&str, ApiError> {
    let name = target.strip_prefix(ECS).or_else(|| target.strip_prefix(SQS));
    name.ok_or_else(|| ApiError::unknown_operation(target))
}

/// Does what a request asks for.
pub(crate) async fn answer(ecs: &FakeEcs, target: &str, body: &[u8]) -> Reply {
    let Some(operation) = target.strip_prefix(ECS) else {
        return match target.strip_prefix(SQS) {
            Some("ReceiveMessage") => queue::receive(ecs, parse(body)?).await,
            Some("DeleteMessage") => queue::delete(ecs, &parse(body)?),
            Some("DeleteMessageBatch") => queue::delete_batch(ecs, &parse(body)?),
            Some("GetQueueAttributes") => queue::attributes(ecs, &parse(body)?),
            Some("GetQueueUrl") => queue::url(ecs, &parse(body)?),
            _ => Err(ApiError::unknown_operation(target)),
        };
    };
    match operation {
        "CreateCluster" => clusters::create(ecs, parse(body)?),
        "DeleteCluster" => clusters::delete(ecs, &parse(body)?),
        "DescribeClusters" => clusters::describe(ecs, &parse(body)?),
        "ListClusters" => clusters::list(ecs, &parse(body)?),
        "ListContainerInstances" => instances::list(ecs, &parse(body)?),
        "DescribeContainerInstances" => instances::describe(ecs, &parse(body)?),
        "UpdateContainerInstancesState" => instances::update_state(ecs, &parse(body)?),
        "DeregisterContainerInstance" => instances::deregister(ecs, &parse(body)?),
        "RegisterTaskDefinition" => definitions::register(ecs, parse(body)?),
        "DeregisterTaskDefinition" => definitions::deregister(ecs, &parse(body)?),
        "DeleteTaskDefinitions" => definitions::delete(ecs, &parse(body)?),
        "DescribeTaskDefinition" => definitions::describe(ecs, &parse(body)?),
        "ListTaskDefinitions" => definitions::list(ecs, &parse(body)?),
        "ListTaskDefinitionFamilies" => definitions::list_families(ecs, &parse(body)?),
        "StartTask" => tasks::start(ecs, &parse(body)?),
        "RunTask" => tasks::run(ecs, &parse(body)?),
        "StopTask" => tasks::stop(ecs, &parse(body)?),
        "ListTasks" => tasks::list(ecs, &parse(body)?),
        "DescribeTasks" => tasks::describe(ecs, &parse(body)?),
        "CreateService" => services::create(ecs, parse(body)?),
        "UpdateService" => services::update(ecs, parse(body)?),
        "DeleteService" => services::delete(ecs, &parse(body)?),
        "DescribeServices" => services::describe(ecs, &parse(body)?),
        "ListServices" => services::list(ecs, &parse(body)?),
        "PutAttributes" => instances::put_attributes(ecs, &parse(body)?),
        "DeleteAttributes" => instances::delete_attributes(ecs, &parse(body)?),
        "TagResource" => tags::tag_resource(ecs, parse(body)?),
        "UntagResource" => tags::untag_resource(ecs, &parse(body)?),
        "ListTagsForResource" => tags::list_tags(ecs, &parse(body)?),
        _ => Err(ApiError::unknown_operation(target)),
    }
}
