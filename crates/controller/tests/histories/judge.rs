//! What must be so: at every moment, and once all is well again.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use controller::{ServiceView, View};
use driver::Generation;
use driver_testkit::sim::{Actor, Call, Entry, Happening, History, Occupancy, SimContainerView, SimEngine};
use planner::{InstanceState, OnPreempt, Phase, Service, ServiceKind};

use crate::support::CLUSTER;

/// What somebody else has done to an instance's room may still be met by a start of ours for so long: the longest that
/// a call may take (70 s), and an observation.
const MET_FOR_MS: u64 = 75_000;

/// How long a slow call takes at most. What somebody has suspended, and is being ended, gives its slot to whoever waits
/// for it too early, unless it has been listed since.
const SLOWEST_CALL_MS: u64 = 10_000;

/// How long a freeze takes at most, where nothing goes wrong.
const FREEZE_MS: u64 = 13;

/// For how long an action that has failed is held back at most.
const HELD_BACK_MS: u64 = 30_000;

/// From a controller's end until its successor plans: until it is started (3 s), until an engine that is silent is lost
/// (3 s), and until what was found half made is gone (2 s).
const BACK_AT_WORK_MS: u64 = 8_000;

/// How many slots there are for us on each instance.
pub type Slots = BTreeMap<String, u64>;

/// A service as it is wanted in the end.
pub struct Wanted {
    pub service: Service,
    pub demand: u32,
    pub generation: Generation,
}

impl Wanted {
    /// How many are wanted at most.
    fn most(&self) -> u64 {
        let Service { min, max, kind, .. } = self.service;
        u64::from(if kind == ServiceKind::Fill { max } else { self.demand.min(max).max(min) })
    }
}

/// How many of each service are to run, on so many slots: by priority, and among equals by weight.
pub fn expected(wanted: &[Wanted], slots: &Slots) -> BTreeMap<String, u64> {
    let mut left = slots.values().sum::<u64>();
    let mut counts = BTreeMap::new();
    let mut priorities: Vec<u32> = wanted.iter().map(|wanted| wanted.service.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    for priority in priorities {
        let mut equals: Vec<&Wanted> =
            wanted.iter().filter(|wanted| wanted.service.priority == priority).collect();
        equals.sort_by_key(|wanted| &wanted.service.name);
        let given = divided(&equals, left);
        left -= given.iter().sum::<u64>();
        counts.extend(equals.iter().zip(given).map(|(wanted, count)| (wanted.service.name.clone(), count)));
    }
    counts
}

/// By weight: whoever wants no more than its part gets that, and leaves the rest to the others; what whole numbers leave
/// over goes to the largest remainders, and of equal ones to the first.
fn divided(equals: &[&Wanted], slots: u64) -> Vec<u64> {
    let mut given = vec![0; equals.len()];
    let mut open: Vec<usize> = (0..equals.len()).collect();
    let mut left = slots;
    loop {
        let weights: u64 = open.iter().map(|&at| u64::from(equals[at].service.weight)).sum();
        let part = |at: usize| left * u64::from(equals[at].service.weight);
        let (content, others): (Vec<usize>, Vec<usize>) =
            open.iter().partition(|&&at| equals[at].most().saturating_mul(weights) <= part(at));
        if content.is_empty() {
            let mut rest = left;
            for &at in &open {
                given[at] = part(at) / weights;
                rest -= given[at];
            }
            open.sort_by_key(|&at| (std::cmp::Reverse(part(at) % weights), at));
            open.iter().take(usize::try_from(rest).expect("a few")).for_each(|&at| given[at] += 1);
            return given;
        }
        for &at in &content {
            given[at] = equals[at].most();
        }
        left -= content.iter().map(|&at| given[at]).sum::<u64>();
        open = others;
    }
}

/// Whether the engines hold exactly what is wanted, and nothing is on its way; if not, what is in the way.
pub fn settled(engines: &[SimEngine], wanted: &[Wanted], slots: &Slots) -> Result<(), String> {
    let expected = expected(wanted, slots);
    // New first: in room that is free, or that less important work gives up.
    let full = expected.values().sum::<u64>() == slots.values().sum();
    let can_replace = |of: &Wanted| {
        let gives_up = |other: &&Wanted| {
            other.service.priority > of.service.priority && expected[&other.service.name] > 0
        };
        !full || wanted.iter().any(|other| gives_up(&other))
    };
    let is_full = |engine: &SimEngine, instance: &str| {
        let is_there = |container: &&SimContainerView| {
            let labels = container.subject.labels.as_ref();
            container.phase == Phase::Running && labels.is_some_and(|labels| labels.instance == instance)
        };
        engine.containers().iter().filter(is_there).count() as u64 >= slots[instance]
    };
    let mut running: BTreeMap<String, u64> = expected.keys().map(|name| (name.clone(), 0)).collect();
    for engine in engines {
        for container in engine.containers() {
            let Some(labels) = container.subject.labels.as_ref().filter(|labels| labels.cluster == CLUSTER)
            else {
                continue;
            };
            let name = &container.subject.name;
            let Some(of) = wanted.iter().find(|wanted| wanted.service.name == labels.service) else {
                return Err(format!("{name} is {:?}, and its service is gone", container.phase));
            };
            match container.phase {
                Phase::Running if labels.generation != of.generation && can_replace(of) => {
                    return Err(format!("{name} is outdated"));
                }
                Phase::Running => *running.entry(labels.service.clone()).or_default() += 1,
                Phase::Frozen
                    if of.service.on_preempt == OnPreempt::Freeze || of.service.standby_per_instance > 0 => {}
                // It was suspended by hand. To end it takes a slot for a moment, and there is none.
                Phase::Frozen if is_full(engine, &labels.instance) => {}
                phase => return Err(format!("{name} is {phase:?}")),
            }
        }
    }
    if running == expected { Ok(()) } else { Err(format!("{running:?} run, of {expected:?} wanted")) }
}

/// What must hold of an engine's history. `excused` holds, by instance, the moments at which somebody else may have
/// taken of its room: what we had begun then may still land on it. `kills` holds the moments at which a controller has
/// died: a thaw that it had asked for may come as late as a slow call takes, and nothing tells its successor of it.
/// Containers of services that are `overlapping` may begin beside what is being frozen for them: an instance that has some
/// is to be within its capacity as soon as that is frozen.
pub fn history_is_sound(
    history: &History,
    overlapping: &[&str],
    excused: &BTreeMap<String, Vec<u64>>,
    kills: &[u64],
    idempotent: bool,
) -> Result<(), String> {
    let by_others = |instance: &str, at_ms: u64| {
        let taken = history.entries().iter().any(|entry| {
            let for_ms = match entry.what {
                Happening::Starting | Happening::Thawed => MET_FOR_MS,
                Happening::Frozen => SLOWEST_CALL_MS,
                _ => return false,
            };
            entry.by == Actor::Hand
                && entry.subject.labels.as_ref().is_some_and(|labels| labels.instance == instance)
                && (entry.at_ms..=entry.at_ms + for_ms).contains(&at_ms)
        });
        taken
            || excused
                .get(instance)
                .is_some_and(|moments| moments.iter().any(|&of| (of..=of + MET_FOR_MS).contains(&at_ms)))
    };
    let by_the_dead = |over: &Occupancy| {
        let died = kills.iter().any(|&at_ms| (at_ms..=at_ms + SLOWEST_CALL_MS).contains(&over.at_ms));
        let thawed = |entry: &Entry| {
            entry.what == Happening::Thawed
                && entry.at_ms == over.at_ms
                && over.container.as_ref() == Some(&entry.container)
        };
        died && history.entries().iter().any(thawed)
    };
    let overlaps = |over: &Occupancy| {
        let overlapped = history.entries().iter().filter(|entry| entry.at_ms <= over.at_ms).any(|entry| {
            let labels = entry.subject.labels.as_ref();
            labels.is_some_and(|it| it.instance == over.instance && overlapping.contains(&&*it.service))
        });
        let by_ms = frozen_by_ms(history, over.at_ms, kills);
        let is_back = |later: &Occupancy| {
            later.instance == over.instance
                && (over.at_ms..=by_ms).contains(&later.at_ms)
                && later.used.fits(later.capacity)
        };
        overlapped && history.occupancy().iter().any(is_back)
    };
    let over = history
        .over_capacity()
        .into_iter()
        .find(|over| !by_others(&over.instance, over.at_ms) && !by_the_dead(over) && !overlaps(over));
    if let Some(over) = over {
        return Err(format!("over capacity: {over:?}"));
    }
    if idempotent && let Some(duplicate) = history.duplicates().into_iter().find(|_| true) {
        return Err(format!("started twice: {duplicate:?}"));
    }
    match history.others_touched(CLUSTER).first() {
        Some(touched) => Err(format!("a container of others was touched: {touched:?}")),
        None => Ok(()),
    }
}

/// When what was being frozen at a moment, for a successor beside it, has left: after as long as a freeze takes, or after
/// whatever went wrong meanwhile with the calls by which room is given up or seen to be.
fn frozen_by_ms(history: &History, since_ms: u64, kills: &[u64]) -> u64 {
    let mut by_ms = since_ms + FREEZE_MS;
    let gives_up = |call| matches!(call, Call::Freeze | Call::Stop | Call::Observe);
    let mut wrong: Vec<(u64, u64)> = history
        .mishaps()
        .iter()
        .filter(|mishap| gives_up(mishap.call))
        .map(|mishap| (mishap.from_ms, mishap.until_ms + HELD_BACK_MS))
        .chain(kills.iter().map(|&at_ms| (at_ms, at_ms + BACK_AT_WORK_MS)))
        .filter(|&(_, until_ms)| until_ms >= since_ms)
        .collect();
    wrong.sort_unstable();
    for (from_ms, until_ms) in wrong {
        if from_ms <= by_ms {
            by_ms = by_ms.max(until_ms + FREEZE_MS);
        }
    }
    by_ms
}

/// Whether the controller shows what is: success exactly if every demand is met in full.
pub fn view_agrees(view: &View, wanted: &[Wanted], slots: &Slots) -> Result<(), String> {
    let expected = expected(wanted, slots);
    for wanted in wanted {
        let name = &wanted.service.name;
        let shown = view.services.iter().find(|service| *service.name == **name);
        let running = shown.map(|service| u64::from(service.running));
        if running != expected.get(name).copied() {
            return Err(format!("the view shows {running:?} of {name}, of {expected:?}"));
        }
    }
    let of_demand = || wanted.iter().filter(|wanted| wanted.service.kind == ServiceKind::Demand);
    let success = of_demand().all(|wanted| {
        let demand = u64::from(wanted.demand);
        expected[&wanted.service.name] == demand && wanted.most() == demand
    });
    if view.success != success {
        return Err(format!("success is shown as {}, blocked by {:?}", view.success, view.blocked_by));
    }
    match view.instances.iter().find(|instance| instance.state != InstanceState::Ready) {
        Some(instance) => Err(format!("{} is shown as {:?}", instance.name, instance.state)),
        None => Ok(()),
    }
}

/// What a view shows, for people.
pub fn in_words(view: &View) -> String {
    let mut words = format!("success {}, blocked by {:?}\n", view.success, view.blocked_by);
    for service in &view.services {
        let ServiceView { name, priority, demand, target, starting, running, stopping, frozen, .. } = service;
        let _ = writeln!(
            words,
            "{name} (priority {priority}): demand {demand:?} target {target:?}, {starting} starting, {running} running, \
             {stopping} stopping, {frozen} frozen, {} unmet, limited by {:?}, {:?}",
            service.unmet, service.limited_by, service.reason
        );
    }
    for instance in &view.instances {
        let _ = writeln!(
            words,
            "{}: {:?} {:?}, {} slots",
            instance.name, instance.state, instance.reason, instance.capacity.slots
        );
        for container in &instance.containers {
            let _ = writeln!(
                words,
                "    {} {:?} {:?} outdated {}",
                container.name, container.id, container.phase, container.outdated
            );
        }
    }
    words
}
