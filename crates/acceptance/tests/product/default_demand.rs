//! The demo as it is: a walk between 0 and 9, a step every three seconds, watched from outside.

use std::time::Duration;

use acceptance::observer::now_ns;
use acceptance::stack::{FILL, IMPORTANT, Options, SLOTS, Stack};
use acceptance::timeline::{Nanos, Timeline};

use crate::{FALL_GRACE_NS, RECEIPT_LAG_NS, lines, seed};

/// From the start of the services to the first success.
const FIRST_SUCCESS_BOUND: Duration = Duration::from_secs(15);

/// Of the time watched.
const SUCCESS_LEAST: f64 = 0.93;

#[tokio::test]
async fn default_demand_is_met_and_nothing_is_overdone() {
    let stack = Stack::start(Options { seed: seed(), ..Options::default() }).await.unwrap();
    let demand = stack.record_demand().await.unwrap();
    let full = |seen: &Timeline| (seen.running_total().at(Nanos::MAX) == SLOTS).then_some(());
    stack.observer.wait_for("nine running", FIRST_SUCCESS_BOUND, full).await.unwrap();

    let from = now_ns();
    // Not in place of a condition: this is the time that is watched.
    tokio::time::sleep(Duration::from_secs(acceptance::from_environment("FORCE12_ACCEPTANCE_WATCH_S", 120)))
        .await;
    let to = now_ns();

    let seen = stack.checked_timeline().await.unwrap();
    let wanted = demand.of(IMPORTANT).unwrap();
    let (important, all) = (seen.running_of(IMPORTANT), seen.running_total());
    let changes = wanted.changes().iter().filter(|change| (from..to).contains(&change.0)).count();
    let success = |at| important.at(at) == wanted.at(at) && all.at(at) == SLOTS;
    let fraction = Timeline::fraction(&[&wanted, &important, &all], from, to, success);
    println!(
        "success {:.2} % of {} s, {changes} changes of demand",
        fraction * 100.0,
        (to - from) / 1_000_000_000
    );

    let overdone = Timeline::more_than_wanted(&important, &wanted, FALL_GRACE_NS, from, to);
    assert!(overdone.is_empty(), "more of {IMPORTANT} than was wanted:\n{}", lines(&overdone));
    let lately = |at| (at - FALL_GRACE_NS, at + RECEIPT_LAG_NS);
    let mut stopped = seen.stopped_below(IMPORTANT, |at| wanted.min_in(lately(at).0, lately(at).1));
    stopped.extend(seen.stopped_below(FILL, |at| SLOTS - wanted.max_in(lately(at).0, lately(at).1)));
    assert!(stopped.is_empty(), "stopped what was wanted:\n{}", lines(&stopped));
    assert!(changes > 0, "demand never changed, so this shows nothing");
    assert!(fraction >= SUCCESS_LEAST, "success {:.2} % of the time", fraction * 100.0);
}
