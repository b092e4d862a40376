//! What is remembered of containers beyond the last observation.

use planner::{ContainerKey, Millis, Phase, StopReason};

use super::operations::Kind;
use super::ready::Readiness;

/// The effect of an action that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Started,
    Thawed,
    Ended,
    Frozen,
    Removed,
}

/// An effect that no observation shows yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fact {
    pub(super) key: ContainerKey,
    pub(super) effect: Effect,
    pub(super) at: Millis,
    pub(super) order: u64,
}

/// How a container was last told to leave its room.
#[derive(Clone, Copy, Debug)]
pub(super) struct Leave {
    pub(super) kind: Kind,
    /// Why; forgotten with other settings, for it names services and containers by what they were before.
    pub(super) reason: Option<StopReason>,
}

/// What is remembered of a container beyond the last observation.
#[derive(Clone, Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and any of them may hold with any other"
)]
pub(super) struct Memory {
    /// Its number in its key; not that of its name if that was taken.
    pub(super) ordinal: u32,
    pub(super) phase: Phase,
    /// As shown: one that is not ready yet is not in the phase that the engine says.
    pub(super) phase_since: Millis,
    pub(super) readiness: Readiness,
    /// When we started it, or first saw it run.
    pub(super) alive_since: Option<Millis>,
    /// For how many milliseconds it was frozen, until it was resumed last.
    pub(super) frozen_ms: u64,
    /// It has counted as running.
    pub(super) ran: bool,
    /// From when its start is measured, until it has been seen to run.
    pub(super) start_from: Option<Millis>,
    /// This process has started it. How one of a predecessor's ends says nothing of starts: the predecessor may have
    /// asked for it, or not have started it at all.
    pub(super) started_here: bool,
    /// We have asked for its end.
    pub(super) stop_asked: bool,
    /// Its end has been noticed.
    pub(super) ended: bool,
    /// The engine would not remove it, because it is being started: it counts as that for so long, though an
    /// engine may say `created` until a container runs.
    pub(super) starting_until: Option<Millis>,
    pub(super) leave: Option<Leave>,
}

impl Memory {
    /// Of a container in its phase since `phase_since`, of which nothing more is known yet.
    pub(super) const fn new(ordinal: u32, phase: Phase, phase_since: Millis) -> Self {
        Self {
            ordinal,
            phase,
            phase_since,
            readiness: Readiness::Adopted,
            alive_since: None,
            frozen_ms: 0,
            ran: false,
            start_from: None,
            started_here: false,
            stop_asked: false,
            ended: false,
            starting_until: None,
            leave: None,
        }
    }
}
