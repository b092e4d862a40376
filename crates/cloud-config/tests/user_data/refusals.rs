//! Everything that is refused, each with a case: what is right, with one thing made wrong.

use crate::support::{
    AMAZON_LINUX, COREOS, FLATCAR, LICENSE_KEY, template, values, with_secrets_by_arn, with_secrets_inside,
};
use cloud_config::{Values, check, render};

/// What is right, as it is rendered.
fn right(name: &str) -> String {
    render(&template(name), &with_secrets_inside()).expect("it is right")
}

/// What is said of a text in which something is replaced.
fn said_of(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "{from:?} is not in it:\n{text}");
    check(&text.replacen(from, to, 1)).expect_err(to).to_string()
}

/// The same of a template.
fn said_of_template(name: &str, values: &Values, from: &str, to: &str) -> String {
    let template = template(name);
    assert!(template.contains(from), "{from:?} is not in {name}");
    render(&template.replacen(from, to, 1), values).expect_err(to).to_string()
}

#[track_caller]
fn assert_says(said: &str, expected: &str) {
    assert!(said.lines().any(|line| line.contains(expected)), "expected {expected:?}, and it says:\n{said}");
}

#[test]
fn white_space() {
    for name in [COREOS, AMAZON_LINUX] {
        let text = right(name);
        assert_says(
            &said_of(&text, "#cloud-config\n#", "#cloud-config\n# \n#"),
            "line 2: white space at the end",
        );
        assert_says(&said_of(&text, "    ", "\t"), ": a tab; use spaces");
        assert_says(&said_of(&text, "\n", "\r\n"), "line 1: a carriage return");
        assert_says(&check(text.trim_end()).expect_err("no newline").to_string(), "no newline at the end");
    }
    // In Ignition, where it is encoded. "A=b \n", "A=b\t\n", "A=b\r\n"
    let text = right(FLATCAR);
    for (data, expected) in [
        ("QT1iIAo=", "line 1: white space at the end"),
        ("QT1iCQo=", "line 1: a tab; use spaces"),
        ("QT1iDQo=", "line 1: a carriage return"),
    ] {
        let file = format!(
            "\"files\":[{{\"path\":\"/etc/a\",\"contents\":{{\"source\":\"data:;base64,{data}\"}}}},"
        );
        assert_says(&said_of(&text, "\"files\":[", &file), &format!("/etc/a, {expected}"));
    }
    check(&text.replacen(':', ": \t", 1)).expect("in JSON it says nothing");
    // Of Butane nobody would see it in the Ignition that it becomes.
    let said = said_of_template(FLATCAR, &values(), "ECS_LOGLEVEL=info\n", "ECS_LOGLEVEL=info \n");
    assert_says(&said, ": white space at the end");
    let said = said_of_template(FLATCAR, &values(), "          ECS_LOGLEVEL", "\tECS_LOGLEVEL");
    assert_says(&said, ": a tab; use spaces");
}

#[test]
fn the_first_line() {
    for name in [COREOS, AMAZON_LINUX] {
        let text = right(name);
        for wrong in [
            "# cloud-config",
            "#cloud-config ",
            "#cloudconfig",
            "\n#cloud-config",
            "#Cloud-Config",
            "---\n#cloud-config",
        ] {
            assert_says(
                &said_of(&text, "#cloud-config", wrong),
                "line 1: neither exactly '#cloud-config' nor",
            );
        }
    }
    assert_says(&check("").expect_err("nothing").to_string(), "line 1: neither");
    assert_says(
        &check(&template(FLATCAR)).expect_err("Butane").to_string(),
        "this is Butane, which no host reads",
    );
}

#[test]
fn the_license_key() {
    for (name, before) in [(COREOS, "NRSYSMOND_license_key="), (AMAZON_LINUX, "license_key: ")] {
        let text = right(name);
        let key = format!("{before}{LICENSE_KEY}");
        for (wrong, expected) in [
            (format!("{before}\"{LICENSE_KEY}\""), "New Relic's license key is in quotes"),
            (format!("{before}'{LICENSE_KEY}'"), "New Relic's license key is in quotes"),
            (format!("{before}{}", &LICENSE_KEY[1..]), "New Relic's license key is not one"),
            (format!("{before}YOUR_NEWRELIC_LICENSE_KEY"), "YOUR_NEWRELIC_LICENSE_KEY is left in"),
            ("nothing=".to_owned(), "New Relic's agent is started without a license key"),
        ] {
            let said = said_of(&text, &key, &wrong);
            assert_says(&said, expected);
            assert!(!said.contains(&LICENSE_KEY[1..]), "{said}");
        }
    }
    let missing = said_of(&right(COREOS), &format!("_key={LICENSE_KEY}"), "_key=");
    assert_says(&missing, "newrelic.service, line 8: New Relic's license key is missing");
    // A key that the host is to fetch, and that nothing fetches.
    let said = said_of_template(
        AMAZON_LINUX,
        &with_secrets_by_arn(),
        "YOUR_NEWRELIC_SECRET \"license_key: \"",
        "YOUR_NEWRELIC_SECRET \"licence_key: \"",
    );
    assert_says(&said, "New Relic's agent is started without a license key");
}

#[test]
fn the_cluster() {
    for name in [COREOS, AMAZON_LINUX] {
        let text = right(name);
        assert_says(&said_of(&text, "ECS_CLUSTER=demo", "ECS_CLUSTER="), "ECS_CLUSTER: is empty");
        assert_says(&said_of(&text, "ECS_CLUSTER=demo", "ECS_CLUSTER=\"demo\""), "ECS_CLUSTER: is in quotes");
        assert_says(
            &said_of(&text, "ECS_CLUSTER=demo", "ECS_CLUSTER=YOUR_ECS_CLUSTER"),
            "YOUR_ECS_CLUSTER is left in",
        );
        assert_says(&said_of(&text, "ECS_CLUSTER=demo", "ECS_CLUSTR=demo"), "no ECS_CLUSTER");
        assert_says(
            &said_of(&text, "ECS_CLUSTER=demo", "ECS_CLUSTER=arn:aws:ecs:x"),
            "ECS_CLUSTER: is an ARN",
        );
    }
}

#[test]
fn logins() {
    for name in [COREOS, AMAZON_LINUX] {
        let text = right(name);
        for (from, to, expected) in [
            ("AUTH_TYPE=dockercfg", "AUTH_TYPE=docker", "quay.io: holds no login"),
            ("AUTH_TYPE=dockercfg", "AUTH_TYPE=dockerconfig", "neither 'dockercfg' nor 'docker'"),
            ("ECS_ENGINE_AUTH_TYPE=dockercfg", "OTHER=1", "the type is missing"),
            ("ECS_ENGINE_AUTH_DATA={", "OTHER={", "the data is missing"),
            ("{\"auth\":\"", "{\"auth\":\"!", "quay.io: 'auth' is not base64"),
            ("{\"quay.io\":", "{\"auths\":{\"quay.io\":", "is not the JSON of logins"),
            ("{\"quay.io\":", "{\"docker.io\":", "the ECS agent knows Docker Hub as"),
        ] {
            let said = said_of(&text, from, to);
            assert_says(&said, expected);
            assert!(!said.contains("cm9ib3Q6"), "{said}");
        }
    }
}

#[test]
fn units() {
    let text = right(COREOS);
    for (from, to, expected) in [
        ("Restart=on-failure", "Restrat=on-failure", "Unknown key"),
        ("Restart=on-failure", "Restart=sometimes", "Failed to parse service restart"),
        ("[Service]", "[Servcie]", "Unknown section"),
        ("Requires=docker.service", "Requires=dokcer.service", "dokcer.service not found"),
        ("ExecStart=/usr/bin/docker run", "ExecStrt=/usr/bin/docker run", "has no ExecStart="),
        ("name: amazon-ecs-agent.service", "name: amazon-ecs-agent", "not a unit's name"),
    ] {
        assert_says(&said_of(&text, from, to), expected);
    }
    let text = right(AMAZON_LINUX);
    assert_says(&said_of(&text, "Restart=always", "Restart=allways"), "Failed to parse service restart");
    let said = said_of_template(
        AMAZON_LINUX,
        &with_secrets_by_arn(),
        "ExecStartPre=/usr/local",
        "ExecStartPer=/usr/local",
    );
    assert_says(&said, "Unknown key");
    let said = said_of_template(
        AMAZON_LINUX,
        &with_secrets_by_arn(),
        "ecs.service.d/registry.conf",
        "ecs.service.d/registry",
    );
    assert_says(&said, "does not end in .conf");
    let said = said_of_template(FLATCAR, &values(), "Restart=always", "Restart=allways");
    assert_says(&said, "Failed to parse service restart");
    let said =
        said_of_template(FLATCAR, &values(), "        [Install]\n        WantedBy=multi-user.target\n", "");
    assert_says(&said, "is enabled and has no [Install]");
}

#[test]
fn what_systemd_quotes_shows_no_secret() {
    // It quotes the line that it does not understand.
    let said = said_of(&right(COREOS), "}}'\n", "}}\n");
    assert_says(&said, "amazon-ecs-agent.service:12: ");
    assert_says(&said, "(not shown)");
    assert!(!said.contains("cm9ib3Q6"), "{said}");
}

#[test]
fn what_coreos_cloudinit_would_leave_out() {
    let text = right(COREOS);
    for (from, to, expected) in [
        ("coreos:\n", "coreos:\n  unit: []\n", "unknown field `unit`"),
        ("coreos:\n", "writefiles: []\ncoreos:\n", "unknown field `writefiles`"),
        ("command: start", "comand: start", "unknown field `comand`"),
        ("command: start", "command: strat", "unknown variant `strat`"),
        ("content: |", "contents: |", "unknown field `contents`"),
        ("runtime: true", "runtime: yes", "bool"),
        ("runtime: true", "runtime: true\n      runtime: true", "duplicate"),
        ("    - name: newrelic.service", "   - name: newrelic.service", "line "),
        ("coreos:\n", "write_files:\n  - path: /usr/bin/x\n    content: x\ncoreos:\n", "can't write to /usr"),
        ("coreos:\n", "write_files:\n  - path: x\n    content: x\ncoreos:\n", "not an absolute path"),
        ("coreos:\n", "write_files:\n  - path: /x\n    permissions: rw\ncoreos:\n", "not an octal mode"),
        (
            "coreos:\n",
            "write_files:\n  - path: /x\n    encoding: b64\n    content: '!'\ncoreos:\n",
            "not the base64",
        ),
        ("command: start\n      runtime", "enable: true\n      runtime", "is enabled and has no [Install]"),
        ("command: start\n      runtime", "command: start\n      mask: true\n      runtime", "is masked"),
    ] {
        let said = said_of(&text, from, to);
        assert_says(&said, expected);
        // Nothing of the lines around it, in which there could be a secret.
        assert!(!said.contains(" | "), "{said}");
    }
}

#[test]
fn what_cloud_init_would_leave_out() {
    let text = right(AMAZON_LINUX);
    for (from, to, expected) in [
        ("runcmd:", "runcmds:", "\"runcmds\": cloud-init knows no such key"),
        ("write_files:", "write-files:", "\"write-files\": cloud-init knows no such key"),
        ("permissions: '0600'", "permissions: 0600", "[0600] must be quoted"),
        ("permissions: '0600'", "permission: '0600'", "unknown field `permission`"),
        ("permissions: '0600'", "permissions: 'rw'", "not an octal mode"),
        ("path: /etc/ecs/ecs.config", "path: etc/ecs/ecs.config", "not an absolute path"),
        ("  - [systemctl, daemon-reload]", "  - {systemctl: daemon-reload}", "untagged enum Run"),
    ] {
        assert_says(&said_of(&text, from, to), expected);
    }
}

#[test]
fn what_ignitions_schema_refuses() {
    let text = right(FLATCAR);
    for (from, to, expected) in [
        ("\"files\":", "\"file\":", "unused key: $.storage.file"),
        ("\"mode\":384", "\"mode\":\"0600\"", "invalid type: string \"0600\", expected i64"),
        ("\"mode\":384", "\"mode\":60000", "its mode is not one"),
        ("\"version\":\"3.3.0\"", "\"version\":\"2.3.0\"", "unsupported config version: 2.3.0"),
        ("\"version\":\"3.3.0\"", "\"version\":3", "invalid type: integer `3`, expected a string"),
        ("\"ignition\":", "\"ingition\":", "missing field `ignition`"),
        ("\"contents\":", "\"content\":", "unused key"),
        ("\"path\":\"/etc/ecs", "\"path\":\"etc/ecs", "not an absolute path"),
        ("data:;base64,", "data:;base64,*", "holds no text"),
        ("}}\n", "}\n", "EOF while parsing"),
    ] {
        assert_says(&said_of(&text, from, to), expected);
    }
}

#[test]
fn butane_that_is_not_understood() {
    for (from, to, expected) in [
        ("version: 1.0.0", "version: 9.0.0", "only flatcar 1.0.0 is read here"),
        ("variant: flatcar", "variant: fcos", "only flatcar 1.0.0 is read here"),
        ("systemd:\n", "passwd: {}\nsystemd:\n", "unknown field `passwd`"),
        ("mode: 0600", "mode: 600", "not octal, like 0644"),
        ("enabled: true", "enable: true", "unknown field `enable`"),
        ("inline: |", "inlines: |", "unknown field `inlines`"),
    ] {
        assert_says(&said_of_template(FLATCAR, &values(), from, to), expected);
    }
}

#[test]
fn what_a_template_leaves_in() {
    for name in [COREOS, AMAZON_LINUX] {
        let text = right(name);
        let said = said_of(&text, "#cloud-config\n", "#cloud-config\nhostname: YOUR_HOST_NAME\n");
        assert_says(&said, "line 2: YOUR_HOST_NAME is left in");
        let said = check(&template(name)).expect_err("a template is not filled in").to_string();
        assert_says(&said, "'# if new-relic' is left in; render the template");
    }
    // In Ignition, where it can't be seen.
    let said = said_of_template(FLATCAR, &values(), "ECS_LOGLEVEL=info", "ECS_LOGLEVEL=YOUR_LEVEL");
    assert_says(&said, "/etc/ecs/ecs.config, line 2: YOUR_LEVEL is left in");
}

#[test]
fn sections_and_values_that_do_not_fit_the_template() {
    assert_says(
        &said_of_template(FLATCAR, &values(), "# end secrets", "# end secret"),
        "ends a section that is not",
    );
    assert_says(
        &said_of_template(FLATCAR, &values(), "# if secrets", "# if secret"),
        "there is no such section",
    );
    let said = render(&template(COREOS), &with_secrets_by_arn()).expect_err("it takes no ARNs").to_string();
    assert_says(&said, "the template has no YOUR_REGISTRY_SECRET");
}

#[test]
fn more_than_ec2_takes() {
    // Just as much as it takes, and a byte more.
    let text = right(COREOS);
    let fill = |bytes: usize| format!("{text}# {}\n", "x".repeat(bytes - text.len() - "# \n".len()));
    check(&fill(16 * 1024)).expect("16 KiB are taken");
    let said = check(&fill(16 * 1024 + 1)).expect_err("a byte more").to_string();
    assert_says(&said, "16385 bytes; EC2 takes at most 16384 of user data");
}
