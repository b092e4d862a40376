//! Who may change something: the operator, by a bearer token, and never a page of someone else's in a browser.
//!
//! [`Operator::layer`] guards the routes that change something. In this order it refuses:
//! - a `Host` that is not one of this service's own names (403): otherwise a page could reach a loopback listener
//!   by a name of its own that resolves to 127.0.0.1;
//! - an `Origin` other than the `Host` that was asked (403);
//! - a missing or wrong token (401); and, with no token configured, everything unless the listener is on loopback (403).

use std::convert::Infallible;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};

use axum::extract::Request;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN};
use axum::http::uri::{Authority, Uri};
use axum::response::{IntoResponse, Response};
use futures_util::future::Either;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tower::{Layer, Service};

use crate::config::{Place, Problems};
use crate::file::{self, Access, FileError};
use crate::problem::Problem;
use crate::reload::{LOOK_INTERVAL, Watched};

/// Holds the token itself.
pub const TOKEN_VARIABLE: &str = "FORCE12_TOKEN";
/// Holds the path of a file with the token.
pub const TOKEN_FILE_VARIABLE: &str = "FORCE12_TOKEN_FILE";

/// The fewest characters of a token: 16 random letters and digits carry more than 80 bits.
pub const TOKEN_MIN_CHARS: usize = 16;
/// The most characters of a token: longer than any that a tool makes, and it fits a header.
pub const TOKEN_MAX_CHARS: usize = 512;
/// The most bytes of a token file, white space included.
const TOKEN_FILE_MAX_BYTES: u64 = 4096;

/// Why the operator's token, or the list of hosts, is refused. The text never holds the token.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The token file is refused.
    #[error("token file {0}")]
    File(#[from] FileError),
    /// What is to be the token cannot be one.
    #[error("{place}: {what}; make one with: openssl rand -hex 32")]
    Unfit {
        /// Where it came from.
        place: String,
        /// What is wrong with it.
        what: String,
    },
    /// An entry of `allowed_hosts` is not a host.
    #[error("allowed_hosts: {0:?} is not a host; give `name` or `name:port`, without scheme or path")]
    Host(String),
}

/// A secret that no log shows: its `Debug` is redacted, and it has no `Display`.
#[derive(Clone)]
pub struct Secret(Arc<str>);

impl Secret {
    /// The secret itself, to be sent and not to be shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Checks what is to be the token: white space at the ends is cut; what is left has [`TOKEN_MIN_CHARS`] to
    /// [`TOKEN_MAX_CHARS`] visible ASCII characters. `place` is where it came from, for the error.
    pub fn token(text: &str, place: &str) -> Result<Self, AuthError> {
        let text = text.trim();
        let unfit = |what: String| AuthError::Unfit { place: place.to_owned(), what };
        if text.is_empty() {
            return Err(unfit("the token is empty".to_owned()));
        }
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(unfit(
                "the token holds white space or characters other than visible ASCII".to_owned(),
            ));
        }
        if !(TOKEN_MIN_CHARS..=TOKEN_MAX_CHARS).contains(&text.len()) {
            return Err(unfit(format!(
                "the token has {} characters, it must have {TOKEN_MIN_CHARS} to {TOKEN_MAX_CHARS}",
                text.len()
            )));
        }
        Ok(Self(text.into()))
    }

    /// Reads a token from a file that its owner, and at most its group, may read, and its owner alone may change.
    pub fn token_from_file(path: &Path) -> Result<Self, AuthError> {
        let content = file::read(path, TOKEN_FILE_MAX_BYTES, Access::Private)?;
        // What is no UTF-8 is no ASCII either, and is refused as that.
        Self::token(&String::from_utf8_lossy(&content), &format!("token file {}", path.display()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(redacted)")
    }
}

/// Where the operator's token may come from; the first of the three that is given counts.
#[derive(Clone, Debug, Default)]
pub struct TokenSource {
    /// What `FORCE12_TOKEN` holds.
    pub value: Option<Secret>,
    /// What `FORCE12_TOKEN_FILE` holds.
    pub file: Option<PathBuf>,
    /// The config's `token_file`.
    pub config_file: Option<PathBuf>,
}

impl TokenSource {
    /// From this process's environment, then the config's key.
    pub fn from_env(config_file: Option<&Path>) -> Self {
        let value = std::env::var(TOKEN_VARIABLE).ok().map(|value| Secret(value.into()));
        let file = std::env::var_os(TOKEN_FILE_VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        Self { value, file, config_file: config_file.map(Path::to_owned) }
    }

    /// The file that the token comes from, if it comes from one.
    fn path(&self) -> Option<&Path> {
        if self.value.is_some() { None } else { self.file.as_deref().or(self.config_file.as_deref()) }
    }

    /// The token, or `None` if none is configured. A source that is given and unfit is an error, never skipped.
    pub fn read(&self) -> Result<Option<Secret>, AuthError> {
        if let Some(value) = &self.value {
            return Secret::token(value.expose(), TOKEN_VARIABLE).map(Some);
        }
        self.path().map(Secret::token_from_file).transpose()
    }
}

/// An entry of `allowed_hosts`, if it is one.
fn host_of(text: &str) -> Option<Authority> {
    let authority: Authority = text.parse().ok()?;
    let port_fits = authority.as_str() == authority.host() || authority.port_u16().is_some();
    (port_fits && !authority.as_str().contains('@') && !authority.host().is_empty()).then_some(authority)
}

/// Reports each entry of a config's `allowed_hosts` that is not a host.
pub fn check_hosts(allowed_hosts: &[String], problems: &mut Problems<'_>) {
    for (index, host) in allowed_hosts.iter().enumerate() {
        if host_of(host).is_none() {
            problems.error(
                &Place::top().key("allowed_hosts").item(index),
                format!("{host:?} is not a host; give `name` or `name:port`, without scheme or path"),
            );
        }
    }
}

/// Decides who may change something. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Operator(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    /// Compared in place of the tokens: of equal length whatever is sent.
    token_sha256: RwLock<Option<[u8; 32]>>,
    /// The file that the token comes from, if it comes from one.
    token_file: Option<PathBuf>,
    listen: SocketAddr,
    /// Lower case, each `host` or `host:port`.
    allowed_hosts: Vec<String>,
}

impl Operator {
    /// With the token from the environment (`FORCE12_TOKEN`, `FORCE12_TOKEN_FILE`) or else `token_file`, none of
    /// which is allowed too; `listen` is where the service listens.
    pub fn from_config(
        token_file: Option<&Path>,
        listen: SocketAddr,
        allowed_hosts: &[String],
    ) -> Result<Self, AuthError> {
        let source = TokenSource::from_env(token_file);
        Self::of(source.read()?.as_ref(), source.path(), listen, allowed_hosts)
    }

    /// With this token.
    pub fn new(
        token: Option<&Secret>,
        listen: SocketAddr,
        allowed_hosts: &[String],
    ) -> Result<Self, AuthError> {
        Self::of(token, None, listen, allowed_hosts)
    }

    fn of(
        token: Option<&Secret>,
        token_file: Option<&Path>,
        listen: SocketAddr,
        allowed_hosts: &[String],
    ) -> Result<Self, AuthError> {
        let allowed_hosts = allowed_hosts
            .iter()
            .map(|host| {
                let authority = host_of(host).ok_or_else(|| AuthError::Host(host.clone()))?;
                Ok(authority.as_str().to_ascii_lowercase())
            })
            .collect::<Result<_, AuthError>>()?;
        let token_sha256 = RwLock::new(token.map(|token| sha256(token.expose())));
        let token_file = token_file.map(Path::to_owned);
        Ok(Self(Arc::new(Rules { token_sha256, token_file, listen, allowed_hosts })))
    }

    /// Reads the token's file again when it changes, for ever: another token holds from then on. If the file is unfit,
    /// or gone, the token before holds on, and the log says so.
    pub async fn follow_token(self) -> Infallible {
        let Some(path) = &self.0.token_file else { return std::future::pending().await };
        let mut watched = Watched::unseen(path);
        loop {
            if let (_, Some(read)) = watched.look(false, Secret::token_from_file).await {
                self.take_token(path, read);
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    fn take_token(&self, path: &Path, read: Result<Secret, AuthError>) {
        match read {
            Ok(token) => {
                let read = Some(sha256(token.expose()));
                let mut held = self.0.token_sha256.write().unwrap_or_else(PoisonError::into_inner);
                if std::mem::replace(&mut *held, read) != read {
                    tracing::info!(file = %path.display(), "another operator's token holds from now on");
                }
            }
            Err(error) => tracing::error!("the operator's token is as before: {error}"),
        }
    }

    /// Guards routes: what it refuses never reaches them, nor is its body read.
    pub fn layer(&self) -> OperatorLayer {
        OperatorLayer(self.clone())
    }

    /// Whether a request with these headers may change something.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let rules = &*self.0;
        let asked = rules.check_host(headers)?;
        rules.check_origin(headers, &asked)?;
        rules.check_token(headers)
    }
}

impl Rules {
    /// The host that was asked, if it is one of ours.
    fn check_host(&self, headers: &HeaderMap) -> Result<Authority, Problem> {
        let mut values = headers.get_all(HOST).iter();
        let (Some(host), None) = (values.next(), values.next()) else {
            return Err(Problem::bad_request("send exactly one Host header"));
        };
        let asked: Authority = host
            .to_str()
            .ok()
            .and_then(|host| host.parse().ok())
            .ok_or_else(|| Problem::bad_request("the Host header is not a host"))?;
        if self.is_ours(&asked) {
            return Ok(asked);
        }
        Err(Problem::forbidden(format!(
            "host {:?} is not one of this service's names; ask by its address, or add the name to allowed_hosts in its config",
            asked.as_str()
        ))
        .with_code("foreign-host"))
    }

    fn is_ours(&self, asked: &Authority) -> bool {
        let host = asked.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host == "localhost" {
            return true;
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            // Bound to every address, each is its own: only a name can be made to point somewhere else.
            if address.is_loopback() || address == self.listen.ip() || self.listen.ip().is_unspecified() {
                return true;
            }
        }
        self.is_allowed(asked)
    }

    fn is_allowed(&self, asked: &Authority) -> bool {
        self.allowed_hosts.iter().any(|allowed| {
            allowed.eq_ignore_ascii_case(asked.as_str()) || allowed.eq_ignore_ascii_case(asked.host())
        })
    }

    /// A browser says which page a request comes from; a page of our own comes from the host that it asks.
    fn check_origin(&self, headers: &HeaderMap, asked: &Authority) -> Result<(), Problem> {
        for origin in headers.get_all(ORIGIN) {
            let authority = origin
                .to_str()
                .ok()
                .and_then(|origin| origin.parse::<Uri>().ok())
                .and_then(|uri| uri.authority().cloned());
            let ours = authority.is_some_and(|origin| {
                origin.as_str().eq_ignore_ascii_case(asked.as_str()) || self.is_allowed(&origin)
            });
            if !ours {
                return Err(Problem::forbidden(format!(
                    "origin {origin:?} is not this service's own; open its page by the address that it asks, or add the host to allowed_hosts in its config"
                ))
                .with_code("foreign-origin"));
            }
        }
        Ok(())
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(wanted) = *self.token_sha256.read().unwrap_or_else(PoisonError::into_inner) else {
            if self.listen.ip().is_loopback() {
                return Ok(());
            }
            return Err(Problem::forbidden(format!(
                "no operator token is configured, and this service listens beyond loopback: set {TOKEN_FILE_VARIABLE} (or token_file in its config) to a file with a token and start it again"
            ))
            .with_code("no-token-configured"));
        };
        let mut values = headers.get_all(AUTHORIZATION).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(Problem::unauthorized("send the operator's token: `authorization: Bearer TOKEN`"));
        };
        let given = value
            .to_str()
            .ok()
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, given)) = given else {
            return Err(Problem::unauthorized("the authorization header is not `Bearer TOKEN`"));
        };
        if bool::from(sha256(given.trim()).ct_eq(&wanted)) {
            Ok(())
        } else {
            Err(Problem::unauthorized("this is not the operator's token"))
        }
    }
}

fn sha256(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// See [`Operator::layer`].
#[derive(Clone, Debug)]
pub struct OperatorLayer(Operator);

impl<S> Layer<S> for OperatorLayer {
    type Service = OperatorService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        OperatorService { operator: self.0.clone(), inner }
    }
}

/// A service that only the operator reaches.
#[derive(Clone, Debug)]
pub struct OperatorService<S> {
    operator: Operator,
    inner: S,
}

impl<S> Service<Request> for OperatorService<S>
where
    S: Service<Request, Response = Response>,
{
    type Response = Response;
    type Error = S::Error;
    type Future = Either<S::Future, std::future::Ready<Result<Response, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        match self.operator.check(request.headers()) {
            Ok(()) => Either::Left(self.inner.call(request)),
            Err(problem) => Either::Right(std::future::ready(Ok(problem.into_response()))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;

    use axum::http::{HeaderName, HeaderValue};
    use tempfile::NamedTempFile;

    use super::*;

    const TOKEN: &str = "0123456789abcdef";

    fn operator(token: Option<&str>, listen: &str, allowed: &[&str]) -> Operator {
        let token = token.map(|token| Secret::token(token, "test").unwrap());
        let allowed: Vec<_> = allowed.iter().map(|host| (*host).to_owned()).collect();
        Operator::new(token.as_ref(), listen.parse().unwrap(), &allowed).unwrap()
    }

    /// The status and the sentence, 200 for what is let through.
    fn checked(operator: &Operator, headers: &[(HeaderName, &str)]) -> (u16, String) {
        let headers = headers
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_str(value).unwrap()))
            .collect::<Vec<_>>();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value);
        }
        match operator.check(&map) {
            Ok(()) => (200, String::new()),
            Err(problem) => (problem.status().as_u16(), problem.detail().unwrap_or_default().to_owned()),
        }
    }

    fn status(operator: &Operator, headers: &[(HeaderName, &str)]) -> u16 {
        checked(operator, headers).0
    }

    #[test]
    fn the_token_is_asked_for() {
        let operator = operator(Some(TOKEN), "127.0.0.1:8081", &[]);
        let host = (HOST, "localhost:8081");
        for (authorization, wanted) in [
            ("Bearer 0123456789abcdef", 200),
            ("bearer 0123456789abcdef", 200),
            ("Bearer 0123456789abcdeF", 401),
            ("Bearer 0123456789abcde", 401),
            ("Bearer 0123456789abcdef0", 401),
            ("Bearer ", 401),
            ("Bearer", 401),
            ("Basic 0123456789abcdef", 401),
            ("0123456789abcdef", 401),
        ] {
            assert_eq!(
                status(&operator, &[host.clone(), (AUTHORIZATION, authorization)]),
                wanted,
                "{authorization}"
            );
        }
        assert_eq!(status(&operator, std::slice::from_ref(&host)), 401);
        let twice = (AUTHORIZATION, "Bearer 0123456789abcdef");
        assert_eq!(status(&operator, &[host, twice.clone(), twice]), 401);
    }

    #[test]
    fn without_a_token_only_loopback_may_change() {
        let host = (HOST, "127.0.0.1");
        assert_eq!(status(&operator(None, "127.0.0.1:8081", &[]), std::slice::from_ref(&host)), 200);
        assert_eq!(status(&operator(None, "[::1]:8081", &[]), std::slice::from_ref(&host)), 200);
        let (status, detail) = checked(&operator(None, "0.0.0.0:8081", &[]), &[host]);
        assert_eq!(status, 403);
        assert!(detail.contains("set FORCE12_TOKEN_FILE (or token_file in its config)"), "{detail}");
    }

    #[test]
    fn a_foreign_host_is_refused() {
        let loopback = operator(None, "127.0.0.1:8081", &["Demand-RNG", "demo.example:8443"]);
        for (host, wanted) in [
            ("localhost", 200),
            ("LOCALHOST:8081", 200),
            ("127.0.0.1:9999", 200),
            ("127.8.8.8", 200),
            ("[::1]:8081", 200),
            ("demand-rng:8081", 200),
            ("demo.example:8443", 200),
            ("demo.example", 403),
            ("localhost.evil.example", 403),
            ("evil.example:8081", 403),
            ("10.0.0.7", 403),
            ("no host", 400),
        ] {
            assert_eq!(status(&loopback, &[(HOST, host)]), wanted, "{host}");
        }
        assert_eq!(status(&loopback, &[]), 400);
        assert_eq!(status(&loopback, &[(HOST, "localhost"), (HOST, "localhost")]), 400);

        let bearer = (AUTHORIZATION, "Bearer 0123456789abcdef");
        let everywhere = operator(Some(TOKEN), "0.0.0.0:8081", &[]);
        assert_eq!(status(&everywhere, &[(HOST, "10.0.0.7:8081"), bearer.clone()]), 200);
        assert_eq!(status(&everywhere, &[(HOST, "evil.example"), bearer.clone()]), 403);
        let one = operator(Some(TOKEN), "10.0.0.7:8081", &[]);
        assert_eq!(status(&one, &[(HOST, "10.0.0.7:8081"), bearer.clone()]), 200);
        assert_eq!(status(&one, &[(HOST, "10.0.0.8:8081"), bearer]), 403);
    }

    #[test]
    fn a_foreign_origin_is_refused() {
        let operator = operator(None, "127.0.0.1:8081", &["demo.example"]);
        for (origin, wanted) in [
            ("http://localhost:8081", 200),
            ("https://demo.example", 200),
            ("http://localhost:3000", 403),
            ("http://127.0.0.1:8081", 403),
            ("https://evil.example", 403),
            ("null", 403),
            ("", 403),
        ] {
            assert_eq!(status(&operator, &[(HOST, "localhost:8081"), (ORIGIN, origin)]), wanted, "{origin}");
        }
    }

    #[test]
    fn allowed_hosts_are_checked() {
        for bad in ["", "http://a", "a/b", "user@a", "a b"] {
            let error = Operator::new(None, "127.0.0.1:1".parse().unwrap(), &[bad.to_owned()]).unwrap_err();
            assert!(error.to_string().starts_with("allowed_hosts: "), "{error}");
        }
    }

    fn token_file(text: &str, mode: u32) -> NamedTempFile {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    #[test]
    fn a_token_file_is_for_its_owner_and_at_most_its_group_to_read() {
        for mode in [0o600, 0o400, 0o640, 0o440] {
            let file = token_file(" 0123456789abcdef\n", mode);
            assert_eq!(Secret::token_from_file(file.path()).unwrap().expose(), TOKEN, "{mode:03o}");
        }
        for mode in [0o604, 0o444, 0o644, 0o610, 0o620, 0o660, 0o666] {
            let file = token_file(TOKEN, mode);
            let error = Secret::token_from_file(file.path()).unwrap_err().to_string();
            let wanted = format!("(mode {mode:03o}); run: chmod 600 '{}', or mount", file.path().display());
            assert!(error.contains(&wanted) && error.contains("defaultMode: 0440"), "{error}");
        }
        assert!(matches!(
            Secret::token_from_file(Path::new("/")),
            Err(AuthError::File(FileError::NotAFile(_)))
        ));
        assert!(matches!(
            Secret::token_from_file(Path::new("/nonexistent")),
            Err(AuthError::File(FileError::Read { .. }))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_token_file_is_read_again_and_an_unfit_one_is_not_taken() {
        let file = token_file(TOKEN, 0o600);
        let source = TokenSource { config_file: Some(file.path().to_owned()), ..TokenSource::default() };
        let listen = "127.0.0.1:8081".parse().unwrap();
        let operator = Operator::of(source.read().unwrap().as_ref(), source.path(), listen, &[]).unwrap();
        let following = tokio::spawn(operator.clone().follow_token());
        let allowed = |token: &str| {
            let bearer = format!("Bearer {token}");
            status(&operator, &[(HOST, "localhost"), (AUTHORIZATION, bearer.as_str())]) == 200
        };
        let another = "fedcba9876543210fedcba";
        for (text, holds, holds_not) in [
            (TOKEN, TOKEN, another),
            ("short", TOKEN, "short"),
            (another, another, TOKEN),
            ("", another, TOKEN),
        ] {
            fs::write(file.path(), text).unwrap();
            tokio::time::sleep(LOOK_INTERVAL * 2).await;
            assert!(allowed(holds) && !allowed(holds_not), "after {text:?}");
        }
        fs::remove_file(file.path()).unwrap();
        tokio::time::sleep(LOOK_INTERVAL * 2).await;
        assert!(allowed(another), "it is not open to all without its file");
        following.abort();
    }

    #[test]
    fn an_unfit_token_is_refused_and_never_shown() {
        for text in ["", " \n", "short-secret", "sixteen secret ch", "sécret-sécret-sécret", &"x".repeat(513)]
        {
            let error = Secret::token(text, "FORCE12_TOKEN").unwrap_err().to_string();
            assert!(error.starts_with("FORCE12_TOKEN: the token "), "{error}");
            assert!(text.trim().is_empty() || !error.contains(text.trim()), "{error}");
        }
        let secret = Secret::token(TOKEN, "test").unwrap();
        assert!(!format!("{secret:?} {:?}", operator(Some(TOKEN), "127.0.0.1:1", &[])).contains(TOKEN));
    }

    #[test]
    fn the_environment_comes_before_the_config_and_is_never_skipped() {
        let file = token_file("of-the-variables-file", 0o600);
        let config_file = token_file("of-the-configs-file", 0o600);
        let mut source = TokenSource {
            value: Some(Secret("of-the-variable-itself".into())),
            file: Some(file.path().to_owned()),
            config_file: Some(config_file.path().to_owned()),
        };
        let read =
            |source: &TokenSource| source.read().map(|token| token.map(|token| token.expose().to_owned()));
        assert_eq!(read(&source).unwrap().unwrap(), "of-the-variable-itself");
        source.value = Some(Secret("".into()));
        assert!(read(&source).is_err());
        source.value = None;
        assert_eq!(read(&source).unwrap().unwrap(), "of-the-variables-file");
        source.file = None;
        assert_eq!(read(&source).unwrap().unwrap(), "of-the-configs-file");
        source.config_file = None;
        assert_eq!(read(&source).unwrap(), None);
    }
}
