//! The configuration of ways to engines: what is refused, at which place, and how to mend it.

use std::path::Path;

use driver::PullPolicy;
use driver_docker::{Password, Secret};
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
            other @ ConfigError::File(_) => panic!("expected mistakes, not {other}"),
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

/// A configuration with this at its top and this in its service.
fn with_pulls(top: &str, service: &str) -> String {
    let text = config("engine = \"unix:///run/a.sock\"", "engine = \"unix:///run/b.sock\"");
    text.replace("cluster = \"demo\"\n", &format!("cluster = \"demo\"\n{top}\n"))
        .replace("image = \"force12/workload\"", &format!("image = \"force12/workload\"\n{service}"))
}

fn private(path: &Path, content: &str) {
    use std::os::unix::fs::PermissionsExt as _;

    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn images_are_pulled_if_they_are_missing_unless_the_service_says_otherwise() {
    for (key, policy) in [
        ("", PullPolicy::Missing),
        ("pull = \"missing\"", PullPolicy::Missing),
        ("pull = \"never\"", PullPolicy::Never),
        ("pull = \"always\"", PullPolicy::Always),
    ] {
        let settings = parse(&with_pulls("", key)).unwrap().settings;
        assert_eq!(settings.controller.services[0].spec.pull, policy);
    }
    let mistakes = parse(&with_pulls("", "pull = \"sometimes\"")).expect_err("there is no such policy");
    assert_eq!(mistakes[0].key, "service.web.pull");
    assert!(mistakes[0].message.contains("never, missing, always"), "{mistakes:?}");
}

#[test]
fn logins_arrive_and_are_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (file, password) = (directory.path().join("config.json"), directory.path().join("password"));
    private(&file, r#"{"auths": {"a.example.org": {"auth": "dTpw"}}, "credsStore": "desktop"}"#);
    private(&password, "secret of a file");
    let loaded = parse(&with_pulls(
        &format!(
            r#"docker_config_file = "{}"
[[registry]]
server = "r.example.org:5000"
username = "robot"
password_env = "PRESENT"
[[registry]]
server = "docker.io"
username_env = "PRESENT"
password_file = "{}""#,
            file.display(),
            password.display()
        ),
        "",
    ))
    .unwrap();
    assert_eq!(loaded.warnings.len(), 1, "{:?}", loaded.warnings);
    assert!(loaded.warnings[0].message.contains("credential helpers, which are not run"));
    let registries = &loaded.settings.registries;
    assert_eq!(registries.docker_config_file.as_deref(), Some(file.as_path()));
    let servers: Vec<&str> = registries.logins.iter().map(|login| login.server.as_str()).collect();
    assert_eq!(servers, ["r.example.org:5000", "docker.io"]);
    assert_eq!(registries.logins[0].password, Password::Given(Secret::new("hunter2")));
    assert_eq!(registries.logins[1].username, "hunter2");
    assert_eq!(registries.logins[1].password, Password::File(password));
    let shown = format!("{:?}", registries.logins[0]);
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[test]
fn logins_that_cannot_hold_are_refused_with_their_place_and_remedy() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    private(&directory.path().join("garbage"), "{");
    private(&directory.path().join("empty"), "\n");
    std::fs::write(path("open"), "{}").unwrap();
    let login = |server: &str, rest: &str| format!("[[registry]]\nserver = \"{server}\"\n{rest}");
    let good = "username = \"robot\"\npassword_env = \"PRESENT\"";
    let with_file = |name: &str| format!("username = \"robot\"\npassword_file = \"{}\"", path(name));
    for (top, key, line, remedy) in [
        (
            format!("docker_config_file = \"{}\"", path("no")),
            "docker_config_file",
            2,
            "cannot be read: No such file",
        ),
        (format!("docker_config_file = \"{}\"", path("open")), "docker_config_file", 2, "run: chmod 600"),
        (
            format!("docker_config_file = \"{}\"", path("garbage")),
            "docker_config_file",
            2,
            "not a docker config file",
        ),
        (login("https://r", good), "registry.https://r.server", 3, "write host or host:port"),
        (
            login("r", good) + "\n" + &login("r", good),
            "registry.r.server",
            7,
            "another login for registry `r` above",
        ),
        (login("r", "username = \"robot\""), "registry.r", 2, "give one of password_env and password_file"),
        (login("r", "password_env = \"PRESENT\""), "registry.r", 2, "give one of username and username_env"),
        (
            login("r", &format!("{good}\nusername_env = \"PRESENT\"")),
            "registry.r",
            2,
            "give one of username and",
        ),
        (login("r", &good.replace("robot", "")), "registry.r.username", 4, "can't be empty"),
        (login("r", &good.replace("PRESENT", "ABSENT")), "registry.r.password_env", 5, "`ABSENT` is not set"),
        (login("r", &with_file("no")), "registry.r.password_file", 5, "cannot be read: No such file"),
        (login("r", &with_file("open")), "registry.r.password_file", 5, "too many have access (mode 644)"),
        (login("r", &with_file("empty")), "registry.r.password_file", 5, "holds no password"),
    ] {
        let mistakes = parse(&with_pulls(&top, "")).expect_err(remedy);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert_eq!(
            (mistakes[0].key.as_str(), mistakes[0].place.map(|(line, _)| line)),
            (key, Some(line)),
            "{mistakes:?}"
        );
        assert!(mistakes[0].message.contains(remedy), "{mistakes:?}");
    }
    let mistakes = parse(&with_pulls(&login("r", "username = \"u\"\npassword = \"hunter2\""), ""))
        .expect_err("a secret has no place in the file");
    assert!(mistakes[0].message.contains("did you mean `password_env`?"), "{mistakes:?}");
    assert!(!mistakes[0].message.contains("hunter2"), "{mistakes:?}");
}
