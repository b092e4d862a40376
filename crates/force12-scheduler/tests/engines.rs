//! The configuration of ways to engines: what is refused, at which place, and how to mend it.

use std::path::Path;

use force12_scheduler::config::{self, Loaded};
use service_kit::config::{ConfigError, Mistake};

/// Two instances, each followed by what a case adds to it.
fn config(first: &str, second: &str) -> String {
    format!(
        r#"cluster = "demo"

[[demand_source]]
name = "rng"
url = "http://demand-rng:8081/v1/demand"

[[service]]
name = "web"
priority = 1
image = "force12/workload"
demand = {{ source = "rng", key = "web" }}

[[instance]]
name = "one"
capacity = {{ slots = 3 }}
{first}

[[instance]]
name = "two"
capacity = {{ slots = 3 }}
{second}
"#
    )
}

fn parse(text: &str) -> Result<Loaded, Vec<Mistake>> {
    config::parse("demo.toml", text, &|name| (name == "PRESENT").then(|| "hunter2".to_owned())).map_err(
        |error| match error {
            ConfigError::Invalid(mistakes) => mistakes,
            other => panic!("expected mistakes, not {other}"),
        },
    )
}

/// Files as TLS takes them, in a directory.
fn certificates(directory: &Path) -> String {
    use std::os::unix::fs::PermissionsExt as _;

    let made = rcgen::generate_simple_self_signed([]).unwrap();
    let file = |name: &str| directory.join(name);
    std::fs::write(file("ca.pem"), made.cert.pem()).unwrap();
    std::fs::write(file("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), made.signing_key.serialize_pem()).unwrap();
    std::fs::set_permissions(file("key.pem"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let path = directory.display();
    format!(
        r#"tls = {{ ca_file = "{path}/ca.pem", cert_file = "{path}/cert.pem", key_file = "{path}/key.pem" }}"#
    )
}

#[test]
fn tls_reaches_every_instance_of_an_engine() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let text = config(
        &format!("engine = \"https://engine:2376\"\n{tls}"),
        &format!("engine = \"tcp://engine:2376\"\n{tls}"),
    );
    let loaded = parse(&text).unwrap();
    assert_eq!(loaded.warnings, [], "with TLS there is nothing to warn of");
    let (address, engine) = loaded.settings.engines.first_key_value().unwrap();
    assert_eq!(loaded.settings.engines.len(), 1);
    assert_eq!(address.to_string(), "tcp://engine:2376");
    assert_eq!(engine.instances, ["one", "two"]);
    assert_eq!(engine.tls.as_ref().unwrap().ca_file, directory.path().join("ca.pem"));
    assert!(force12_scheduler::check::in_words(&loaded.settings).contains("on tcp://engine:2376, with TLS"));
}

#[test]
fn tls_that_cannot_hold_is_refused_with_its_place_and_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let tls = certificates(directory.path());
    let other = tls.replace("cert.pem", "ca.pem");
    for (first, second, key, remedy) in [
        ("unix:///run/a.sock", tls.as_str(), "tls", "remove it, or give the engine as tcp://host:port"),
        ("http://a:2376", &tls, "engine", "http is without TLS; write tcp, or remove tls"),
        ("https://a:2376", "", "engine", "https needs certificates; add tls"),
        ("tcp://a:2376", &tls.replace("ca.pem", "no.pem"), "tls.ca_file", "cannot be read: No such file"),
        ("tcp://a:2376", &tls.replace("/cert.pem", "/key.pem"), "tls.cert_file", "holds no certificate"),
        ("tcp://a:2376", &tls.replace("/key.pem", "/cert.pem"), "tls.key_file", "too many have access"),
    ] {
        let text = config(&format!("engine = \"{first}\"\n{second}"), "engine = \"unix:///run/b.sock\"");
        let mistakes = parse(&text).expect_err(remedy);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        let line =
            text.lines().position(|line| line.starts_with(if key == "engine" { "engine" } else { "tls" }));
        assert_eq!(mistakes[0].key, format!("instance.one.{key}"));
        assert_eq!(mistakes[0].place.map(|(line, _)| line), line.map(|line| line + 1), "{mistakes:?}");
        assert!(mistakes[0].message.contains(remedy), "{mistakes:?}");
    }
    for second in ["", other.as_str()] {
        let text = config(
            &format!("engine = \"tcp://a:2376\"\n{tls}"),
            &format!("engine = \"tcp://a:2376\"\n{second}"),
        );
        let mistakes = parse(&text).expect_err("they share one engine");
        assert!(
            mistakes.iter().any(|mistake| mistake.key == "instance.two.tls"
                && mistake.message.contains("instance `one` above is on the same engine with other tls")),
            "{mistakes:?}"
        );
    }
}
