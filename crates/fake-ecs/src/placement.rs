//! Where a task can be started, and what is refused elsewhere, and why: the `failures` of `StartTask` and `RunTask`
//! (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html>).

use serde::Deserialize;

use crate::definitions::{self, Definition};
use crate::instances::Instance;
use crate::query;
use crate::wire::ApiError;
use crate::world::World;

/// Why a task cannot be started on an instance that is there; `None` if it can.
///
/// `StartTask` is not told to look at placement constraints: "to use your own scheduler or place tasks manually"
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StartTask.html>).
pub(crate) fn refusal(instance: &Instance, definition: &Definition) -> Option<String> {
    let view = instance.view.now();
    match view.status {
        "ACTIVE" => {}
        // "Previously deregistered with Amazon ECS and can't be used."
        "INACTIVE" => return Some("INACTIVE".to_owned()),
        // ECS "prevents new tasks from being scheduled for placement on the container instance"; by which reason a
        // start is refused there is not documented.
        status => return Some(status.to_owned()),
    }
    // "An agent that is currently disconnected": as far as ECS knows.
    if !view.agent_connected {
        return Some("AGENT".to_owned());
    }
    // "A specific container instance attribute that isn't available."
    if definition.requires.iter().any(|name| !view.attributes.contains_key(name)) {
        return Some("ATTRIBUTE".to_owned());
    }
    let spec = &instance.spec;
    let lacks = view.taken.lacks(&definition.needs, spec.cpu, spec.memory, spec.interfaces);
    lacks.map(|resource| format!("RESOURCE:{resource}"))
}

/// The most constraints (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html>).
const MOST_CONSTRAINTS: usize = 10;

/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_PlacementConstraint.html>
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Constraint {
    #[serde(rename = "type")]
    kind: String,
    expression: String,
}

/// Refuses constraints that are none.
pub(crate) fn check(constraints: &[Constraint]) -> Result<(), ApiError> {
    if constraints.len() > MOST_CONSTRAINTS {
        return Err(ApiError::invalid("There are at most 10 placement constraints."));
    }
    for constraint in constraints {
        match constraint.kind.as_str() {
            "distinctInstance" => {}
            "memberOf" => {
                query::parse(&constraint.expression)?;
            }
            other => return Err(ApiError::invalid(format!("Invalid placement constraint type: {other}"))),
        }
    }
    Ok(())
}

/// The instance that ECS places a task on: of those that satisfy the constraints of the request and of the definition,
/// the one with the fewest tasks, which is what spreading over instances comes to
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-placement-strategies.html>). Otherwise every
/// instance, and why not there. `used` are those that a distinct one must not be.
pub(crate) fn choose(
    world: &World,
    cluster: &str,
    definition: &str,
    constraints: &[Constraint],
    used: &[String],
) -> Result<String, Vec<(String, String)>> {
    let definition = definitions::for_new_task(world, definition).map_err(|_| Vec::new())?;
    let own = definition.document.get("placementConstraints").cloned().unwrap_or_default();
    let own: Vec<Constraint> = serde_json::from_value(own).unwrap_or_default();
    let mut refused = Vec::new();
    let mut best: Option<(i64, &String)> = None;
    for (id, instance) in world.instances.iter().filter(|(_, instance)| instance.cluster == cluster) {
        let view = instance.view.now();
        let satisfied = own.iter().chain(constraints).all(|constraint| match constraint.kind.as_str() {
            "distinctInstance" => !used.contains(id),
            _ => query::parse(&constraint.expression).is_ok_and(|filter| filter.matches(instance, view)),
        });
        let refusal = refusal(instance, definition);
        if let Some(reason) = refusal.or_else(|| (!satisfied).then(|| "ATTRIBUTE".to_owned())) {
            refused.push((id.clone(), reason));
        } else {
            let rank = (view.running + view.pending, id);
            best = Some(best.map_or(rank, |best| best.min(rank)));
        }
    }
    best.map(|(_, id)| id.clone()).ok_or(refused)
}
