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
    standings: HashMap<Arc<str>, Standing>,
}

impl Standings {
    pub(crate) fn get(&self, instance: &str) -> Option<&Standing> {
        self.standings.get(instance)
    }

    /// What may be done with an instance now, and its capacity; keeps since when it has been so.
    pub(crate) fn judge(
        &mut self,
        cluster: &Cluster,
        configured: &planner::Instance,
        id: InstanceId,
        engine: &Engine,
        clock: &Clock,
    ) -> (InstanceState, Resources) {
        let observed = cluster.observed(id);
        let seen = observed.and_then(|observed| {
            observed.observation.instances.iter().find(|instance| instance.name == configured.name)
        });
        let now = clock.now();
        let wanted = self.operator.get(&configured.name).copied();
        let said_by = if wanted.is_some() { "by the operator" } else { "by the configuration" };
        let (state, reason) = if let Some(lost) = &engine.report.lost {
            (InstanceState::Lost, Some(lost.reason.clone()))
        } else {
            let availability = seen.map(|instance| &instance.availability);
            match (availability, wanted.unwrap_or(configured.state)) {
                (Some(InstanceAvailability::Lost(reason)), _) => (InstanceState::Lost, Some(reason.clone())),
                (None, _) if observed.is_some() => {
                    let reason = format!("{} does not report it", engine.driver.name());
                    (InstanceState::Lost, Some(reason))
                }
                (_, InstanceState::Draining) => (InstanceState::Draining, Some(format!("drained {said_by}"))),
                (Some(InstanceAvailability::Draining), _) => {
                    (InstanceState::Draining, Some(format!("drained by {}", engine.driver.name())))
                }
                (_, InstanceState::Cordoned) => {
                    (InstanceState::Cordoned, Some(format!("cordoned {said_by}")))
                }
                (None, _) => (InstanceState::Cordoned, Some("not observed yet".to_owned())),
                (Some(InstanceAvailability::Ready), _) => (InstanceState::Ready, None),
            }
        };
        let capacity =
            seen.map_or(configured.capacity, |instance| instance.capacity.min(configured.capacity));
        let since = match self.standings.get(configured.name.as_str()) {
            Some(before) if before.state == state => before.since,
            _ => match &engine.report.lost {
                Some(lost) if state == InstanceState::Lost => clock.at(lost.since),
                _ => now,
            },
        };
        self.standings.insert(configured.name.as_str().into(), Standing { state, reason, since });
        (state, capacity)
    }

    /// Whether an instance is drained and lost: it can't be emptied, and whoever drains it does not want it back.
    pub(crate) fn is_given_up(&self, configured: &planner::Instance) -> bool {
        let wanted = self.operator.get(&configured.name).copied().unwrap_or(configured.state);
        let is_lost = self.get(&configured.name).is_some_and(|it| it.state == InstanceState::Lost);
        wanted == InstanceState::Draining && is_lost
    }

    /// Forgets instances that are not configured any more.
    pub(crate) fn retain(&mut self, configured: impl Fn(&str) -> bool) {
        self.standings.retain(|name, _| configured(name));
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
