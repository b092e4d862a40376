//! The configuration: what is accepted, with its defaults, and what is refused, with its place and its remedy.

use std::path::Path;

use force12_scheduler::config::{self, ConfigError, Loaded, Problem};
use planner::{InstanceState, OnPreempt, OnStale, Placement, Resources, ServiceKind};

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

fn problems(text: &str) -> Vec<Problem> {
    match parse(text) {
        Err(ConfigError::Invalid { problems, .. }) => problems,
        other => panic!("expected problems, not {other:?}\n{text}"),
    }
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
    assert_eq!(settings.engines[&"unix:///var/run/docker.sock".parse().unwrap()], ["instance-1"]);
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
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("example.toml")).unwrap();
    let mut found = Vec::new();
    keys(&config::schema(), &mut found);
    assert!(found.len() > 40, "{found:?}");
    for key in found {
        assert!(text.contains(&key), "example.toml says nothing of `{key}`");
    }
}

#[test]
fn the_kept_schema_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.schema.json");
    service_kit::generated::check(&path, &service_kit::generated::pretty(&config::schema())).unwrap();
}

/// From what, to what, and what is to be said of it: the line, the key, and a part of the message.
type Case = (&'static str, &'static str, usize, &'static str, &'static str);

#[test]
fn each_mistake_is_named_with_its_place_and_remedy() {
    let cases: &[Case] = &[
        (r#"cluster = "demo""#, r#"cluster = "Demo""#, 1, "cluster", "lower-case letters"),
        (r#"cluster = "demo""#, r#"cluster = "-demo""#, 1, "cluster", "beginning with a letter or digit"),
        (
            r#"cluster = "demo""#,
            "cluster = \"demo\"\nallowed_hosts = [\"a.example\", \"http://b.example\"]",
            2,
            "allowed_hosts[1]",
            "leave out scheme and path",
        ),
        (
            r#"cluster = "demo""#,
            "cluster = \"demo\"\nstart_hold_ms = 600001",
            2,
            "start_hold_ms",
            "0 to 600000",
        ),
        (
            r#"cluster = "demo""#,
            "cluster = \"demo\"\nlost_after_ms = 10",
            2,
            "lost_after_ms",
            "500 to 3600000",
        ),
        (r#"cluster = "demo""#, "cluster = \"demo\"\nsettle_ms = 0", 2, "settle_ms", "1000 to 600000"),
        // Demand sources.
        (r#"name = "rng""#, r#"name = "r n g""#, 4, "demand_source.r n g.name", "can't be used in names"),
        (
            "http://demand-rng:8081",
            "ftp://demand-rng:8081",
            5,
            "demand_source.rng.url",
            "http or https, not `ftp`",
        ),
        ("http://demand-rng:8081", "demand-rng", 5, "demand_source.rng.url", "is not a URL"),
        (
            "http://demand-rng:8081",
            "http://u:p@demand-rng",
            5,
            "demand_source.rng.url",
            "a user or a password",
        ),
        ("/v1/demand", "/v1/demand#x", 5, "demand_source.rng.url", "fragment"),
        ("/v1/demand\"", "/v1/demand\"\npoll_ms = 0", 6, "demand_source.rng.poll_ms", "10 to 3600000"),
        (
            "/v1/demand\"",
            "/v1/demand\"\npoll_ms = 9000",
            3,
            "demand_source.rng.stale_after_ms",
            "less than twice poll_ms (9000)",
        ),
        (
            "/v1/demand\"",
            "/v1/demand\"\nstale_after_ms = 499",
            6,
            "demand_source.rng.stale_after_ms",
            "500 to",
        ),
        // Instances.
        (
            "unix:///var/run/docker.sock",
            "/var/run/docker.sock",
            9,
            "instance.instance-1.engine",
            "unix:///path",
        ),
        ("unix:///var/run/docker.sock", "unix://docker.sock", 9, "instance.instance-1.engine", "absolute"),
        ("unix:///var/run/docker.sock", "tcp://host", 9, "instance.instance-1.engine", "host and port"),
        ("unix:///var/run/docker.sock", "ssh://host:22", 9, "instance.instance-1.engine", "tcp://host:port"),
        ("slots = 3", "slots = 0", 10, "instance.instance-1.capacity.slots", "1 to 10000"),
        ("slots = 3", "slots = 10001", 10, "instance.instance-1.capacity.slots", "1 to 10000"),
        ("slots = 3", "slots = 3, memory_mib = 0", 10, "instance.instance-1.capacity.memory_mib", "1 to"),
        (
            "slots = 3 }",
            "slots = 3 }\nfrozen_max = 10001",
            11,
            "instance.instance-1.frozen_max",
            "0 to 10000",
        ),
        (
            "slots = 3 }",
            "slots = 3, memory_mib = 100 }\nfrozen_memory_mib = 101",
            11,
            "instance.instance-1.frozen_memory_mib",
            "more than the instance has (capacity.memory_mib = 100)",
        ),
        // What a service wants.
        ("priority = 1", "priority = 0", 14, "service.priority1.priority", "1 to 1000000"),
        ("fill = true", "weight = 1", 18, "service.priority2", "neither demand nor fill"),
        (
            "fill = true",
            "fill = true\ndemand = { source = \"rng\", key = \"x\" }",
            22,
            "service.priority2.fill",
            "both demand and fill",
        ),
        (r#"source = "rng""#, r#"source = "rnd""#, 16, "service.priority1.demand.source", "there is rng"),
        (r#"key = "priority1""#, r#"key = """#, 16, "service.priority1.demand.key", "is empty"),
        (
            r#"key = "priority1""#,
            r#"key = "a", on_stale = { fallback = 1000001, after_ms = 0 }"#,
            16,
            "service.priority1.demand.on_stale.fallback",
            "0 to 1000000",
        ),
        ("priority = 1", "priority = 1\nmin = 5\nmax = 4", 15, "service.priority1.min", "more than max (4)"),
        ("priority = 1", "priority = 1\nmax = 1000001", 15, "service.priority1.max", "0 to 1000000"),
        ("priority = 1", "priority = 1\nweight = 0", 15, "service.priority1.weight", "1 to 1000"),
        (
            "fill = true",
            "fill = true\nmin = 1",
            23,
            "service.priority2.min",
            "no meaning for a service that fills",
        ),
        (
            "fill = true",
            "fill = true\nscale_down_after_ms = 1",
            23,
            "service.priority2.scale_down_after_ms",
            "fills",
        ),
        (
            "priority = 1",
            "priority = 1\nmin_runtime_ms = 86400001",
            15,
            "service.priority1.min_runtime_ms",
            "0 to",
        ),
        // What a container takes.
        (
            "priority = 1",
            "priority = 1\nrequest = { slots = 0 }",
            15,
            "service.priority1.request.slots",
            "is 0",
        ),
        (
            "priority = 1",
            "priority = 1\nrequest = { slots = 4 }",
            15,
            "service.priority1.request",
            "4 slots fits no instance",
        ),
        (
            "priority = 1",
            "priority = 1\nrequest = { memory_mib = 2 }",
            15,
            "service.priority1.request.memory_mib",
            "6 to",
        ),
        (
            "slots = 3",
            "slots = 5000",
            18,
            "service.priority2.request",
            "would start 5000 containers on instance-1",
        ),
        // Freezing.
        (
            "fill = true",
            "fill = true\non_preempt = \"freeze\"",
            23,
            "service.priority2.on_preempt",
            "freezable = true",
        ),
        ("priority = 1", "priority = 1\nstandby = 1", 15, "service.priority1.standby", "freezable = true"),
        // What a container is made of.
        ("force12/workload", "force12 workload", 15, "service.priority1.image", "not the name of an image"),
        ("priority = 1", "priority = 1\ncommand = []", 15, "service.priority1.command", "names no program"),
        (
            "priority = 1",
            "priority = 1\nstop_signal = \"TERM\"",
            15,
            "service.priority1.stop_signal",
            "SIGTERM",
        ),
        (
            "priority = 1",
            "priority = 1\nstop_grace_ms = 600001",
            15,
            "service.priority1.stop_grace_ms",
            "0 to 600000",
        ),
        (
            "priority = 1",
            "priority = 1\nnetwork = \"container:x\"",
            15,
            "service.priority1.network",
            "host, none",
        ),
        ("priority = 1", "priority = 1\nuser = \"a:b:c\"", 15, "service.priority1.user", "65534:65534"),
        (
            "priority = 1",
            "priority = 1\nenv = { \"A B\" = \"1\" }",
            15,
            "service.priority1.env.A B",
            "spaces",
        ),
        (
            "priority = 1",
            "priority = 1\nenv_from = [\"ABSENT\"]",
            15,
            "service.priority1.env_from[0]",
            "is not set",
        ),
        (
            "priority = 1",
            "priority = 1\nenv = { PRESENT = \"1\" }\nenv_from = [\"PRESENT\"]",
            16,
            "service.priority1.env_from[0]",
            "named twice",
        ),
        (
            "priority = 1",
            "priority = 1\nlog = { driver = \"\" }",
            15,
            "service.priority1.log.driver",
            "is empty",
        ),
        (
            "priority = 1",
            "priority = 1\nhealthcheck = { command = [\"/check\"], retries = 0 }",
            15,
            "service.priority1.healthcheck.retries",
            "1 to 1000",
        ),
    ];
    for &(from, to, line, key, message) in cases {
        let text = good_with(from, to);
        let found = problems(&text);
        assert!(
            found.iter().any(|problem| problem.line == Some(line)
                && problem.key == key
                && problem.message.contains(message)),
            "{to:?}: expected line {line}: {key}: …{message}…, found {found:#?}"
        );
    }
}

#[test]
fn names_are_unique_and_the_second_is_pointed_at() {
    for (table, key) in [
        ("[[demand_source]]\nname = \"rng\"\nurl = \"http://x/\"\n", "demand_source.rng.name"),
        (
            "[[instance]]\nname = \"instance-1\"\nengine = \"tcp://b:2375\"\ncapacity = { slots = 1 }\n",
            "instance.instance-1.name",
        ),
        (
            "[[service]]\nname = \"priority1\"\npriority = 3\nimage = \"x\"\nfill = true\n",
            "service.priority1.name",
        ),
    ] {
        let text = format!("{GOOD}\n{table}");
        let found = problems(&text);
        let line = GOOD.lines().count() + 3;
        assert!(
            found.iter().any(|problem| problem.key == key
                && problem.line == Some(line)
                && problem.message.contains("give each its own name")),
            "{found:#?}"
        );
    }
}

#[test]
fn nothing_to_run_and_nowhere_to_run_it_are_both_said() {
    let found = problems("cluster = \"demo\"\n");
    let messages: Vec<&str> = found.iter().map(|problem| problem.message.as_str()).collect();
    assert!(messages.iter().any(|message| message.contains("no [[instance]]")), "{messages:?}");
    assert!(messages.iter().any(|message| message.contains("no [[service]]")), "{messages:?}");
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let text = good_with("slots = 3", "slots = 0")
        .replace("priority = 2", "priority = 0")
        .replace("http://demand-rng", "ftp://demand-rng");
    let found = problems(&text);
    let lines: Vec<usize> = found.iter().filter_map(|problem| problem.line).collect();
    assert!(found.len() >= 3, "{found:#?}");
    assert!(lines.is_sorted(), "{lines:?}");
    let words = parse(&text).unwrap_err().to_string();
    assert_eq!(words.lines().count(), found.len());
    assert!(words.starts_with("config demo.toml:5: demand_source.rng.url: the scheme of"), "{words}");
}

#[test]
fn what_cannot_be_read_is_named_with_its_place() {
    let cases = [
        (good_with("cluster", "clutser"), &["clutser", "did you mean", "cluster"][..]),
        (good_with("priority = 1", "priorty = 1"), &["priorty", "did you mean", "priority"]),
        (good_with("priority = 1", "priority = 1\nmin = -1"), &["-1", "15"]),
        (good_with("fill = true", "fill = \"yes\""), &["22"]),
        (good_with("fill = true", "fill = true\non_preempt = \"pause\""), &["pause", "freeze"]),
        (good_with("key = \"priority1\"", "key = \"a\", on_stale = \"drop\""), &["hold", "fallback"]),
        (good_with("key = \"priority1\"", "key = \"a\", on_stale = { fallback = 1 }"), &["after_ms"]),
        (good_with("slots = 3", "cpu_millis = 3"), &["slots"]),
        (
            good_with("cluster = \"demo\"", "cluster = \"demo\"\nlisten = \"8082\""),
            &["demo.toml:2:", "socket address"],
        ),
        (
            good_with("cluster = \"demo\"", "cluster = \"demo\"\nlisten = \"localhost:80\""),
            &["socket address"],
        ),
        (good_with("cluster = \"demo\"", "cluster = "), &["1"]),
    ];
    for (text, parts) in cases {
        match parse(&text) {
            Err(error @ ConfigError::Unreadable(_)) => {
                let words = error.to_string();
                for part in parts {
                    assert!(words.contains(part), "expected {part:?} in: {words}");
                }
            }
            other => panic!("expected a refusal that names {parts:?}, not {other:?}"),
        }
    }
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
    let lines = config::lines("demo.toml", &loaded.warnings);
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
