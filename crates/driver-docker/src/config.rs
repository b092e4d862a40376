//! What a driver is told: which engine, which cluster, which instances, which limits.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use planner::Resources;

use crate::registry::Registries;
use crate::tls::TlsFiles;

/// What a [`crate::DockerDriver`] is made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerConfig {
    /// Where the engine answers.
    pub engine: EngineAddress,
    /// TLS to it, over TCP.
    pub tls: Option<TlsFiles>,
    /// The cluster whose containers these are; part of their names and labels.
    pub cluster: String,
    /// The instances on this engine.
    pub instances: Vec<DockerInstance>,
    /// The ways into registries, for images that are pulled.
    pub registries: Registries,
    /// The bounds of what is asked of the engine.
    pub limits: Limits,
}

/// One instance of the pool: the engine, or a share of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerInstance {
    /// Its name.
    pub name: String,
    /// What it has. An engine reports the whole machine, so this is configured, never read.
    pub capacity: Resources,
}

/// The bounds of what is asked of one engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Calls that change something, at once; at least 1. Default [`Limits::PARALLEL_CALLS`].
    pub parallel_calls: usize,
    /// Stops at once, each of which holds a connection until its container has ended or its grace is over; at least 1.
    /// Default [`Limits::PARALLEL_STOPS`].
    pub parallel_stops: usize,
    /// Milliseconds to connect over TCP. Default 1,000.
    pub connect_ms: u64,
    /// Milliseconds for a whole observation, and for any other question. Default 2,500: less than the default
    /// time after which a silent instance counts as lost.
    pub observe_ms: u64,
    /// Milliseconds for one call that changes something, and for a container to end after SIGKILL. Default
    /// 30,000: a busy machine takes many times the usual 0.2 s for a start, and a call that is given up too
    /// early is one whose outcome is unknown. A call's wait for its turn is not part of it.
    pub change_ms: u64,
    /// Milliseconds without progress after which a pull is given up. Default 120,000: more than an engine waits for a
    /// registry that does not answer, or is silent over a large layer.
    pub pull_stall_ms: u64,
    /// Milliseconds for which a pull keeps its turn, of which there are few; what takes longer goes on without one, and
    /// the next begins beside it. Default 120,000: most images are there by then. One that is not is large, and the
    /// others are not to wait for all of it, or it is slow, and leaves the line to others.
    pub pull_turn_ms: u64,
    /// Milliseconds that a start or thaw waits for its `after`. Default 60,000; it should exceed the longest grace
    /// of any container that room is taken from. Waiting costs nothing.
    pub after_ms: u64,
}

impl Limits {
    /// The default of [`Limits::parallel_calls`]. The engine does most of its work in turn, so that more would
    /// only queue inside it; fewer, and the machine idles while a call waits for the kernel.
    pub const PARALLEL_CALLS: usize = 16;
    /// The default of [`Limits::parallel_stops`]: far more than an engine gets done in a second, and far fewer than the
    /// 1,024 files that a process may usually have open.
    pub const PARALLEL_STOPS: usize = 128;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            parallel_calls: Self::PARALLEL_CALLS,
            parallel_stops: Self::PARALLEL_STOPS,
            connect_ms: 1_000,
            observe_ms: 2_500,
            change_ms: 30_000,
            pull_stall_ms: 120_000,
            pull_turn_ms: 120_000,
            after_ms: 60_000,
        }
    }
}

/// Where an engine answers: `unix:///path/to/docker.sock`, or `tcp://host:port`, with or without TLS.
///
/// `http://` and `https://` are read as `tcp://`; whether there is TLS is said by [`DockerConfig::tls`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EngineAddress {
    /// A socket in the file system.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// An engine's address that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("engine address {given:?}: {problem}")]
pub struct EngineAddressError {
    given: String,
    problem: &'static str,
}

impl EngineAddress {
    /// What whoever configured this without TLS should know, if anything: over TCP the engine's API goes unencrypted, and
    /// whoever reaches it is root on its host.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let Self::Tcp(authority) = self else { return None };
        let host = authority.rsplit_once(':').map_or(authority.as_str(), |(host, _)| host);
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        let is_loopback = address.map_or(host == "localhost", |address| address.is_loopback());
        (!is_loopback).then(|| {
            format!(
                "engine {self} is spoken to without encryption, and whoever can connect to it is root on its host: \
                 set up TLS (tls = {{ … }}), or keep it on a network that nobody else reaches"
            )
        })
    }
}

impl FromStr for EngineAddress {
    type Err = EngineAddressError;

    fn from_str(given: &str) -> Result<Self, Self::Err> {
        // What stands before an `@` may be a password.
        let shown = given.rsplit_once('@').map_or(given.to_owned(), |(_, host)| format!("…@{host}"));
        let refused = |problem| EngineAddressError { given: shown.clone(), problem };
        match given.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("unix", _)) => {
                Err(refused("the path has to be absolute, as in unix:///var/run/docker.sock"))
            }
            Some(("tcp" | "http" | "https", authority)) => {
                let authority = authority.strip_suffix('/').unwrap_or(authority);
                let port =
                    authority.rsplit_once(':').map(|(host, port)| (!host.is_empty(), port.parse::<u16>()));
                match port {
                    Some((true, Ok(port))) if port > 0 && !authority.contains(['@', '/', '?', '#', ' ']) => {
                        Ok(Self::Tcp(authority.to_owned()))
                    }
                    _ => Err(refused("write host and port and nothing else, as in tcp://10.0.0.7:2375")),
                }
            }
            _ => Err(refused("write unix:///path/to/docker.sock or tcp://host:port")),
        }
    }
}

impl fmt::Display for EngineAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(formatter, "unix://{}", path.display()),
            Self::Tcp(authority) => write!(formatter, "tcp://{authority}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (given, shown) in [
            ("unix:///var/run/docker.sock", "unix:///var/run/docker.sock"),
            ("tcp://10.0.0.7:2375", "tcp://10.0.0.7:2375"),
            ("http://engine-1:2375/", "tcp://engine-1:2375"),
            ("https://engine-1:2376", "tcp://engine-1:2376"),
            ("tcp://[::1]:2375", "tcp://[::1]:2375"),
        ] {
            let address: EngineAddress = given.parse().expect(given);
            assert_eq!(address.to_string(), shown);
            assert_eq!(shown.parse(), Ok(address));
        }
    }

    #[test]
    fn a_way_that_others_may_read_is_warned_of() {
        for (given, warned) in [
            ("unix:///var/run/docker.sock", false),
            ("tcp://127.0.0.1:2375", false),
            ("http://127.8.8.8:2375", false),
            ("tcp://[::1]:2375", false),
            ("tcp://localhost:2375", false),
            ("tcp://10.0.0.7:2375", true),
            ("http://engine-1:2375", true),
            ("tcp://[fd00::7]:2376", true),
            ("tcp://127.0.0.1.example.com:2375", true),
        ] {
            let address: EngineAddress = given.parse().expect(given);
            let warning = address.warning();
            assert_eq!(warning.is_some(), warned, "{given}: {warning:?}");
            assert!(warning.is_none_or(|warning| warning.contains(&format!("engine {address} "))));
        }
    }

    #[test]
    fn addresses_that_cannot_be_used_say_what_to_write() {
        for given in [
            "",
            "/var/run/docker.sock",
            "unix://var/run/docker.sock",
            "tcp://engine",
            "tcp://:2375",
            "tcp://engine:0",
            "tcp://engine:99999",
            "tcp://user:secret@engine:2375",
            "tcp://engine:2375/path:1",
            "ssh://engine:22",
        ] {
            let error = given.parse::<EngineAddress>().expect_err(given).to_string();
            assert!(error.starts_with("engine address \"") && !error.contains("secret"), "{error}");
        }
    }
}
