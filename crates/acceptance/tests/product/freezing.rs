//! Preemption by freezing: what is preempted loses nothing, and the scheduler does not grow.

use std::collections::BTreeSet;

use acceptance::observer::now_ns;
use acceptance::stack::{FILL, IMPORTANT, Options, SLOTS, Stack};
use acceptance::timeline::{Event, MS};
use api_types::snapshot::Snapshot;

use crate::BOUND;

/// How many important containers come and go at once: one on each instance.
const STEP: u32 = 3;

/// The scheduler's memory may grow by this much after the first fifth of the rounds, in KiB: it keeps its last thousand
/// decisions, of 2 to 3 KiB each, which some 150 rounds fill.
const GROWTH_MAX_KIB: u64 = 4_096;

/// And by this much in the last quarter of many: by then there is nothing that still fills.
const LATE_GROWTH_MAX_KIB: u64 = 512;

/// So many rounds are many.
const MANY_ROUNDS: usize = 100;

/// Demand rises by one container an instance and falls again. Each rise freezes three that count aloud, each fall
/// thaws three.
#[tokio::test]
async fn what_is_preempted_by_freezing_loses_no_count_and_memory_stays_flat() {
    let swaps = acceptance::from_environment("FORCE12_ACCEPTANCE_SWAPS", 100);
    let options = Options {
        important_lines: "freezable = true\nstandby = 1",
        fill_lines: "freezable = true\non_preempt = \"freeze\"\ncommand = [\"--count-every-ms\", \"50\"]",
        ..Options::default()
    };
    let stack = Stack::start(options).await.unwrap();
    stack.hold(0).await.unwrap();
    stack.settled(0, STEP, BOUND).await.unwrap();
    let begun = now_ns();
    let mut memory_kib = Vec::new();
    let mut frozen = 0;
    // A round that freezes nothing shows nothing.
    for _ in 0..swaps {
        for demand in [STEP, 0] {
            stack.hold(demand).await.unwrap();
            stack.settled(demand, 0, BOUND).await.unwrap();
        }
        memory_kib.push(stack.scheduler.resident_kib().unwrap());
        let seen = stack.observer.timeline().unwrap();
        let pauses = seen.after(begun).iter().filter(|event| is_fill(event, "pause"));
        frozen = u64::try_from(pauses.count()).unwrap();
        if frozen >= swaps {
            break;
        }
    }
    assert!(frozen >= swaps, "{frozen} were frozen; {swaps} were to be");
    stack.settled(0, STEP, BOUND).await.unwrap();
    println!(
        "{frozen} preempted in {} ms; memory of the scheduler, KiB: {memory_kib:?}",
        (now_ns() - begun) / MS
    );

    let seen = stack.checked_timeline().await.unwrap();
    let lost: Vec<&Event> = seen.after(begun).iter().filter(|event| is_fill(event, "die")).collect();
    assert!(lost.is_empty(), "what was to be frozen has ended: {lost:#?}");
    let started = seen.of("start").filter(|event| event.service == FILL);
    let counters: BTreeSet<&str> = started.map(|event| event.id.as_str()).collect();
    assert!(counters.len() >= usize::try_from(SLOTS).unwrap(), "{counters:?}");
    for counter in counters {
        let output = stack.engine.output(counter).await.unwrap();
        let numbers: Vec<u64> = output.lines().map(|line| line.parse().unwrap()).collect();
        assert!(!numbers.is_empty(), "{counter} never counted");
        let lost = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
        assert_eq!(lost, None, "{counter} lost count");
    }

    let rounds = memory_kib.len();
    let grown_from = |round: usize| memory_kib[rounds - 1].saturating_sub(memory_kib[round]);
    assert!(grown_from(rounds / 5) <= GROWTH_MAX_KIB, "memory grew by {} KiB", grown_from(rounds / 5));
    let late = grown_from(rounds * 3 / 4);
    assert!(rounds < MANY_ROUNDS || late <= LATE_GROWTH_MAX_KIB, "memory still grows, by {late} KiB");
}

fn is_fill(event: &Event, action: &str) -> bool {
    event.service == FILL && event.action == action
}

/// One that has been healthy before it was frozen serves as soon as it is thawed: its next check is an interval away.
#[tokio::test]
async fn a_standby_that_was_healthy_serves_before_its_next_check_also_after_a_restart_of_the_scheduler() {
    const CHECKED_EVERY_MS: u64 = 3_000;
    let options = Options {
        important_lines: "freezable = true\nstandby = 1\non_preempt = \"freeze\"\nready = \"healthy\"\n\
                          env = { WORKLOAD_READY_AFTER_MS = \"0\" }\n\
                          healthcheck = { command = [\"/workload\", \"healthcheck\"], interval_ms = 3000 }",
        fill_lines: "freezable = true\non_preempt = \"freeze\"",
        ..Options::default()
    };
    let mut stack = Stack::start(options).await.unwrap();
    for restart in [false, true] {
        stack.hold(0).await.unwrap();
        stack.settled(0, STEP, BOUND).await.unwrap();
        if restart {
            stack.scheduler.kill().await.unwrap();
            stack.scheduler.start().await.unwrap();
            stack.settled(0, STEP, BOUND).await.unwrap();
        }
        stack.hold(STEP).await.unwrap();
        let serve = |snapshot: &Snapshot| {
            let important = snapshot.services.iter().find(|it| it.name == IMPORTANT);
            snapshot.reaction.count > 0 && important.is_some_and(|it| it.running == STEP && it.unhealthy == 0)
        };
        let snapshot = stack.snapshot_until("three serve", BOUND, serve).await.unwrap();
        let took_ms = snapshot.reaction.last_ms.unwrap();
        assert!(took_ms < CHECKED_EVERY_MS, "they were checked first: it took {took_ms} ms");
    }
    // The engine's checks agree, and nobody is replaced.
    let before = now_ns();
    stack.settled(STEP, STEP, BOUND).await.unwrap();
    let seen = stack.checked_timeline().await.unwrap();
    let ended = seen.after(before).iter().filter(|event| event.service == IMPORTANT && event.action == "die");
    assert_eq!(ended.count(), 0, "{seen}");
}
