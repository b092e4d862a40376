//! Who may change something: the operator, by a bearer token, and never a page of someone else's in a browser.
//!
//! [`Operator::layer`] guards the routes that change something. In this order it refuses:
//! - a `Host` that is not one of this service's own names (403): otherwise a page could reach a loopback listener
//!   by a name of its own that resolves to 127.0.0.1;
//! - an `Origin` other than the `Host` that was asked (403);
//! - a missing or wrong token (401); and, with no token configured, everything unless the listener is on loopback (403).

use std::convert::Infallible;
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
use crate::problem::Problem;
use crate::reload::{LOOK_INTERVAL, Watched};
use crate::token::{Secret, TOKEN_FILE_VARIABLE, TokenError, TokenSource};

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

/// Why the operator's token, or the list of hosts, is refused. The text never holds the token.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The token is refused.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// An entry of `allowed_hosts` is not a host.
    #[error("allowed_hosts: {0:?} is not a host; give `name` or `name:port`, without scheme or path")]
    Host(String),
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

    fn take_token(&self, path: &Path, read: Result<Secret, TokenError>) {
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
    fn the_token_is_never_shown() {
        assert!(!format!("{:?}", operator(Some(TOKEN), "127.0.0.1:1", &[])).contains(TOKEN));
    }

    #[test]
    fn allowed_hosts_are_checked() {
        for bad in ["", "http://a", "a/b", "user@a", "a b"] {
            let error = Operator::new(None, "127.0.0.1:1".parse().unwrap(), &[bad.to_owned()]).unwrap_err();
            assert!(error.to_string().starts_with("allowed_hosts: "), "{error}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_token_file_is_read_again_and_an_unfit_one_is_not_taken() {
        // For its owner alone, as these are made.
        let file = NamedTempFile::new().unwrap();
        fs::write(file.path(), TOKEN).unwrap();
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
}
