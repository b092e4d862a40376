//! What happened to whom, when, and by whose hand.

use std::sync::Arc;

use driver::{ContainerId, Generation};
use planner::Resources;

use super::fault::Call;

/// The labels of a container that some Force12 started.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Labels {
    /// The cluster that it belongs to.
    pub cluster: String,
    /// The service that it is one of.
    pub service: String,
    /// The instance that it runs on.
    pub instance: String,
    /// The hash of its spec.
    pub generation: Generation,
}

/// Who a container is; it does not change in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its name on the engine.
    pub name: String,
    /// Its labels; `None` for a container of someone else's.
    pub labels: Option<Labels>,
    /// Its number, as asked for in the start; `None` if it was not started by one.
    pub ordinal: Option<u32>,
    /// What it takes of its instance.
    pub request: Resources,
}

/// What happened to a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// It is there, and takes nothing yet.
    Created,
    /// The engine has begun to start it. It takes its request from here on.
    Starting,
    /// It runs.
    Running,
    /// Starting it failed; it is as it was before.
    StartFailed,
    /// It was asked to end.
    Stopping,
    /// It is suspended. It takes its memory only.
    Frozen,
    /// It was resumed, and runs. It takes its request again.
    Thawed,
    /// It has ended, and takes nothing.
    Exited {
        /// The exit code.
        code: i64,
    },
    /// It is gone.
    Removed,
}

/// Whose doing it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// A driver asked for it.
    Driver,
    /// The container did it by itself.
    Container,
    /// Somebody acted on the engine behind the driver's back.
    Hand,
}

/// One line of an engine's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Milliseconds since the engine was made.
    pub at_ms: u64,
    /// To which container.
    pub container: ContainerId,
    /// Who that is.
    pub subject: Arc<Subject>,
    /// What happened.
    pub what: Happening,
    /// Whose doing it was.
    pub by: Actor,
}

/// A request that went wrong: refused, given up without an answer, or with one that took longer than
/// [`Mishap::LONG_MS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mishap {
    /// What was asked.
    pub call: Call,
    /// When it was asked: milliseconds since the engine was made.
    pub from_ms: u64,
    /// When whoever asked knew, or gave up.
    pub until_ms: u64,
}

impl Mishap {
    /// Several times what any call takes by itself, but for one that waits for others.
    pub const LONG_MS: u64 = 1_000;
}

/// How full an instance was with one cluster's containers, after something changed on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Milliseconds since the engine was made.
    pub at_ms: u64,
    /// Whose containers are counted.
    pub cluster: String,
    /// The instance.
    pub instance: String,
    /// What its starting, running and stopping containers take, and the memory of its frozen ones.
    pub used: Resources,
    /// What it had.
    pub capacity: Resources,
    /// The container whose change this was; `None` when the capacity changed.
    pub container: Option<ContainerId>,
    /// Whether the change took room on behalf of a driver: a start or thaw, not by hand.
    pub taken_by_driver: bool,
}
