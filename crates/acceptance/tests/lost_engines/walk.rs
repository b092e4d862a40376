//! Demand that changes by one at a time, and how long each change takes to be answered.

use acceptance::observer::now_ns;
use acceptance::pool::Pool;
use acceptance::stack::{FILL, IMPORTANT, INSTANCES, SLOTS_PER_INSTANCE};
use acceptance::timeline::{MS, Nanos, Timeline};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::{BOUND, UNAWARE_RISES};

/// Every instance.
pub(crate) const ALL: [&str; 3] = INSTANCES;

/// As much as two instances have room for.
const DEMAND_MOST: u32 = 6;

/// A random walk from 1 to 6.
pub(crate) struct Walk {
    dice: ChaCha8Rng,
    demand: u32,
}

impl Walk {
    /// Begins at 4.
    pub(crate) async fn begin(pool: &Pool, seed: u64) -> Self {
        let walk = Self { dice: ChaCha8Rng::seed_from_u64(seed), demand: 4 };
        pool.hold(walk.demand).await.unwrap();
        walk.settled(pool, &ALL).await;
        walk
    }

    /// Goes down to nothing and up again to as much as leaves room for the rises that nobody knows of, all of it on one instance.
    pub(crate) async fn gather(&mut self, pool: &Pool, instance: &str) {
        let others: Vec<&str> = ALL.into_iter().filter(|other| *other != instance).collect();
        self.hold(pool, 0).await;
        for other in &others {
            pool.command(other, "cordon").await.unwrap();
        }
        self.hold(pool, DEMAND_MOST - UNAWARE_RISES).await;
        for other in &others {
            pool.command(other, "uncordon").await.unwrap();
        }
        let here = |seen: &Timeline| {
            seen.running(|event| event.service == IMPORTANT && event.instance == instance).at(Nanos::MAX)
        };
        assert_eq!(here(&pool.timeline().unwrap()), i64::from(self.demand), "on {instance}");
    }

    /// Wants so many, and waits until they run.
    async fn hold(&mut self, pool: &Pool, demand: u32) {
        self.demand = demand;
        pool.hold(demand).await.unwrap();
        self.settled(pool, &ALL).await;
    }

    /// One step up, not waited for.
    pub(crate) async fn rise(&mut self, pool: &Pool) {
        assert!(self.demand < DEMAND_MOST, "there is no room for more");
        self.demand += 1;
        pool.hold(self.demand).await.unwrap();
    }

    /// One step, not waited for; whether it was a rise.
    async fn change(&mut self, pool: &Pool) -> bool {
        let rise = match self.demand {
            1 => true,
            DEMAND_MOST => false,
            _ => self.dice.random(),
        };
        if rise {
            self.rise(pool).await;
        } else {
            self.demand -= 1;
            pool.hold(self.demand).await.unwrap();
        }
        rise
    }

    /// One step, answered on `instances` alone: what runs elsewhere does not count. For a rise, milliseconds from the
    /// new demand to the engine's event of the last start.
    pub(crate) async fn step(&mut self, pool: &Pool, instances: &[&str]) -> Option<Nanos> {
        let sent = now_ns();
        let rise = self.change(pool).await;
        let since = self.settled(pool, instances).await;
        rise.then(|| (since - sent) / MS)
    }

    /// The reactions to as many rises, in milliseconds.
    pub(crate) async fn rises(&mut self, pool: &Pool, instances: &[&str], count: usize) -> Vec<Nanos> {
        let mut reactions = Vec::new();
        while reactions.len() < count {
            reactions.extend(self.step(pool, instances).await);
        }
        reactions
    }

    /// Waits until `instances` run what is wanted and are full; returns since when they run what is wanted.
    pub(crate) async fn settled(&self, pool: &Pool, instances: &[&str]) -> Nanos {
        let wanted = i64::from(self.demand);
        let slots = SLOTS_PER_INSTANCE * i64::try_from(instances.len()).unwrap();
        let what = format!("{wanted} of {IMPORTANT} and {} of {FILL} on {instances:?}", slots - wanted);
        let as_wanted = |seen: &Timeline| {
            let of = |service| {
                seen.running(|event| event.service == service && instances.contains(&event.instance.as_str()))
            };
            let (important, fill) = (of(IMPORTANT), of(FILL));
            let right = important.at(Nanos::MAX) == wanted && fill.at(Nanos::MAX) == slots - wanted;
            right.then(|| {
                important.changes().iter().rev().take_while(|change| change.1 == wanted).last().map(|c| c.0)
            })
        };
        pool.wait_for(&what, BOUND, as_wanted).await.unwrap().unwrap_or_default()
    }
}

/// In milliseconds, as they are; the lower one of two in the middle.
pub(crate) fn median(values: &[Nanos]) -> Nanos {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}
