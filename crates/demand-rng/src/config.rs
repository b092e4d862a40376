//! The config file.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use api_types::generator::{Generator, GeneratorChange, Pattern};
use schemars::{JsonSchema, Schema, json_schema};
use serde::Deserialize;
use service_kit::auth;
use service_kit::config::{ConfigError, Place, Problems};

use crate::pattern::{self, Unfit};

/// Where the service listens unless the config says otherwise.
pub(crate) const LISTEN_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8081);

/// The most keys: the document stays well under what a demand feed reads.
const KEYS_MAX: usize = 1_000;
/// The most characters of a key.
const KEY_MAX_CHARS: usize = 64;

/// What the service runs with.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) listen: SocketAddr,
    pub(crate) token_file: Option<PathBuf>,
    pub(crate) allowed_hosts: Vec<String>,
    /// In the order of the file.
    pub(crate) keys: Vec<Key>,
}

/// One key of the demand document.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) name: String,
    /// What the file says of its generator.
    pub(crate) written: GeneratorChange,
    /// The same with defaults; a seed that is left out is drawn.
    pub(crate) settings: Generator,
}

impl Config {
    /// What it does, for people; several lines.
    pub(crate) fn in_words(&self) -> String {
        let mut text = format!("{} listens on {}\n\ndemand\n", crate::SERVICE, self.listen);
        for Key { name, written, settings } in &self.keys {
            let Generator { min, max, interval_ms, .. } = settings;
            let pattern = serde_json::to_value(settings.pattern).unwrap_or_default();
            let pattern = pattern.as_str().unwrap_or_default();
            let seed =
                written.seed.map_or("another seed at each start".to_owned(), |seed| format!("seed {seed}"));
            let _ = writeln!(
                text,
                "  {name}: {pattern} from {min} to {max}, a step every {interval_ms} ms; {seed}"
            );
        }
        text
    }
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

/// Reads the config at `path`.
pub(crate) fn load(path: &Path) -> Result<Config, ConfigError> {
    parse(&path.display().to_string(), &service_kit::config::text(path)?)
}

/// Reads the config in `text`; `file` is only named in errors.
fn parse(file: &str, text: &str) -> Result<Config, ConfigError> {
    let read: Toml = service_kit::config::parse(file, text)?;
    let mut problems = Problems::new(file, text);
    auth::check_hosts(&read.allowed_hosts, &mut problems);
    let count = read.demand.len();
    if !(1..=KEYS_MAX).contains(&count) {
        let message = format!("there are {count} [[demand]] tables; give 1 to {KEYS_MAX}, one for each key");
        problems.error(&Place::top().key("demand"), message);
    }
    let mut seen = BTreeSet::new();
    let keys = read.demand.into_iter().enumerate().filter_map(|(index, table)| {
        let place = Place::table("demand", index, &table.key);
        let name = table.key.clone();
        let fits = (1..=KEY_MAX_CHARS).contains(&name.len())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if !fits {
            let message = format!(
                "{name:?} cannot be a key; give 1 to {KEY_MAX_CHARS} letters, digits, `-`, `_` and `.`"
            );
            problems.error(&place.key("key"), message);
        }
        if !seen.insert(name.clone()) {
            problems.error(
                &place.key("key"),
                format!("{name:?} is there above already; give each key one [[demand]]"),
            );
        }
        let written = table.written();
        let seed = Some(written.seed.unwrap_or_else(drawn_seed));
        match pattern::changed(&pattern::defaults(), GeneratorChange { seed, ..written.clone() }) {
            Ok(settings) => Some(Key { name, written, settings }),
            Err(unfit) => {
                for Unfit { setting, what } in unfit {
                    problems.error(&place.key(setting), what);
                }
                None
            }
        }
    });
    let keys = keys.collect();
    problems.finish()?;
    Ok(Config { listen: read.listen, token_file: read.token_file, allowed_hosts: read.allowed_hosts, keys })
}

impl Demand {
    fn written(self) -> GeneratorChange {
        GeneratorChange {
            pattern: self.pattern,
            min: self.min,
            max: self.max,
            interval_ms: self.interval_ms,
            seed: self.seed,
            period_ms: self.period_ms,
            spike_chance: self.spike_chance,
            mean: self.mean,
            trace: self.trace,
        }
    }
}

/// Of 32 bits: easy to read aloud, and exact in every JSON reader.
fn drawn_seed() -> u64 {
    u64::from(rand::random::<u32>())
}

#[cfg(test)]
mod tests {
    use service_kit::generated;

    use super::*;

    #[test]
    fn the_example_is_the_demo_and_names_every_key() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("example.toml");
        let config = load(&path).unwrap();
        assert_eq!(config.listen, LISTEN_DEFAULT);
        let Key { name, settings: walk, .. } = &config.keys[0];
        assert_eq!(name, "priority1");
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
}
