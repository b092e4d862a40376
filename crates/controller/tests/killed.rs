//! The scheduler killed at random moments under changing demand, and started again: in simulation, many times.
//!
//! `FORCE12_SIM_SEEDS` sets how many seeds are tried (1,000), `FORCE12_SIM_SEED` the first of them (0): a failure
//! prints its seed.

mod support;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use driver_testkit::sim::{Actor, Happening};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use support::{CLUSTER, Scene, pass_ms};

/// Kills in one simulation.
const ROUNDS: u32 = 3;

/// From its start to success, with demand left alone: a first observation, the worst swap (three in a row on one
/// instance, each with a stop of 90 ms and a start of 130), and as much again; the hold of fill (2,000 ms).
const SUCCESS_WITHIN_MS: u64 = 4_000;

/// How long a demand may still be acted upon after it has changed: it reaches the loop within the poll of a source
/// that has just been asked for the first time (250 ms), and what was issued then takes a start and a stop. After
/// a kill, what has reached the engine is done all the same.
const ACTED_ON_FOR_MS: u64 = 800;

/// Demand over time: each value, since when.
type Demands = VecDeque<(u64, u32)>;

fn extremes(demands: &Demands, from_ms: u64, until_ms: u64) -> (u32, u32) {
    let first = demands.iter().rposition(|&(since_ms, _)| since_ms <= from_ms).unwrap_or(0);
    let values = demands
        .iter()
        .skip(first)
        .take_while(|&&(since_ms, _)| since_ms <= until_ms)
        .map(|&(_, value)| value);
    let (least, most) = (values.clone().min(), values.max());
    (least.expect("a demand is in force"), most.expect("a demand is in force"))
}

async fn simulate(seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut scene = if random.random_bool(0.5) { Scene::demo(seed) } else { Scene::spread(seed) };
    scene.engine().place_foreign("somebody-elses");
    let demands: Arc<Mutex<Demands>> = Arc::new(Mutex::new(Demands::new()));
    let mut demand = 4;
    demands.lock().unwrap().push_back((0, demand));

    for round in 0..ROUNDS {
        let running = scene.start();
        // Not always from a quiet cluster.
        if round == 0 || random.random_bool(0.5) {
            running.until_success(SUCCESS_WITHIN_MS, demand, 9 - demand).await;
        }
        let changes = random.random_range(1..=4);
        let board = scene.board.clone();
        let mut dice = ChaCha8Rng::seed_from_u64(seed ^ u64::from(round) << 32);
        let started_at_ms = scene.engine().now_ms();
        let noted = Arc::clone(&demands);
        let playing = tokio::spawn(async move {
            let started_at = tokio::time::Instant::now();
            let mut last = None;
            for _ in 0..changes {
                let next = dice.random_range(0..=9);
                let at_ms = started_at_ms + u64::try_from(started_at.elapsed().as_millis()).unwrap();
                noted.lock().unwrap().push_back((at_ms, next));
                board.set("priority1", next);
                last = Some(next);
                pass_ms(dice.random_range(5..=300)).await;
            }
            last.expect("there is one change at least")
        });
        pass_ms(random.random_range(0..=600)).await;
        running.kill().await;
        demand = playing.await.unwrap();
        pass_ms(random.random_range(0..=200)).await;
    }
    let running = scene.start();
    running.until_success(SUCCESS_WITHIN_MS, demand, 9 - demand).await;
    running.kill().await;

    scene.assert_sound();
    let demands = demands.lock().unwrap();
    check_priority1(&scene, &demands);
}

/// Never more of priority 1 starting and running than was demanded of late: nothing was started twice. And never
/// one stopped by us that a demand of late wanted.
fn check_priority1(scene: &Scene, demands: &Demands) {
    let mut changes: Vec<(u64, bool, bool, String)> = Vec::new();
    for engine in &scene.engines {
        for entry in engine.history().of("priority1") {
            let words = format!("{:?} of {} by {:?}", entry.what, entry.subject.name, entry.by);
            match entry.what {
                Happening::Starting => changes.push((entry.at_ms, true, false, words)),
                Happening::Stopping => changes.push((entry.at_ms, false, entry.by == Actor::Driver, words)),
                Happening::StartFailed => panic!("a start has failed: {words}"),
                _ => {}
            }
        }
    }
    changes.sort_by_key(|&(at_ms, start, ..)| (at_ms, start));
    let mut have: u32 = 0;
    for (at_ms, start, by_driver, words) in &changes {
        let (least, most) = extremes(demands, at_ms.saturating_sub(ACTED_ON_FOR_MS), *at_ms);
        if *start {
            have += 1;
            assert!(
                have <= most,
                "at {at_ms} ms {words}: {have} of priority 1, of {most}; {changes:?} {demands:?}"
            );
        } else {
            have -= 1;
            assert!(
                !by_driver || have >= least,
                "at {at_ms} ms {words}: {have} of priority 1 left, of {least}; {changes:?} {demands:?}"
            );
        }
    }
}

/// Names the seed of a simulation that fails: several run side by side.
struct Named(u64);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("failed with FORCE12_SIM_SEED={}", self.0);
        }
    }
}

fn number(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number of seeds"))
}

#[test]
fn killed_at_any_moment_it_goes_on_where_it_was() {
    let first = number("FORCE12_SIM_SEED", 0);
    let count = number("FORCE12_SIM_SEEDS", 1_000);
    println!("cluster {CLUSTER}: {count} seeds from {first}");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for offset in 0..threads {
            scope.spawn(move || {
                for seed in (first..first + count).skip(offset).step_by(threads) {
                    let mut runtime = tokio::runtime::Builder::new_current_thread();
                    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
                    let _named = Named(seed);
                    runtime.block_on(simulate(seed));
                }
            });
        }
    });
}
