//! The templates of `cloud-config/`, filled in in every way, before the validators of those who read them.
//!
//! cloud-init's and Ignition's are Debian's; `scripts/test` puts them where they are looked for here. coreos-cloudinit's
//! is not to be had (`src/coreos.rs` says what stands in for it).

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::support::{
    AMAZON_LINUX, AUTH, COREOS, FLATCAR, LICENSE_KEY, NEW_RELIC_ARN, REGISTRY_ARN, every_way, template,
    with_secrets_by_arn, with_secrets_inside,
};
use cloud_config::{Form, check, render};

/// Where `scripts/lib/validators.sh` has put a validator.
fn validator(name: &str) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target")), PathBuf::from);
    let path = target.join("validators/bin").join(name);
    assert!(path.is_file(), "{}: not there; scripts/test puts it there", path.display());
    path
}

/// Gives a text to a validator, as a file; what it says if it refuses it.
fn refusal(mut validator: Command, text: &str, suffix: &str) -> Option<String> {
    let file = tempfile::Builder::new().suffix(suffix).tempfile().expect("a temporary file");
    std::fs::write(file.path(), text).expect("a temporary file is written");
    let output = validator.arg(file.path()).stdin(Stdio::null()).output().expect("a validator runs");
    let said = [output.stdout, output.stderr].concat();
    (!output.status.success()).then(|| String::from_utf8_lossy(&said).into_owned())
}

fn cloud_init_refusal(text: &str) -> Option<String> {
    let mut command = Command::new(validator("cloud-init"));
    command.args(["schema", "--config-file"]);
    refusal(command, text, ".yaml")
}

fn ignition_refusal(text: &str) -> Option<String> {
    refusal(Command::new(validator("ignition-validate")), text, ".json")
}

/// Renders a template in every way, and gives each to a judge too.
fn each(name: &str, form: Form, judge: impl Fn(&str) -> Option<String>) {
    let template = template(name);
    let ways = every_way(name);
    assert!(ways.len() >= 4, "{} ways", ways.len());
    for (way, values) in ways {
        let rendered = render(&template, &values).unwrap_or_else(|refused| panic!("{way}:\n{refused}"));
        assert_eq!(check(&rendered).expect("what is rendered is right"), form, "{way}");
        if let Some(said) = judge(&rendered) {
            panic!("{way}: refused:\n{said}\n{rendered}");
        }
    }
}

#[test]
fn coreos() {
    each(COREOS, Form::CoreOs, |_| None);
}

#[test]
fn amazon_linux_before_cloud_init() {
    each(AMAZON_LINUX, Form::CloudInit, cloud_init_refusal);
}

#[test]
fn flatcar_before_ignition() {
    each(FLATCAR, Form::Ignition, ignition_refusal);
}

#[test]
fn the_validators_do_refuse() {
    let rendered = render(&template(AMAZON_LINUX), &with_secrets_inside()).expect("it is right");
    let said = cloud_init_refusal(&rendered.replace("'0600'", "0600")).expect("a mode is a text");
    assert!(said.contains("permissions"), "{said}");
    let rendered = render(&template(FLATCAR), &with_secrets_inside()).expect("it is right");
    let said =
        ignition_refusal(&rendered.replace("\"3.3.0\"", "\"3.9.0\"")).expect("there is no such version");
    assert!(said.contains("version"), "{said}");
    ignition_refusal(&rendered.replace("\"path\":\"/", "\"path\":\"")).expect("a path is absolute");
}

#[test]
fn secrets_are_inside_only_where_they_are_wanted_inside() {
    for name in [COREOS, AMAZON_LINUX, FLATCAR] {
        let text = decoded(&render(&template(name), &with_secrets_inside()).expect("it is right"));
        for secret in [AUTH, LICENSE_KEY] {
            assert_eq!(text.matches(secret).count(), 1, "{name}: {secret}");
        }
    }
    for name in [AMAZON_LINUX, FLATCAR] {
        let text = decoded(&render(&template(name), &with_secrets_by_arn()).expect("it is right"));
        for arn in [REGISTRY_ARN, NEW_RELIC_ARN] {
            assert_eq!(text.matches(arn).count(), 1, "{name}: {arn}");
        }
        assert!(!text.contains("ECS_ENGINE_AUTH_DATA={"), "{name}");
    }
}

/// Ignition with its files in the open; anything else as it is.
fn decoded(rendered: &str) -> String {
    use base64::Engine as _;
    let mut text = String::new();
    let mut rest = rendered;
    while let Some((before, after)) = rest.split_once("data:;base64,") {
        let (data, after) = after.split_once('"').expect("a string ends");
        text.push_str(before);
        let file = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
        text.push_str(&String::from_utf8(file).expect("a text"));
        rest = after;
    }
    text + rest
}

/// The settings that the hosts of 2015 had, each of which has been forgotten by somebody.
#[test]
fn coreos_has_every_setting() {
    let text = render(&template(COREOS), &with_secrets_inside()).expect("it is right");
    for setting in [
        "Environment=ECS_CLUSTER=demo\n",
        "Environment=ECS_LOGLEVEL=",
        "Environment=ECS_ENGINE_AUTH_TYPE=dockercfg\n",
        "Environment='ECS_ENGINE_AUTH_DATA={\"quay.io\":{\"auth\":\"cm9ib3Q6aHVudGVyMg==\"}}'\n",
        "--publish=127.0.0.1:51678:51678",
        "--volume=/var/run/docker.sock:/var/run/docker.sock",
        "--privileged",
        "--net=host",
        "Environment=NRSYSMOND_license_key=0123456789abcdef0123456789abcdef0123NRAL\n",
        "NRSYSMOND_loglevel=",
        "NRSYSMOND_hostname=%H",
    ] {
        assert!(text.contains(setting), "{setting}");
    }
    for name in ["ecs-agent", "newrelic"] {
        let kill = format!("ExecStartPre=-/usr/bin/docker kill {name}\n");
        let mut rest = &text[text.find(&kill).expect("what is left of it is killed")..];
        for next in [
            &format!("ExecStartPre=-/usr/bin/docker rm {name}\n"),
            "ExecStartPre=/usr/bin/docker pull ",
            "ExecStart=/usr/bin/docker run ",
            &format!("ExecStop=/usr/bin/docker stop -t 30 {name}\n"),
        ] {
            rest = &rest[rest.find(next).unwrap_or_else(|| panic!("{name}: no {next}"))..];
        }
    }
}

/// What the two living forms share is the same in both.
#[test]
fn the_living_forms_agree() {
    let flatcar = decoded(&render(&template(FLATCAR), &with_secrets_inside()).expect("it is right"));
    let amazon = render(&template(AMAZON_LINUX), &with_secrets_inside()).expect("it is right");
    let mut settings = 0;
    for line in amazon.lines().map(str::trim).filter(|line| line.starts_with("ECS_")) {
        assert!(flatcar.contains(&format!("{line}\n")), "{line}");
        settings += 1;
    }
    assert!(settings >= 8, "{settings} settings");
    // Speed is settings, too.
    assert!(amazon.contains("ECS_IMAGE_PULL_BEHAVIOR=prefer-cached\n"));
    assert!(amazon.contains("ECS_CONTAINER_STOP_TIMEOUT=5s\n"));
}
