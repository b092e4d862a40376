//! From what the sources say to what the planner is told.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use planner::{Delta, Millis, Reading};
use tokio::task::AbortHandle;

use crate::clock::Clock;
use crate::cluster::Cluster;
use crate::feed::SourceReport;
use crate::handle::lock;
use crate::latency::Reactions;
use crate::settings::{DemandKey, DemandSource, Settings};
use crate::trace::Causes;

/// Values kept per service, to tell a rebuilt state what `scale_down_after_ms` needs. As many as the planner keeps.
const VALUES_KEPT: usize = 64;

/// One source that is being followed.
pub(crate) struct Source {
    pub(crate) asked: DemandSource,
    pub(crate) post: Arc<Mutex<SourceReport>>,
    pub(crate) task: AbortHandle,
}

impl Source {
    /// Whether `other` is asked in the same way and can go on.
    pub(crate) fn is(&self, other: &DemandSource) -> bool {
        Arc::ptr_eq(&self.asked.transport, &other.transport) && self.asked.settings == other.settings
    }
}

/// What was heard for each service, and what is wrong with it.
#[derive(Default)]
pub(crate) struct Demands {
    pub(crate) sources: BTreeMap<String, Source>,
    /// By service: the values, each with the moment at which it was learnt, newest last.
    values: HashMap<String, VecDeque<(Reading, Millis)>>,
    /// By service: why its demand is unknown, or not confirmed.
    faults: BTreeMap<String, String>,
}

impl Demands {
    /// Why a service's demand is unknown, or is no longer confirmed.
    pub(crate) fn fault(&self, service: &str) -> Option<&str> {
        self.faults.get(service).map(String::as_str)
    }

    /// Tells the planner's state whatever is new, and follows rises; `running` counts a service's containers.
    pub(crate) fn take_in(
        &mut self,
        settings: &Settings,
        clock: &Clock,
        cluster: &mut Cluster,
        reactions: &mut Reactions,
        causes: &mut Causes,
        running: impl Fn(&Cluster, planner::ServiceId) -> u32,
    ) {
        // One look at each source, so that all the services that it feeds change together.
        let mut reports: BTreeMap<&str, SourceReport> = BTreeMap::new();
        for (name, source) in &self.sources {
            let mut post = lock(&source.post);
            if let Some(cause) = post.cause.take() {
                causes.add(cause);
            }
            reports.insert(name, post.clone());
        }
        for configured in &settings.services {
            let name = &configured.service.name;
            let Some(DemandKey { source, key }) = &configured.demand else { continue };
            let Some(report) = reports.get(source.as_str()) else { continue };
            let value = report.value(source, key);
            let fault = match (&value, &report.error) {
                (Err(fault), _) => Some(fault.clone()),
                (Ok(_), Some(error)) => Some(format!("{source} does not answer: {error}")),
                (Ok(_), None) => None,
            };
            match fault {
                Some(fault) => self.faults.insert(name.clone(), fault),
                None => self.faults.remove(name),
            };
            let Some(answered_at) = report.answered_at else { continue };
            let reading = match value {
                Ok(containers) => Reading::Known { containers, confirmed_at: clock.at(answered_at) },
                Err(_) => Reading::Unknown,
            };
            let learnt_at = clock.at(report.changed_at.unwrap_or(answered_at));
            let values = self.values.entry(name.clone()).or_default();
            let before = values.back().map(|&(before, _)| before);
            if before == Some(reading) {
                continue;
            }
            let Some(service) = cluster.state().service_id(name) else { continue };
            match (before, reading) {
                (Some(Reading::Known { containers: old, .. }), Reading::Known { containers: new, .. })
                    if old == new =>
                {
                    values.back_mut().expect("there is one before").0 = reading;
                }
                _ => {
                    if let (
                        Some(Reading::Known { containers: old, .. }),
                        Reading::Known { containers: new, .. },
                    ) = (before, reading)
                    {
                        let target =
                            |demand: u32| demand.min(configured.service.max).max(configured.service.min);
                        let running = running(cluster, service);
                        let shared_name = Arc::clone(cluster.service_name(service));
                        reactions.changed(&shared_name, target(old), target(new), running, learnt_at);
                    }
                    values.push_back((reading, learnt_at));
                    if values.len() > VALUES_KEPT {
                        values.pop_front();
                    }
                }
            }
            cluster.apply(Delta::Demand { service, reading, at: learnt_at });
        }
    }

    /// Tells a state that was built anew all that was heard before, and forgets what nobody asks for any more.
    pub(crate) fn tell_again(&mut self, settings: &Settings, cluster: &mut Cluster) {
        let configured =
            |name: &str| settings.services.iter().find(|settings| settings.service.name == *name);
        self.values.retain(|name, _| configured(name).is_some_and(|settings| settings.demand.is_some()));
        self.faults.retain(|name, _| configured(name).is_some_and(|settings| settings.demand.is_some()));
        for (name, values) in &self.values {
            let Some(service) = cluster.state().service_id(name) else { continue };
            for &(reading, at) in values {
                cluster.apply(Delta::Demand { service, reading, at });
            }
        }
    }
}
