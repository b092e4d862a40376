//! The plan: actions from observed to target, each with its reason.

use crate::board::Board;
use crate::model::{ContainerKey, Millis, ServiceId, ServiceKind};
use crate::reasons::{NotDone, RemoveReason, StartReason, StopReason};
use crate::state::State;
use crate::targets::Notes;

/// One thing to be done to one container.
///
/// A start or thaw whose `after` is not empty is one half of a swap: the containers in it leave their room
/// (by an action of the same plan, or by one under way), and it may start to run only when all have. Those in `beside`
/// are frozen for it by the same plan; it need not wait for them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Stop it, with the grace that its service gives.
    Stop {
        /// Which.
        container: ContainerKey,
        /// Why.
        reason: StopReason,
    },
    /// Stop a frozen one, in the room of another container that is frozen meanwhile: the engine resumes it to end it.
    Evict {
        /// Which.
        container: ContainerKey,
        /// Whose room it takes for that moment, once they have left it; the same plan freezes them.
        after: Vec<ContainerKey>,
        /// Why.
        reason: StopReason,
    },
    /// End a frozen one without letting it run again: SIGKILL. It takes no room for that.
    Kill {
        /// Which.
        container: ContainerKey,
        /// Why.
        reason: StopReason,
    },
    /// Suspend it in place.
    Freeze {
        /// Which.
        container: ContainerKey,
        /// Why.
        reason: StopReason,
    },
    /// Create and start a new one.
    Start {
        /// Which; no container of this key exists, except perhaps one that was created and never started.
        container: ContainerKey,
        /// Whose room it takes, once they have left it.
        after: Vec<ContainerKey>,
        /// Whose room it takes without waiting: its service overlaps, and they are being frozen.
        beside: Vec<ContainerKey>,
        /// Why.
        reason: StartReason,
    },
    /// Resume a frozen one.
    Thaw {
        /// Which.
        container: ContainerKey,
        /// Whose room it takes, once they have left it.
        after: Vec<ContainerKey>,
        /// Whose room it takes without waiting: its service overlaps, and they are being frozen.
        beside: Vec<ContainerKey>,
        /// Why.
        reason: StartReason,
    },
    /// Remove one that has ended or never started.
    Remove {
        /// Which.
        container: ContainerKey,
        /// Why.
        reason: RemoveReason,
    },
}

/// What is to be done now, what is not and why, and when to look again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In the order in which they are to be issued: most important first, a victim before its successor, standbys to be
    /// warmed last. Whoever issues only some of them now issues the first, and plans again for the rest.
    pub actions: Vec<Action>,
    /// What is wanted and was not done, in order of importance.
    pub not_done: Vec<NotDone>,
    /// By service id: the target, and how many it will have once the plan is carried out.
    pub services: Vec<ServicePlan>,
    /// Frozen containers that are to end and have no room to end in, sorted. To be told back with
    /// [`Delta::WaitsToEnd`](crate::Delta::WaitsToEnd): they are killed when they have waited for too long.
    pub waits_to_end: Vec<ContainerKey>,
    /// Time alone changes nothing before this.
    pub next_wake_at: Option<Millis>,
}

/// What a plan makes of one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    /// clamp(demand, min, max); `None` for a fill service.
    pub target: Option<u32>,
    /// Starting or running containers that stay, new ones included.
    pub planned: u32,
    /// How many of the target are not planned for; 0 for a fill service.
    pub unmet: u32,
}

/// Whether everything that is wanted runs, as the state stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Success {
    /// Every service runs its target, the target is its demand, no demand is unknown, and no room is idle
    /// that a fill service could use.
    pub success: bool,
    /// The codes of what is in the way, sorted; empty on success. Those of [`NotDone::code`], and
    /// `in_progress` for actions planned or under way.
    pub blocked_by: Vec<&'static str>,
}

impl Action {
    /// The container that it acts on.
    pub const fn container(&self) -> ContainerKey {
        match *self {
            Self::Stop { container, .. }
            | Self::Evict { container, .. }
            | Self::Kill { container, .. }
            | Self::Freeze { container, .. }
            | Self::Start { container, .. }
            | Self::Thaw { container, .. }
            | Self::Remove { container, .. } => container,
        }
    }

    /// The containers whose room it takes; empty for everything but a start or thaw in a swap, and an eviction.
    pub fn after(&self) -> &[ContainerKey] {
        match self {
            Self::Start { after, .. } | Self::Thaw { after, .. } | Self::Evict { after, .. } => after,
            Self::Stop { .. } | Self::Kill { .. } | Self::Freeze { .. } | Self::Remove { .. } => &[],
        }
    }

    /// The containers whose room it takes while they are still being frozen; empty for everything but a start or thaw
    /// in a swap of a service that overlaps.
    pub fn beside(&self) -> &[ContainerKey] {
        match self {
            Self::Start { beside, .. } | Self::Thaw { beside, .. } => beside,
            Self::Stop { .. }
            | Self::Evict { .. }
            | Self::Kill { .. }
            | Self::Freeze { .. }
            | Self::Remove { .. } => &[],
        }
    }

    /// For a container that is frozen to lend its room: to which one.
    pub const fn lends_to(&self) -> Option<ContainerKey> {
        match self {
            Self::Freeze { reason: StopReason::Lends { to }, .. } => Some(*to),
            _ => None,
        }
    }

    /// What is done, as the API has it: `stop`, `kill`, `freeze`, `start`, `thaw` or `remove`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Stop { .. } | Self::Evict { .. } => "stop",
            Self::Kill { .. } => "kill",
            Self::Freeze { .. } => "freeze",
            Self::Start { .. } => "start",
            Self::Thaw { .. } => "thaw",
            Self::Remove { .. } => "remove",
        }
    }

    /// The code of its reason.
    pub const fn reason_code(&self) -> &'static str {
        match self {
            Self::Stop { reason, .. }
            | Self::Evict { reason, .. }
            | Self::Kill { reason, .. }
            | Self::Freeze { reason, .. } => reason.code(),
            Self::Start { reason, .. } | Self::Thaw { reason, .. } => reason.code(),
            Self::Remove { reason, .. } => reason.code(),
        }
    }

    /// A sentence: `stop priority2/1 on instance-1 to make room for priority1 (priority 1)`.
    pub fn words(&self, state: &State) -> String {
        let reason = match self {
            Self::Stop { reason, .. }
            | Self::Evict { reason, .. }
            | Self::Kill { reason, .. }
            | Self::Freeze { reason, .. } => reason.words(state),
            Self::Start { reason, .. } | Self::Thaw { reason, .. } => reason.words(state),
            Self::Remove { reason, .. } => reason.words().to_owned(),
        };
        let mut words = format!("{} {} {reason}", self.kind(), state.describe(self.container()));
        for (how, whose) in
            [(", in the room of ", self.after()), (", at once in the room of ", self.beside())]
        {
            if !whose.is_empty() {
                let names: Vec<String> = whose.iter().map(|&key| state.describe(key)).collect();
                words.push_str(how);
                words.push_str(&names.join(" and "));
            }
        }
        words
    }
}

impl Plan {
    /// The plan of one service.
    pub fn service(&self, id: ServiceId) -> &ServicePlan {
        &self.services[id.index()]
    }
}

/// Plans from `state` at `now`.
///
/// One function a phase: what is wanted, what instances hold too much, then each priority in turn, then
/// standbys; at the end the decisions become actions.
pub fn plan(state: &State, now: Millis) -> Plan {
    let mut notes = Notes::default();
    let mut board = Board::new(state, now);
    let mut wants = board.wants(&mut notes);
    let classes = classes(state);
    for id in state.service_ids() {
        board.send_away_unwanted(id);
    }
    board.estimate(&wants, &classes);
    board.end_frozen();
    for instance in state.instance_ids() {
        board.relieve(instance);
    }
    for class in &classes {
        board.settle(&mut wants, class, &mut notes);
    }
    if board.warm_standbys(&wants, &notes) {
        // What had to lend its room for that may have room elsewhere.
        for &id in classes.iter().flatten().filter(|id| state.service(**id).kind == ServiceKind::Fill) {
            board.place_rest(id, &wants[id.index()]);
        }
    }
    let waits_to_end = board.evict(&wants, &mut notes);
    let services = wants
        .iter()
        .zip(&board.tallies)
        .map(|(want, tally)| ServicePlan {
            target: want.target,
            planned: tally.kept,
            unmet: want.target.map_or(0, |target| target.saturating_sub(tally.kept)),
        })
        .collect();
    let actions = board.issue();
    notes.not_done.sort_by_key(|item| (state.service(item.service()).priority, item.service()));
    Plan { actions, not_done: notes.not_done, services, waits_to_end, next_wake_at: notes.next_wake_at }
}

/// The services of each priority, the most important first; removed ones come last, whatever they were.
fn classes(state: &State) -> Vec<Vec<ServiceId>> {
    let mut ids: Vec<ServiceId> = state.service_ids().collect();
    let order = |id: ServiceId| (state.service(id).removed, state.service(id).priority);
    ids.sort_by_key(|&id| (order(id), id));
    ids.chunk_by(|&a, &b| order(a) == order(b)).map(<[ServiceId]>::to_vec).collect()
}
