//! How the containers of a service are made, on Docker engines.

use std::collections::BTreeMap;

use driver::{ContainerSpec, Healthcheck, LogOptions, PullPolicy};

use super::file::{PullWord, ServiceTable};
use super::rules::{DAY_MS, range};
use super::{Environment, Place, Problems};

/// From the stop signal to SIGKILL where nothing is said of it.
const STOP_GRACE_MS_DEFAULT: u64 = 10_000;

pub(super) fn spec(
    table: &ServiceTable,
    place: &Place,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> ContainerSpec {
    if table.task_definition.is_some() {
        problems.error(
            &place.key("task_definition"),
            "is for the services of an [ecs] cluster; name an image in its place".to_owned(),
        );
    }
    match &table.image {
        None => problems.error(place, "missing key `image`; add it".to_owned()),
        Some(image) if image.is_empty() || image.len() > 255 || image.contains(char::is_whitespace) => {
            problems.error(
                &place.key("image"),
                format!(
                    "`{image}` is not the name of an image; for example force12/workload or registry/name:tag"
                ),
            );
        }
        Some(_) => {}
    }
    if let Some(command) = &table.command {
        words(command, &place.key("command"), "leave command out for the image's own", problems);
    }
    if let Some(signal) = &table.stop_signal {
        let named = signal.strip_prefix("SIG").is_some_and(|rest| {
            !rest.is_empty() && rest.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '+')
        });
        if !named && !signal.parse::<u8>().is_ok_and(|number| (1..=64).contains(&number)) {
            problems.error(
                &place.key("stop_signal"),
                format!("`{signal}` is not a signal; write a name such as SIGTERM, or a number from 1 to 64"),
            );
        }
    }
    let stop_grace_ms = table.stop_grace_ms.unwrap_or(STOP_GRACE_MS_DEFAULT);
    range(stop_grace_ms, 0..=600_000, &place.key("stop_grace_ms"), problems);
    if let Some(network) = &table.network {
        let fits = network.chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
            && network.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-'));
        if !fits {
            problems.error(
                &place.key("network"),
                format!(
                    "`{network}` is not the name of a network; write host, none, bridge or a network's name"
                ),
            );
        }
    }
    if let Some(user) = &table.user
        && (user.is_empty() || user.contains(char::is_whitespace) || user.matches(':').count() > 1)
    {
        problems.error(
            &place.key("user"),
            format!(
                "`{user}` is not a user; write a name or number, with :group if wanted, as in 65534:65534"
            ),
        );
    }
    if let Some(log) = &table.log
        && log.driver.is_empty()
    {
        problems
            .error(&place.key("log").key("driver"), "is empty; name a log driver, such as local".to_owned());
    }
    if let Some(check) = &table.healthcheck {
        let place = place.key("healthcheck");
        words(&check.command, &place.key("command"), "leave healthcheck out for the image's own", problems);
        range(check.interval_ms, 1..=DAY_MS, &place.key("interval_ms"), problems);
        range(check.timeout_ms, 1..=DAY_MS, &place.key("timeout_ms"), problems);
        range(check.retries.into(), 1..=1_000, &place.key("retries"), problems);
    }
    let limit = |value: u64| (value > 0).then_some(value);
    ContainerSpec {
        image: table.image.clone().unwrap_or_default(),
        task_definition: None,
        pull: match table.pull.unwrap_or_default() {
            PullWord::Never => PullPolicy::Never,
            PullWord::Missing => PullPolicy::Missing,
            PullWord::Always => PullPolicy::Always,
        },
        command: table.command.clone(),
        environment: container_environment(table, place, environment, problems),
        network: table.network.clone(),
        user: table.user.clone(),
        cpu_limit_millis: limit(table.request.cpu_millis),
        memory_limit_mib: limit(table.request.memory_mib),
        read_only_root: table.read_only_root.unwrap_or_default(),
        stop_signal: table.stop_signal.clone(),
        stop_grace_ms,
        log: table
            .log
            .as_ref()
            .map(|log| LogOptions { driver: log.driver.clone(), options: log.options.clone() }),
        healthcheck: table.healthcheck.as_ref().map(|check| Healthcheck {
            command: check.command.clone(),
            interval_ms: check.interval_ms,
            timeout_ms: check.timeout_ms,
            retries: check.retries,
        }),
    }
}

fn container_environment(
    table: &ServiceTable,
    place: &Place,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> BTreeMap<String, String> {
    let fits =
        |name: &str| !name.is_empty() && !name.contains(['=', '\0']) && !name.contains(char::is_whitespace);
    for (name, value) in &table.env {
        let place = place.key("env").key(name);
        if !fits(name) {
            problems
                .error(&place, format!("`{name}` is not the name of a variable; leave out spaces and `=`"));
        }
        if value.contains('\0') {
            problems.error(&place, "holds a NUL character, which no environment can; take it out".to_owned());
        }
        if looks_secret(name) && !value.is_empty() {
            problems.warning(
                &place,
                "looks like a secret; keep it out of this file: set it in the scheduler's environment and name it in \
                 env_from"
                    .to_owned(),
            );
        }
    }
    let mut variables = table.env.clone();
    for (index, name) in table.env_from.iter().enumerate() {
        let place = place.key("env_from").item(index);
        if !fits(name) {
            problems
                .error(&place, format!("`{name}` is not the name of a variable; leave out spaces and `=`"));
        } else if variables.contains_key(name) {
            problems.error(&place, format!("`{name}` is named twice, in env or env_from; remove one"));
        } else if let Some(value) = environment(name) {
            variables.insert(name.clone(), value);
        } else {
            problems.error(
                &place,
                format!(
                    "`{name}` is not set in the scheduler's environment; set it there, or remove it here"
                ),
            );
        }
    }
    variables
}

fn looks_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["SECRET", "PASSWORD", "PASSWD", "TOKEN", "API_KEY", "APIKEY", "PRIVATE_KEY", "ACCESS_KEY", "CREDENTIAL"]
        .iter()
        .any(|part| name.contains(part))
}

/// A command: at least one word, none of them with a NUL, the first not empty.
fn words(command: &[String], place: &Place, otherwise: &str, problems: &mut Problems<'_>) {
    if command.first().is_none_or(String::is_empty) {
        problems.error(place, format!("names no program; {otherwise}"));
    }
    if command.iter().any(|word| word.contains('\0')) {
        problems.error(place, "holds a NUL character, which no command can; take it out".to_owned());
    }
}
