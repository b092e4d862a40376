//! The status-api binary; see the library of the same name.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use api_types::Timestamp;
use clap::Parser;
use service_kit::auth::Operator;
use service_kit::cli::{self, Command, ConfigFile, Healthcheck};
use service_kit::health::Readiness;
use service_kit::reload::Watched;
use service_kit::sse::{StreamLimits, Streams};
use status_api::address::Addresses;
use status_api::clock::Clock;
use status_api::config::{self, Settings};
use status_api::follow::{self, Http};
use status_api::history::{self, Ring};
use status_api::http::{App, HISTORIES_MAX};
use status_api::hub::Hub;
use status_api::reload::{self, Reload};
use status_api::upstream::{self, Upstream};
use tokio::sync::{Semaphore, watch};

/// The live page of Force12 and what people and browsers use of it.
#[derive(Debug, Parser)]
#[command(version, after_help = cli::ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(ConfigFile { path }) => {
            let watched = Watched::new(&path);
            match configured(&path) {
                Ok((settings, operator)) => run(settings, operator, watched),
                Err(error) => cli::refuse(&error),
            }
        }
        Command::Check(file) => match config::load(&file.path) {
            Ok(settings) => cli::print(&settings.in_words()),
            Err(error) => cli::refuse(&error),
        },
        Command::Healthcheck(healthcheck) => check_health(&healthcheck),
        Command::Openapi => cli::print(&status_api::http::openapi()),
        Command::Schema => cli::print(&service_kit::generated::pretty(&config::schema())),
    }
}

fn configured(path: &std::path::Path) -> anyhow::Result<(Settings, Operator)> {
    let settings = config::load(path)?;
    let operator =
        Operator::from_config(settings.token_file.as_deref(), settings.listen, &settings.allowed_hosts)?;
    Ok((settings, operator))
}

fn check_health(healthcheck: &Healthcheck) -> ExitCode {
    if let Some(url) = &healthcheck.url {
        return service_kit::healthcheck::run_url(url);
    }
    match &healthcheck.config {
        None => service_kit::healthcheck::run(config::LISTEN_DEFAULT),
        Some(path) => match service_kit::config::listen(path, config::LISTEN_DEFAULT) {
            Ok(listen) => service_kit::healthcheck::run(listen),
            Err(error) => cli::refuse(&error),
        },
    }
}

fn run(settings: Settings, operator: Operator, watched: Watched) -> ExitCode {
    let _telemetry = match service_kit::telemetry::init("status-api", &[]) {
        Ok(telemetry) => telemetry,
        Err(error) => return cli::refuse(&error),
    };
    let ended = service_kit::shutdown::block_on(serve(settings, operator, watched))
        .context("cannot start the runtime");
    match ended.flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings, operator: Operator, mut watched: Watched) -> anyhow::Result<()> {
    let metrics = service_kit::metrics::install().context("cannot collect metrics")?;
    status_api::metrics::describe();
    service_kit::reload::describe_metrics();
    tokio::spawn(metrics.clone().upkeep());
    let shutdown = service_kit::shutdown::signal().context("cannot wait for signals")?;
    let clients = upstream::client(settings.ca_file.clone())?;
    let listener = service_kit::listen::listen(settings.listen).await?;

    let clock = Clock::starting_at(Timestamp::now());
    let readiness = Readiness::not_ready("the scheduler has not been heard yet");
    let hub = Arc::new(Hub::new(clock, readiness.clone()));
    let demand = settings.demand_url.clone().map(|url| Upstream::new("the demand source", url, clients));
    let ring = Arc::new(Mutex::new(Ring::new(settings.history)));
    let (limits, followed_limits) = watch::channel(reload::follow_limits(&settings));
    let (scheduler_urls, ca_file) = (settings.scheduler_urls.clone(), settings.ca_file.clone());
    let mut reload = Reload { settings, history: Arc::clone(&ring), follow: limits };
    tokio::spawn(async move { watched.follow(&mut reload).await });
    tokio::spawn(operator.clone().follow_token());

    tokio::spawn(history::sample(Arc::clone(&ring), hub.newest(), clock, shutdown.clone()));
    // Each by itself, so that one that hangs does not keep another from being heard.
    let mut schedulers = Vec::new();
    for (from, url) in scheduler_urls.into_iter().enumerate() {
        let addresses = Addresses::default();
        let clients = upstream::client_of(&addresses, ca_file.clone())?;
        let scheduler = Upstream::new("the scheduler", url, Arc::clone(&clients));
        let stream = scheduler.url(&["v1", "stream"]).context("scheduler_url has no room for a path")?;
        schedulers.push(scheduler);
        let dial = Http::new(clients, stream, addresses);
        let (hub, limits, until) = (Arc::clone(&hub), followed_limits.clone(), shutdown.clone());
        tokio::spawn(async move {
            follow::follow(dial, hub.line(from), limits, rand::random::<f64>, until).await;
        });
    }

    let streams = Streams::new(hub.messages(), shutdown.clone(), StreamLimits::default());
    let histories = Arc::new(Semaphore::new(HISTORIES_MAX));
    let app = App { hub, streams, history: ring, histories, clock, schedulers: schedulers.into(), demand };
    let router = status_api::http::router(app, &operator, readiness, metrics);
    service_kit::http::serve(listener, router, shutdown, service_kit::http::Limits::default())
        .await
        .context("cannot serve")
}
