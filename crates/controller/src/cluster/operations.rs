//! What is under way: every action from its issue to its end, or until an observation tells of its outcome.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use driver::{ContainerId, Start, StopOptions};
use planner::{Action, Container, ContainerKey, InstanceId, Millis, Phase, ServiceId, StopReason};
use tokio::sync::watch;

use super::numbers::free_from_the_top;
use super::ready::Readiness;
use super::remembered::{Effect, Fact, Leave, Memory};
use super::{Cluster, EngineId, Known, takes_room};
use crate::executor::{After, OperationId, Work};
use crate::observer::Observed;

/// The grace of a stop for a container of a service that is not configured, and so gives none: the engines' own
/// customary ten seconds.
const UNKNOWN_GRACE_MS: u64 = 10_000;

/// A call that takes longer than this is stuck, and must not keep the turns of others from coming: many times what a start
/// takes on a busy engine. (Drivers bound their calls, and what they have under way at once, all the same.)
const STUCK_MS: u64 = 5_000;

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Start,
    Thaw,
    Stop,
    Evict,
    Kill,
    Freeze,
    Remove,
}

impl Kind {
    /// Whether it ends its container.
    pub(super) const fn ends(self) -> bool {
        matches!(self, Self::Stop | Self::Evict | Self::Kill)
    }

    /// As in [`Action::kind`].
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Thaw => "thaw",
            Self::Stop | Self::Evict => "stop",
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Remove => "remove",
        }
    }
}

/// One action under way, or ended without a clear answer.
pub(crate) struct InFlight {
    pub(crate) id: OperationId,
    pub(crate) kind: Kind,
    /// The engine's id of what it acts on; for a start, of what has appeared since and is taken for it.
    pub(super) container: Option<ContainerId>,
    /// Whose room it waits for.
    pub(super) after: Vec<ContainerId>,
    /// Tells the executor which of `after` have not left their room.
    pub(super) left: Option<watch::Sender<Vec<ContainerId>>>,
    pub(crate) issued_at: Millis,
    /// For what waits for room: since when nothing is in it.
    pub(super) room_since: Option<Millis>,
    /// For how long at most it keeps the engine busy, in milliseconds.
    busy_ms: u64,
    /// Where its outcome is to be noted: the decision's sequence, and the action's place in it.
    pub(crate) decision: (u64, usize),
    /// Whether the engine would start it only once, however often it is asked to.
    pub(super) idempotent: bool,
    pub(super) unknown: Option<Unknown>,
}

/// How many calls keep an engine busy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Calls {
    pub(crate) all: u32,
    pub(crate) removals: u32,
}

/// An outcome that is not known.
#[derive(Clone, Copy)]
pub(super) struct Unknown {
    /// An observation that began after this number tells.
    order: u64,
    /// Where the engine may still do what it was asked long ago: not believed before this.
    settled_at: Millis,
}

impl InFlight {
    /// Whether it has ended without a clear answer, and this observation began after that.
    pub(super) fn is_told_by(&self, observed: &Observed) -> bool {
        self.unknown.is_some_and(|unknown| observed.began > unknown.order)
    }

    fn busy_until(&self) -> Option<Millis> {
        let since = match self.kind {
            _ if self.unknown.is_some() => None,
            Kind::Start | Kind::Thaw | Kind::Evict => self.room_since,
            Kind::Stop | Kind::Kill | Kind::Freeze | Kind::Remove => Some(self.issued_at),
        };
        since.map(|since| since.plus(self.busy_ms))
    }
}

impl Cluster {
    /// How many operations there are, those of unknown outcome included.
    pub(crate) fn operations_len(&self) -> usize {
        self.operations.len()
    }

    /// How many actions have been issued and have not ended.
    pub(crate) fn under_way(&self) -> usize {
        self.operations.values().filter(|operation| operation.unknown.is_none()).count()
    }

    /// How many calls keep an engine busy, by engine.
    ///
    /// A start or thaw that waits for room counts from when it has it: until then what leaves the room counts for both.
    pub(crate) fn calls(&self, now: Millis) -> HashMap<EngineId, Calls> {
        let mut calls: HashMap<EngineId, Calls> = HashMap::new();
        for (key, operation) in &self.operations {
            if operation.busy_until().is_some_and(|until| now < until) {
                let calls = calls.entry(self.engine_of(key.instance)).or_default();
                calls.all += 1;
                calls.removals += u32::from(operation.kind == Kind::Remove);
            }
        }
        calls
    }

    /// The next moment at which time alone makes a call count no more.
    pub(crate) fn next_place(&self, now: Millis) -> Option<Millis> {
        self.operations.values().filter_map(InFlight::busy_until).filter(|&until| until > now).min()
    }

    /// The operation of that id, and what it is about, while it has not ended.
    pub(crate) fn operation(&self, id: OperationId) -> Option<(ContainerKey, &InFlight)> {
        let key = *self.keys.get(&id)?;
        self.operations.get(&key).map(|operation| (key, operation))
    }

    /// Begins an operation, and says what is to be done. `None`: the action cannot be carried out, because what it
    /// acts on is not there, or something is being done to it.
    pub(crate) fn begin(
        &mut self,
        action: &Action,
        id: OperationId,
        decision: (u64, usize),
        idempotent: bool,
        now: Millis,
    ) -> Option<Work> {
        let key = action.container();
        if self.operations.contains_key(&key) {
            return None;
        }
        let container = self.container(key).and_then(|known| known.id.clone());
        let victims: Vec<&Known> =
            action.after().iter().filter_map(|&victim| self.in_its_room(victim)).collect();
        let last_by_engine = victims.iter().all(|victim| takes_room(victim.container.phase));
        let after: Vec<ContainerId> = victims.iter().filter_map(|victim| victim.id.clone()).collect();
        let (sender, receiver) = watch::channel(after.clone());
        let waits_for = After { left: receiver, last_by_engine };
        let (kind, work) = match action {
            Action::Start { .. } => (Kind::Start, Work::Start { start: self.start(key)?, after: waits_for }),
            Action::Thaw { .. } => (Kind::Thaw, Work::Thaw { id: container.clone()?, after: waits_for }),
            Action::Stop { .. } => {
                let options = StopOptions { grace_ms: self.grace_ms(key.service) };
                (Kind::Stop, Work::Stop { id: container.clone()?, options })
            }
            Action::Evict { .. } => {
                let options = StopOptions { grace_ms: self.grace_ms(key.service) };
                // An engine knows of nothing that a stop might wait for.
                let after = After { last_by_engine: false, ..waits_for };
                (Kind::Evict, Work::Evict { id: container.clone()?, options, after })
            }
            Action::Kill { .. } => {
                let options = StopOptions { grace_ms: 0 };
                (Kind::Kill, Work::Stop { id: container.clone()?, options })
            }
            Action::Freeze { .. } => (Kind::Freeze, Work::Freeze { id: container.clone()? }),
            Action::Remove { .. } => (Kind::Remove, Work::Remove { id: container.clone()? }),
        };
        if let Action::Stop { reason, .. }
        | Action::Evict { reason, .. }
        | Action::Kill { reason, .. }
        | Action::Freeze { reason, .. } = action
            && let Some(memory) = container.as_ref().and_then(|id| self.memories.get_mut(id))
        {
            memory.stop_asked = kind.ends();
            memory.leave = Some(Leave { kind, reason: Some(*reason) });
        }
        let waits = matches!(kind, Kind::Start | Kind::Thaw | Kind::Evict);
        let signalled = matches!(
            work,
            Work::Stop { options: StopOptions { grace_ms: 1.. }, .. }
                | Work::Evict { options: StopOptions { grace_ms: 1.. }, .. }
        );
        let operation = InFlight {
            busy_ms: if signalled { StopOptions::SIGNALLED_MS } else { STUCK_MS },
            id,
            kind,
            container: if kind == Kind::Start { None } else { container },
            room_since: (waits && after.is_empty()).then_some(now),
            left: (waits && !after.is_empty()).then_some(sender),
            after,
            issued_at: now,
            decision,
            idempotent,
            unknown: None,
        };
        self.operations.insert(key, operation);
        self.keys.insert(id, key);
        self.dirty.insert(key.instance);
        Some(work)
    }

    /// The longest that stops which an action does or waits for may take by their own settings, in milliseconds.
    pub(crate) fn longest_grace_ms(&self, action: &Action) -> u64 {
        let victims = action.after().iter().map(|key| key.service);
        victims.chain([action.container().service]).map(|service| self.grace_ms(service)).max().unwrap_or(0)
    }

    fn grace_ms(&self, service: ServiceId) -> u64 {
        let known = &self.services[service.index()];
        match (&known.made_of, self.removed_specs.get(&*known.name)) {
            (Some((spec, _)), _) | (None, Some(spec)) => spec.stop_grace_ms,
            (None, None) => UNKNOWN_GRACE_MS,
        }
    }

    fn start(&self, key: ContainerKey) -> Option<Start> {
        let service = self.state.service(key.service);
        let (spec, generation) = self.services[key.service.index()].made_of.as_ref()?;
        Some(Start {
            service: service.name.clone(),
            instance: self.state.instance(key.instance).name.clone(),
            ordinal: key.ordinal,
            request: service.request,
            spec: Arc::clone(spec),
            generation: generation.clone(),
        })
    }

    /// A container that has not left its room.
    fn in_its_room(&self, key: ContainerKey) -> Option<&Known> {
        self.container(key).filter(|known| self.has_not_left(known))
    }

    /// Whether whoever waits for its room has to go on waiting. One that is suspended has left if that was asked of it; if
    /// its end was, it has not before that, also where the end has failed: it holds its memory until then.
    pub(super) fn has_not_left(&self, known: &Known) -> bool {
        let Container { key, phase, .. } = known.container;
        let ends = || match self.operations.get(&key) {
            Some(operation) => operation.kind.ends(),
            None => self.leave(known).is_some_and(|leave| leave.kind.ends()),
        };
        takes_room(phase) || phase == Phase::Frozen && ends()
    }

    /// How a container that has not left, and that nothing is done to any more, is to leave: as it was told before. But
    /// room that was lent to a frozen one for its end may be taken by now: it ends in its freezer, which takes none.
    pub(super) fn leaves_by(&self, known: &Known) -> Kind {
        match (self.leave(known).map(|leave| leave.kind), known.container.phase) {
            (Some(Kind::Freeze), _) => Kind::Freeze,
            (Some(Kind::Evict | Kind::Kill), Phase::Frozen) => Kind::Kill,
            _ => Kind::Stop,
        }
    }

    fn leave(&self, known: &Known) -> Option<Leave> {
        self.memories.get(known.id.as_ref()?)?.leave
    }

    /// An operation has ended well: its effect is a fact. `started` is the id of what a start has started.
    pub(crate) fn done(&mut self, id: OperationId, order: u64, started: Option<ContainerId>, now: Millis) {
        let Some(key) = self.keys.remove(&id) else { return };
        let Some(operation) = self.operations.remove(&key) else { return };
        self.dirty.insert(key.instance);
        let effect = match operation.kind {
            Kind::Start => Effect::Started,
            Kind::Thaw => Effect::Thawed,
            Kind::Stop | Kind::Evict | Kind::Kill => Effect::Ended,
            Kind::Freeze => Effect::Frozen,
            Kind::Remove => Effect::Removed,
        };
        let Some(container) = started.or(operation.container) else { return };
        if effect == Effect::Started {
            // Whatever else has its number gives it up: a leftover beside which the engine has made a new one, or
            // one of several that are being started and had been taken for this one.
            let other = self.memories.get(&container).map(|memory| memory.ordinal);
            let other = other.filter(|&ordinal| ordinal != key.ordinal).unwrap_or_else(|| {
                let taken = self.containers_on(key.instance).iter().map(|known| known.container.key);
                let taken = taken.map(|other| (other.service, other.ordinal)).collect();
                free_from_the_top(&taken, key.service)
            });
            self.renumber(key, &container, other);
            let memory = self.memories.entry(container.clone()).or_insert_with(|| Memory {
                alive_since: Some(now),
                ..Memory::new(key.ordinal, Phase::Starting, now)
            });
            memory.ordinal = key.ordinal;
            memory.started_here = true;
            if memory.phase != Phase::Running {
                memory.readiness = Readiness::Ahead;
            }
            if !memory.ran && memory.phase != Phase::Exited {
                memory.alive_since.get_or_insert(now);
                memory.start_from = operation.room_since.or(Some(operation.issued_at));
            }
        }
        if effect == Effect::Thawed
            && let Some(memory) = self.memories.get_mut(&container)
        {
            memory.readiness = memory.readiness.resumed(now);
        }
        if effect == Effect::Removed {
            self.memories.remove(&container);
        }
        self.facts.insert(container, Fact { key, effect, at: now, order });
    }

    /// An operation has failed: nothing was done, or what was done the next observation shows.
    pub(crate) fn failed(&mut self, id: OperationId) {
        if let Some(&key) = self.keys.get(&id) {
            if let Some(memory) = self
                .operations
                .get(&key)
                .filter(|operation| operation.kind.ends())
                .and_then(|operation| self.memories.get_mut(operation.container.as_ref()?))
            {
                memory.stop_asked = false;
            }
            self.forget_operation(key);
            self.dirty.insert(key.instance);
        }
    }

    /// What was created may be being started, by a start whose beginning we have not seen: until then it takes room,
    /// whatever the engine says of it, unless it turns out to be something else.
    pub(crate) fn may_be_starting(&mut self, key: ContainerKey, until: Millis) {
        let id = self.container(key).and_then(|known| known.id.clone());
        if let Some(memory) = id.and_then(|id| self.memories.get_mut(&id)) {
            memory.starting_until = Some(until);
            self.dirty.insert(key.instance);
        }
    }

    /// How an operation ended is not known: it holds its room until an observation tells, at least for
    /// `settle_ms` where the engine may still do it.
    pub(crate) fn unknown(&mut self, id: OperationId, order: u64, settle_ms: u64, now: Millis) {
        let Some(key) = self.keys.get(&id) else { return };
        if let Some(operation) = self.operations.get_mut(key) {
            let waits_ms = if operation.idempotent { 0 } else { settle_ms };
            operation.unknown = Some(Unknown { order, settled_at: now.plus(waits_ms) });
            self.dirty.insert(key.instance);
        }
    }

    /// Once more the actions by which containers were to leave their room, and did not, while a successor that was
    /// asked for with them still waits.
    pub(crate) fn again(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        // Several may wait for one.
        let mut told = HashSet::new();
        for (key, operation) in &self.operations {
            for id in &operation.after {
                let victim =
                    self.containers_on(key.instance).iter().find(|known| known.id.as_ref() == Some(id));
                let Some(victim) = victim.filter(|known| known.container.phase != Phase::Stopping) else {
                    continue;
                };
                let container = victim.container.key;
                if self.operations.contains_key(&container) || !told.insert(container) {
                    continue;
                }
                let reason = self.leave(victim).and_then(|leave| leave.reason);
                let reason = reason.unwrap_or(match operation.kind {
                    Kind::Evict => StopReason::Lends { to: *key },
                    _ => StopReason::Preempted { by: key.service },
                });
                actions.push(match self.leaves_by(victim) {
                    Kind::Freeze => Action::Freeze { container, reason },
                    Kind::Kill => Action::Kill { container, reason },
                    _ => Action::Stop { container, reason },
                });
            }
        }
        actions
    }

    /// Gives up operations of unknown outcome about which this observation, which began at `began_at`, tells.
    pub(super) fn settle(
        &mut self,
        instance: InstanceId,
        observed: &Observed,
        places: &[usize],
        began_at: Millis,
    ) {
        // What is only created may be being started, and be listed as it was before.
        let shown: HashSet<&ContainerId> = places
            .iter()
            .map(|&place| &observed.observation.containers[place])
            .filter(|container| container.phase != Phase::Created)
            .map(|container| &container.id)
            .collect();
        // Of these, what is there and what is not cannot be told yet (see `number`).
        let undecided: HashSet<ServiceId> = self
            .on(instance)
            .filter(|(key, operation)| !operation.is_told_by(observed) && self.awaits(key))
            .map(|(key, _)| key.service)
            .collect();
        let settled: Vec<ContainerKey> = self
            .on(instance)
            .filter(|(key, operation)| {
                operation.unknown.is_some_and(|unknown| {
                    operation.is_told_by(observed)
                        && (operation.kind != Kind::Start
                            || operation.idempotent
                            || (began_at >= unknown.settled_at && !undecided.contains(&key.service))
                            || operation.container.as_ref().is_some_and(|id| shown.contains(id)))
                })
            })
            .map(|(&key, _)| key)
            .collect();
        for key in settled {
            self.forget_operation(key);
        }
    }

    /// Whether that is being started, and nothing has appeared yet that is taken for it.
    pub(super) fn awaits(&self, key: &ContainerKey) -> bool {
        self.operations.get(key).is_some_and(|it| it.kind == Kind::Start && it.container.is_none())
    }

    pub(super) fn on(&self, instance: InstanceId) -> impl Iterator<Item = (&ContainerKey, &InFlight)> {
        let first = ContainerKey { instance, service: ServiceId(0), ordinal: 0 };
        let last = ContainerKey { instance, service: ServiceId(u32::MAX), ordinal: u32::MAX };
        self.operations.range(first..=last)
    }

    fn forget_operation(&mut self, key: ContainerKey) {
        if let Some(operation) = self.operations.remove(&key) {
            self.keys.remove(&operation.id);
        }
    }
}
