//! What happens in a history, drawn from its seed.

use fake_ecs::{Config, EventDelivery, FaultRates, Lag};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// For so long things happen.
const EVENTFUL_MS: u64 = 120_000;

/// A cluster, and what happens to it.
#[derive(Debug)]
pub struct Script {
    pub seed: u64,
    /// Of each instance: the agent's version, and how many tasks it has room for beside the slots.
    pub instances: Vec<(&'static str, u64)>,
    pub slots: u64,
    pub demand: u32,
    pub config: Config,
    /// In order of time.
    pub steps: Vec<(u64, Step)>,
}

/// Something that happens; what lasts says for how long.
#[derive(Clone, Debug)]
pub enum Step {
    Demand(u32),
    Rates(FaultRates),
    RatesEnd,
    Disconnect {
        instance: usize,
    },
    Reconnect {
        instance: usize,
    },
    /// The next start on it is refused.
    Refuse {
        instance: usize,
        reason: &'static str,
    },
    /// One of our tasks dies.
    Kill {
        nth: usize,
    },
    EventsLost {
        per_mille: u32,
    },
    /// The scheduler is killed, and started again later.
    Crash,
    Start,
}

impl Script {
    pub fn draw(seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let count = dice.random_range(1..=4_usize);
        let slots = dice.random_range(1..=3_u64);
        let instances = (0..count)
            .map(|_| {
                let version = ["1.70.0", "1.73.1", "1.98.0", "1.98.0"][dice.random_range(0..4)];
                (version, [0, 0, 1, 3][dice.random_range(0..4)])
            })
            .collect();
        let total = u32::try_from(count).expect("a few") * u32::try_from(slots).expect("a few");
        let events = dice.random_bool(0.6).then(|| EventDelivery {
            delay_ms: 50..=dice.random_range(100..=3_000),
            lost_per_mille: [0, 0, 50, 300][dice.random_range(0..4)],
            doubled_per_mille: dice.random_range(0..=200),
            ..EventDelivery::default()
        });
        let lag = Lag { list: 0..=dice.random_range(0..=3_000), describe: 0..=dice.random_range(0..=1_000) };
        let config = Config { events, lag, ..Config::seeded(seed) };
        let mut steps = Vec::new();
        for _ in 0..dice.random_range(3..=14) {
            let at_ms = dice.random_range(0..EVENTFUL_MS);
            let until_ms = at_ms + dice.random_range(1_000..=40_000);
            match dice.random_range(0..14) {
                0..=4 => steps.push((at_ms, Step::Demand(dice.random_range(0..=total + 2)))),
                5 | 6 => {
                    let rates = FaultRates {
                        throttled_per_mille: dice.random_range(0..=300),
                        server_error_per_mille: dice.random_range(0..=100),
                        unavailable_per_mille: dice.random_range(0..=100),
                        not_sent_per_mille: dice.random_range(0..=100),
                        answer_lost_per_mille: dice.random_range(0..=100),
                        hang_per_mille: dice.random_range(0..=30),
                        slow_per_mille: dice.random_range(0..=100),
                        slow_extra_ms: dice.random_range(0..=4_000),
                    };
                    steps.extend([(at_ms, Step::Rates(rates)), (until_ms, Step::RatesEnd)]);
                }
                7 | 8 => {
                    let instance = dice.random_range(0..count);
                    steps.push((at_ms, Step::Disconnect { instance }));
                    steps.push((until_ms, Step::Reconnect { instance }));
                }
                9 => {
                    let instance = dice.random_range(0..count);
                    let reason =
                        ["RESOURCE:ENI", "ATTRIBUTE", "AGENT", "RESOURCE:MEMORY"][dice.random_range(0..4)];
                    steps.push((at_ms, Step::Refuse { instance, reason }));
                }
                10 => steps.push((at_ms, Step::Kill { nth: dice.random_range(0..8) })),
                11 => steps.push((at_ms, Step::EventsLost { per_mille: dice.random_range(0..=1_000) })),
                _ => {
                    steps.push((at_ms, Step::Crash));
                    steps.push((at_ms + dice.random_range(0..=20_000), Step::Start));
                }
            }
        }
        steps.sort_by_key(|(at_ms, _)| *at_ms);
        Self { seed, instances, slots, demand: dice.random_range(0..=total), config, steps }
    }
}
