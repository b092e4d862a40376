//! The demand document and everything that changes it: the generators' steps, held values, new settings.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use api_types::Timestamp;
use api_types::demand::{DEMAND_MAX, DemandDetail, DemandDocument};
use api_types::generator::{Generator, GeneratorChange};
use api_types::snapshot::Freshness;
use axum::http::HeaderValue;
use service_kit::trace;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

use crate::pattern::{self, Sequence, Unfit};

/// Why a change is refused; the text says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("no key {key:?} here; the keys are: {known}")]
    UnknownKey { key: String, known: String },
    #[error("this source has several keys; say which one with ?key=; the keys are: {known}")]
    WhichKey { known: String },
    #[error("demand {key:?} is {value}; it must be 0 to {DEMAND_MAX}, or null for unknown")]
    TooMany { key: String, value: u32 },
    #[error("{}", pattern::in_words(.0))]
    Settings(Vec<Unfit>),
}

/// What becomes of a key's generator when the keys are configured again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// It begins anew, with these settings.
    Anew,
    /// Where it is there already it goes on, with the settings that it has.
    IfNew,
}

/// The demand document as it is served, serialised once for all who ask.
#[derive(Debug)]
pub(crate) struct Served {
    /// With its quotes.
    pub(crate) etag: String,
    /// JSON.
    pub(crate) body: String,
    /// The span in which it was changed, if there is a trace of that.
    pub(crate) traceparent: Option<HeaderValue>,
}

/// A demand source. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub(crate) struct Source(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    boot_id: u32,
    clock: fn() -> Timestamp,
    state: Mutex<State>,
    served: watch::Sender<Arc<Served>>,
    /// The times of the next steps have changed.
    rescheduled: Notify,
}

#[derive(Debug)]
struct State {
    sequence: u64,
    /// In the order of the config.
    keys: Vec<Key>,
}

#[derive(Debug)]
struct Key {
    name: String,
    generator: Sequence,
    /// What the generator said last.
    generated: u32,
    next_step_at: Instant,
    /// Said by the operator in place of it.
    hold: Hold,
}

#[derive(Debug)]
enum Hold {
    Nothing,
    Value(u32),
    Unknown,
}

impl Key {
    fn demand(&self) -> Option<u32> {
        match self.hold {
            Hold::Nothing => Some(self.generated),
            Hold::Value(value) => Some(value),
            Hold::Unknown => None,
        }
    }

    /// At its generator's first value.
    fn new(name: String, settings: Generator) -> Self {
        let now = Instant::now();
        let generator = Sequence::new(settings);
        let mut key = Self { name, generator, generated: 0, next_step_at: now, hold: Hold::Nothing };
        key.step(now);
        key
    }

    /// Starts a generator anew: its first step is now.
    fn begin(&mut self, settings: Generator) {
        self.generator = Sequence::new(settings);
        self.step(Instant::now());
    }

    fn step(&mut self, now: Instant) {
        self.generated = self.generator.next_value();
        // From now, not from when it was due: after a suspension there is no burst of steps.
        self.next_step_at = now + Duration::from_millis(self.generator.settings().interval_ms);
    }
}

impl Source {
    /// A source with these keys, each at its generator's first value. `boot_id` is to differ from one run to the
    /// next; `clock` gives `changed_at`.
    pub(crate) fn new(generators: Vec<(String, Generator)>, boot_id: u32, clock: fn() -> Timestamp) -> Self {
        let keys = generators.into_iter().map(|(name, settings)| Key::new(name, settings));
        let state = State { sequence: 1, keys: keys.collect() };
        let served = watch::Sender::new(Arc::new(state.serve(boot_id, clock())));
        Self(Arc::new(Inner { boot_id, clock, state: Mutex::new(state), served, rescheduled: Notify::new() }))
    }

    /// The document, now and whenever it changes.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Served>> {
        self.0.served.subscribe()
    }

    /// Steps the generators, each at its interval, for as long as it is polled. Keys whose steps are due together
    /// change together.
    pub(crate) async fn generate(&self) -> Infallible {
        loop {
            let next = self.lock().keys.iter().map(|key| key.next_step_at).min();
            let due = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.0.rescheduled.notified() => {}
                () = due => {
                    let now = Instant::now();
                    self.change(|state| {
                        for key in state.keys.iter_mut().filter(|key| key.next_step_at <= now) {
                            key.step(now);
                        }
                    });
                }
            }
        }
    }

    /// Holds these values, all or, if one is refused, none; the other keys stay as they are. The generators go on
    /// beneath.
    pub(crate) fn hold(&self, values: &BTreeMap<String, Option<u32>>) -> Result<(), ChangeError> {
        self.try_change(|state| {
            let mut held = Vec::with_capacity(values.len());
            for (name, value) in values {
                held.push((state.index(name)?, *value));
                if let Some(value) = value.filter(|value| u64::from(*value) > DEMAND_MAX) {
                    return Err(ChangeError::TooMany { key: name.clone(), value });
                }
            }
            for (index, value) in held {
                state.keys[index].hold = value.map_or(Hold::Unknown, Hold::Value);
            }
            Ok(())
        })
    }

    /// Gives the named key back to its generator, or every key.
    pub(crate) fn release(&self, key: Option<&str>) -> Result<(), ChangeError> {
        self.try_change(|state| {
            match key {
                Some(name) => {
                    let index = state.index(name)?;
                    state.keys[index].hold = Hold::Nothing;
                }
                None => state.keys.iter_mut().for_each(|key| key.hold = Hold::Nothing),
            }
            Ok(())
        })
    }

    /// The settings of the named key's generator; the name may be left out when there is one key.
    pub(crate) fn settings(&self, key: Option<&str>) -> Result<Generator, ChangeError> {
        let state = self.lock();
        let index = state.index_or_only(key)?;
        Ok(state.keys[index].generator.settings().clone())
    }

    /// Changes some of them and starts the generator anew; gives the new settings.
    pub(crate) fn set(&self, key: Option<&str>, change: GeneratorChange) -> Result<Generator, ChangeError> {
        let settings = self.try_change(|state| {
            let index = state.index_or_only(key)?;
            let key = &mut state.keys[index];
            let settings =
                pattern::changed(key.generator.settings(), change).map_err(ChangeError::Settings)?;
            key.begin(settings.clone());
            Ok(settings)
        })?;
        self.0.rescheduled.notify_one();
        Ok(settings)
    }

    /// Has these keys from now on, and no others. What is held stays held, and its generator goes on beneath.
    pub(crate) fn configure(&self, generators: Vec<(String, Generator, Begin)>) {
        let mut state = self.lock();
        let before = state.demands();
        let mut known = std::mem::take(&mut state.keys);
        for (name, settings, begin) in generators {
            let at = known.iter().position(|key| key.name == name);
            state.keys.push(match at.map(|at| known.swap_remove(at)) {
                Some(mut key) => {
                    if begin == Begin::Anew {
                        key.begin(settings);
                    }
                    key
                }
                None => Key::new(name, settings),
            });
        }
        for removed in known {
            metrics::gauge!("demand", "key" => removed.name).set(f64::NAN);
        }
        if state.demands() != before {
            self.serve_next(&mut state);
        }
        drop(state);
        self.0.rescheduled.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let result = self.try_change(|state| {
            change(state);
            Ok(())
        });
        debug_assert_eq!(result, Ok(()), "nothing refuses it");
    }

    /// Changes the state and serves the new document, if it is another one.
    fn try_change<T>(
        &self,
        change: impl FnOnce(&mut State) -> Result<T, ChangeError>,
    ) -> Result<T, ChangeError> {
        let mut state = self.lock();
        let before: Vec<_> = state.keys.iter().map(Key::demand).collect();
        let result = change(&mut state)?;
        if !state.keys.iter().map(Key::demand).eq(before) {
            self.serve_next(&mut state);
        }
        Ok(result)
    }

    /// Serves what the state says now. Under its lock, so that documents are served in the order of their sequence.
    fn serve_next(&self, state: &mut State) {
        state.sequence += 1;
        let span = tracing::info_span!("change demand", force12.sequence = state.sequence);
        let served = span.in_scope(|| state.serve(self.0.boot_id, (self.0.clock)()));
        self.0.served.send_replace(Arc::new(served));
    }
}

impl State {
    /// By key, whatever the order of the keys.
    fn demands(&self) -> BTreeMap<String, Option<u32>> {
        self.keys.iter().map(|key| (key.name.clone(), key.demand())).collect()
    }

    fn index(&self, name: &str) -> Result<usize, ChangeError> {
        self.keys
            .iter()
            .position(|key| key.name == name)
            .ok_or_else(|| ChangeError::UnknownKey { key: name.to_owned(), known: self.known() })
    }

    fn index_or_only(&self, name: Option<&str>) -> Result<usize, ChangeError> {
        match name {
            Some(name) => self.index(name),
            None if self.keys.len() == 1 => Ok(0),
            None => Err(ChangeError::WhichKey { known: self.known() }),
        }
    }

    fn known(&self) -> String {
        self.keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>().join(", ")
    }

    fn serve(&self, boot_id: u32, changed_at: Timestamp) -> Served {
        let mut document = DemandDocument {
            sequence: self.sequence,
            changed_at,
            demand: BTreeMap::new(),
            details: BTreeMap::new(),
        };
        for key in &self.keys {
            let demand = key.demand();
            document.demand.insert(key.name.clone(), demand.into());
            metrics::gauge!("demand", "key" => key.name.clone()).set(demand.map_or(f64::NAN, f64::from));
            if demand.is_none() {
                let detail = DemandDetail {
                    freshness: Some(Freshness::Unknown),
                    age_ms: None,
                    reason: Some("held as unknown by the operator".to_owned()),
                };
                document.details.insert(key.name.clone(), detail);
            }
        }
        metrics::counter!("demand_changes_total").absolute(self.sequence);
        let body = serde_json::to_string(&document).expect("a document of our own serialises");
        let etag = format!("\"{boot_id:08x}-{}\"", self.sequence);
        Served { etag, body, traceparent: trace::traceparent() }
    }
}

/// Describes the metrics that are recorded here, which are all of this crate's.
pub(crate) fn describe_metrics() {
    metrics::describe_gauge!("demand", "Containers wanted now, by key; NaN while unknown.");
    metrics::describe_counter!(
        "demand_changes_total",
        metrics::Unit::Count,
        "The sequence of the demand document: 1 at the start, and one more with each change."
    );
}

#[cfg(test)]
mod tests {
    use api_types::generator::Pattern;

    use super::*;

    fn trace(interval_ms: u64, trace: Vec<u32>) -> Generator {
        Generator { pattern: Pattern::Trace, interval_ms, trace, ..pattern::defaults() }
    }

    fn source(generators: &[(&str, Generator)]) -> Source {
        let generators =
            generators.iter().map(|(key, settings)| ((*key).to_owned(), settings.clone())).collect();
        Source::new(generators, 0xb3f1, || Timestamp::from_epoch_ms(0))
    }

    fn document(source: &Source) -> DemandDocument {
        serde_json::from_str(&source.subscribe().borrow().body).unwrap()
    }

    fn demand(source: &Source) -> String {
        serde_json::to_string(&document(source).demand).unwrap()
    }

    fn running(source: &Source) -> tokio::task::JoinHandle<Infallible> {
        let source = source.clone();
        tokio::spawn(async move { source.generate().await })
    }

    #[tokio::test(start_paused = true)]
    async fn steps_come_at_their_interval_and_together() {
        let source = source(&[("a", trace(1_000, vec![1, 2, 3])), ("b", trace(2_000, vec![7, 8]))]);
        let generating = running(&source);
        let mut served = source.subscribe();
        let began = Instant::now();
        let mut seen = vec![(0, demand(&source))];
        for _ in 0..3 {
            served.changed().await.unwrap();
            seen.push((began.elapsed().as_millis(), demand(&source)));
        }
        let seen: Vec<_> = seen.iter().map(|(at, text)| (*at / 1_000, text.as_str())).collect();
        assert_eq!(
            seen,
            [
                (0, r#"{"a":1,"b":7}"#),
                (1, r#"{"a":2,"b":7}"#),
                (2, r#"{"a":3,"b":8}"#),
                (3, r#"{"a":1,"b":8}"#)
            ]
        );
        generating.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_value_stays_until_it_is_released() {
        let source = source(&[("a", trace(1_000, vec![1, 2, 3])), ("b", trace(86_400_000, vec![7]))]);
        let generating = running(&source);
        source.hold(&[("a".to_owned(), Some(5))].into()).unwrap();
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        assert_eq!(demand(&source), r#"{"a":5,"b":7}"#);
        source.hold(&[("b".to_owned(), None)].into()).unwrap();
        assert_eq!(demand(&source), r#"{"a":5,"b":null}"#);
        let detail = document(&source).details["b"].clone();
        assert_eq!(detail.freshness, Some(Freshness::Unknown));
        source.release(Some("b")).unwrap();
        assert_eq!(demand(&source), r#"{"a":5,"b":7}"#);
        source.release(None).unwrap();
        assert_eq!(demand(&source), r#"{"a":3,"b":7}"#);
        assert!(document(&source).details.is_empty());
        generating.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn the_sequence_rises_only_with_a_change() {
        let source = source(&[("a", trace(1_000, vec![1]))]);
        let generating = running(&source);
        tokio::time::sleep(Duration::from_secs(10)).await;
        source.hold(&[("a".to_owned(), Some(1))].into()).unwrap();
        assert_eq!(document(&source).sequence, 1);
        assert_eq!(source.subscribe().borrow().etag, "\"0000b3f1-1\"");
        source.hold(&[("a".to_owned(), Some(2))].into()).unwrap();
        assert_eq!(source.subscribe().borrow().etag, "\"0000b3f1-2\"");
        generating.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_refused_hold_changes_nothing() {
        let source = source(&[("a", trace(1_000, vec![1])), ("c", trace(1_000, vec![1]))]);
        let unknown =
            source.hold(&[("a".to_owned(), Some(5)), ("b".to_owned(), Some(5))].into()).unwrap_err();
        assert_eq!(unknown.to_string(), "no key \"b\" here; the keys are: a, c");
        let many =
            source.hold(&[("a".to_owned(), Some(5)), ("c".to_owned(), Some(1_000_001))].into()).unwrap_err();
        assert_eq!(many.to_string(), "demand \"c\" is 1000001; it must be 0 to 1000000, or null for unknown");
        assert_eq!(demand(&source), r#"{"a":1,"c":1}"#);
        source.hold(&[("a".to_owned(), Some(1_000_000))].into()).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn new_settings_apply_at_once_and_begin_anew() {
        let source = source(&[("a", trace(86_400_000, vec![1, 2]))]);
        let generating = running(&source);
        tokio::task::yield_now().await;
        let change =
            GeneratorChange { trace: Some(vec![6, 7]), interval_ms: Some(100), ..Default::default() };
        let settings = source.set(None, change).unwrap();
        assert_eq!(settings, trace(100, vec![6, 7]));
        assert_eq!(source.settings(Some("a")), Ok(settings));
        assert_eq!(demand(&source), r#"{"a":6}"#);
        tokio::time::sleep(Duration::from_millis(150)).await;
        assert_eq!(demand(&source), r#"{"a":7}"#);
        generating.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn keys_come_and_go_and_the_others_go_on() {
        let source = source(&[
            ("a", trace(1_000, vec![1, 2, 3])),
            ("b", trace(1_000, vec![7, 8])),
            ("c", trace(1_000, vec![5])),
        ]);
        let generating = running(&source);
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        source.hold(&[("b".to_owned(), Some(0))].into()).unwrap();
        assert_eq!(demand(&source), r#"{"a":2,"b":0,"c":5}"#);
        source.configure(vec![
            ("d".to_owned(), trace(1_000, vec![4]), Begin::IfNew),
            ("b".to_owned(), trace(1_000, vec![6]), Begin::Anew),
            ("a".to_owned(), trace(1_000, vec![9]), Begin::IfNew),
        ]);
        assert_eq!(demand(&source), r#"{"a":2,"b":0,"d":4}"#, "what is held stays held");
        source.release(None).unwrap();
        assert_eq!(demand(&source), r#"{"a":2,"b":6,"d":4}"#);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(demand(&source), r#"{"a":3,"b":6,"d":4}"#, "it goes on where it was");
        assert!(source.settings(Some("c")).is_err());
        let sequence = document(&source).sequence;
        source.configure(
            ["a", "b", "d"].map(|key| (key.to_owned(), trace(1_000, vec![1]), Begin::IfNew)).into(),
        );
        assert_eq!(document(&source).sequence, sequence, "another order is no other document");
        generating.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn with_several_keys_one_must_be_named() {
        let source = source(&[("a", trace(1_000, vec![1])), ("b", trace(1_000, vec![1]))]);
        assert_eq!(
            source.settings(None).unwrap_err().to_string(),
            "this source has several keys; say which one with ?key=; the keys are: a, b"
        );
        assert!(source.settings(Some("b")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn every_metric_says_what_it_is() {
        let metrics = service_kit::metrics::install().unwrap();
        describe_metrics();
        let _recorded = source(&[("a", trace(1_000, vec![1]))]);
        let text = metrics.render();
        let names: Vec<_> =
            text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
        for name in &names {
            assert!(text.contains(&format!("# HELP {name} ")), "{name} is not described");
        }
        assert!(names.contains(&"demand") && names.contains(&"demand_changes_total"), "{names:?}");
    }
}
