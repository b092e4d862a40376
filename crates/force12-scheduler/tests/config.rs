//! The configuration: what is accepted, with its defaults, and what is refused, with its place and its remedy.

use std::path::Path;

use force12_scheduler::config::{self, Loaded};
use planner::{InstanceState, OnPreempt, OnStale, Placement, Resources, ServiceKind};
use service_kit::config::ConfigError;

/// A valid configuration, into which each case puts one mistake.
const GOOD: &str = r#"cluster = "demo"

[[demand_source]]
name = "rng"
url = "http://demand-rng:8081/v1/demand"

[[instance]]
name = "instance-1"
engine = "unix:///var/run/docker.sock"
capacity = { slots = 3 }

[[service]]
name = "priority1"
priority = 1
image = "force12/workload"
demand = { source = "rng", key = "priority1" }

[[service]]
name = "priority2"
priority = 2
image = "force12/workload"
fill = true
"#;

fn parse(text: &str) -> Result<Loaded, ConfigError> {
    config::parse("demo.toml", text, &|name| (name == "PRESENT").then(|| "secret value".to_owned()))
}

fn good_with(from: &str, to: &str) -> String {
    assert!(GOOD.contains(from), "the case starts from {from:?}, which the good configuration has not");
    GOOD.replacen(from, to, 1)
}

#[test]
fn defaults_are_the_documented_ones() {
    let Loaded { settings, warnings } = parse(GOOD).unwrap();
    assert_eq!(warnings, []);
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8082");
    assert!(!settings.drain_on_exit);
    let cluster = &settings.controller;
    assert_eq!(
        (cluster.cluster.as_str(), cluster.start_hold_ms, cluster.lost_after_ms, cluster.settle_ms),
        ("demo", 2_000, 3_000, 10_000)
    );
    assert_eq!(settings.sources.len(), 1);
    assert_eq!(settings.sources[0].settings.poll_ms, 250);
    assert_eq!(settings.sources[0].settings.wait_ms, 5_000);
    assert_eq!(settings.engines[&"unix:///var/run/docker.sock".parse().unwrap()].instances, ["instance-1"]);
    assert_eq!(cluster.instances[0].capacity, Resources::slots_only(3));
    assert_eq!(cluster.instances[0].state, InstanceState::Ready);
    let [one, two] = &cluster.services[..] else { panic!("two services") };
    assert_eq!(one.service, planner::Service::demand("priority1", 1));
    assert_eq!(two.service, planner::Service::fill("priority2", 2));
    assert_eq!(one.spec.stop_grace_ms, 10_000);
    assert_eq!(one.demand.as_ref().unwrap().key, "priority1");
    assert_eq!(two.demand, None);
}

#[test]
fn every_key_arrives() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("example.toml")).unwrap();
    let loaded = config::parse("example.toml", &text, &|_| Some("from the environment".to_owned())).unwrap();
    assert_eq!(loaded.warnings, []);
    let cluster = &loaded.settings.controller;
    let batch = cluster.services.iter().find(|service| service.service.name == "batch").unwrap();
    assert_eq!(batch.service.kind, ServiceKind::Fill);
    assert_eq!(batch.service.on_preempt, OnPreempt::Freeze);
    assert_eq!(batch.service.placement, Placement::BinPack);
    let web = cluster.services.iter().find(|service| service.service.name == "web").unwrap();
    assert_eq!(web.service.on_stale, OnStale::Fallback { containers: 2, after_ms: 60_000 });
    assert_eq!(web.service.request, Resources { slots: 1, cpu_millis: 500, memory_mib: 256 });
    assert_eq!(web.spec.cpu_limit_millis, Some(500));
    assert_eq!(web.spec.memory_limit_mib, Some(256));
    assert_eq!(web.spec.environment["DATABASE_PASSWORD"], "from the environment");
    assert_eq!(web.spec.environment.len(), 2, "what it names and nothing else");
    assert!(web.spec.healthcheck.is_some() && web.spec.log.is_some());
}

#[test]
fn every_key_of_an_ecs_cluster_arrives() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("example-ecs.toml");
    let loaded = config::load(&path, &|_| None).unwrap();
    assert_eq!(loaded.warnings, []);
    let settings = &loaded.settings;
    let ecs = settings.ecs.as_ref().unwrap();
    assert_eq!((ecs.cluster.as_str(), ecs.region.as_deref()), ("force12-demo", Some("eu-west-1")));
    assert_eq!(ecs.reserve, Resources { slots: 0, cpu_millis: 256, memory_mib: 256 });
    assert_eq!(ecs.instance_filter.as_deref(), Some("attribute:pool == batch"));
    assert_eq!(ecs.events_queue_url.as_ref().unwrap().path(), "/123456789012/force12-demo");
    assert_eq!(settings.controller.lost_after_ms, 30_000);
    assert!(settings.engines.is_empty() && settings.controller.instances.is_empty());
    let [batch, web] = &settings.controller.services[..] else { panic!("two services") };
    assert_eq!(web.spec.task_definition.as_deref(), Some("force12-web"));
    assert_eq!((web.spec.cpu_limit_millis, web.service.request.cpu_millis), (None, 500));
    assert_eq!(batch.spec.task_definition.as_deref(), Some("force12-batch:7"));

    let arn = "arn:aws:ecs:eu-north-1:123456789012:cluster/force12-demo";
    let text = std::fs::read_to_string(&path).unwrap().replace("region = \"eu-west-1\"\n", "");
    let by_name = parse(&text).unwrap().settings.ecs.unwrap();
    assert_eq!(by_name.region, None, "the SDK finds it");
    let by_arn =
        parse(&text.replace("\"force12-demo\"", &format!("\"{arn}\""))).unwrap().settings.ecs.unwrap();
    assert_eq!(by_arn.region.as_deref(), Some("eu-north-1"));
    let bare = "slots_per_instance = 3\n\n[[service]]\nname = \"a\"\npriority = 1\ntask_definition = \"a\"\nfill = true\n";
    let bare = parse(&format!("cluster = \"demo\"\n[ecs]\ncluster = \"b\"\n{bare}")).unwrap().settings;
    assert_eq!(bare.controller.lost_after_ms, 30_000);
    let ecs = bare.ecs.unwrap();
    assert_eq!(
        (ecs.refresh.as_millis(), ecs.stop_before_start, ecs.reserve),
        (60_000, false, Resources::ZERO)
    );
}

#[test]
fn where_nothing_can_be_frozen_freeze_or_stop_stops() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("example-ecs.toml");
    let text = std::fs::read_to_string(path).unwrap()
        + "freezable = true\nstandby = 0\non_preempt = \"freeze-or-stop\"\n";
    let settings = parse(&text).unwrap().settings;
    assert!(settings.controller.services[0].freeze_or_stop);
}

/// Every key that a schema, or a part of it, names.
fn keys(schema: &serde_json::Value, found: &mut Vec<String>) {
    match schema {
        serde_json::Value::Object(map) => {
            if let Some(serde_json::Value::Object(properties)) = map.get("properties") {
                found.extend(properties.keys().cloned());
            }
            map.values().for_each(|value| keys(value, found));
        }
        serde_json::Value::Array(list) => list.iter().for_each(|value| keys(value, found)),
        _ => {}
    }
}

#[test]
fn the_example_names_every_key_of_the_schema() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text =
        ["example.toml", "example-ecs.toml"].map(|file| std::fs::read_to_string(here.join(file)).unwrap());
    let mut found = Vec::new();
    keys(&config::schema(), &mut found);
    assert!(found.len() > 40, "{found:?}");
    for key in found {
        assert!(text.iter().any(|text| text.contains(&key)), "the examples say nothing of `{key}`");
    }
}

#[test]
fn the_kept_schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.schema.json");
    service_kit::generated::check(&path, &service_kit::generated::pretty(&config::schema())).unwrap();
}

#[test]
fn an_engine_spoken_to_without_encryption_is_warned_of() {
    let remote = good_with("unix:///var/run/docker.sock", "tcp://203.0.113.9:2375");
    let warnings = parse(&remote).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0].key, "instance.instance-1.engine");
    assert!(warnings[0].message.contains("without encryption"), "{warnings:?}");
    let local = good_with("unix:///var/run/docker.sock", "tcp://127.0.0.1:2375");
    assert_eq!(parse(&local).unwrap().warnings, []);
}

#[test]
fn a_secret_in_the_file_and_an_unused_source_are_warned_of() {
    let text = good_with("fill = true", "fill = true\nenv = { DB_PASSWORD = \"hunter2\", COLOUR = \"red\" }")
        + "\n[[demand_source]]\nname = \"spare\"\nurl = \"http://spare/\"\n";
    let loaded = parse(&text).unwrap();
    let lines = service_kit::config::lines(&loaded.warnings);
    let words: Vec<&str> = lines.lines().collect();
    assert_eq!(words.len(), 2, "{words:?}");
    assert!(words.iter().any(|w| w.contains("service.priority2.env.DB_PASSWORD") && w.contains("env_from")));
    assert!(words.iter().any(|w| w.contains("demand_source.spare") && w.contains("no service")));
    assert!(!words.iter().any(|w| w.contains("hunter2")), "a secret is never repeated");
    assert_eq!(loaded.settings.sources.len(), 1, "an unused source is not asked");
}

#[test]
fn a_source_is_asked_to_hold_answers_only_as_long_as_its_staleness_allows() {
    for (stale_after_ms, wait_ms) in [(15_000, 5_000), (60_000, 5_000), (9_500, 3_000), (2_900, 0)] {
        let text = good_with("/v1/demand\"", &format!("/v1/demand\"\nstale_after_ms = {stale_after_ms}"));
        let settings = parse(&text).unwrap().settings;
        assert_eq!(settings.sources[0].settings.wait_ms, wait_ms);
        assert_eq!(settings.controller.services[0].service.stale_after_ms, stale_after_ms);
    }
}

#[test]
fn the_environment_is_passed_on_by_name_only() {
    let text = good_with("fill = true", "fill = true\nenv_from = [\"PRESENT\"]");
    let settings = parse(&text).unwrap().settings;
    let environment = &settings.controller.services[1].spec.environment;
    assert_eq!(environment.iter().collect::<Vec<_>>(), [(&"PRESENT".to_owned(), &"secret value".to_owned())]);
}

/// The example with one line changed, in every way at every line.
fn damaged() -> impl Iterator<Item = String> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("example.toml")).unwrap();
    let lines: Vec<String> =
        text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect();
    let damages: [fn(&str) -> String; 7] = [
        |_| String::new(),
        |line| format!("{line}\n{line}"),
        |line| line.chars().take(line.chars().count() / 2).collect(),
        |line| line.replacen('=', "= [", 1),
        |line| line.split_once('=').map_or_else(String::new, |(key, _)| format!("{key}= -1")),
        |line| line.split_once('=').map_or_else(String::new, |(key, _)| format!("{key}= {{ name = 1.5 }}")),
        |line| format!("x{line}"),
    ];
    (0..lines.len()).flat_map(move |at| {
        let lines = lines.clone();
        damages.map(|damage| {
            let mut lines = lines.clone();
            lines[at] = damage(&lines[at]);
            lines.join("\n")
        })
    })
}

#[test]
fn whatever_is_damaged_is_told_in_lines_of_which_none_comes_twice() {
    let (mut good, mut bad) = (0, 0);
    for text in damaged() {
        match config::parse("demo.toml", &text, &|_| Some("present".to_owned())) {
            Ok(_) => good += 1,
            Err(error) => {
                bad += 1;
                let words = error.to_string();
                let mut lines: Vec<&str> = words.lines().collect();
                assert!(lines.iter().all(|line| line.starts_with("config demo.toml:")), "{words}\n\n{text}");
                let told = lines.len();
                lines.sort_unstable();
                lines.dedup();
                assert!(told > 0 && told == lines.len(), "{words}\n\n{text}");
            }
        }
    }
    assert!(good > 20 && bad > 300, "{good} good, {bad} bad");
}
