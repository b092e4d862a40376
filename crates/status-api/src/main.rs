//! The status-api binary; see the library of the same name.

use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use api_types::Timestamp;
use clap::Parser;
use service_kit::auth::Operator;
use service_kit::cli::{self, Command, ConfigFile, Healthcheck};
use service_kit::health::Readiness;
use service_kit::sse::{StreamLimits, Streams};
use status_api::clock::Clock;
use status_api::config::{self, Settings};
use status_api::follow::{self, Http};
use status_api::history::{self, Ring};
use status_api::http::{App, HISTORIES_MAX};
use status_api::hub::Hub;
use status_api::upstream::{self, Upstream};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// From asking for the scheduler's stream to its first event, which it sends at once.
const FIRST_EVENT_MAX: Duration = Duration::from_secs(2);

/// The live page of Force12 and what people and browsers use of it.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    match Cli::parse().command {
        Command::Run(ConfigFile { path }) => match configured(&path) {
            Ok((settings, operator)) => run(settings, operator),
            Err(error) => cli::refuse(&error),
        },
        Command::Healthcheck(healthcheck) => check_health(&healthcheck),
        Command::Openapi => print(&status_api::http::openapi()),
        Command::Schema => print(&service_kit::generated::pretty(&config::schema())),
    }
}

fn print(text: &str) -> ExitCode {
    print!("{text}");
    ExitCode::SUCCESS
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
    let Some(path) = &healthcheck.config else {
        return cli::refuse(&"whom to ask is not given: give --url or --config");
    };
    match config::load(path) {
        Ok(settings) => service_kit::healthcheck::run(settings.listen),
        Err(error) => cli::refuse(&error),
    }
}

fn run(settings: Settings, operator: Operator) -> ExitCode {
    let _telemetry = match service_kit::telemetry::init("status-api", &[]) {
        Ok(telemetry) => telemetry,
        Err(error) => return cli::refuse(&error),
    };
    let ended = service_kit::shutdown::block_on(serve(settings, operator)).context("cannot start the runtime");
    match ended.flatten() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(settings: Settings, operator: Operator) -> anyhow::Result<()> {
    let metrics = service_kit::metrics::install().context("cannot collect metrics")?;
    status_api::metrics::describe();
    tokio::spawn(metrics.clone().upkeep());
    let shutdown = service_kit::shutdown::signal().context("cannot wait for signals")?;
    let client = upstream::client()?;
    let listener = TcpListener::bind(settings.listen)
        .await
        .with_context(|| format!("cannot listen on {}; is another service there?", settings.listen))?;

    let clock = Clock::starting_at(Timestamp::now());
    let readiness = Readiness::not_ready("the scheduler has not been heard yet");
    let hub = Arc::new(Hub::new(clock, readiness.clone()));
    let scheduler = Upstream::new("the scheduler", settings.scheduler_url, client.clone());
    let stream = scheduler.url(&["v1", "stream"]).context("scheduler_url has no room for a path")?;
    let demand = settings.demand_url.map(|url| Upstream::new("the demand source", url, client.clone()));
    let ring = Arc::new(Mutex::new(Ring::new(settings.history)));
    let limits =
        follow::Limits { first_event: FIRST_EVENT_MAX, silence: Duration::from_millis(settings.silence_ms) };

    tokio::spawn(history::sample(Arc::clone(&ring), hub.newest(), clock, shutdown.clone()));
    let followed = Arc::clone(&hub);
    let until = shutdown.clone();
    tokio::spawn(async move {
        follow::follow(Http::new(client, stream), &followed, limits, rand::random::<f64>, until).await;
    });

    let streams = Streams::new(hub.messages(), shutdown.clone(), StreamLimits::default());
    let histories = Arc::new(Semaphore::new(HISTORIES_MAX));
    let app = App { hub, streams, history: ring, histories, clock, scheduler, demand };
    let router = status_api::http::router(app, &operator, readiness, metrics);
    service_kit::http::serve(listener, router, shutdown, service_kit::http::Limits::default())
        .await
        .context("cannot serve")
}
