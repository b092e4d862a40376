//! How quickly slots change hands: Force12 in each of its modes, in turns with what the engine itself takes for the
//! same change by bare API calls, and with Docker Swarm, within one run on one engine. docs/performance.md says more.
//!
//! All of it is measured from outside, to the engine's own event of the new container: Force12 from the moment that
//! the new demand is sent to the demand source, the engine from the first of the bare calls, Docker Swarm from the
//! moment that the service's update is sent. As many other containers run in each case, and those of the bare calls
//! and of Swarm are made as ours are.

mod bare;
mod force12;
mod goals;
mod kinds;
mod machine;
mod quiet;
mod report;
mod statistics;
mod swarm;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use acceptance::engine::Engine;
use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use bare::Bare;
use force12::Force12;
use kinds::{Kind, Mode};
use machine::Machine;
use report::{OnNetwork, Report};
use statistics::{Round, measured};
use swarm::Swarm;

/// The time for any one change; a debug build on a busy machine stays far below.
const BOUND: Duration = Duration::from_secs(30);

/// Rounds in one mode before the next mode has its turn: what changes in minutes (the engine's age, the machine's
/// mood) is shared by all modes, and the time for changing modes stays small.
const BLOCK: u32 = 25;

/// Measures how quickly slots change hands, against the engine's own time and Docker Swarm's, and prints all of it.
#[derive(Parser)]
#[command(name = "bench-reaction")]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
struct Arguments {
    /// How many of each are measured; of bursts and of Docker Swarm a quarter. A p99 is told from 200 on.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// How many come before those of each block, not counted.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=100))]
    warmup: u32,
    /// The networks of the containers, one after the other.
    #[arg(long, value_enum, value_delimiter = ',', default_values = ["host", "bridge"])]
    network: Vec<Network>,
    /// Leave Docker Swarm out. Otherwise this engine is made a swarm of its own on loopback for as long as this runs,
    /// unless it is part of one already.
    #[arg(long)]
    without_swarm: bool,
    /// Measure although something else runs here; the report says what.
    #[arg(long)]
    anyway: bool,
    /// Where to write everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the tables as Markdown.
    #[arg(long)]
    markdown: bool,
    /// End with code 1 if a goal is missed.
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Network {
    Host,
    Bridge,
    None,
}

impl Network {
    const fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Bridge => "bridge",
            Self::None => "none",
        }
    }
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let mut terminate = signal(SignalKind::terminate())?;
    // A measurement that is given up removes what it made as it goes out of scope.
    let report = tokio::select! {
        report = Box::pin(measure(&arguments)) => report?,
        _ = tokio::signal::ctrl_c() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    };
    print!("{}", if arguments.markdown { report.to_markdown() } else { report.to_text() });
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if arguments.check && !report.goals_met() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let engine = Engine::connect().await?;
    let disturbed_by = quiet::disturbances(&engine).await?;
    if !disturbed_by.is_empty() {
        let what = disturbed_by.join("\n  ");
        if !arguments.anyway {
            bail!("this is no time to measure:\n  {what}\nEnd it, or measure all the same with --anyway");
        }
        eprintln!("WARNING: these figures are not worth much:\n  {what}");
    }
    let machine = Machine::look(&engine).await?;
    let mut networks = Vec::new();
    for network in &arguments.network {
        networks.push(Bench::run(arguments, &engine, network.name()).await?);
    }
    Ok(Report { machine, services: services(), disturbed_by, networks })
}

/// Which build of the services is measured.
fn services() -> String {
    match std::env::var("FORCE12_BIN_DIR") {
        Ok(directory) => format!("services of {directory}"),
        Err(_) if cfg!(debug_assertions) => "debug build".to_owned(),
        Err(_) => "release build".to_owned(),
    }
}

/// All that is measured on one network.
struct Bench {
    // Dropped in this order: the swarm would start again what is removed of it.
    swarm: Option<Swarm>,
    bare: Bare,
    force12: Force12,
    rounds: Vec<(Kind, Vec<Round>)>,
}

impl Bench {
    async fn run(arguments: &Arguments, engine: &Engine, network: &'static str) -> Result<OnNetwork> {
        let force12 = Force12::start(network).await?;
        let like = force12.one_of_ours().await?;
        let stack = force12.stack();
        let mut bench = Self {
            swarm: None,
            bare: Box::pin(Bare::start(engine, &stack.cluster, like)).await?,
            rounds: Kind::ALL.into_iter().map(|kind| (kind, Vec::new())).collect(),
            force12,
        };
        if !arguments.without_swarm {
            let stack = bench.force12.stack();
            bench.swarm = Some(Swarm::start(stack, network).await?);
        }
        for begin in (0..arguments.rounds).step_by(usize::try_from(BLOCK)?) {
            let end = arguments.rounds.min(begin + BLOCK);
            for mode in Mode::ALL {
                bench.block(arguments, mode, begin..end).await.with_context(|| {
                    format!("{network} network, rounds {begin} to {end} of mode {}", mode.name())
                })?;
            }
            eprintln!("{network} network: {end} of {} rounds", arguments.rounds);
        }
        let measured = bench
            .rounds
            .iter()
            .filter(|(_, rounds)| !rounds.is_empty())
            .map(|(kind, rounds)| measured(*kind, rounds));
        Ok(OnNetwork::new(network, measured.collect()))
    }

    async fn block(&mut self, arguments: &Arguments, mode: Mode, rounds: std::ops::Range<u32>) -> Result<()> {
        self.force12.set(mode).await?;
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|kind| kind.mode() == mode).collect();
        for warmup in 0..arguments.warmup {
            for &kind in kinds.iter().filter(|kind| warmup == 0 || !kind.is_seldom()) {
                self.measure(kind).await.with_context(|| kind.name())?;
            }
        }
        for round in rounds {
            // There and back, so that each comes after the one and after the other.
            let there: Box<dyn Iterator<Item = &Kind>> =
                if round % 2 == 0 { Box::new(kinds.iter()) } else { Box::new(kinds.iter().rev()) };
            for &kind in there.filter(|kind| !kind.is_seldom() || round % Kind::SELDOM == 0) {
                let measured = self.measure(kind).await.with_context(|| kind.name())?;
                let all = self.rounds.iter_mut().find(|(other, _)| *other == kind);
                all.context("every kind has its place")?.1.extend(measured);
            }
        }
        Ok(())
    }

    /// One round; none of what is left out.
    async fn measure(&mut self, kind: Kind) -> Result<Option<Round>> {
        let observer = &self.force12.stack().observer;
        let round = match kind {
            Kind::KillCreateStart => self.bare.replace(observer, 1).await?,
            Kind::FourReplaced => self.bare.replace(observer, 4).await?,
            Kind::PauseCreateStart => self.bare.pause_create_start(observer).await?,
            Kind::PauseThenUnpause => self.bare.pause_then_unpause(observer).await?,
            Kind::PauseBesideUnpause => self.bare.pause_beside_unpause(observer).await?,
            Kind::Unpause => self.bare.unpause(observer).await?,
            Kind::Swarm => match &self.swarm {
                Some(swarm) => swarm.rise(observer).await?,
                None => return Ok(None),
            },
            Kind::StopSwap
            | Kind::FreezeStart
            | Kind::FreezeSwap
            | Kind::FreezeSwapBeside
            | Kind::StandbyThaw => self.force12.rise(1).await?,
            Kind::Burst => self.force12.rise(4).await?,
        };
        Ok(Some(round))
    }
}
