//! How quickly a rise in demand by one is answered with all slots full, against what the engine itself takes for
//! the same change by bare API calls, in turns within one run.
//!
//! Both are measured from outside, to the engine's own start event of the new container: ours from the moment
//! that the new demand is sent to the demand source, the engine's from the first of the three calls kill,
//! create, start. As many other containers run in either case, and each one of the engine's is made as ours are.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use acceptance::floor::Floor;
use acceptance::observer::now_ns;
use acceptance::stack::{FILL, IMPORTANT, Options, Stack};
use acceptance::timeline::{Event, MS, Nanos, Timeline};
use anyhow::{Context as _, Result, bail};
use api_types::decision::DecisionAction;
use clap::{Parser, ValueEnum};
use serde::Serialize;

/// The demand that each round begins with; the round raises it by one.
const BASE: u32 = 4;

/// The time for any one change; a debug build on a busy machine stays far below.
const BOUND: Duration = Duration::from_secs(20);

/// The goal for nine of ten reactions.
const GOAL_P90_MS: f64 = 1_000.0;

/// The goal for the median reaction, as a multiple of the engine's own time.
const GOAL_RATIO: f64 = 1.25;

/// Measures reactions with all slots full against the engine's own time, and prints both.
#[derive(Parser)]
#[command(name = "bench-reaction")]
struct Arguments {
    /// How many of each are measured.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// How many of each come before, not counted.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=1_000))]
    warmup: u32,
    /// The network of the containers.
    #[arg(long, value_enum, default_value_t = Network::Host)]
    network: Network,
    /// Where to write everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
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

/// One measured change, in milliseconds, by stages that add up to the whole.
#[derive(Clone, Debug, Serialize)]
struct Round {
    total_ms: f64,
    stages_ms: Vec<f64>,
}

/// What was measured of one kind.
#[derive(Serialize)]
struct Measured {
    p50_ms: f64,
    p90_ms: f64,
    /// Only with a hundred rounds or more.
    p99_ms: Option<f64>,
    min_ms: f64,
    max_ms: f64,
    /// Each stage's name and median.
    stages: Vec<(&'static str, f64)>,
    rounds: Vec<Round>,
}

#[derive(Serialize)]
struct Report {
    network: &'static str,
    /// Which build of the services is measured.
    services: String,
    reaction: Measured,
    engine: Measured,
    /// Of the medians.
    ratio: f64,
    goals_met: bool,
}

const REACTION_STAGES: [&str; 4] = [
    "PUT sent → decided",
    "decided → stop at the engine",
    "stop → victim ended",
    "victim ended → start event",
];

const ENGINE_STAGES: [&str; 4] =
    ["call sent → kill at the engine", "kill → ended", "ended → created", "created → start event"];

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let report = Box::pin(measure(&arguments)).await?;
    print(&report, arguments.rounds);
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if arguments.check && !report.goals_met { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn measure(arguments: &Arguments) -> Result<Report> {
    let network = arguments.network.name();
    let stack = Stack::start(Options { network, ..Options::default() }).await?;
    stack.hold(BASE).await?;
    stack.runs(i64::from(BASE), BOUND).await?;
    let seen = stack.observer.timeline()?;
    let like = seen.of("start").last().context("nothing was started")?;
    let like = stack.engine.inspect(&like.id).await?;
    let mut floor = Box::pin(Floor::start(&stack.engine, &stack.cluster, like)).await?;

    let (mut reactions, mut floors) = (Vec::new(), Vec::new());
    for round in 0..arguments.warmup + arguments.rounds {
        let reaction = reaction(&stack).await.with_context(|| format!("reaction {round}"))?;
        let floor = engine_alone(&stack, &mut floor).await.with_context(|| format!("engine {round}"))?;
        if round >= arguments.warmup {
            eprint!("\r{} of {}", round + 1 - arguments.warmup, arguments.rounds);
            reactions.push(reaction);
            floors.push(floor);
        }
    }
    eprintln!();
    stack.checked_timeline().await?;
    let reaction = measured(REACTION_STAGES, reactions);
    let engine = measured(ENGINE_STAGES, floors);
    let ratio = reaction.p50_ms / engine.p50_ms;
    let goals_met = reaction.p90_ms < GOAL_P90_MS && ratio < GOAL_RATIO;
    let services = match std::env::var("FORCE12_BIN_DIR") {
        Ok(directory) => format!("services of {directory}"),
        Err(_) if cfg!(debug_assertions) => "debug build".to_owned(),
        Err(_) => "release build".to_owned(),
    };
    Ok(Report { network, services, reaction, engine, ratio, goals_met })
}

/// Raises demand by one, measures, and puts it back.
async fn reaction(stack: &Stack) -> Result<Round> {
    let sent = now_ns();
    stack.hold(BASE + 1).await?;
    let first = |seen: &Timeline, action: &str, service: &str| -> Option<Event> {
        seen.of(action).find(|event| event.at > sent && event.service == service).cloned()
    };
    let start = stack.observer.wait_for("a start", BOUND, |seen| first(seen, "start", IMPORTANT)).await?;
    let stop = stack.observer.wait_for("a stop", BOUND, |seen| first(seen, "kill", FILL)).await?;
    let end = stack.observer.wait_for("the victim's end", BOUND, |seen| first(seen, "die", FILL)).await?;
    if stop.id != end.id || end.at > start.at {
        bail!("{} was started without waiting for the end of {}", start.name, stop.name);
    }
    let decided = decided_at(stack).await?;
    settle(stack, BASE + 1, &end.id).await?;

    let back = now_ns();
    stack.hold(BASE).await?;
    let surplus = stack
        .observer
        .wait_for("the end of a surplus", BOUND, |seen| {
            seen.of("die").find(|event| event.at > back && event.service == IMPORTANT).cloned()
        })
        .await?;
    settle(stack, BASE, &surplus.id).await?;
    Ok(round(&[sent, decided, stop.at, end.at, start.at]))
}

/// When the scheduler last decided to start one of the important service, in whole milliseconds by its own count
/// from the clock that it read at its start: the stages beside it are as exact as that.
async fn decided_at(stack: &Stack) -> Result<Nanos> {
    let decisions = stack.decisions(IMPORTANT, 10).await?.decisions;
    let starts = |action: &DecisionAction| action.action == "start" && action.service == IMPORTANT;
    let decision = decisions.iter().find(|decision| decision.actions.iter().any(starts));
    let ms = decision.context("no decision tells of a start")?.decided_at.epoch_ms();
    Ok(Nanos::try_from(ms)? * MS)
}

/// Waits until `important` run, the rest is filled, and what ended is removed: nothing is left to be done.
async fn settle(stack: &Stack, important: u32, ended: &str) -> Result<()> {
    stack.runs(i64::from(important), BOUND).await?;
    let gone = |seen: &Timeline| seen.of("destroy").any(|event| event.id == ended).then_some(());
    stack.observer.wait_for("the removal of what ended", BOUND, gone).await
}

/// The same change by bare calls.
async fn engine_alone(stack: &Stack, floor: &mut Floor) -> Result<Round> {
    let change = floor.replace().await?;
    let at = async |action: &str, id: &str| -> Result<Nanos> {
        Ok(stack.observer.wait_for_stranger("a replacement", BOUND, action, id).await?.at)
    };
    let (kill, die) = (at("kill", &change.killed).await?, at("die", &change.killed).await?);
    let (create, start) = (at("create", &change.started).await?, at("start", &change.started).await?);
    stack.engine.remove(&change.killed).await?;
    at("destroy", &change.killed).await?;
    Ok(round(&[change.begun, kill, die, create, start]))
}

fn round(moments: &[Nanos; 5]) -> Round {
    let stages_ms = moments.windows(2).map(|pair| ms(pair[1] - pair[0])).collect();
    Round { total_ms: ms(moments[4] - moments[0]), stages_ms }
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds, from minutes of nanoseconds at most")]
fn ms(span: Nanos) -> f64 {
    span as f64 / MS as f64
}

fn measured(names: [&'static str; 4], rounds: Vec<Round>) -> Measured {
    let of = |pick: &dyn Fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let totals = of(&|round| round.total_ms);
    let stages = names.iter().enumerate();
    Measured {
        p50_ms: percentile(&totals, 50),
        p90_ms: percentile(&totals, 90),
        p99_ms: (totals.len() >= 100).then(|| percentile(&totals, 99)),
        min_ms: percentile(&totals, 0),
        max_ms: percentile(&totals, 100),
        stages: stages.map(|(i, &name)| (name, percentile(&of(&|round| round.stages_ms[i]), 50))).collect(),
        rounds,
    }
}

/// By nearest rank: the smallest value that `percent` of all do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

fn print(report: &Report, rounds: u32) {
    let Report { network, services, reaction, engine, ratio, goals_met } = report;
    println!("a rise in demand by one with all slots full: {rounds} rounds, {network} network, {services}");
    println!();
    println!("{:28} {:>9} {:>9} {:>9} {:>9} {:>9}", "ms", "p50", "p90", "p99", "min", "max");
    let rows = [("PUT to start event", reaction), ("kill + create + start", engine)];
    for (name, measured) in rows {
        let Measured { p50_ms, p90_ms, p99_ms, min_ms, max_ms, .. } = measured;
        let p99 = p99_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1}"));
        println!("{name:28} {p50_ms:>9.1} {p90_ms:>9.1} {p99:>9} {min_ms:>9.1} {max_ms:>9.1}");
    }
    for (name, measured) in rows {
        println!("\nmedians by stage, {name}:");
        for (stage, ms) in &measured.stages {
            println!("  {stage:32} {ms:>8.1}");
        }
    }
    println!("\nratio of the medians: {ratio:.3} (goal: under {GOAL_RATIO})");
    println!("p90: {:.0} ms (goal: under {GOAL_P90_MS:.0} ms)", reaction.p90_ms);
    println!("goals: {}", if *goals_met { "met" } else { "missed" });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        let values: Vec<f64> = (1..=30).map(f64::from).collect();
        let picked = [0, 50, 90, 99, 100].map(|percent| percentile(&values, percent));
        assert!(
            picked.iter().zip([1.0, 15.0, 27.0, 30.0, 30.0]).all(|(a, b)| (a - b).abs() < 1e-9),
            "{picked:?}"
        );
        assert!((percentile(&[7.0], 50) - 7.0).abs() < 1e-9);
    }
}
