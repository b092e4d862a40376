//! What the tests share: the templates, values for them, and every way of filling a template in.

use std::path::{Path, PathBuf};

use cloud_config::Values;
use cloud_config::auth_data::AuthData;
use cloud_config::values::{ClusterName, NewRelic, Registry};

/// A license key, the base64 of a login, and its password. None is anybody's.
pub(crate) const LICENSE_KEY: &str = "0123456789abcdef0123456789abcdef0123NRAL";
pub(crate) const AUTH: &str = "cm9ib3Q6aHVudGVyMg==";
pub(crate) const DOCKER_CONFIG: &str = r#"{"auths": {"quay.io": {"auth": "cm9ib3Q6aHVudGVyMg=="}}}"#;

pub(crate) const REGISTRY_ARN: &str = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:quay-AbC12d";
pub(crate) const NEW_RELIC_ARN: &str =
    "arn:aws:secretsmanager:eu-west-1:123456789012:secret:new-relic-AbC12d";

pub(crate) const COREOS: &str = "coreos.yaml";
pub(crate) const FLATCAR: &str = "flatcar.bu";
pub(crate) const AMAZON_LINUX: &str = "amazon-linux-2023.yaml";

/// Where the templates are.
pub(crate) fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../cloud-config")
}

pub(crate) fn template(name: &str) -> String {
    let path = directory().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// With nothing but the cluster.
pub(crate) fn values() -> Values {
    Values { cluster: ClusterName::parse("demo").expect("a name"), registry: None, new_relic: None }
}

/// With logins and key in the user data.
pub(crate) fn with_secrets_inside() -> Values {
    Values {
        registry: Some(Registry::AuthData(AuthData::parse(DOCKER_CONFIG).expect("logins"))),
        new_relic: Some(NewRelic::LicenseKey(LICENSE_KEY.parse().expect("a key"))),
        ..values()
    }
}

/// With logins and key in a secret store.
pub(crate) fn with_secrets_by_arn() -> Values {
    Values {
        registry: Some(Registry::Secret(REGISTRY_ARN.parse().expect("an ARN"))),
        new_relic: Some(NewRelic::Secret(NEW_RELIC_ARN.parse().expect("an ARN"))),
        ..values()
    }
}

/// Every way of filling a template in, each with a name.
pub(crate) fn every_way(template: &str) -> Vec<(String, Values)> {
    let takes_arns = template != COREOS;
    let mut ways = Vec::new();
    for registry in ["nothing", "inside", "by arn"] {
        for new_relic in ["nothing", "inside", "by arn"] {
            if !takes_arns && [registry, new_relic].contains(&"by arn") {
                continue;
            }
            let of = |way| match way {
                "nothing" => values(),
                "inside" => with_secrets_inside(),
                _ => with_secrets_by_arn(),
            };
            let name = format!("{template}, registry {registry}, New Relic {new_relic}");
            let way =
                Values { registry: of(registry).registry, new_relic: of(new_relic).new_relic, ..values() };
            ways.push((name, way));
        }
    }
    ways
}
