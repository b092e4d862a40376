//! The engines: who observes them, what is prepared on them, and what may be done with their instances.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use driver::{Driver, Generation, InstanceAvailability, PullPolicy};
use planner::{InstanceId, InstanceState, Millis, Resources};
use tokio::task::AbortHandle;

use crate::clock::Clock;
use crate::cluster::{Cluster, EngineId};
use crate::limit::CallLimit;
use crate::observer::{Post, Report};
use crate::prepare::Preparation;
use crate::turns::Places;

/// One engine.
pub(crate) struct Engine {
    /// As it was passed in.
    pub(crate) given: Arc<dyn Driver>,
    /// The same, guarded.
    pub(crate) driver: Arc<dyn Driver>,
    pub(crate) post: Arc<Post>,
    /// The last that was taken in.
    pub(crate) report: Report,
    pub(crate) task: AbortHandle,
    /// By generation.
    pub(crate) preparations: BTreeMap<Generation, Prepared>,
    /// How many calls it is given at once.
    pub(crate) limit: CallLimit,
    /// As last measured.
    pub(crate) places: Places,
}

/// One spec on one engine.
pub(crate) struct Prepared {
    /// As the spec had it: another policy is another preparation.
    pub(crate) pull: PullPolicy,
    pub(crate) post: Arc<Mutex<Preparation>>,
    pub(crate) task: AbortHandle,
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What may be done with an instance, why, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) state: InstanceState,
    pub(crate) reason: Option<String>,
    pub(crate) since: Millis,
}

/// The standings of the instances, by name.
#[derive(Default)]
pub(crate) struct Standings {
    /// What an operator has said, over what is configured.
    pub(crate) operator: HashMap<String, InstanceState>,
    by_name: HashMap<Arc<str>, Standing>,
    /// Since when an engine that answers has lost them, or does not report them.
    missed: HashMap<Arc<str>, Millis>,
}

/// What a standing depends on besides what is said of the instance.
pub(crate) struct Times {
    pub(crate) now: Millis,
    /// [`crate::Settings::lost_after_ms`].
    pub(crate) lost_after_ms: u64,
    /// From when on everything that a predecessor has started shows, also where a start is not idempotent.
    pub(crate) settled_at: Millis,
}

impl Standings {
    pub(crate) fn get(&self, instance: &str) -> Option<&Standing> {
        self.by_name.get(instance)
    }

    /// What may be done with an instance now, and its capacity; keeps since when it has been so.
    ///
    /// One that its engine has lost, or does not report, is lost after `lost_after_ms`, like one whose engine is silent:
    /// an agent may lose its connection for a moment, and nothing that runs is given up for that. Nothing is started
    /// there meanwhile.
    pub(crate) fn judge(
        &mut self,
        cluster: &Cluster,
        configured: &planner::Instance,
        id: InstanceId,
        engine: &Engine,
        clock: &Clock,
        times: &Times,
    ) -> (InstanceState, Resources) {
        let observed = cluster.observed(id);
        let seen = observed.and_then(|observed| {
            observed.observation.instances.iter().find(|instance| instance.name == configured.name)
        });
        let now = times.now;
        let missed = match seen.map(|instance| &instance.availability) {
            Some(InstanceAvailability::Lost(reason)) => Some(reason.clone()),
            None if observed.is_some() => Some(format!("{} does not report it", engine.driver.name())),
            _ => None,
        };
        let missed = if let Some(reason) = missed {
            let since = *self.missed.entry(configured.name.as_str().into()).or_insert(now);
            Some((reason, since))
        } else {
            self.missed.remove(configured.name.as_str());
            None
        };
        let gone = missed.clone().filter(|&(_, since)| now >= since.plus(times.lost_after_ms));
        let settles = !engine.driver.capabilities().idempotent_start && now < times.settled_at;
        let wanted = self.operator.get(&configured.name).copied();
        let said_by = if wanted.is_some() { "by the operator" } else { "by the configuration" };
        let (state, reason) = if let Some(lost) = &engine.report.lost {
            (InstanceState::Lost, Some(lost.reason.clone()))
        } else if let Some((reason, _)) = &gone {
            (InstanceState::Lost, Some(reason.clone()))
        } else {
            let availability = seen.map(|instance| &instance.availability);
            match (availability, wanted.unwrap_or(configured.state)) {
                (_, InstanceState::Draining) => (InstanceState::Draining, Some(format!("drained {said_by}"))),
                (Some(InstanceAvailability::Draining), _) => {
                    (InstanceState::Draining, Some(format!("drained by {}", engine.driver.name())))
                }
                (_, InstanceState::Cordoned) => {
                    (InstanceState::Cordoned, Some(format!("cordoned {said_by}")))
                }
                (None | Some(InstanceAvailability::Lost(_)), _) => {
                    let reason = missed.map_or_else(|| "not observed yet".to_owned(), |(reason, _)| reason);
                    (InstanceState::Cordoned, Some(reason))
                }
                (Some(InstanceAvailability::Ready), _) if settles => {
                    let reason = "nothing is started yet: what a predecessor has started may still appear";
                    (InstanceState::Cordoned, Some(reason.to_owned()))
                }
                (Some(InstanceAvailability::Ready), _) => (InstanceState::Ready, None),
            }
        };
        let capacity =
            seen.map_or(configured.capacity, |instance| instance.capacity.min(configured.capacity));
        let since = match self.by_name.get(configured.name.as_str()) {
            Some(before) if before.state == state => before.since,
            _ => match (&engine.report.lost, gone) {
                (Some(lost), _) => clock.at(lost.since),
                (None, Some((_, since))) => since,
                (None, None) => now,
            },
        };
        self.by_name.insert(configured.name.as_str().into(), Standing { state, reason, since });
        (state, capacity)
    }

    /// The next moment at which time alone changes a standing.
    pub(crate) fn next(&self, times: &Times) -> Option<Millis> {
        let lost = self.missed.values().map(|since| since.plus(times.lost_after_ms));
        lost.chain([times.settled_at]).filter(|&at| at > times.now).min()
    }

    /// Whether an instance is drained and lost: it can't be emptied, and whoever drains it does not want it back.
    pub(crate) fn is_given_up(&self, configured: &planner::Instance) -> bool {
        let wanted = self.operator.get(&configured.name).copied().unwrap_or(configured.state);
        let is_lost = self.get(&configured.name).is_some_and(|it| it.state == InstanceState::Lost);
        wanted == InstanceState::Draining && is_lost
    }

    /// Forgets instances that are not configured any more.
    pub(crate) fn retain(&mut self, configured: impl Fn(&str) -> bool) {
        self.by_name.retain(|name, _| configured(name));
        self.missed.retain(|name, _| configured(name));
        self.operator.retain(|name, _| configured(name));
    }
}

/// Finds the engine of each instance.
pub(crate) fn engine_of(engines: &BTreeMap<EngineId, Engine>) -> impl Fn(&str) -> EngineId + use<> {
    let by_instance: HashMap<String, EngineId> = engines
        .iter()
        .flat_map(|(&id, engine)| engine.driver.instances().into_iter().map(move |instance| (instance, id)))
        .collect();
    // Settings are validated: every instance has a driver.
    move |instance| by_instance.get(instance).copied().unwrap_or(EngineId(u64::MAX))
}
