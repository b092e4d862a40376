//! The product under default demand at ten times its pace, for as long as wanted: what the services hold, whether
//! it grows, and how much of the time what is wanted runs.
//!
//! Success and containers are judged from outside, by the engine's own events. Memory is compared by the medians of
//! two windows, the first one after the warm-up and the last one. Files and threads are compared at rest, where
//! nothing is under way that comes and goes: demand is held for a while after the warm-up, and again at the end.

mod process;
mod report;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use acceptance::demand::DemandRecorder;
use acceptance::engine::CLUSTER_LABEL;
use acceptance::observer::now_ns;
use acceptance::stack::{IMPORTANT, Options, SLOTS, Stack};
use acceptance::timeline::{Nanos, Timeline};
use anyhow::{Context as _, Result, bail};
use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use crate::process::{Held, engine_pid};
use crate::report::{Report, Sample};
use crate::verdict::ByService;

/// Milliseconds from one step of demand to the next: a tenth of the demo's.
const INTERVAL_MS: u64 = 300;

/// Milliseconds of history that status-api keeps: less than the shortest warm-up, so that what is kept on purpose
/// does not look like a leak.
const HISTORY_WINDOW_MS: u64 = 10_000;

/// From one sample to the next.
const SAMPLE_PERIOD: Duration = Duration::from_secs(10);

/// A line of progress comes with every so many samples.
const SAMPLES_A_LINE: usize = 6;

/// At most; a quarter of a shorter run.
const WARMUP_MOST: Duration = Duration::from_mins(5);

/// The demand that is held at rest.
const REST_DEMAND: u32 = 4;

/// How long the services are looked at while they rest: longer than an idle thread or connection of theirs is kept.
const REST: Duration = Duration::from_secs(15);

/// Between two looks while they rest.
const REST_LOOK: Duration = Duration::from_millis(500);

/// The time for any one change; a debug build on a busy machine stays far below.
const BOUND: Duration = Duration::from_secs(30);

/// Where a ctrl-c ends the services too, its signal may be noticed here only after their end.
const SIGNAL_LAG: Duration = Duration::from_millis(500);

/// Runs the services under changing demand, and tells what they hold and whether it grows.
#[derive(Parser)]
#[command(name = "soak")]
struct Arguments {
    /// How many minutes, 2 to 10,080.
    #[arg(default_value_t = 60, value_parser = clap::value_parser!(u64).range(2..=10_080))]
    minutes: u64,
    /// The seed of demand.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write everything as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    let (mut interrupts, mut terminations) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let ended = async move {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
        }
    };
    let mut ended = std::pin::pin!(ended);
    let mut report = Report::new(arguments.minutes, arguments.seed, INTERVAL_MS);
    let outcome = tokio::select! {
        biased;
        () = &mut ended => None,
        outcome = Box::pin(soak(&arguments, &mut report)) => Some(outcome),
    };
    match outcome {
        Some(Ok(())) => {}
        // The services were interrupted with this process, and failed it first.
        Some(Err(_)) if timeout(SIGNAL_LAG, &mut ended).await.is_ok() => report.interrupted = true,
        Some(Err(error)) => report.wrong.push(format!("{error:#}")),
        None => report.interrupted = true,
    }
    report.conclude();
    report.print();
    if let Some(path) = &arguments.json {
        let json = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(path, json).with_context(|| format!("write {}", path.display()))?;
    }
    Ok(if report.passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The whole run; what has been seen so far is in `report`, however it ends.
async fn soak(arguments: &Arguments, report: &mut Report) -> Result<()> {
    let (interval_ms, seed) = (INTERVAL_MS, arguments.seed);
    let options = Options { interval_ms, seed, history_window_ms: HISTORY_WINDOW_MS, ..Options::default() };
    let mut stack = Stack::start(options).await?;
    let demand = stack.record_demand().await?;
    let full = |seen: &Timeline| (seen.running_total().at(Nanos::MAX) == SLOTS).then_some(());
    stack.observer.wait_for("nine running", BOUND, full).await?;
    eprintln!("{} on {}: a step of demand every {INTERVAL_MS} ms", stack.cluster, stack.engine.address());

    let begun = Instant::now();
    let whole = Duration::from_mins(arguments.minutes);
    let warmup = WARMUP_MOST.min(whole / 4);
    report.warmup_s = warmup.as_secs();
    report.window_s = WARMUP_MOST.min(whole.saturating_sub(warmup) / 3).as_secs();
    watch(&stack, &demand, begun, begun + warmup, report).await?;
    report.rest_first = rest(&stack, report).await?;
    stack.let_go().await?;
    watch(&stack, &demand, begun, begun + whole, report).await?;
    report.rest_last = rest(&stack, report).await?;

    stack.checked_timeline().await?;
    let config = stack.scheduler.config().to_string_lossy().into_owned();
    stack.scheduler.terminate(BOUND).await?;
    let drained = timeout(BOUND, stack.scheduler.command(&["drain", &config])?.status()).await??;
    let left = stack.engine.containers_with(CLUSTER_LABEL, &stack.cluster).await?;
    let ours = format!("/force12.{}.", stack.cluster);
    // A stranger's image carries our labels as well.
    let left =
        left.iter().flat_map(|container| container.names.iter().flatten()).filter(|n| n.starts_with(&ours));
    let left: Vec<_> = left.collect();
    if !drained.success() || !left.is_empty() {
        bail!("drain ended with {drained} and left {left:?}");
    }
    Ok(())
}

/// Takes samples until `end`.
async fn watch(
    stack: &Stack,
    demand: &DemandRecorder,
    begun: Instant,
    end: Instant,
    report: &mut Report,
) -> Result<()> {
    let mut ticks = interval(SAMPLE_PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    let mut from = now_ns();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = sleep_until(end) => return Ok(()),
        }
        let to = now_ns();
        let wanted = demand.of(IMPORTANT)?;
        let seen = stack.observer.timeline()?;
        report.started = seen.of("start").count();
        let (important, all) = (seen.running_of(IMPORTANT), seen.running_total());
        let success = |at| important.at(at) == wanted.at(at) && all.at(at) == SLOTS;
        report.samples.push(Sample {
            at_s: begun.elapsed().as_secs(),
            services: held(stack)?,
            engine: engine_pid(stack.engine.address()).await.and_then(|pid| Held::by(pid).ok()),
            containers: containers(stack).await?,
            success: Timeline::fraction(&[&wanted, &important, &all], from, to, success),
            changes: wanted.changes().iter().filter(|change| (from..to).contains(&change.0)).count(),
        });
        from = to;
        if report.samples.len().is_multiple_of(SAMPLES_A_LINE) {
            report.print_progress(SAMPLES_A_LINE);
        }
    }
}

/// Holds demand and looks at the services for a while; returns the least that each held. Success, and nothing left
/// over, come first.
async fn rest(stack: &Stack, report: &mut Report) -> Result<ByService> {
    stack.hold(REST_DEMAND).await?;
    stack.runs(i64::from(REST_DEMAND), BOUND).await?;
    stack.snapshot_until("success", BOUND, |snapshot| snapshot.success == Some(true)).await?;
    let begun = Instant::now();
    let mut least = held(stack)?;
    while begun.elapsed() < REST {
        sleep(REST_LOOK).await;
        for (service, now) in held(stack)? {
            least.entry(service).and_modify(|before| *before = before.min(now));
        }
    }
    let containers = containers(stack).await?;
    if i64::try_from(containers)? != SLOTS {
        report.wrong.push(format!("{containers} containers at rest, and there is room for {SLOTS}"));
    }
    Ok(least)
}

fn held(stack: &Stack) -> Result<ByService> {
    let services = [
        ("demand-rng", &stack.demand_rng),
        ("force12-scheduler", &stack.scheduler),
        ("status-api", &stack.status_api),
    ];
    let held = services.into_iter().map(|(name, service)| {
        let pid = service.pid().with_context(|| format!("{name} does not run"))?;
        Ok((name, Held::by(pid).with_context(|| format!("{name} has ended"))?))
    });
    held.collect()
}

/// How many containers Force12 has on the engine, those that have ended and are not removed yet too.
async fn containers(stack: &Stack) -> Result<usize> {
    let ours = format!("/force12.{}.", stack.cluster);
    let found = stack.engine.containers_with(CLUSTER_LABEL, &stack.cluster).await?;
    Ok(found.iter().filter(|found| found.names.iter().flatten().any(|name| name.starts_with(&ours))).count())
}
