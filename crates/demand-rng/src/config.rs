//! The config file.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use api_types::generator::{Generator, GeneratorChange, Pattern};
use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;
use service_kit::config::ConfigError;

use crate::pattern;

/// Where the service listens unless the config says otherwise.
pub(crate) const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// The most keys: the document stays well under what a demand feed reads.
const KEYS_MAX: usize = 1_000;
/// The most characters of a key.
const KEY_MAX_CHARS: usize = 64;

/// Why a config is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error(transparent)]
    File(#[from] ConfigError),
    #[error("config {file}: {what}")]
    Value { file: String, what: String },
}

/// What the service runs with.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) allowed_hosts: Vec<String>,
    /// By key, in the order of the file.
    pub(crate) generators: Vec<(String, Generator)>,
}

/// The configuration of demand-rng: a demand source that rolls dice.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(title = "demand-rng")]
struct Toml {
    /// Address and port to listen on.
    #[serde(default = "listen_default")]
    #[schemars(with = "String", extend("default" = "127.0.0.1:8081"))]
    listen: SocketAddr,
    /// File with the operator's token (mode 600), which the PUTs and the DELETE ask for. The environment's
    /// FORCE12_TOKEN and FORCE12_TOKEN_FILE come before it. Without any, changes are refused, except on loopback.
    token_file: Option<PathBuf>,
    /// Names, `host` or `host:port`, besides its own address under which changes may be asked for.
    #[serde(default)]
    allowed_hosts: Vec<String>,
    /// One for each key of the demand document; 1 to 1,000 of them.
    #[schemars(length(min = 1, max = 1000))]
    demand: Vec<Demand>,
}

/// One key, and how its demand is generated.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Demand {
    /// The key: 1 to 64 letters, digits, `-`, `_` and `.`.
    #[schemars(length(min = 1, max = 64), regex(pattern = "^[A-Za-z0-9._-]+$"))]
    key: String,
    /// The shape. `walk`: one up, one down or unchanged; `uniform`: any from min to max; `sine`: a wave;
    /// `spike`: min, now and then max; `poisson`: arrivals; `trace`: given values. Default: walk.
    #[schemars(schema_with = "pattern_schema")]
    pattern: Option<Pattern>,
    /// The smallest demand. Default: 0.
    #[schemars(range(max = 1_000_000))]
    min: Option<u32>,
    /// The largest demand. Default: 9.
    #[schemars(range(max = 1_000_000))]
    max: Option<u32>,
    /// Milliseconds from one step to the next. Default: 3000.
    #[schemars(range(min = 10, max = 86_400_000))]
    interval_ms: Option<u64>,
    /// The same seed and settings give the same demand. Default: another one at each start, shown by
    /// GET /v1/generator.
    seed: Option<u64>,
    /// `sine`: milliseconds for one wave, at least interval_ms. Default: 60000.
    #[schemars(range(min = 10, max = 31_536_000_000_u64))]
    period_ms: Option<u64>,
    /// `spike`: the chance of one at each step. Default: 0.1.
    #[schemars(range(min = 0, max = 1))]
    spike_chance: Option<f64>,
    /// `poisson`: the mean of a step. Default: 4.
    #[schemars(range(min = 0, max = 1_000_000))]
    mean: Option<f64>,
    /// `trace`: the values, one a step, again and again; each from min to max.
    #[schemars(length(max = 10_000))]
    trace: Option<Vec<u32>>,
}

fn listen_default() -> SocketAddr {
    LISTEN_DEFAULT
}

fn pattern_schema(_: &mut schemars::SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "enum": ["walk", "uniform", "sine", "spike", "poisson", "trace", null] })
}

/// The JSON schema of the config file.
pub(crate) fn schema() -> Schema {
    schemars::schema_for!(Toml)
}

/// Reads the config at `path`. A seed that is left out is drawn.
pub(crate) fn load(path: &Path) -> Result<Config, Refusal> {
    check(&path.display().to_string(), service_kit::config::load(path)?)
}

fn check(file: &str, read: Toml) -> Result<Config, Refusal> {
    let refuse = |what: String| Refusal::Value { file: file.to_owned(), what };
    if read.demand.is_empty() || read.demand.len() > KEYS_MAX {
        return Err(refuse(format!(
            "{} [[demand]] tables; there must be 1 to {KEYS_MAX}",
            read.demand.len()
        )));
    }
    let mut keys = BTreeSet::new();
    let mut generators = Vec::with_capacity(read.demand.len());
    for demand in read.demand {
        let key = demand.key;
        let fits = (1..=KEY_MAX_CHARS).contains(&key.len())
            && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !fits {
            return Err(refuse(format!(
                "demand key {key:?}: a key has 1 to {KEY_MAX_CHARS} letters, digits, `-`, `_` and `.`"
            )));
        }
        if !keys.insert(key.clone()) {
            return Err(refuse(format!(
                "demand key {key:?} is there twice; give each key one [[demand]] table"
            )));
        }
        let change = GeneratorChange {
            pattern: demand.pattern,
            min: demand.min,
            max: demand.max,
            interval_ms: demand.interval_ms,
            seed: Some(demand.seed.unwrap_or_else(drawn_seed)),
            period_ms: demand.period_ms,
            spike_chance: demand.spike_chance,
            mean: demand.mean,
            trace: demand.trace,
        };
        let settings = pattern::changed(&pattern::defaults(), change)
            .map_err(|error| refuse(format!("demand {key:?}: {error}")))?;
        generators.push((key, settings));
    }
    Ok(Config {
        listen: read.listen,
        token_file: read.token_file,
        allowed_hosts: read.allowed_hosts,
        generators,
    })
}

/// Of 32 bits: easy to read aloud, and exact in every JSON reader.
fn drawn_seed() -> u64 {
    u64::from(rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use service_kit::generated;

    use super::*;

    fn read(text: &str) -> Result<Config, Refusal> {
        check("a.toml", service_kit::config::parse("a.toml", text)?)
    }

    #[test]
    fn the_example_is_the_demo_and_names_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("example.toml");
        let config = load(&path).unwrap();
        assert_eq!(config.listen, LISTEN_DEFAULT);
        let (key, walk) = &config.generators[0];
        assert_eq!(key, "priority1");
        assert_eq!((walk.pattern, walk.min, walk.max, walk.interval_ms), (Pattern::Walk, 0, 9, 3000));

        let text = std::fs::read_to_string(&path).unwrap();
        let schema = serde_json::to_value(schema()).unwrap();
        let of_file = schema["properties"].as_object().unwrap();
        let of_demand = schema["$defs"]["Demand"]["properties"].as_object().unwrap();
        for key in of_file.keys().chain(of_demand.keys()).filter(|key| *key != "demand") {
            assert!(text.contains(&format!("{key} = ")), "example.toml does not show `{key}`");
        }
    }

    #[test]
    fn the_schema_in_the_repository_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config.schema.json");
        generated::check(&path, &generated::pretty(&schema())).unwrap();
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wanted) in [
            ("demand = []", "config a.toml: 0 [[demand]] tables; there must be 1 to 1000"),
            ("[[demand]]\nkey = \"a b\"", "config a.toml: demand key \"a b\": a key has 1 to 64 letters"),
            (
                "[[demand]]\nkey = \"a\"\n[[demand]]\nkey = \"a\"",
                "config a.toml: demand key \"a\" is there twice",
            ),
            ("[[demand]]\nkey = \"a\"\nmin = 10", "config a.toml: demand \"a\": min is 10 and max is 9"),
            ("[[demand]]\nkey = \"a\"\nspike_chance = nan", "config a.toml: demand \"a\": spike_chance"),
            (
                "[[demand]]\nkey = \"a\"\ninterval = 10",
                "config a.toml:3:1: unknown key `interval`; did you mean",
            ),
            ("[[demand]]\nkey = \"a\"\npattern = \"wlak\"", "did you mean `walk`?"),
            ("listen = \"8081\"\n[[demand]]\nkey = \"a\"", "config a.toml:1:10: invalid socket address"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}\n{error}");
        }
    }
}
