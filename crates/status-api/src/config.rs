//! The configuration: one TOML file, documented in `example.toml`.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use reqwest::Url;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use service_kit::auth;
use service_kit::client;
use service_kit::config::{ConfigError, Place, Problems};

use crate::history;

/// Of one cluster; one acts, and more than one stand by where a machine is hard to come by.
const SCHEDULERS: RangeInclusive<u64> = 1..=8;
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
    /// Where the scheduler answers: `http://` or `https://`, host and port. Where a cluster has several schedulers, of
    /// which one acts, a list of up to 8; the one that acts is followed, and gets the commands.
    #[serde(deserialize_with = "one_or_more")]
    #[schemars(schema_with = "one_or_more_schema")]
    pub scheduler_url: Vec<String>,
    /// Where demand-rng answers. Without it the demand cannot be played with from here.
    #[serde(default)]
    pub demand_url: Option<String>,
    /// A file of certificates in PEM form: who signs those of the services above over https, beside the public
    /// authorities that are compiled in. Read again when it changes.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
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

/// Where the service listens unless its configuration says otherwise.
pub const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

fn default_listen() -> SocketAddr {
    LISTEN_DEFAULT
}

const fn default_silence_ms() -> u64 {
    5_000
}

/// A configuration that has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// See [`Config::listen`].
    pub listen: SocketAddr,
    /// See [`Config::scheduler_url`]; at least one.
    pub scheduler_urls: Vec<Url>,
    /// See [`Config::demand_url`].
    pub demand_url: Option<Url>,
    /// See [`Config::ca_file`].
    pub ca_file: Option<PathBuf>,
    /// See [`Config::token_file`].
    pub token_file: Option<PathBuf>,
    /// See [`Config::allowed_hosts`].
    pub allowed_hosts: Vec<String>,
    /// See [`Config::silence_ms`].
    pub silence_ms: u64,
    /// See [`Config::history`].
    pub history: history::Limits,
}

impl Settings {
    /// What they do, for people; several lines.
    pub fn in_words(&self) -> String {
        let demand = self.demand_url.as_ref().map_or("it cannot be played with".to_owned(), Url::to_string);
        format!(
            "status-api listens on {}\n  scheduler: {}, not live after {} ms of silence\n  demand: {demand}\n  history: the \
             last {} ms, at most {} samples\n",
            self.listen,
            self.scheduler_urls.iter().map(Url::as_str).collect::<Vec<_>>().join(", "),
            self.silence_ms,
            self.history.window_ms,
            self.history.samples_max
        )
    }
}

/// Reads and checks the file at `path`.
pub fn load(path: &Path) -> Result<Settings, ConfigError> {
    parse(&path.display().to_string(), &service_kit::config::text(path)?)
}

/// Reads and checks `text`, which came from `file`; that is only named in errors.
pub fn parse(file: &str, text: &str) -> Result<Settings, ConfigError> {
    let config: Config = service_kit::config::parse(file, text)?;
    let mut problems = Problems::new(file, text);
    let top = Place::top();
    auth::check_hosts(&config.allowed_hosts, &mut problems);
    problems.range(config.silence_ms, &SILENCE_MS, &top.key("silence_ms"));
    let history = top.key("history");
    problems.range(config.history.window_ms, &WINDOW_MS, &history.key("window_ms"));
    problems.range(config.history.samples_max, &SAMPLES, &history.key("samples_max"));
    let scheduler_urls = scheduler_urls(&config.scheduler_url, &top.key("scheduler_url"), &mut problems);
    let demand_url = config.demand_url.as_ref().map(|text| url(text, &top.key("demand_url"), &mut problems));
    if let Some(path) = &config.ca_file
        && let Err(error) = client::tls(Some(path))
    {
        problems.error(&top.key("ca_file"), error.to_string());
    }
    problems.finish()?;
    Ok(Settings {
        listen: config.listen,
        scheduler_urls,
        demand_url: demand_url.flatten(),
        ca_file: config.ca_file,
        token_file: config.token_file,
        allowed_hosts: config.allowed_hosts,
        silence_ms: config.silence_ms,
        history: history::Limits {
            window_ms: config.history.window_ms,
            samples_max: usize::try_from(config.history.samples_max).unwrap_or(usize::MAX),
        },
    })
}

/// The URLs of a cluster's schedulers; all of them, if there is no problem.
fn scheduler_urls(texts: &[String], place: &Place, problems: &mut Problems<'_>) -> Vec<Url> {
    problems.range(texts.len() as u64, &SCHEDULERS, place);
    let mut urls = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        let place = if texts.len() == 1 { place.clone() } else { place.item(index) };
        let Some(url) = url(text, &place, problems) else { continue };
        if urls.contains(&url) {
            problems.error(&place, "is in the list twice; remove one".to_owned());
        }
        urls.push(url);
    }
    urls
}

/// A text, or a list of texts. By hand, because a derived untagged enum answers every mistake with "did not match any
/// variant".
fn one_or_more<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Texts;

    impl<'de> Visitor<'de> for Texts {
        type Value = Vec<String>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a string, or a list of strings")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(vec![text.to_owned()])
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<String>, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = items.next_element()? {
                texts.push(text);
            }
            Ok(texts)
        }
    }

    deserializer.deserialize_any(Texts)
}

fn one_or_more_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "oneOf": [
            { "type": "string" },
            { "type": "array", "items": { "type": "string" }, "minItems": SCHEDULERS.start(), "maxItems": SCHEDULERS.end() }
        ]
    })
}

/// The URL of a service.
fn url(text: &str, place: &Place, problems: &mut Problems<'_>) -> Option<Url> {
    let example = "give one like \"http://127.0.0.1:8082\"";
    let url = match Url::parse(text) {
        Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => url,
        Ok(url) if url.has_host() => {
            problems.error(
                place,
                format!("the scheme of a service is http or https, not `{}`; {example}", url.scheme()),
            );
            return None;
        }
        _ => {
            problems.error(place, format!("is not the URL of a service; {example}"));
            return None;
        }
    };
    // The text itself is left out: it may hold a password.
    if !url.username().is_empty() || url.password().is_some() {
        problems
            .error(place, "holds a user or a password, which would show in logs; take them out".to_owned());
        return None;
    }
    if url.query().is_some() || url.fragment().is_some() {
        problems
            .error(place, format!("has a query or a fragment, which paths cannot be added to; {example}"));
        return None;
    }
    Some(url)
}

/// The JSON schema of the file.
pub fn schema() -> schemars::Schema {
    schemars::schema_for!(Config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_key_is_enough() {
        let settings = parse("a.toml", "scheduler_url = \"http://127.0.0.1:8082\"").unwrap();
        assert_eq!(settings.listen, LISTEN_DEFAULT);
        assert_eq!((settings.history.window_ms, settings.history.samples_max), (900_000, 20_000));
        let two = "scheduler_url = [\"http://a:1\", \"http://b:1\"]";
        assert_eq!(parse("a.toml", two).unwrap().scheduler_urls.len(), 2);
        for (value, expected) in [
            ("[]", "scheduler_url: 0 is out of range"),
            ("[\"http://a:1\", \"http://a:1/\"]", "scheduler_url[1]: is in the list twice"),
            ("[\"http://a:1\", \"h\"]", "scheduler_url[1]: is not the URL of a service"),
            ("[7]", "scheduler_url[0]: must be text in quotes, not a whole number"),
            ("7", "scheduler_url: "),
        ] {
            let refused = parse("a.toml", &format!("scheduler_url = {value}")).unwrap_err().to_string();
            assert!(refused.contains(expected), "{value}: {refused}");
        }
        assert!(settings.in_words().contains("http://127.0.0.1:8082/, not live after 5000 ms"));
    }
}
