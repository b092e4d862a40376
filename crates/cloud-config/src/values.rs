//! What is filled in, each value checked where it comes in.

use std::fmt;
use std::str::FromStr;

use crate::auth_data::AuthData;

/// What a template is filled in with.
#[derive(Debug)]
pub struct Values {
    /// The ECS cluster that the instance joins.
    pub cluster: ClusterName,
    /// The login for a private registry, for all tasks of the instance. None: tasks bring their own, by
    /// `repositoryCredentials` in the task definition, or need none.
    pub registry: Option<Registry>,
    /// Whether New Relic's agent runs beside the tasks, and with whose key.
    pub new_relic: Option<NewRelic>,
}

/// Where an instance has its login for a private registry from.
#[derive(Debug)]
pub enum Registry {
    /// The user data itself.
    AuthData(AuthData),
    /// A secret that holds auth data.
    Secret(SecretArn),
}

/// Where an instance has New Relic's license key from.
#[derive(Debug)]
pub enum NewRelic {
    /// The user data itself.
    LicenseKey(LicenseKey),
    /// A secret that holds the key.
    Secret(SecretArn),
}

impl Values {
    /// What stands for each value in a template, what it is, and the value.
    pub(crate) fn placeholders(&self) -> Vec<(&'static str, &'static str, String)> {
        let mut placeholders = vec![("YOUR_ECS_CLUSTER", "the cluster", self.cluster.0.clone())];
        match &self.registry {
            Some(Registry::AuthData(data)) => {
                placeholders.push(("YOUR_AUTH_DATA", "the registry's login", data.to_json()));
            }
            Some(Registry::Secret(arn)) => {
                placeholders.push(("YOUR_REGISTRY_SECRET", "the registry's secret", arn.0.clone()));
            }
            None => {}
        }
        match &self.new_relic {
            Some(NewRelic::LicenseKey(key)) => {
                placeholders.push(("YOUR_NEWRELIC_LICENSE_KEY", "New Relic's license key", key.0.clone()));
            }
            Some(NewRelic::Secret(arn)) => {
                placeholders.push(("YOUR_NEWRELIC_SECRET", "New Relic's secret", arn.0.clone()));
            }
            None => {}
        }
        placeholders
    }
}

/// A value is not what it should be. Does not show the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ValueError(pub(crate) &'static str);

/// The name of an ECS cluster: 1 to 255 letters, digits, hyphens and underscores
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_CreateCluster.html>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterName(String);

/// The longest name of a cluster, in characters.
const CLUSTER_NAME_MAX: usize = 255;

impl ClusterName {
    /// Takes a name.
    ///
    /// # Errors
    ///
    /// Why it is not one.
    pub fn parse(name: &str) -> Result<Self, ValueError> {
        if name.is_empty() {
            return Err(ValueError("is empty; name the ECS cluster"));
        }
        if is_quoted(name) {
            return Err(ValueError("is in quotes, which would become part of the name; leave them out"));
        }
        if name.starts_with("arn:") {
            return Err(ValueError("is an ARN; give the name, which is what follows 'cluster/'"));
        }
        if name.len() > CLUSTER_NAME_MAX
            || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        {
            return Err(ValueError(
                "is not a cluster's name: 1 to 255 letters, digits, hyphens and underscores",
            ));
        }
        Ok(Self(name.to_owned()))
    }
}

/// New Relic's license key: 40 letters and digits
/// (<https://docs.newrelic.com/docs/apis/intro-apis/new-relic-api-keys/>).
#[derive(Clone, PartialEq, Eq)]
pub struct LicenseKey(String);

/// How long a license key is, in characters.
const LICENSE_KEY_LENGTH: usize = 40;

impl FromStr for LicenseKey {
    type Err = ValueError;

    fn from_str(key: &str) -> Result<Self, ValueError> {
        if key.is_empty() {
            return Err(ValueError("is missing"));
        }
        if is_quoted(key) {
            return Err(ValueError("is in quotes, which would become part of it; leave them out"));
        }
        if key.trim() != key {
            return Err(ValueError("has white space around it"));
        }
        if key.len() != LICENSE_KEY_LENGTH || !key.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(ValueError("is not one: it has 40 letters and digits"));
        }
        Ok(Self(key.to_owned()))
    }
}

impl fmt::Debug for LicenseKey {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("LicenseKey(..)")
    }
}

impl LicenseKey {
    /// The key, for the one place that it goes to.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// The ARN of a secret of AWS Secrets Manager. Not a secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretArn(String);

/// How long an account's number is, in digits.
const ACCOUNT_DIGITS: usize = 12;

impl FromStr for SecretArn {
    type Err = ValueError;

    fn from_str(arn: &str) -> Result<Self, ValueError> {
        let wrong = ValueError(
            "is not the ARN of a secret: arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME, as \
             'aws secretsmanager describe-secret' tells it",
        );
        let is = |part: &str, more: &[u8]| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || more.contains(&byte))
        };
        match arn.split(':').collect::<Vec<_>>().as_slice() {
            ["arn", partition, "secretsmanager", region, account, "secret", name]
                if is(partition, b"-")
                    && is(region, b"-")
                    && account.len() == ACCOUNT_DIGITS
                    && account.bytes().all(|byte| byte.is_ascii_digit())
                    && is(name, b"/_+=.@-") =>
            {
                Ok(Self(arn.to_owned()))
            }
            _ => Err(wrong),
        }
    }
}

/// Whether a value begins or ends with a quote.
pub(crate) fn is_quoted(value: &str) -> bool {
    value.starts_with(['"', '\'']) || value.ends_with(['"', '\''])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_clusters() {
        assert!(ClusterName::parse("Demo-1_b").is_ok());
        assert!(ClusterName::parse(&"a".repeat(255)).is_ok());
        for wrong in
            ["", "\"demo\"", "demo'", "de mo", "demo\n", "démo", "arn:aws:ecs:eu-west-1:1:cluster/demo", "$X"]
        {
            assert!(ClusterName::parse(wrong).is_err(), "{wrong}");
        }
        assert!(ClusterName::parse(&"a".repeat(256)).is_err());
    }

    #[test]
    fn license_keys() {
        let key = "0123456789abcdef0123456789abcdef0123NRAL";
        assert_eq!(key.parse::<LicenseKey>().expect("a key").expose(), key);
        for (wrong, why) in [
            ("", "is missing"),
            (
                "\"0123456789abcdef0123456789abcdef0123NRAL\"",
                "is in quotes, which would become part of it; leave them out",
            ),
            (
                "'0123456789abcdef0123456789abcdef0123NRAL'",
                "is in quotes, which would become part of it; leave them out",
            ),
            ("0123456789abcdef0123456789abcdef0123NRAL ", "has white space around it"),
            ("0123456789abcdef0123456789abcdef0123NRA", "is not one: it has 40 letters and digits"),
            ("0123456789abcdef0123456789abcdef0123NRA-", "is not one: it has 40 letters and digits"),
        ] {
            assert_eq!(wrong.parse::<LicenseKey>().expect_err(wrong).to_string(), why);
        }
        assert_eq!(format!("{:?}", key.parse::<LicenseKey>()), "Ok(LicenseKey(..))");
    }

    #[test]
    fn arns_of_secrets() {
        assert!(
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:quay/login-AbC12d"
                .parse::<SecretArn>()
                .is_ok()
        );
        assert!(
            "arn:aws-us-gov:secretsmanager:us-gov-west-1:123456789012:secret:x".parse::<SecretArn>().is_ok()
        );
        for wrong in [
            "",
            "quay-login",
            "arn:aws:ssm:eu-west-1:123456789012:parameter/quay",
            "arn:aws:secretsmanager:eu-west-1:12345:secret:quay",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:quay login",
            "arn:aws:secretsmanager:eu-west-1:123456789012:secret:quay'; rm -rf /",
            "arn:aws:secretsmanager::123456789012:secret:quay",
        ] {
            assert!(wrong.parse::<SecretArn>().is_err(), "{wrong}");
        }
    }
}
