//! What a run has shown: for a person, and as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use crate::process::Held;
use crate::verdict::{ByService, Course, RISE_MOST_PERCENT, courses, grown};

/// One look at everything.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sample {
    /// Seconds since the begin.
    pub(crate) at_s: u64,
    pub(crate) services: ByService,
    /// The engine itself, where it can be told; for information.
    pub(crate) engine: Option<Held>,
    /// Containers of ours on the engine.
    pub(crate) containers: usize,
    /// The part of the time since the last sample in which what was wanted ran, 0 to 1.
    pub(crate) success: f64,
    /// Changes of demand since the last sample.
    pub(crate) changes: usize,
}

/// The whole run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    minutes: u64,
    interval_ms: u64,
    seed: u64,
    pub(crate) warmup_s: u64,
    pub(crate) window_s: u64,
    pub(crate) passed: bool,
    pub(crate) interrupted: bool,
    /// Everything that should not be so, in words.
    pub(crate) wrong: Vec<String>,
    /// Of the samples' time.
    success: f64,
    changes: usize,
    /// Containers that have been started so far.
    pub(crate) started: usize,
    containers_most: usize,
    services: Vec<Course>,
    engine_first: Option<Held>,
    engine_last: Option<Held>,
    pub(crate) rest_first: ByService,
    pub(crate) rest_last: ByService,
    pub(crate) samples: Vec<Sample>,
}

impl Report {
    pub(crate) fn new(minutes: u64, seed: u64, interval_ms: u64) -> Self {
        Self { minutes, interval_ms, seed, ..Self::default() }
    }

    /// Draws the conclusions.
    pub(crate) fn conclude(&mut self) {
        let samples: Vec<_> =
            self.samples.iter().map(|sample| (sample.at_s, sample.services.clone())).collect();
        self.services = courses(&samples, self.warmup_s, self.window_s, &self.rest_first, &self.rest_last);
        self.wrong.extend(grown(&self.services));
        self.success = mean_success(&self.samples);
        self.changes = self.samples.iter().map(|sample| sample.changes).sum();
        self.containers_most = self.samples.iter().map(|sample| sample.containers).max().unwrap_or_default();
        let warm = self.samples.partition_point(|sample| sample.at_s < self.warmup_s);
        self.engine_first = self.samples[warm..].first().and_then(|sample| sample.engine);
        self.engine_last = self.samples[warm..].last().and_then(|sample| sample.engine);
        if !self.interrupted && self.services.is_empty() {
            self.wrong.push("there is nothing to compare: the run ended before its time".to_owned());
        }
        self.passed = !self.interrupted && self.wrong.is_empty();
    }

    /// One line about the last so many samples.
    pub(crate) fn print_progress(&self, samples: usize) {
        let last = &self.samples[self.samples.len().saturating_sub(samples)..];
        let Some(now) = last.last() else { return };
        let changes: usize = last.iter().map(|sample| sample.changes).sum();
        let mut line = format!(
            "{:>4} min  success {:5.1} %  {changes:>3} changes  {:>2} containers",
            now.at_s / 60,
            mean_success(last) * 100.0,
            now.containers,
        );
        for (name, held) in &now.services {
            let Held { rss_kib, fds, threads } = held;
            let _ = write!(line, "  {name} {} MiB {fds} fds {threads} threads", mib(*rss_kib));
        }
        eprintln!("{line}");
    }

    /// The table and the verdict.
    pub(crate) fn print(&self) {
        let watched_s = self.samples.last().map_or(0, |sample| sample.at_s);
        println!(
            "\n{watched_s} s of {} min, a step of demand every {} ms, seed {}",
            self.minutes, self.interval_ms, self.seed
        );
        println!(
            "success {:.2} % of the time, {} changes of demand, {} containers started, at most {} on the engine at once",
            self.success * 100.0,
            self.changes,
            self.started,
            self.containers_most,
        );
        if self.services.is_empty() {
            // Cut short: the last look is all there is.
            self.print_progress(1);
        } else {
            self.print_table();
        }
        println!();
        for wrong in &self.wrong {
            println!("wrong: {wrong}");
        }
        let verdict = match (self.passed, self.interrupted) {
            (true, _) => format!(
                "nothing grew: no memory by more than {RISE_MOST_PERCENT} %, no file, no thread; no container is left"
            ),
            (false, true) => "interrupted: no verdict".to_owned(),
            (false, false) => "failed".to_owned(),
        };
        println!("{verdict}");
    }

    fn print_table(&self) {
        println!(
            "memory in MiB: medians of the first {} s after the warm-up and of the last; files and threads at rest\n",
            self.window_s
        );
        println!(
            "{:18} {:>15} {:>8} {:>7} {:>11} {:>5} {:>9} {:>5}",
            "", "memory", "change", "most", "files", "most", "threads", "most"
        );
        for course in &self.services {
            println!(
                "{:18} {:>15} {:>6.1} % {:>7} {:>11} {:>5} {:>9} {:>5}",
                course.service,
                format!("{} → {}", mib(course.rss_first_kib), mib(course.rss_last_kib)),
                course.rss_change_percent,
                mib(course.rss_most_kib),
                format!("{} → {}", course.fds_first, course.fds_last),
                course.fds_most,
                format!("{} → {}", course.threads_first, course.threads_last),
                course.threads_most,
            );
        }
        if let (Some(first), Some(last)) = (self.engine_first, self.engine_last) {
            println!(
                "{:18} {:>15} {:>28} {:>15}   not judged, and never at rest",
                "the engine",
                format!("{} → {}", mib(first.rss_kib), mib(last.rss_kib)),
                format!("{} → {}", first.fds, last.fds),
                format!("{} → {}", first.threads, last.threads),
            );
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "samples of some days at most")]
fn mean_success(samples: &[Sample]) -> f64 {
    let sum: f64 = samples.iter().map(|sample| sample.success).sum();
    if samples.is_empty() { 0.0 } else { sum / samples.len() as f64 }
}

#[expect(clippy::cast_precision_loss, reason = "KiB of one process")]
fn mib(kib: u64) -> String {
    format!("{:.1}", kib as f64 / 1024.0)
}
