//! Quotas: what may be asked of ECS in a second.
//!
//! ECS throttles by token buckets, one for each family of APIs, account and region; the rates are those of
//! <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/request-throttling.html>. The buckets here are the same, with a
//! tenth less of burst: calls overtake each other on their way.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The APIs that share a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    /// StartTask, StopTask: cluster resource modify actions.
    Modify,
    /// ListTasks, DescribeTasks, ListContainerInstances, DescribeContainerInstances: cluster resource read actions.
    Read,
    /// DescribeTaskDefinition: task definition read actions.
    Definitions,
}

/// Who goes first. The first has all of a bucket; each of the others leaves some of it to those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// Starts of the most important services and stops that they wait for; looks at what is under way.
    First,
    /// Other stops; looks at instances.
    Second,
    /// Everything else.
    Last,
}

impl Turn {
    /// How much of the burst is left to those before, in parts of ten.
    const fn leaves_tenths(self) -> u32 {
        match self {
            Self::First => 0,
            Self::Second => 1,
            Self::Last => 3,
        }
    }
}

/// All buckets.
pub(crate) struct Quotas {
    modify: Bucket,
    read: Bucket,
    definitions: Bucket,
}

impl Quotas {
    /// At the documented rates.
    pub(crate) fn new() -> Self {
        Self { modify: Bucket::new(100, 40), read: Bucket::new(100, 20), definitions: Bucket::new(50, 20) }
    }

    pub(crate) fn of(&self, family: Family) -> &Bucket {
        match family {
            Family::Modify => &self.modify,
            Family::Read => &self.read,
            Family::Definitions => &self.definitions,
        }
    }
}

/// One token bucket.
pub(crate) struct Bucket {
    capacity: f64,
    per_second: f64,
    level: Mutex<Level>,
    /// Of each turn one waits for tokens, and the others for it, first come, first served.
    lines: [tokio::sync::Mutex<()>; 3],
}

struct Level {
    tokens: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// With the documented burst and rate.
    fn new(burst: u32, per_second: u32) -> Self {
        let capacity = f64::from(burst) * 0.9;
        let level = Level { tokens: capacity, at: None };
        Self {
            capacity,
            per_second: f64::from(per_second),
            level: Mutex::new(level),
            lines: Default::default(),
        }
    }

    /// Waits for a token and takes it. Giving up the wait takes nothing.
    pub(crate) async fn take(&self, turn: Turn) {
        let _line = self.lines[turn as usize].lock().await;
        loop {
            let missing = {
                let mut level = self.level();
                let missing = self.least(turn) - level.tokens;
                if missing <= 0.0 {
                    level.tokens -= 1.0;
                    return;
                }
                missing
            };
            // A moment more than it takes, so that rounding does not have us wait twice.
            let wait = Duration::from_secs_f64(missing / self.per_second) + Duration::from_millis(1);
            sleep_until(Instant::now() + wait).await;
        }
    }

    /// Gives back a token that was not used.
    pub(crate) fn give_back(&self) {
        let mut level = self.level();
        level.tokens = (level.tokens + 1.0).min(self.capacity);
    }

    /// ECS has throttled a call: others use the account too, and its bucket is empty. So is this one now.
    pub(crate) fn throttled(&self) {
        let mut level = self.level();
        level.tokens = level.tokens.min(0.0);
    }

    /// How many tokens there have to be for this turn.
    fn least(&self, turn: Turn) -> f64 {
        1.0 + self.capacity * f64::from(turn.leaves_tenths()) / 10.0
    }

    /// The level of now.
    fn level(&self) -> MutexGuard<'_, Level> {
        let mut level = self.level.lock().expect("nothing panics while holding it");
        let now = Instant::now();
        if let Some(at) = level.at.replace(now) {
            let more = now.saturating_duration_since(at).as_secs_f64() * self.per_second;
            level.tokens = (level.tokens + more).min(self.capacity);
        }
        level
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// Takes as many as it can within the time.
    async fn taken(bucket: &Bucket, turn: Turn, within: Duration) -> u32 {
        let mut count = 0;
        let _ = tokio::time::timeout(within, async {
            loop {
                bucket.take(turn).await;
                count += 1;
            }
        })
        .await;
        count
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_documented_burst_and_rate() {
        let bucket = Bucket::new(100, 40);
        assert_eq!(taken(&bucket, Turn::First, Duration::ZERO).await, 90);
        let ten_seconds = taken(&bucket, Turn::First, Duration::from_secs(10)).await;
        assert!((380..=400).contains(&ten_seconds), "{ten_seconds}");
        tokio::time::sleep(Duration::from_mins(1)).await;
        assert_eq!(taken(&bucket, Turn::First, Duration::ZERO).await, 90, "what is not used is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_is_left_to_those_before() {
        let bucket = Bucket::new(100, 40);
        assert_eq!(taken(&bucket, Turn::Last, Duration::ZERO).await, 63);
        assert_eq!(taken(&bucket, Turn::Second, Duration::ZERO).await, 18);
        assert_eq!(taken(&bucket, Turn::First, Duration::ZERO).await, 9);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_wait_for_as_long_as_the_first_want_all() {
        let bucket = Arc::new(Bucket::new(100, 40));
        let first = Arc::clone(&bucket);
        let first = tokio::spawn(async move { taken(&first, Turn::First, Duration::from_secs(20)).await });
        let last = taken(&bucket, Turn::Last, Duration::from_secs(20)).await;
        let first = first.await.expect("it does not panic");
        assert!(first >= 780 && last <= 63, "{first} of the first, {last} of the last");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_throttled_waits_for_new_tokens() {
        let bucket = Bucket::new(100, 40);
        bucket.throttled();
        assert_eq!(taken(&bucket, Turn::First, Duration::ZERO).await, 0);
        let second = taken(&bucket, Turn::First, Duration::from_secs(1)).await;
        assert!((36..=41).contains(&second), "{second}");
    }

    #[tokio::test(start_paused = true)]
    async fn giving_up_the_wait_takes_nothing() {
        let bucket = Bucket::new(10, 1);
        assert_eq!(taken(&bucket, Turn::First, Duration::from_millis(500)).await, 9);
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert_eq!(taken(&bucket, Turn::First, Duration::ZERO).await, 1);
        bucket.give_back();
        assert_eq!(taken(&bucket, Turn::First, Duration::ZERO).await, 1);
    }
}
