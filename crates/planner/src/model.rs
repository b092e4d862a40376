//! The words of the planner: resources, services, instances, containers and their phases.
//!
//! Everything here is plain data. Ids are dense indexes into [`crate::State`], given in the order of
//! names, so that comparing ids is comparing names and no order of the inputs can show in a plan.

/// A moment on the caller's clock: milliseconds since some fixed origin, never going backwards.
///
/// The controller's origin is the Unix epoch, read once at its start and carried on by a monotonic clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Millis(pub u64);

impl Millis {
    /// The moment `ms` milliseconds later.
    #[must_use]
    pub const fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to here; 0 when `earlier` is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A resource vector: what an instance has (capacity) or one container takes (request).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Resources {
    /// Places for containers; the unit in which the demo counts. At least 1 in a request, at most
    /// [`Self::SLOTS_MAX`] in a capacity: [`crate::State`] takes less for 1, and more for that many.
    pub slots: u64,
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Mebibytes of memory.
    pub memory_mib: u64,
}

impl Resources {
    /// Nothing.
    pub const ZERO: Self = Self { slots: 0, cpu_millis: 0, memory_mib: 0 };
    /// The default request: one slot.
    pub const ONE_SLOT: Self = Self::slots(1);
    /// The most slots that an instance has: far more containers than an engine runs (a bridge network has
    /// 1,023 ports), few enough that a plan which fills an instance is made within a second.
    pub const SLOTS_MAX: u64 = 10_000;
    /// Stands for "not limited in this dimension" in a capacity; slots are limited always.
    pub const UNLIMITED: u64 = u64::MAX;

    /// Room for anything.
    pub(crate) const UNBOUNDED: Self =
        Self { slots: Self::UNLIMITED, cpu_millis: Self::UNLIMITED, memory_mib: Self::UNLIMITED };

    /// A request of `slots` slots and nothing else.
    pub const fn slots(slots: u64) -> Self {
        Self { slots, cpu_millis: 0, memory_mib: 0 }
    }

    /// A capacity of `slots` slots, not limited in the other dimensions.
    pub const fn slots_only(slots: u64) -> Self {
        Self { slots, cpu_millis: Self::UNLIMITED, memory_mib: Self::UNLIMITED }
    }

    /// The sum; saturates, so that an unlimited dimension stays unlimited.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            slots: self.slots.saturating_add(other.slots),
            cpu_millis: self.cpu_millis.saturating_add(other.cpu_millis),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
        }
    }

    /// What is left of a capacity after `taken`: never below zero, and unlimited stays unlimited.
    #[must_use]
    pub const fn minus(self, taken: Self) -> Self {
        const fn dimension(have: u64, taken: u64) -> u64 {
            if have == Resources::UNLIMITED { have } else { have.saturating_sub(taken) }
        }
        Self {
            slots: dimension(self.slots, taken.slots),
            cpu_millis: dimension(self.cpu_millis, taken.cpu_millis),
            memory_mib: dimension(self.memory_mib, taken.memory_mib),
        }
    }

    /// The smaller of the two in each dimension.
    #[must_use]
    pub fn cut_to(self, other: Self) -> Self {
        Self {
            slots: self.slots.min(other.slots),
            cpu_millis: self.cpu_millis.min(other.cpu_millis),
            memory_mib: self.memory_mib.min(other.memory_mib),
        }
    }

    /// The same request `count` times over; saturates.
    #[must_use]
    pub const fn times(self, count: u64) -> Self {
        Self {
            slots: self.slots.saturating_mul(count),
            cpu_millis: self.cpu_millis.saturating_mul(count),
            memory_mib: self.memory_mib.saturating_mul(count),
        }
    }

    /// Whether this fits into `room` in every dimension.
    pub const fn fits(self, room: Self) -> bool {
        self.slots <= room.slots && self.cpu_millis <= room.cpu_millis && self.memory_mib <= room.memory_mib
    }

    /// How many of this request fit into `room`; `u64::MAX` when nothing limits it.
    pub fn count_in(self, room: Self) -> u64 {
        const fn dimension(request: u64, room: u64) -> u64 {
            if request == 0 || room == Resources::UNLIMITED { u64::MAX } else { room / request }
        }
        dimension(self.slots, room.slots)
            .min(dimension(self.cpu_millis, room.cpu_millis))
            .min(dimension(self.memory_mib, room.memory_mib))
    }

    /// Whether every dimension is zero.
    pub const fn is_zero(self) -> bool {
        self.slots == 0 && self.cpu_millis == 0 && self.memory_mib == 0
    }

    /// What a frozen container of this request still holds: its memory.
    #[must_use]
    pub const fn when_frozen(self) -> Self {
        Self { slots: 0, cpu_millis: 0, memory_mib: self.memory_mib }
    }
}

/// A service, as an index into [`crate::State::services`]; the order is that of the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);

/// An instance, as an index into [`crate::State::instances`]; the order is that of the names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(pub u32);

impl ServiceId {
    /// The index, for slices.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

impl InstanceId {
    /// The index, for slices.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Which container: the `ordinal`-th of a service on an instance.
///
/// The driver makes the container's name from it, so it is known before the engine has given an id, and a
/// second start of the same key is "already so".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerKey {
    /// Where it runs.
    pub instance: InstanceId,
    /// What it is one of.
    pub service: ServiceId,
    /// The smallest number that was free when it was planned.
    pub ordinal: u32,
}

/// Whether a service follows a demand or takes all that is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServiceKind {
    /// Runs as many containers as are demanded.
    Demand,
    /// Wants all that is left, up to `max`.
    Fill,
}

/// How room is taken from a container of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OnPreempt {
    /// It is stopped; what it was doing is lost.
    Stop,
    /// It is suspended in place, within the instance's bounds for frozen containers; over them it is stopped.
    Freeze,
}

/// Whether a container of a service may begin to run beside what is being frozen to make room for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Overlap {
    /// It waits until that is frozen.
    #[default]
    Never,
    /// It does not wait: for as long as the freeze takes, the instance holds both, in slots and CPU. Memory is never
    /// taken twice; and whoever has to wait for one that is stopped waits for all.
    Swap,
}

/// Which instance a new container prefers, among those that cost the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Placement {
    /// The instance with the fewest containers of the service, so that losing one hurts least.
    #[default]
    Spread,
    /// The fullest instance, so that large requests find whole instances empty.
    BinPack,
}

/// What a stale demand becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnStale {
    /// The last fresh value, for as long as it takes.
    #[default]
    Hold,
    /// The last fresh value for `after_ms` more, then `containers`.
    Fallback {
        /// The demand from then on.
        containers: u32,
        /// Milliseconds from the moment that the demand became stale.
        after_ms: u64,
    },
}

/// The last that was heard of a service's demand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Reading {
    /// Nothing was ever heard, or the source says that it does not know.
    #[default]
    Unknown,
    /// The source said `containers`, and last confirmed it at `confirmed_at`.
    Known {
        /// 0 to 1,000,000; 0 is a demand like any other.
        containers: u32,
        /// When the source's last complete answer arrived.
        confirmed_at: Millis,
    },
}

/// How far a demand can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// Confirmed within `stale_after_ms`.
    Fresh,
    /// Not confirmed for longer; the last value, or the fallback, stands in.
    Stale,
    /// Not known: nothing changes.
    Unknown,
}

/// A kind of container, and how much of it is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Unique among services.
    pub name: String,
    /// 1 is the most important; a larger number is less important.
    pub priority: u32,
    /// Follows a demand, or fills.
    pub kind: ServiceKind,
    /// Its part of what services of the same priority share; 1 to 1,000.
    pub weight: u32,
    /// What one container takes; at least one slot, so that slots bound how many there can be.
    pub request: Resources,
    /// The target is at least this; it reserves nothing against more important work.
    pub min: u32,
    /// The target is at most this.
    pub max: u32,
    /// How room is taken from it.
    pub on_preempt: OnPreempt,
    /// Whether its containers may begin beside what is being frozen for them.
    pub overlap: Overlap,
    /// Containers kept frozen and ready on each ready instance.
    pub standby_per_instance: u32,
    /// Where new containers go.
    pub placement: Placement,
    /// A fall in demand takes effect after this long; 0 is at once.
    pub scale_down_after_ms: u64,
    /// A container younger than this is the last choice as a victim, and is not stopped for a change of share.
    pub min_runtime_ms: u64,
    /// The first container of a new generation is trusted to take over from an older one once it has run for this
    /// long; 0 is at once.
    pub proven_after_ms: u64,
    /// A demand not confirmed for this long is stale.
    pub stale_after_ms: u64,
    /// What a stale demand becomes.
    pub on_stale: OnStale,
    /// Nothing new is started for it; what runs is kept while it is wanted.
    pub paused: bool,
    /// No longer in the configuration: whatever it runs is surplus, and less important than anything else.
    pub removed: bool,
}

impl Service {
    /// A service that follows a demand, with every other setting at its default.
    pub fn demand(name: impl Into<String>, priority: u32) -> Self {
        Self {
            name: name.into(),
            priority,
            kind: ServiceKind::Demand,
            weight: 1,
            request: Resources::ONE_SLOT,
            min: 0,
            max: u32::MAX,
            on_preempt: OnPreempt::Stop,
            overlap: Overlap::Never,
            standby_per_instance: 0,
            placement: Placement::Spread,
            scale_down_after_ms: 0,
            min_runtime_ms: 0,
            proven_after_ms: 0,
            stale_after_ms: 15_000,
            on_stale: OnStale::Hold,
            paused: false,
            removed: false,
        }
    }

    /// A service that takes all that is left, with every other setting at its default.
    pub fn fill(name: impl Into<String>, priority: u32) -> Self {
        Self { kind: ServiceKind::Fill, ..Self::demand(name, priority) }
    }
}

/// What may be done with an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InstanceState {
    /// Starts and stops as planned.
    Ready,
    /// Nothing new starts there; what runs stays.
    Cordoned,
    /// As cordoned, and what runs there is moved: stopped once its replacement runs elsewhere.
    Draining,
    /// Does not answer: nothing there is counted, nothing is asked of it.
    Lost,
}

/// One container host of the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Unique among instances.
    pub name: String,
    /// What may be done with it.
    pub state: InstanceState,
    /// What it has; an unset dimension is [`Resources::UNLIMITED`].
    pub capacity: Resources,
    /// At most this many frozen containers.
    pub frozen_max: u32,
    /// At most this much memory in frozen containers.
    pub frozen_memory_mib: u64,
    /// A frozen container that is to end is killed when it has waited for room to end in for this long; 0 is at once.
    pub evict_after_ms: u64,
}

impl Instance {
    /// A ready instance with the bounds for frozen containers at their defaults: as many as the capacity allows.
    pub fn ready(name: impl Into<String>, capacity: Resources) -> Self {
        Self {
            name: name.into(),
            state: InstanceState::Ready,
            capacity,
            frozen_max: u32::MAX,
            frozen_memory_mib: Resources::UNLIMITED,
            evict_after_ms: 10_000,
        }
    }
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The engine knows it; it has not been started. Takes nothing.
    Created,
    /// On its way to running. Takes its request.
    Starting,
    /// Runs. Takes its request.
    Running,
    /// Suspended in place. Takes its memory.
    Frozen,
    /// On its way out. Takes its request until it is gone.
    Stopping,
    /// Ended. Takes nothing; to be removed.
    Exited,
}

/// Why a container that takes its room is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// It has not become ready in time: a start that has failed. It is stopped.
    NotReady,
    /// It was ready, and is no longer. It does not count as running, and is replaced.
    Unhealthy,
}

/// What is being done to a container right now, on our own behalf.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// It is being created and started, once every container in `after` has left its room.
    Start {
        /// The containers whose room it still waits for; one that has left it once is not waited for again.
        after: Vec<ContainerKey>,
    },
    /// It is being thawed, once every container in `after` has left its room.
    Thaw {
        /// The containers whose room it still waits for; one that has left it once is not waited for again.
        after: Vec<ContainerKey>,
    },
    /// It is being stopped.
    Stop,
    /// It is frozen, and is being stopped in the room that others lend it.
    Evict {
        /// The containers whose room it still waits for; one that has left it once is not waited for again.
        after: Vec<ContainerKey>,
    },
    /// It is frozen, and is being ended without running again, in no room.
    Kill,
    /// It is being frozen.
    Freeze,
    /// It is being removed.
    Remove,
}

/// One container, as the engine reports it together with what we are doing to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// Which it is.
    pub key: ContainerKey,
    /// The phase that the engine reports; [`Phase::Created`] for one that is only on its way, [`Phase::Starting`] for
    /// one that is not ready yet.
    pub phase: Phase,
    /// Why it is of no use, if so.
    pub fault: Option<Fault>,
    /// Our own action on it that has not ended yet.
    pub operation: Option<Operation>,
    /// When it started to run (or was created, before that); orders victims by the work they would lose.
    pub since: Millis,
    /// Of another generation than its service has now.
    pub outdated: bool,
}

impl Container {
    /// Whether it runs and is of use.
    pub const fn runs(&self) -> bool {
        matches!(self.phase, Phase::Running) && self.fault.is_none()
    }

    /// Whether it has run without being of use any more.
    pub const fn is_unhealthy(&self) -> bool {
        matches!(self.fault, Some(Fault::Unhealthy))
    }
}
