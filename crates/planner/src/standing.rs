//! How a container stands: what it takes of its instance, and what the planner may do with it.

use crate::model::{Container, Operation, Phase, Resources};

/// How a container stands, given its phase and what is being done to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Runs, or is on its way to running with nothing of ours under way: it may stay or be told to go.
    Settled,
    /// Runs or is about to, by an action of ours that has not ended: it can't be told anything else yet.
    Busy,
    /// Will run as soon as others have left their room; takes nothing yet, but its room is promised.
    Waiting,
    /// On its way out, or into the freezer: takes its room until it is gone.
    Leaving,
    /// Suspended: takes its memory.
    Frozen,
    /// Suspended, and on its way out without running: by SIGKILL, or as soon as it is lent room. Takes its memory until
    /// then.
    Ending,
    /// Created, never started, and nobody is about to: takes nothing.
    Orphan,
    /// Ended: takes nothing.
    Ended,
}

impl Container {
    /// How it stands. `left` tells whether a container that this one waits for has left its room.
    #[expect(
        clippy::match_same_arms,
        reason = "the arms follow the operations, and the order of the arms counts"
    )]
    pub fn standing(&self, left: impl Fn(crate::ContainerKey) -> bool) -> Standing {
        match (&self.operation, self.phase) {
            (_, Phase::Exited) => Standing::Ended,
            (Some(Operation::Remove), Phase::Created) => Standing::Ended,
            // Somebody has started it, and an engine removes nothing that runs.
            (Some(Operation::Remove), Phase::Starting | Phase::Running) => Standing::Busy,
            (Some(Operation::Remove), Phase::Frozen) => Standing::Frozen,
            (Some(Operation::Freeze), Phase::Frozen) => Standing::Frozen,
            (
                Some(Operation::Stop | Operation::Freeze | Operation::Evict { .. } | Operation::Kill),
                Phase::Created,
            ) => Standing::Orphan,
            (Some(Operation::Kill), Phase::Frozen) => Standing::Ending,
            (Some(Operation::Evict { after }), Phase::Frozen) if !after.iter().all(|&key| left(key)) => {
                Standing::Ending
            }
            (Some(Operation::Stop | Operation::Freeze | Operation::Evict { .. } | Operation::Kill), _)
            | (_, Phase::Stopping) => Standing::Leaving,
            (Some(Operation::Start { .. } | Operation::Thaw { .. }), Phase::Starting | Phase::Running) => {
                Standing::Busy
            }
            (
                Some(Operation::Start { after } | Operation::Thaw { after }),
                Phase::Created | Phase::Frozen,
            ) => {
                if after.iter().all(|&key| left(key)) {
                    Standing::Busy
                } else {
                    Standing::Waiting
                }
            }
            (None, Phase::Created) => Standing::Orphan,
            (None, Phase::Starting | Phase::Running) => Standing::Settled,
            (None, Phase::Frozen) => Standing::Frozen,
        }
    }

    /// Whether it has left the room that a successor waits for: ended, suspended, or never there.
    pub fn has_left(&self) -> bool {
        match self.phase {
            Phase::Exited | Phase::Created => true,
            Phase::Frozen => {
                !matches!(self.operation, Some(Operation::Stop | Operation::Evict { .. } | Operation::Kill))
            }
            Phase::Starting | Phase::Running | Phase::Stopping => false,
        }
    }

    /// What it takes of its instance right now, given how it stands and what its service requests.
    pub fn takes(&self, standing: Standing, request: Resources) -> Resources {
        match standing {
            Standing::Settled | Standing::Busy | Standing::Leaving => request,
            Standing::Frozen | Standing::Ending => request.when_frozen(),
            // One that waits to be thawed holds its memory all along.
            Standing::Waiting if self.phase == Phase::Frozen => request.when_frozen(),
            Standing::Waiting | Standing::Orphan | Standing::Ended => Resources::ZERO,
        }
    }

    /// What it has still to be given before it can run.
    pub(crate) fn lacks(&self, request: Resources) -> Resources {
        if self.phase == Phase::Frozen { request.minus(request.when_frozen()) } else { request }
    }

    /// What it gives back when it has left: all that it takes, or all but its memory if it is being frozen.
    pub(crate) fn gives_back(&self, request: Resources) -> Resources {
        if self.operation == Some(Operation::Freeze) { request.minus(request.when_frozen()) } else { request }
    }
}
