//! The demo as it is: a walk between 0 and 9, a step every three seconds, watched from outside.

use std::time::Duration;

use acceptance::observer::now_ns;
use acceptance::stack::{FILL, IMPORTANT, Options, SLOTS, Stack};
use acceptance::timeline::{Nanos, Steps, Timeline};

use crate::{BOUND, FALL_GRACE_NS, RECEIPT_LAG_NS, lines, seed};

/// From the start of the services to the first success.
const FIRST_SUCCESS_BOUND: Duration = Duration::from_secs(15);

/// Of the time watched, where victims are stopped and successors started.
const SUCCESS_LEAST: f64 = 0.93;

/// The same where victims are frozen and standbys thawed.
const SUCCESS_LEAST_FREEZING: f64 = 0.98;

/// Standbys in all, one an instance.
const STANDBYS: u32 = 3;

/// What was seen in the time watched.
struct Watched {
    from: Nanos,
    to: Nanos,
    wanted: Steps,
    seen: Timeline,
}

impl Watched {
    /// Watches for as long as the environment's `variable` says, in seconds.
    async fn watch(stack: &Stack, variable: &str, default_s: u64) -> Self {
        let demand = stack.record_demand().await.unwrap();
        let from = now_ns();
        // Not in place of a condition: this is the time that is watched.
        tokio::time::sleep(Duration::from_secs(acceptance::from_environment(variable, default_s))).await;
        let to = now_ns();
        let seen = stack.checked_timeline().await.unwrap();
        Self { from, to, wanted: demand.of(IMPORTANT).unwrap(), seen }
    }

    /// The part of the time in which as many of the important service ran as were wanted, and nine in all.
    fn success(&self) -> f64 {
        let Self { from, to, wanted, seen } = self;
        let (important, all) = (seen.running_of(IMPORTANT), seen.running_total());
        let holds = |at| important.at(at) == wanted.at(at) && all.at(at) == SLOTS;
        let fraction = Timeline::fraction(&[wanted, &important, &all], *from, *to, holds);
        let changes = wanted.changes().iter().filter(|change| (*from..*to).contains(&change.0)).count();
        let watched_s = (to - from) / 1_000_000_000;
        println!("success {:.2} % of {watched_s} s, {changes} changes of demand", fraction * 100.0);
        assert!(changes > 0, "demand never changed, so this shows nothing");
        fraction
    }
}

#[tokio::test]
async fn default_demand_is_met_and_nothing_is_overdone() {
    let stack = Stack::start(Options { seed: seed(), ..Options::default() }).await.unwrap();
    let full = |seen: &Timeline| (seen.running_total().at(Nanos::MAX) == SLOTS).then_some(());
    stack.observer.wait_for("nine running", FIRST_SUCCESS_BOUND, full).await.unwrap();

    let watched = Watched::watch(&stack, "FORCE12_ACCEPTANCE_WATCH_S", 120).await;
    let fraction = watched.success();
    let Watched { from, to, wanted, seen } = &watched;
    let important = seen.running_of(IMPORTANT);
    let overdone = Timeline::more_than_wanted(&important, wanted, FALL_GRACE_NS, *from, *to);
    assert!(overdone.is_empty(), "more of {IMPORTANT} than was wanted:\n{}", lines(&overdone));
    let lately = |at| (at - FALL_GRACE_NS, at + RECEIPT_LAG_NS);
    let mut stopped = seen.stopped_below(IMPORTANT, |at| wanted.min_in(lately(at).0, lately(at).1));
    stopped.extend(seen.stopped_below(FILL, |at| SLOTS - wanted.max_in(lately(at).0, lately(at).1)));
    assert!(stopped.is_empty(), "stopped what was wanted:\n{}", lines(&stopped));
    assert!(fraction >= SUCCESS_LEAST, "success {:.2} % of the time", fraction * 100.0);
}

#[tokio::test]
async fn default_demand_is_met_nearly_always_by_freezing_and_thawing() {
    let options = Options {
        seed: seed(),
        important_lines: "freezable = true\non_preempt = \"freeze\"\nstandby = 1",
        fill_lines: "freezable = true\non_preempt = \"freeze\"",
        ..Options::default()
    };
    let stack = Stack::start(options).await.unwrap();
    // Up and down once: from then on what the walk asks for is there, and changes places by freezing and thawing alone.
    for (demand, standbys) in [(0, STANDBYS), (9, 0), (0, STANDBYS)] {
        stack.hold(demand).await.unwrap();
        stack.settled(demand, standbys, BOUND).await.unwrap();
    }
    let from = now_ns();
    stack.let_go().await.unwrap();

    let watched = Watched::watch(&stack, "FORCE12_ACCEPTANCE_FREEZE_WATCH_S", 30).await;
    let fraction = watched.success();
    let ended: Vec<_> = watched.seen.after(from).iter().filter(|event| event.action == "die").collect();
    assert!(ended.is_empty(), "ended, and not frozen: {ended:#?}");
    assert!(fraction >= SUCCESS_LEAST_FREEZING, "success {:.2} % of the time", fraction * 100.0);
}
