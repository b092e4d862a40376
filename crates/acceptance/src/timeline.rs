//! What happened, and questions about it: pure, so that the checks themselves can be checked.
//!
//! Moments are nanoseconds since the Unix epoch by the machine's clock, which the engine's events and our own
//! receipts share.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Nanoseconds since the Unix epoch.
pub type Nanos = i64;

/// Nanoseconds in a millisecond.
pub const MS: Nanos = 1_000_000;

/// The signal that nothing can be done about.
pub const SIGKILL: i64 = 9;

/// One container event, as the engine reported it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// By the engine's clock.
    pub at: Nanos,
    /// The engine's word for it: `create`, `start`, `kill`, `die`, `pause`, `unpause`, `destroy`, …
    pub action: String,
    /// The engine's id of the container.
    pub id: String,
    /// The container's name.
    pub name: String,
    /// From its label; empty where it carries none.
    pub service: String,
    /// From its label; empty where it carries none.
    pub instance: String,
    /// Which signal, of a `kill`; the exit code, of a `die`.
    pub code: Option<i64>,
}

/// A whole number over time: it holds from each change to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Steps {
    changes: Vec<(Nanos, i64)>,
}

impl Steps {
    /// Adds a change; `at` must not lie before the last one. A second change at one moment replaces the first.
    ///
    /// # Panics
    /// If time runs backwards.
    pub fn push(&mut self, at: Nanos, value: i64) {
        if let Some(last) = self.changes.last_mut() {
            assert!(at >= last.0, "time runs backwards: {at} after {}", last.0);
            if last.0 == at {
                last.1 = value;
                return;
            }
        }
        self.changes.push((at, value));
    }

    /// Every change: from when, and the value from then on.
    pub fn changes(&self) -> &[(Nanos, i64)] {
        &self.changes
    }

    /// The value at a moment; 0 before the first change.
    pub fn at(&self, at: Nanos) -> i64 {
        let after = self.changes.partition_point(|change| change.0 <= at);
        if after == 0 { 0 } else { self.changes[after - 1].1 }
    }

    /// The largest value that held at any moment from `from` to `to`, both included.
    pub fn max_in(&self, from: Nanos, to: Nanos) -> i64 {
        self.values_in(from, to).max().unwrap_or(0)
    }

    /// The smallest value that held at any moment from `from` to `to`, both included.
    pub fn min_in(&self, from: Nanos, to: Nanos) -> i64 {
        self.values_in(from, to).min().unwrap_or(0)
    }

    fn values_in(&self, from: Nanos, to: Nanos) -> impl Iterator<Item = i64> {
        let inside = self.changes.iter().filter(move |change| from < change.0 && change.0 <= to);
        std::iter::once(self.at(from)).chain(inside.map(|change| change.1))
    }
}

/// A stretch of time in which something did not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Its begin.
    pub from: Nanos,
    /// Its end.
    pub to: Nanos,
    /// What was seen at its begin.
    pub seen: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = (self.to - self.from) / MS;
        write!(formatter, "at {} for {ms} ms: {}", moment(self.from), self.seen)
    }
}

/// Everything that happened to a set of containers, in order.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    events: Vec<Event>,
}

/// An event a line.
impl fmt::Display for Timeline {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for event in &self.events {
            writeln!(
                formatter,
                "{} {:8} {} {}",
                moment(event.at),
                event.action,
                short(&event.id),
                event.name
            )?;
        }
        Ok(())
    }
}

impl Timeline {
    /// From events in any order; those of one moment keep the order they are given in.
    pub fn new(mut events: Vec<Event>) -> Self {
        events.sort_by_key(|event| event.at);
        Self { events }
    }

    /// Adds one; after those of the same moment.
    pub fn push(&mut self, event: Event) {
        // Nearly always the last: the engine reports in order but for calls that it serves at once.
        let behind = self.events.iter().rev().take_while(|other| other.at > event.at).count();
        self.events.insert(self.events.len() - behind, event);
    }

    /// Those after a moment, in order.
    pub fn after(&self, at: Nanos) -> &[Event] {
        &self.events[self.events.partition_point(|event| event.at <= at)..]
    }

    /// In order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Those of one action, in order.
    pub fn of<'a>(&'a self, action: &'a str) -> impl Iterator<Item = &'a Event> {
        self.events.iter().filter(move |event| event.action == action)
    }

    /// How many containers ran (started, not ended, not paused) at each moment, of those that `which` picks. One that is
    /// paused and gets SIGKILL never runs again: the engine tells that it has resumed it, so that the signal reaches it.
    pub fn running(&self, which: impl Fn(&Event) -> bool) -> Steps {
        let mut running = BTreeSet::new();
        let mut over = BTreeSet::new();
        let mut steps = Steps::default();
        for event in self.events.iter().filter(|event| which(event)) {
            let id = event.id.as_str();
            match event.action.as_str() {
                "start" => running.insert(id),
                "unpause" if !over.contains(id) => running.insert(id),
                "die" | "destroy" => {
                    over.insert(id);
                    running.remove(id)
                }
                "kill" if event.code == Some(SIGKILL) && !running.contains(id) => over.insert(id),
                "pause" => running.remove(id),
                _ => continue,
            };
            steps.push(event.at, count(running.len()));
        }
        steps
    }

    /// How many containers had a process at each moment, paused or not, of those that `which` picks.
    pub fn alive(&self, which: impl Fn(&Event) -> bool) -> Steps {
        let mut alive = BTreeSet::new();
        let mut steps = Steps::default();
        for event in self.events.iter().filter(|event| which(event)) {
            match event.action.as_str() {
                "start" => alive.insert(event.id.as_str()),
                "die" | "destroy" => alive.remove(event.id.as_str()),
                _ => continue,
            };
            steps.push(event.at, count(alive.len()));
        }
        steps
    }

    /// How many of a service ran at each moment.
    pub fn running_of(&self, service: &str) -> Steps {
        self.running(|event| event.service == service)
    }

    /// How many ran at each moment, of all services.
    pub fn running_total(&self) -> Steps {
        self.running(|_| true)
    }

    /// Whatever was started twice: one container that was started again, or two of one name alive at once.
    pub fn started_twice(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut starts: BTreeMap<&str, u32> = BTreeMap::new();
        let mut alive: BTreeMap<&str, &str> = BTreeMap::new();
        for event in &self.events {
            match event.action.as_str() {
                "start" => {
                    let times = starts.entry(&event.id).or_default();
                    *times += 1;
                    if *times > 1 {
                        found.push(format!(
                            "{} ({}) was started {times} times",
                            event.name,
                            short(&event.id)
                        ));
                    }
                    if let Some(other) = alive.insert(&event.name, &event.id)
                        && other != event.id
                    {
                        let (this, other) = (short(&event.id), short(other));
                        found.push(format!("{} lives twice: {other} and {this}", event.name));
                    }
                }
                "die" if alive.get(event.name.as_str()) == Some(&event.id.as_str()) => {
                    alive.remove(event.name.as_str());
                }
                _ => {}
            }
        }
        found
    }

    /// The ends of a service's containers that left fewer running than `least` says for that moment.
    pub fn stopped_below(&self, service: &str, least: impl Fn(Nanos) -> i64) -> Vec<Breach> {
        let running = self.running_of(service);
        let mut found = Vec::new();
        for end in self.of("die").filter(|end| end.service == service) {
            let (left, least) = (running.at(end.at), least(end.at));
            if left < least {
                let seen = format!("{} ended and left {left} of {service}; {least} were wanted", end.name);
                found.push(Breach { from: end.at, to: end.at, seen });
            }
        }
        found
    }

    /// When more than `limit` ran, from `from` to `to`.
    pub fn more_than(steps: &Steps, limit: i64, from: Nanos, to: Nanos) -> Vec<Breach> {
        breaches(&[steps], 0, from, to, |at| {
            let ran = steps.at(at);
            (ran > limit).then(|| format!("{ran} ran, {limit} are allowed"))
        })
    }

    /// When more ran than were wanted at any moment of the last `grace` nanoseconds, from `from` to `to`.
    pub fn more_than_wanted(
        ran: &Steps,
        wanted: &Steps,
        grace: Nanos,
        from: Nanos,
        to: Nanos,
    ) -> Vec<Breach> {
        breaches(&[ran, wanted], grace, from, to, |at| {
            let (have, most) = (ran.at(at), wanted.max_in(at - grace, at));
            (have > most).then(|| format!("{have} ran, at most {most} had been wanted for {} ms", grace / MS))
        })
    }

    /// The part of the time from `from` to `to` in which `holds` was true, 0 to 1; it can only change when one
    /// of `inputs` does.
    pub fn fraction(inputs: &[&Steps], from: Nanos, to: Nanos, holds: impl Fn(Nanos) -> bool) -> f64 {
        let broken: Nanos = breaches(inputs, 0, from, to, |at| (!holds(at)).then(String::new))
            .iter()
            .map(|b| b.to - b.from)
            .sum();
        1.0 - ratio(broken, to - from)
    }
}

/// When `seen` had something to say, from `from` to `to`. What it says can only change when one of `inputs`
/// changes, or `echo` nanoseconds after.
fn breaches(
    inputs: &[&Steps],
    echo: Nanos,
    from: Nanos,
    to: Nanos,
    seen: impl Fn(Nanos) -> Option<String>,
) -> Vec<Breach> {
    let changes = inputs.iter().flat_map(|steps| steps.changes()).map(|change| change.0);
    // One nanosecond more: a window that includes its own begin lets go of a change only after it.
    let mut moments: Vec<Nanos> =
        changes.flat_map(|at| [at, at + echo + 1]).filter(|&at| from < at && at < to).collect();
    moments.push(from);
    moments.sort_unstable();
    moments.dedup();
    let ends = moments[1..].iter().copied().chain([to]);
    let mut found: Vec<Breach> = Vec::new();
    for (begin, end) in moments.iter().copied().zip(ends) {
        let Some(seen) = seen(begin) else { continue };
        match found.last_mut() {
            Some(last) if last.to == begin => last.to = end,
            _ => found.push(Breach { from: begin, to: end, seen }),
        }
    }
    found
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a fraction of minutes needs no nanoseconds")]
fn ratio(part: Nanos, whole: Nanos) -> f64 {
    if whole > 0 { part as f64 / whole as f64 } else { 0.0 }
}

/// A moment for a person.
pub fn moment(at: Nanos) -> api_types::Timestamp {
    api_types::Timestamp::from_epoch_ms(u64::try_from(at / MS).unwrap_or(0))
}

/// The first twelve digits of an engine's id, as its own client shows it.
pub fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(at: Nanos, action: &str, id: &str, name: &str) -> Event {
        let (service, instance) = name.split_once('@').unwrap();
        Event {
            at,
            action: action.to_owned(),
            id: id.to_owned(),
            name: name.to_owned(),
            service: service.to_owned(),
            instance: instance.to_owned(),
            code: (action == "kill").then_some(SIGKILL),
        }
    }

    fn steps(changes: &[(Nanos, i64)]) -> Steps {
        Steps { changes: changes.to_vec() }
    }

    #[test]
    fn running_counts_by_service_and_pauses() {
        let timeline = Timeline::new(vec![
            event(40, "die", "a", "one@x"),
            event(10, "start", "a", "one@x"),
            event(20, "start", "b", "two@x"),
            event(30, "pause", "b", "two@x"),
            event(35, "unpause", "b", "two@x"),
            event(50, "destroy", "a", "one@x"),
        ]);
        assert_eq!(timeline.running_of("one"), steps(&[(10, 1), (40, 0), (50, 0)]));
        assert_eq!(timeline.running_of("two"), steps(&[(20, 1), (30, 0), (35, 1)]));
        assert_eq!(timeline.running_total().max_in(0, 100), 2);
        assert_eq!(timeline.running_total().at(32), 1);
        assert_eq!(timeline.running_total().at(5), 0);
    }

    #[test]
    fn what_is_killed_in_its_freezer_never_runs_again() {
        let timeline = Timeline::new(vec![
            event(10, "start", "a", "one@x"),
            event(20, "pause", "a", "one@x"),
            event(30, "kill", "a", "one@x"),
            event(31, "unpause", "a", "one@x"),
            event(40, "die", "a", "one@x"),
            event(41, "unpause", "a", "one@x"),
        ]);
        assert_eq!(timeline.running_of("one").max_in(20, 100), 0);
        assert_eq!(timeline.alive(|_| true), steps(&[(10, 1), (40, 0)]));
        let asked = timeline.events().iter().map(|it| Event { code: it.code.map(|_| 15), ..it.clone() });
        let asked = Timeline::new(asked.collect());
        assert_eq!(asked.running_of("one").max_in(31, 39), 1, "one that is asked to end runs for that");
        assert_eq!(asked.running_of("one").at(50), 0);
    }

    #[test]
    fn both_ways_of_starting_twice_are_found() {
        let again = Timeline::new(vec![
            event(1, "start", "a", "one@x"),
            event(2, "die", "a", "one@x"),
            event(3, "start", "a", "one@x"),
        ]);
        assert_eq!(again.started_twice().len(), 1, "{:?}", again.started_twice());
        let twins = Timeline::new(vec![event(1, "start", "a", "one@x"), event(2, "start", "b", "one@x")]);
        assert_eq!(twins.started_twice().len(), 1, "{:?}", twins.started_twice());
        let successor = Timeline::new(vec![
            event(1, "start", "a", "one@x"),
            event(2, "die", "a", "one@x"),
            event(3, "start", "b", "one@x"),
        ]);
        assert!(successor.started_twice().is_empty(), "{:?}", successor.started_twice());
    }

    #[test]
    fn a_stop_of_what_is_wanted_is_found() {
        let timeline = Timeline::new(vec![
            event(1, "start", "a", "one@x"),
            event(2, "start", "b", "one@x"),
            event(10, "die", "a", "one@x"),
            event(20, "die", "b", "one@x"),
        ]);
        assert!(timeline.stopped_below("one", |_| 0).is_empty());
        assert_eq!(timeline.stopped_below("one", |at| i64::from(at < 20)).len(), 0);
        assert_eq!(timeline.stopped_below("one", |_| 1).len(), 1);
        assert_eq!(timeline.stopped_below("one", |_| 2).len(), 2);
    }

    #[test]
    fn a_limit_is_broken_for_as_long_as_it_is_broken() {
        let ran = steps(&[(0, 9), (10, 10), (12, 11), (15, 9), (20, 10)]);
        let found = Timeline::more_than(&ran, 9, 0, 30);
        let spans: Vec<_> = found.iter().map(|breach| (breach.from, breach.to)).collect();
        assert_eq!(spans, [(10, 15), (20, 30)]);
        assert!(Timeline::more_than(&ran, 9, 0, 10).is_empty());
    }

    #[test]
    fn more_than_wanted_is_forgiven_for_the_grace_only() {
        let wanted = steps(&[(0, 4), (100, 3)]);
        let in_time = steps(&[(0, 4), (149, 3)]);
        assert!(Timeline::more_than_wanted(&in_time, &wanted, 50, 0, 1_000).is_empty());
        let late = steps(&[(0, 4), (160, 3)]);
        let found = Timeline::more_than_wanted(&late, &wanted, 50, 0, 1_000);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].from, found[0].to), (151, 160));
        let early = steps(&[(0, 4), (50, 5), (60, 4)]);
        let found = Timeline::more_than_wanted(&early, &wanted, 50, 0, 1_000);
        assert_eq!((found[0].from, found[0].to), (50, 60), "a rise has no grace");
    }

    #[test]
    fn the_fraction_counts_time_not_changes() {
        let wanted = steps(&[(0, 4), (50, 5)]);
        let ran = steps(&[(0, 4), (60, 5)]);
        let success = |at| wanted.at(at) == ran.at(at);
        let fraction = Timeline::fraction(&[&wanted, &ran], 0, 100, success);
        assert!((fraction - 0.9).abs() < 1e-9, "{fraction}");
    }
}
