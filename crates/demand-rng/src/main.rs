//! A demand source that rolls dice: `GET /v1/demand`, and the controls to play with it.
//!
//! [`pattern`] makes the values, [`source`] keeps the document and changes it, [`http`] serves both, [`config`]
//! reads the file, [`reload`] reads it again when it changes. To add a pattern: `api_types::generator::Pattern`, then the two matches in [`pattern`].

mod config;
mod http;
mod pattern;
mod reload;
mod source;

use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use api_types::Timestamp;
use clap::Parser;
use service_kit::auth::Operator;
use service_kit::cli::{self, Command};
use service_kit::health::Readiness;
use service_kit::reload::Watched;
use service_kit::{generated, healthcheck, metrics, shutdown, telemetry};

use crate::config::{Config, Key};
use crate::reload::Reload;
use crate::source::Source;

const SERVICE: &str = "demand-rng";

/// A demand source that rolls dice, for demonstrations and tests.
#[derive(Debug, Parser)]
#[command(version, after_help = cli::ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(file) => start(&file.path),
        Command::Check(file) => match config::load(&file.path) {
            Ok(config) => cli::print(&config.in_words()),
            Err(error) => cli::refuse(&error),
        },
        Command::Healthcheck(options) => match (options.url, options.config) {
            (Some(url), _) => healthcheck::run_url(&url),
            (None, Some(path)) => match service_kit::config::listen(&path, config::LISTEN_DEFAULT) {
                Ok(listen) => healthcheck::run(listen),
                Err(error) => cli::refuse(&error),
            },
            (None, None) => healthcheck::run(config::LISTEN_DEFAULT),
        },
        Command::Openapi => cli::print(&generated::pretty(&http::openapi())),
        Command::Schema => cli::print(&generated::pretty(&config::schema())),
    }
}

/// Refuses what is wrong before anything is bound, then runs.
fn start(path: &Path) -> ExitCode {
    let watched = Watched::new(path);
    let config = match config::load(path) {
        Ok(config) => config,
        Err(error) => return cli::refuse(&error),
    };
    let operator =
        match Operator::from_config(config.token_file.as_deref(), config.listen, &config.allowed_hosts) {
            Ok(operator) => operator,
            Err(error) => return cli::refuse(&error),
        };
    let _telemetry = match telemetry::init(SERVICE, &[]) {
        Ok(telemetry) => telemetry,
        Err(error) => return cli::refuse(&error),
    };
    match run(config, &operator, watched) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(config: Config, operator: &Operator, mut watched: Watched) -> anyhow::Result<()> {
    let shutdown = shutdown::signal().context("cannot listen for signals")?;
    let metrics = metrics::install().context("cannot collect metrics")?;
    source::describe_metrics();
    service_kit::reload::describe_metrics();
    tokio::spawn(metrics.clone().upkeep());
    let listener = service_kit::listen::listen(config.listen).await?;
    for Key { name, settings, .. } in &config.keys {
        tracing::info!(key = name, pattern = ?settings.pattern, seed = settings.seed, "generating");
    }
    // The boot id sets this run's ETags apart from those of the run before.
    let generators = config.keys.iter().map(|key| (key.name.clone(), key.settings.clone())).collect();
    let source = Source::new(generators, rand::random(), Timestamp::now);
    let mut reload = Reload { source: source.clone(), config };
    tokio::spawn(async move { watched.follow(&mut reload).await });
    tokio::spawn(operator.clone().follow_token());
    let readiness = Readiness::not_ready("starting");
    readiness.set_ready();
    let health =
        service_kit::health::routes(SERVICE, readiness, metrics, generated::pretty(&http::openapi()));
    let router = http::router(source.clone(), operator, shutdown.clone()).merge(health);
    let serving = service_kit::http::serve(listener, router, shutdown, service_kit::http::Limits::default());
    tokio::select! {
        ended = serving => ended.context("cannot serve"),
        never = source.generate() => match never {},
    }
}
