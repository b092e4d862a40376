//! What an engine says is there.

use planner::{Phase, Resources};

use crate::{ContainerId, Generation};

/// Everything of our cluster on one engine at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The instances that the driver serves.
    pub instances: Vec<ObservedInstance>,
    /// The containers that carry our cluster's labels, in no particular order.
    pub containers: Vec<ObservedContainer>,
}

/// One instance, as the engine reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedInstance {
    /// Its name.
    pub name: String,
    /// What it has; an unset dimension is [`Resources::UNLIMITED`].
    pub capacity: Resources,
    /// Whether it can be used.
    pub availability: InstanceAvailability,
}

/// Whether an instance can be used, as far as the engine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstanceAvailability {
    /// It can.
    Ready,
    /// The engine has been told to empty it.
    Draining,
    /// The engine has lost it, and says why.
    Lost(String),
}

/// One container, as the engine reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedContainer {
    /// The engine's id.
    pub id: ContainerId,
    /// From its label.
    pub service: String,
    /// From its label.
    pub instance: String,
    /// From its name; `None` where the name is not of our making.
    pub ordinal: Option<u32>,
    /// From its label.
    pub generation: Generation,
    /// Where it is in its life.
    pub phase: Phase,
    /// When it was created: milliseconds since the Unix epoch, by the engine's clock.
    pub created_at_ms: u64,
    /// What its healthcheck says while it runs; of a frozen one, what the last check before it was frozen said, where the
    /// engine still knows. `None` where it has no healthcheck.
    pub health: Option<Health>,
    /// How it ended, for one that has.
    pub exit: Option<Exit>,
}

/// What the engine's healthcheck says of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Health {
    /// Nothing yet: it has not been healthy since its start, nor failed often enough.
    Starting,
    /// The last check went well.
    Healthy,
    /// As many checks in a row as it may have failed.
    Unhealthy,
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its exit code; 128 + the signal's number for one that was killed.
    pub code: i64,
    /// Whether the kernel ended it for want of memory.
    pub out_of_memory: bool,
    /// The engine's own message, if it had one.
    pub message: Option<String>,
}
