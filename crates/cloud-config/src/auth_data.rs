//! Logins for registries, in the form that the ECS agent reads: `ECS_ENGINE_AUTH_DATA` of type `dockercfg`.
//!
//! What the agent reads and how it looks a registry up is in its `agent/dockerclient/dockerauth/dockerauth.go`
//! (<https://github.com/aws/amazon-ecs-agent>). It logs a warning about what it can't read, and then pulls without a
//! login; so whatever it would pass over is refused here.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What the agent, and Docker's own client, look Docker Hub's login up by.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The names that the agent takes for Docker Hub in an image's name. As a key it knows only [`DOCKER_HUB`].
const DOCKER_HUB_HOSTS: [&str; 3] = ["docker.io", "index.docker.io", "registry-1.docker.io"];

/// What is wrong with logins. None of these shows a login.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthDataError {
    /// Not JSON, or not of the shape.
    #[error("is not the JSON of logins: Docker's config.json, a .dockercfg, or the ECS agent's own")]
    Json,
    /// No registry in it.
    #[error("holds no login; run 'docker login REGISTRY' first")]
    Empty,
    /// Docker keeps the login somewhere else.
    #[error(
        "holds no login, only the name of the credential store '{0}' that has it; log in with a configuration that \
         names none: DOCKER_CONFIG=$(mktemp -d) docker login REGISTRY"
    )]
    Store(String),
    /// The agent does not know these.
    #[error("{0}: holds a token in place of a user name and password, which the ECS agent can't use")]
    Token(String),
    /// Neither `auth` nor `username` and `password`.
    #[error("{0}: holds no login")]
    NoLogin(String),
    /// `auth` is not base64, in the standard alphabet with padding.
    #[error("{0}: 'auth' is not base64")]
    NotBase64(String),
    /// `auth` is not `user:password`.
    #[error("{0}: 'auth' is not the base64 of 'user:password', or one of the two is empty")]
    NotALogin(String),
    /// A user name with a colon can't be told from its password.
    #[error("{0}: the user name has a colon in it")]
    ColonInUser(String),
    /// A registry's name goes through YAML, systemd and a shell.
    #[error("{0:?}: is not a registry's address")]
    Registry(String),
    /// The agent would look for Docker Hub's login under another name.
    #[error("{0}: the ECS agent knows Docker Hub as '{DOCKER_HUB}' alone")]
    Hub(String),
    /// The agent leaves the scheme out, and would take either of the two.
    #[error("{0}: is in it twice, with and without its scheme")]
    Twice(String),
    /// The agent knows two types.
    #[error("ECS_ENGINE_AUTH_TYPE is neither 'dockercfg' nor 'docker'")]
    Type,
}

/// Logins by registry.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthData(BTreeMap<String, Entry>);

#[derive(Clone, PartialEq, Eq, Serialize)]
struct Entry {
    /// The base64 of `user:password`.
    auth: String,
}

/// A login, in any of the forms. Whatever else is in it says nothing to the agent.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Login {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    identity_token: Option<String>,
    #[serde(rename = "registrytoken")]
    registry_token: Option<String>,
}

impl AuthData {
    /// Reads Docker's config.json, the older .dockercfg, or what is already in the agent's form, of either type.
    ///
    /// # Errors
    ///
    /// What the agent could not use.
    pub fn parse(text: &str) -> Result<Self, AuthDataError> {
        let mut top: Map<String, Value> = serde_json::from_str(text).map_err(|_| AuthDataError::Json)?;
        let store = top.get("credsStore").and_then(Value::as_str).filter(|store| !store.is_empty());
        let store = store.map(str::to_owned);
        let logins = if store.is_some() || top.contains_key("auths") {
            top.remove("auths").unwrap_or_else(|| Value::Object(Map::new()))
        } else {
            Value::Object(top)
        };
        let from_store = |error| match (&store, error) {
            (Some(store), AuthDataError::Empty | AuthDataError::NoLogin(_)) => {
                AuthDataError::Store(store.clone())
            }
            (_, error) => error,
        };
        Self::of(logins_of(logins)?).map_err(from_store)
    }

    fn of(logins: BTreeMap<String, Login>) -> Result<Self, AuthDataError> {
        let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
        for (registry, login) in logins {
            let registry = address(&registry)?;
            let auth = login.auth(&registry)?;
            if entries.keys().any(|known| without_scheme(known) == without_scheme(&registry)) {
                return Err(AuthDataError::Twice(registry));
            }
            entries.insert(registry, Entry { auth });
        }
        if entries.is_empty() { Err(AuthDataError::Empty) } else { Ok(Self(entries)) }
    }

    /// The agent's form, of type `dockercfg`, on one line. Nothing in it means something to YAML's block scalars, to
    /// systemd within single quotes, or to an environment file.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).expect("strings in maps are JSON")
    }
}

impl fmt::Debug for AuthData {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.debug_tuple("AuthData").field(&self.0.keys()).finish()
    }
}

/// Whether the agent can use data as it stands.
///
/// # Errors
///
/// What it could not use.
pub fn accepted(auth_type: &str, data: &str) -> Result<(), AuthDataError> {
    let mut logins = logins_of(serde_json::from_str(data).map_err(|_| AuthDataError::Json)?)?;
    for login in logins.values_mut() {
        // What the agent does not look at in data of this type.
        match auth_type {
            "dockercfg" => (login.username, login.password) = (None, None),
            "docker" => login.auth = None,
            _ => return Err(AuthDataError::Type),
        }
    }
    let hub = logins.keys().find(|registry| is_docker_hub(registry) && *registry != DOCKER_HUB).cloned();
    AuthData::of(logins)?;
    hub.map_or(Ok(()), |registry| Err(AuthDataError::Hub(registry)))
}

fn logins_of(logins: Value) -> Result<BTreeMap<String, Login>, AuthDataError> {
    serde_json::from_value(logins).map_err(|_| AuthDataError::Json)
}

impl Login {
    /// The login as `auth`, checked as the agent reads it.
    fn auth(self, registry: &str) -> Result<String, AuthDataError> {
        let given = |value: Option<String>| value.filter(|value| !value.is_empty());
        let registry = || registry.to_owned();
        if given(self.identity_token).is_some() || given(self.registry_token).is_some() {
            return Err(AuthDataError::Token(registry()));
        }
        if let Some(auth) = given(self.auth) {
            let login = STANDARD.decode(&auth).map_err(|_| AuthDataError::NotBase64(registry()))?;
            return match login.iter().position(|byte| *byte == b':') {
                Some(colon) if colon > 0 && colon + 1 < login.len() => Ok(auth),
                _ => Err(AuthDataError::NotALogin(registry())),
            };
        }
        match (given(self.username), given(self.password)) {
            (Some(user), Some(_)) if user.contains(':') => Err(AuthDataError::ColonInUser(registry())),
            (Some(user), Some(password)) => Ok(STANDARD.encode(format!("{user}:{password}"))),
            _ => Err(AuthDataError::NoLogin(registry())),
        }
    }
}

/// A registry as the agent finds it: Docker Hub by its one name, others as they are.
fn address(registry: &str) -> Result<String, AuthDataError> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:/_-".contains(&byte);
    if without_scheme(registry).is_empty() || !registry.bytes().all(is_plain) {
        return Err(AuthDataError::Registry(registry.to_owned()));
    }
    Ok(if is_docker_hub(registry) { DOCKER_HUB.to_owned() } else { registry.to_owned() })
}

fn is_docker_hub(registry: &str) -> bool {
    let host = without_scheme(registry).split('/').next().unwrap_or_default();
    DOCKER_HUB_HOSTS.contains(&host)
}

fn without_scheme(registry: &str) -> &str {
    registry.strip_prefix("https://").or_else(|| registry.strip_prefix("http://")).unwrap_or(registry)
}

#[cfg(test)]
mod tests {
    use super::*;

    // "robot:secret"
    const ROBOT: &str = "cm9ib3Q6c2VjcmV0";

    fn converted(text: &str) -> String {
        let json = AuthData::parse(text).expect(text).to_json();
        accepted("dockercfg", &json).expect("what comes out is accepted");
        json
    }

    #[test]
    fn every_form_becomes_the_agents() {
        let quay = format!(r#"{{"quay.io":{{"auth":"{ROBOT}"}}}}"#);
        // Docker's config.json, with what else may be in it.
        assert_eq!(
            converted(&format!(
                r#"{{"auths": {{"quay.io": {{"auth": "{ROBOT}", "email": "a b"}}}}, "HttpHeaders": {{}}, "credsStore": ""}}"#
            )),
            quay
        );
        // .dockercfg, which is the agent's own form.
        assert_eq!(converted(&quay), quay);
        // The agent's other type.
        assert_eq!(converted(r#"{"quay.io": {"username": "robot", "password": "secret"}}"#), quay);
        // Docker Hub by any of its names.
        for hub in
            ["docker.io", "https://index.docker.io/v1/", "index.docker.io", "https://registry-1.docker.io"]
        {
            assert_eq!(
                converted(&format!(r#"{{"auths": {{"{hub}": {{"auth": "{ROBOT}"}}}}}}"#)),
                format!(r#"{{"https://index.docker.io/v1/":{{"auth":"{ROBOT}"}}}}"#)
            );
        }
    }

    #[test]
    fn what_the_agent_could_not_use_is_refused() {
        let q = || "quay.io".to_owned();
        for (text, why) in [
            ("", AuthDataError::Json),
            ("[]", AuthDataError::Json),
            (r#"{"quay.io": "x"}"#, AuthDataError::Json),
            ("{}", AuthDataError::Empty),
            (r#"{"auths": {}}"#, AuthDataError::Empty),
            (r#"{"credsStore": "osxkeychain"}"#, AuthDataError::Store("osxkeychain".to_owned())),
            (r#"{"auths": {"quay.io": {}}, "credsStore": "pass"}"#, AuthDataError::Store("pass".to_owned())),
            (r#"{"auths": {"quay.io": {}}}"#, AuthDataError::NoLogin(q())),
            (r#"{"quay.io": {"username": "robot", "password": ""}}"#, AuthDataError::NoLogin(q())),
            (r#"{"quay.io": {"username": "a:b", "password": "c"}}"#, AuthDataError::ColonInUser(q())),
            (r#"{"quay.io": {"auth": "", "identitytoken": "x"}}"#, AuthDataError::Token(q())),
            (r#"{"quay.io": {"auth": "cm9ib3Q6c2VjcmV0!"}}"#, AuthDataError::NotBase64(q())),
            (r#"{"quay.io": {"auth": "cm9ib3Q"}}"#, AuthDataError::NotBase64(q())),
            // "robot", ":secret", "robot:"
            (r#"{"quay.io": {"auth": "cm9ib3Q="}}"#, AuthDataError::NotALogin(q())),
            (r#"{"quay.io": {"auth": "OnNlY3JldA=="}}"#, AuthDataError::NotALogin(q())),
            (r#"{"quay.io": {"auth": "cm9ib3Q6"}}"#, AuthDataError::NotALogin(q())),
            (r#"{"qu ay.io": {"auth": "cm9ib3Q6c2VjcmV0"}}"#, AuthDataError::Registry("qu ay.io".to_owned())),
            (r#"{"https://": {"auth": "cm9ib3Q6c2VjcmV0"}}"#, AuthDataError::Registry("https://".to_owned())),
            (
                r#"{"https://quay.io": {"auth": "cm9ib3Q6c2VjcmV0"}, "quay.io": {"auth": "cm9ib3Q6c2VjcmV0"}}"#,
                AuthDataError::Twice(q()),
            ),
        ] {
            assert_eq!(AuthData::parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn data_as_it_stands_is_judged_by_its_type() {
        let auth = r#"{"quay.io":{"auth":"cm9ib3Q6c2VjcmV0"}}"#;
        let password = r#"{"quay.io":{"username":"robot","password":"secret"}}"#;
        assert_eq!(accepted("dockercfg", auth), Ok(()));
        assert_eq!(accepted("docker", password), Ok(()));
        assert_eq!(accepted("docker", auth), Err(AuthDataError::NoLogin("quay.io".to_owned())));
        assert_eq!(accepted("dockercfg", password), Err(AuthDataError::NoLogin("quay.io".to_owned())));
        assert_eq!(accepted("dockerconfig", auth), Err(AuthDataError::Type));
        // config.json as it is, which the agent would take for a registry called "auths".
        let config = format!(r#"{{"auths":{auth}}}"#);
        assert!(accepted("dockercfg", &config).is_err());
        assert_eq!(
            accepted("dockercfg", r#"{"docker.io":{"auth":"cm9ib3Q6c2VjcmV0"}}"#),
            Err(AuthDataError::Hub("docker.io".to_owned()))
        );
    }

    #[test]
    fn logins_are_not_shown() {
        let data =
            AuthData::parse(r#"{"quay.io":{"username":"robot","password":"secret"}}"#).expect("a login");
        let shown = format!("{data:?}");
        assert!(shown.contains("quay.io") && !shown.contains("cm9ib3Q"), "{shown}");
    }
}
