//! What is refused on an instance, and why: the `failures` of `StartTask` and `RunTask`
//! (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html>).

use crate::definitions::Definition;
use crate::instances::Instance;

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
