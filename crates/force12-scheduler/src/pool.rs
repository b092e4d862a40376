//! The pool where it is an ECS cluster: what the configuration says and what is discovered there, put together into what
//! the controller is told.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use controller::{Ready, ServiceSettings, View};
use driver::ContainerSpec;
use driver_ecs::{Discovered, Revision, Wanted};
use planner::{Instance, InstanceState, Resources};

use crate::config::{Ecs, Settings};

/// Of instances that come and go at once, so many are named in a line of the log.
const NAMED_MAX: usize = 10;

/// What is to be looked up for the services of `settings`.
pub fn wanted(settings: &Settings) -> Wanted {
    let services = &settings.controller.services;
    let first = services.iter().map(|service| service.service.priority).min();
    Wanted {
        task_definitions: services
            .iter()
            .filter_map(|service| service.spec.task_definition.clone())
            .collect(),
        first: services
            .iter()
            .filter(|service| Some(service.service.priority) == first)
            .map(|service| service.service.name.clone())
            .collect(),
    }
}

/// Whether everything has been looked up that `settings` name; what was looked for in vain counts.
pub fn is_looked_up(found: &Discovered, settings: &Settings) -> bool {
    wanted(settings).task_definitions.iter().all(|written| found.task_definitions.contains_key(written))
}

/// What the controller is told: `settings`, with the instances and revisions that were found, and with instances that are
/// `leaving`.
pub fn settings(
    settings: &Settings,
    ecs: &Ecs,
    found: &Discovered,
    leaving: Vec<Instance>,
) -> controller::Settings {
    let mut told = settings.controller.clone();
    told.instances = found
        .instances
        .iter()
        .map(|instance| {
            // What others use of it is the observation's to say, and the smaller counts: what is reserved is for them.
            let registered = instance.registered;
            let capacity = Resources {
                slots: ecs.slots_per_instance,
                cpu_millis: registered.cpu_millis.saturating_sub(ecs.reserve.cpu_millis),
                memory_mib: registered.memory_mib.saturating_sub(ecs.reserve.memory_mib),
            };
            Instance::ready(instance.name.clone(), capacity)
        })
        .chain(leaving)
        .collect();
    told.instances.sort_by(|a, b| a.name.cmp(&b.name));
    for service in &mut told.services {
        if let Some(revision) = revision(service, found) {
            *service = made_of(service, revision);
        }
    }
    told
}

fn revision<'a>(service: &ServiceSettings, found: &'a Discovered) -> Option<&'a Arc<Revision>> {
    found.task_definitions.get(service.spec.task_definition.as_ref()?)?.as_ref().ok()
}

/// A service of that revision. Without one it stays as it is written, and what it has runs on: nothing can be started of
/// what was not found, so nothing takes its place.
fn made_of(service: &ServiceSettings, revision: &Revision) -> ServiceSettings {
    let mut service = service.clone();
    service.spec = Arc::new(ContainerSpec {
        image: format!("{}:{}", revision.family, revision.revision),
        task_definition: Some(revision.arn.clone()),
        stop_grace_ms: revision.stop_timeout_ms,
        ..(*service.spec).clone()
    });
    // ECS places nothing where what it reserves has no room, whatever is requested here.
    let request = &mut service.service.request;
    request.cpu_millis = request.cpu_millis.max(revision.cpu_millis);
    request.memory_mib = request.memory_mib.max(revision.memory_mib);
    service
}

/// The instances that the controller was `told` of and that are found no more, while they hold containers as far as it
/// knows. They are to be emptied, and once they are lost besides, the controller lets them go.
pub fn leaving(told: &controller::Settings, found: &Discovered, view: &View) -> Vec<Instance> {
    let there: BTreeSet<&str> = found.instances.iter().map(|instance| instance.name.as_str()).collect();
    told.instances
        .iter()
        .filter(|instance| !there.contains(instance.name.as_str()))
        .filter(|instance| {
            let seen = view.instances.iter().find(|seen| *seen.name == *instance.name);
            let is_lost = seen.is_some_and(|seen| seen.state == InstanceState::Lost);
            let is_empty = seen.is_none_or(|seen| seen.containers.is_empty());
            !(is_empty || is_lost && instance.state == InstanceState::Draining)
        })
        .map(|instance| Instance { state: InstanceState::Draining, ..instance.clone() })
        .collect()
}

/// `found`, but that a task definition which was found before and cannot be found any more stays what it was: what was
/// started of it is as good as ever.
pub fn keeping_revisions(found: &Discovered, before: Option<&Discovered>) -> Discovered {
    let mut found = found.clone();
    let Some(before) = before else { return found };
    for (written, looked_up) in &mut found.task_definitions {
        if let (Err(_), Some(Ok(known))) = (&looked_up, before.task_definitions.get(written)) {
            *looked_up = Ok(Arc::clone(known));
        }
    }
    found
}

/// What has changed, a line each.
pub fn changes(before: Option<&Discovered>, found: &Discovered) -> Vec<String> {
    let mut lines = Vec::new();
    let names = |found: Option<&Discovered>| -> BTreeSet<String> {
        found.iter().flat_map(|it| &it.instances).map(|instance| instance.name.clone()).collect()
    };
    let (there, now) = (names(before), names(Some(found)));
    for (what, names) in [
        ("joined the pool", now.difference(&there).collect::<Vec<_>>()),
        ("left the pool", there.difference(&now).collect()),
    ] {
        if !names.is_empty() {
            lines.push(format!("{}: {what}", named(&names)));
        }
    }
    let none = BTreeMap::new();
    let known = before.map_or(&none, |before| &before.task_definitions);
    for (written, looked_up) in &found.task_definitions {
        match (known.get(written), looked_up) {
            (Some(Ok(known)), Ok(revision)) if known.arn == revision.arn => {}
            (_, Ok(revision)) => lines.push(format!("task definition {written} is {}", revision.arn)),
            (Some(Err(known)), Err(reason)) if known == reason => {}
            (_, Err(reason)) => {
                lines.push(format!("task definition {written}: {reason}; nothing can be started of it"));
            }
        }
    }
    lines
}

/// What is doubtful about services as their task definitions are, a line each.
pub fn doubts(settings: &Settings, found: &Discovered) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for service in &settings.controller.services {
        let Some(revision) = revision(service, found) else { continue };
        let (name, arn) = (&service.service.name, &revision.arn);
        let request = service.service.request;
        for (key, requested, reserved) in [
            ("cpu_millis", request.cpu_millis, revision.cpu_millis),
            ("memory_mib", request.memory_mib, revision.memory_mib),
        ] {
            if (1..reserved).contains(&requested) {
                lines.insert(format!(
                    "service {name} requests {requested} {key}, and {arn} reserves {reserved}, which counts; request as \
                     much, or leave it out"
                ));
            }
        }
        if service.ready != Ready::Running && !revision.has_healthcheck {
            lines.insert(format!(
                "service {name} is ready when it is healthy, and {arn} has no health check: no start will succeed; give it \
                 one"
            ));
        }
        if !revision.host_ports.is_empty() {
            lines.insert(format!(
                "{arn} takes ports of its host, so no instance can run two containers of service {name} at once; leave \
                 hostPort out"
            ));
        }
    }
    lines
}

fn named(names: &[&String]) -> String {
    let mut words = names.iter().take(NAMED_MAX).map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if let Some(more) = names.len().checked_sub(NAMED_MAX).filter(|&more| more > 0) {
        let _ = write!(words, " and {more} more");
    }
    words
}
