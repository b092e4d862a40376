//! How many calls an engine is given at once: learnt from what starts take there.
//!
//! An engine does most of its work in turn. A call too few, and it idles; every call beyond what it works on only waits
//! inside it, and nothing more urgent can be put before it there. So the limit is found as TCP Vegas finds its window
//! (Brakmo, O'Malley, Peterson: TCP Vegas, SIGCOMM 1994; for calls as in Netflix's concurrency-limits): if a start would
//! take `alone` by itself and takes `took` beside others, `calls` in all, then by Little's law the engine has worked on
//! `calls × alone / took` of them, and the rest has waited. Few may wait, so that it never idles, and no more.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

/// Where it begins. A Docker engine on two cores gets hardly more done with six starts at once than with four.
const FIRST: u32 = 4;
/// At least so many, of which one is kept for what is urgent (see [`crate::turns`]).
const LEAST: u32 = 2;
/// With fewer than this waiting in the engine it is given one more. Two waiting keep it busy when two end together.
const FEW_WAIT: f64 = 2.0;
/// With more than this it is given one less. Between the two the limit rests.
const MANY_WAIT: f64 = 3.0;
/// Starts to judge by: the mean of so many. Fewer follow the engine's moods, more follow it too late.
const ROUND: u32 = 4;
/// A start beside fewer calls than this, itself included, says what a start takes alone.
const ALONE: f64 = 1.5;
/// How much such a start counts against those before it, if it took longer; what is quicker counts at once.
const SLOWER_COUNTS: f64 = 0.2;
/// Changes of how many calls are under way that are remembered: more than there are during one start.
const STEPS_MAX: usize = 256;

/// The learnt limit of one engine.
#[derive(Debug)]
pub(crate) struct CallLimit {
    limit: u32,
    /// Whether the engine works in turn, so that there is something to be learnt.
    learns: bool,
    /// Never more than this.
    ceiling: u32,
    load: Load,
    /// By service, whose containers take more or less to start: what a start takes alone.
    alone: BTreeMap<Arc<str>, Duration>,
    round: Round,
}

/// How many calls were under way, each number since its moment, in order.
#[derive(Debug, Default)]
struct Load(VecDeque<(Instant, u32)>);

/// Sums over starts.
#[derive(Debug, Default)]
struct Round {
    starts: u32,
    calls: f64,
    waiting: f64,
}

impl CallLimit {
    /// Of an engine of which nothing is known yet.
    pub(crate) fn new(ceiling: usize) -> Self {
        let ceiling = in_calls(ceiling);
        Self {
            limit: FIRST.min(ceiling),
            learns: true,
            ceiling,
            load: Load::default(),
            alone: BTreeMap::new(),
            round: Round::default(),
        }
    }

    /// Of an engine that works on all calls at once.
    pub(crate) fn fixed(ceiling: usize) -> Self {
        Self { limit: in_calls(ceiling), learns: false, ..Self::new(ceiling) }
    }

    /// How many calls may be under way.
    pub(crate) const fn get(&self) -> u32 {
        self.limit
    }

    /// What has been learnt holds on, within another bound.
    pub(crate) fn set_ceiling(&mut self, ceiling: usize) {
        self.ceiling = in_calls(ceiling);
        if !self.learns {
            self.limit = self.ceiling;
            return;
        }
        self.limit = self.limit.min(self.ceiling).max(LEAST.min(self.ceiling));
    }

    /// Forgets services that are not there any more.
    pub(crate) fn retain(&mut self, configured: impl Fn(&str) -> bool) {
        self.alone.retain(|service, _| configured(service));
    }

    /// From now on so many calls are under way.
    pub(crate) fn under_way(&mut self, calls: u32, now: Instant) {
        self.load.note(calls, now);
    }

    /// A start of a service has ended well, and took the engine so long until now.
    pub(crate) fn started(&mut self, service: &Arc<str>, took: Duration, now: Instant) {
        if !self.learns {
            return;
        }
        let Some(began) = now.checked_sub(took).filter(|began| *began < now) else { return };
        let calls = self.load.average(began, now).max(1.0);
        let Some(alone) = self.alone.get_mut(service) else {
            self.alone.insert(Arc::clone(service), took);
            return;
        };
        if took < *alone {
            *alone = took;
        } else if calls < ALONE {
            *alone += took.saturating_sub(*alone).mul_f64(SLOWER_COUNTS);
        }
        self.round.starts += 1;
        self.round.calls += calls;
        self.round.waiting += calls * (1.0 - alone.as_secs_f64() / took.as_secs_f64());
        if self.round.starts == ROUND {
            let Round { starts, calls, waiting } = std::mem::take(&mut self.round);
            self.judge(calls / f64::from(starts), waiting / f64::from(starts));
        }
    }

    fn judge(&mut self, calls: f64, waiting: f64) {
        // A limit that is not made use of may be anything.
        let used = calls * 2.0 >= f64::from(self.limit);
        if waiting < FEW_WAIT && used {
            self.limit = (self.limit + 1).min(self.ceiling);
        } else if waiting > MANY_WAIT {
            self.limit = (self.limit - 1).max(LEAST.min(self.ceiling));
        }
    }
}

fn in_calls(ceiling: usize) -> u32 {
    u32::try_from(ceiling).unwrap_or(u32::MAX).max(1)
}

impl Load {
    fn note(&mut self, calls: u32, now: Instant) {
        if self.0.back().map_or(0, |&(_, before)| before) == calls {
            return;
        }
        if self.0.len() == STEPS_MAX {
            self.0.pop_front();
        }
        self.0.push_back((now, calls));
    }

    /// How many were under way between two moments, on average.
    fn average(&self, from: Instant, to: Instant) -> f64 {
        let mut calls_seconds = 0.0;
        let mut until = to;
        for &(since, calls) in self.0.iter().rev() {
            let since = since.max(from);
            calls_seconds += f64::from(calls) * until.saturating_duration_since(since).as_secs_f64();
            until = until.min(since);
        }
        calls_seconds / (to - from).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const ALONE: Duration = Duration::from_millis(100);

    /// So many are under way for as long as one start takes.
    async fn start(limit: &mut CallLimit, calls: u32, took: Duration) {
        limit.under_way(calls, Instant::now());
        advance(took).await;
        limit.started(&"web".into(), took, Instant::now());
    }

    /// An engine that works on so many calls at once is given as many as the limit allows, again and again; tells the
    /// limit after each.
    async fn learn(limit: &mut CallLimit, works_on: u32, starts: usize) -> Vec<u32> {
        start(limit, 1, ALONE).await;
        let mut seen = Vec::new();
        for _ in 0..starts {
            let calls = limit.get();
            // As long as each is followed by another, all of them take this long.
            let took = ALONE.mul_f64(f64::from(calls.max(works_on)) / f64::from(works_on));
            start(limit, calls, took).await;
            seen.push(limit.get());
        }
        seen
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_works_in_turn_is_given_what_keeps_it_busy() {
        for works_on in [1, 2, 4] {
            let mut limit = CallLimit::new(16);
            let seen = learn(&mut limit, works_on, 200).await;
            let rests_at = &seen[100..];
            assert!(rests_at.iter().all(|at| at == &rests_at[0]), "{works_on}: it keeps changing: {seen:?}");
            assert!((works_on + 2..=works_on + 3).contains(&rests_at[0]), "{works_on}: {}", rests_at[0]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_works_on_all_at_once_is_given_as_many_as_may_be() {
        let mut limit = CallLimit::new(16);
        assert_eq!(learn(&mut limit, 1_000, 100).await.last(), Some(&16));
        limit.set_ceiling(5);
        assert_eq!(limit.get(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_does_not_work_in_turn_is_given_all_from_the_beginning() {
        let mut limit = CallLimit::fixed(1_000);
        assert_eq!(limit.get(), 1_000);
        learn(&mut limit, 1, 100).await;
        assert_eq!(limit.get(), 1_000);
        limit.set_ceiling(50);
        assert_eq!(limit.get(), 50);
    }

    #[tokio::test(start_paused = true)]
    async fn it_follows_an_engine_that_gets_less_done_at_once_and_more_again() {
        let mut limit = CallLimit::new(16);
        for (works_on, range) in [(8, 10..=11), (1, 3..=4), (8, 10..=11)] {
            let at = *learn(&mut limit, works_on, 200).await.last().expect("there are some");
            assert!(range.contains(&at), "{works_on}: {at}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_engine_that_is_slower_for_all_is_not_taken_for_one_with_a_queue() {
        let mut limit = CallLimit::new(16);
        learn(&mut limit, 4, 100).await;
        let before = limit.get();
        for _ in 0..40 {
            start(&mut limit, 1, ALONE * 5).await;
        }
        start(&mut limit, before, ALONE * 5 * 6 / 4).await;
        assert_eq!(limit.get(), before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_that_is_not_made_use_of_does_not_grow() {
        let mut limit = CallLimit::new(16);
        for _ in 0..100 {
            start(&mut limit, 1, ALONE).await;
        }
        assert_eq!(limit.get(), FIRST);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_always_a_call_and_one_for_what_is_urgent() {
        for (ceiling, least) in [(0, 1), (1, 1), (2, 2), (16, 2)] {
            let mut limit = CallLimit::new(ceiling);
            for times in 1..=200 {
                start(&mut limit, 16, ALONE * times).await;
            }
            assert_eq!(limit.get(), least, "under a ceiling of {ceiling}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_load_is_averaged_over_the_time_of_a_call() {
        let mut load = Load::default();
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        for (ms, calls) in [(0, 4), (100, 2), (150, 2), (200, 0)] {
            load.note(calls, at(ms));
        }
        assert_eq!(load.0.len(), 3);
        for (from, to, expected) in [(0, 100, 4.0), (0, 200, 3.0), (50, 150, 3.0), (100, 400, 2.0 / 3.0)] {
            assert!((load.average(at(from), at(to)) - expected).abs() < 1e-9, "{from} to {to}");
        }
    }
}
