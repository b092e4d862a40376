//! Readiness: when a container that runs counts as running.

use std::collections::BTreeMap;

use driver::Health;
use planner::{ContainerKey, Fault, Millis, Phase};

use super::Cluster;
use super::observe::Noticed;
use crate::backoff::Failure;
use crate::settings::Ready;

/// How far a container is in getting ready. Known of every container, whatever its service waits for, so that a
/// service may begin to wait at any time without losing what serves already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Readiness {
    /// It ran before we looked, and nothing speaks against it.
    #[default]
    Adopted,
    /// It has not begun to run, or not again since it was suspended.
    Ahead,
    /// It runs, and has not been healthy yet; since then, as far as we know.
    Awaited { since: Millis },
    /// It is ready, since then as far as we know.
    Ready { since: Millis },
    /// It was, or ran before we looked, and the engine says that it is unhealthy.
    Unhealthy,
    /// It has not become ready in time, or can never be.
    Failed,
}

impl Readiness {
    /// After the engine has said this.
    pub(super) fn after(self, phase: Phase, health: Option<Health>, ready: Ready, now: Millis) -> Self {
        match phase {
            Phase::Created | Phase::Starting | Phase::Frozen => return Self::Ahead,
            Phase::Running => {}
            Phase::Stopping | Phase::Exited => return self,
        }
        let healthy = || match self {
            Self::Ready { .. } => self,
            _ => Self::Ready { since: now },
        };
        if ready == Ready::Running {
            return if health == Some(Health::Healthy) { healthy() } else { Self::Adopted };
        }
        match (self, health) {
            (_, Some(Health::Healthy)) => healthy(),
            (Self::Adopted | Self::Ready { .. }, Some(Health::Unhealthy)) => Self::Unhealthy,
            (Self::Adopted | Self::Ahead | Self::Ready { .. }, Some(Health::Starting))
            | (Self::Ahead, Some(Health::Unhealthy)) => Self::Awaited { since: now },
            // Nobody checks it, so it will never be healthy.
            (Self::Ahead, None) => Self::Failed,
            (Self::Awaited { .. } | Self::Unhealthy | Self::Failed, _)
            | (Self::Adopted | Self::Ready { .. }, None) => self,
        }
    }

    /// The phase and fault of a container that the engine says runs.
    pub(super) const fn counts_as(self, ready: Ready) -> (Phase, Option<Fault>) {
        match (ready, self) {
            (Ready::Running, _) | (_, Self::Adopted | Self::Ready { .. }) => (Phase::Running, None),
            (_, Self::Ahead | Self::Awaited { .. }) => (Phase::Starting, None),
            (_, Self::Unhealthy) => (Phase::Running, Some(Fault::Unhealthy)),
            (_, Self::Failed) => (Phase::Starting, Some(Fault::NotReady)),
        }
    }
}

impl Cluster {
    /// Gives up waiting for what has not become ready within its service's limit.
    pub(crate) fn give_up_waiting(&mut self, now: Millis) -> Vec<Noticed> {
        let overdue: BTreeMap<ContainerKey, u64> = self
            .awaited()
            .filter(|&(_, since, within_ms)| now.since(since) >= within_ms)
            .map(|(key, _, within_ms)| (key, within_ms))
            .collect();
        for key in overdue.keys() {
            let id = self.container(*key).and_then(|known| known.id.clone());
            if let Some(memory) = id.and_then(|id| self.memories.get_mut(&id)) {
                memory.readiness = Readiness::Failed;
                self.dirty.insert(key.instance);
            }
        }
        let failure = |within_ms| Failure {
            took_ms: within_ms,
            reason: format!("it was not healthy within {within_ms} ms"),
        };
        overdue
            .into_iter()
            .map(|(key, within_ms)| Noticed::Failed { key, failure: failure(within_ms) })
            .collect()
    }

    /// When the next container will not have become ready in time.
    pub(crate) fn next_limit(&self) -> Option<Millis> {
        self.awaited().map(|(_, since, within_ms)| since.plus(within_ms)).min()
    }

    /// Containers that run and are not ready yet, with the moment since when, and their service's limit.
    fn awaited(&self) -> impl Iterator<Item = (ContainerKey, Millis, u64)> {
        let waits = self.services.iter().any(|service| service.ready != Ready::Running);
        let instances = if waits { &self.instances[..] } else { &[] };
        instances.iter().flat_map(|instance| &instance.containers).filter_map(|known| {
            let key = known.container.key;
            let Ready::Healthy { within_ms } = self.services[key.service.index()].ready else { return None };
            let memory = self.memories.get(known.id.as_ref()?)?;
            match memory.readiness {
                Readiness::Awaited { since } if memory.phase == Phase::Running && !memory.stop_asked => {
                    Some((key, since, within_ms))
                }
                _ => None,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: Ready = Ready::Healthy { within_ms: 1_000 };

    fn told(of: &[(Phase, Option<Health>)], ready: Ready) -> Readiness {
        let moments = of.iter().zip(1..);
        moments.fold(Readiness::default(), |readiness, (&(phase, health), at)| {
            readiness.after(phase, health, ready, Millis(at))
        })
    }

    #[test]
    fn one_that_begins_is_awaited_from_when_it_runs_until_it_is_healthy() {
        let begins = [(Phase::Created, None), (Phase::Running, Some(Health::Starting))];
        assert_eq!(told(&begins, HEALTHY), Readiness::Awaited { since: Millis(2) });
        let late = [&begins[..], &[(Phase::Running, Some(Health::Unhealthy))]].concat();
        assert_eq!(
            told(&late, HEALTHY),
            Readiness::Awaited { since: Millis(2) },
            "it has never been healthy"
        );
        let ready = [&late[..], &[(Phase::Running, Some(Health::Healthy))]].concat();
        assert_eq!(told(&ready, HEALTHY), Readiness::Ready { since: Millis(4) });
        let ill = [&ready[..], &[(Phase::Running, Some(Health::Unhealthy))]].concat();
        assert_eq!(told(&ill, HEALTHY), Readiness::Unhealthy);
        assert_eq!(told(&ill, HEALTHY).counts_as(HEALTHY), (Phase::Running, Some(Fault::Unhealthy)));
    }

    #[test]
    fn one_that_nobody_checks_fails_when_it_begins_and_stays_where_it_served_before() {
        assert_eq!(told(&[(Phase::Created, None), (Phase::Running, None)], HEALTHY), Readiness::Failed);
        assert_eq!(told(&[(Phase::Running, None)], HEALTHY), Readiness::Adopted);
        assert_eq!(
            told(&[(Phase::Created, None), (Phase::Running, None)], Ready::Running),
            Readiness::Adopted
        );
    }

    #[test]
    fn one_that_was_suspended_is_awaited_again() {
        let frozen = [
            (Phase::Running, Some(Health::Healthy)),
            (Phase::Frozen, None),
            (Phase::Running, Some(Health::Unhealthy)),
        ];
        assert_eq!(told(&frozen, HEALTHY), Readiness::Awaited { since: Millis(3) });
        assert_eq!(told(&frozen[..2], HEALTHY).counts_as(HEALTHY), (Phase::Starting, None));
    }
}
