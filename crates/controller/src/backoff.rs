//! How long to wait before trying again, and what is held back meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use planner::{ContainerKey, Millis};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// Waits that double from one failure to the next, up to a bound, with jitter.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    first_ms: u64,
    most_ms: u64,
}

impl Schedule {
    /// Of a container that cannot be started, or an action that an engine refuses. The first retry comes soon
    /// enough for a passing fault; the last seldom enough that a service which can't run costs nothing.
    pub(crate) const ACTION: Self = Self { first_ms: 250, most_ms: 30_000 };
    /// Of a demand source that gives no answer: as soon as it is back, it should be heard within seconds.
    pub(crate) const SOURCE: Self = Self { first_ms: 100, most_ms: 5_000 };
    /// Of an engine that cannot be observed: its return should be noticed within a second.
    pub(crate) const OBSERVE: Self = Self { first_ms: 100, most_ms: 1_000 };
    /// Of an image that is not there: it comes with a person's help, or a slow download.
    pub(crate) const PREPARE: Self = Self { first_ms: 1_000, most_ms: 30_000 };

    /// The same for an attempt that took so long: what takes its time to fail, above all to be healthy, holds its room
    /// meanwhile, and is to leave it to others for a good part of the time.
    const fn after(self, took_ms: u64) -> Self {
        let (first_ms, most_ms) = (took_ms / 2, took_ms.saturating_mul(4));
        Self {
            first_ms: if first_ms > self.first_ms { first_ms } else { self.first_ms },
            most_ms: if most_ms > self.most_ms { most_ms } else { self.most_ms },
        }
    }

    /// The wait after the `failures`-th failure in a row, from 1: between half of the step and the whole of it,
    /// so that many that failed together don't return together.
    pub(crate) fn delay(self, failures: u32, random: &mut ChaCha8Rng) -> Duration {
        let doublings = failures.saturating_sub(1).min(32);
        let step_ms = self.first_ms.saturating_mul(1 << doublings).min(self.most_ms);
        Duration::from_millis(random.random_range(step_ms / 2..=step_ms))
    }
}

/// A container that has run for this long was started well: whatever happens to it then, its service's starts
/// are not held back for it. Long enough for a program that fails on its first work.
pub(crate) const RAN_WELL_MS: u64 = 10_000;

/// A row of failures is forgotten this long after its wait was over, or after the longest of its waits if that is more,
/// if nothing more has failed.
const FORGOTTEN_AFTER_MS: u64 = 60_000;

/// Failures in a row, and until when nothing is tried.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) failures: u32,
    pub(crate) last_at: Millis,
    pub(crate) until: Millis,
    forgotten_at: Millis,
    pub(crate) reason: String,
}

/// A start that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// Milliseconds for which its container ran.
    pub(crate) took_ms: u64,
    /// The rest of a sentence.
    pub(crate) reason: String,
}

/// Rows of failures of the starts of a service on an instance, by their names.
#[derive(Debug, Default)]
pub(crate) struct StartFailures {
    rows: BTreeMap<(Arc<str>, Arc<str>), Row>,
}

impl StartFailures {
    pub(crate) fn failed(
        &mut self,
        service: &Arc<str>,
        instance: &Arc<str>,
        Failure { took_ms, reason }: Failure,
        now: Millis,
        random: &mut ChaCha8Rng,
    ) {
        let key = (Arc::clone(service), Arc::clone(instance));
        push(&mut self.rows, key, Schedule::ACTION.after(took_ms), reason, now, random);
    }

    /// Ends a row, because a start of the service has gone well there.
    pub(crate) fn succeeded(&mut self, service: &Arc<str>, instance: &Arc<str>) {
        self.rows.remove(&(Arc::clone(service), Arc::clone(instance)));
    }

    /// Ends every row of a service.
    pub(crate) fn forget_service(&mut self, name: &str) {
        self.rows.retain(|(service, _), _| **service != *name);
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = (&Arc<str>, &Arc<str>, &Row)> {
        self.rows.iter().map(|((service, instance), row)| (service, instance, row))
    }

    pub(crate) fn forget(&mut self, now: Millis) {
        self.rows.retain(|_, row| now < row.forgotten_at);
    }
}

/// Actions that an engine has refused or could not be asked for, and that are held back for a while: the planner
/// wants them again at once, as it should, and the engine is not to be hammered.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    rows: BTreeMap<(ContainerKey, &'static str), Row>,
}

impl Holds {
    pub(crate) fn failed(
        &mut self,
        container: ContainerKey,
        kind: &'static str,
        reason: String,
        now: Millis,
        random: &mut ChaCha8Rng,
    ) {
        push(&mut self.rows, (container, kind), Schedule::ACTION, reason, now, random);
    }

    pub(crate) fn succeeded(&mut self, container: ContainerKey, kind: &'static str) {
        self.rows.remove(&(container, kind));
    }

    pub(crate) fn holds(&self, container: ContainerKey, kind: &'static str, now: Millis) -> bool {
        self.rows.get(&(container, kind)).is_some_and(|row| now < row.until)
    }

    /// Why something of that container is held back.
    pub(crate) fn reasons(&self, now: Millis) -> impl Iterator<Item = (ContainerKey, &'static str, &Row)> {
        self.rows.iter().filter(move |(_, row)| now < row.until).map(|(&(key, kind), row)| (key, kind, row))
    }

    /// The next moment at which something may be tried again.
    pub(crate) fn next(&self, now: Millis) -> Option<Millis> {
        self.rows.values().map(|row| row.until).filter(|&until| until > now).min()
    }

    pub(crate) fn forget(&mut self, now: Millis) {
        self.rows.retain(|_, row| now < row.forgotten_at);
    }

    /// Forgets all: the keys mean other containers now.
    pub(crate) fn clear(&mut self) {
        self.rows.clear();
    }
}

fn push<K: Ord>(
    rows: &mut BTreeMap<K, Row>,
    key: K,
    schedule: Schedule,
    reason: String,
    now: Millis,
    random: &mut ChaCha8Rng,
) {
    let row = rows.entry(key).or_insert(Row {
        failures: 0,
        last_at: now,
        until: now,
        forgotten_at: now,
        reason: String::new(),
    });
    // Several that failed together are one failure, not several in a row.
    if row.failures == 0 || row.until <= now {
        row.failures = row.failures.saturating_add(1);
        let delay_ms = u64::try_from(schedule.delay(row.failures, random).as_millis()).unwrap_or(u64::MAX);
        row.until = now.plus(delay_ms);
        // An attempt that takes its time to fail has had it by then.
        row.forgotten_at = row.until.plus(schedule.most_ms.max(FORGOTTEN_AFTER_MS));
    }
    row.last_at = now;
    row.reason = reason;
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_within_their_jitter() {
        let mut random = ChaCha8Rng::seed_from_u64(1);
        for (failures, step_ms) in
            [(1, 250), (2, 500), (3, 1_000), (8, 30_000), (60, 30_000), (u32::MAX, 30_000)]
        {
            for _ in 0..100 {
                let delay_ms = Schedule::ACTION.delay(failures, &mut random).as_millis();
                assert!((step_ms / 2..=step_ms).contains(&delay_ms), "{failures} failures: {delay_ms} ms");
            }
        }
    }

    #[test]
    fn what_takes_long_to_fail_is_tried_as_much_more_seldom() {
        let mut random = ChaCha8Rng::seed_from_u64(3);
        let slow = Schedule::ACTION.after(60_000);
        for (failures, step_ms) in [(1, 30_000), (2, 60_000), (4, 240_000), (9, 240_000)] {
            let delay_ms = slow.delay(failures, &mut random).as_millis();
            assert!((step_ms / 2..=step_ms).contains(&delay_ms), "{failures} failures: {delay_ms} ms");
        }
        let quick = Schedule::ACTION.after(100).delay(1, &mut random).as_millis();
        assert!((125..=250).contains(&quick), "{quick} ms");
    }

    #[test]
    fn what_fails_together_counts_once() {
        let mut random = ChaCha8Rng::seed_from_u64(2);
        let mut failures = StartFailures::default();
        let (service, instance): (Arc<str>, Arc<str>) = ("web".into(), "one".into());
        let no = || Failure { took_ms: 0, reason: "no".to_owned() };
        for _ in 0..10 {
            failures.failed(&service, &instance, no(), Millis(1_000), &mut random);
        }
        let row = failures.rows().next().expect("a row").2.clone();
        assert_eq!(row.failures, 1);
        assert!(row.until <= Millis(1_250));
        failures.failed(&service, &instance, no(), row.until, &mut random);
        assert_eq!(failures.rows().next().expect("a row").2.failures, 2);
        failures.forget(Millis(70_000));
        assert_eq!(failures.rows().count(), 0);
    }
}
