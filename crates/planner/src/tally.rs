//! Tallies: how many containers of a service there are of each kind.

use crate::model::{Container, Fault, InstanceState, Millis};
use crate::state::State;

/// One service's counts, over all instances that are not lost; or its part in them on one instance.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tally {
    /// Containers that stay and run, or will: what the target is held against.
    pub(crate) kept: u32,
    /// Of these, those that run now and are of use.
    pub(crate) running: u32,
    /// Of the running, those of the service's generation that have run for long enough to be trusted.
    pub(crate) proven: u32,
    /// Of the running, those of the service's generation that have not. Counted only where [`Self::replaces`].
    pub(crate) unproven: u32,
    /// Of the kept, those that have run and are of no use any more.
    pub(crate) unhealthy: u32,
    /// Of the kept, those that have not become ready in time.
    pub(crate) not_ready: u32,
    /// Of the kept, those on draining instances.
    pub(crate) on_draining: u32,
    /// Of the kept, those of an older generation.
    pub(crate) outdated: u32,
    /// Of the kept, those that are on their way to running.
    pub(crate) coming: u32,
    /// Containers on their way out.
    pub(crate) leaving: u32,
    /// The most that it may have: its target, or a fill service's max.
    pub(crate) limit: u32,
    /// How many it may have of what its priority has.
    pub(crate) share: u32,
    /// On lost instances, still thought to run.
    pub(crate) on_lost: u32,
    /// There were outdated ones when the plan began: only then does it matter which of the others are proven.
    pub(crate) replaces: bool,
}

/// What of a container its service's tally counts.
#[derive(Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "each is counted by itself")]
pub(crate) struct Counted {
    running: bool,
    unproven: bool,
    outdated: bool,
    draining: bool,
    fault: Option<Fault>,
}

impl Counted {
    /// As far as it does not depend on the time, on an instance that is `there`: all of its service's generation are
    /// taken for proven.
    pub(crate) fn at_any_time(container: &Container, there: InstanceState) -> Self {
        Self {
            running: container.runs(),
            unproven: false,
            outdated: container.outdated,
            draining: there == InstanceState::Draining,
            fault: container.fault,
        }
    }

    /// The same, of one that has yet to show that it keeps running.
    pub(crate) const fn unproven(self) -> Self {
        Self { unproven: true, ..self }
    }

    /// Of one that runs, and will again after a moment in which it does not.
    pub(crate) fn on_its_way(container: &Container, there: InstanceState) -> Self {
        Self { running: false, ..Self::at_any_time(container, there) }
    }
}

/// Whether a container is of its service's generation, and has yet to show that it keeps running.
pub(crate) fn is_unproven(state: &State, container: &Container, now: Millis) -> bool {
    let proven_after_ms = state.service(container.key.service).proven_after_ms;
    container.runs() && !container.outdated && now.since(container.since) < proven_after_ms
}

impl Tally {
    /// How many of those on one instance, of which there are no more than `most`, may be taken by others: as surplus, and
    /// as what is above the share. What a container costs as a victim depends on nothing else here.
    pub(crate) fn spare(&self, most: u32) -> (u32, u32) {
        (self.surplus().min(most), self.over_share().min(most))
    }

    /// How many may be taken by others before fewer than the target serve: a successor that is still on its way, or on
    /// trial, does not count yet.
    pub(crate) const fn surplus(&self) -> u32 {
        self.surplus_over(self.limit)
    }

    /// As [`Self::surplus`], were this the target.
    pub(crate) const fn surplus_over(&self, limit: u32) -> u32 {
        self.serving().saturating_sub(limit)
    }

    /// How many stand for the target until others run in their place: what runs, and what did and is unhealthy now.
    pub(crate) const fn serving(&self) -> u32 {
        let on_trial = if self.is_on_trial() { self.unproven } else { 0 };
        self.running + self.unhealthy - on_trial
    }

    /// Whether there are outdated containers, and successors that have yet to run for long enough to be trusted.
    pub(crate) const fn is_proving(&self) -> bool {
        self.outdated > 0 && self.unproven > 0
    }

    /// As [`Self::is_proving`], and none is trusted yet.
    pub(crate) const fn is_on_trial(&self) -> bool {
        self.is_proving() && self.proven == 0
    }

    /// How many more may be taken by others before the service falls below its share.
    pub(crate) const fn over_share(&self) -> u32 {
        (self.kept - self.on_draining).saturating_sub(self.share)
    }

    /// Adds what an instance has of the service.
    pub(crate) fn add(&mut self, there: &Self) {
        self.kept += there.kept;
        self.running += there.running;
        self.proven += there.proven;
        self.unproven += there.unproven;
        self.unhealthy += there.unhealthy;
        self.not_ready += there.not_ready;
        self.on_draining += there.on_draining;
        self.outdated += there.outdated;
        self.coming += there.coming;
        self.leaving += there.leaving;
        self.on_lost += there.on_lost;
    }

    pub(crate) fn count_in(&mut self, container: Counted) {
        self.kept += 1;
        *self.of_its_kind(container) += 1;
        self.proven += u32::from(container.running && !container.unproven && !container.outdated);
        self.unproven += u32::from(container.unproven);
        self.on_draining += u32::from(container.draining);
        self.outdated += u32::from(container.outdated);
    }

    pub(crate) fn count_out(&mut self, container: Counted) {
        self.kept -= 1;
        *self.of_its_kind(container) -= 1;
        self.proven -= u32::from(container.running && !container.unproven && !container.outdated);
        self.unproven -= u32::from(container.unproven);
        self.on_draining -= u32::from(container.draining);
        self.outdated -= u32::from(container.outdated);
    }

    const fn of_its_kind(&mut self, container: Counted) -> &mut u32 {
        match (container.fault, container.running) {
            (Some(Fault::NotReady), _) => &mut self.not_ready,
            (Some(Fault::Unhealthy), _) => &mut self.unhealthy,
            (None, true) => &mut self.running,
            (None, false) => &mut self.coming,
        }
    }
}
