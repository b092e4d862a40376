//! Two schedulers of one cluster, the one that acts killed, stopped and continued, over and over.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use acceptance::binaries::Binaries;
use acceptance::observer::now_ns;
use acceptance::restarted::Restarted;
use acceptance::service::Service;
use acceptance::stack::{IMPORTANT, Options, SLOTS, Stack};
use acceptance::timeline::{Nanos, Timeline, moment};
use api_types::snapshot::Snapshot;
use nix::sys::signal::Signal;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{BOUND, RECEIPT_LAG_NS, lines, seed};

/// The time that is watched.
const WATCHED: Duration = Duration::from_mins(2);
/// What happens to the one that acts, in turns, and as often.
const BLOWS: [Blow; 10] = [
    Blow::Kill,
    Blow::Stop(LONG),
    Blow::Stop(SHORT),
    Blow::Kill,
    Blow::Stop(LONG),
    Blow::Stop(SHORT),
    Blow::Kill,
    Blow::Stop(LONG),
    Blow::Stop(SHORT),
    Blow::Kill,
];
/// Beyond the default `stalled_after_ms`: by then the other acts.
const LONG: Duration = Duration::from_secs(5);
/// Within it: it goes on.
const SHORT: Duration = Duration::from_millis(500);
/// From a blow to the moment at which the other acts.
const TAKEOVER_BOUND: Duration = Duration::from_secs(5);
/// Of the time watched.
const SUCCESS_LEAST: f64 = 0.80;
/// What was wanted as long ago excuses what is stopped: nobody acts for as long as a takeover takes.
const OUTAGE_NS: Nanos = 7_000_000_000;
/// How far around something that went wrong events are told.
const NEAR_NS: Nanos = 2_000_000_000;
/// A scheduler that is stopped answers nothing, and does not refuse either.
const ANSWER_BOUND: Duration = Duration::from_millis(250);
const POLL: Duration = Duration::from_millis(20);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Blow {
    Kill,
    /// SIGSTOP, and SIGCONT after so long.
    Stop(Duration),
}

/// The epoch of a scheduler that acts.
async fn epoch(scheduler: &Restarted) -> Option<String> {
    let answer = scheduler.service.get::<Snapshot>("/v1/snapshot");
    Some(tokio::time::timeout(ANSWER_BOUND, answer).await.ok()?.ok()?.epoch)
}

/// Which of them acts, and in which epoch; waits until one does.
async fn acting(schedulers: &[Restarted; 2]) -> (usize, String) {
    let begun = Instant::now();
    loop {
        for (index, scheduler) in schedulers.iter().enumerate() {
            if let Some(epoch) = epoch(scheduler).await {
                return (index, epoch);
            }
        }
        assert!(begun.elapsed() < BOUND, "nobody acts");
        tokio::time::sleep(POLL).await;
    }
}

/// Puts two schedulers with one lock file in the place of the stack's own, and has status-api follow both.
async fn two_schedulers(stack: &mut Stack, directory: &std::path::Path) -> [Restarted; 2] {
    stack.scheduler.terminate(BOUND).await.unwrap();
    stack.status_api.terminate(BOUND).await.unwrap();
    let binary = Binaries::locate().await.unwrap().path("force12-scheduler");
    let alone = std::fs::read_to_string(stack.scheduler.config()).unwrap();
    let lock_file = directory.join("acceptance.lock");
    let config = |listen: SocketAddr| {
        let keys = format!("listen = \"{listen}\"\nlock_file = \"{}\"", lock_file.display());
        alone.replace(&format!("listen = \"{}\"", stack.scheduler.address()), &keys)
    };
    let schedulers = ["scheduler-1", "scheduler-2"].map(|name| {
        let service = Service::new(name, binary, directory, stack.scheduler.token(), config).unwrap();
        Restarted::start(service).unwrap()
    });
    let status_api = std::fs::read_to_string(stack.status_api.config()).unwrap();
    let urls = schedulers.each_ref().map(|scheduler| scheduler.service.url(""));
    let one = format!("scheduler_url = \"{}\"", stack.scheduler.url(""));
    let both = format!("scheduler_url = {urls:?}");
    assert!(status_api.contains(&one));
    std::fs::write(stack.status_api.config(), status_api.replace(&one, &both)).unwrap();
    stack.status_api.start().await.unwrap();
    schedulers
}

#[tokio::test]
async fn two_schedulers_of_one_cluster_do_no_harm_whatever_happens_to_the_one_that_acts() {
    let seed = seed();
    let mut dice = ChaCha8Rng::seed_from_u64(seed);
    let directory = tempfile::tempdir().unwrap();
    let mut stack = Stack::start(Options { seed, ..Options::default() }).await.unwrap();
    let schedulers = two_schedulers(&mut stack, directory.path()).await;
    let demand = stack.record_demand().await.unwrap();
    let full = |seen: &Timeline| (seen.running_total().at(Nanos::MAX) == SLOTS).then_some(());
    stack.observer.wait_for("nine running", BOUND, full).await.unwrap();

    let (begun, from) = (Instant::now(), now_ns());
    let between = WATCHED / u32::try_from(BLOWS.len()).unwrap();
    let mut takeovers = Vec::new();
    for (number, blow) in (0..).zip(BLOWS) {
        // Not in place of a condition: the random moment.
        let at = between * number + Duration::from_millis(dice.random_range(0..3_000));
        tokio::time::sleep(at.saturating_sub(begun.elapsed())).await;
        let (index, before) = acting(&schedulers).await;
        let (hit, other) = (&schedulers[index], &schedulers[1 - index]);
        let pid = hit.pid().expect("it acts, so it runs");
        let struck = Instant::now();
        let signal = if blow == Blow::Kill { Signal::SIGKILL } else { Signal::SIGSTOP };
        assert!(hit.signal(pid, signal).unwrap(), "it acts, so it runs");
        if blow == Blow::Stop(SHORT) {
            tokio::time::sleep(SHORT).await;
            assert!(hit.signal(pid, Signal::SIGCONT).unwrap(), "{SHORT:?} of a stop are survived");
            assert_eq!(acting(&schedulers).await, (index, before), "and it goes on");
            continue;
        }
        let after = loop {
            if let Some(epoch) = epoch(other).await {
                break epoch;
            }
            assert!(struck.elapsed() < TAKEOVER_BOUND, "blow {number} ({blow:?}): nobody takes over");
            tokio::time::sleep(POLL).await;
        };
        let acts_ms = struck.elapsed().as_millis();
        let shows = |shown: &Snapshot| {
            shown.epoch == after && shown.source.as_ref().is_some_and(|source| source.live)
        };
        stack.status_api.get_until::<Snapshot>("/v1/snapshot", "the new one", BOUND, shows).await.unwrap();
        takeovers.push((blow, acts_ms, struck.elapsed().as_millis()));
        if let Blow::Stop(stopped) = blow {
            tokio::time::sleep(stopped.saturating_sub(struck.elapsed())).await;
            assert!(!hit.signal(pid, Signal::SIGCONT).unwrap(), "what was stopped for so long is gone");
        }
        assert_eq!(epoch(other).await, Some(after), "who was hit is back by now, and stands by");
    }
    tokio::time::sleep(WATCHED.saturating_sub(begun.elapsed())).await;
    let to = now_ns();

    let seen = stack.checked_timeline().await.unwrap();
    let wanted = demand.of(IMPORTANT).unwrap();
    let (important, all) = (seen.running_of(IMPORTANT), seen.running_total());
    let success = |at| important.at(at) == wanted.at(at) && all.at(at) == SLOTS;
    let fraction = Timeline::fraction(&[&wanted, &important, &all], from, to, success);
    let starts = seen.of("start").filter(|event| (from..to).contains(&event.at)).count();
    let changes = wanted.changes().iter().filter(|change| (from..to).contains(&change.0)).count();
    for (blow, acts_ms, shown_ms) in &takeovers {
        println!("{blow:?}: the other acts after {acts_ms} ms, and is shown after {shown_ms} ms");
    }
    println!(
        "success {:.2} % of {} s, {changes} changes of demand, {starts} starts, none twice; ended: {:?}",
        fraction * 100.0,
        (to - from) / 1_000_000_000,
        schedulers.each_ref().map(|scheduler| scheduler.ends().unwrap().len())
    );

    // Of the important service only: a fill that is stopped for a demand may leave fewer than there will be, while
    // another one of it is being started.
    let least = |at: Nanos| wanted.min_in(at - OUTAGE_NS, at + RECEIPT_LAG_NS);
    let stopped = seen.stopped_below(IMPORTANT, least);
    for breach in &stopped {
        let near = |at: Nanos| (at - breach.from).abs() < NEAR_NS;
        for event in seen.events().iter().filter(|event| near(event.at)) {
            eprintln!("{} {:8} {}", moment(event.at), event.action, event.name);
        }
    }
    assert!(stopped.is_empty(), "stopped what was wanted:\n{}", lines(&stopped));
    for scheduler in &schedulers {
        let killed = |end: &std::process::ExitStatus| end.code().is_none();
        assert!(scheduler.ends().unwrap().iter().all(killed), "one ended by itself: {:?}", scheduler.ends());
    }
    assert!(fraction >= SUCCESS_LEAST, "success {:.2} % of the time", fraction * 100.0);
}
