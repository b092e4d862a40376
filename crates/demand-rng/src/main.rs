//! A demand source that rolls dice: `GET /v1/demand`, and the controls to play with it.
//!
//! [`pattern`] makes the values, [`source`] keeps the document and changes it, [`http`] serves both, [`config`]
//! reads the file. To add a pattern: `api_types::generator::Pattern`, then the two matches in [`pattern`].

mod config;
mod http;
mod pattern;
mod source;

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use api_types::Timestamp;
use clap::Parser;
use service_kit::auth::Operator;
use service_kit::cli::{self, Command};
use service_kit::health::Readiness;
use service_kit::{generated, healthcheck, metrics, shutdown, telemetry};
use tokio::net::TcpListener;

use crate::config::Config;
use crate::source::Source;

const SERVICE: &str = "demand-rng";

/// A demand source that rolls dice, for demonstrations and tests.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(file) => start(&file.path),
        Command::Healthcheck(options) => match (options.url, options.config) {
            (Some(url), _) => healthcheck::run_url(&url),
            (None, Some(path)) => match config::load(&path) {
                Ok(config) => healthcheck::run(config.listen),
                Err(error) => cli::refuse(&error),
            },
            (None, None) => healthcheck::run(config::LISTEN_DEFAULT),
        },
        Command::Openapi => {
            print!("{}", generated::pretty(&http::openapi()));
            ExitCode::SUCCESS
        }
        Command::Schema => {
            print!("{}", generated::pretty(&config::schema()));
            ExitCode::SUCCESS
        }
    }
}

/// Refuses what is wrong before anything is bound, then runs.
fn start(path: &Path) -> ExitCode {
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
    match run(config, &operator) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(config: Config, operator: &Operator) -> anyhow::Result<()> {
    let listen: SocketAddr = config.listen;
    let shutdown = shutdown::signal().context("cannot listen for signals")?;
    let metrics = metrics::install().context("cannot collect metrics")?;
    source::describe_metrics();
    tokio::spawn(metrics.clone().upkeep());
    let listener = TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}; is the port taken? set `listen` in the config")
    })?;

    for (key, settings) in &config.generators {
        tracing::info!(key, pattern = ?settings.pattern, seed = settings.seed, "generating");
    }
    // The boot id sets this run's ETags apart from those of the run before.
    let source = Source::new(config.generators, rand::random(), Timestamp::now);
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
