//! Which registry an image is from, and with what to log in there. Secrets are read when they are needed, and never
//! shown.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bollard::auth::DockerCredentials;
use serde::Deserialize;

use crate::files::{self, Access, FileError};

/// The registry of images that name none.
const DEFAULT_SERVER: &str = "docker.io";
/// Other names of it.
const DEFAULT_SERVER_ALIASES: [&str; 2] = ["index.docker.io", "registry-1.docker.io"];
/// What a login there is called. Engines that keep images in containerd send it nowhere under another name.
const DEFAULT_SERVER_LOGIN: &str = "https://index.docker.io/v1/";
/// What is pulled where an image is named without a tag. (The engine would pull every tag there is.)
const DEFAULT_TAG: &str = "latest";

/// The ways into registries. A registry that none of them is for is asked without a login.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries {
    /// A file as `docker login` keeps it, for those that `logins` has nothing for; read again for each pull. Credential
    /// helpers that it names are not run.
    pub docker_config_file: Option<PathBuf>,
    /// Logins by registry.
    pub logins: Vec<RegistryLogin>,
}

/// The login at one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryLogin {
    /// The registry, as images name it: `host` or `host:port`.
    pub server: String,
    /// Who logs in.
    pub username: String,
    /// With what.
    pub password: Password,
}

/// Where a password is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// Here.
    Given(Secret),
    /// In a file, read again for each pull; white space at its end is cut.
    File(PathBuf),
}

/// A text that no log shows.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Of a text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(redacted)")
    }
}

/// Why there are no credentials where there should be. The text never holds any.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not what it should be.
    #[error("{}: {problem}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong, and how to mend it.
        problem: String,
    },
}

impl Registries {
    /// Reads a docker config file; says whether it names credential helpers, whose logins cannot be used.
    pub fn check_docker_config_file(path: &Path) -> Result<bool, RegistryError> {
        let file = DockerConfigFile::read(path)?;
        for (server, auth) in &file.auths {
            auth.credentials(server).ok_or_else(|| not_a_login(path, server))?;
        }
        Ok(file.creds_store.is_some() || !file.cred_helpers.is_empty())
    }

    /// What to log in with at a registry; `None` where nothing is known of it.
    pub(crate) fn credentials(&self, server: &str) -> Result<Option<DockerCredentials>, RegistryError> {
        let login = self.logins.iter().find(|login| normal(&login.server) == server);
        if let Some(login) = login {
            return Ok(Some(DockerCredentials {
                username: Some(login.username.clone()),
                password: Some(login.password.read()?),
                serveraddress: Some(login_of(server)),
                ..DockerCredentials::default()
            }));
        }
        let Some(path) = &self.docker_config_file else { return Ok(None) };
        DockerConfigFile::read(path)?.credentials(path, server)
    }
}

impl Password {
    /// The password itself. A file is one that its owner, and at most its group, may read.
    pub fn check(&self) -> Result<(), RegistryError> {
        self.read().map(|_| ())
    }

    fn read(&self) -> Result<String, RegistryError> {
        let path = match self {
            Self::Given(secret) => return Ok(secret.0.to_string()),
            Self::File(path) => path,
        };
        let text = String::from_utf8(files::read(path, Access::Private)?)
            .map_err(|_| unfit(path, "is not text in UTF-8; write the password there as text"))?;
        let text = text.trim_end();
        if text.is_empty() {
            return Err(unfit(path, "holds no password; write it there as text"));
        }
        Ok(text.to_owned())
    }
}

/// What Docker's own client keeps, as far as it is used here.
#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerConfigFile {
    auths: BTreeMap<String, DockerAuth>,
    #[serde(rename = "credHelpers")]
    cred_helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerAuth {
    /// `user:password` in base64.
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

impl DockerConfigFile {
    fn read(path: &Path) -> Result<Self, RegistryError> {
        let content = files::read(path, Access::Private)?;
        serde_json::from_slice(&content).map_err(|error| {
            // Its own words may repeat what is in the file.
            let (line, column) = (error.line(), error.column());
            let problem = format!(
                "not a docker config file (line {line}, column {column}): give one as `docker login` writes it"
            );
            unfit(path, problem)
        })
    }

    fn credentials(&self, path: &Path, server: &str) -> Result<Option<DockerCredentials>, RegistryError> {
        let found = self.auths.iter().find(|(name, _)| normal(name) == server).map(|(_, auth)| auth);
        let helped = self.cred_helpers.keys().any(|name| normal(name) == server);
        match found {
            Some(auth) if auth.auth.is_some() || auth.password.is_some() || auth.identitytoken.is_some() => {
                auth.credentials(server).map(Some).ok_or_else(|| not_a_login(path, server))
            }
            Some(auth) if auth.registrytoken.is_some() => Ok(auth.credentials(server)),
            _ if helped || (found.is_some() && self.creds_store.is_some()) => Err(unfit(
                path,
                format!(
                    "a credential helper keeps the login of {server}, and none are run: give a [[registry]] for it"
                ),
            )),
            _ => Ok(None),
        }
    }
}

impl DockerAuth {
    fn credentials(&self, server: &str) -> Option<DockerCredentials> {
        let mut credentials = DockerCredentials {
            username: self.username.clone(),
            password: self.password.clone(),
            identitytoken: self.identitytoken.clone(),
            registrytoken: self.registrytoken.clone(),
            serveraddress: Some(login_of(server)),
            ..DockerCredentials::default()
        };
        if let Some(auth) = self.auth.as_deref().filter(|auth| !auth.is_empty()) {
            let text = String::from_utf8(STANDARD.decode(auth).ok()?).ok()?;
            let (username, password) = text.split_once(':')?;
            credentials.username = Some(username.to_owned());
            credentials.password = Some(password.to_owned());
        }
        Some(credentials)
    }
}

fn not_a_login(path: &Path, server: &str) -> RegistryError {
    unfit(path, format!("the `auth` of {server} is not `user:password` in base64; log in again"))
}

fn unfit(path: &Path, problem: impl Into<String>) -> RegistryError {
    RegistryError::Content { path: path.to_owned(), problem: problem.into() }
}

/// A registry's one name: without scheme and path, which `docker login` keeps for some.
fn normal(server: &str) -> String {
    let server = server.split_once("://").map_or(server, |(_, rest)| rest);
    let server = server.split('/').next().unwrap_or_default();
    let server = if DEFAULT_SERVER_ALIASES.contains(&server) { DEFAULT_SERVER } else { server };
    server.to_ascii_lowercase()
}

/// For whom a login at a registry is, as engines compare it.
fn login_of(server: &str) -> String {
    if server == DEFAULT_SERVER { DEFAULT_SERVER_LOGIN } else { server }.to_owned()
}

/// The registry that an image is pulled from.
pub(crate) fn server_of(image: &str) -> String {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => normal(first),
        _ => DEFAULT_SERVER.to_owned(),
    }
}

/// An image's name without its tag, and the tag or digest that is pulled.
pub(crate) fn tag_of(image: &str) -> (&str, &str) {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    // A colon before the last slash is that of a port.
    let colon = name.rfind(':').filter(|&colon| !name[colon..].contains('/'));
    let (name, tag) = colon.map_or((name, None), |colon| (&name[..colon], Some(&name[colon + 1..])));
    (name, digest.or(tag).unwrap_or(DEFAULT_TAG))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn an_image_names_its_registry_and_its_tag() {
        for (image, server, name, tag) in [
            ("nginx", "docker.io", "nginx", "latest"),
            ("force12/workload:1", "docker.io", "force12/workload", "1"),
            ("index.docker.io/library/nginx", "docker.io", "index.docker.io/library/nginx", "latest"),
            ("localhost/web", "localhost", "localhost/web", "latest"),
            ("127.0.0.1:5000/web", "127.0.0.1:5000", "127.0.0.1:5000/web", "latest"),
            ("R.example.org/a/b:2", "r.example.org", "R.example.org/a/b", "2"),
            ("r.example.org/b@sha256:ab", "r.example.org", "r.example.org/b", "sha256:ab"),
            ("r.example.org/b:2@sha256:ab", "r.example.org", "r.example.org/b", "sha256:ab"),
        ] {
            assert_eq!(server_of(image), server, "{image}");
            assert_eq!(tag_of(image), (name, tag), "{image}");
        }
    }

    fn file(directory: &tempfile::TempDir, content: &str) -> PathBuf {
        let path = directory.path().join("config.json");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }

    fn registries(path: PathBuf) -> Registries {
        Registries { docker_config_file: Some(path), logins: Vec::new() }
    }

    #[test]
    fn a_docker_config_file_is_read_as_docker_login_writes_it() {
        let directory = tempfile::tempdir().unwrap();
        let auth = STANDARD.encode("user:pass:word");
        let registries = registries(file(
            &directory,
            &format!(
                r#"{{"auths": {{"https://index.docker.io/v1/": {{"auth": "{auth}"}},
                    "a.example.org": {{"username": "u", "password": "p"}}, "b.example.org": {{"identitytoken": "t"}}}},
                    "detachKeys": "ctrl-e,e"}}"#
            ),
        ));
        let credentials = |server: &str| registries.credentials(server).unwrap();
        let hub = credentials("docker.io").unwrap();
        assert_eq!((hub.username.as_deref(), hub.password.as_deref()), (Some("user"), Some("pass:word")));
        assert_eq!(hub.serveraddress.as_deref(), Some("https://index.docker.io/v1/"));
        assert_eq!(credentials("a.example.org").unwrap().serveraddress.as_deref(), Some("a.example.org"));
        assert_eq!(credentials("a.example.org").unwrap().password.as_deref(), Some("p"));
        assert_eq!(credentials("b.example.org").unwrap().identitytoken.as_deref(), Some("t"));
        assert!(credentials("c.example.org").is_none());
    }

    #[test]
    fn a_login_of_its_own_comes_before_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let mut registries = registries(file(&directory, r#"{"auths": {"a:1": {"auth": "dTpw"}}}"#));
        registries.logins.push(RegistryLogin {
            server: "https://A:1".to_owned(),
            username: "other".to_owned(),
            password: Password::Given(Secret::new("hunter2")),
        });
        assert_eq!(registries.credentials("a:1").unwrap().unwrap().username.as_deref(), Some("other"));
        assert!(!format!("{registries:?}").contains("hunter2"), "a secret is never shown");
    }

    #[test]
    fn a_file_that_cannot_be_used_says_so_without_its_content() {
        let directory = tempfile::tempdir().unwrap();
        for (content, words) in [
            (r#"{"auths": {"a": {"auth": "hunter2!"}}}"#, "the `auth` of a is not `user:password` in base64"),
            (r#"{"auths": {"a": "hunter2"}}"#, "not a docker config file (line 1, column"),
            ("hunter2", "not a docker config file (line 1, column"),
            (r#"{"credHelpers": {"a": "ecr-login"}}"#, "a credential helper keeps the login of a"),
            (r#"{"auths": {"a": {}}, "credsStore": "pass"}"#, "a credential helper keeps the login of a"),
        ] {
            let error = registries(file(&directory, content)).credentials("a").expect_err(words).to_string();
            assert!(error.contains(words) && !error.contains("hunter2"), "{error}");
        }
        // That it names helpers is not wrong before one of their logins is needed.
        let helped = file(&directory, r#"{"auths": {"a": {}}, "credsStore": "pass"}"#);
        assert!(Registries::check_docker_config_file(&helped).unwrap());
        let path = file(&directory, "{}");
        assert!(!Registries::check_docker_config_file(&path).unwrap());
        assert!(registries(path.clone()).credentials("a").unwrap().is_none());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = registries(path).credentials("a").expect_err("others may read it").to_string();
        assert!(error.contains("too many have access (mode 644)"), "{error}");
    }

    #[test]
    fn a_password_file_is_read_each_time() {
        let directory = tempfile::tempdir().unwrap();
        let path = file(&directory, "one\n");
        let password = Password::File(path.clone());
        assert_eq!(password.read().unwrap(), "one");
        fs::write(&path, "two").unwrap();
        assert_eq!(password.read().unwrap(), "two");
        fs::write(&path, "\n").unwrap();
        assert!(password.check().unwrap_err().to_string().contains("holds no password"));
        fs::write(&path, b"hunter2\xff").unwrap();
        let error = password.check().unwrap_err().to_string();
        assert!(error.contains("is not text in UTF-8") && !error.contains("hunter2"), "{error}");
    }
}
