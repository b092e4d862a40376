//! The configuration: one TOML file, documented in `example.toml`.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use reqwest::Url;
use schemars::JsonSchema;
use serde::Deserialize;
use service_kit::config::ConfigError;

use crate::history;

/// Down to a second of history, up to a day.
const WINDOW_MS: RangeInclusive<u64> = 1_000..=86_400_000;
/// Enough for one chart, up to what memory bears.
const SAMPLES: RangeInclusive<u64> = 10..=1_000_000;
/// Longer than a busy scheduler's pause, shorter than anyone would believe a chart that stands still.
const SILENCE_MS: RangeInclusive<u64> = 500..=60_000;

/// The configuration of status-api.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address and port to listen on.
    #[serde(default = "default_listen")]
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Where the scheduler answers: `http://` or `https://`, host and port.
    pub scheduler_url: String,
    /// Where demand-rng answers. Without it the demand cannot be played with from here.
    #[serde(default)]
    pub demand_url: Option<String>,
    /// A file with the operator's token; FORCE12_TOKEN and FORCE12_TOKEN_FILE win over it. Without a token nothing can
    /// be changed from here, unless this service listens on loopback.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Host names by which people reach this service, besides loopback and the address that it listens on.
    #[serde(default)]
    pub allowed_hosts: Vec<String>,
    /// The longest silence of the scheduler before it is asked again, in milliseconds.
    #[serde(default = "default_silence_ms")]
    #[schemars(range(min = 500, max = 60_000))]
    pub silence_ms: u64,
    /// What is kept for the charts.
    #[serde(default)]
    pub history: History,
}

/// What is kept for the charts.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct History {
    /// How far back, in milliseconds.
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub window_ms: u64,
    /// How many samples at most, of which there are 1 to 20 a second. With many services fewer are kept.
    #[schemars(range(min = 10, max = 1_000_000))]
    pub samples_max: u64,
}

impl Default for History {
    /// A quarter of an hour at some 20 samples a second.
    fn default() -> Self {
        Self { window_ms: 900_000, samples_max: 20_000 }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

const fn default_silence_ms() -> u64 {
    5_000
}

/// A configuration that has been checked.
#[derive(Clone, Debug)]
pub struct Settings {
    /// See [`Config::listen`].
    pub listen: SocketAddr,
    /// See [`Config::scheduler_url`].
    pub scheduler_url: Url,
    /// See [`Config::demand_url`].
    pub demand_url: Option<Url>,
    /// See [`Config::token_file`].
    pub token_file: Option<PathBuf>,
    /// See [`Config::allowed_hosts`].
    pub allowed_hosts: Vec<String>,
    /// See [`Config::silence_ms`].
    pub silence_ms: u64,
    /// See [`Config::history`].
    pub history: history::Limits,
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read, or is not what it should be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A value is out of its range.
    #[error("config {file}: {key}: {value} is not from {} to {}", range.start(), range.end())]
    Range {
        /// The file.
        file: String,
        /// The key.
        key: &'static str,
        /// What it holds.
        value: u64,
        /// What it may hold.
        range: RangeInclusive<u64>,
    },
    /// A URL is not one that can be asked.
    #[error(
        "config {file}: {key}: {value:?} is not a URL of a service; give one like \"http://127.0.0.1:8082\", without user, query and fragment"
    )]
    Url {
        /// The file.
        file: String,
        /// The key.
        key: &'static str,
        /// What it holds.
        value: String,
    },
}

/// Reads and checks the file at `path`.
pub fn load(path: &Path) -> Result<Settings, SettingsError> {
    check(&path.display().to_string(), service_kit::config::load(path)?)
}

/// Checks what was read from `file`, which is only named in errors.
pub fn check(file: &str, config: Config) -> Result<Settings, SettingsError> {
    let within = |key, value: u64, range: RangeInclusive<u64>| {
        if range.contains(&value) {
            Ok(value)
        } else {
            Err(SettingsError::Range { file: file.to_owned(), key, value, range })
        }
    };
    let url = |key, value: String| {
        let url = Url::parse(&value).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.password().is_none()
                && url.query().is_none()
                && url.fragment().is_none()
        });
        url.ok_or_else(|| SettingsError::Url { file: file.to_owned(), key, value })
    };
    let samples_max = within("history.samples_max", config.history.samples_max, SAMPLES)?;
    Ok(Settings {
        listen: config.listen,
        scheduler_url: url("scheduler_url", config.scheduler_url)?,
        demand_url: config.demand_url.map(|value| url("demand_url", value)).transpose()?,
        token_file: config.token_file,
        allowed_hosts: config.allowed_hosts,
        silence_ms: within("silence_ms", config.silence_ms, SILENCE_MS)?,
        history: history::Limits {
            window_ms: within("history.window_ms", config.history.window_ms, WINDOW_MS)?,
            samples_max: usize::try_from(samples_max).unwrap_or(usize::MAX),
        },
    })
}

/// The JSON schema of the file.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Config)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let config = service_kit::config::parse::<Config>("a.toml", text).unwrap();
        check("a.toml", config).unwrap_err().to_string()
    }

    #[test]
    fn one_key_is_enough() {
        let config =
            service_kit::config::parse("a.toml", "scheduler_url = \"http://127.0.0.1:8082\"").unwrap();
        let settings = check("a.toml", config).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
        assert_eq!((settings.history.window_ms, settings.history.samples_max), (900_000, 20_000));
    }

    #[test]
    fn what_cannot_work_is_refused_by_name() {
        for url in ["localhost:8082", "ftp://h", "http://user:pw@h", "http://h/?a=b", "unix:///x", ""] {
            let error = refused(&format!("scheduler_url = {url:?}"));
            assert!(
                error.starts_with("config a.toml: scheduler_url: ")
                    && error.contains("http://127.0.0.1:8082"),
                "{error}"
            );
        }
        let error = refused("scheduler_url = \"http://h\"\nhistory = { window_ms = 5 }");
        assert_eq!(error, "config a.toml: history.window_ms: 5 is not from 1000 to 86400000");
        assert!(refused("scheduler_url = \"http://h\"\nsilence_ms = 1").contains("silence_ms"));
    }
}
