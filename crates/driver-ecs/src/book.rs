//! The book: what is known of the cluster's tasks and instances, from whomever it was heard.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use driver::{ContainerId, Health, InstanceAvailability, Observation, ObservedContainer, ObservedInstance};
use planner::{Phase, Resources};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::agent::{HoldsBack, holds_back};
use crate::config::Reserve;
use crate::names::id_of;
use crate::task::{Arn, End, Facts, Reserved, Status};

/// For so long after its start a task may not be found by name: ECS's answers are eventually consistent
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StartTask.html>).
const NOT_FOUND_YET: Duration = Duration::from_mins(1);
/// A task that is in nobody's answer yet is looked up after this time, for the answer to its start may be on its way.
const UNKNOWN_WAITS: Duration = Duration::from_secs(2);
/// So often a task is looked up by name that has been heard of and is not found.
const UNKNOWN_TRIES: u32 = 5;
/// Tasks that were heard of and are to be looked up; more are found by the next listing.
const UNKNOWN_MAX: usize = 50_000;
/// Tasks of others that are remembered, so that they are looked up once.
const FOREIGN_MAX: usize = 50_000;
/// What has ended and nobody removes is forgotten after this time, as ECS itself forgets it.
const ENDED_KEPT: Duration = Duration::from_hours(1);
/// With events, news of what is under way comes within a second or so: what is silent for longer is looked at.
const EVENTS_LATE: Duration = Duration::from_secs(5);
/// Without events, what has just been asked for is looked at this often,
const LOOK_SOON: Duration = Duration::from_millis(500);
/// for so long;
const SOON_LASTS: Duration = Duration::from_secs(15);
/// and this often from then on.
const LOOK_LATER: Duration = Duration::from_secs(2);
/// What is due so soon is looked at together with what is due now.
const TOGETHER: Duration = Duration::from_millis(100);
/// How often the health of a task is looked at that is to become healthy, and of one that is.
const HEALTH_SOON: Duration = Duration::from_secs(2);
/// After its last change an instance counts as quiet: what ECS says of its room then fits with what its tasks take.
const QUIET: Duration = Duration::from_secs(10);
/// The end of a task that ECS has forgotten.
const FORGOTTEN: &str = "ECS no longer knows the task";

/// From whom something was heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// The answer to what was done.
    Answer,
    /// A look at it.
    Look,
    /// An event.
    Event,
}

/// What has been heard, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Everything that there is has been seen.
    pub(crate) ready: bool,
    /// Times at which something may have been missed.
    pub(crate) gaps: u64,
    pub(crate) changes: u64,
}

/// An instance, as ECS reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostFacts {
    pub(crate) arn: Arn,
    pub(crate) version: i64,
    pub(crate) ec2_id: Option<String>,
    /// ACTIVE, DRAINING and so on.
    pub(crate) status: String,
    pub(crate) connected: bool,
    pub(crate) registered: Reserved,
    pub(crate) remaining: Reserved,
    pub(crate) agent_version: Option<String>,
}

struct Host {
    name: String,
    facts: HostFacts,
    /// It was among those that were listed last.
    listed: bool,
    /// What tasks of others take, by the last two looks that could tell. The smaller counts: what they seem to take for
    /// a moment, because ECS counts one of ours before we know of it, is not to cost anything its room.
    others: Option<[Reserved; 2]>,
}

struct Entry {
    facts: Facts,
    /// When a change was asked for, or it was first heard of.
    asked_at: Instant,
    /// When it last had news.
    heard_at: Instant,
    /// When it last did anything since it is known.
    moved_at: Option<Instant>,
    looked_at: Instant,
    /// It was sent while this one was stopping, and its agent holds it back for as long.
    behind: Option<Arn>,
    /// It has ended, and nobody wants to hear of it any more.
    removed: bool,
}

struct Unknown {
    due: Instant,
    tries: u32,
    told: Option<Facts>,
}

struct State {
    tasks: BTreeMap<Arn, Entry>,
    unknown: BTreeMap<Arn, Unknown>,
    foreign: BTreeSet<Arn>,
    /// Revisions whose tasks tell of their health.
    with_health: BTreeSet<Arn>,
    hosts: BTreeMap<Arn, Host>,
    /// They have been looked at once.
    hosts_seen: bool,
    listeners: BTreeMap<Arn, watch::Sender<u64>>,
    /// Starts that wait for a task to leave: what for, and whether it is urgent.
    awaited: BTreeMap<Arn, (String, bool)>,
    /// Instances on which there may be a task whose start was not answered.
    suspects: BTreeMap<Arn, Instant>,
    events: Trust,
}

/// Whether what is under way need not be looked at, because events tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Trust {
    /// An event has come since the last that was missed.
    tasks: bool,
    hosts: bool,
    /// That events are missing has been said.
    said: bool,
}

/// See the module.
pub(crate) struct Book {
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
    started_by: String,
}

impl Book {
    pub(crate) fn new(started_by: String) -> Self {
        let state = State {
            tasks: BTreeMap::new(),
            unknown: BTreeMap::new(),
            foreign: BTreeSet::new(),
            with_health: BTreeSet::new(),
            hosts: BTreeMap::new(),
            hosts_seen: false,
            listeners: BTreeMap::new(),
            awaited: BTreeMap::new(),
            suspects: BTreeMap::new(),
            events: Trust::default(),
        };
        Self { state: Mutex::new(state), progress: watch::Sender::default(), started_by }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics while holding it")
    }

    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Everything that there is has been seen.
    pub(crate) fn ready(&self) {
        self.progress.send_modify(|progress| {
            progress.ready = true;
            progress.gaps += 1;
        });
    }

    /// Something may have been missed.
    pub(crate) fn gap(&self) {
        self.progress.send_modify(|progress| progress.gaps += 1);
    }

    fn changed(&self) {
        self.progress.send_modify(|progress| progress.changes += 1);
    }

    // Tasks.

    /// Takes in what is said of a task; says whether it is news. One that is not known is entered only if it is ours and
    /// takes room, or we have just started it.
    pub(crate) fn heard(&self, facts: &Facts, source: Source) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        let is_ours = facts.started_by.as_deref() == Some(self.started_by.as_str());
        let told = state.unknown.get_mut(&facts.arn).and_then(|unknown| unknown.told.take());
        let State { tasks, unknown, foreign, events, .. } = &mut *state;
        let news = if let Some(entry) = tasks.get_mut(&facts.arn) {
            let before = entry.facts.clone();
            let mut news = entry.facts.merge(facts);
            if let Some(told) = told {
                news |= entry.facts.merge(&told);
            }
            if source == Source::Look {
                entry.looked_at = now;
                let moved = before.status != entry.facts.status || before.to_stop != entry.facts.to_stop;
                if events.tasks && moved && now.saturating_duration_since(entry.heard_at) >= EVENTS_LATE {
                    events.tasks = false;
                    if !std::mem::replace(&mut events.said, true) {
                        tracing::warn!(
                            task = id_of(&facts.arn),
                            "the queue has told nothing of a change: tasks are looked at instead; check the EventBridge \
                             rule and the queue's policy"
                        );
                    }
                }
            }
            if news {
                entry.heard_at = now;
                entry.moved_at = Some(now);
            }
            news
        } else if !is_ours {
            if source == Source::Look && foreign.len() < FOREIGN_MAX {
                foreign.insert(facts.arn.clone());
            }
            false
        } else if source == Source::Event {
            // Events have no tags, and may be old: the task is looked up, if its start's answer does not tell of it first.
            if !facts.has_left() && unknown.len() < UNKNOWN_MAX {
                let entry = unknown.entry(facts.arn.clone()).or_insert(Unknown {
                    due: now + UNKNOWN_WAITS,
                    tries: 0,
                    told: None,
                });
                match &mut entry.told {
                    Some(told) => {
                        told.merge(facts);
                    }
                    told @ None => *told = Some(facts.clone()),
                }
            } else if let Some(told) = unknown.get_mut(&facts.arn) {
                told.told = Some(facts.clone());
            }
            events.tasks = true;
            return false;
        } else {
            let mut facts = facts.clone();
            if let Some(told) = told {
                facts.merge(&told);
            }
            // Of what ended before anybody knew it nobody wants to hear.
            let news = source == Source::Answer || !facts.has_left();
            if news {
                if facts.identity.is_none() {
                    tracing::warn!(
                        task = id_of(&facts.arn),
                        "a task of ours does not say of which service it is: neither its tags nor its group; stop it by hand"
                    );
                }
                let entry = Entry {
                    asked_at: now,
                    heard_at: now,
                    looked_at: now,
                    moved_at: (source == Source::Answer).then_some(now),
                    behind: None,
                    removed: false,
                    facts: facts.clone(),
                };
                tasks.insert(facts.arn.clone(), entry);
            }
            news
        };
        if source == Source::Event {
            events.tasks = true;
            events.said = false;
        } else {
            state.unknown.remove(&facts.arn);
        }
        if news {
            state.tell(&facts.arn);
        }
        drop(state);
        if news {
            self.changed();
        }
        news
    }

    /// A task was looked up by name, and ECS does not know it.
    pub(crate) fn not_found(&self, arn: &Arn) {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(unknown) = state.unknown.get_mut(arn) {
            unknown.tries += 1;
            unknown.due = now + UNKNOWN_WAITS;
            if unknown.tries >= UNKNOWN_TRIES {
                state.unknown.remove(arn);
            }
        }
        let Some(entry) = state.tasks.get_mut(arn) else { return };
        entry.looked_at = now;
        if entry.facts.has_left() || now.saturating_duration_since(entry.asked_at) < NOT_FOUND_YET {
            return;
        }
        drop(state);
        self.forget(arn);
    }

    /// Whether it is so young that ECS may not know it yet.
    pub(crate) fn may_not_be_known_yet(&self, arn: &str) -> bool {
        let now = Instant::now();
        let state = self.state();
        let entry = state.tasks.get(arn).filter(|entry| !entry.facts.has_left());
        entry.is_some_and(|entry| now.saturating_duration_since(entry.asked_at) < NOT_FOUND_YET)
    }

    /// ECS knows no such task any more.
    pub(crate) fn forget(&self, arn: &str) {
        let mut state = self.state();
        let Some(entry) = state.tasks.get_mut(arn).filter(|entry| !entry.facts.has_left()) else { return };
        entry.facts.status = Status::Stopped;
        entry.facts.to_stop = true;
        entry.facts.end = End { reason: Some(FORGOTTEN.to_owned()), ..End::default() };
        entry.heard_at = Instant::now();
        let arn = entry.facts.arn.clone();
        state.tell(&arn);
        drop(state);
        self.changed();
    }

    /// A listing of what is ours and is to run, which was begun then, and shows these: what is not known is to be looked up,
    /// and what is missing.
    pub(crate) fn listed(&self, arns: &BTreeSet<Arn>, began: Instant) {
        let now = Instant::now();
        let mut state = self.state();
        let State { tasks, unknown, foreign, .. } = &mut *state;
        for arn in arns {
            if !tasks.contains_key(arn) && !foreign.contains(arn) && unknown.len() < UNKNOWN_MAX {
                unknown.entry(arn.clone()).or_insert(Unknown { due: now, tries: 0, told: None }).due = now;
            }
        }
        for (arn, entry) in tasks.iter_mut() {
            let is_to_run = !entry.facts.to_stop && !entry.facts.has_left();
            if is_to_run && !arns.contains(arn) && entry.asked_at < began {
                // It is due: as if it had not been looked at.
                entry.looked_at = entry.looked_at.min(began);
                let missing = Unknown { due: now, tries: 0, told: None };
                unknown.entry(arn.clone()).or_insert(missing);
            }
        }
        tasks.retain(|_, entry| {
            !entry.facts.has_left() || now.saturating_duration_since(entry.heard_at) < ENDED_KEPT
        });
    }

    /// What a listing of other kinds shows: only what is not known matters.
    pub(crate) fn seen(&self, arns: &BTreeSet<Arn>) {
        let now = Instant::now();
        let mut state = self.state();
        let State { tasks, unknown, foreign, .. } = &mut *state;
        for arn in arns {
            if !tasks.contains_key(arn) && !foreign.contains(arn) && unknown.len() < UNKNOWN_MAX {
                unknown.entry(arn.clone()).or_insert(Unknown { due: now, tries: 0, told: None }).due = now;
            }
        }
    }

    /// What is to be looked up now, and when the next is due. `listens`: whether a queue is being listened to.
    pub(crate) fn due(&self, listens: bool, health_every: Duration) -> (Vec<Arn>, Option<Instant>) {
        let now = Instant::now();
        let mut due = Vec::new();
        let mut next: Option<Instant> = None;
        let mut state = self.state();
        let told = listens && state.events.tasks;
        let at_once = now + TOGETHER;
        let mut consider = |arn: &Arn, at: Instant| {
            if at <= at_once {
                due.push((at, arn.clone()));
            } else {
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        };
        for (arn, unknown) in &state.unknown {
            consider(arn, unknown.due);
        }
        for (arn, entry) in &state.tasks {
            if state.unknown.contains_key(arn) {
                continue;
            }
            let last = entry.looked_at.max(entry.heard_at);
            if !entry.facts.is_settled() {
                let waits = if told {
                    EVENTS_LATE
                } else if now.saturating_duration_since(entry.asked_at) < SOON_LASTS {
                    LOOK_SOON
                } else {
                    LOOK_LATER
                };
                consider(arn, last + waits);
            } else if !entry.facts.has_left() {
                match state.health(&entry.facts) {
                    None => {}
                    Some(Health::Healthy) => consider(arn, last + health_every),
                    Some(_) => consider(arn, last + HEALTH_SOON),
                }
            }
        }
        if due.first().is_none_or(|_| due.iter().all(|(at, _)| *at > now)) {
            // Nothing is due yet: whatever is due soon waits for the first of it.
            let soonest = due.iter().map(|(at, _)| *at).min();
            return (Vec::new(), soonest.into_iter().chain(next).min());
        }
        due.sort();
        for (_, arn) in &due {
            if let Some(entry) = state.tasks.get_mut(arn) {
                entry.looked_at = now;
            }
            if let Some(unknown) = state.unknown.get_mut(arn) {
                // Until it is answered.
                unknown.due = now + UNKNOWN_WAITS;
            }
        }
        (due.into_iter().map(|(_, arn)| arn).collect(), next)
    }

    /// Whether everything that was heard of has been looked up.
    pub(crate) fn all_known(&self) -> bool {
        self.state().unknown.is_empty()
    }

    /// Whether the instances have been looked at.
    pub(crate) fn hosts_seen(&self) -> bool {
        self.state().hosts_seen
    }

    /// Whether events tell of tasks, and of instances.
    pub(crate) fn events_tell(&self) -> (bool, bool) {
        let events = self.state().events;
        (events.tasks, events.hosts)
    }

    /// The queue cannot be heard.
    pub(crate) fn events_stopped(&self) {
        let mut state = self.state();
        state.events.tasks = false;
        state.events.hosts = false;
    }

    pub(crate) fn facts(&self, arn: &str) -> Option<Facts> {
        self.state().tasks.get(arn).map(|entry| entry.facts.clone())
    }

    /// We have begun it; it may be held back behind another one.
    pub(crate) fn begun(&self, arn: &Arn, behind: Option<Arn>) {
        if let Some(entry) = self.state().tasks.get_mut(arn) {
            entry.asked_at = Instant::now();
            entry.moved_at = Some(entry.asked_at);
            entry.behind = behind;
        }
    }

    /// We have had it told to stop.
    pub(crate) fn told_to_stop(&self, arn: &str) {
        let mut state = self.state();
        let Some((arn, entry)) = state.tasks.get_key_value(arn) else { return };
        let (arn, was) = (arn.clone(), entry.facts.to_stop);
        if let Some(entry) = state.tasks.get_mut(&arn) {
            entry.asked_at = Instant::now();
            entry.heard_at = entry.asked_at;
            entry.moved_at = Some(entry.asked_at);
            entry.facts.to_stop = true;
        }
        state.tell(&arn);
        drop(state);
        if !was {
            self.changed();
        }
    }

    /// Nobody wants to hear of it any more. `None`: it is not known; `Some(false)`: it has not ended.
    pub(crate) fn remove(&self, arn: &str) -> Option<bool> {
        let mut state = self.state();
        let entry = state.tasks.get_mut(arn).filter(|entry| !entry.removed)?;
        if !entry.facts.has_left() {
            return Some(false);
        }
        entry.removed = true;
        drop(state);
        self.changed();
        Some(true)
    }

    /// Waits until something holds of a task, `None` being one that is not known.
    pub(crate) async fn until<T>(&self, arn: &Arn, holds: impl Fn(Option<&Facts>) -> Option<T>) -> T {
        let mut news = {
            let mut state = self.state();
            state.listeners.entry(arn.clone()).or_default().subscribe()
        };
        let _listener = Listener { book: self, arn };
        loop {
            news.borrow_and_update();
            let held = {
                let state = self.state();
                holds(state.tasks.get(arn).map(|entry| &entry.facts))
            };
            if let Some(held) = held {
                return held;
            }
            if news.changed().await.is_err() {
                // The sender is kept while anybody listens.
                std::future::pending::<()>().await;
            }
        }
    }

    /// A start waits for this one to leave, for as long as the answer lives.
    pub(crate) fn awaits(&self, victim: &Arn, service: &str, urgent: bool) -> Awaits<'_> {
        self.state().awaited.insert(victim.clone(), (service.to_owned(), urgent));
        Awaits { book: self, victim: victim.clone() }
    }

    /// For what a task is to leave, and whether that is urgent.
    pub(crate) fn awaited(&self, arn: &str) -> Option<(String, bool)> {
        self.state().awaited.get(arn).cloned()
    }

    /// The tasks of this revision tell of their health.
    pub(crate) fn has_health(&self, revision: &str) {
        self.state().with_health.insert(revision.into());
    }

    // Instances on which something may have begun without an answer.

    pub(crate) fn suspect(&self, instance: &Arn, until: Instant) {
        self.state().suspects.insert(instance.clone(), until);
    }

    /// Those, without the ones whose time is over.
    pub(crate) fn suspects(&self) -> Vec<Arn> {
        let now = Instant::now();
        let mut state = self.state();
        state.suspects.retain(|_, until| *until > now);
        if state.suspects.is_empty() {
            state.foreign.clear();
        }
        state.suspects.keys().cloned().collect()
    }

    // Instances.

    /// Takes in a look at all instances. What others take on them can be told once all that is ours is known.
    pub(crate) fn looked_at_hosts(&self, all: Vec<HostFacts>) {
        let knows_ours = self.progress.borrow().ready;
        let now = Instant::now();
        let mut state = self.state();
        let mut changed = false;
        let listed: BTreeSet<Arn> = all.iter().map(|facts| facts.arn.clone()).collect();
        for facts in all {
            changed |= state.host(facts, now, true, knows_ours);
        }
        for (arn, host) in &mut state.hosts {
            if !listed.contains(arn) && std::mem::take(&mut host.listed) {
                changed = true;
            }
        }
        let with_tasks: BTreeSet<Arn> = state
            .tasks
            .values()
            .filter(|entry| !entry.facts.has_left())
            .filter_map(|entry| entry.facts.instance.clone())
            .collect();
        state.hosts_seen = true;
        let before = state.hosts.len();
        state.hosts.retain(|arn, host| host.listed || with_tasks.contains(arn));
        changed |= state.hosts.len() != before;
        drop(state);
        if changed {
            self.changed();
        }
    }

    /// Takes in an event of one instance; one that is not known has to be listed first: it may not be among those that are
    /// used.
    pub(crate) fn heard_of_host(&self, facts: HostFacts) -> bool {
        let now = Instant::now();
        let mut state = self.state();
        state.events.hosts = true;
        if !state.hosts.contains_key(&facts.arn) {
            return false;
        }
        let changed = state.host(facts, now, false, false);
        drop(state);
        if changed {
            self.changed();
        }
        true
    }

    /// A start was refused because of the agent.
    pub(crate) fn agent_is_away(&self, arn: &Arn) {
        let mut state = self.state();
        let Some(host) = state.hosts.get_mut(arn) else { return };
        let was_connected = std::mem::replace(&mut host.facts.connected, false);
        drop(state);
        if was_connected {
            self.changed();
        }
    }

    /// Whether an instance is away or is not known.
    pub(crate) fn any_away(&self) -> bool {
        let state = self.state();
        state.hosts.values().any(|host| !host.listed || !host.facts.connected)
            || state.tasks.values().any(|entry| {
                !entry.facts.has_left()
                    && entry.facts.instance.as_ref().is_some_and(|arn| !state.hosts.contains_key(arn))
            })
    }

    pub(crate) fn host_names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.state().hosts.values().map(|host| host.name.clone()).collect();
        names.sort();
        names
    }

    pub(crate) fn host_arn(&self, name: &str) -> Option<Arn> {
        self.state().hosts.iter().find(|(_, host)| host.name == name).map(|(arn, _)| arn.clone())
    }

    pub(crate) fn host_arn_unknown(&self, arn: &Arn) -> bool {
        !self.state().hosts.contains_key(arn)
    }

    pub(crate) fn host_name(&self, arn: &str) -> String {
        self.state().hosts.get(arn).map_or_else(|| id_of(arn).to_owned(), |host| host.name.clone())
    }

    /// Whether the agent holds a start that takes so much back until this task has left.
    pub(crate) fn holds_back(&self, victim: &Facts, takes: Reserved) -> bool {
        let state = self.state();
        let Some(host) = victim.instance.as_ref().and_then(|arn| state.hosts.get(arn)) else { return false };
        match holds_back(host.facts.agent_version.as_deref()) {
            HoldsBack::All => true,
            HoldsBack::WithoutRoom => {
                // Others may leave at any moment: only what is ours is counted, and what has not left.
                let taken = state
                    .tasks
                    .values()
                    .filter(|entry| entry.facts.instance == victim.instance && !entry.facts.has_left())
                    .fold(Reserved::default(), |sum, entry| sum.plus(entry.facts.reserved));
                let left = host.facts.registered.minus(taken);
                takes.cpu_units > left.cpu_units || takes.memory_mib > left.memory_mib
            }
        }
    }

    /// The instances with what they have for us, by name.
    pub(crate) fn hosts(&self, slots: u64, reserve: Reserve) -> Vec<HostView> {
        let state = self.state();
        let mut hosts: Vec<HostView> = state
            .hosts
            .values()
            .map(|host| {
                let resources = |cpu_millis, memory_mib| Resources { slots, cpu_millis, memory_mib };
                let Reserved { memory_mib, .. } = host.facts.registered;
                let cpu_millis = host.facts.registered.cpu_millis();
                let others = host.others.map_or_else(Reserved::default, |[before, last]| before.min(last));
                let aside =
                    (others.cpu_millis().max(reserve.cpu_millis), others.memory_mib.max(reserve.memory_mib));
                HostView {
                    name: host.name.clone(),
                    registered: resources(cpu_millis, memory_mib),
                    capacity: resources(
                        cpu_millis.saturating_sub(aside.0),
                        memory_mib.saturating_sub(aside.1),
                    ),
                    agent_version: host.facts.agent_version.clone(),
                    availability: Self::availability(host),
                }
            })
            .collect();
        hosts.sort_by(|one, other| one.name.cmp(&other.name));
        hosts
    }

    /// An agent that is disconnected is said to be so at once. How long that may last is for the controller: agents
    /// disconnect and come back several times an hour, as a part of their normal operation
    /// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_container_instance_events.html>).
    fn availability(host: &Host) -> InstanceAvailability {
        if !host.listed || host.facts.status == "INACTIVE" {
            return InstanceAvailability::Lost("it is no longer registered in the ECS cluster".to_owned());
        }
        if !host.facts.connected {
            return InstanceAvailability::Lost("its ECS agent is disconnected".to_owned());
        }
        match host.facts.status.as_str() {
            "ACTIVE" => InstanceAvailability::Ready,
            "DRAINING" => InstanceAvailability::Draining,
            status => InstanceAvailability::Lost(format!("ECS says that it is {status}")),
        }
    }

    /// All of it, in the driver's words.
    pub(crate) fn observation(&self, slots: u64, reserve: Reserve) -> Observation {
        let instances = self
            .hosts(slots, reserve)
            .into_iter()
            .map(|host| ObservedInstance {
                name: host.name,
                capacity: host.capacity,
                availability: host.availability,
            })
            .collect();
        let state = self.state();
        let containers = state
            .tasks
            .values()
            .filter(|entry| !entry.removed)
            .filter_map(|entry| {
                let facts = &entry.facts;
                let identity = facts.identity.as_ref()?;
                let instance = facts.instance.as_ref()?;
                let instance = state
                    .hosts
                    .get(instance)
                    .map_or_else(|| id_of(instance).to_owned(), |host| host.name.clone());
                // Its agent holds it back: it takes no room yet.
                let waits = facts.phase() == Phase::Starting
                    && entry
                        .behind
                        .as_ref()
                        .and_then(|arn| state.tasks.get(arn))
                        .is_some_and(|it| !it.facts.has_left());
                Some(ObservedContainer {
                    id: ContainerId::new(&facts.arn),
                    service: identity.service.clone(),
                    instance,
                    ordinal: None,
                    generation: identity.generation.clone(),
                    phase: if waits { Phase::Created } else { facts.phase() },
                    created_at_ms: facts.created_at_ms,
                    health: state.health(facts),
                    exit: facts.exit(),
                })
            })
            .collect();
        Observation { instances, containers }
    }
}

/// An instance with what it has for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostView {
    pub(crate) name: String,
    pub(crate) capacity: Resources,
    pub(crate) registered: Resources,
    pub(crate) agent_version: Option<String>,
    pub(crate) availability: InstanceAvailability,
}

impl State {
    /// What the healthcheck of one that runs says, if it has one.
    fn health(&self, facts: &Facts) -> Option<Health> {
        let has = || facts.revision.as_ref().is_some_and(|revision| self.with_health.contains(revision));
        let health = facts.health.or_else(|| has().then_some(Health::Starting));
        health.filter(|_| facts.phase() == Phase::Running)
    }

    fn tell(&self, arn: &Arn) {
        if let Some(listener) = self.listeners.get(arn) {
            listener.send_modify(|count| *count += 1);
        }
    }

    /// Takes in what is said of an instance; says whether it is news.
    fn host(&mut self, facts: HostFacts, now: Instant, looked: bool, knows_ours: bool) -> bool {
        let others = knows_ours.then(|| self.others(&facts, now)).flatten();
        if let Some(host) = self.hosts.get_mut(&facts.arn) {
            let before = (host.facts.clone(), host.listed, host.others);
            if facts.version >= host.facts.version {
                host.facts = facts;
            }
            host.listed |= looked;
            if let Some(others) = others {
                host.others = Some([host.others.map_or(others, |[_, last]| last), others]);
            }
            return before != (host.facts.clone(), host.listed, host.others);
        }
        // An EC2 instance may register once more, as another container instance.
        let name = facts.ec2_id.clone().filter(|name| !self.hosts.values().any(|host| host.name == *name));
        let host = Host {
            name: name.unwrap_or_else(|| id_of(&facts.arn).to_owned()),
            listed: true,
            others: others.map(|others| [others; 2]),
            facts,
        };
        self.hosts.insert(host.facts.arn.clone(), host);
        true
    }

    /// What tasks of others take on an instance; `None` while ours are on their way there, for then the two do not fit.
    fn others(&self, facts: &HostFacts, now: Instant) -> Option<Reserved> {
        let mut ours = Reserved::default();
        for entry in self.tasks.values().filter(|entry| entry.facts.instance.as_ref() == Some(&facts.arn)) {
            if entry.moved_at.is_some_and(|at| now.saturating_duration_since(at) < QUIET) {
                return None;
            }
            if !entry.facts.to_stop && !entry.facts.has_left() {
                ours = ours.plus(entry.facts.reserved);
            }
        }
        Some(facts.registered.minus(facts.remaining).minus(ours))
    }
}

struct Listener<'b> {
    book: &'b Book,
    arn: &'b Arn,
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut state = self.book.state();
        // The receiver of this one goes right after.
        if state.listeners.get(self.arn).is_some_and(|sender| sender.receiver_count() <= 1) {
            state.listeners.remove(self.arn);
        }
    }
}

/// While it lives, a start waits for a task to leave.
pub(crate) struct Awaits<'b> {
    book: &'b Book,
    victim: Arn,
}

impl Drop for Awaits<'_> {
    fn drop(&mut self) {
        self.book.state().awaited.remove(&self.victim);
    }
}

#[cfg(test)]
mod tests {
    use driver::Generation;
    use tokio::time::{advance, sleep};

    use super::*;
    use crate::names::Identity;

    const OURS: &str = "force12/demo";

    fn book() -> Book {
        Book::new(OURS.to_owned())
    }

    fn task(name: &str, version: i64, status: Status, to_stop: bool) -> Facts {
        Facts {
            arn: name.into(),
            version,
            status,
            to_stop,
            has_run: status >= Status::Running,
            instance: Some("cluster/one".into()),
            revision: Some("web:1".into()),
            started_by: Some(OURS.to_owned()),
            identity: Some(Identity { service: "web".to_owned(), generation: Generation::from_label("g") }),
            created_at_ms: 1,
            health: None,
            reserved: Reserved { cpu_units: 1_024, memory_mib: 512 },
            end: End::default(),
        }
    }

    fn host(version: i64, connected: bool, remaining: u64) -> HostFacts {
        HostFacts {
            arn: "cluster/one".into(),
            version,
            ec2_id: Some("i-1".to_owned()),
            status: "ACTIVE".to_owned(),
            connected,
            registered: Reserved { cpu_units: 4_096, memory_mib: 4_096 },
            remaining: Reserved { cpu_units: remaining, memory_mib: remaining },
            agent_version: Some("1.98.0".to_owned()),
        }
    }

    fn phases(book: &Book) -> Vec<Phase> {
        let observed = book.observation(3, Reserve::default());
        observed.containers.into_iter().map(|container| container.phase).collect()
    }

    fn availability(book: &Book) -> InstanceAvailability {
        book.observation(3, Reserve::default()).instances[0].availability.clone()
    }

    fn due(book: &Book, listens: bool) -> Vec<String> {
        let (due, _) = book.due(listens, Duration::from_secs(30));
        due.iter().map(ToString::to_string).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_just_started_is_there_though_no_list_shows_it_and_no_name_finds_it() {
        let book = book();
        book.heard(&task("a", 1, Status::Coming, false), Source::Answer);
        advance(Duration::from_secs(1)).await;
        book.listed(&BTreeSet::new(), Instant::now());
        assert_eq!(due(&book, false), ["a"], "what is missing is looked up by name");
        book.not_found(&"a".into());
        assert_eq!(phases(&book), [Phase::Starting]);
        assert!(book.may_not_be_known_yet("a"));
        assert!(!book.may_not_be_known_yet("b"), "nobody has started it");
        advance(NOT_FOUND_YET).await;
        book.not_found(&"a".into());
        assert_eq!(phases(&book), [Phase::Exited], "not for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_just_stopped_does_not_run_though_a_list_and_a_look_show_it() {
        let book = book();
        book.heard(&task("a", 3, Status::Running, false), Source::Answer);
        book.told_to_stop("a");
        book.listed(&BTreeSet::from(["a".into()]), Instant::now());
        book.heard(&task("a", 3, Status::Running, false), Source::Look);
        assert_eq!(phases(&book), [Phase::Stopping]);
        book.heard(&task("a", 5, Status::Stopped, true), Source::Look);
        book.heard(&task("a", 4, Status::Running, true), Source::Event);
        assert_eq!(phases(&book), [Phase::Exited]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_is_listed_no_more_is_looked_up() {
        let book = book();
        book.heard(&task("a", 3, Status::Running, false), Source::Look);
        assert_eq!(due(&book, false), [""; 0]);
        advance(Duration::from_secs(1)).await;
        book.listed(&BTreeSet::new(), Instant::now());
        assert_eq!(due(&book, false), ["a"]);
        book.heard(&task("a", 5, Status::Stopped, true), Source::Look);
        assert_eq!(phases(&book), [Phase::Exited]);
        assert!(book.all_known());
        assert_eq!(book.remove("a"), Some(true));
        assert_eq!(book.remove("a"), None);
        assert_eq!(phases(&book), []);
    }

    #[tokio::test(start_paused = true)]
    async fn what_ended_before_it_was_known_is_not_entered_and_what_is_others_never() {
        let book = book();
        book.heard(&task("a", 5, Status::Stopped, true), Source::Look);
        let others =
            Facts { started_by: Some("ecs-svc/1".to_owned()), ..task("b", 1, Status::Running, false) };
        book.heard(&others, Source::Look);
        assert_eq!(phases(&book), []);
        book.seen(&BTreeSet::from(["b".into()]));
        assert!(book.all_known(), "a task of others is looked up once");
    }

    #[tokio::test(start_paused = true)]
    async fn an_event_that_comes_before_the_answer_is_kept_until_it_comes() {
        let book = book();
        assert!(!book.heard(&task("a", 3, Status::Running, false), Source::Event));
        assert_eq!(phases(&book), []);
        assert_eq!(due(&book, true), [""; 0], "its start's answer may be on its way");
        book.heard(&task("a", 1, Status::Coming, false), Source::Answer);
        assert_eq!(phases(&book), [Phase::Running]);
        assert!(book.all_known());
        // One whose start nobody answers for.
        book.heard(&task("b", 3, Status::Running, false), Source::Event);
        advance(UNKNOWN_WAITS).await;
        assert_eq!(due(&book, true), ["b"]);
        for _ in 0..UNKNOWN_TRIES {
            book.not_found(&"b".into());
        }
        assert!(book.all_known());
    }

    #[tokio::test(start_paused = true)]
    async fn events_that_come_twice_or_late_are_no_news() {
        let book = book();
        book.heard(&task("a", 1, Status::Coming, false), Source::Answer);
        assert!(book.heard(&task("a", 3, Status::Running, false), Source::Event));
        assert!(!book.heard(&task("a", 3, Status::Running, false), Source::Event));
        assert!(!book.heard(&task("a", 2, Status::Coming, false), Source::Event));
        assert_eq!(phases(&book), [Phase::Running]);
    }

    #[tokio::test(start_paused = true)]
    async fn with_events_nothing_is_looked_at_that_they_tell_of_in_time() {
        let book = book();
        book.heard(&task("a", 1, Status::Coming, false), Source::Answer);
        sleep(LOOK_SOON).await;
        assert_eq!(due(&book, true), ["a"], "no event has come yet");
        book.heard(&task("a", 2, Status::Coming, false), Source::Event);
        for _ in 0..9 {
            sleep(LOOK_SOON).await;
            assert_eq!(due(&book, true), [""; 0]);
        }
        sleep(LOOK_SOON).await;
        assert_eq!(due(&book, true), ["a"], "events are late");
        // And were missed: so they are not relied on until the next one comes.
        book.heard(&task("a", 3, Status::Running, false), Source::Look);
        book.told_to_stop("a");
        sleep(LOOK_SOON).await;
        assert_eq!(due(&book, true), ["a"]);
        book.heard(&task("a", 4, Status::Leaving, true), Source::Event);
        sleep(LOOK_SOON).await;
        assert_eq!(due(&book, true), [""; 0]);
        assert_eq!(due(&book, false), ["a"], "nobody listens");
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_is_away_is_said_to_be_and_comes_back() {
        let book = book();
        book.looked_at_hosts(vec![host(1, true, 4_096)]);
        book.heard_of_host(host(2, false, 4_096));
        assert!(matches!(availability(&book), InstanceAvailability::Lost(_)));
        book.heard_of_host(host(3, true, 4_096));
        assert_eq!(availability(&book), InstanceAvailability::Ready);
        // What is told late changes nothing.
        book.heard_of_host(host(2, false, 4_096));
        assert_eq!(availability(&book), InstanceAvailability::Ready);
        // That a start was refused for want of the agent is news as well.
        book.agent_is_away(&host(3, true, 4_096).arn);
        assert!(matches!(availability(&book), InstanceAvailability::Lost(_)));
        let draining = HostFacts { status: "DRAINING".to_owned(), ..host(4, true, 4_096) };
        book.heard_of_host(draining);
        assert_eq!(availability(&book), InstanceAvailability::Draining);
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_is_gone_stays_for_as_long_as_a_task_is_known_on_it() {
        let book = book();
        book.looked_at_hosts(vec![host(1, true, 4_096)]);
        book.heard(&task("a", 3, Status::Running, false), Source::Answer);
        book.looked_at_hosts(Vec::new());
        assert!(matches!(availability(&book), InstanceAvailability::Lost(_)));
        book.heard(&task("a", 5, Status::Stopped, true), Source::Look);
        book.looked_at_hosts(Vec::new());
        assert!(book.host_names().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_others_take_is_not_ours_once_two_looks_agree() {
        let book = book();
        book.ready();
        book.looked_at_hosts(vec![host(1, true, 3_072)]);
        let cpu = || book.hosts(3, Reserve::default())[0].capacity.cpu_millis;
        assert_eq!(cpu(), 3_000, "others take one CPU");
        // One of ours, which ECS counts before and after we do.
        book.heard(&task("a", 3, Status::Running, false), Source::Answer);
        book.looked_at_hosts(vec![host(2, true, 2_048)]);
        assert_eq!(cpu(), 3_000);
        advance(QUIET).await;
        book.looked_at_hosts(vec![host(3, true, 1_024)]);
        assert_eq!(cpu(), 3_000, "a moment's difference");
        book.looked_at_hosts(vec![host(4, true, 1_024)]);
        assert_eq!(cpu(), 2_000, "others take two");
        assert_eq!(
            book.hosts(3, Reserve { cpu_millis: 2_500, memory_mib: 0 })[0].capacity.cpu_millis,
            1_500,
            "what is set aside is that for others, and not beside it"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_is_held_back_where_there_is_no_room_beside_what_stops() {
        let book = book();
        book.looked_at_hosts(vec![host(1, true, 1_024)]);
        for name in ["a", "b", "c"] {
            book.heard(&task(name, 3, Status::Running, false), Source::Answer);
        }
        book.told_to_stop("a");
        let victim = book.facts("a").expect("it is known");
        let takes = |cpu_units| Reserved { cpu_units, memory_mib: 512 };
        assert!(!book.holds_back(&victim, takes(1_024)), "there is a CPU left");
        assert!(book.holds_back(&victim, takes(1_025)));
        let old = HostFacts { agent_version: Some("1.70.0".to_owned()), ..host(2, true, 1_024) };
        book.heard_of_host(old);
        assert!(book.holds_back(&victim, takes(1)), "such an agent waits for all that stops");
        // Until then it takes no room.
        book.heard(&task("d", 1, Status::Coming, false), Source::Answer);
        book.begun(&"d".into(), Some("a".into()));
        assert_eq!(phases(&book), [Phase::Stopping, Phase::Running, Phase::Running, Phase::Created]);
        book.heard(&task("a", 9, Status::Stopped, true), Source::Event);
        assert_eq!(phases(&book), [Phase::Exited, Phase::Running, Phase::Running, Phase::Starting]);
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_for_a_task_is_told() {
        let book = book();
        let arn: Arn = "a".into();
        book.heard(&task("a", 1, Status::Coming, false), Source::Answer);
        let runs = book.until(&arn, |facts| facts.filter(|facts| facts.ran()).map(|_| ()));
        let later = async {
            sleep(Duration::from_secs(1)).await;
            book.heard(&task("a", 2, Status::Running, false), Source::Event);
        };
        tokio::join!(runs, later);
        assert!(book.state().listeners.is_empty());
    }
}
