//! What must hold of a history, and what can be read from it.

use driver::ContainerId;
use planner::{Phase, Resources};

use super::history::{Actor, Entry, Happening, Mishap, Occupancy};

/// All that happened on an engine until it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    entries: Vec<Entry>,
    occupancy: Vec<Occupancy>,
    mishaps: Vec<Mishap>,
}

/// How many containers of a service there were in each phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// On their way to running.
    pub starting: usize,
    /// Running.
    pub running: usize,
    /// On their way out.
    pub stopping: usize,
    /// Suspended.
    pub frozen: usize,
}

impl Counts {
    /// Those that take room.
    pub const fn in_room(self) -> usize {
        self.starting + self.running + self.stopping
    }
}

/// Two containers of one key that ran at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Duplicate {
    /// When the second one began to start: milliseconds since the engine was made.
    pub at_ms: u64,
    /// The one that was there.
    pub first: ContainerId,
    /// The one too many.
    pub second: ContainerId,
    /// Which: `service/ordinal on instance`.
    pub key: String,
}

impl History {
    pub(super) const fn new(entries: Vec<Entry>, occupancy: Vec<Occupancy>, mishaps: Vec<Mishap>) -> Self {
        Self { entries, occupancy, mishaps }
    }

    /// Every line, oldest first.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The requests that went wrong, in the order of their ends.
    pub fn mishaps(&self) -> &[Mishap] {
        &self.mishaps
    }

    /// How full every instance was after each change, oldest first.
    pub fn occupancy(&self) -> &[Occupancy] {
        &self.occupancy
    }

    /// The most that one cluster ever took of an instance, each dimension by itself.
    pub fn peak(&self, instance: &str) -> Resources {
        let of_instance = self.occupancy.iter().filter(|occupancy| occupancy.instance == instance);
        of_instance.fold(Resources::ZERO, |peak, occupancy| Resources {
            slots: peak.slots.max(occupancy.used.slots),
            cpu_millis: peak.cpu_millis.max(occupancy.used.cpu_millis),
            memory_mib: peak.memory_mib.max(occupancy.used.memory_mib),
        })
    }

    /// The starts and thaws by drivers that left an instance with more taken than it had. Where something else
    /// did (capacity lowered, a container started by hand), that is none of them.
    pub fn over_capacity(&self) -> Vec<&Occupancy> {
        let over =
            |occupancy: &&Occupancy| occupancy.taken_by_driver && !occupancy.used.fits(occupancy.capacity);
        self.occupancy.iter().filter(over).collect()
    }

    /// Containers of the same cluster, service, instance and ordinal that were in room at the same time.
    pub fn duplicates(&self) -> Vec<Duplicate> {
        let mut in_room: Vec<&Entry> = Vec::new();
        let mut duplicates = Vec::new();
        for entry in &self.entries {
            match entry.what {
                Happening::Starting => {
                    if let Some(first) = in_room.iter().find(|other| same_key(other, entry)) {
                        duplicates.push(Duplicate {
                            at_ms: entry.at_ms,
                            first: first.container.clone(),
                            second: entry.container.clone(),
                            key: key_words(entry),
                        });
                    }
                    in_room.push(entry);
                }
                Happening::StartFailed | Happening::Exited { .. } => {
                    in_room.retain(|other| other.container != entry.container);
                }
                _ => {}
            }
        }
        duplicates
    }

    /// What a driver did to containers of other clusters, or of nobody's.
    pub fn others_touched(&self, cluster: &str) -> Vec<&Entry> {
        let others = |entry: &&Entry| {
            entry.by == Actor::Driver
                && entry.subject.labels.as_ref().is_none_or(|labels| labels.cluster != cluster)
        };
        self.entries.iter().filter(others).collect()
    }

    /// How many of a service there were, from each moment at which that changed; whatever their cluster.
    pub fn counts(&self, service: &str) -> Vec<(u64, Counts)> {
        let mut phases: Vec<(&ContainerId, Phase)> = Vec::new();
        let mut timeline: Vec<(u64, Counts)> = Vec::new();
        let of_service =
            |entry: &&Entry| entry.subject.labels.as_ref().is_some_and(|labels| labels.service == service);
        for entry in self.entries.iter().filter(of_service) {
            phases.retain(|(id, _)| **id != entry.container);
            if let Some(phase) = phase_after(entry.what) {
                phases.push((&entry.container, phase));
            }
            let in_phase = |wanted| phases.iter().filter(|(_, phase)| *phase == wanted).count();
            let counts = Counts {
                starting: in_phase(Phase::Starting),
                running: in_phase(Phase::Running),
                stopping: in_phase(Phase::Stopping),
                frozen: in_phase(Phase::Frozen),
            };
            match timeline.last_mut() {
                Some((_, last)) if *last == counts => {}
                Some((at_ms, last)) if *at_ms == entry.at_ms => *last = counts,
                _ => timeline.push((entry.at_ms, counts)),
            }
        }
        timeline
    }

    /// How many of a service there were at a moment, given in milliseconds since the engine was made.
    pub fn counts_at(&self, service: &str, at_ms: u64) -> Counts {
        let timeline = self.counts(service);
        let until = timeline.partition_point(|(since_ms, _)| *since_ms <= at_ms);
        timeline[..until].last().map(|(_, counts)| *counts).unwrap_or_default()
    }

    /// How often a container of the service began to run.
    pub fn starts(&self, service: &str) -> usize {
        self.of(service).filter(|entry| entry.what == Happening::Running).count()
    }

    /// The lines about a service's containers.
    pub fn of<'a>(&'a self, service: &'a str) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| {
            entry.subject.labels.as_ref().is_some_and(|labels| labels.service == service)
        })
    }

    /// The lines about one container.
    pub fn about<'a>(&'a self, id: &'a ContainerId) -> impl Iterator<Item = &'a Entry> {
        self.entries.iter().filter(move |entry| entry.container == *id)
    }

    /// What must hold of every history in which all starts were planned: nothing over capacity, no duplicates,
    /// and the containers of others untouched.
    ///
    /// # Panics
    ///
    /// If it does not, with what was found and when.
    pub fn assert_sound(&self, cluster: &str) {
        let over = self.over_capacity();
        assert!(over.is_empty(), "instances were filled over their capacity: {over:#?}");
        let duplicates = self.duplicates();
        assert!(duplicates.is_empty(), "containers were started twice: {duplicates:#?}");
        let touched = self.others_touched(cluster);
        assert!(touched.is_empty(), "containers of others were touched: {touched:#?}");
    }
}

fn same_key(a: &Entry, b: &Entry) -> bool {
    let key = |entry: &Entry| {
        let labels = entry.subject.labels.clone()?;
        Some((labels.cluster, labels.service, labels.instance, entry.subject.ordinal?))
    };
    a.container != b.container && key(a).is_some() && key(a) == key(b)
}

fn key_words(entry: &Entry) -> String {
    match (&entry.subject.labels, entry.subject.ordinal) {
        (Some(labels), Some(ordinal)) => format!("{}/{ordinal} on {}", labels.service, labels.instance),
        _ => entry.subject.name.clone(),
    }
}

/// The phase in which something leaves a container; `None` where it takes no part in any count.
const fn phase_after(what: Happening) -> Option<Phase> {
    match what {
        Happening::Starting => Some(Phase::Starting),
        Happening::Running | Happening::Thawed => Some(Phase::Running),
        Happening::Stopping => Some(Phase::Stopping),
        Happening::Frozen => Some(Phase::Frozen),
        Happening::Created | Happening::StartFailed | Happening::Exited { .. } | Happening::Removed => None,
    }
}
