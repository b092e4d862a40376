//! The command line of force12-scheduler.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use force12_scheduler::claim::{self, Claim};
use force12_scheduler::config::{self, Environment, Loaded, Settings};
use force12_scheduler::connections::Connections;
use force12_scheduler::{SERVICE, check, demand, drain, http, init, run};
use service_kit::auth::Operator;
use service_kit::cli::{self, Command};
use service_kit::reload::Watched;
use service_kit::{generated, healthcheck, shutdown, telemetry};

/// Runs the containers that important work needs, and fills what is left with less important work.
///
/// It takes demand over HTTP, decides, and drives container engines. SIGTERM ends it and leaves the containers
/// running; the next start adopts them.
#[derive(Parser)]
#[command(name = SERVICE, version, after_help = cli::ENVIRONMENT)]
struct Cli {
    #[command(subcommand)]
    command: SchedulerCommand,
}

#[derive(Subcommand)]
enum SchedulerCommand {
    #[command(flatten)]
    Common(Command),
    /// Stop and remove every container of a config's cluster, while no scheduler runs.
    Drain {
        /// The config file (TOML).
        file: PathBuf,
        /// Drain even though a scheduler of this cluster runs, which will start containers again.
        #[arg(long)]
        force: bool,
        /// Give up after this many milliseconds.
        #[arg(long, default_value_t = 120_000, value_name = "MS")]
        timeout_ms: u64,
    },
}

fn main() -> ExitCode {
    match Cli::parse().command {
        SchedulerCommand::Common(Command::Run(file)) => run(&file.path),
        SchedulerCommand::Common(Command::Healthcheck(asked)) => match (asked.url, asked.config) {
            (Some(url), _) => healthcheck::run_url(&url),
            (None, None) => healthcheck::run(config::LISTEN_DEFAULT),
            (None, Some(path)) => service_kit::config::listen(&path, config::LISTEN_DEFAULT)
                .map_or_else(|error| cli::refuse(&error), healthcheck::run),
        },
        SchedulerCommand::Common(Command::Openapi) => cli::print(&generated::pretty(&http::openapi())),
        SchedulerCommand::Common(Command::Schema) => cli::print(&generated::pretty(&config::schema())),
        SchedulerCommand::Common(Command::Check(file)) => {
            with_config(&file.path, &|name| std::env::var(name).ok(), |loaded| {
                for warning in &loaded.warnings {
                    cli::say(&format_args!("warning: {warning}"));
                }
                cli::print(&check::in_words(&loaded.settings))
            })
        }
        // So that it heeds the signal that is to end it, and its deadline.
        SchedulerCommand::Drain { .. } if init::is_first() => as_child(),
        SchedulerCommand::Drain { file, force, timeout_ms } => {
            // What runs is to be stopped; what it would be started with does not matter.
            with_config(&file, &|_| Some(String::new()), |loaded| {
                let mut claim = match claim_for_drain(&loaded.settings, force) {
                    Ok(claim) => claim,
                    Err(code) => return code,
                };
                let limit = Duration::from_millis(timeout_ms);
                match block_on(drain(&loaded, claim.as_mut(), force, limit)) {
                    Ok(()) => ExitCode::SUCCESS,
                    Err(error) => {
                        cli::say(&format_args!("error: {error:#}"));
                        ExitCode::FAILURE
                    }
                }
            })
        }
    }
}

/// Refuses what is wrong before anything is bound or touched, then runs.
fn run(path: &Path) -> ExitCode {
    let watched = Watched::new(path);
    with_config(path, &|name| std::env::var(name).ok(), |loaded| {
        let settings = &loaded.settings;
        if settings.lock.is_some() && init::is_first() {
            return as_child();
        }
        let token_file = settings.token_file.as_deref();
        let operator = match Operator::from_config(token_file, settings.listen, &settings.allowed_hosts) {
            Ok(operator) => operator,
            Err(error) => return cli::refuse(&error),
        };
        // Before the lock file is made. What is wrong with that is then one line, with none of the log before it.
        if let Err(error) = telemetry::check() {
            return cli::refuse(&error);
        }
        let claim =
            settings.lock.as_ref().map(|lock| Claim::make(&lock.file, lock.stalled_after)).transpose();
        let mut claim = match claim {
            Ok(claim) => claim,
            Err(error) => return cli::refuse(&error),
        };
        let cluster = [("force12.cluster", settings.controller.cluster.as_str())];
        let _telemetry = match telemetry::init(SERVICE, &cluster) {
            Ok(telemetry) => telemetry,
            Err(error) => return cli::refuse(&error),
        };
        let ended = block_on(run::run(watched, loaded, operator, claim.as_mut()));
        if let Some(Err(error)) = claim.as_mut().map(Claim::exiting) {
            tracing::warn!(%error);
        }
        match ended {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "ended");
                ExitCode::FAILURE
            }
        }
    })
}

/// Runs the same as a child of this process, which is the first of its container.
fn as_child() -> ExitCode {
    init::run().unwrap_or_else(|error| {
        cli::say(&format_args!("error: cannot run as a child of the first process: {error}"));
        ExitCode::FAILURE
    })
}

/// Keeps schedulers from acting while containers go; none with `force`, or without a lock file.
fn claim_for_drain(settings: &Settings, force: bool) -> Result<Option<Claim>, ExitCode> {
    let Some(lock) = settings.lock.as_ref().filter(|_| !force) else { return Ok(None) };
    let mut claim = Claim::make(&lock.file, lock.stalled_after).map_err(|error| cli::refuse(&error))?;
    if let Some(other) = claim.other() {
        cli::say(&format_args!(
            "error: another process acts for cluster {} ({other}); end it first, or use --force",
            settings.controller.cluster
        ));
        return Err(ExitCode::FAILURE);
    }
    claim.sign(&claim::signature("drain", settings, ""));
    Ok(Some(claim))
}

/// Drains while the claim is upheld: one that is stopped does not keep schedulers from acting for ever.
async fn drain(
    loaded: &Loaded,
    claim: Option<&mut Claim>,
    force: bool,
    limit: Duration,
) -> anyhow::Result<()> {
    let Some(claim) = claim else { return empty(loaded, force, limit).await };
    tokio::select! {
        emptied = empty(loaded, force, limit) => emptied,
        lost = claim.upheld() => Err(lost.into()),
    }
}

async fn empty(loaded: &Loaded, force: bool, limit: Duration) -> anyhow::Result<()> {
    let settings = &loaded.settings;
    let clients = Arc::new(demand::clients(settings.ca_file.clone())?);
    if !force && drain::is_running(settings, &clients.current().await).await {
        anyhow::bail!(
            "a scheduler of cluster {} runs on {} and would start its containers again; end it first, or use --force",
            settings.controller.cluster,
            settings.listen
        );
    }
    let drivers = Connections::default().changed_to(settings, &clients).drivers().collect();
    let (removed, left) = drain::drain(settings, drivers, limit, |line| tell(&line)).await;
    for reason in &left {
        cli::say(&format_args!("error: not empty: {reason}"));
    }
    anyhow::ensure!(left.is_empty(), "gave up after {} ms; run it again", limit.as_millis());
    tell(&format_args!("cluster {} is empty: {removed} stopped and removed", settings.controller.cluster));
    Ok(())
}

/// A line of progress on stdout, as far as that can be written to: containers go also where nobody can be told of it.
fn tell(line: &impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

fn with_config(path: &Path, environment: Environment<'_>, then: impl FnOnce(Loaded) -> ExitCode) -> ExitCode {
    config::load(path, environment).map_or_else(|error| cli::refuse(&error), then)
}

fn block_on(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    shutdown::block_on(work).context("cannot start the runtime")?
}
