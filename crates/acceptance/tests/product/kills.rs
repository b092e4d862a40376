//! The scheduler killed at random moments under changing demand, and started again.

use std::time::Duration;

use acceptance::demand::DemandRecorder;
use acceptance::observer::now_ns;
use acceptance::stack::{FILL, IMPORTANT, Options, SLOTS, Stack};
use acceptance::timeline::{MS, Nanos, Timeline, moment};
use api_types::decision::Decisions;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{BOUND, FALL_GRACE_NS, RECEIPT_LAG_NS, lines, seed};

/// Milliseconds between two steps of demand: as quick as leaves time for success in between.
const INTERVAL_MS: u64 = 1_000;

/// Milliseconds after a change of demand in which its swaps are under way.
const SWAP_MS: u64 = 250;

/// From a kill to the moment at which everything was right again.
struct Outage {
    killed: Nanos,
    regained: Nanos,
    /// What the scheduler decided after its start, to be read if something is wrong.
    decisions: Decisions,
}

/// Waits for success, which comes with a change of what runs or of what is wanted.
async fn regained(stack: &Stack, demand: &DemandRecorder, success: impl Fn(&Timeline) -> Option<()>) {
    loop {
        tokio::select! {
            seen = stack.observer.wait_for("success", BOUND, &success) => return seen.unwrap(),
            changed = demand.next_change(BOUND) => changed.unwrap(),
        }
    }
}

#[tokio::test]
async fn a_killed_scheduler_adopts_what_runs() {
    let kills = acceptance::from_environment("FORCE12_ACCEPTANCE_KILLS", 10);
    let seed = seed();
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let options = Options { interval_ms: INTERVAL_MS, seed, ..Options::default() };
    let mut stack = Stack::start(options).await.unwrap();
    let demand = stack.record_demand().await.unwrap();
    let success = |seen: &Timeline| {
        let wanted = demand.of(IMPORTANT).ok()?.at(Nanos::MAX);
        let right = seen.running_of(IMPORTANT).at(Nanos::MAX) == wanted;
        (right && seen.running_total().at(Nanos::MAX) == SLOTS).then_some(())
    };
    stack.observer.wait_for("the first success", BOUND, success).await.unwrap();

    let mut outages = Vec::new();
    for kill in 0..kills {
        demand.next_change(BOUND).await.unwrap();
        // Not in place of a condition: the random moment. Every second one strikes while much is under way.
        let within_ms = if kill % 2 == 0 { INTERVAL_MS } else { SWAP_MS };
        tokio::time::sleep(Duration::from_millis(dice.random_range(0..within_ms))).await;
        let killed = now_ns();
        stack.scheduler.kill().await.unwrap();
        stack.scheduler.start().await.unwrap();
        stack.scheduler.ready().await.unwrap();
        tokio::time::timeout(BOUND, regained(&stack, &demand, success)).await.expect("success after a kill");
        let (regained, decisions) = (now_ns(), stack.scheduler.get("/v1/decisions").await.unwrap());
        outages.push(Outage { killed, regained, decisions });
    }

    let seen = stack.checked_timeline().await.unwrap();
    let end = now_ns();
    let wanted = demand.of(IMPORTANT).unwrap();
    let running = seen.running_of(IMPORTANT);
    let took: Vec<Nanos> = outages.iter().map(|outage| (outage.regained - outage.killed) / MS).collect();
    println!(
        "{kills} kills among {} container events; success regained after {took:?} ms",
        seen.events().len()
    );

    // While nobody schedules, what was wanted at any time of the outage excuses what runs.
    let since = |at: Nanos| {
        let outage = outages.iter().find(|outage| (outage.killed..outage.regained).contains(&at));
        outage.map_or(at, |outage| outage.killed) - FALL_GRACE_NS
    };
    let least = |at| wanted.min_in(since(at), at + RECEIPT_LAG_NS);
    let most = |at| wanted.max_in(since(at), at + RECEIPT_LAG_NS);
    let mut wrong = seen.stopped_below(IMPORTANT, least);
    wrong.extend(seen.stopped_below(FILL, |at| SLOTS - most(at)));
    let ends = outages.iter().skip(1).map(|next| next.killed).chain([end]);
    for (outage, next) in outages.iter().zip(ends) {
        let most_wanted = wanted.max_in(outage.killed - FALL_GRACE_NS, outage.regained + RECEIPT_LAG_NS);
        wrong.extend(Timeline::more_than(&running, most_wanted, outage.killed, outage.regained));
        wrong.extend(Timeline::more_than_wanted(&running, &wanted, FALL_GRACE_NS, outage.regained, next));
    }
    for outage in &outages {
        if wrong.iter().any(|breach| (outage.killed..=outage.regained).contains(&breach.from)) {
            eprintln!("decided after the kill at {}: {:#?}", moment(outage.killed), outage.decisions);
        }
    }
    assert!(wrong.is_empty(), "seed {seed}:\n{}", lines(&wrong));
}
