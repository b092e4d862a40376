//! The last minutes in memory: what the page's charts begin with.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use api_types::Timestamp;
use api_types::history::{History, Sample, ServiceSample};
use api_types::snapshot::Snapshot;
use bytes::Bytes;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::hub::Published;

/// No two samples are nearer: the stream's own 20 a second.
pub const INTERVAL_MIN: Duration = Duration::from_millis(50);
/// While nothing changes there is a sample this often, so that whoever reads can tell silence from constancy.
pub const INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Samples further apart than this (the process was stopped, or starved) leave a gap between them.
const GAP_AFTER_MS: u64 = 3_000;
/// The most counts of services in all samples together: some 5 MiB here, and up to 16 MiB as the JSON of an answer.
const COUNTS_MAX: usize = 200_000;

/// A chunk of an answer ends with the sample that fills it: what an answer takes at a time, and how long the runtime
/// is kept from other work for it (well under 1 ms).
const CHUNK_BYTES: usize = 64 * 1024;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Samples older than this are dropped.
    pub window_ms: u64,
    /// More samples than this are not kept.
    pub samples_max: usize,
}

/// The samples of the last minutes. Pure: times are passed in.
#[derive(Debug)]
pub struct Ring {
    limits: Limits,
    /// Shared with the answers under way.
    samples: VecDeque<Arc<Kept>>,
    counts: usize,
    /// Shared by all samples from one set of services.
    names: Arc<[String]>,
}

/// One sample.
#[derive(Debug)]
struct Kept {
    at_ms: u64,
    live: bool,
    success: Option<bool>,
    usable_slots: u64,
    names: Arc<[String]>,
    /// In the order of `names`; empty while not live.
    counts: Box<[ServiceSample]>,
}

impl Ring {
    /// An empty ring.
    pub fn new(limits: Limits) -> Self {
        Self { limits, samples: VecDeque::new(), counts: 0, names: Arc::new([]) }
    }

    /// Keeps this much from now on; what is too much goes.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
        self.trim();
    }

    /// Keeps what holds at `now`, which is not before the last sample.
    pub fn push(&mut self, snapshot: &Snapshot, now: Timestamp) {
        let at_ms = now.epoch_ms();
        if let Some(last) = self.samples.back()
            && last.live
            && at_ms.saturating_sub(last.at_ms) > GAP_AFTER_MS
        {
            let unwatched_ms = last.at_ms + millis(INTERVAL_MAX);
            let usable_slots = last.usable_slots;
            self.keep(Kept {
                at_ms: unwatched_ms,
                live: false,
                success: None,
                usable_slots,
                names: Arc::clone(&self.names),
                counts: Box::default(),
            });
        }
        let live = snapshot.source.as_ref().is_none_or(|source| source.live);
        if !self.names.iter().eq(snapshot.services.iter().map(|service| &service.name)) {
            self.names = snapshot.services.iter().map(|service| service.name.clone()).collect();
        }
        let services = if live { &snapshot.services[..] } else { &[] };
        self.keep(Kept {
            at_ms,
            live,
            success: snapshot.success,
            usable_slots: snapshot.usable_capacity.slots,
            names: Arc::clone(&self.names),
            counts: services
                .iter()
                .map(|service| ServiceSample {
                    demand: service.demand,
                    starting: service.starting,
                    running: service.running,
                    stopping: service.stopping,
                    frozen: service.frozen,
                })
                .collect(),
        });
    }

    fn keep(&mut self, sample: Kept) {
        self.counts += sample.counts.len();
        self.samples.push_back(Arc::new(sample));
        self.trim();
    }

    /// Drops what is beyond the limits; the newest sample stays.
    fn trim(&mut self) {
        let newest_ms = self.samples.back().map_or(0, |sample| sample.at_ms);
        let oldest_ms = newest_ms.saturating_sub(self.limits.window_ms);
        while let Some(first) = self.samples.front()
            && self.samples.len() > 1
            && (first.at_ms < oldest_ms
                || self.samples.len() > self.limits.samples_max
                || self.counts > COUNTS_MAX)
        {
            self.counts -= first.counts.len();
            self.samples.pop_front();
        }
    }

    /// The samples of the last `window_ms` before `now`, preceded by the one that still held when they began.
    /// Without `window_ms`, or with more than is kept: all. It copies nothing, since the ring is locked meanwhile.
    pub fn window(&self, window_ms: Option<u64>, now: Timestamp) -> Window {
        let window_ms = window_ms.unwrap_or(u64::MAX).min(self.limits.window_ms);
        let from_ms = now.epoch_ms().saturating_sub(window_ms);
        let first = self.samples.partition_point(|sample| sample.at_ms <= from_ms).saturating_sub(1);
        Window { window_ms, samples: self.samples.range(first..).cloned().collect() }
    }
}

/// The samples of an answer, as the ring held them.
#[derive(Debug)]
pub struct Window {
    window_ms: u64,
    samples: Vec<Arc<Kept>>,
}

impl Window {
    /// The answer, a [`History`] in JSON, made chunk by chunk as it is taken: whole, it can be larger than all that
    /// is kept.
    pub fn into_chunks(self) -> impl Iterator<Item = Bytes> {
        let services = self.services();
        let columns: HashMap<String, usize> =
            services.iter().enumerate().map(|(column, name)| (name.clone(), column)).collect();
        let width = services.len();
        let empty = History { window_ms: self.window_ms, services, samples: Vec::new() };
        let mut chunk = json(&empty);
        // Samples are the last field, so what follows them closes the list and the document.
        let end = chunk.split_off(chunk.len() - b"]}".len());
        debug_assert_eq!(end, b"]}");

        let mut samples = self.samples.into_iter().enumerate();
        let mut end = Some(end);
        std::iter::from_fn(move || {
            while chunk.len() < CHUNK_BYTES
                && let Some((index, kept)) = samples.next()
            {
                if index > 0 {
                    chunk.push(b',');
                }
                chunk.extend(json(&kept.sample(&columns, width)));
            }
            if chunk.len() < CHUNK_BYTES {
                chunk.extend(end.take()?);
            }
            Some(Bytes::from(std::mem::take(&mut chunk)))
        })
    }

    /// The newest set of services leads; what was there only earlier follows.
    fn services(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let mut services = Vec::new();
        let mut merged: Option<&Arc<[String]>> = None;
        for sample in self.samples.iter().rev() {
            if merged.is_some_and(|names| Arc::ptr_eq(names, &sample.names)) {
                continue;
            }
            merged = Some(&sample.names);
            for name in sample.names.iter() {
                if seen.insert(name) {
                    services.push(name.clone());
                }
            }
        }
        services
    }
}

impl Kept {
    /// With its counts in these columns, `width` of them.
    fn sample(&self, columns: &HashMap<String, usize>, width: usize) -> Sample {
        let mut services = vec![None; width];
        for (name, count) in self.names.iter().zip(&self.counts) {
            if let Some(&column) = columns.get(name) {
                services[column] = Some(*count);
            }
        }
        Sample {
            at: Timestamp::from_epoch_ms(self.at_ms),
            live: self.live,
            success: self.success,
            usable_slots: self.usable_slots,
            services,
        }
    }
}

fn json(document: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(document).expect("a document of our own serialises")
}

/// Samples what is published until `shutdown`.
pub async fn sample(
    ring: Arc<Mutex<Ring>>,
    mut newest: watch::Receiver<Option<Arc<Published>>>,
    clock: Clock,
    shutdown: CancellationToken,
) {
    loop {
        if let Some(published) = newest.borrow_and_update().clone() {
            ring.lock().unwrap_or_else(PoisonError::into_inner).push(&published.snapshot, clock.now());
        }
        let next = async {
            tokio::time::sleep(INTERVAL_MIN).await;
            // Both outcomes mean a sample: something has changed, or nothing for long enough.
            let _ = tokio::time::timeout(INTERVAL_MAX.saturating_sub(INTERVAL_MIN), newest.changed()).await;
        };
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = next => {}
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use api_types::snapshot::Source;
    use service_kit::health::Readiness;

    use super::*;
    use crate::hub::Hub;
    use crate::testing::snapshot;

    const LIMITS: Limits = Limits { window_ms: 10_000, samples_max: 100 };

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_epoch_ms(ms)
    }

    fn times(history: &History) -> Vec<u64> {
        history.samples.iter().map(|sample| sample.at.epoch_ms()).collect()
    }

    /// As a reader gets it.
    fn answered(ring: &Ring, window_ms: Option<u64>, now: Timestamp) -> History {
        let answer: Vec<u8> = ring.window(window_ms, now).into_chunks().flatten().collect();
        serde_json::from_slice(&answer).unwrap()
    }

    #[test]
    fn a_lost_scheduler_leaves_a_gap_not_its_last_counts() {
        let mut ring = Ring::new(LIMITS);
        ring.push(&snapshot("a", 1), at(0));
        let mut lost = snapshot("a", 1);
        lost.success = None;
        lost.source = Some(Source { live: false, since: at(500), reason: None });
        ring.push(&lost, at(500));
        let history = answered(&ring, None, at(600));
        assert_eq!(history.services, ["priority1", "priority2"]);
        assert_eq!(history.samples[0].services[0].unwrap().running, 4);
        assert_eq!((history.samples[1].live, history.samples[1].success), (false, None));
        assert_eq!(history.samples[1].services, [None, None]);
    }

    #[test]
    fn a_time_in_which_nobody_watched_is_a_gap() {
        let mut ring = Ring::new(LIMITS);
        ring.push(&snapshot("a", 1), at(0));
        ring.push(&snapshot("a", 2), at(3_000));
        ring.push(&snapshot("a", 3), at(9_000));
        let history = answered(&ring, None, at(9_000));
        assert_eq!(times(&history), [0, 3_000, 4_000, 9_000]);
        let live: Vec<_> = history.samples.iter().map(|sample| sample.live).collect();
        assert_eq!(live, [true, true, false, true]);
    }

    #[test]
    fn a_window_begins_with_what_held_there() {
        let mut ring = Ring::new(LIMITS);
        for second in 0..10 {
            ring.push(&snapshot("a", second), at(second * 1_000));
        }
        let history = answered(&ring, Some(2_500), at(9_000));
        assert_eq!((history.window_ms, times(&history)), (2_500, vec![6_000, 7_000, 8_000, 9_000]));
        let all = answered(&ring, Some(99_999), at(9_000));
        assert_eq!((all.window_ms, all.samples.len()), (10_000, 10));
        assert_eq!(answered(&Ring::new(LIMITS), None, at(9_000)).samples, []);
    }

    #[test]
    fn it_is_bounded_by_time_by_samples_and_by_counts() {
        let mut ring = Ring::new(LIMITS);
        for second in 0..30 {
            ring.push(&snapshot("a", second), at(second * 1_000));
        }
        assert_eq!(times(&answered(&ring, None, at(29_000)))[0], 19_000);
        for step in 0..1_000 {
            ring.push(&snapshot("a", step), at(30_000 + step));
        }
        assert_eq!(ring.samples.len(), 100);
        assert_eq!(ring.counts, 200);

        let mut wide = snapshot("a", 1);
        wide.services = (0..COUNTS_MAX / 4)
            .map(|number| {
                let mut service = wide.services[0].clone();
                service.name = format!("service-{number}");
                service
            })
            .collect();
        for step in 0..10 {
            ring.push(&wide, at(40_000 + step));
        }
        assert_eq!((ring.samples.len(), ring.counts), (4, COUNTS_MAX));
    }

    #[test]
    fn a_long_answer_comes_in_chunks_and_is_made_of_what_was_there() {
        let mut ring = Ring::new(Limits { window_ms: 10_000, samples_max: 2_000 });
        for step in 0..2_000 {
            ring.push(&snapshot("a", step), at(step));
        }
        let window = ring.window(None, at(2_000));
        ring.push(&snapshot("a", 2_000), at(2_000));
        let chunks: Vec<_> = window.into_chunks().collect();
        assert!(chunks.len() > 3, "{}", chunks.len());
        for chunk in &chunks {
            assert!((1..CHUNK_BYTES + 1_000).contains(&chunk.len()), "{}", chunk.len());
        }
        let history: History = serde_json::from_slice(&chunks.concat()).unwrap();
        assert_eq!(times(&history), (0..2_000).collect::<Vec<_>>());
    }

    #[test]
    fn services_that_come_and_go_keep_their_columns_apart() {
        let mut ring = Ring::new(LIMITS);
        let mut other = snapshot("a", 2);
        other.services[0].name = "renamed".to_owned();
        ring.push(&snapshot("a", 1), at(0));
        ring.push(&other, at(1_000));
        let history = answered(&ring, None, at(1_000));
        assert_eq!(history.services, ["renamed", "priority2", "priority1"]);
        let there = |sample: &Sample| sample.services.iter().map(Option::is_some).collect::<Vec<_>>();
        assert_eq!(there(&history.samples[0]), [false, true, true]);
        assert_eq!(there(&history.samples[1]), [true, true, false]);
    }

    #[tokio::test(start_paused = true)]
    async fn samples_come_with_changes_and_at_least_every_second() {
        let clock = Clock::starting_at(at(0));
        let hub = Hub::new(clock, Readiness::not_ready("test"));
        let ring = Arc::new(Mutex::new(Ring::new(LIMITS)));
        let shutdown = CancellationToken::new();
        let sampler = tokio::spawn(sample(Arc::clone(&ring), hub.newest(), clock, shutdown.clone()));
        let pass = |ms| tokio::time::sleep(Duration::from_millis(ms));
        pass(10).await;
        for sequence in 0..5 {
            hub.line(0).accept(snapshot("a", sequence)).unwrap();
            pass(7).await;
        }
        pass(2_100).await;
        hub.line(0).lose("cut".to_owned());
        pass(5).await;
        shutdown.cancel();
        sampler.await.unwrap();
        let history = answered(&ring.lock().unwrap(), None, clock.now());
        assert_eq!(times(&history), [50, 1_050, 2_050, 2_145]);
        assert!(history.samples[2].live);
        assert!(!history.samples[3].live);
    }
}
