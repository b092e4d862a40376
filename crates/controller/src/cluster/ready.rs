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
    /// It was ready when it was suspended.
    Suspended,
    /// It was ready when it was suspended, and runs again since then; no check has said anything since.
    Resumed { since: Millis },
    /// It was, or ran before we looked, and the engine says that it is unhealthy.
    Unhealthy,
    /// It has not become ready in time, or can never be.
    Failed,
}

impl Readiness {
    /// After the engine has said this.
    pub(super) fn after(self, phase: Phase, health: Option<Health>, ready: Ready, now: Millis) -> Self {
        match phase {
            Phase::Created | Phase::Starting => return Self::Ahead,
            Phase::Frozen => return self.suspended(health),
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
            (Self::Suspended, _) => self.resumed(now),
            (Self::Adopted | Self::Ready { .. }, Some(Health::Unhealthy)) => Self::Unhealthy,
            (Self::Adopted | Self::Ahead | Self::Ready { .. }, Some(Health::Starting))
            | (Self::Ahead, Some(Health::Unhealthy)) => Self::Awaited { since: now },
            // Nobody checks it, so it will never be healthy.
            (Self::Ahead, None) => Self::Failed,
            // Until it has been checked again an engine may say that it is unhealthy, and Docker does: that says nothing.
            (Self::Awaited { .. } | Self::Resumed { .. } | Self::Unhealthy | Self::Failed, _)
            | (Self::Adopted | Self::Ready { .. }, None) => self,
        }
    }

    /// After it was suspended; `health` is what its last check had said by then, where that is known.
    const fn suspended(self, health: Option<Health>) -> Self {
        match (self, health) {
            (_, Some(Health::Healthy))
            | (Self::Ready { .. } | Self::Suspended | Self::Resumed { .. }, None) => Self::Suspended,
            _ => Self::Ahead,
        }
    }

    /// After it was resumed. What was ready before serves at once: nothing has happened to it meanwhile.
    pub(super) const fn resumed(self, now: Millis) -> Self {
        match self {
            Self::Ready { .. } | Self::Suspended | Self::Resumed { .. } => Self::Resumed { since: now },
            _ => Self::Ahead,
        }
    }

    /// The phase and fault of a container that the engine says runs.
    pub(super) const fn counts_as(self, ready: Ready) -> (Phase, Option<Fault>) {
        match (ready, self) {
            (Ready::Running, _)
            | (_, Self::Adopted | Self::Ready { .. } | Self::Suspended | Self::Resumed { .. }) => {
                (Phase::Running, None)
            }
            (_, Self::Ahead | Self::Awaited { .. }) => (Phase::Starting, None),
            (_, Self::Unhealthy) => (Phase::Running, Some(Fault::Unhealthy)),
            (_, Self::Failed) => (Phase::Starting, Some(Fault::NotReady)),
        }
    }
}

impl Cluster {
    /// Gives up waiting for what has not become ready within its service's limit, or has not been found healthy within it
    /// since it was resumed.
    pub(crate) fn give_up_waiting(&mut self, now: Millis) -> Vec<Noticed> {
        let overdue: BTreeMap<ContainerKey, u64> = self
            .awaited()
            .filter(|&(_, since, within_ms)| now.since(since) >= within_ms)
            .map(|(key, _, within_ms)| (key, within_ms))
            .collect();
        let mut noticed = Vec::new();
        for (key, within_ms) in overdue {
            let id = self.container(key).and_then(|known| known.id.clone());
            let Some(memory) = id.and_then(|id| self.memories.get_mut(&id)) else { continue };
            self.dirty.insert(key.instance);
            if matches!(memory.readiness, Readiness::Resumed { .. }) {
                // It has served before, so this is no failed start; a successor is to come first.
                memory.readiness = Readiness::Unhealthy;
                memory.phase_since = now;
                tracing::warn!(
                    container = self.state.describe(key),
                    "a container has not been healthy within {within_ms} ms of being resumed"
                );
                continue;
            }
            memory.readiness = Readiness::Failed;
            let reason = format!("it was not healthy within {within_ms} ms");
            noticed.push(Noticed::Failed { key, failure: Failure { took_ms: within_ms, reason } });
        }
        noticed
    }

    /// When the next container will not have become ready in time.
    pub(crate) fn next_limit(&self) -> Option<Millis> {
        self.awaited().map(|(_, since, within_ms)| since.plus(within_ms)).min()
    }

    /// Containers that run and that no check has found healthy yet, or again, with the moment since when, and their
    /// service's limit.
    fn awaited(&self) -> impl Iterator<Item = (ContainerKey, Millis, u64)> {
        let waits = self.services.iter().any(|service| service.ready != Ready::Running);
        let instances = if waits { &self.instances[..] } else { &[] };
        instances.iter().flat_map(|instance| &instance.containers).filter_map(|known| {
            let key = known.container.key;
            let Ready::Healthy { within_ms } = self.services[key.service.index()].ready else { return None };
            let memory = self.memories.get(known.id.as_ref()?)?;
            match memory.readiness {
                Readiness::Awaited { since } | Readiness::Resumed { since }
                    if memory.phase == Phase::Running && !memory.stop_asked =>
                {
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
    fn one_that_was_healthy_when_it_was_suspended_counts_as_soon_as_it_is_resumed() {
        let ready = (Phase::Running, Some(Health::Healthy));
        let not_checked_yet = (Phase::Running, Some(Health::Unhealthy));
        // It was seen to be healthy, or the engine tells that it was: so it is after a restart of ours.
        for before in [&[ready, (Phase::Frozen, None)][..], &[(Phase::Frozen, Some(Health::Healthy))]] {
            let resumed_at = Millis(before.len() as u64 + 1);
            assert_eq!(told(before, HEALTHY).counts_as(HEALTHY), (Phase::Running, None));
            let resumed = [before, &[not_checked_yet, not_checked_yet]].concat();
            assert_eq!(told(&resumed, HEALTHY), Readiness::Resumed { since: resumed_at });
            let again = [&resumed[..], &[(Phase::Frozen, None), not_checked_yet]].concat();
            assert_eq!(told(&again, HEALTHY).counts_as(HEALTHY), (Phase::Running, None));
            let found_healthy = [&resumed[..], &[ready, not_checked_yet]].concat();
            assert_eq!(told(&found_healthy, HEALTHY), Readiness::Unhealthy, "by then it has been checked");
        }
    }

    #[test]
    fn one_that_was_not_healthy_when_it_was_suspended_is_awaited_again() {
        let began = [(Phase::Created, None), (Phase::Running, Some(Health::Starting))];
        let ill = [(Phase::Running, Some(Health::Healthy)), (Phase::Running, Some(Health::Unhealthy))];
        for (before, last_check) in [
            (&began[..], None),
            (&began[..], Some(Health::Starting)),
            (&ill[..], None),
            (&ill[..1], Some(Health::Unhealthy)),
            (&[][..], None),
        ] {
            let resumed =
                [before, &[(Phase::Frozen, last_check), (Phase::Running, Some(Health::Unhealthy))]].concat();
            let since = Millis(resumed.len() as u64);
            assert_eq!(told(&resumed, HEALTHY), Readiness::Awaited { since }, "{before:?} {last_check:?}");
        }
    }
}
