//! Whose turn it is at an engine: what is urgent goes first, and no more calls are under way than the engine makes use of.
//!
//! There is no queue. A plan names its actions in the order of their urgency; those for which an engine has no place are
//! not issued, and nothing is kept of them but since when they wait. Whatever ends wakes the loop, and the next plan names
//! them again, or something better: what has not been sent is never in the way of what has become more important.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use planner::{Action, ContainerKey, Service, ServiceKind, StartReason, State, StopReason};
use tokio::time::Instant;

use crate::cluster::EngineId;

/// A removal waits for so long at most until nothing else is under way: done beside a start it delays that by as much as it
/// takes itself, several tens of milliseconds, and nobody waits for it. (What has ended takes no room.) From then on it
/// needs no place, as long as it is the only one: an engine that never rests would keep all that has ever ended there.
const REMOVAL_WAITS: Duration = Duration::from_secs(1);

/// Places that are kept for what is urgent: a rise in demand never waits for starts that are under way and are not.
const KEPT_FOR_URGENT: u32 = 1;

/// The places at the engines, in one pass.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    places: BTreeMap<EngineId, Places>,
    /// Leave their room for something urgent.
    urgent_victims: HashSet<ContainerKey>,
}

/// Those at one engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Places {
    /// How many there are.
    pub(crate) limit: u32,
    /// How many are taken by calls that are under way.
    pub(crate) taken: u32,
    /// Of these, by removals.
    pub(crate) removals: u32,
    /// Actions that found none.
    pub(crate) waiting: u32,
}

impl Turns {
    /// For these actions, in their order.
    pub(crate) fn new<'a>(actions: impl Iterator<Item = &'a Action>) -> Self {
        let urgent = actions.filter(|action| is_urgent_start(action));
        let urgent_victims =
            urgent.flat_map(|action| action.after().iter().chain(action.beside())).copied().collect();
        Self { places: BTreeMap::new(), urgent_victims }
    }

    /// Takes a place for an action that has waited so long, if there is one. `places` tells of those at an engine that is asked for the first time.
    ///
    /// A start or thaw in a swap follows what it waits for, and takes over its place: by itself it needs none. Nor does
    /// one that begins beside what is being frozen for it: the two are one step.
    pub(crate) fn take(
        &mut self,
        action: &Action,
        engine: EngineId,
        state: &State,
        waited: Duration,
        places: impl FnOnce() -> Places,
    ) -> bool {
        let urgent = self.is_urgent(action, state);
        let places = self.places.entry(engine).or_insert_with(places);
        if !action.after().is_empty() || !action.beside().is_empty() {
            return true;
        }
        let kept = if urgent { 0 } else { KEPT_FOR_URGENT };
        // Where there is but one, it is for all.
        let open = places.limit.saturating_sub(kept).max(1);
        let removes = matches!(action, Action::Remove { .. });
        let overdue = removes && waited >= REMOVAL_WAITS;
        let disturbs = removes && !overdue && places.taken > places.removals;
        if (places.taken < open && !disturbs) || (overdue && places.removals == 0) {
            places.taken += 1;
            places.removals += u32::from(removes);
            true
        } else {
            places.waiting += 1;
            false
        }
    }

    /// How many actions found no place at an engine.
    pub(crate) fn waiting(&self, engine: EngineId) -> u32 {
        self.places.get(&engine).map_or(0, |places| places.waiting)
    }

    fn is_urgent(&self, action: &Action, state: &State) -> bool {
        is_urgent_start(action)
            || self.urgent_victims.contains(&action.container())
            || match action {
                Action::Stop { reason, .. }
                | Action::Freeze { reason, .. }
                | Action::Evict { reason, .. }
                | Action::Kill { reason, .. } => match *reason {
                    // Its successor may be among the actions of a later plan.
                    StopReason::Preempted { by } | StopReason::Share { by } => is_demanded(state.service(by)),
                    StopReason::OverCapacity => true,
                    _ => false,
                },
                _ => false,
            }
    }
}

/// Whether it serves a demand that is not met.
const fn is_urgent_start(action: &Action) -> bool {
    matches!(
        action,
        Action::Start {
            reason: StartReason::Demand { .. } | StartReason::Replace { .. } | StartReason::Unhealthy { .. },
            ..
        } | Action::Thaw {
            reason: StartReason::Demand { .. } | StartReason::Replace { .. } | StartReason::Unhealthy { .. },
            ..
        }
    )
}

fn is_demanded(service: &Service) -> bool {
    service.kind == ServiceKind::Demand
}

/// Since when actions wait for their turn.
#[derive(Debug, Default)]
pub(crate) struct Waits(HashMap<(ContainerKey, &'static str), Instant>);

impl Waits {
    /// An action waits, and did so since `before` if it did.
    pub(crate) fn note(&mut self, action: &Action, before: &Self, now: Instant) {
        let key = (action.container(), action.kind());
        self.0.insert(key, before.0.get(&key).copied().unwrap_or(now));
    }

    /// For how long it has waited.
    pub(crate) fn waited(&self, action: &Action, now: Instant) -> Duration {
        let since = self.0.get(&(action.container(), action.kind()));
        since.map_or(Duration::ZERO, |&since| now.saturating_duration_since(since))
    }

    /// When the next removal has waited for as long as it has to.
    pub(crate) fn next_removal(&self, now: Instant) -> Option<Instant> {
        let removals = self.0.iter().filter(|((_, kind), _)| *kind == "remove");
        removals.map(|(_, &since)| since + REMOVAL_WAITS).filter(|&due| due > now).min()
    }

    /// Whether nothing waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether nothing waits that has a cause: what has ended is removed whatever has ended it.
    pub(crate) fn only_removals(&self) -> bool {
        self.0.keys().all(|&(_, kind)| kind == "remove")
    }

    /// The keys mean other containers now.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
