//! What becomes of the work of fill containers that give up their room.

use planner::{ContainerKey, Millis, Phase, ServiceKind, StopReason};

use super::Cluster;
use super::operations::Kind;
use super::remembered::Leave;

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// The container was stopped or killed.
    Lost,
    /// It was frozen, where it would have been stopped.
    Kept,
}

impl Cluster {
    /// What becomes of a container's work by what was just done to it, and for how many milliseconds it has worked, its
    /// time in the freezer aside. `None` where there is no such work: what follows a demand serves, and is measured by
    /// that.
    pub(crate) fn work(&self, key: ContainerKey, kind: Kind, now: Millis) -> Option<(Work, u64)> {
        let memory = self.memories.get(self.container(key)?.id.as_ref()?)?;
        let work = match (kind, memory.leave) {
            _ if self.state.service(key.service).kind != ServiceKind::Fill => return None,
            (
                Kind::Freeze,
                Some(Leave { reason: Some(StopReason::Standby | StopReason::Lends { .. }), .. }),
            ) => {
                return None;
            }
            (Kind::Freeze, _) => Work::Kept,
            (kind, _) if kind.ends() => Work::Lost,
            _ => return None,
        };
        let frozen_ms = match memory.phase {
            Phase::Frozen => memory.frozen_ms + now.since(memory.phase_since),
            _ => memory.frozen_ms,
        };
        Some((work, now.since(memory.alive_since?).saturating_sub(frozen_ms)))
    }
}
