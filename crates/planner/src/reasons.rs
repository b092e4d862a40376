//! Why: a typed reason for each action and for whatever could not be done, readable as a sentence.

use crate::model::{ContainerKey, InstanceId, Millis, ServiceId};
use crate::state::State;

/// Why a container is started or thawed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StartReason {
    /// Its service has fewer than its target.
    Demand {
        /// How many its service had.
        have: u32,
        /// How many it should have.
        target: u32,
    },
    /// Room was left, and its service fills.
    Fill,
    /// A container on a lost or draining instance needs a successor elsewhere.
    Replace {
        /// The instance that is given up.
        instance: InstanceId,
    },
    /// A container of another generation needs a successor.
    Outdated {
        /// The container that it will replace.
        container: ContainerKey,
    },
    /// An unhealthy container needs a successor.
    Unhealthy {
        /// The container that it will replace.
        container: ContainerKey,
    },
    /// A frozen container is to be kept ready here, and this one is being warmed for it.
    Standby,
}

/// Why a container is stopped or frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// Its service has more than its target.
    Surplus {
        /// How many its service had.
        have: u32,
        /// How many it should have.
        target: u32,
    },
    /// More important work takes its room.
    Preempted {
        /// The service that takes it.
        by: ServiceId,
    },
    /// A service of the same priority has less than its share.
    Share {
        /// The service that takes it.
        by: ServiceId,
    },
    /// The instance holds more than its capacity.
    OverCapacity,
    /// The instance is being drained, and a successor runs elsewhere (or none is wanted).
    Draining,
    /// Its service is no longer configured.
    ServiceRemoved,
    /// It is of another generation, and its successor runs.
    Outdated,
    /// It has not become ready in time.
    NotReady,
    /// It was ready and is no longer, and its successor runs or takes its room.
    Unhealthy,
    /// Somebody has frozen it, and its service does not freeze: nobody has said that its work survives that.
    NotFreezable,
    /// More is frozen on the instance than its bounds allow.
    FrozenBound,
    /// It has been warmed, and is frozen to be kept ready.
    Standby,
    /// It is frozen for a moment, and a frozen one of its service ends in its room.
    Lends {
        /// The one that ends.
        to: ContainerKey,
    },
}

/// Why a container is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RemoveReason {
    /// It has ended.
    Exited,
    /// It was created, never started, and nobody wants it.
    NeverStarted,
}

/// Something that is wanted and was not done, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotDone {
    /// `count` more containers are wanted; there is no room that could be taken for them.
    NoRoom {
        /// The service that wants them.
        service: ServiceId,
        /// How many.
        count: u32,
    },
    /// `count` more are wanted; what is in their room can't be told to go at this moment.
    UnderWay {
        /// The service that wants them.
        service: ServiceId,
        /// How many.
        count: u32,
    },
    /// `count` more are wanted; starts of the service are held back after failures.
    BackingOff {
        /// The service that wants them.
        service: ServiceId,
        /// How many.
        count: u32,
        /// When the next start may be tried.
        until: Millis,
    },
    /// `count` more are wanted; the operator has paused the service.
    Paused {
        /// The service that wants them.
        service: ServiceId,
        /// How many.
        count: u32,
    },
    /// The demand is not known: what runs stays, nothing more is started.
    UnknownDemand {
        /// The service whose demand is unknown.
        service: ServiceId,
    },
    /// Fill services wait, so that a restart does not take the room of a half-done swap.
    FillHeld {
        /// The fill service.
        service: ServiceId,
        /// When the wait is over at the latest.
        until: Millis,
    },
    /// A surplus is kept because the fall in demand is too recent.
    ScaleDownDelayed {
        /// The service.
        service: ServiceId,
        /// How many containers are kept for now.
        count: u32,
        /// When the next of them goes.
        until: Millis,
    },
    /// A change of share waits for a container to have run its `min_runtime_ms`.
    ShareDelayed {
        /// The service that waits for its share.
        service: ServiceId,
        /// When the next container may be taken.
        until: Millis,
    },
    /// `count` containers on a draining instance stay, because there is no room for successors.
    DrainWaits {
        /// The service.
        service: ServiceId,
        /// The instance.
        instance: InstanceId,
        /// How many.
        count: u32,
    },
    /// Outdated containers stay for now: they are replaced one at a time.
    ReplacementWaits {
        /// The service.
        service: ServiceId,
        /// How many.
        count: u32,
    },
    /// Outdated containers stay: there is no room that could be taken for a successor.
    RolloutNoRoom {
        /// The service.
        service: ServiceId,
        /// How many.
        count: u32,
    },
    /// Outdated containers stay: starts of their successors have failed.
    RolloutFailing {
        /// The service.
        service: ServiceId,
        /// How many.
        count: u32,
        /// When the next start may be tried.
        until: Millis,
    },
    /// Containers are unhealthy: they do not count as running, and wait to be replaced.
    Unhealthy {
        /// The service.
        service: ServiceId,
        /// How many.
        count: u32,
    },
}

impl StartReason {
    /// The code, as the API has it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Demand { .. } => "demand",
            Self::Fill => "fill",
            Self::Replace { .. } => "replace",
            Self::Outdated { .. } => "outdated",
            Self::Unhealthy { .. } => "unhealthy",
            Self::Standby => "standby",
        }
    }

    /// The reason as the rest of a sentence that begins with what is done.
    pub fn words(&self, state: &State) -> String {
        match *self {
            Self::Demand { have, target } => format!("because {have} of {target} run"),
            Self::Fill => "because there is room left".to_owned(),
            Self::Replace { instance } => {
                format!("in place of one on {}, which is being given up", state.instance(instance).name)
            }
            Self::Outdated { container } => {
                format!("in place of {}, which is of an older generation", state.describe(container))
            }
            Self::Unhealthy { container } => {
                format!("in place of {}, which is unhealthy", state.describe(container))
            }
            Self::Standby => "to be kept frozen and ready".to_owned(),
        }
    }
}

impl StopReason {
    /// The code, as the API has it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Surplus { .. } => "surplus",
            Self::Preempted { .. } => "preempted",
            Self::Share { .. } => "share",
            Self::OverCapacity => "over_capacity",
            Self::Draining => "draining",
            Self::ServiceRemoved => "service_removed",
            Self::Outdated => "outdated",
            Self::NotReady => "not_ready",
            Self::Unhealthy => "unhealthy",
            Self::NotFreezable => "not_freezable",
            Self::FrozenBound => "frozen_bound",
            Self::Standby => "standby",
            Self::Lends { .. } => "lends",
        }
    }

    /// The reason as the rest of a sentence that begins with what is done.
    pub fn words(&self, state: &State) -> String {
        match *self {
            Self::Surplus { have, target } => format!("because {have} run and {target} are wanted"),
            Self::Preempted { by } => {
                let service = state.service(by);
                format!("to make room for {} (priority {})", service.name, service.priority)
            }
            Self::Share { by } => format!("because {} has less than its share", state.service(by).name),
            Self::OverCapacity => "because the instance holds more than its capacity".to_owned(),
            Self::Draining => "because the instance is being drained".to_owned(),
            Self::ServiceRemoved => "because its service is no longer configured".to_owned(),
            Self::Outdated => "because its successor runs".to_owned(),
            Self::NotReady => "because it has not become ready in time".to_owned(),
            Self::Unhealthy => "because it is unhealthy".to_owned(),
            Self::NotFreezable => "because it is frozen, and its service does not freeze".to_owned(),
            Self::FrozenBound => "because more is frozen there than the instance allows".to_owned(),
            Self::Standby => "to be kept ready".to_owned(),
            Self::Lends { to } => {
                format!("for a moment, to lend its room to {}, which ends", state.describe(to))
            }
        }
    }
}

impl RemoveReason {
    /// The code, as the API has it.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::NeverStarted => "never_started",
        }
    }

    /// The reason as the rest of a sentence that begins with what is done.
    pub const fn words(&self) -> &'static str {
        match self {
            Self::Exited => "because it has ended",
            Self::NeverStarted => "because it was created and never started",
        }
    }
}

impl NotDone {
    /// The code, as the API has it in `blocked_by` and `limited_by`.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoRoom { .. } => "capacity",
            Self::UnderWay { .. } => "in_progress",
            Self::BackingOff { .. } => "backing_off",
            Self::Paused { .. } => "paused",
            Self::UnknownDemand { .. } => "unknown_demand",
            Self::FillHeld { .. } => "fill_held",
            Self::ScaleDownDelayed { .. } => "scale_down_delayed",
            Self::ShareDelayed { .. } => "share_delayed",
            Self::DrainWaits { .. } => "drain_waits",
            Self::ReplacementWaits { .. } => "replacement_waits",
            Self::RolloutNoRoom { .. } => "rollout_no_room",
            Self::RolloutFailing { .. } => "rollout_failing",
            Self::Unhealthy { .. } => "unhealthy",
        }
    }

    /// The service that it is about.
    pub const fn service(&self) -> ServiceId {
        match *self {
            Self::NoRoom { service, .. }
            | Self::UnderWay { service, .. }
            | Self::BackingOff { service, .. }
            | Self::Paused { service, .. }
            | Self::UnknownDemand { service }
            | Self::FillHeld { service, .. }
            | Self::ScaleDownDelayed { service, .. }
            | Self::ShareDelayed { service, .. }
            | Self::DrainWaits { service, .. }
            | Self::ReplacementWaits { service, .. }
            | Self::RolloutNoRoom { service, .. }
            | Self::RolloutFailing { service, .. }
            | Self::Unhealthy { service, .. } => service,
        }
    }

    /// A sentence.
    pub fn words(&self, state: &State, now: Millis) -> String {
        let name = &state.service(self.service()).name;
        match *self {
            Self::NoRoom { count, .. } => {
                format!("{name}: {count} more wanted, and no room that could be taken")
            }
            Self::UnderWay { count, .. } => {
                format!("{name}: {count} more wanted, their room is being cleared")
            }
            Self::BackingOff { count, until, .. } => {
                format!("{name}: {count} more wanted; held back after failures for {} ms", until.since(now))
            }
            Self::Paused { count, .. } => format!("{name}: {count} more wanted, but the service is paused"),
            Self::UnknownDemand { .. } => format!("{name}: demand unknown, so what runs stays as it is"),
            Self::FillHeld { until, .. } => {
                format!("{name}: waits until demand is known, for {} ms at most", until.since(now))
            }
            Self::ScaleDownDelayed { count, until, .. } => {
                format!("{name}: {count} no longer wanted are kept for {} ms more", until.since(now))
            }
            Self::ShareDelayed { until, .. } => {
                format!(
                    "{name}: waits {} ms for its share, until an equal has run its time",
                    until.since(now)
                )
            }
            Self::DrainWaits { instance, count, .. } => format!(
                "{name}: {count} stay on {}, which is being drained, for want of room elsewhere",
                state.instance(instance).name
            ),
            Self::ReplacementWaits { count, .. } => {
                format!("{name}: {count} of an older generation wait to be replaced")
            }
            Self::RolloutNoRoom { count, .. } => format!(
                "{name}: {count} of an older generation stay, for want of room that could be taken for a successor"
            ),
            Self::RolloutFailing { count, until, .. } => format!(
                "{name}: {count} of an older generation stay; starts of successors are held back after failures for {} ms",
                until.since(now)
            ),
            Self::Unhealthy { count, .. } => format!("{name}: {count} unhealthy, to be replaced"),
        }
    }
}
