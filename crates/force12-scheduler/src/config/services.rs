//! What is to run, how much of it and how important it is: `[[service]]`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use controller::{DemandKey, Ready, ServiceSettings};
use planner::{Instance, OnPreempt, OnStale, Overlap, Placement, Resources, Service, ServiceKind};

use super::ecs::{self, Ecs};
use super::file::{OnPreemptWord, OnStaleValue, OverlapWord, PlacementWord, ReadyWord, ServiceTable};
use super::rules::{COUNT_MAX, DAY_MS, name, range, unique};
use super::settings::resources_in_words;
use super::spec::spec;
use super::{Environment, Place, Problems};

/// The most containers of one fill service on one instance that are taken for intended without a `max`: an engine
/// does not survive many more, and a capacity in the wrong unit is easily written.
const FILL_PER_INSTANCE_MAX: u64 = 1_000;
/// Docker refuses memory limits below it.
const MEMORY_MIB_MIN: u64 = 6;
/// Docker refuses CPU limits below it.
const CPU_MILLIS_MIN: u64 = 10;

pub(super) fn services(
    tables: Vec<ServiceTable>,
    source_stale_ms: &BTreeMap<String, u64>,
    instances: &[Instance],
    ecs: Option<&Ecs>,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> Vec<ServiceSettings> {
    if tables.is_empty() {
        problems.error(&Place::top(), "there is no [[service]]; name at least one".to_owned());
    }
    let mut seen = BTreeSet::new();
    tables
        .into_iter()
        .enumerate()
        .map(|(index, table)| {
            let place = Place::table("service", index, &table.name);
            name(&table.name, &place.key("name"), problems);
            unique(&mut seen, &table.name, "service", &place, problems);
            range(table.priority.into(), 1..=COUNT_MAX, &place.key("priority"), problems);
            range(table.weight.into(), 1..=1_000, &place.key("weight"), problems);
            wanted(&table, &place, source_stale_ms, problems);
            request(&table, &place, instances, problems);
            freezing(&table, &place, problems);
            for (key, value) in
                [("scale_down_after_ms", table.scale_down_after_ms), ("min_runtime_ms", table.min_runtime_ms)]
            {
                range(value, 0..=DAY_MS, &place.key(key), problems);
            }
            let spec = if ecs.is_some() {
                ecs::no_freezing(&table, &place, problems);
                ecs::spec(&table, &place, problems)
            } else {
                spec(&table, &place, environment, problems)
            };
            ServiceSettings {
                service: service(&table, source_stale_ms),
                spec: Arc::new(spec),
                freeze_or_stop: table.on_preempt == OnPreemptWord::FreezeOrStop,
                ready: ready(&table, &place, problems),
                demand: table.demand.map(|demand| DemandKey { source: demand.source, key: demand.key }),
            }
        })
        .collect()
}

fn service(table: &ServiceTable, source_stale_ms: &BTreeMap<String, u64>) -> Service {
    let defaults = Service::demand(table.name.clone(), table.priority);
    let demand = table.demand.as_ref();
    Service {
        kind: if table.fill { ServiceKind::Fill } else { ServiceKind::Demand },
        weight: table.weight,
        request: Resources {
            slots: table.request.slots,
            cpu_millis: table.request.cpu_millis,
            memory_mib: table.request.memory_mib,
        },
        min: table.min,
        max: table.max.unwrap_or(defaults.max),
        on_preempt: match table.on_preempt {
            OnPreemptWord::Stop => OnPreempt::Stop,
            OnPreemptWord::Freeze | OnPreemptWord::FreezeOrStop => OnPreempt::Freeze,
        },
        overlap: match table.overlap {
            OverlapWord::Never => Overlap::Never,
            OverlapWord::Swap => Overlap::Swap,
        },
        standby_per_instance: table.standby,
        placement: match table.placement {
            PlacementWord::Spread => Placement::Spread,
            PlacementWord::Binpack => Placement::BinPack,
        },
        scale_down_after_ms: table.scale_down_after_ms,
        min_runtime_ms: table.min_runtime_ms,
        stale_after_ms: demand
            .and_then(|demand| source_stale_ms.get(demand.source.as_str()).copied())
            .unwrap_or(defaults.stale_after_ms),
        on_stale: match demand.map(|demand| demand.on_stale).unwrap_or_default() {
            OnStaleValue::Hold => OnStale::Hold,
            OnStaleValue::Fallback { fallback, after_ms } => {
                OnStale::Fallback { containers: fallback, after_ms }
            }
        },
        paused: table.paused,
        ..defaults
    }
}

/// What a service wants: a demand or all that is left, and the bounds of it.
fn wanted(
    table: &ServiceTable,
    place: &Place,
    source_stale_ms: &BTreeMap<String, u64>,
    problems: &mut Problems<'_>,
) {
    match (&table.demand, table.fill) {
        (None, false) => problems.error(
            place,
            "has neither demand nor fill; write demand = { source = \"…\", key = \"…\" } or fill = true"
                .to_owned(),
        ),
        (Some(_), true) => problems.error(
            &place.key("fill"),
            "has both demand and fill = true; a service follows a demand or fills, so remove one".to_owned(),
        ),
        _ => {}
    }
    if let Some(demand) = &table.demand {
        let place = place.key("demand");
        if !source_stale_ms.contains_key(demand.source.as_str()) {
            let known: Vec<&str> = source_stale_ms.keys().map(String::as_str).collect();
            problems.error(
                &place.key("source"),
                if known.is_empty() {
                    format!(
                        "there is no demand source `{}`; add a [[demand_source]] of that name",
                        demand.source
                    )
                } else {
                    format!("there is no demand source `{}`; there is {}", demand.source, known.join(", "))
                },
            );
        }
        if demand.key.is_empty() {
            problems.error(&place.key("key"), "is empty; name the key in the source's demand".to_owned());
        }
        if let OnStaleValue::Fallback { fallback, after_ms } = demand.on_stale {
            range(fallback.into(), 0..=COUNT_MAX, &place.key("on_stale").key("fallback"), problems);
            range(after_ms, 0..=DAY_MS, &place.key("on_stale").key("after_ms"), problems);
        }
    }
    range(table.min.into(), 0..=COUNT_MAX, &place.key("min"), problems);
    if let Some(max) = table.max {
        range(max.into(), 0..=COUNT_MAX, &place.key("max"), problems);
        if table.min > max {
            problems.error(
                &place.key("min"),
                format!("{} is more than max ({max}); lower min, or raise max", table.min),
            );
        }
    }
    if table.fill {
        let without_use = [
            ("min", u64::from(table.min)),
            ("standby", table.standby.into()),
            ("scale_down_after_ms", table.scale_down_after_ms),
        ];
        for (key, value) in without_use {
            if value > 0 {
                problems.error(
                    &place.key(key),
                    "has no meaning for a service that fills: it has no demand; remove it".to_owned(),
                );
            }
        }
    }
}

/// What one container takes, against what there is.
fn request(table: &ServiceTable, place: &Place, instances: &[Instance], problems: &mut Problems<'_>) {
    let place = place.key("request");
    let request = &table.request;
    if request.slots == 0 {
        problems.error(
            &place.key("slots"),
            "is 0; give 1 or more: each container takes a slot, so that slots bound how many there are"
                .to_owned(),
        );
        return;
    }
    range(request.slots, 1..=Resources::SLOTS_MAX, &place.key("slots"), problems);
    if request.memory_mib > 0 {
        range(request.memory_mib, MEMORY_MIB_MIN..=1_000_000_000, &place.key("memory_mib"), problems);
    }
    if request.cpu_millis > 0 {
        range(request.cpu_millis, CPU_MILLIS_MIN..=1_000_000_000, &place.key("cpu_millis"), problems);
    }
    let wanted =
        Resources { slots: request.slots, cpu_millis: request.cpu_millis, memory_mib: request.memory_mib };
    // What is out of range has been said, and is not said again of what does not fit because of it.
    let in_range = |slots| (1..=Resources::SLOTS_MAX).contains(&slots);
    if instances.is_empty()
        || !in_range(request.slots)
        || !instances.iter().all(|instance| in_range(instance.capacity.slots))
    {
        return;
    }
    if !instances.iter().any(|instance| wanted.fits(instance.capacity)) {
        problems.error(
            &place,
            format!(
                "{} fits no instance; lower it, or raise the capacity of one",
                resources_in_words(wanted)
            ),
        );
        return;
    }
    if table.fill && table.max.is_none() {
        let most = instances
            .iter()
            .map(|instance| (wanted.count_in(instance.capacity), &instance.name))
            .max_by_key(|&(count, _)| count);
        if let Some((count, instance)) = most
            && count > FILL_PER_INSTANCE_MAX
        {
            problems.error(
                &place,
                format!(
                    "without a max this service would start {count} containers on {instance}; set max, or correct \
                     the capacity of {instance}"
                ),
            );
        }
    }
}

fn ready(table: &ServiceTable, place: &Place, problems: &mut Problems<'_>) -> Ready {
    range(table.ready_within_ms, 100..=DAY_MS, &place.key("ready_within_ms"), problems);
    if table.ready == ReadyWord::Running {
        return Ready::Running;
    }
    match &table.healthcheck {
        // Whether a task definition has one is looked up.
        None if table.task_definition.is_some() => {}
        None => problems.warning(
            &place.key("ready"),
            "\"healthy\" waits for a healthcheck, and none is configured: its image needs one, or no start will succeed"
                .to_owned(),
        ),
        Some(check) if check.interval_ms >= table.ready_within_ms => problems.error(
            &place.key("ready_within_ms"),
            format!(
                "a container is checked for the first time after healthcheck.interval_ms ({}), and {} would be over by \
                 then; give it more, or check sooner",
                check.interval_ms, table.ready_within_ms
            ),
        ),
        Some(_) => {}
    }
    Ready::Healthy { within_ms: table.ready_within_ms }
}

fn freezing(table: &ServiceTable, place: &Place, problems: &mut Problems<'_>) {
    if table.on_preempt != OnPreemptWord::Stop && !table.freezable {
        problems.error(
            &place.key("on_preempt"),
            "freeze needs freezable = true, said by whoever knows that the work survives a pause; or use \"stop\""
                .to_owned(),
        );
    }
    if table.standby > 0 && !table.freezable {
        problems.error(
            &place.key("standby"),
            "a standby is kept frozen, which needs freezable = true; add it, or set standby = 0".to_owned(),
        );
    }
    range(table.standby.into(), 0..=1_000, &place.key("standby"), problems);
}
