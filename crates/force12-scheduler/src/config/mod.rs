//! The configuration: text in, [`Settings`] out, or everything that is wrong with it.

mod file;
mod settings;

use std::fs::File;
use std::io::Read as _;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;
use toml::de::{DeTable, DeValue};

pub use file::{ConfigFile, LISTEN_DEFAULT};
pub use settings::{Settings, Source, resources_in_words};

/// Something wrong, or doubtful, in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line in the file, from 1; `None` where nothing is written that could be pointed at.
    pub line: Option<usize>,
    /// The key, such as `service.web.min`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and how to mend it.
    pub message: String,
}

/// Why a configuration is refused. Its text has a line for each problem, with the file and the place.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It is not there, not TOML, or has a key or a type that is not known.
    #[error(transparent)]
    Unreadable(#[from] service_kit::config::ConfigError),
    /// It can be read, and does not hold.
    #[error("{}", lines(file, problems))]
    Invalid {
        /// The file.
        file: String,
        /// In its order.
        problems: Vec<Problem>,
    },
}

/// A line for each problem of a file: `config demo.toml:14: service.web.min: 5 is more than max (4); …`.
pub fn lines(file: &str, problems: &[Problem]) -> String {
    let words: Vec<String> = problems
        .iter()
        .map(|Problem { line, key, message }| {
            let line = line.map(|line| format!(":{line}")).unwrap_or_default();
            let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
            format!("config {file}{line}: {key}{message}")
        })
        .collect();
    words.join("\n")
}

/// A configuration that holds, and what is doubtful in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Warnings, in the order of the file.
    pub warnings: Vec<Problem>,
}

/// Answers for the variables named in `env_from`.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads the file at `path`.
pub fn load(path: &Path, environment: Environment<'_>) -> Result<Loaded, ConfigError> {
    parse(&path.display().to_string(), &text(path)?, environment)
}

/// Reads a configuration from its text; `file` is only named in errors.
pub fn parse(file: &str, text: &str, environment: Environment<'_>) -> Result<Loaded, ConfigError> {
    let written: ConfigFile = service_kit::config::parse(file, text)?;
    let mut problems = Problems { text, errors: Vec::new(), warnings: Vec::new() };
    let settings = settings::settings(written, environment, &mut problems);
    if problems.errors.is_empty() {
        return Ok(Loaded { settings, warnings: problems.warnings });
    }
    // The sort is stable, so one line's problems stay in the order found.
    problems.errors.sort_by_key(|problem| problem.line);
    Err(ConfigError::Invalid { file: file.to_owned(), problems: problems.errors })
}

/// The address that the file at `path` has the API listen on, whatever else is in the file.
///
/// For the healthcheck of a service that runs: a mistake made in the file since is not its death.
pub fn listen(path: &Path) -> Result<SocketAddr, ConfigError> {
    #[derive(Deserialize)]
    struct Listen {
        #[serde(default = "file::default_listen")]
        listen: SocketAddr,
    }
    let file = path.display().to_string();
    Ok(service_kit::config::parse::<Listen>(&file, &text(path)?)?.listen)
}

fn text(path: &Path) -> Result<String, service_kit::config::ConfigError> {
    use service_kit::config::{CONFIG_MAX_BYTES, ConfigError};

    let file = path.display().to_string();
    let mut text = String::new();
    let read =
        File::open(path).and_then(|opened| opened.take(CONFIG_MAX_BYTES + 1).read_to_string(&mut text));
    match read {
        Err(source) => Err(ConfigError::Read { file, source }),
        Ok(bytes) if bytes as u64 > CONFIG_MAX_BYTES => Err(ConfigError::TooLarge { file }),
        Ok(_) => Ok(text),
    }
}

/// The JSON schema of the file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(ConfigFile).to_value()
}

/// What was found wrong so far.
struct Problems<'text> {
    text: &'text str,
    errors: Vec<Problem>,
    warnings: Vec<Problem>,
}

impl Problems<'_> {
    fn error(&mut self, place: &Place, message: String) {
        let problem = self.problem(place, message);
        self.errors.push(problem);
    }

    fn warning(&mut self, place: &Place, message: String) {
        let problem = self.problem(place, message);
        self.warnings.push(problem);
    }

    fn problem(&self, place: &Place, message: String) -> Problem {
        Problem { line: place.line_in(self.text), key: place.words.clone(), message }
    }
}

/// A place in the file: as words for people, and as steps by which its line is found.
#[derive(Clone)]
struct Place {
    words: String,
    steps: Vec<Step>,
}

#[derive(Clone)]
enum Step {
    Key(String),
    Item(usize),
}

impl Place {
    fn top() -> Self {
        Self { words: String::new(), steps: Vec::new() }
    }

    /// The `index`-th `[[kind]]`, which is called by its name where it has one.
    fn table(kind: &'static str, index: usize, name: &str) -> Self {
        let words = if name.is_empty() { format!("{kind}[{index}]") } else { format!("{kind}.{name}") };
        Self { words, steps: vec![Step::Key(kind.to_owned()), Step::Item(index)] }
    }

    fn key(&self, key: &str) -> Self {
        let words = if self.words.is_empty() { key.to_owned() } else { format!("{}.{key}", self.words) };
        self.step(words, Step::Key(key.to_owned()))
    }

    fn item(&self, index: usize) -> Self {
        self.step(format!("{}[{index}]", self.words), Step::Item(index))
    }

    fn step(&self, words: String, step: Step) -> Self {
        let mut steps = self.steps.clone();
        steps.push(step);
        Self { words, steps }
    }

    /// The line of the deepest part of this place that is written down; `None` if no part of it is.
    fn line_in(&self, text: &str) -> Option<usize> {
        let document = DeTable::parse(text).ok()?;
        let mut start = None;
        let mut value: Option<&DeValue<'_>> = None;
        for step in &self.steps {
            let next = match (step, value) {
                (Step::Key(key), None) => document.get_ref().get(key.as_str()),
                (Step::Key(key), Some(value)) => value.get(key.as_str()),
                (Step::Item(index), Some(value)) => value.get(*index),
                (Step::Item(_), None) => None,
            };
            let Some(next) = next else { break };
            start = Some(next.span().start);
            value = Some(next.get_ref());
        }
        start.map(|start| text[..start].matches('\n').count() + 1)
    }
}
