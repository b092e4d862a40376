//! Whether anything grew: pure, so that it can be checked itself.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::process::Held;

/// The memory of a service may rise by this much, in percent, from the first window to the last.
pub(crate) const RISE_MOST_PERCENT: f64 = 5.0;

/// What the services held at one moment, by name.
pub(crate) type ByService = BTreeMap<&'static str, Held>;

/// One service over the whole run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Course {
    pub(crate) service: &'static str,
    /// Medians of the first window after the warm-up and of the last, in KiB.
    pub(crate) rss_first_kib: u64,
    pub(crate) rss_last_kib: u64,
    pub(crate) rss_change_percent: f64,
    pub(crate) rss_most_kib: u64,
    /// At rest, after the warm-up and at the end.
    pub(crate) fds_first: u64,
    pub(crate) fds_last: u64,
    pub(crate) fds_most: u64,
    pub(crate) threads_first: u64,
    pub(crate) threads_last: u64,
    pub(crate) threads_most: u64,
}

/// Each service's course. `samples` are in order of time, in seconds since the begin; the first window begins at
/// `warmup_s`, the last ends with the last sample, each `window_s` long. Nothing where a window has no sample.
pub(crate) fn courses(
    samples: &[(u64, ByService)],
    warmup_s: u64,
    window_s: u64,
    rest_first: &ByService,
    rest_last: &ByService,
) -> Vec<Course> {
    let end = samples.last().map_or(0, |sample| sample.0);
    let first = |at: u64| (warmup_s..warmup_s + window_s).contains(&at);
    let last = |at: u64| at > end.saturating_sub(window_s) && at >= warmup_s;
    let course = |(&service, rested_first): (&&'static str, &Held)| {
        let rested_last = rest_last.get(service)?;
        let held = |which: &dyn Fn(u64) -> bool| -> Vec<Held> {
            samples
                .iter()
                .filter(|sample| which(sample.0))
                .filter_map(|s| s.1.get(service).copied())
                .collect()
        };
        let all = held(&|_| true);
        let most = |pick: fn(&Held) -> u64| all.iter().map(pick).max().unwrap_or_default();
        let rss_first_kib = median(held(&first).iter().map(|held| held.rss_kib))?;
        let rss_last_kib = median(held(&last).iter().map(|held| held.rss_kib))?;
        Some(Course {
            service,
            rss_first_kib,
            rss_last_kib,
            rss_change_percent: change_percent(rss_first_kib, rss_last_kib),
            rss_most_kib: most(|held| held.rss_kib),
            fds_first: rested_first.fds,
            fds_last: rested_last.fds,
            fds_most: most(|held| held.fds),
            threads_first: rested_first.threads,
            threads_last: rested_last.threads,
            threads_most: most(|held| held.threads),
        })
    };
    rest_first.iter().filter_map(course).collect()
}

/// What grew, in words.
pub(crate) fn grown(courses: &[Course]) -> Vec<String> {
    let mut found = Vec::new();
    for course in courses {
        let name = course.service;
        if course.rss_change_percent > RISE_MOST_PERCENT {
            found.push(format!(
                "{name}: memory rose by {:.1} %, from {} to {} KiB",
                course.rss_change_percent, course.rss_first_kib, course.rss_last_kib
            ));
        }
        for (what, first, last) in [
            ("file descriptors", course.fds_first, course.fds_last),
            ("threads", course.threads_first, course.threads_last),
        ] {
            if last > first {
                found.push(format!("{name}: {last} {what} at rest, {first} after the warm-up"));
            }
        }
    }
    found
}

/// The lower one of two in the middle.
fn median(values: impl Iterator<Item = u64>) -> Option<u64> {
    let mut sorted: Vec<u64> = values.collect();
    sorted.sort_unstable();
    sorted.get(sorted.len().checked_sub(1)? / 2).copied()
}

#[expect(clippy::cast_precision_loss, reason = "KiB of one process")]
fn change_percent(first: u64, last: u64) -> f64 {
    if first == 0 { 0.0 } else { (last as f64 / first as f64 - 1.0) * 100.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(rss_kib: u64, fds: u64, threads: u64) -> ByService {
        BTreeMap::from([("one", Held { rss_kib, fds, threads })])
    }

    /// A sample every ten seconds for ten minutes, with memory as `rss_kib` says.
    fn samples(rss_kib: impl Fn(u64) -> u64) -> Vec<(u64, ByService)> {
        (1..=60).map(|n| (n * 10, held(rss_kib(n * 10), 20 + n % 7, 5))).collect()
    }

    fn judge(samples: &[(u64, ByService)], first: &ByService, last: &ByService) -> Vec<String> {
        let courses = courses(samples, 300, 100, first, last);
        assert_eq!(courses.len(), 1);
        grown(&courses)
    }

    #[test]
    fn what_rises_before_the_warm_up_is_over_does_not_count() {
        let rest = held(0, 20, 5);
        assert_eq!(judge(&samples(|at| 1_000 + at.min(299) * 10), &rest, &rest), Vec::<String>::new());
        // A single peak is not a rise, nor is a fall.
        assert!(judge(&samples(|at| if at == 590 { 9_000 } else { 1_000 }), &rest, &rest).is_empty());
        assert!(judge(&samples(|at| 5_000 - at), &rest, &rest).is_empty());
    }

    #[test]
    fn what_grows_is_found() {
        let rest = held(0, 20, 5);
        let rising = judge(&samples(|at| 1_000 + at), &rest, &rest);
        assert_eq!(rising, ["one: memory rose by 15.7 %, from 1340 to 1550 KiB"], "{rising:?}");
        let flat = samples(|_| 1_000);
        let fds = judge(&flat, &rest, &held(0, 21, 5));
        assert_eq!(fds, ["one: 21 file descriptors at rest, 20 after the warm-up"]);
        let threads = judge(&flat, &rest, &held(0, 20, 6));
        assert_eq!(threads, ["one: 6 threads at rest, 5 after the warm-up"]);
    }

    #[test]
    fn a_run_that_was_cut_short_has_no_course() {
        let rest = held(0, 20, 5);
        assert!(courses(&samples(|_| 1)[..10], 300, 100, &rest, &rest).is_empty());
        assert!(courses(&[], 300, 100, &rest, &rest).is_empty());
    }
}
