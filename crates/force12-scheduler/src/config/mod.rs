//! The configuration: text in, [`Settings`] out, or everything that is wrong with it.

mod ecs;
mod file;
mod instances;
mod registries;
mod rules;
mod services;
mod settings;
mod sources;
mod spec;

use std::path::Path;

use service_kit::config::{ConfigError, Mistake, Place, Problems};

pub use ecs::Ecs;
pub use file::{ConfigFile, LISTEN_DEFAULT};
pub use settings::{Engine, LockSettings, Settings, Source, resources_in_words};

/// A configuration that holds, and what is doubtful in it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// Warnings, in the order of the file.
    pub warnings: Vec<Mistake>,
}

/// Answers for the variables named in `env_from`.
pub type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads the file at `path`.
pub fn load(path: &Path, environment: Environment<'_>) -> Result<Loaded, ConfigError> {
    parse(&path.display().to_string(), &service_kit::config::text(path)?, environment)
}

/// Reads a configuration from its text; `file` is only named in errors.
pub fn parse(file: &str, text: &str, environment: Environment<'_>) -> Result<Loaded, ConfigError> {
    let written: ConfigFile = service_kit::config::parse(file, text)?;
    let mut problems = Problems::new(file, text);
    let settings = settings::settings(written, environment, &mut problems);
    Ok(Loaded { settings, warnings: problems.finish()? })
}

/// The JSON schema of the file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(ConfigFile).to_value()
}
