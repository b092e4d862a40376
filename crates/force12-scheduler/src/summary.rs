//! The state in a sentence.

use controller::{ServiceView, View};
use planner::{Freshness, InstanceState, ServiceKind};

/// Services that the sentence names; of more, those in trouble go first and the others are counted.
const SERVICES_NAMED_MAX: usize = 4;

/// The whole state in a sentence, without a full stop.
pub fn summary(view: &View) -> String {
    if let Some(reason) = &view.not_ready {
        return format!("nothing is planned yet: {reason}");
    }
    let containers: usize = view.instances.iter().map(|instance| instance.containers.len()).sum();
    if view.draining {
        return format!("everything is being stopped: {} left", counted(containers as u64, "container"));
    }
    let mut clauses: Vec<(bool, String)> =
        view.services.iter().map(|service| clause(service, view)).collect();
    let left_out = clauses.len().saturating_sub(SERVICES_NAMED_MAX);
    if left_out > 0 {
        // Stable: within trouble and within rest, the order of importance.
        clauses.sort_by_key(|&(in_trouble, _)| !in_trouble);
        clauses.truncate(SERVICES_NAMED_MAX);
    }
    let mut words: Vec<String> = clauses.into_iter().map(|(_, words)| words).collect();
    if left_out > 0 {
        words.push(format!("and {}", counted(left_out as u64, "other service")));
    }
    if words.is_empty() {
        words.push("no service is configured".to_owned());
    }
    let lost: Vec<&str> = view
        .instances
        .iter()
        .filter(|instance| instance.state == InstanceState::Lost)
        .map(|instance| &*instance.name)
        .collect();
    match lost.as_slice() {
        [] => {}
        [one] => words.push(format!("{one} is lost")),
        many => words.push(format!("{} instances are lost: {}", many.len(), many.join(", "))),
    }
    let strays: usize = view.instances.iter().map(|instance| instance.strays.len()).sum();
    if strays > 0 {
        let strays = counted(strays as u64, "container");
        words.push(format!("{strays} of an instance that is not configured left alone"));
    }
    words.join(", ")
}

/// What is to be said of a service, and whether it is in trouble.
fn clause(service: &ServiceView, view: &View) -> (bool, String) {
    let name = &service.name;
    let have = u64::from(service.starting + service.running);
    if service.removed {
        return (true, format!("{name} is no longer configured and has {} left", counted(have, "container")));
    }
    if service.kind == ServiceKind::Fill {
        return fill_clause(service, view);
    }
    let (Some(demand), Some(target)) = (service.demand, service.target) else {
        let stays =
            if have == 1 { "its container stays".to_owned() } else { format!("its {have} containers stay") };
        return (true, format!("the demand of {name} is unknown, so {stays}"));
    };
    let stale = if service.freshness == Some(Freshness::Stale) { " (by a stale demand)" } else { "" };
    let limited_by = |code: &str| service.limited_by.contains(&code);
    let running = u64::from(service.running);
    let words = if service.unmet > 0 && limited_by("capacity") {
        format!(
            "{} of the {} that {name} wants{stale} do not fit: {}",
            service.unmet,
            counted(target.into(), "container"),
            no_room(service, view)
        )
    } else if running != u64::from(target) {
        let why = if service.paused {
            " and is paused".to_owned()
        } else if limited_by("backing_off") {
            let reason = service.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
            format!(": its starts fail and are held back{reason}")
        } else if service.unhealthy > 0 {
            format!(": {} unhealthy", service.unhealthy)
        } else if limited_by("in_progress") {
            service.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default()
        } else if limited_by("scale_down_delayed") {
            ": those no longer wanted are kept for a while".to_owned()
        } else {
            String::new()
        };
        format!("{name} runs {running} of the {} it wants{stale}{why}", counted(target.into(), "container"))
    } else if demand != target {
        format!(
            "{name} is bounded to {} of the {demand} it wants{stale}",
            counted(target.into(), "container")
        )
    } else if limited_by("rollout_failing") {
        let reason = service.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        let outdated = service.outdated;
        format!(
            "{name} has what it wants{stale}, {outdated} of it outdated: newer ones fail to start{reason}"
        )
    } else if target == 0 {
        return (false, format!("{name} wants nothing{stale}"));
    } else {
        let trouble = service.freshness != Some(Freshness::Fresh);
        let containers = if target == 1 { "1 container".to_owned() } else { format!("{target} containers") };
        return (trouble, format!("{name} has the {containers} it wants{stale}"));
    };
    (true, words)
}

fn fill_clause(service: &ServiceView, view: &View) -> (bool, String) {
    let name = &service.name;
    let slots = u64::from(service.running).saturating_mul(service.request.slots);
    let others = view.services.iter().any(|other| other.name != service.name && other.running > 0);
    let limited_by = |code: &str| service.limited_by.contains(&code);
    if limited_by("backing_off") {
        let reason = service.reason.as_deref().map(|reason| format!(" ({reason})")).unwrap_or_default();
        return (true, format!("{name} runs {}: its starts fail and are held back{reason}", service.running));
    }
    if service.paused {
        return (true, format!("{name} is paused and runs {}", service.running));
    }
    if limited_by("in_progress")
        && let Some(reason) = &service.reason
    {
        return (true, format!("{name} runs {}: {reason}", service.running));
    }
    if limited_by("fill_held") {
        return (true, format!("{name} waits until demand is known"));
    }
    let words = if service.running == 0 {
        format!("nothing is left for {name}")
    } else if others {
        format!("{name} fills the other {}", counted(slots, "slot"))
    } else {
        format!("{name} fills {}", counted(slots, "slot"))
    };
    (false, words)
}

fn no_room(service: &ServiceView, view: &View) -> String {
    let slots = view.usable_capacity.slots;
    if slots == 0 {
        "no instance is ready".to_owned()
    } else if view.used.slots >= slots {
        format!("all {} are taken by work at least as important", counted(slots, "slot"))
    } else {
        format!("no instance has {} free at once", crate::config::resources_in_words(service.request))
    }
}

fn counted(count: u64, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use controller::{InstanceView, LatencyView};
    use planner::{Millis, Resources};

    use super::*;

    fn service(name: &str, priority: u32, demand: Option<u32>, running: u32) -> ServiceView {
        ServiceView {
            name: name.into(),
            kind: ServiceKind::Demand,
            priority,
            request: Resources::ONE_SLOT,
            demand,
            freshness: Some(if demand.is_some() { Freshness::Fresh } else { Freshness::Unknown }),
            target: demand,
            starting: 0,
            running,
            stopping: 0,
            frozen: 0,
            standby: 0,
            unhealthy: 0,
            outdated: 0,
            work_lost_ms: None,
            work_kept_ms: None,
            unmet: 0,
            limited_by: Vec::new(),
            paused: false,
            removed: false,
            reason: None,
        }
    }

    fn fill(name: &str, running: u32) -> ServiceView {
        ServiceView { kind: ServiceKind::Fill, freshness: None, ..service(name, 2, None, running) }
    }

    fn view(services: Vec<ServiceView>) -> View {
        let used: u64 = services.iter().map(|service| u64::from(service.running)).sum();
        View {
            epoch: "e".into(),
            sequence: 1,
            taken_at: Millis(0),
            cluster: "demo".into(),
            not_ready: None,
            success: true,
            success_since: Millis(0),
            blocked_by: Vec::new(),
            capacity: Resources::slots(9),
            usable_capacity: Resources::slots(9),
            used: Resources::slots(used),
            services,
            instances: Vec::new(),
            reaction: LatencyView::default(),
            reaction_preempting: LatencyView::default(),
            start: LatencyView::default(),
            stop: LatencyView::default(),
            draining: false,
        }
    }

    #[test]
    fn the_demo_in_words() {
        let at_four = view(vec![service("priority1", 1, Some(4), 4), fill("priority2", 5)]);
        assert_eq!(
            summary(&at_four),
            "priority1 has the 4 containers it wants, priority2 fills the other 5 slots"
        );
        let at_zero = view(vec![service("priority1", 1, Some(0), 0), fill("priority2", 9)]);
        assert_eq!(summary(&at_zero), "priority1 wants nothing, priority2 fills 9 slots");
        let at_twelve = view(vec![
            ServiceView { unmet: 3, limited_by: vec!["capacity"], ..service("priority1", 1, Some(12), 9) },
            fill("priority2", 0),
        ]);
        assert_eq!(
            summary(&at_twelve),
            "3 of the 12 containers that priority1 wants do not fit: all 9 slots are taken by work at least as \
             important, nothing is left for priority2"
        );
        let rising = view(vec![service("priority1", 1, Some(5), 4), fill("priority2", 4)]);
        assert_eq!(
            summary(&rising),
            "priority1 runs 4 of the 5 containers it wants, priority2 fills the other 4 slots"
        );
    }

    #[test]
    fn trouble_in_words() {
        let unknown = view(vec![service("priority1", 1, None, 4), fill("priority2", 5)]);
        assert!(
            summary(&unknown).starts_with("the demand of priority1 is unknown, so its 4 containers stay, ")
        );
        let failing = ServiceView {
            limited_by: vec!["backing_off"],
            reason: Some("no such image".to_owned()),
            ..service("web", 1, Some(2), 0)
        };
        assert_eq!(
            summary(&view(vec![failing])),
            "web runs 0 of the 2 containers it wants: its starts fail and are held back (no such image)"
        );
        let preparing = |view: ServiceView| ServiceView {
            limited_by: vec!["in_progress"],
            reason: Some("its image is being checked on docker one".to_owned()),
            ..view
        };
        assert_eq!(
            summary(&view(vec![preparing(service("web", 1, Some(2), 0)), preparing(fill("batch", 0))])),
            "web runs 0 of the 2 containers it wants: its image is being checked on docker one, batch runs 0: its \
             image is being checked on docker one"
        );
        let bounded = ServiceView { target: Some(5), ..service("web", 1, Some(8), 5) };
        assert_eq!(summary(&view(vec![bounded])), "web is bounded to 5 containers of the 8 it wants");
        let mut lost = view(vec![service("web", 1, Some(1), 1)]);
        lost.instances = vec![Arc::new(InstanceView {
            name: "instance-1".into(),
            state: InstanceState::Lost,
            reason: None,
            since: Millis(0),
            capacity: Resources::slots(3),
            used: Resources::ZERO,
            containers: Vec::new(),
            strays: Vec::new(),
        })];
        assert_eq!(summary(&lost), "web has the 1 container it wants, instance-1 is lost");
        let mut stray = lost;
        let mut instance = (*stray.instances[0]).clone();
        instance.state = InstanceState::Ready;
        instance.strays = vec![driver::ContainerId::new("3f2a")];
        stray.instances = vec![Arc::new(instance)];
        assert_eq!(
            summary(&stray),
            "web has the 1 container it wants, 1 container of an instance that is not configured left alone"
        );
        let reason = crate::convert::instance(&stray.instances[0]).reason.unwrap_or_default();
        assert!(
            reason.starts_with("container 3f2a is on its engine and says that it is on an instance"),
            "{reason}"
        );
    }

    #[test]
    fn of_many_services_those_in_trouble_are_named_first() {
        let mut services: Vec<ServiceView> =
            (0..6).map(|number| service(&format!("s{number}"), 1, Some(1), 1)).collect();
        services[5].running = 0;
        let words = summary(&view(services));
        assert!(words.starts_with("s5 runs 0 of the 1 container it wants, s0 has"), "{words}");
        assert!(words.ends_with("and 2 other services"), "{words}");
    }
}
