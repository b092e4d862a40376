//! The pool, and the engines that it is on: `[[instance]]`.

use std::collections::{BTreeMap, BTreeSet};

use driver_docker::{EngineAddress, Limits, TlsFiles};
use planner::{Instance, InstanceState, Resources};

use super::file::{InstanceStateWord, InstanceTable};
use super::rules::{DAY_MS, name, range, unique};
use super::settings::Engine;
use super::{Place, Problems};

pub(super) fn instances(
    tables: Vec<InstanceTable>,
    has_ecs: bool,
    problems: &mut Problems<'_>,
) -> (BTreeMap<EngineAddress, Engine>, Vec<Instance>) {
    if tables.is_empty() && !has_ecs {
        problems.error(
            &Place::top(),
            "there is no [[instance]]; name at least one container host, or an [ecs] cluster".to_owned(),
        );
    }
    let mut seen = BTreeSet::new();
    let mut engines = BTreeMap::new();
    let instances = tables
        .into_iter()
        .enumerate()
        .map(|(index, table)| {
            let place = Place::table("instance", index, &table.name);
            name(&table.name, &place.key("name"), problems);
            unique(&mut seen, &table.name, "instance", &place, problems);
            engine(&table, &place, &mut engines, problems);
            let capacity_place = place.key("capacity");
            range(table.capacity.slots, 1..=Resources::SLOTS_MAX, &capacity_place.key("slots"), problems);
            for (key, value) in
                [("cpu_millis", table.capacity.cpu_millis), ("memory_mib", table.capacity.memory_mib)]
            {
                if let Some(value) = value {
                    range(value, 1..=1_000_000_000, &capacity_place.key(key), problems);
                }
            }
            if let Some(frozen_max) = table.frozen_max {
                range(frozen_max.into(), 0..=10_000, &place.key("frozen_max"), problems);
            }
            range(table.evict_after_ms, 0..=DAY_MS, &place.key("evict_after_ms"), problems);
            if let (Some(frozen), Some(memory)) = (table.frozen_memory_mib, table.capacity.memory_mib)
                && frozen > memory
            {
                problems.error(
                    &place.key("frozen_memory_mib"),
                    format!(
                        "{frozen} is more than the instance has (capacity.memory_mib = {memory}); lower it"
                    ),
                );
            }
            Instance {
                name: table.name,
                state: match table.state {
                    InstanceStateWord::Ready => InstanceState::Ready,
                    InstanceStateWord::Cordoned => InstanceState::Cordoned,
                    InstanceStateWord::Draining => InstanceState::Draining,
                },
                capacity: Resources {
                    slots: table.capacity.slots,
                    cpu_millis: table.capacity.cpu_millis.unwrap_or(Resources::UNLIMITED),
                    memory_mib: table.capacity.memory_mib.unwrap_or(Resources::UNLIMITED),
                },
                frozen_max: table.frozen_max.unwrap_or(u32::MAX),
                frozen_memory_mib: table.frozen_memory_mib.unwrap_or(Resources::UNLIMITED),
                evict_after_ms: table.evict_after_ms,
            }
        })
        .collect();
    for engine in engines.values_mut() {
        engine.instances.sort();
    }
    (engines, instances)
}

/// Enters an instance with its engine, if the engine can be used.
fn engine(
    table: &InstanceTable,
    place: &Place,
    engines: &mut BTreeMap<EngineAddress, Engine>,
    problems: &mut Problems<'_>,
) {
    let engine_place = place.key("engine");
    let address = match table.engine.parse::<EngineAddress>() {
        Ok(address) => address,
        Err(error) => return problems.error(&engine_place, error.to_string()),
    };
    let tls = table.tls.as_ref().map(|tls| TlsFiles {
        ca_file: tls.ca_file.clone(),
        cert_file: tls.cert_file.clone(),
        key_file: tls.key_file.clone(),
    });
    let tls_place = place.key("tls");
    match (&address, &tls) {
        (EngineAddress::Unix(_), Some(_)) => problems.error(
            &tls_place,
            "has no meaning for a socket on the same machine; remove it, or give the engine as tcp://host:port"
                .to_owned(),
        ),
        (EngineAddress::Tcp(_), Some(_)) if table.engine.starts_with("http://") => {
            problems.error(&engine_place, "http is without TLS; write tcp, or remove tls".to_owned());
        }
        (EngineAddress::Tcp(_), None) if table.engine.starts_with("https://") => problems.error(
            &engine_place,
            "https needs certificates; add tls = { ca_file = \"…\", cert_file = \"…\", key_file = \"…\" }".to_owned(),
        ),
        (_, None) => {
            if let Some(warning) = address.warning() {
                problems.warning(&engine_place, warning);
            }
        }
        (EngineAddress::Tcp(_), Some(files)) => {
            if let Err((key, error)) = files.check() {
                problems.error(&tls_place.key(key), error.to_string());
            }
        }
    }
    let calls_place = place.key("engine_calls_max");
    let calls_max = table.engine_calls_max.map_or(Limits::PARALLEL_CALLS, |max| max as usize);
    if let Some(calls_max) = table.engine_calls_max {
        range(calls_max.into(), 1..=256, &calls_place, problems);
    }
    let shared = engines.entry(address).or_insert_with(|| Engine {
        tls: tls.clone(),
        calls_max,
        instances: Vec::new(),
    });
    for (differs, at, what) in [
        (shared.tls != tls, &tls_place, "tls"),
        (shared.calls_max != calls_max, &calls_place, "engine_calls_max"),
    ] {
        if differs {
            let first = shared.instances.first().cloned().unwrap_or_default();
            problems.error(
                at,
                format!(
                    "instance `{first}` above is on the same engine with other {what}; give both the same"
                ),
            );
        }
    }
    shared.instances.push(table.name.clone());
}
