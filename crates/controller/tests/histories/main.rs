//! Whole histories of a cluster, drawn from seeds and played on virtual time: demand that changes, faults of every kind,
//! and a controller that is killed. What must always hold is checked all along; and once all is well again, the cluster
//! has to be what arithmetic says, and stay so.
//!
//! `FORCE12_SIM_HISTORIES` sets how many are played (10,000), `FORCE12_SIM_SEED` the first seed (0). One that fails
//! prints its seed and the fewest steps that still fail; `FORCE12_SIM_HISTORIES=1` plays one alone.
#![expect(unreachable_pub, reason = "modules of a test binary")]

mod judge;
mod play;
mod script;
mod shrink;
#[path = "../support/mod.rs"]
mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, Once};
use std::time::Instant;

use play::{Figures, play};
use script::{Script, Step};

/// The most that a failing script is played to find a smaller one.
const PLAYS_TO_SHRINK: u32 = 400;

/// Seeds whose histories once failed. They mean something as long as scripts are drawn as they were; what lasts is told
/// by name in `found.rs`.
const ONCE_FAILED: &[u64] = &[12, 33, 498, 830, 2300, 2637, 3356, 4068, 10346, 14338, 22450, 27030];

thread_local! {
    static PLAYING: Cell<bool> = const { Cell::new(false) };
    /// What the last panic on this thread said, while a history was played.
    static PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Plays these steps of a script, in a world and a time of their own.
fn play_alone(script: &Script, steps: &[Step]) -> Result<Figures, String> {
    keep_panics();
    PANIC.take();
    PLAYING.set(true);
    let played = catch_unwind(AssertUnwindSafe(|| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime can be made");
        runtime.block_on(play(script, steps))
    }));
    PLAYING.set(false);
    let panic = PANIC.take();
    match played {
        Ok(Ok(figures)) if panic.is_empty() => Ok(figures),
        Ok(Err(fault)) if panic.is_empty() => Err(fault),
        Ok(Err(fault)) => Err(format!("panicked: {panic}\n{fault}")),
        _ => Err(format!("panicked: {panic}")),
    }
}

/// All that is to be known of a history that fails: its seed, its cluster, and the fewest steps.
fn report(script: &Script, fault: String) -> String {
    let still = |steps: &[Step]| play_alone(script, steps).err();
    let (steps, fault) =
        shrink::shrink(&script.steps, PLAYS_TO_SHRINK, still).unwrap_or((script.steps.clone(), fault));
    let mut words = format!(
        "seed {seed} fails; to see it alone: FORCE12_SIM_SEED={seed} FORCE12_SIM_HISTORIES=1 cargo test -p controller \
         --test histories\n",
        seed = script.seed
    );
    for engine in &script.engines {
        let _ = writeln!(words, "{engine:?}");
    }
    for service in &script.services {
        let _ = writeln!(words, "{service:?}");
    }
    let _ = writeln!(words, "{} of {} steps:", steps.len(), script.steps.len());
    for step in &steps {
        let _ = writeln!(words, "{:>8} ms  {:?}", step.at_ms, step.what);
    }
    words.push_str(&fault);
    words
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number of histories, or a seed"))
}

/// Panics while a history is played are part of what is reported of it, and nothing else.
fn keep_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(
            move |info| {
                if PLAYING.get() { PANIC.set(info.to_string()) } else { usual(info) }
            },
        ));
    });
}

#[test]
fn what_must_hold_holds_in_every_history() {
    let first = number("FORCE12_SIM_SEED", 0);
    let count = number("FORCE12_SIM_HISTORIES", 10_000);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let (next, failed) = (AtomicU64::new(first), AtomicBool::new(false));
    let (totals, kinds) = (Mutex::new(Figures::default()), Mutex::new(BTreeMap::<&str, u64>::new()));
    let began = Instant::now();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let played = || {
            while !failed.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= first + count {
                    break;
                }
                let script = Script::draw(seed);
                match play_alone(&script, &script.steps) {
                    Ok(figures) => {
                        totals.lock().expect("nobody panics with it").add(figures);
                        let mut kinds = kinds.lock().expect("nobody panics with it");
                        for step in &script.steps {
                            *kinds.entry(step.what.kind()).or_default() += 1;
                        }
                    }
                    Err(fault) => {
                        failed.store(true, Ordering::Relaxed);
                        return Some(report(&script, fault));
                    }
                }
            }
            None
        };
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(played)).collect();
        threads.into_iter().filter_map(|thread| thread.join().expect("panics are caught")).collect()
    });
    let totals = totals.into_inner().expect("nobody panics with it");
    // Past the capture of a test's output: the figures are of interest when it passes.
    let mut out = std::io::stderr();
    let _ = writeln!(
        out,
        "{count} histories from seed {first}: {} actions, {} happenings, {} virtual hours, settled after {} ms at most, \
         in {} s",
        totals.actions,
        totals.happenings,
        totals.virtual_ms / 3_600_000,
        totals.settled_after_ms,
        began.elapsed().as_secs()
    );
    let kinds = kinds.into_inner().expect("nobody panics with it");
    let kinds: Vec<String> = kinds.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let _ = writeln!(out, "what happened in them: {}", kinds.join("; "));
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

#[test]
fn what_once_failed_holds() {
    for &seed in ONCE_FAILED {
        let script = Script::draw(seed);
        if let Err(fault) = play_alone(&script, &script.steps) {
            panic!("{}", report(&script, fault));
        }
    }
}
