//! `force12-scheduler check`: what a configuration would do, for people.

use std::fmt::Write as _;

use controller::ServiceSettings;
use planner::{InstanceState, OnPreempt, OnStale, Overlap, Placement, Resources, ServiceKind};

use crate::config::{Ecs, Settings, resources_in_words};
use crate::demand::url_in_words;

/// The settings in words, several lines.
pub fn in_words(settings: &Settings) -> String {
    let controller = &settings.controller;
    let pool = if let Some(ecs) = &settings.ecs {
        let slots = resources_in_words(Resources::slots(ecs.slots_per_instance));
        format!("the container instances of ECS cluster {}, {slots} on each", ecs.cluster)
    } else {
        let slots = controller.instances.iter().map(|instance| instance.capacity.slots);
        format!(
            "{} on {}, {} in all",
            counted(controller.instances.len(), "instance"),
            counted(settings.engines.len(), "engine"),
            resources_in_words(Resources::slots(slots.fold(0, u64::saturating_add))),
        )
    };
    let mut text =
        format!("cluster {}: {pool}; the api listens on {}\n", controller.cluster, settings.listen);
    if let Some(lock) = &settings.lock {
        let _ = writeln!(
            text,
            "of several schedulers, the one that locks {} acts; it is killed if it stands still for {} ms",
            lock.file.display(),
            lock.stalled_after.as_millis()
        );
    }
    text.push_str("\ninstances\n");
    if let Some(ecs) = &settings.ecs {
        ecs_in_words(ecs, &mut text);
    }
    for (address, engine) in &settings.engines {
        let tls = if engine.tls.is_some() { ", with TLS" } else { "" };
        let names = &engine.instances;
        for instance in controller.instances.iter().filter(|instance| names.contains(&instance.name)) {
            let state = match instance.state {
                InstanceState::Ready | InstanceState::Lost => "",
                InstanceState::Cordoned => "; cordoned: nothing new starts there",
                InstanceState::Draining => "; draining: what runs there is moved",
            };
            let _ = writeln!(
                text,
                "  {}: {} on {address}{tls}{state}",
                instance.name,
                resources_in_words(instance.capacity)
            );
        }
    }
    if !settings.sources.is_empty() {
        text.push_str("\ndemand sources\n");
    }
    for source in &settings.sources {
        let _ = writeln!(
            text,
            "  {}: {}, every {} ms, or at once where it holds its answers",
            source.settings.name,
            url_in_words(&source.url),
            source.settings.poll_ms
        );
    }
    text.push_str("\nservices, the most important first\n");
    let mut services: Vec<&ServiceSettings> = controller.services.iter().collect();
    services.sort_by_key(|service| service.service.priority);
    for service in services {
        let _ = writeln!(text, "  {}", service_in_words(service));
    }
    text
}

fn ecs_in_words(ecs: &Ecs, text: &mut String) {
    let region = ecs.region.as_deref().unwrap_or("the region that the AWS SDK finds");
    let at = ecs.endpoint_url.as_ref().map(|url| format!(", at {}", url_in_words(url))).unwrap_or_default();
    let _ = writeln!(
        text,
        "  looked up in {region}{at}, and again every {} ms; task definitions too",
        ecs.refresh.as_millis()
    );
    if let Some(filter) = &ecs.instance_filter {
        let _ = writeln!(text, "  those for which holds: {filter}");
    }
    for (value, unit) in [(ecs.reserve.cpu_millis, "cpu_millis"), (ecs.reserve.memory_mib, "memory_mib")] {
        if value > 0 {
            let _ = writeln!(text, "  {value} {unit} of each left for others");
        }
    }
    let _ = match &ecs.events_queue_url {
        Some(url) => writeln!(text, "  changes are told by {}", url_in_words(url)),
        None => writeln!(text, "  changes are asked for: there is no events_queue_url"),
    };
    if ecs.stop_before_start {
        text.push_str("  in a swap, a start is sent once what makes room for it has ended\n");
    }
}

fn service_in_words(settings: &ServiceSettings) -> String {
    let service = &settings.service;
    let mut words = vec![match (&settings.demand, service.kind) {
        (Some(demand), ServiceKind::Demand) => {
            let stale = match service.on_stale {
                OnStale::Hold => "kept while stale".to_owned(),
                OnStale::Fallback { containers, after_ms } => {
                    format!("{containers} once stale for {after_ms} ms")
                }
            };
            format!("as many as {} demands by key {:?}, {stale}", demand.source, demand.key)
        }
        _ => "fills all that is left".to_owned(),
    }];
    match (service.min, service.max) {
        (0, u32::MAX) => {}
        (min, u32::MAX) => words.push(format!("at least {min}")),
        (0, max) => words.push(format!("at most {max}")),
        (min, max) => words.push(format!("{min} to {max}")),
    }
    words.push(format!("each takes {}", resources_in_words(service.request)));
    words.push(match service.on_preempt {
        OnPreempt::Stop if settings.spec.task_definition.is_some() => {
            "stopped within the stopTimeout of its task definition to make room".to_owned()
        }
        OnPreempt::Stop => format!("stopped within {} ms to make room", settings.spec.stop_grace_ms),
        OnPreempt::Freeze if settings.freeze_or_stop => {
            "frozen to make room, or stopped where an engine cannot freeze".to_owned()
        }
        OnPreempt::Freeze => "frozen to make room".to_owned(),
    });
    if service.overlap == Overlap::Swap {
        words.push("begins beside what is frozen for it".to_owned());
    }
    if service.placement == Placement::BinPack {
        words.push("on the fullest instance".to_owned());
    }
    if service.standby_per_instance > 0 {
        words.push(format!("{} kept frozen and ready on each instance", service.standby_per_instance));
    }
    if service.paused {
        words.push("paused: nothing new starts".to_owned());
    }
    format!("priority {} {} ({}): {}", service.priority, service.name, settings.spec.image, words.join("; "))
}

fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
